"""What makes a GPU unhealthy: from observations to a cause, its remedy, and advice."""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import frozen

from sgpud.core.gpu.observations import EventKind, GpuEvent, Sample
from sgpud.core.health.xids import BY_NUMBER, CLASSES, RECOVERY_CHANGED, Remedy

HOLD_DOWN = 60.0
TRUST_FOR = 120.0


@frozen
class HealthPolicy:
    """[health]: the class of each XID, and time limits."""

    hold_down: float = HOLD_DOWN
    """Seconds without a new event before a GPU is given out again."""
    ignore: tuple[int, ...] = ()
    """XIDs of this class whatever the table says; likewise the next three."""
    restart: tuple[int, ...] = ()
    reset: tuple[int, ...] = ()
    reboot: tuple[int, ...] = ()
    uncorrected_ecc: Remedy = Remedy.DRAIN
    """What more uncorrected ECC errors mean that no XID came with; likewise the next two."""
    row_remap_pending: Remedy = Remedy.DRAIN
    row_remap_failure: Remedy = Remedy.RESET
    trust_last_known: bool = True
    """Whether the GPUs known last are listed before the first probe has answered."""
    trust_for: float = TRUST_FOR
    """For how many seconds."""

    def numbers(self, remedy: Remedy) -> tuple[int, ...]:
        """The XIDs that the configuration puts into a class."""
        named = (self.ignore, self.restart, self.reset, self.reboot)
        return dict(zip(CLASSES, named, strict=True))[remedy]

    def of_xid(self, number: int, compute: tuple[int, int] | None) -> Remedy | None:
        """The class of an XID on a GPU of this compute capability; None for an unknown one."""
        for remedy in CLASSES:
            if number in self.numbers(remedy):
                return remedy
        xid = BY_NUMBER.get(number)
        return xid.remedy if xid and xid.concerns(compute) else None


@frozen
class Cause:
    """Why the shares of a GPU are not granted as usual."""

    name: str
    """What it is, e.g. `XID 79`: two causes of one name are the same thing again."""
    remedy: Remedy
    detail: str = ""

    def __str__(self) -> str:
        """Name and detail."""
        return f"{self.name}: {self.detail}" if self.detail else self.name


GONE = Cause("gone", Remedy.WAIT, "NVML no longer knows this GPU")
ASKS = Cause(f"XID {RECOVERY_CHANGED}", Remedy.PROBE, "the driver's recovery action has changed")
HANG = "hang"

_LOST, _RESET_REQUIRED = 15, 16
"""NVML_ERROR_GPU_IS_LOST and NVML_ERROR_RESET_REQUIRED (nvml.h)."""
_CODE = re.compile(r"NVML error (\d+)")

RECOVERY: Mapping[int, tuple[Remedy, str]] = {
    1: (Remedy.RESET, "the driver asks for a GPU reset"),
    2: (Remedy.REBOOT, "the driver asks for a reboot of the node"),
    3: (Remedy.DRAIN, "the driver asks that peer-to-peer traffic ends"),
    4: (Remedy.DRAIN, "the driver asks that the GPU is drained, then reset"),
    5: (Remedy.DRAIN, "the driver asks that the IMEX domain is recovered"),
    6: (Remedy.RESET, "the driver asks for a reset of the bus"),
    7: (Remedy.REBOOT, "the driver asks for a reboot of the system"),
}
"""NVML's recovery actions but 0, none (nvmlDeviceGpuRecoveryAction_t in nvml.h). What 3 to 5 want
leaves running work alone; a value that is not here changes nothing, as an unknown XID."""


def of_event(
    event: GpuEvent, compute: tuple[int, int] | None, policy: HealthPolicy
) -> Cause | None:
    """The cause of an event; None for an unknown XID."""
    if event.kind is EventKind.XID:
        return _of_xid(event.number, compute, policy)
    if event.kind is EventKind.ECC:
        return Cause("double-bit ECC error", Remedy.RESET, event.detail)
    if event.kind is EventKind.HANG:
        return Cause(HANG, Remedy.PROBE, event.detail or "a call does not return")
    return of_error(event.detail)


def of_error(text: str) -> Cause:
    """The cause that an NVML error on one GPU is, from its text with its number."""
    found = _CODE.search(text)
    code = int(found[1]) if found else 0
    if code == _RESET_REQUIRED:
        return Cause("reset required", Remedy.RESET, text)
    lowered = text.lower()
    if code == _LOST or "lost" in lowered or "fallen off the bus" in lowered:
        return Cause("lost", Remedy.WAIT, text)
    return Cause("NVML error", Remedy.PROBE, text)


def of_remapping(sample: Sample, policy: HealthPolicy) -> Cause | None:
    """The cause that a remapped row of memory is; None for none, and for one to be ignored.

    NVIDIA's memory error management has a pending remapping wait for a reset, with the GPU in use
    meanwhile; one that failed wants the reset at once, and the GPU replaced if it fails again.
    """
    if sample.remap_failed and policy.row_remap_failure is not Remedy.IGNORE:
        return Cause(
            "row remapping failed", policy.row_remap_failure, "replace the GPU if it fails again"
        )
    if sample.remap_pending and policy.row_remap_pending is not Remedy.IGNORE:
        return Cause("row remapping pending", policy.row_remap_pending, "reset it to take effect")
    return None


def of_ecc(count: int, policy: HealthPolicy) -> Cause:
    """The cause that a grown count of uncorrected ECC errors is."""
    detail = f"{count} since the driver was loaded"
    return Cause("uncorrected ECC errors", policy.uncorrected_ecc, detail)


def of_recovery(action: int) -> Cause | None:
    """The cause of a recovery action; None for no action and for an unknown one."""
    if action not in RECOVERY:
        return None
    remedy, detail = RECOVERY[action]
    return Cause(f"recovery action {action}", remedy, detail)


def advice(cause: Cause, uuid: str) -> str:
    """What an operator should do about it, for this (physical) GPU."""
    if cause == GONE:
        return (
            "nothing if it was removed, or its MIG instances changed, on purpose: it goes through "
            "probation when it is back; otherwise look for Xid lines in `dmesg`"
        )
    match cause.remedy:
        case Remedy.RESET:
            return f"reset it: {reset_steps(uuid)}"
        case Remedy.REBOOT:
            return (
                "drain the node and reboot it; if that is impossible now and the GPU works, run "
                f"`sgpud heal {uuid}`"
            )
        case Remedy.OPERATOR:
            return (
                f"a reboot has not helped: have the hardware checked, then run `sgpud heal {uuid}`"
            )
        case Remedy.DRAIN:
            return (
                "let the pods that hold its shares end, then do what the driver requires; "
                f"for a reset: {reset_steps(uuid)}"
            )
        case Remedy.WAIT | Remedy.PROBE:
            return (
                "it recovers on its own once it can be read again; if it does not, look for "
                f"Xid lines in `dmesg`, then reset it: {reset_steps(uuid)}"
            )
        case _:
            return "nothing: only the application was affected, and can restart"


def reset_steps(uuid: str) -> str:
    """The sequence that resets a GPU under a running sgpud."""
    return (
        f"end the pods that hold its shares, `sgpud release`, `nvidia-smi --gpu-reset -i {uuid}`, "
        f"`sgpud acquire`, and if the driver reports no recovery action (before R565) "
        f"`sgpud heal {uuid}`"
    )


def _of_xid(number: int, compute: tuple[int, int] | None, policy: HealthPolicy) -> Cause | None:
    name = f"XID {number}"
    remedy = policy.of_xid(number, compute)
    if remedy is None and number == RECOVERY_CHANGED:
        return ASKS
    if remedy is None:
        return None
    xid = BY_NUMBER.get(number)
    return Cause(name, remedy, xid.meaning if xid else "classified by the configuration")
