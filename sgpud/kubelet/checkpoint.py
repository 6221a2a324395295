"""The kubelet's checkpoint of device allocations, parsed strictly: the file has no version.

`kubelet_internal_checkpoint` names pods by UID, containers, and device ids; joined with the answer
that Allocate gave at the time it tells who holds which shares, and on which terms.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import DecodeError

from sgpud.config.schema.formats import resource_name
from sgpud.core.errors import SgpudError
from sgpud.core.intset import IntSet
from sgpud.core.json_checks import UUID
from sgpud.core.limits.caps import cap_of_device
from sgpud.core.planning.holdings import CheckpointState, Holder, Key
from sgpud.core.sharing.share_id import memory_stem, parse_share_id
from sgpud.files import content, open_regular
from sgpud.kubelet.api import deviceplugin_pb2 as api

T = TypeVar("T")

LARGEST = 256 * 1024 * 1024
"""Bytes of a checkpoint that is still read: a node with 63 000 shares, all held, needs 20 MiB."""


_LATEST = 1e11
"""Seconds since the epoch that are a date: a few thousand years."""
_LONGEST = 18
"""Digits of a number of ours, at most."""


class CheckpointError(SgpudError):
    """A checkpoint that cannot be understood."""

    def __init__(self, path: Path, problem: str) -> None:
        """`problem`: what is wrong with it."""
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        """The file and the problem."""
        return f"{self.path}: {self.problem}"


def read(path: Path, *, registered: bool = False) -> CheckpointState:
    """The checkpoint as the kubelet wrote it last: empty if there is no file.

    `registered`: also which of our ids the kubelet knew, which takes long where they are many.

    CheckpointError when the file is there and cannot be read or understood.
    """
    found = _content(path)
    if found is None:
        return CheckpointState()
    text, written = found
    try:
        holders, ids = parse(text, registered=registered)
    except ValueError as problem:
        raise CheckpointError(path, str(problem)) from problem
    return CheckpointState(holders, written, ids)


def read_pod(path: Path, resource: str, held: Mapping[str, IntSet]) -> tuple[Holder, ...]:
    """The holders of the pod of which a container holds exactly these shares; errors as `read`.

    Empty where there is no such pod, or more than one. The entries of other pods are not parsed.
    """
    found = _content(path)
    try:
        entries = _get(_data(found[0]), "PodDeviceEntries", list) if found else None
    except ValueError as problem:
        raise CheckpointError(path, str(problem)) from problem
    known = [entry for entry in entries or () if isinstance(entry, dict)]
    pods = {
        _get(entry, "PodUID", str)
        for entry in known
        if entry.get("ResourceName") == resource
        and shares(_ids(entry.get("DeviceIDs")), resource) == held
    }
    if len(pods) != 1:
        return ()
    mine = (entry for entry in known if entry.get("PodUID") in pods)
    return tuple(holder for entry in mine if (holder := _holder(entry)))


def registered_ids(path: Path) -> dict[str, tuple[str, ...]]:
    """The ids of every resource, of whichever plugin, that were registered; errors as `read`."""
    found = _content(path)
    try:
        lists = _get(_data(found[0]), "RegisteredDevices", dict) if found else None
    except ValueError as problem:
        raise CheckpointError(path, str(problem)) from problem
    return {
        resource: tuple(item for item in ids if isinstance(item, str))
        for resource, ids in (lists or {}).items()
        if isinstance(ids, list)
    }


def _content(path: Path) -> tuple[bytes, float] | None:
    """The file's bytes, and when they were written; None where there is no file."""
    try:
        with open_regular(path) as file:
            return content(file, LARGEST), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise CheckpointError(path, problem.strerror or str(problem)) from problem


def parse(text: bytes, *, registered: bool = True) -> tuple[tuple[Holder, ...], dict[Key, IntSet]]:
    """The holders of our shares, and our ids that were registered; ValueError if it is none.

    Entries of other plugins are passed over, and so is a part of an entry that is not as it
    should be, as long as the shares in it are known.
    """
    data = _data(text)
    entries = _get(data, "PodDeviceEntries", list)
    holders = [found for entry in entries or () if (found := _holder(entry))]
    known: dict[Key, IntSet] = {}
    lists = _get(data, "RegisteredDevices", dict) if registered else None
    for resource, ids in (lists or {}).items():
        if isinstance(ids, list) and not resource_name(resource):
            for stem, numbers in shares(ids, resource).items():
                known[resource, stem] = numbers
    return tuple(holders), known


def _data(text: bytes) -> Mapping[str, object]:
    """The relevant part; ValueError if it is not a checkpoint."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as problem:
        message = f"not JSON ({problem})"
        raise ValueError(message) from problem
    data = _get(document, "Data", dict)
    if data is None:
        message = 'no object "Data" in it: not a checkpoint of the device manager'
        raise ValueError(message)
    return data


def shares(ids: Iterable[object], resource: str) -> dict[str, IntSet]:
    """Share numbers by the stem of their ids; ids that are not this pool's are passed over."""
    stem = memory_stem(resource)
    found: dict[str, list[int]] = {}
    for item in ids:
        parsed = parse_share_id(item) if isinstance(item, str) else None
        if parsed and (parsed[0] == stem or UUID.fullmatch(parsed[0])):
            found.setdefault(parsed[0], []).append(parsed[1])
    return {uuid: IntSet.of(numbers) for uuid, numbers in found.items()}


def _holder(entry: object) -> Holder | None:
    ids = entry.get("DeviceIDs") if isinstance(entry, dict) else None
    resource = _get(entry, "ResourceName", str)
    if resource is None or resource_name(resource):
        return None  # a pool is made of each name, and this one the kubelet would never take
    held = shares(_ids(ids), resource)
    if not isinstance(entry, dict) or not held:
        return None
    pod, container = _get(entry, "PodUID", str), _get(entry, "ContainerName", str)
    terms = _terms(_get(entry, "AllocResp", str) or "")
    if terms is None:
        return None
    per_gpu, sizes, since, cap = terms
    # Memory shares of one container are of one GPU; their ids do not say which.
    gpu = next(iter(sizes), "")
    known = (per_gpu, sizes, since)
    return Holder(pod or "", container or "", resource, held, *known, cap=cap, gpu=gpu)


def _ids(ids: object) -> Iterator[object]:
    """The ids of an entry: by NUMA node since Kubernetes 1.20, a plain list before."""
    if isinstance(ids, list):
        yield from ids
    elif isinstance(ids, dict):
        for part in ids.values():
            if isinstance(part, list):
                yield from part


def _terms(response: str) -> tuple[dict[str, int], dict[str, int], float, int] | None:
    """The terms on which shares were given, from our own part of the recorded answer.

    Into how many shares each GPU is divided, bytes per share of each, when, and the memory cap;
    empty and 0 for what the answer does not tell. None where the answer is another plugin's:
    NVIDIA's shares have ids of the same form.
    """
    per_gpu: dict[str, int] = {}
    sizes: dict[str, int] = {}
    since = 0.0
    try:
        answer = api.ContainerAllocateResponse.FromString(base64.b64decode(response))
    except (binascii.Error, ValueError, DecodeError):
        return per_gpu, sizes, since, 0
    envs = answer.envs
    # Debian 12's protobuf takes some corrupt answers for empty ones: those are nobody's.
    if answer.ListFields() and not any(name.startswith("SGPUD_") for name in envs):
        return None
    for name, named in envs.items():
        if name.startswith("SGPUD_") and name.endswith("GPU_UUIDS"):
            prefix, uuids = name[: -len("GPU_UUIDS")], named.split(",")
            counts = envs.get(f"{prefix}SHARES_PER_GPU", "").split(",")
            per_gpu.update(_pairs(uuids, counts))
            since = max(since, min(_LATEST, float(_number(envs.get(f"{prefix}SINCE", "")))))
            memory = _number(envs.get(f"{prefix}MEMORY_BYTES", ""))
            shares_given = _number(envs.get(f"{prefix}SHARES", ""))
            # Memory shares of one container are of one GPU.
            if memory and shares_given and len(uuids) == 1:
                sizes[uuids[0]] = memory // shares_given
    cap = max((cap_of_device(device.name) for device in answer.cdi_devices), default=0)
    return per_gpu, sizes, since, cap


def _pairs(uuids: list[str], counts: list[str]) -> Mapping[str, int]:
    pairs = zip(uuids, map(_number, counts), strict=False)
    return {uuid: count for uuid, count in pairs if count}


def _number(text: str) -> int:
    """A whole number as we write it; 0 for anything else."""
    known = text.isascii() and text.isdigit() and len(text) <= _LONGEST
    return int(text) if known else 0


def _get(mapping: object, key: str, kind: type[T]) -> T | None:
    value = mapping.get(key) if isinstance(mapping, dict) else None
    return value if isinstance(value, kind) else None
