"""One CDI spec, as the runtimes accept it: what a document defines, or why they refuse it whole.

The rules are those of the CDI library that containerd, CRI-O and podman use: what each version
allows, which edits are complete, and which device a node is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from attrs import frozen

from sgpud.core.limits.caps import HOOK

_NODE = re.compile(r".*/(nvidia[0-9]+|nvidia-cap[0-9]+|dxg)")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?", re.ASCII)
_VERSION = re.compile(r"0\.[1-8]\.0|1\.[0-9]{1,3}\.[0-9]{1,3}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_IS_GPU = re.compile(r"nvidia[0-9]+")
_GPUS = 195
"""The major number of /dev/nvidiaN, whose minor number is N,"""
_FIRST_OTHER = 254
"""and of other nodes of the driver, from this minor number on."""
_HOOKS = {
    *("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"),
}
_NODE_TYPES = ("", "b", "c", "u", "p")
_PERMISSIONS = re.compile(r"[rwm]*|none")
_EDITS = (
    *("env", "deviceNodes", "hooks", "mounts", "intelRdt", "additionalGids", "additionalGIDs"),
    "netDevices",
)
"""What edits may hold: a device without any of it is refused."""


class NotASpecError(Exception):
    """A document that is not a valid CDI spec."""


@frozen
class CdiDevice:
    """One device, as a runtime resolves its name."""

    name: str
    nodes: frozenset[str]
    """The GPU and capability nodes that it injects, without folders: `nvidia0`."""
    spec: str
    limited: bool = False
    """Whether it brings the hook that applies memory limits."""


def parse_spec(document: object, spec: str) -> tuple[str, dict[str, CdiDevice]]:
    """The kind and the devices of a spec, which is called `spec`; NotASpecError."""
    if not isinstance(document, dict) or not isinstance(document.get("cdiVersion"), str):
        raise NotASpecError("cdiVersion is missing")
    version = document["cdiVersion"].removeprefix("v")
    if not isinstance(document.get("kind"), str):
        raise NotASpecError("kind is missing")
    if not _VERSION.fullmatch(version):
        raise NotASpecError(f"no runtime knows cdiVersion {version[:20]}")
    common = _edits(document, "the spec")
    needs = list(_needs(document, common, "the spec"))
    found: dict[str, CdiDevice] = {}
    for device in _list(document, "devices"):
        name = _named(device)
        if name in found:
            raise NotASpecError(f"two devices with the name {name}")
        edits = _edits(device, f"device {name}")
        if not any(edits.get(key) for key in _EDITS):
            raise NotASpecError(f"device {name} has no containerEdits")
        needs += _needs(device, edits, f"device {name}")
        nodes = frozenset((*_nodes(common), *_nodes(edits)))
        found[name] = CdiDevice(name, nodes, spec, _limited(common) or _limited(edits))
    if not found:
        raise NotASpecError("it has no devices")
    _check_version(version, needs)
    return document["kind"], found


def _named(device: object) -> str:
    if not isinstance(device, dict) or not isinstance(device.get("name"), str):
        raise NotASpecError("a device without a name")
    name: str = device["name"]
    if not _NAME.fullmatch(name):
        raise NotASpecError(f"a device with the invalid name {name[:40]!r}")
    return name


def _check_version(version: str, needs: Iterable[tuple[str, tuple[int, int]]]) -> None:
    """NotASpecError for what the version of a spec does not allow yet."""
    major, minor, _ = map(int, version.split("."))
    for what, first in needs:
        if (major, minor) < first:
            raise NotASpecError(
                f"{what}, which cdiVersion {first[0]}.{first[1]}.0 is the first to allow,"
                f" and it says {version}"
            )


def _needs(
    holder: Mapping[str, Any], edits: Mapping[str, Any], place: str
) -> Iterator[tuple[str, tuple[int, int]]]:
    """What a spec or a device has that only a certain version and later ones allow."""
    if any(mount.get("type") for mount in _list(edits, "mounts")):
        yield f"a mount of {place} has a type", (0, 4)
    if str(holder.get("name", ""))[:1].isdigit():
        yield f"{place} begins with a digit", (0, 5)
    if any(node.get("hostPath") for node in _list(edits, "deviceNodes")):
        yield f"a device node of {place} has a hostPath", (0, 5)
    if holder.get("annotations"):
        yield f"{place} has annotations", (0, 6)
    if "." in str(holder.get("kind", "")).partition("/")[2]:
        yield "the class of its kind has a dot", (0, 6)
    if edits.get("intelRdt") is not None:
        yield f"{place} has intelRdt", (0, 7)


def _edits(holder: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    """The edits of a spec or of a device; NotASpecError for such as no runtime takes."""
    edits = holder.get("containerEdits")
    if edits is None:
        return {}
    if not isinstance(edits, dict):
        raise NotASpecError(f"containerEdits of {place} is not a mapping")
    for variable in _list(edits, "env"):
        if str(variable).find("=") < 1:
            raise NotASpecError(f"{place} has the invalid variable {str(variable)[:40]!r}")
    for key, problem_of in _CHECKS.items():
        for each in _list(edits, key):
            problem = problem_of(each) if isinstance(each, dict) else "is not a mapping"
            if problem:
                raise NotASpecError(f"an entry of {key} of {place} {problem}")
    return edits


def _node_problem(node: Mapping[str, Any]) -> str:
    if not node.get("path"):
        return "has no path"
    if str(node.get("type") or "") not in _NODE_TYPES:
        return f"has the invalid type {str(node['type'])[:40]!r}"
    known = _PERMISSIONS.fullmatch(str(node.get("permissions") or ""))
    return "" if known else f"has the invalid permissions {str(node['permissions'])[:40]!r}"


def _hook_problem(hook: Mapping[str, Any]) -> str:
    if hook.get("hookName") not in _HOOKS:
        return f"has the unknown hookName {str(hook.get('hookName'))[:40]!r}"
    return "" if hook.get("path") else "has no path"


def _mount_problem(mount: Mapping[str, Any]) -> str:
    missing = [key for key in ("hostPath", "containerPath") if not mount.get(key)]
    return f"has no {' and no '.join(missing)}" if missing else ""


_CHECKS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "deviceNodes": _node_problem,
    "hooks": _hook_problem,
    "mounts": _mount_problem,
}


def _nodes(edits: Mapping[str, Any]) -> Iterator[str]:
    """The nodes of GPUs that edits inject."""
    for node in _list(edits, "deviceNodes"):
        found = _NODE.fullmatch(str(node.get("hostPath") or node["path"]))
        major, minor = (_number(node.get(key)) for key in ("major", "minor"))
        if major == _GPUS:
            # A node with its numbers given is what these say, whatever it is called.
            if minor < _FIRST_OTHER:
                yield f"nvidia{minor}"
        elif found and not (major and _IS_GPU.fullmatch(found[1])):
            yield found[1]


def _number(value: object) -> int:
    """A device number; 0 where none is given."""
    text = str(value)
    return int(text) if _NUMBER.fullmatch(text) else 0


def _limited(edits: Mapping[str, Any]) -> bool:
    return any(HOOK in _list(hook, "args") for hook in _list(edits, "hooks"))


def _list(holder: Mapping[str, Any], key: str) -> list[Any]:
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise NotASpecError(f"{key} is not a list")
    return value
