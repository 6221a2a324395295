"""Why a pod has the shares it has, or why it did not start."""

from __future__ import annotations

from collections.abc import Sequence

from sgpud.core.allocation.decisions import Decision, DecisionKind
from sgpud.core.explain.sentences import (
    Findings,
    HeldView,
    all_held,
    allocations_of,
    cap_sentences,
    enforcement_sentences,
    health_sentences,
    moment,
    obstacles,
    overuse_sentences,
    shares,
)
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Plan
from sgpud.core.status.view import NodeView
from sgpud.core.text import several
from sgpud.core.units import format_size


def about_pod(
    name: str, node: Node, plan: Plan | None, seen: NodeView, decisions: Sequence[Decision]
) -> Findings:
    """What a pod (NAME, NAMESPACE/NAME or UID) holds and why; or what may have kept it out."""
    held = tuple(one for one in all_held(seen) if _is(name, one.namespace, one.pod, one.uid))
    if held:
        holders = node.checkpoint.holders if node.checkpoint else ()
        mine = [one for one in holders if _is(name, one.namespace, one.name, one.pod)]
        return _holding(held, node, seen, allocations_of(mine, decisions))
    return _missing(name, plan, seen, decisions)


def _is(name: str, namespace: str, pod: str, uid: str) -> bool:
    return name in {uid, pod, f"{namespace}/{pod}"} - {"", "/"}


def _holding(
    held: tuple[HeldView, ...], node: Node, seen: NodeView, given: tuple[Decision, ...]
) -> Findings:
    sentences = [
        f"{one.named} holds {shares(one.shares)} of {one.resource} on {one.gpu}"
        f"{f' ({format_size(one.bytes)})' if one.bytes else ''}"
        f"{f', since {moment(one.since)}' if one.since else ''}."
        for one in held
    ]
    for gpu in dict.fromkeys(one.gpu for one in held):
        sentences += health_sentences(gpu, seen, healthy=False)
        if any(one.bytes for one in held if one.gpu == gpu):
            sentences += enforcement_sentences(seen, {gpu})
        for uid in dict.fromkeys(one.uid for one in held if one.gpu == gpu and one.uid):
            sentences += cap_sentences(node, uid, gpu)
            sentences += overuse_sentences(seen, {gpu}, uid)
    if seen.dra:
        sentences.append("The scheduler chose the GPU, through Dynamic Resource Allocation.")
    elif not given:
        sentences.append(
            "How they were chosen is no longer known: it was before this sgpud started, or"
            " too many decisions ago."
        )
    sentences += [_doubt(seen)] if seen.holders else []
    return Findings("pod", tuple(sentences), held, given)


def _missing(
    name: str, plan: Plan | None, seen: NodeView, decisions: Sequence[Decision]
) -> Findings:
    refusals = tuple(one for one in decisions if one.kind is DecisionKind.REFUSAL)
    nameless = {one.uid for one in all_held(seen) if not one.pod}
    first = f"No container of a pod {name} holds a share on this node."
    if nameless:
        first = (
            f"Whether a container of a pod {name} holds a share is not known yet: the kubelet has"
            f" not named {several(len(nameless), 'pod')} with shares. Ask again in a second, or"
            " with the pod's UID."
        )
    sentences = [first]
    sentences += [_doubt(seen)] if seen.holders else []
    sentences.append(_about(refusals, decisions))
    sentences += obstacles(plan, seen)
    return Findings("pod", tuple(sentences), (), refusals)


def _doubt(seen: NodeView) -> str:
    return f"Holders may be stale: {seen.holders}."


def _about(refusals: Sequence[Decision], decisions: Sequence[Decision]) -> str:
    if not decisions:
        return (
            "The kubelet has asked for no share since this sgpud started: if the pod is Pending,"
            " the scheduler has not bound it to this node (kubectl describe pod says why)."
        )
    since = moment(decisions[0].at)
    if not refusals:
        return (
            f"No container was refused since {since}: if the pod is Pending, the scheduler has not"
            " bound it to this node (kubectl describe pod says why)."
        )
    return (
        f"Refused since {since}: {several(len(refusals), 'container')}; the kubelet does not say"
        " whose. If the pod failed with UnexpectedAdmissionError, the message in its events"
        " (kubectl describe pod) is that of one of the refusals below."
    )
