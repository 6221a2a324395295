"""Which CDI name stands for a GPU, by the specs on the node.

The names in a spec depend on how the toolkit was told to make it: UUIDs, or NVML's indexes. An
index is believed only if the spec hands over that GPU's own device nodes: indexes shift when a GPU
is added or fails, and a spec stays as it was made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from sgpud.core.errors import SgpudError
from sgpud.core.gpu.gpu import Gpu
from sgpud.files import read_regular

FOLDERS = ("etc/cdi", "var/run/cdi")
"""Where the container runtimes look for specs, by the CDI specification."""
LARGEST_SPEC = 4 << 20
_NODE = re.compile(r".*/(nvidia[0-9]+|nvidia-cap[0-9]+)")


@frozen
class CdiDevice:
    """One device of a spec."""

    name: str
    nodes: frozenset[str]
    """The GPU and capability nodes that it hands over, without folders: `nvidia0`."""
    spec: str


@frozen
class Specs:
    """Every device of one kind, in the specs of a node."""

    kind: str
    devices: tuple[CdiDevice, ...]
    unreadable: tuple[str, ...]
    """Why a spec was left out; each with its path."""


class _NotASpecError(Exception):
    """What is wrong with a document that should be a spec."""


def read_specs(root: Path, kind: str) -> Specs:
    """Read every spec of this kind below `root`; one that cannot be read is left out and named."""
    devices: list[CdiDevice] = []
    unreadable = []
    for folder in FOLDERS:
        for path in _files(root / folder):
            shown = f"/{folder}/{path.name}"
            try:
                devices += _devices(_document(path), kind, shown)
            except OSError as error:
                unreadable.append(f"{shown} cannot be read: {error.strerror}")
            except (ValueError, RecursionError, SgpudError, _NotASpecError) as error:
                unreadable.append(f"{shown} is no CDI spec that is understood: {error}")
    return Specs(kind, tuple(devices), tuple(unreadable))


def cdi_name(specs: Specs, gpu: Gpu, nodes: Sequence[str]) -> tuple[str, str]:
    """The fully qualified name of a GPU and "", or "" and the reason why there is none.

    `nodes` are the host's device nodes of this GPU (its own, a MIG instance's capabilities too).
    """
    if any(device.name == gpu.uuid for device in specs.devices):
        return f"{specs.kind}={gpu.uuid}", ""
    pattern = rf"(?:mig)?{gpu.index}:[0-9]+" if gpu.mig else rf"(?:gpu)?{gpu.index}"
    named = [device for device in specs.devices if re.fullmatch(pattern, device.name)]
    own = {node.rpartition("/")[2] for node in nodes}
    for device in named:
        if own and device.nodes == own:
            return f"{specs.kind}={device.name}", ""
    return "", _why_none(specs, gpu, named, own)


def _why_none(specs: Specs, gpu: Gpu, named: Sequence[CdiDevice], own: set[str]) -> str:
    also = "".join(f"; {reason}" for reason in specs.unreadable)
    if not specs.devices:
        return (
            f"no CDI spec of {specs.kind} in /{' or /'.join(FOLDERS)}"
            f" (make one with `nvidia-ctk cdi generate`){also}"
        )
    if not named:
        where = ", ".join(sorted({device.spec for device in specs.devices}))
        return f"{where} names neither {gpu.uuid} nor index {gpu.index}: make it anew{also}"
    if not own:
        return f"{specs.kind}={named[0].name} cannot be checked: the device nodes are not known"
    given = ", ".join(sorted(named[0].nodes)) or "no GPU"
    return (
        f"{specs.kind}={named[0].name} of {named[0].spec} hands over {given}, and this GPU is"
        f" {', '.join(sorted(own))}: make the spec anew{also}"
    )


def _files(folder: Path) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if path.suffix in (".json", ".yaml")]
    except OSError:
        return []
    return sorted(found)


def _document(path: Path) -> object:
    raw = read_regular(path, LARGEST_SPEC)
    if path.suffix == ".json":
        return json.loads(raw.decode("utf-8-sig"))
    from sgpud.yaml_reader import read_documents  # noqa: PLC0415 - most nodes have no YAML

    # The runtimes read the first document and no other.
    return next(iter(read_documents(raw)), None)


def _devices(document: object, kind: str, spec: str) -> Iterator[CdiDevice]:
    if not isinstance(document, dict) or not isinstance(document.get("cdiVersion"), str):
        raise _NotASpecError("cdiVersion is missing")
    if not isinstance(document.get("kind"), str):
        raise _NotASpecError("kind is missing")
    if document["kind"] != kind:
        return
    for device in _list(document, "devices"):
        if not isinstance(device, dict) or not isinstance(device.get("name"), str):
            raise _NotASpecError("a device without a name")
        edits = device.get("containerEdits") or {}
        yield CdiDevice(device["name"], frozenset(_nodes(edits)), spec)


def _nodes(edits: object) -> Iterator[str]:
    for node in _list(edits, "deviceNodes"):
        if not isinstance(node, dict):
            raise _NotASpecError("a device node without a path")
        found = _NODE.fullmatch(str(node.get("hostPath") or node.get("path")))
        if found:
            yield found[1]


def _list(holder: object, key: str) -> list[object]:
    value = holder.get(key) if isinstance(holder, dict) else ""
    if value is None:
        return []
    if not isinstance(value, list):
        raise _NotASpecError(f"{key} is no list")
    return value
