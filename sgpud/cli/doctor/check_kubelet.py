"""Checks of the kubelet: its folder, its sockets, and other plugins for the same GPUs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from sgpud.cli.doctor.facts import Finding, NodeFacts, Severity
from sgpud.core.sharing.share_id import parse_share_id

_UUID = re.compile(r"(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BY_INDEX = re.compile(r"nvidia([0-9]{1,4})(?:[:/_-].*)?")
"""Google's plugin, and others after it, name GPUs by their device node."""


def check_directory(facts: NodeFacts) -> Iterator[Finding]:
    """Whether the kubelet can be reached in the plugin directory."""
    kubelet = facts.kubelet
    where = kubelet.directory
    hint = (
        f"There is a kubelet.sock in {' and '.join(kubelet.elsewhere)}: set [kubelet]"
        " plugin_directory to it."
        if kubelet.elsewhere
        else "Start the kubelet, or set [kubelet] plugin_directory to device-plugins below its"
        " --root-dir; in a container mount that folder."
    )
    if kubelet.directory_state != "there":
        yield Finding(
            "kubelet",
            Severity.ERROR,
            f"{where} is {kubelet.directory_state}",
            "sgpud cannot register, and the node shows no share.",
            hint,
        )
    elif kubelet.socket != "answers":
        yield Finding(
            "kubelet",
            Severity.ERROR,
            f"{where}/kubelet.sock: {kubelet.socket}",
            "sgpud cannot register until the kubelet runs; it does so then.",
            hint,
        )
    else:
        yield Finding("kubelet", Severity.GOOD, f"the kubelet answers in {where}")


def check_order(facts: NodeFacts) -> Iterator[Finding]:
    """Whether sgpud starts before the kubelet when the node boots."""
    for unit in facts.kubelet.unordered:
        yield Finding(
            "order",
            Severity.WARNING,
            f"sgpud.service is not ordered before {unit}",
            "After a reboot the kubelet admits existing pods once: those whose shares are not"
            " registered by then fail (UnexpectedAdmissionError).",
            f"`systemctl edit sgpud`: [Unit] and Before={unit}.",
        )


def check_pod_resources(facts: NodeFacts) -> Iterator[Finding]:
    """Whether the kubelet can be asked which pods hold shares."""
    kubelet = facts.kubelet
    path, state = kubelet.pod_resources_path, kubelet.pod_resources
    if state == "answers":
        yield Finding("podresources", Severity.GOOD, f"{path} answers")
        return
    yield Finding(
        "podresources",
        Severity.WARNING,
        f"{path}: {state}",
        "sgpud notices the end of a pod late, and shows pods by UID only.",
        "Set [kubelet] pod_resources to the kubelet's socket; in a container mount its folder.",
    )


def check_checkpoint(facts: NodeFacts) -> Iterator[Finding]:
    """Whether the kubelet's checkpoint can be read."""
    problem = facts.kubelet.checkpoint_problem
    if problem:
        yield Finding(
            "checkpoint",
            Severity.WARNING,
            problem,
            "After a restart sgpud does not know who holds shares, and removes none until it does.",
            "Run doctor as root. If it is corrupt, the next pod makes the kubelet rewrite it.",
        )


def check_rivals(facts: NodeFacts) -> Iterator[Finding]:
    """Whether another plugin or driver offers the GPUs that sgpud shares."""
    own = set(facts.configuration.sharing.resources if facts.configuration.sharing else ())
    view = facts.view or {}
    own |= {pool["resource"] for pool in view.get("pools", ())}
    uuids = {name for gpu in facts.driver.gpus for name in (gpu.uuid, gpu.physical)}
    indexes = {gpu.index for gpu in facts.driver.gpus}
    known = uuids | {gpu["uuid"] for pool in view.get("pools", ()) for gpu in pool["gpus"]}
    rivals = 0
    for resource, ids in sorted(facts.kubelet.registered.items()):
        if resource in own:
            foreign = [one for one in ids if not _ours(one, known)]
            if foreign:
                rivals += 1
                yield _namesake(resource, foreign)
            continue
        same = [one for one in ids if _means(one, uuids, indexes)]
        if same:
            rivals += 1
            yield _rival(resource, same)
    for socket in facts.kubelet.drivers:
        rivals += 1
        yield Finding(
            "rivals",
            Severity.WARNING,
            f"{socket}: a DRA driver for NVIDIA's GPUs is registered with the kubelet",
            "It may give whole GPUs to pods while sgpud shares them with others.",
            "Keep the GPUs apart ([gpus] deny, or the driver's own settings), or run one of them.",
        )
    if not rivals and facts.kubelet.registered:
        names = ", ".join(sorted(facts.kubelet.registered))
        what = f"no other plugin offers GPUs of this node (registered: {names})"
        yield Finding("rivals", Severity.GOOD, what)


def _namesake(resource: str, ids: list[str]) -> Finding:
    return Finding(
        "rivals",
        Severity.ERROR,
        f"another plugin serves {resource}: it listed {len(ids)} ids, e.g. {ids[0]}",
        "The kubelet asks the plugin that registered last: one refuses what the other listed, and"
        " pods fail at random.",
        "Remove the other device plugin from this node, or give sgpud's shares another name"
        " ([sharing] resource).",
    )


def _rival(resource: str, ids: list[str]) -> Finding:
    what = f"{resource} offers the same GPUs: {len(ids)} ids, e.g. {ids[0]}"
    return Finding(
        "rivals",
        Severity.ERROR,
        what,
        "Two plugins offer the same GPUs: pods get less memory than either assumes. A resource"
        " that was removed from sgpud's configuration disappears within 5 minutes.",
        "Remove the other device plugin from this node, or keep its GPUs out with [gpus] deny:"
        " docs/clusters.md, Beside another GPU plugin.",
    )


def _ours(one: str, known: Collection[str]) -> bool:
    """Whether an id is one that sgpud lists: a share of a known GPU."""
    share = parse_share_id(one)
    return share is not None and (not known or share[0] in known)


def _means(one: str, uuids: Iterable[str], indexes: Iterable[int]) -> bool:
    """Whether a plugin's id refers to a GPU of this node; any does if no GPU is known."""
    if any(uuid in one for uuid in uuids):
        return True
    index = _BY_INDEX.fullmatch(one)
    if index is None:
        return not uuids and _UUID.search(one) is not None
    return not indexes or int(index[1]) in indexes
