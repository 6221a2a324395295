"""What NVIDIA's XID catalogue says to do about each XID: data, with its sources."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import frozen

CATALOGUE = "https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html"
EDITION = "2025: it names XIDs up to 172, and R575 is the newest driver in it"
"""Of the catalogue that the table was made from. The page itself carries no date."""
DEVICE_PLUGIN = "https://github.com/NVIDIA/k8s-device-plugin internal/rm/health.go"
"""NVIDIA's own plugin has long passed over 13, 31, 43, 45 and 68 as the application's errors."""

HOPPER, BLACKWELL = 9, 10
"""Majors of the CUDA compute capability with which an architecture begins."""


class Remedy(Enum):
    """What it takes after a cause, from the mildest to the worst."""

    IGNORE = "ignore"
    """Nothing: the application's own error, or none at all."""
    RESTART = "restart"
    """The application that was hit starts again; the GPU goes on."""
    PROBE = "probe"
    """A probe of the GPU tells."""
    DRAIN = "drain"
    """What runs may end by itself; nothing more is to come."""
    WAIT = "wait"
    """The GPU can be read again, and nothing happens to it for a while."""
    RESET = "reset"
    """The GPU is reset."""
    REBOOT = "reboot"
    """The node boots."""
    OPERATOR = "operator"
    """What should have helped has not: a person decides."""

    @property
    def weight(self) -> int:
        """The place in this order."""
        return list(Remedy).index(self)


CLASSES = (Remedy.IGNORE, Remedy.RESTART, Remedy.RESET, Remedy.REBOOT)
"""The classes that are keys of [health]."""
TABLE_CLASSES = (*CLASSES, Remedy.PROBE)
"""The classes that the table has."""


@frozen
class Xid:
    """One entry of the table."""

    number: int
    remedy: Remedy
    meaning: str
    bucket: str
    """The catalogue's own word for the immediate action."""
    first: int = 0
    """The lowest and the highest major of the compute capability that it is for."""
    last: int = 99
    source: str = CATALOGUE

    def concerns(self, compute: tuple[int, int] | None) -> bool:
        """Whether it is for a GPU of this compute capability; for one that nobody knows, it is."""
        return compute is None or self.first <= compute[0] <= self.last


def _app(number: int, meaning: str, source: str = CATALOGUE, last: int = 99) -> Xid:
    return Xid(number, Remedy.IGNORE, meaning, "RESTART_APP", 0, last, source)


def _ignore(number: int, meaning: str, first: int = 0, last: int = 99) -> Xid:
    return Xid(number, Remedy.IGNORE, meaning, "IGNORE", first, last)


def _restart(number: int, meaning: str, first: int = 0) -> Xid:
    return Xid(number, Remedy.RESTART, meaning, "RESTART_APP", first)


def _reset(number: int, meaning: str, first: int = 0, last: int = 99) -> Xid:
    return Xid(number, Remedy.RESET, meaning, "RESET_GPU", first, last)


def _probe(number: int, meaning: str, bucket: str, first: int = BLACKWELL) -> Xid:
    return Xid(number, Remedy.PROBE, meaning, bucket, first)


XIDS = (
    # The application's own errors: the catalogue has it start again, and looks for the fault there.
    _app(11, "bad commands sent to the GPU"),
    _app(13, "exception in the graphics engine", DEVICE_PLUGIN),
    _app(25, "illegal commands sent to the GPU"),
    _app(31, "page fault in GPU memory", DEVICE_PLUGIN),
    _app(68, "exception in the video decoder", DEVICE_PLUGIN),
    _app(69, "class error in the graphics engine"),
    _app(80, "damaged commands sent to the GPU", last=HOPPER),
    # What the catalogue says to ignore.
    _ignore(14, "injected from user space"),
    _ignore(37, "error in the driver's firmware"),
    _ignore(38, "watchdog of the driver's firmware"),
    Xid(43, Remedy.IGNORE, "an application stopped by its own fault", "IGNORE"),
    _ignore(44, "engine fault while contexts switched"),
    Xid(45, Remedy.IGNORE, "clean-up after an application ended", "WORKFLOW_XID_45"),
    _ignore(63, "memory rows or pages remapped"),
    _ignore(66, "illegal access by the driver"),
    _ignore(67, "illegal access by the driver"),
    _ignore(92, "many single-bit ECC errors"),
    _ignore(93, "limit of writes to the InfoROM", last=8),
    _ignore(106, "test message"),
    _ignore(107, "silent test message"),
    _ignore(108, "NVLink translation at the other end"),
    _ignore(121, "corrected errors on the link to the CPU", BLACKWELL),
    _ignore(137, "illegal access over NVLink"),
    _ignore(141, "error in CUDA's fast path", HOPPER),
    _ignore(157, "a part could not be retired", HOPPER),
    _ignore(160, "a channel was retired", BLACKWELL),
    _ignore(161, "a channel could not be retired", BLACKWELL),
    # The application starts again.
    _restart(8, "a channel stopped"),
    _restart(32, "damaged commands on the way to the GPU"),
    *(_restart(number, "exception in a copy engine") for number in (39, 40, 41)),
    _restart(60, "exception in the video processor"),
    *(_restart(number, "error in a copy engine") for number in (70, 71, 72, 75, 76, 77, 85)),
    _restart(82, "error in the JPEG engine"),
    *(_restart(number, "error in a video decoder") for number in (83, 84, 88, 89)),
    _restart(86, "error in the optical flow engine"),
    _restart(94, "memory error, contained to one application"),
    *(_restart(number, "error in a video decoder", HOPPER) for number in (96, 97, 98)),
    *(_restart(number, "error in a JPEG engine", HOPPER) for number in range(99, 106)),
    *(_restart(number, "error in a copy engine", BLACKWELL) for number in range(126, 136)),
    _restart(139, "error in the optical flow engine", BLACKWELL),
    # The GPU has to be reset.
    _reset(46, "the GPU stopped processing"),
    Xid(48, Remedy.RESET, "double-bit ECC error", "WORKFLOW_XID_48"),
    _reset(62, "a micro-controller of the GPU halted"),
    _reset(64, "memory rows or pages could not be remapped"),
    Xid(74, Remedy.RESET, "NVLink error", "WORKFLOW_NVLINK_ERR", last=HOPPER),
    _reset(95, "memory error, not contained"),
    _reset(109, "contexts could not be switched in time"),
    _reset(110, "security fault", HOPPER),
    _reset(119, "the GPU's firmware did not answer"),
    _reset(120, "error in the GPU's firmware"),
    _reset(136, "an NVLink could not be trained", HOPPER, HOPPER),
    _reset(140, "ECC error that could not be recovered"),
    _reset(143, "the GPU could not be initialised", HOPPER),
    _reset(155, "an NVLink went down", BLACKWELL),
    _reset(156, "a part of the GPU is to be retired", HOPPER),
    _reset(158, "fatal timeout"),
    # Without an action of its own: the driver's recovery action, which a probe reads, decides.
    _probe(142, "error in a video encoder", "CONTACT_SUPPORT"),
    *(
        _probe(number, f"NVLink error ({part})", "WORKFLOW_NVLINK5_ERR")
        for number, part in (
            (144, "SAW"),
            (145, "RLW"),
            (146, "TLW"),
            (147, "TREX"),
            (148, "NVLPW_CTRL"),
            (149, "NETIR"),
            (150, "MSE"),
        )
    ),
    _probe(159, "error on the link to the CPU", "CHECK_UVM"),
    _probe(167, "fatal PCIe timeout", "", HOPPER),
    _probe(168, "reduced memory capacity", "", 0),
    _probe(169, "a micro-controller of the GPU halted", "", HOPPER),
    _probe(171, "uncorrectable error in DRAM", "", 0),
    _probe(172, "uncorrectable error in SRAM", "", 0),
    # Information about power smoothing and confidential computing.
    *(
        Xid(number, Remedy.IGNORE, meaning, "", BLACKWELL)
        for number, meaning in (
            (162, "power smoothing is on again"),
            (163, "power smoothing is off"),
            (164, "the circuit for power smoothing is near its end of life"),
            (165, "the circuit for power smoothing is at its end of life"),
            (166, "NVLink traffic before encryption was configured"),
            (170, "interrupt in confidential computing"),
        )
    ),
    # The node has to boot.
    Xid(79, Remedy.REBOOT, "the GPU has fallen off the bus", "RESTART_BM"),
    Xid(151, Remedy.REBOOT, "keys could not be changed", "RESTART_VM", HOPPER),
)
"""By class. What is missing is unknown: counted and logged, and nothing else. NVML reports an XID's
number without its details, by which the catalogue tells a harmless 144 to 150 from a fatal one: a
probe reads the driver's recovery action instead, which XID 154 reports as well."""

RECOVERY_CHANGED = 154
"""The XID that says that the driver's recovery action is another now."""

BY_NUMBER: Mapping[int, Xid] = {xid.number: xid for xid in XIDS}
