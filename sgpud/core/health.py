"""The health of one GPU: a machine in time, pure.

- Nothing but a probe that passes makes a GPU healthy that was not: one pass after a suspicion, and
  PASSES of them after a probation.
- Time alone makes nothing better. A cause that needs a reset or a reboot stays until that was
  seen, or a person says so.
- What happens again and again is trusted less: the third time in ten minutes doubles the
  hold-down, and a suspicion then ends in probation.

A physical GPU and each of its MIG instances have a health of their own.
"""

from __future__ import annotations

from attrs import evolve

from sgpud.core.causes import ASKS, GONE, HANG, Cause, Policy, of_error, of_recovery
from sgpud.core.health_values import Health, Phase, Seen, TimePassed
from sgpud.core.observation import Sample
from sgpud.core.xids import Remedy

SUSPECT_FOR = 30.0
"""Seconds that a suspicion lasts at most."""
PASSES = 3
"""Probes in a row that have to pass in probation."""
FLAPS, FLAP_WINDOW = 3, 600.0
"""So many falls in so many seconds double the hold-down."""
_MOST_STRETCH = 64


def step(
    health: Health, what: Cause | Sample | Seen | TimePassed, policy: Policy, now: float
) -> Health:
    """The health after something was observed, or time has passed."""
    match what:
        case Cause():
            return _hit(health, what, policy, now)
        case Sample():
            return _probed(health, what, policy, now)
        case Seen():
            return _seen(health, what, policy, now)
        case TimePassed():
            return _overdue(health, policy, now)


def due(health: Health) -> float | None:
    """When time alone changes it; None where it never does."""
    return health.since + SUSPECT_FOR if health.phase is Phase.SUSPECT else None


def _hit(health: Health, cause: Cause, policy: Policy, now: float) -> Health:
    """Something happened to the GPU."""
    match cause.remedy:
        case Remedy.IGNORE | Remedy.RESTART:
            return health
        case Remedy.LOOK:
            return _suspected(health, cause, policy, now)
        case Remedy.DRAIN if health.phase is Phase.UNHEALTHY:
            return health
        case Remedy.DRAIN:
            return _on_probation(_fallen(health, now), cause, policy, now)
        case _:
            return _sickened(health, cause, policy, now)


def _suspected(health: Health, cause: Cause, policy: Policy, now: float) -> Health:
    if health.phase in (Phase.SUSPECT, Phase.UNHEALTHY):
        return health
    if health.phase is Phase.PROBATION and cause == ASKS:
        # The next probe tells what it is now; on probation none is healthy before that.
        return health
    fallen = _fallen(health, now)
    calm = health.phase is Phase.HEALTHY and fallen.stretch == 1
    return evolve(
        fallen,
        phase=Phase.SUSPECT,
        cause=cause,
        since=now,
        after=Phase.HEALTHY if calm else Phase.PROBATION,
        hold_until=_held_down(fallen, policy, now),
        passes=0,
    )


def _sickened(health: Health, cause: Cause, policy: Policy, now: float) -> Health:
    if health.phase is Phase.UNHEALTHY:
        known = health.cause
        worse = known is None or cause.remedy.weight > known.remedy.weight or known == GONE
        kept = cause if worse else known
        return evolve(health, cause=kept, hold_until=_held_down(health, policy, now))
    fallen = health if health.phase is Phase.SUSPECT else _fallen(health, now)
    return evolve(
        fallen,
        phase=Phase.UNHEALTHY,
        cause=cause,
        since=now,
        hold_until=_held_down(fallen, policy, now),
        passes=0,
    )


def _probed(health: Health, sample: Sample, policy: Policy, now: float) -> Health:
    """A probe has answered."""
    passed = not sample.recovery and not _grown(health.ecc, sample.ecc)
    if sample.error:
        return evolve(_hit(health, of_error(sample.error), policy, now), passes=0)
    before = health.phase
    health = _told(health, sample, policy, now)
    if not passed or health.phase is not before:
        return evolve(health, passes=0)
    match health.phase:
        case Phase.SUSPECT if health.after is Phase.HEALTHY:
            return _healed(health, now)
        case Phase.SUSPECT:
            return evolve(health, phase=Phase.PROBATION, since=now, passes=0)
        case Phase.UNHEALTHY if _needs(health, Remedy.WAIT) and now >= health.hold_until:
            return evolve(health, phase=Phase.PROBATION, since=now, passes=0)
        case Phase.PROBATION:
            passes = min(PASSES, health.passes + 1)
            if passes == PASSES and now >= health.hold_until:
                return _healed(health, now)
            return evolve(health, passes=passes)
        case _:
            return health


def _told(health: Health, sample: Sample, policy: Policy, now: float) -> Health:
    """What the driver itself says should be done, where that is another thing than before."""
    before = health.recovery
    if sample.ecc is not None and sample.ecc != health.ecc:
        health = evolve(health, ecc=sample.ecc)
    if sample.recovery is None or sample.recovery == before:
        return health
    health = evolve(health, recovery=sample.recovery)
    cause = of_recovery(sample.recovery)
    if cause is not None:
        return _hit(health, cause, policy, now)
    served = sample.recovery == 0 and before
    return _seen(health, Seen.RESET, policy, now) if served else health


def _seen(health: Health, seen: Seen, policy: Policy, now: float) -> Health:
    match seen:
        case Seen.DRIVER if _needs(health, Remedy.RESET):
            return _on_probation(health, health.cause, policy, now)
        case Seen.RESET if _needs(health, Remedy.RESET, Remedy.REBOOT):
            return _on_probation(health, health.cause, policy, now)
        case Seen.BACK if health.phase is Phase.UNHEALTHY and health.cause == GONE:
            return _on_probation(health, health.cause, policy, now)
        case Seen.BOOT:
            return _booted(health, policy, now)
        case Seen.WORD if health.phase is not Phase.HEALTHY:
            trusted = evolve(health, falls=(), stretch=1, served="")
            return evolve(_on_probation(trusted, health.cause, policy, now), hold_until=now)
        case _:
            return health


def _booted(health: Health, policy: Policy, now: float) -> Health:
    """A boot is a reset of everything; but what it has not helped against once stays."""
    health = evolve(health, recovery=None, ecc=None, falls=())
    cause = health.cause
    if health.phase is Phase.HEALTHY or cause is None:
        return health
    stays = cause.remedy is Remedy.OPERATOR or cause.name == health.served
    if health.phase is Phase.UNHEALTHY and stays:
        return evolve(health, cause=evolve(cause, remedy=Remedy.OPERATOR))
    return evolve(_on_probation(health, cause, policy, now), served=cause.name)


def _overdue(health: Health, policy: Policy, now: float) -> Health:
    limit = due(health)
    if limit is None or now < limit:
        return health
    known = health.cause or Cause(HANG, Remedy.LOOK)
    return _sickened(health, evolve(known, remedy=Remedy.WAIT), policy, now)


def _on_probation(health: Health, cause: Cause | None, policy: Policy, now: float) -> Health:
    return evolve(
        health,
        phase=Phase.PROBATION,
        cause=cause,
        since=now,
        hold_until=_held_down(health, policy, now),
        passes=0,
    )


def _healed(health: Health, now: float) -> Health:
    return evolve(health, phase=Phase.HEALTHY, cause=None, since=now, passes=0, served="")


def _fallen(health: Health, now: float) -> Health:
    """The health with one more fall noted."""
    falls = (*(at for at in health.falls if now - FLAP_WINDOW < at <= now), now)[-FLAPS:]
    stretch = min(_MOST_STRETCH, health.stretch * 2) if len(falls) == FLAPS else 1
    return evolve(health, falls=falls, stretch=stretch)


def _held_down(health: Health, policy: Policy, now: float) -> float:
    return now + policy.hold_down * health.stretch


def _needs(health: Health, *remedies: Remedy) -> bool:
    unhealthy = health.phase is Phase.UNHEALTHY
    return unhealthy and health.cause is not None and health.cause.remedy in remedies


def _grown(before: int | None, now: int | None) -> bool:
    return before is not None and now is not None and now > before
