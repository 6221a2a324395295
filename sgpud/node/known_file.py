"""The state file of GPUs and healths as text: one way in, one way back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

from attrs import asdict, frozen

from sgpud.core.causes import Cause
from sgpud.core.errors import SgpudError
from sgpud.core.gpu import Gpu, Mig
from sgpud.core.health_values import Health, Phase
from sgpud.core.share import LONGEST_ID
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
        said = _is(dict, json.loads(content))
    except (ValueError, TypeError, RecursionError) as error:
        raise StateError("it is no JSON object: damaged, or another program's") from error
    if said.get("format") != FORMAT:
        raise StateError(f"its format is {said.get('format')!r}, this sgpud writes {FORMAT}")
    try:
        gpus = [_gpu(_is(dict, entry)) for entry in _few(_is(list, said["gpus"]))]
        healths = _few(_is(dict, said["healths"]))
        return Saved(
            boot=_is(str, said["boot"]),
            simulated=_is(bool, said["simulated"]),
            driver=_is(str, said["driver"]),
            gpus=tuple(gpus),
            healths={_uuid(uuid): _health_of(_is(dict, one)) for uuid, one in healths.items()},
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
    cause = entry["cause"] and _cause(_is(dict, entry["cause"]))
    if (cause is None) != (phase is Phase.HEALTHY):
        reason = "a cause belongs to what is not healthy"
        raise ValueError(reason)
    stretch = _number(entry["stretch"])
    if not 1 <= stretch <= _MOST_STRETCH:
        reason = f"stretch {stretch}"
        raise ValueError(reason)
    return Health(
        phase=phase,
        cause=cause,
        after=_one_of(Phase, entry["after"]),
        recovery=_maybe(entry["recovery"]),
        stretch=stretch,
        served=_is(str, entry["served"]),
        cordoned=_is(bool, entry["cordoned"]),
    )


def _cause(entry: dict[str, Any]) -> Cause:
    remedy = _one_of(Remedy, entry["remedy"])
    return Cause(_is(str, entry["name"]), remedy, _is(str, entry["detail"]))


def _gpu(entry: dict[str, Any]) -> Gpu:
    mig, compute = entry["mig"], entry["compute"]
    major, minor = _is(list, compute) if compute is not None else (None, None)
    return Gpu(
        uuid=_uuid(entry["uuid"]),
        index=_number(entry["index"]),
        product=_is(str, entry["product"]),
        memory=_number(entry["memory"]),
        reserved=_number(entry["reserved"]),
        minor=_maybe(entry["minor"]),
        pci=_is(str, entry["pci"]),
        numa=_maybe(entry["numa"]),
        compute=None if compute is None else (_number(major), _number(minor)),
        mig=None if mig is None else _mig(_is(dict, mig)),
        simulated=_is(bool, entry["simulated"]),
    )


def _mig(entry: dict[str, Any]) -> Mig:
    return Mig(_uuid(entry["parent"]), _number(entry["gi"]), _number(entry["ci"]))


def _uuid(value: object) -> str:
    uuid: str = _is(str, value)
    if not uuid.startswith(("GPU-", "MIG-")) or len(uuid) > LONGEST_ID:
        reason = f"no UUID of a GPU: {uuid[:LONGEST_ID]!r}"
        raise ValueError(reason)
    return uuid


def _few(entries: Any) -> Any:
    if len(entries) > _MOST:
        reason = f"{len(entries)} entries"
        raise ValueError(reason)
    return entries


def _one_of(kind: type[_E], value: object) -> _E:
    return kind(_is(str, value))


def _maybe(value: object) -> int | None:
    return None if value is None else _number(value)


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        reason = f"no natural number: {value!r}"
        raise ValueError(reason)
    return value


def _is(kind: type[Any], value: object) -> Any:
    if not isinstance(value, kind):
        reason = f"{kind.__name__} expected, not {str(value)[:80]!r}"
        raise TypeError(reason)
    return value
