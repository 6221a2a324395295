"""The file `kubelet_internal_checkpoint`, written and read as the kubelet does.

The shape is the kubelet's: ids keyed by NUMA node ("-1" without one), AllocResp in base64, null
where there is no entry. Only the checksum's value is our own: the kubelet hashes a Go dump of the
data with FNV-1a, we take the CRC of its JSON text; both are numbers of 32 bits.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import enum
import json
import zlib
from typing import TYPE_CHECKING, NamedTuple

from attrs import define, frozen
from google.protobuf.message import DecodeError

from sgpud.kubelet.api import deviceplugin_pb2 as api

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

NAME = "kubelet_internal_checkpoint"
"""The file's name in the plugin directory."""
WITHOUT_TOPOLOGY = -1
"""The NUMA node that stands for none."""


class Slot(NamedTuple):
    """Where an allocation belongs: one container, one resource."""

    pod_uid: str
    container: str
    resource: str


@frozen
class PodDevices:
    """What one container was given of one resource."""

    by_node: Mapping[int, tuple[str, ...]]
    response: api.ContainerAllocateResponse

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, each once."""
        return tuple(dict.fromkeys(i for ids in self.by_node.values() for i in ids))


class CheckpointFault(enum.Enum):
    """A way in which the file can be wrong, for a test to ask for."""

    ABSENT = "the file is never there"
    CORRUPT = "the file is cut in the middle"
    OTHER_SHAPE = "the file has the shape of old kubelets: flat lists of ids"
    STALE = "the file is not written any more"


def encode(
    allocations: Mapping[Slot, PodDevices], registered: Mapping[str, Iterable[str]]
) -> bytes:
    """Give the file's bytes."""
    entries = [
        {
            "PodUID": slot.pod_uid,
            "ContainerName": slot.container,
            "ResourceName": slot.resource,
            "DeviceIDs": {str(node): list(ids) for node, ids in allocation.by_node.items()},
            "AllocResp": base64.b64encode(allocation.response.SerializeToString()).decode(),
        }
        for slot, allocation in allocations.items()
    ]
    return _with_checksum(
        {
            "PodDeviceEntries": entries or None,
            "RegisteredDevices": {name: sorted(ids) for name, ids in registered.items()},
        }
    )


def decode(data: bytes) -> tuple[dict[Slot, PodDevices], dict[str, list[str]]]:
    """Read the file's bytes; ValueError when they are not what `encode` writes."""
    try:
        document = json.loads(data)
        content = document["Data"]
        if document["Checksum"] != zlib.crc32(_text(content)):
            raise ValueError("the checkpoint's checksum is wrong")
        allocations = {
            Slot(entry["PodUID"], entry["ContainerName"], entry["ResourceName"]): PodDevices(
                {int(node): tuple(ids) for node, ids in entry["DeviceIDs"].items()},
                api.ContainerAllocateResponse.FromString(base64.b64decode(entry["AllocResp"])),
            )
            for entry in content["PodDeviceEntries"] or ()
        }
        return allocations, dict(content["RegisteredDevices"] or {})
    except (KeyError, TypeError, AttributeError, binascii.Error, DecodeError) as error:
        raise ValueError(f"the checkpoint has another shape: {error!r}") from error


@define(eq=False)
class CheckpointFile:
    """The file itself; `fault` makes it wrong from the next write on."""

    directory: Path
    fault: CheckpointFault | None = None

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.directory / NAME

    def write(
        self, allocations: Mapping[Slot, PodDevices], registered: Mapping[str, Iterable[str]]
    ) -> None:
        """Replace the file whole (temporary, then rename), as its fault has it."""
        if self.fault is CheckpointFault.STALE:
            return
        if self.fault is CheckpointFault.ABSENT:
            self.path.unlink(missing_ok=True)
            return
        data = encode(allocations, registered)
        if self.fault is CheckpointFault.CORRUPT:
            data = data[: len(data) // 2]
        elif self.fault is CheckpointFault.OTHER_SHAPE:
            data = _flattened(data)
        self.replace(data)

    def replace(self, data: bytes) -> None:
        """Put these bytes in the file's place, whole."""
        temporary = self.directory / f".{NAME}.tmp"
        temporary.touch(mode=0o600)
        temporary.write_bytes(data)
        temporary.replace(self.path)

    def read(self) -> tuple[dict[Slot, PodDevices], dict[str, list[str]]]:
        """Read the file back; nothing at all when it is absent or wrong, as the kubelet does."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError):
            return decode(self.path.read_bytes())
        return {}, {}


def _with_checksum(content: object) -> bytes:
    text = _text(content)
    return b'{"Data":%b,"Checksum":%d}' % (text, zlib.crc32(text))


def _text(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _flattened(data: bytes) -> bytes:
    content = json.loads(data)["Data"]
    for entry in content["PodDeviceEntries"] or ():
        entry["DeviceIDs"] = [i for ids in entry["DeviceIDs"].values() for i in ids]
    return _with_checksum(content)
