"""What is observed of a GPU while it works: events that the driver tells, and samples."""

from __future__ import annotations

from enum import Enum

from attrs import frozen


class EventKind(Enum):
    """What happened."""

    XID = "xid"
    """The driver reported an XID; `number` is which."""
    ECC = "ecc"
    """A double-bit ECC error."""
    ERROR = "error"
    """An NVML call for this GPU failed; `detail` names the error."""
    HANG = "hang"
    """A call for this GPU does not come back."""


@frozen
class GpuEvent:
    """Something that happened to one GPU."""

    uuid: str
    """The physical GPU's UUID, also where one of its MIG instances is meant."""
    kind: EventKind
    number: int = 0
    gi: int | None = None
    """The GPU instance that it concerns; None: the whole GPU with all its instances."""
    ci: int | None = None
    detail: str = ""


@frozen
class Sample:
    """One reading of one GPU (of one MIG instance, for memory). None: NVML does not tell."""

    uuid: str
    used: int | None = None
    """Bytes of memory in use, the driver's own reserve left out."""
    total: int | None = None
    """Bytes of memory in all."""
    utilisation: int | None = None
    """Percent of the last sampling period in which a kernel ran; None on MIG."""
    recovery: int | None = None
    """NVML's recovery action (field 230): 0 none, 1 GPU reset, 2 node reboot, 3 drain P2P, 4 drain
    and reset, 5 recover IMEX domain, 6 bus reset, 7 system reboot."""
    ecc: int | None = None
    """Uncorrected ECC errors since the driver was loaded."""
    error: str = ""
    """The NVML error that a reading ended with: such a sample is a failed probe."""
