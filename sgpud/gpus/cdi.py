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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import Factory, define, frozen

from sgpud.core.errors import SgpudError
from sgpud.core.gpu.gpu import Gpu, same_uuid
from sgpud.files import entries, read_regular, within
from sgpud.gpus.cdi_spec import CdiDevice, NotASpecError, parse_spec

FOLDERS = ("/etc/cdi", "/var/run/cdi")
"""Where the container runtimes look for specs unless told otherwise; the later one wins."""
LARGEST_SPEC = 4 << 20
MAKE = "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"
_KINDS = re.compile(rb"""kind["']?\s*:\s*["']?([A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+)""")
"""The kind in a file that may be neither JSON nor YAML."""
_EVERY = "all"
"""The name under which the toolkit hands over every GPU of the node, which may be one."""


@frozen
class Specs:
    """The devices of one kind, in the specs of a node."""

    kind: str
    devices: Mapping[str, CdiDevice] = Factory(dict)
    """Those that a runtime resolves, by name."""
    conflicts: Mapping[str, tuple[str, str]] = Factory(dict)
    """The two specs of one folder that define a name, which no runtime resolves then."""
    unreadable: tuple[str, ...] = ()
    """Why a spec of this kind was ignored; with its path."""
    unknown: tuple[str, ...] = ()
    """Why a file was ignored of which not even the kind is known; with its path."""
    others: Mapping[str, frozenset[str]] = Factory(dict)
    """The names in specs of other kinds, by kind."""
    folders: tuple[str, ...] = FOLDERS
    """Where they were looked for."""


def read_specs(
    root: Path,
    kind: str,
    folders: Sequence[str] = FOLDERS,
    *,
    on_other: Callable[[str], None] = lambda _reason: None,
) -> Specs:
    """Read every spec below `root`; one that cannot be read is ignored and named.

    `on_other` gets the reason why one was left out that is not of this kind.
    """
    found = _Merge(kind)
    for rank, folder in enumerate(folders):
        for name in entries(root, folder):
            if not name.endswith((".json", ".yaml")):
                continue
            shown = f"{folder}/{name}"
            try:
                raw = read_regular(within(root, shown), LARGEST_SPEC)
            except OSError as error:
                found.unknown.append(f"{shown} cannot be read: {error.strerror}")
                continue
            try:
                found.add(_document(raw, name), shown, rank)
            except (ValueError, RecursionError, SgpudError, NotASpecError) as error:
                reason = f"{shown} is not a valid CDI spec: {error}"
                kinds = {each.decode() for each in _KINDS.findall(raw)}
                if kind in kinds:
                    found.unreadable.append(reason)
                elif kinds:
                    on_other(reason)
                else:
                    found.unknown.append(reason)
    return found.specs(tuple(folders))


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
    ignored = (*specs.unreadable, *specs.unknown)
    return "", _why_none(specs, gpu, named, own) + "".join(f"; {why}" for why in ignored)


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
        return f"no CDI spec of {specs.kind} in {' or '.join(specs.folders)} ({advice})"
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
    unknown: list[str] = Factory(list)
    others: dict[str, frozenset[str]] = Factory(dict)

    def add(self, document: object, shown: str, rank: int) -> None:
        kind, devices = parse_spec(document, shown)
        if kind != self.kind:
            self.others[kind] = self.others.get(kind, frozenset()) | set(devices)
            return
        for name, device in devices.items():
            known = self.devices.get(name)
            if known and known[0] == rank:
                self.conflicts[name] = (known[1].spec, shown)
            else:
                self.devices[name] = (rank, device)

    def specs(self, folders: tuple[str, ...]) -> Specs:
        return Specs(
            self.kind,
            {name: one for name, (_, one) in self.devices.items() if name not in self.conflicts},
            self.conflicts,
            tuple(self.unreadable),
            tuple(self.unknown),
            self.others,
            folders,
        )


def _document(raw: bytes, name: str) -> object:
    if name.endswith(".json"):
        return json.loads(raw.decode("utf-8-sig"))
    from sgpud.yaml_reader import read_documents  # noqa: PLC0415 - most nodes have no YAML

    # The runtimes read the first document and no other.
    return next(iter(read_documents(raw)), None)
