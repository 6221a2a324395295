"""GPUs and their healths, kept in the state directory across restarts and reboots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

from attrs import asdict, evolve, frozen
from twisted.logger import Logger

from sgpud.bridge import Clock
from sgpud.core.errors import SgpudError
from sgpud.core.gpu.gpu import Gpu, gpu_of
from sgpud.core.health.causes import Cause
from sgpud.core.health.machine import Health, HealthPhase
from sgpud.core.health.node_health import booted, last_known, resumed
from sgpud.core.health.xids import Remedy
from sgpud.core.json_checks import is_a, maybe, number, uuid_of
from sgpud.core.planning.node import Node
from sgpud.node.reconciler import NodeUpdates
from sgpud.node.store import StateDirectory

FORMAT = 1
_MOST = 4096
"""GPUs, and healths, of one file."""
_MOST_STRETCH = 64
_E = TypeVar("_E", bound=Enum)


class StateError(SgpudError):
    """A file that is not ours, or corrupt."""


@frozen
class SavedGpuState:
    """The content of the file."""

    boot: str
    """The id of the boot that wrote it."""
    fake: bool
    driver: str
    gpus: tuple[Gpu, ...]
    healths: Mapping[str, Health]


def dumped(saved: SavedGpuState) -> bytes:
    """The content to write. Times are left out: they mean nothing to another process."""
    healths = {uuid: _health(one) for uuid, one in saved.healths.items() if _is_worth_saving(one)}
    document = {
        "format": FORMAT,
        "boot": saved.boot,
        "fake": saved.fake,
        "driver": saved.driver,
        "gpus": [asdict(gpu) for gpu in saved.gpus],
        "healths": healths,
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def loaded(content: bytes) -> SavedGpuState:
    """Parse a file; StateError for everything that this version would not have written."""
    try:
        document = is_a(dict, json.loads(content))
    except (ValueError, TypeError, RecursionError) as error:
        raise StateError("not a JSON object") from error
    if document.get("format") != FORMAT:
        raise StateError(f"unsupported format {document.get('format')!r}, expected {FORMAT}")
    try:
        gpus = [gpu_of(entry) for entry in _few(is_a(list, document["gpus"]))]
        healths = _few(is_a(dict, document["healths"]))
        return SavedGpuState(
            boot=is_a(str, document["boot"]),
            fake=is_a(bool, document["fake"]),
            driver=is_a(str, document["driver"]),
            gpus=tuple(gpus),
            healths={uuid_of(uuid): _health_of(is_a(dict, one)) for uuid, one in healths.items()},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"corrupt ({type(error).__name__}: {error})") from error


def _is_worth_saving(health: Health) -> bool:
    return health.phase is not HealthPhase.HEALTHY or health.cordoned or bool(health.recovery)


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
    phase = _one_of(HealthPhase, entry["phase"])
    cause = entry["cause"] and _cause(is_a(dict, entry["cause"]))
    if (cause is None) != (phase is HealthPhase.HEALTHY):
        reason = "an unhealthy GPU needs a cause, a healthy one has none"
        raise ValueError(reason)
    stretch = number(entry["stretch"])
    if not 1 <= stretch <= _MOST_STRETCH:
        reason = f"stretch {stretch}"
        raise ValueError(reason)
    return Health(
        phase=phase,
        cause=cause,
        after=_one_of(HealthPhase, entry["after"]),
        recovery=maybe(entry["recovery"]),
        stretch=stretch,
        served=is_a(str, entry["served"]),
        cordoned=is_a(bool, entry["cordoned"]),
    )


def _cause(entry: dict[str, Any]) -> Cause:
    remedy = _one_of(Remedy, entry["remedy"])
    return Cause(is_a(str, entry["name"]), remedy, is_a(str, entry["detail"]))


def _few(entries: Any) -> Any:
    if len(entries) > _MOST:
        reason = f"{len(entries)} entries"
        raise ValueError(reason)
    return entries


def _one_of(kind: type[_E], value: object) -> _E:
    return kind(is_a(str, value))


GPUS = "gpus.json"


class GpuStateStore:
    """Keeps GPUs and healths: read at start and when serving begins, written from then on."""

    _log = Logger()

    def __init__(
        self,
        store: StateDirectory,
        reconciler: NodeUpdates,
        clock: Clock,
        *,
        fake: bool,
        boot: str,
    ) -> None:
        """`boot`: the id of this boot. Fake GPUs are never taken for real ones, nor vice versa."""
        self._store = store
        self._reconciler = reconciler
        self._clock = clock
        self._boot = boot
        self._fake = fake
        self._serves = False
        self._written: bytes | None = None
        self._checked: object = None

    def start(self) -> None:
        """Restore what was saved, including GPUs if the configuration trusts them."""
        self._resume()

    def take_over(self) -> None:
        """This process serves now: restore what the last one saved since, start to save.

        Only one process may write the state directory.
        """
        self._serves = True
        self._resume()
        self.save(self._reconciler.node)

    def save(self, node: Node) -> None:
        """Save the GPUs and healths if they have changed."""
        checked = (node.gpus, node.healths, node.driver)
        if not self._serves or node.gpus is None or checked == self._checked:
            return
        self._checked = checked
        saved = SavedGpuState(self._boot, self._fake, node.driver, node.gpus, node.healths)
        content = dumped(saved)
        if content != self._written:
            self._written = content
            self._store.write(GPUS, content)

    def _resume(self) -> None:
        content = self._store.read(GPUS)
        if content is None:
            return
        try:
            saved = loaded(content)
        except StateError as problem:
            self._store.set_aside(GPUS, problem)
            return
        if saved.fake is self._fake:
            self._reconciler.change(lambda node: self._resumed(node, saved))

    def _resumed(self, node: Node, saved: SavedGpuState) -> Node:
        now = self._clock.seconds()
        healths = {uuid: self._restarted(one, node, now) for uuid, one in saved.healths.items()}
        if saved.boot and self._boot and saved.boot != self._boot:
            healths = booted(healths, node, now)
            self._log.info("The node has rebooted since the state of the GPUs was saved")
        return resumed(last_known(node, saved.gpus, saved.driver, now), healths)

    def _restarted(self, health: Health, node: Node, now: float) -> Health:
        """A health saved by another process: its times start again."""
        hold = node.policy.hold_down * health.stretch if health.cause else 0.0
        return evolve(health, since=now, hold_until=now + hold)
