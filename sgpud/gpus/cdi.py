"""The CDI name of a GPU, by the specs on the node.

A runtime merges the specs by a rule of its own, and so does this: a folder that comes later wins,
device by device; a name that two files of one folder define is nobody's; a spec with one invalid
part is left out whole. Names depend on the options of the toolkit (UUIDs, or NVML's
indexes), and a spec stays as generated while GPUs come and go: a name is trusted only if it
injects the GPU's own device nodes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from attrs import Factory, define, frozen

from sgpud.core.errors import SgpudError
from sgpud.core.gpu.gpu import Gpu, same_uuid
from sgpud.core.limits.caps import HOOK
from sgpud.files import entries, read_regular, within

FOLDERS = ("/etc/cdi", "/var/run/cdi")
"""Where the container runtimes look for specs, by the CDI specification; the later one wins."""
LARGEST_SPEC = 4 << 20
MAKE = "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"
_NODE = re.compile(r".*/(nvidia[0-9]+|nvidia-cap[0-9]+|dxg)")
_KINDS = re.compile(rb"""kind["']?\s*:\s*["']?([A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+)""")
"""The kind in a file that may be neither JSON nor YAML."""
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?", re.ASCII)
_VERSION = re.compile(r"0\.[1-8]\.0|1\.[0-9]{1,3}\.[0-9]{1,3}", re.ASCII)
_EVERY = "all"
"""The name under which the toolkit hands over every GPU of the node, which may be one."""
_DIGITS_FROM = (0, 5)
"""The version from which on a name may begin with a digit, and a node may have a hostPath."""


@frozen
class CdiDevice:
    """One device, as a runtime resolves its name."""

    name: str
    nodes: frozenset[str]
    """The GPU and capability nodes that it injects, without folders: `nvidia0`."""
    spec: str
    limited: bool = False
    """Whether it brings the hook that applies memory limits."""


@frozen
class Specs:
    """The devices of one kind, in the specs of a node."""

    kind: str
    devices: Mapping[str, CdiDevice] = Factory(dict)
    """Those that a runtime resolves, by name."""
    conflicts: Mapping[str, tuple[str, str]] = Factory(dict)
    """The two specs of one folder that define a name, which no runtime resolves then."""
    unreadable: tuple[str, ...] = ()
    """Why a spec of this kind, or of an unknown kind, was ignored; with its path."""
    others: Mapping[str, frozenset[str]] = Factory(dict)
    """The names in specs of other kinds, by kind."""


class _NotASpecError(Exception):
    """A document that is not a valid CDI spec."""


def read_specs(
    root: Path, kind: str, *, on_other: Callable[[str], None] = lambda _reason: None
) -> Specs:
    """Read every spec below `root`; one that cannot be read is ignored and named.

    `on_other` gets the reason why one was left out that is not of this kind.
    """
    found = _Merge(kind)
    for rank, folder in enumerate(FOLDERS):
        for name in entries(root, folder):
            if not name.endswith((".json", ".yaml")):
                continue
            shown = f"{folder}/{name}"
            try:
                raw = read_regular(within(root, shown), LARGEST_SPEC)
            except OSError as error:
                found.unreadable.append(f"{shown} cannot be read: {error.strerror}")
                continue
            try:
                found.add(_document(raw, name), shown, rank)
            except (ValueError, RecursionError, SgpudError, _NotASpecError) as error:
                reason = f"{shown} is not a valid CDI spec: {error}"
                kinds = {each.decode() for each in _KINDS.findall(raw)}
                (on_other if kinds and kind not in kinds else found.unreadable.append)(reason)
    return found.specs()


def cdi_name(specs: Specs, gpu: Gpu, nodes: Sequence[str]) -> tuple[str, str]:
    """The fully qualified name of a GPU and "", or "" and why it has none.

    `nodes` are the host's device nodes of this GPU (its own, a MIG instance's capabilities too);
    without any only the UUID is taken, as nothing else can be checked.
    """
    named = [device for name, device in specs.devices.items() if _may_mean(name, gpu)]
    named.sort(key=lambda device: (device.name != gpu.uuid, not same_uuid(device.name, gpu.uuid)))
    own = {node.rpartition("/")[2] for node in nodes}
    for device in named:
        if device.nodes == own or (not own and same_uuid(device.name, gpu.uuid) and device.nodes):
            return f"{specs.kind}={device.name}", ""
    every = specs.devices.get(_EVERY)
    if every and own and every.nodes == own:
        return f"{specs.kind}={_EVERY}", ""
    return "", _why_none(specs, gpu, named, own) + "".join(f"; {why}" for why in specs.unreadable)


def _may_mean(name: str, gpu: Gpu) -> bool:
    pattern = rf"(?:mig)?{gpu.index}:[0-9]+" if gpu.mig else rf"(?:gpu)?{gpu.index}"
    return same_uuid(name, gpu.uuid) or re.fullmatch(pattern, name) is not None


def _why_none(specs: Specs, gpu: Gpu, named: Sequence[CdiDevice], own: set[str]) -> str:
    for name, (one, other) in specs.conflicts.items():
        if _may_mean(name, gpu):
            return (
                f"both {one} and {other} define {specs.kind}={name}, and a container runtime"
                " resolves neither: remove one of the two files"
            )
    if not specs.devices:
        kinds = [
            kind
            for kind, names in specs.others.items()
            if any(same_uuid(name, gpu.uuid) for name in names)
        ]
        advice = f"make one with {MAKE}"
        if kinds:
            listed = " and ".join(kinds)
            advice = f'{listed} names this GPU: set [container] cdi_kind = "{kinds[0]}"'
        return f"no CDI spec of {specs.kind} in {' or '.join(FOLDERS)} ({advice})"
    if not named:
        where = ", ".join(sorted({device.spec for device in specs.devices.values()}))
        return f"{where} names neither {gpu.uuid} nor index {gpu.index}: recreate it with {MAKE}"
    first = named[0]
    name = f"{specs.kind}={first.name} of {first.spec}"
    if not first.nodes:
        return f"{name} injects no GPU: recreate the spec with {MAKE}"
    if not own:
        return f"{name} cannot be verified: the GPU's device nodes are not known"
    return (
        f"{name} injects {', '.join(sorted(first.nodes))}, but this GPU is"
        f" {', '.join(sorted(own))}: recreate the spec with {MAKE}"
    )


@define
class _Merge:
    """The devices of one kind, by the rule of the runtimes."""

    kind: str
    devices: dict[str, tuple[int, CdiDevice]] = Factory(dict)
    """By name, with the rank of the folder."""
    conflicts: dict[str, tuple[str, str]] = Factory(dict)
    unreadable: list[str] = Factory(list)
    others: dict[str, frozenset[str]] = Factory(dict)

    def add(self, document: object, shown: str, rank: int) -> None:
        kind, devices = _parsed(document, shown)
        if kind != self.kind:
            self.others[kind] = self.others.get(kind, frozenset()) | set(devices)
            return
        for name, device in devices.items():
            known = self.devices.get(name)
            if known and known[0] == rank:
                self.conflicts[name] = (known[1].spec, shown)
            else:
                self.devices[name] = (rank, device)

    def specs(self) -> Specs:
        return Specs(
            self.kind,
            {name: one for name, (_, one) in self.devices.items() if name not in self.conflicts},
            self.conflicts,
            tuple(self.unreadable),
            self.others,
        )


def _document(raw: bytes, name: str) -> object:
    if name.endswith(".json"):
        return json.loads(raw.decode("utf-8-sig"))
    from sgpud.yaml_reader import read_documents  # noqa: PLC0415 - most nodes have no YAML

    # The runtimes read the first document and no other.
    return next(iter(read_documents(raw)), None)


def _parsed(document: object, spec: str) -> tuple[str, dict[str, CdiDevice]]:
    """The kind and the devices of a spec."""
    if not isinstance(document, dict) or not isinstance(document.get("cdiVersion"), str):
        raise _NotASpecError("cdiVersion is missing")
    version = document["cdiVersion"].removeprefix("v")
    if not isinstance(document.get("kind"), str):
        raise _NotASpecError("kind is missing")
    if not _VERSION.fullmatch(version):
        raise _NotASpecError(f"no runtime knows cdiVersion {version[:20]}")
    digits = tuple(int(part) for part in version.split(".")[:2]) >= _DIGITS_FROM
    common = set(_nodes(document.get("containerEdits"), digits=digits))
    limited = _limited(document.get("containerEdits"))
    found: dict[str, CdiDevice] = {}
    for device in _list(document, "devices"):
        if not isinstance(device, dict) or not isinstance(device.get("name"), str):
            raise _NotASpecError("a device without a name")
        name = device["name"]
        if not _NAME.fullmatch(name):
            raise _NotASpecError(f"a device with the invalid name {name[:40]!r}")
        if name[0].isdigit() and not digits:
            raise _NotASpecError(
                f"device {name} begins with a digit, which cdiVersion 0.5.0 is the first to allow,"
                f" and it says {version}"
            )
        if name in found:
            raise _NotASpecError(f"two devices with the name {name}")
        edits = device.get("containerEdits")
        nodes = common.union(_nodes(edits, digits=digits))
        found[name] = CdiDevice(name, frozenset(nodes), spec, limited or _limited(edits))
    return document["kind"], found


def _nodes(edits: object, *, digits: bool) -> Iterator[str]:
    for node in _list(edits or {}, "deviceNodes"):
        if not isinstance(node, dict):
            raise _NotASpecError("a device node without a path")
        if node.get("hostPath") and not digits:
            raise _NotASpecError("a device node has a hostPath, which needs cdiVersion 0.5.0")
        found = _NODE.fullmatch(str(node.get("hostPath") or node.get("path")))
        if found:
            yield found[1]


def _limited(edits: object) -> bool:
    return any(
        isinstance(hook, dict) and HOOK in _list(hook, "args")
        for hook in _list(edits or {}, "hooks")
    )


def _list(holder: object, key: str) -> list[object]:
    value = holder.get(key) if isinstance(holder, dict) else ""
    if value is None:
        return []
    if not isinstance(value, list):
        raise _NotASpecError(f"{key} is not a list")
    return value
