"""The state file of GPUs and healths as text: one way in, one way back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

from attrs import asdict, frozen

from sgpud.core.causes import Cause
from sgpud.core.errors import SgpudError
from sgpud.core.fields import is_a, maybe, number, pair, uuid_of
from sgpud.core.gpu import Gpu, Mig
from sgpud.core.health_values import Health, Phase
from sgpud.core.xids import Remedy

FORMAT = 1
_MOST = 4096
"""GPUs, and healths, of one file."""
_MOST_STRETCH = 64
_E = TypeVar("_E", bound=Enum)


@frozen
class StateError(SgpudError):
    """A file that is none of ours, or damaged."""

    reason: str

    def __str__(self) -> str:
        """The reason."""
        return self.reason


@frozen
class Saved:
    """What the file says."""

    boot: str
    """The boot in which it was written."""
    simulated: bool
    driver: str
    gpus: tuple[Gpu, ...]
    healths: Mapping[str, Health]


def dumped(saved: Saved) -> bytes:
    """The file's content. Times are left out: they mean nothing in another process."""
    healths = {uuid: _health(one) for uuid, one in saved.healths.items() if _tells(one)}
    document = {
        "format": FORMAT,
        "boot": saved.boot,
        "simulated": saved.simulated,
        "driver": saved.driver,
        "gpus": [asdict(gpu) for gpu in saved.gpus],
        "healths": healths,
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def loaded(content: bytes) -> Saved:
    """What a file says; StateError for everything that this version would not have written."""
    try:
        said = is_a(dict, json.loads(content))
    except (ValueError, TypeError, RecursionError) as error:
        raise StateError("it is no JSON object: damaged, or another program's") from error
    if said.get("format") != FORMAT:
        raise StateError(f"its format is {said.get('format')!r}, this sgpud writes {FORMAT}")
    try:
        gpus = [_gpu(is_a(dict, entry)) for entry in _few(is_a(list, said["gpus"]))]
        healths = _few(is_a(dict, said["healths"]))
        return Saved(
            boot=is_a(str, said["boot"]),
            simulated=is_a(bool, said["simulated"]),
            driver=is_a(str, said["driver"]),
            gpus=tuple(gpus),
            healths={uuid_of(uuid): _health_of(is_a(dict, one)) for uuid, one in healths.items()},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"it is damaged ({type(error).__name__}: {error})") from error


def _tells(health: Health) -> bool:
    return health.phase is not Phase.HEALTHY or health.cordoned or bool(health.recovery)


def _health(health: Health) -> dict[str, object]:
    cause = health.cause
    return {
        "phase": health.phase.value,
        "cause": cause and {**asdict(cause), "remedy": cause.remedy.value},
        "after": health.after.value,
        "recovery": health.recovery,
        "stretch": health.stretch,
        "served": health.served,
        "cordoned": health.cordoned,
    }


def _health_of(entry: dict[str, Any]) -> Health:
    phase = _one_of(Phase, entry["phase"])
    cause = entry["cause"] and _cause(is_a(dict, entry["cause"]))
    if (cause is None) != (phase is Phase.HEALTHY):
        reason = "a cause belongs to what is not healthy"
        raise ValueError(reason)
    stretch = number(entry["stretch"])
    if not 1 <= stretch <= _MOST_STRETCH:
        reason = f"stretch {stretch}"
        raise ValueError(reason)
    return Health(
        phase=phase,
        cause=cause,
        after=_one_of(Phase, entry["after"]),
        recovery=maybe(entry["recovery"]),
        stretch=stretch,
        served=is_a(str, entry["served"]),
        cordoned=is_a(bool, entry["cordoned"]),
    )


def _cause(entry: dict[str, Any]) -> Cause:
    remedy = _one_of(Remedy, entry["remedy"])
    return Cause(is_a(str, entry["name"]), remedy, is_a(str, entry["detail"]))


def _gpu(entry: dict[str, Any]) -> Gpu:
    mig, compute = entry["mig"], entry["compute"]
    return Gpu(
        uuid=uuid_of(entry["uuid"]),
        index=number(entry["index"]),
        product=is_a(str, entry["product"]),
        memory=number(entry["memory"]),
        reserved=number(entry["reserved"]),
        minor=maybe(entry["minor"]),
        pci=is_a(str, entry["pci"]),
        numa=maybe(entry["numa"]),
        compute=None if compute is None else pair(compute),
        mig=None if mig is None else _mig(is_a(dict, mig)),
        simulated=is_a(bool, entry["simulated"]),
    )


def _mig(entry: dict[str, Any]) -> Mig:
    return Mig(uuid_of(entry["parent"]), number(entry["gi"]), number(entry["ci"]))


def _few(entries: Any) -> Any:
    if len(entries) > _MOST:
        reason = f"{len(entries)} entries"
        raise ValueError(reason)
    return entries


def _one_of(kind: type[_E], value: object) -> _E:
    return kind(is_a(str, value))
