"""The health state machine of a GPU: step() takes a cause, a sample, a sign of recovery or time."""

from __future__ import annotations

from enum import Enum

from attrs import evolve, frozen

from sgpud.core.gpu.observations import Sample
from sgpud.core.health.causes import (
    ASKS,
    GONE,
    HANG,
    Cause,
    HealthPolicy,
    of_ecc,
    of_error,
    of_recovery,
    of_remapping,
)
from sgpud.core.health.xids import Remedy


class HealthPhase(Enum):
    """How a GPU is."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    """Something unclear happened: no more shares are granted until a probe passes."""
    UNHEALTHY = "unhealthy"
    PROBATION = "probation"
    """Nothing is known to be wrong any more: watched before its shares are granted again."""


class RecoverySign(Enum):
    """Something that may end a cause."""

    DRIVER = "the driver was reloaded"
    RESET = "the driver no longer asks for a reset or a reboot"
    BOOT = "the node was rebooted"
    BACK = "the GPU is back"
    WORD = "the operator reports it as healthy"


@frozen
class TimePassed:
    """Nothing happened."""


@frozen
class HealthTransition:
    """One way from a phase to another."""

    source: HealthPhase
    target: HealthPhase
    when: str


_H, _S, _U, _P = (
    HealthPhase.HEALTHY,
    HealthPhase.SUSPECT,
    HealthPhase.UNHEALTHY,
    HealthPhase.PROBATION,
)
EDGES = (
    HealthTransition(_H, _S, "a call is overdue, an unclear NVML error, XID 154"),
    HealthTransition(_H, _U, "a cause that needs a reset or a reboot, lost, gone"),
    HealthTransition(_H, _P, "the driver asks to drain it"),
    HealthTransition(_S, _H, "a probe passes"),
    HealthTransition(
        _S, _P, "a probe passes after flapping or probation, a drain, a boot, the operator"
    ),
    HealthTransition(_S, _U, "30 s without a probe that passes, or a cause as from healthy"),
    HealthTransition(
        _U, _P, "the reset, boot or return is seen, the hold-down is over, the operator"
    ),
    HealthTransition(_P, _H, "the hold-down is over and 3 probes in a row pass"),
    HealthTransition(_P, _S, "a call is overdue, an unclear NVML error"),
    HealthTransition(_P, _U, "a cause as from healthy"),
)
"""All the ways there are: the diagram in docs/health.md is made of this."""


@frozen
class Health:
    """The health of one GPU. Times are seconds of the monotonic clock."""

    phase: HealthPhase = HealthPhase.HEALTHY
    cause: Cause | None = None
    """Why it is not healthy."""
    since: float = 0.0
    """When the phase began; 0 where it always was so."""
    hold_until: float = 0.0
    """Not healthy before."""
    passes: int = 0
    """Probes in a row that have passed in probation."""
    after: HealthPhase = HealthPhase.HEALTHY
    """Where a probe that passes leads from a suspicion."""
    recovery: int | None = None
    """The driver's recovery action, as it was last seen."""
    ecc: int | None = None
    """Uncorrected ECC errors, as last seen."""
    remapping: str = ""
    """The name of the cause that the remapping of its memory was, as last seen."""
    falls: tuple[float, ...] = ()
    """When it ceased to be well, lately."""
    stretch: int = 1
    """By what flapping has multiplied the hold-down."""
    served: str = ""
    """The cause that the last boot should have ended."""
    cordoned: bool = False
    """The operator keeps it from being given out."""


SUSPECT_FOR = 30.0
"""Seconds that a suspicion lasts at most."""
PASSES = 3
"""Probes in a row that have to pass in probation."""
FLAPS, FLAP_WINDOW = 3, 600.0
"""So many falls in so many seconds double the hold-down."""
_MOST_STRETCH = 64


def step(
    health: Health,
    what: Cause | Sample | RecoverySign | TimePassed,
    policy: HealthPolicy,
    now: float,
) -> Health:
    """The health after something was observed, or time has passed."""
    match what:
        case Cause():
            return _hit(health, what, policy, now)
        case Sample():
            return _probed(health, what, policy, now)
        case RecoverySign():
            return _seen(health, what, policy, now)
        case TimePassed():
            return _overdue(health, policy, now)


def due(health: Health) -> float | None:
    """When time alone changes it; None where it never does."""
    return health.since + SUSPECT_FOR if health.phase is HealthPhase.SUSPECT else None


def _hit(health: Health, cause: Cause, policy: HealthPolicy, now: float) -> Health:
    """Something happened to the GPU."""
    match cause.remedy:
        case Remedy.IGNORE | Remedy.RESTART:
            return health
        case Remedy.PROBE:
            return _suspected(health, cause, policy, now)
        case Remedy.DRAIN if health.phase is HealthPhase.UNHEALTHY:
            return health
        case Remedy.DRAIN:
            return _on_probation(_fallen(health, now), cause, policy, now)
        case _:
            return _sickened(health, cause, policy, now)


def _suspected(health: Health, cause: Cause, policy: HealthPolicy, now: float) -> Health:
    if health.phase in (HealthPhase.SUSPECT, HealthPhase.UNHEALTHY):
        return health
    if health.phase is HealthPhase.PROBATION and cause == ASKS:
        # The next probe tells what it is now; on probation none is healthy before that.
        return health
    fallen = _fallen(health, now)
    calm = health.phase is HealthPhase.HEALTHY and fallen.stretch == 1
    return evolve(
        fallen,
        phase=HealthPhase.SUSPECT,
        cause=cause,
        since=now,
        after=HealthPhase.HEALTHY if calm else HealthPhase.PROBATION,
        hold_until=_held_down(fallen, policy, now),
        passes=0,
    )


def _sickened(health: Health, cause: Cause, policy: HealthPolicy, now: float) -> Health:
    if health.phase is HealthPhase.UNHEALTHY:
        known = health.cause
        worse = known is None or cause.remedy.weight > known.remedy.weight or known == GONE
        kept = cause if worse else known
        return evolve(health, cause=kept, hold_until=_held_down(health, policy, now))
    fallen = health if health.phase is HealthPhase.SUSPECT else _fallen(health, now)
    return evolve(
        fallen,
        phase=HealthPhase.UNHEALTHY,
        cause=cause,
        since=now,
        hold_until=_held_down(fallen, policy, now),
        passes=0,
    )


def _probed(health: Health, sample: Sample, policy: HealthPolicy, now: float) -> Health:
    """A probe has answered."""
    remapping = of_remapping(sample, policy)
    passed = not sample.recovery and not _grown(health.ecc, sample.ecc) and remapping is None
    if sample.error:
        return evolve(_hit(health, of_error(sample.error), policy, now), passes=0)
    before = health.phase
    health = _told(health, sample, policy, now)
    if not passed or health.phase is not before:
        return evolve(health, passes=0)
    match health.phase:
        case HealthPhase.SUSPECT if health.after is HealthPhase.HEALTHY:
            return _healed(health, now)
        case HealthPhase.SUSPECT:
            return evolve(health, phase=HealthPhase.PROBATION, since=now, passes=0)
        case HealthPhase.UNHEALTHY if _needs(health, Remedy.WAIT) and now >= health.hold_until:
            return evolve(health, phase=HealthPhase.PROBATION, since=now, passes=0)
        case HealthPhase.PROBATION:
            passes = min(PASSES, health.passes + 1)
            if passes == PASSES and now >= health.hold_until:
                return _healed(health, now)
            return evolve(health, passes=passes)
        case _:
            return health


def _told(health: Health, sample: Sample, policy: HealthPolicy, now: float) -> Health:
    """What the driver itself says should be done, where that is another thing than before."""
    before = health.recovery
    if sample.ecc is not None and sample.ecc != health.ecc:
        more = _grown(health.ecc, sample.ecc)
        health = evolve(health, ecc=sample.ecc)
        health = _hit(health, of_ecc(sample.ecc, policy), policy, now) if more else health
    remapping = of_remapping(sample, policy)
    if sample.remap_pending is not None and health.remapping != (
        (remapping and remapping.name) or ""
    ):
        health = evolve(health, remapping=remapping.name if remapping else "")
        health = (
            _hit(health, remapping, policy, now)
            if remapping
            else _seen(health, RecoverySign.RESET, policy, now)
        )
    if sample.recovery is None or sample.recovery == before:
        return health
    health = evolve(health, recovery=sample.recovery)
    cause = of_recovery(sample.recovery)
    if cause is not None:
        return _hit(health, cause, policy, now)
    served = sample.recovery == 0 and before
    return _seen(health, RecoverySign.RESET, policy, now) if served else health


def _seen(health: Health, seen: RecoverySign, policy: HealthPolicy, now: float) -> Health:
    match seen:
        case RecoverySign.DRIVER if _needs(health, Remedy.RESET):
            return _on_probation(health, health.cause, policy, now)
        case RecoverySign.RESET if _needs(health, Remedy.RESET, Remedy.REBOOT):
            return _on_probation(health, health.cause, policy, now)
        case RecoverySign.BACK if health.phase is HealthPhase.UNHEALTHY and health.cause == GONE:
            return _on_probation(health, health.cause, policy, now)
        case RecoverySign.BOOT:
            return _booted(health, policy, now)
        case RecoverySign.WORD if health.phase is not HealthPhase.HEALTHY:
            trusted = evolve(health, falls=(), stretch=1, served="")
            return evolve(_on_probation(trusted, health.cause, policy, now), hold_until=now)
        case _:
            return health


def _booted(health: Health, policy: HealthPolicy, now: float) -> Health:
    """A boot is a reset of everything; but what it has not helped against once stays."""
    health = evolve(health, recovery=None, ecc=None, remapping="", falls=())
    cause = health.cause
    if health.phase is HealthPhase.HEALTHY or cause is None:
        return health
    stays = cause.remedy is Remedy.OPERATOR or cause.name == health.served
    if health.phase is HealthPhase.UNHEALTHY and stays:
        return evolve(health, cause=evolve(cause, remedy=Remedy.OPERATOR))
    return evolve(_on_probation(health, cause, policy, now), served=cause.name)


def _overdue(health: Health, policy: HealthPolicy, now: float) -> Health:
    limit = due(health)
    if limit is None or now < limit:
        return health
    known = health.cause or Cause(HANG, Remedy.PROBE)
    return _sickened(health, evolve(known, remedy=Remedy.WAIT), policy, now)


def _on_probation(health: Health, cause: Cause | None, policy: HealthPolicy, now: float) -> Health:
    return evolve(
        health,
        phase=HealthPhase.PROBATION,
        cause=cause,
        since=now,
        hold_until=_held_down(health, policy, now),
        passes=0,
    )


def _healed(health: Health, now: float) -> Health:
    return evolve(health, phase=HealthPhase.HEALTHY, cause=None, since=now, passes=0, served="")


def _fallen(health: Health, now: float) -> Health:
    """The health with one more fall noted."""
    falls = (*(at for at in health.falls if now - FLAP_WINDOW < at <= now), now)[-FLAPS:]
    stretch = min(_MOST_STRETCH, health.stretch * 2) if len(falls) == FLAPS else 1
    return evolve(health, falls=falls, stretch=stretch)


def _held_down(health: Health, policy: HealthPolicy, now: float) -> float:
    return now + policy.hold_down * health.stretch


def _needs(health: Health, *remedies: Remedy) -> bool:
    unhealthy = health.phase is HealthPhase.UNHEALTHY
    return unhealthy and health.cause is not None and health.cause.remedy in remedies


def _grown(before: int | None, now: int | None) -> bool:
    return before is not None and now is not None and now > before
