"""The registration of a pool as a transition table, one machine per pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import evolve, frozen

from sgpud.core.registration.events import (
    AllocatableOwner,
    AllocatableRead,
    CallRegister,
    Effect,
    EndpointFailed,
    EndpointRetired,
    EndpointServed,
    Event,
    HoldLists,
    KubeletAppeared,
    KubeletVanished,
    OptionsChanged,
    RegisterAnswered,
    RegisterRefused,
    RegistrationPhase,
    RegistrationState,
    RetireEndpoint,
    ServeEndpoint,
    StartTimer,
    StopRequested,
    StreamsChanged,
    TimerExpired,
)

STREAM_WITHIN = 5.0
"""Seconds from Register's answer until the kubelet must have opened the stream: it does so at once
(devicemanager: runClient follows Register), so a stream that is missing by then was lost."""
STABLE_AFTER = 10.0
"""Seconds a stream has to live for its loss to be retried at once: a kubelet that accepts the
registration and drops every stream must not cause a tight loop."""
LONGEST_WAIT = 30.0
MISSING_AFTER = 2.0
"""Seconds without any of our ids after which the pool registers again: the plugin that registered
after it has ended, and the kubelet has no plugin for the resource. Not at once: another plugin's
restart takes a moment."""
SUPERSEDED_AFTER = 0.2
"""Seconds with another plugin's ids after which they count: a list of ours that the kubelet is
about to read replaces those of the plugin before."""
RECLAIM_AFTER = 10.0
"""Seconds with our ids after which a superseded pool registers again: the other plugin lists
nothing, but the kubelet still asks it for every pod."""
MAX_RECLAIMS = 3
"""Consecutive registrations because none of our ids were allocatable. After that a live stream is
enough: this kubelet does not report plugins' ids, or podresources is another kubelet's."""


def backoff(attempt: int) -> float:
    """Seconds before attempt number `attempt` in a row: 0, then 0.1 doubling, at most 30."""
    return 0.0 if attempt <= 0 else min(LONGEST_WAIT, 0.1 * 2.0 ** min(attempt - 1, 30))


Outcome = tuple[RegistrationState, tuple[Effect, ...]]
Action = Callable[[RegistrationState, Event], Outcome]


def _serve(state: RegistrationState) -> Outcome:
    generation = state.generation + 1
    fresh = evolve(
        state,
        phase=RegistrationPhase.SERVING,
        generation=generation,
        streams=0,
        woken=False,
        ours_shown=False,
        displaced=False,
    )
    return fresh, (ServeEndpoint(generation),)


def _try(state: RegistrationState, _event: Event) -> Outcome:
    return _serve(evolve(state, present=True, attempt=0, reclaims=0))


def _retry(state: RegistrationState, _event: Event) -> Outcome:
    """The next attempt after a retired endpoint or a wait: now, later, or once a kubelet runs."""
    if not state.present:
        return evolve(state, phase=RegistrationPhase.ABSENT, attempt=0), ()
    delay = (
        0.0 if state.woken or state.phase is RegistrationPhase.WAITING else backoff(state.attempt)
    )
    if delay == 0.0:
        return _serve(evolve(state, attempt=0 if state.woken else state.attempt))
    return evolve(state, phase=RegistrationPhase.WAITING), (StartTimer(state.generation, delay),)


def _register(state: RegistrationState, _event: Event) -> Outcome:
    return evolve(state, phase=RegistrationPhase.REGISTERING), (CallRegister(state.generation),)


def _await(state: RegistrationState, _event: Event) -> Outcome:
    waited = evolve(state, phase=RegistrationPhase.AWAITING)
    return waited, (StartTimer(state.generation, STREAM_WITHIN),)


def _live(state: RegistrationState, event: Event) -> Outcome:
    if not isinstance(event, StreamsChanged) or event.live == 0:
        return state, ()
    live = evolve(
        state, phase=RegistrationPhase.LIVE, streams=event.live, settled=False, problem=""
    )
    return live, (StartTimer(state.generation, STABLE_AFTER),)


def _settled(state: RegistrationState, _event: Event) -> Outcome:
    return evolve(state, attempt=0, settled=True), ()


def _fail(problem: str) -> Action:
    def action(state: RegistrationState, event: Event) -> Outcome:
        text = event.problem if isinstance(event, RegisterRefused) else problem
        failed = evolve(
            state,
            phase=RegistrationPhase.RETIRING,
            attempt=state.attempt + 1,
            streams=0,
            problem=text,
        )
        return failed, (RetireEndpoint(state.generation),)

    return action


def _renew(state: RegistrationState, event: Event) -> Outcome:
    """Register again at once: the kubelet reads the options of a plugin only then."""
    ended, effects = _fail("")(state, event)
    return evolve(ended, attempt=0), effects


def _not_served(state: RegistrationState, event: Event) -> Outcome:
    problem = event.problem if isinstance(event, EndpointFailed) else ""
    failed = evolve(state, attempt=state.attempt + 1, problem=problem)
    return _retry(failed, event)


def _streams(state: RegistrationState, event: Event) -> Outcome:
    if isinstance(event, StreamsChanged) and event.live:
        return evolve(state, streams=event.live), ()
    return _lost(state, event, "the kubelet ended the stream")


def _lost(state: RegistrationState, event: Event, problem: str) -> Outcome:
    """What was registered no longer is: register again, at once where it lasted."""
    lost, effects = _fail(problem)(state, event)
    return (evolve(lost, attempt=0) if state.settled else lost), effects


def _missing(state: RegistrationState, event: Event, problem: str) -> Outcome:
    """The kubelet does not use our plugin: register again, at once the first time."""
    lost, effects = _fail(problem)(state, event)
    return evolve(lost, attempt=state.reclaims, reclaims=state.reclaims + 1), effects


def _compare(state: RegistrationState, event: Event) -> Outcome:
    """Compare the allocatable ids while a stream is live."""
    if not isinstance(event, AllocatableRead):
        return state, ()
    ours = event.shows is AllocatableOwner.OURS
    if ours and state.displaced:
        # The list that we sent after its end shows ours again, but pods are still sent to it.
        return _lost(state, event, "another plugin registered it after sgpud, and has ended")
    other = event.shows is AllocatableOwner.OTHERS or (not ours and event.listing)
    displaced = state.displaced or (state.ours_shown and other)
    state = evolve(state, ours_shown=ours, displaced=displaced)
    if ours:
        return evolve(state, reclaims=0), ()
    if event.shows is AllocatableOwner.OTHERS:
        if event.seconds < SUPERSEDED_AFTER:
            return state, ()
        problem = f"another plugin registered it after sgpud and lists {event.example}"
        superseded = evolve(state, phase=RegistrationPhase.SUPERSEDED, problem=problem, reclaims=0)
        return superseded, (HoldLists(state.generation),)
    lasts = event.listing and event.seconds >= MISSING_AFTER
    if lasts and state.reclaims < MAX_RECLAIMS:
        return _missing(state, event, "the kubelet shows none of its shares")
    return state, ()


def _outlast(state: RegistrationState, event: Event) -> Outcome:
    """Watch the allocatable ids while another plugin serves the resource: wait for its end."""
    if not isinstance(event, AllocatableRead):
        return state, ()
    after = {AllocatableOwner.NOTHING: MISSING_AFTER, AllocatableOwner.OURS: RECLAIM_AFTER}
    if event.seconds >= after.get(event.shows, float("inf")):
        return _missing(state, event, "the other plugin has ended")
    return state, ()


def _note_seen(state: RegistrationState, _event: Event) -> Outcome:
    return evolve(state, present=True, woken=True, reclaims=0), ()


def _note_gone(state: RegistrationState, _event: Event) -> Outcome:
    return evolve(state, present=False, woken=False), ()


def _replaced(state: RegistrationState, event: Event) -> Outcome:
    """kubelet.sock was replaced while awaiting the stream: the kubelet that answered has ended."""
    seen, _ = _note_seen(state, event)
    return _fail("the kubelet was restarted before it opened the stream")(seen, event)


def _end(state: RegistrationState, _event: Event) -> Outcome:
    return evolve(state, phase=RegistrationPhase.STOPPED, streams=0), ()


def _wind_up(state: RegistrationState, _event: Event) -> Outcome:
    return evolve(state, phase=RegistrationPhase.STOPPING, streams=0), (
        RetireEndpoint(state.generation),
    )


def _await_end(state: RegistrationState, _event: Event) -> Outcome:
    return evolve(state, phase=RegistrationPhase.STOPPING), ()


@frozen
class TransitionRow:
    """One row of the table: the action, and the phases it can lead to."""

    action: Action
    to: tuple[RegistrationPhase, ...]


_GOES_ON = (RegistrationPhase.SERVING, RegistrationPhase.WAITING, RegistrationPhase.ABSENT)

TABLE: Mapping[tuple[RegistrationPhase, type], TransitionRow] = {
    (RegistrationPhase.ABSENT, KubeletAppeared): TransitionRow(_try, (RegistrationPhase.SERVING,)),
    (RegistrationPhase.ABSENT, StopRequested): TransitionRow(_end, (RegistrationPhase.STOPPED,)),
    (RegistrationPhase.SERVING, EndpointServed): TransitionRow(
        _register, (RegistrationPhase.REGISTERING,)
    ),
    (RegistrationPhase.SERVING, EndpointFailed): TransitionRow(_not_served, _GOES_ON),
    (RegistrationPhase.SERVING, StopRequested): TransitionRow(
        _wind_up, (RegistrationPhase.STOPPING,)
    ),
    (RegistrationPhase.REGISTERING, RegisterAnswered): TransitionRow(
        _await, (RegistrationPhase.AWAITING,)
    ),
    (RegistrationPhase.REGISTERING, RegisterRefused): TransitionRow(
        _fail(""), (RegistrationPhase.RETIRING,)
    ),
    (RegistrationPhase.REGISTERING, StreamsChanged): TransitionRow(
        _live, (RegistrationPhase.LIVE,)
    ),
    (RegistrationPhase.REGISTERING, OptionsChanged): TransitionRow(
        _renew, (RegistrationPhase.RETIRING,)
    ),
    (RegistrationPhase.REGISTERING, StopRequested): TransitionRow(
        _wind_up, (RegistrationPhase.STOPPING,)
    ),
    (RegistrationPhase.AWAITING, StreamsChanged): TransitionRow(_live, (RegistrationPhase.LIVE,)),
    (RegistrationPhase.AWAITING, TimerExpired): TransitionRow(
        _fail("registered, but the kubelet opened no stream"), (RegistrationPhase.RETIRING,)
    ),
    (RegistrationPhase.AWAITING, KubeletAppeared): TransitionRow(
        _replaced, (RegistrationPhase.RETIRING,)
    ),
    (RegistrationPhase.AWAITING, OptionsChanged): TransitionRow(
        _renew, (RegistrationPhase.RETIRING,)
    ),
    (RegistrationPhase.AWAITING, StopRequested): TransitionRow(
        _wind_up, (RegistrationPhase.STOPPING,)
    ),
    (RegistrationPhase.LIVE, StreamsChanged): TransitionRow(
        _streams, (RegistrationPhase.LIVE, RegistrationPhase.RETIRING)
    ),
    (RegistrationPhase.LIVE, AllocatableRead): TransitionRow(
        _compare,
        (RegistrationPhase.LIVE, RegistrationPhase.SUPERSEDED, RegistrationPhase.RETIRING),
    ),
    (RegistrationPhase.LIVE, OptionsChanged): TransitionRow(_renew, (RegistrationPhase.RETIRING,)),
    (RegistrationPhase.LIVE, TimerExpired): TransitionRow(_settled, (RegistrationPhase.LIVE,)),
    (RegistrationPhase.LIVE, StopRequested): TransitionRow(_wind_up, (RegistrationPhase.STOPPING,)),
    (RegistrationPhase.SUPERSEDED, AllocatableRead): TransitionRow(
        _outlast, (RegistrationPhase.SUPERSEDED, RegistrationPhase.RETIRING)
    ),
    (RegistrationPhase.SUPERSEDED, StreamsChanged): TransitionRow(
        _streams, (RegistrationPhase.SUPERSEDED, RegistrationPhase.RETIRING)
    ),
    (RegistrationPhase.SUPERSEDED, StopRequested): TransitionRow(
        _wind_up, (RegistrationPhase.STOPPING,)
    ),
    (RegistrationPhase.RETIRING, EndpointRetired): TransitionRow(_retry, _GOES_ON),
    (RegistrationPhase.RETIRING, StopRequested): TransitionRow(
        _await_end, (RegistrationPhase.STOPPING,)
    ),
    (RegistrationPhase.WAITING, TimerExpired): TransitionRow(
        _retry, (RegistrationPhase.SERVING, RegistrationPhase.ABSENT)
    ),
    (RegistrationPhase.WAITING, KubeletAppeared): TransitionRow(_try, (RegistrationPhase.SERVING,)),
    (RegistrationPhase.WAITING, StopRequested): TransitionRow(_end, (RegistrationPhase.STOPPED,)),
    (RegistrationPhase.STOPPING, EndpointRetired): TransitionRow(
        _end, (RegistrationPhase.STOPPED,)
    ),
}

_SEEN = TransitionRow(_note_seen, ())
_GONE = TransitionRow(_note_gone, ())
_ENDED = (RegistrationPhase.STOPPING, RegistrationPhase.STOPPED)


def step(state: RegistrationState, event: Event) -> Outcome:
    """The state after an event, and the effects, in order.

    Never raises: an event without a row is a late answer, and is ignored.
    """
    if state.phase in _ENDED and not isinstance(event, EndpointRetired):
        return state, ()
    if not isinstance(event, KubeletAppeared | KubeletVanished | StopRequested) and (
        event.generation != state.generation
    ):
        return state, ()
    row = TABLE.get((state.phase, type(event)))
    if row is None and isinstance(event, KubeletAppeared):
        row = _SEEN
    elif row is None and isinstance(event, KubeletVanished):
        row = _GONE
    return row.action(state, event) if row else (state, ())
