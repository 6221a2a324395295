"""The configuration of NVIDIA's k8s-device-plugin, version v1, as its YAML says it.

It is converted as written; a note says where that plugin (0.20 and older) does not do what its file
says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from sgpud.cli.convert.draft import Draft, listed, shares, table, truth, whole
from sgpud.cli.convert.nvidia_flags import flags

PREFIX = "nvidia.com/"
GPU = PREFIX + "gpu"
_MIG = PREFIX + "mig-"
MOST_GPUS = 64
"""GPUs of a node, at most, where a file gives their number only."""
_TOP = {"version", "flags", "resources", "sharing", "health", "imex"}


@frozen
class _Replicas:
    """One entry of a list of shared resources."""

    place: str
    name: str
    """The resource that is shared."""
    shown: str
    """The resource that pods ask for."""
    count: int
    devices: tuple[str, ...] | None
    """The GPUs it applies to; None for all."""


def is_nvidia(document: Mapping[str, Any]) -> bool:
    """Whether a document is such a file."""
    return bool(_TOP & set(document))


def convert_nvidia(document: Mapping[str, Any]) -> Draft:
    """The configuration of NVIDIA's plugin, for sgpud."""
    draft = Draft("NVIDIA's device plugin")
    if document.get("version", "v1") != "v1":
        draft.note("version", f"{document['version']!r} was read as v1, the known version")
    for key in sorted(set(document) - _TOP):
        draft.note(key, "is unknown and was ignored")
    if document.get("imex"):
        draft.note("imex", "sgpud does not support IMEX channels: ignored")
    replicas = tuple(_sharing(table(document.get("sharing"), "sharing", draft), draft))
    _terms(replicas, _patterns(document.get("resources"), draft), draft)
    flags(table(document.get("flags"), "flags", draft), draft)
    health(table(document.get("health"), "health", draft), draft)
    return draft


def mig_profile(text: str) -> str:
    """A MIG profile as NVML names it, of the way in which it stands in a resource's name.

    A resource's name has `.` for every `+`, and a profile one `+` at most, after its memory.
    """
    return re.sub(r"(?<=gb)\.", "+", text, count=1)


def _full(name: object) -> str:
    """A resource's name as the plugin completes it."""
    text = str(name)
    return text if text.startswith(PREFIX) else PREFIX + text


def _sharing(sharing: Mapping[str, Any], draft: Draft) -> Iterator[_Replicas]:
    multiple = "any"
    for way, config in sharing.items():
        place = f"sharing.{way}"
        if way not in ("timeSlicing", "mps"):
            draft.note(place, "is unknown and was ignored")
            continue
        given = table(config, place, draft)
        if way == "mps":
            draft.note(
                place,
                "MPS was not converted: containers take turns on the GPU, and nothing limits"
                ' them to a part of its memory. Write share_memory = "1GiB" to have memory counted',
            )
        if truth(given.get("failRequestsGreaterThanOne", way == "mps")):
            multiple = "refuse"
        for key in sorted(set(given) - {"renameByDefault", "failRequestsGreaterThanOne"}):
            if key != "resources":
                draft.note(f"{place}.{key}", "is unknown and was ignored")
        renamed = truth(given.get("renameByDefault"))
        for number, entry in enumerate(listed(given.get("resources"), f"{place}.resources", draft)):
            at = f"{place}.resources[{number}]"
            yield from _replicas(table(entry, at, draft), at, draft, renamed=renamed)
    draft.set("sharing", "multiple", multiple)


def _replicas(
    entry: Mapping[str, Any], place: str, draft: Draft, *, renamed: bool
) -> Iterator[_Replicas]:
    for key in sorted(set(entry) - {"name", "rename", "devices", "replicas"}):
        draft.note(f"{place}.{key}", "is unknown and was ignored")
    count = shares(entry.get("replicas"), f"{place}.replicas", draft)
    if count is None or not entry.get("name"):
        draft.note(place, "has no name or no replicas and was ignored")
        return
    name = _full(entry["name"])
    shown = f"{name}.shared" if renamed else name
    if entry.get("rename"):
        if _full(entry["rename"]) != shown:
            draft.note(
                f"{place}.rename",
                f"was converted, but NVIDIA's plugin ignores it: pods request {shown}",
            )
        shown = _full(entry["rename"])
    yield _Replicas(place, name, shown, count, _devices(entry.get("devices"), place, draft))


def _devices(value: object, place: str, draft: Draft) -> tuple[str, ...] | None:
    if value in (None, "all"):
        return None
    ignored = "NVIDIA's plugin ignores devices and shares every GPU; sgpud applies it"
    draft.note(f"{place}.devices", ignored)
    if not isinstance(value, list):
        return tuple(map(str, range(min(whole(value) or 0, MOST_GPUS))))
    found: list[str] = []
    for device in map(str, value):
        if ":" in device or "/" in device:
            draft.note(f"{place}.devices", f"{device}: write the UUID of that MIG instance instead")
        else:
            found.append(device)
    return tuple(found)


def _patterns(resources: object, draft: Draft) -> list[tuple[str, str]]:
    """Product globs with their resources; the plugin ignores them, which is said."""
    given = table(resources, "resources", draft)
    found: list[tuple[str, str]] = []
    for kind, prefix in (("gpus", ""), ("mig", "*MIG ")):
        for entry in listed(given.get(kind), f"resources.{kind}", draft):
            pair = table(entry, f"resources.{kind}", draft)
            if pair.get("pattern") and pair.get("name"):
                pattern = str(pair["pattern"])
                named = mig_profile(pattern) if kind == "mig" else pattern
                found.append((f"{prefix}{named}", _full(pair["name"])))
    if any(pair != ("*", GPU) for pair in found):
        draft.note("resources", "NVIDIA's plugin ignores it; sgpud applies it")
    return found


def _terms(replicas: tuple[_Replicas, ...], patterns: list[tuple[str, str]], draft: Draft) -> None:
    """The default and the rules: named GPUs before products, products before the rest."""
    everything = {each.name: each for each in replicas if each.devices is None}
    rest = everything.pop(GPU, None)
    draft.set("sharing", "resource", rest.shown if rest else GPU)
    draft.set("sharing", "duplication_factor", rest.count if rest else 1)
    for each in replicas:
        for device in each.devices or ():
            draft.rules.append(_rule(device, each.shown, each.count))
    for pattern, name in patterns:
        found = everything.get(name) or (rest if name == GPU else None)
        if pattern != "*":
            draft.rules.append(
                _rule(pattern, *((found.shown, found.count) if found else (name, 1)))
            )
    known = {name for _, name in patterns}
    for name, each in everything.items():
        if name.startswith(_MIG):
            profile = mig_profile(name.removeprefix(_MIG))
            draft.rules.append(_rule(f"*MIG {profile}", each.shown, each.count))
        elif name not in known:
            draft.note(each.place, f"{name} matches no known kind of GPU and was ignored")
    if not replicas:
        draft.note(
            "sharing",
            "nothing is shared: each GPU is one share; raise duplication_factor to share it",
        )


def _rule(match: str, resource: str, count: int) -> dict[str, Any]:
    return {"match": match, "resource": resource, "duplication_factor": count}


def health(given: Mapping[str, Any], draft: Draft) -> None:
    """XIDs that are ignored stay so; those that are critical take a GPU out until it was reset."""
    ignored = _xids(given.get("ignoredXIDs"), "health.ignoredXIDs", draft)
    if ignored:
        draft.set("health", "ignore", ignored)
    critical = given.get("criticalXIDs")
    if critical is not None and str(critical).lower() != "all":
        reset = [x for x in _xids(critical, "health.criticalXIDs", draft) if x not in ignored]
        draft.set("health", "reset", reset)
        draft.note("health.criticalXIDs", "other XIDs are classified as in `sgpud xids`")
    elif critical is not None:
        draft.note("health.criticalXIDs", "not every XID: they are classified as in `sgpud xids`")
    if str(given.get("disabled")).lower() == "true":
        draft.note(
            "health.disabled", "sgpud always checks health; list XIDs in [health] ignore instead"
        )
    for key in sorted(set(given) - {"disabled", "eventTypes", "ignoredXIDs", "criticalXIDs"}):
        draft.note(f"health.{key}", "is unknown and was ignored")


def _xids(value: object, place: str, draft: Draft) -> list[int]:
    found: list[int] = []
    for each in listed(value, place, draft):
        number = whole(each)
        if number:
            found.append(number)
        else:
            draft.note(place, f"{each!r} is not an XID and was ignored")
    return list(dict.fromkeys(found))
