"""Registration of one pool with the kubelet: a table of transitions, without I/O and time.

**A live ListAndWatch stream is the only truth of "registered".** The kubelet's socket appearing, a
directory event or a timer only wake a try; they never end a stream that is live.

Invariants (tests/core/test_registration.py holds them over random histories):

1. At most one endpoint of a pool is alive.
2. Register is called only for the endpoint that is served, and after it is.
3. The old generation is retired before the next is served.
4. After Stop there is nothing but retiring.
5. From any history, a kubelet that works leads to a live stream.

Every answer carries its generation; `step` ignores the stale ones, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import evolve, frozen

from sgpud.core.registration_values import (
    Effect,
    Event,
    KubeletGone,
    KubeletSeen,
    Phase,
    Refused,
    Register,
    Registered,
    Retire,
    Retired,
    Serve,
    Served,
    ServeFailed,
    State,
    Stop,
    Streams,
    TimeUp,
    Wait,
)

__all__ = [
    "LONGEST_WAIT",
    "STABLE_AFTER",
    "STREAM_WITHIN",
    "TABLE",
    "Action",
    "Effect",
    "Event",
    "KubeletGone",
    "KubeletSeen",
    "Outcome",
    "Phase",
    "Refused",
    "Register",
    "Registered",
    "Retire",
    "Retired",
    "Row",
    "Serve",
    "ServeFailed",
    "Served",
    "State",
    "Stop",
    "Streams",
    "TimeUp",
    "Wait",
    "backoff",
    "step",
]

STREAM_WITHIN = 5.0
"""Seconds from Register's answer until the kubelet must have opened the stream: it does so at once
(devicemanager: runClient follows Register), so a stream that is not there by then was lost."""
STABLE_AFTER = 10.0
"""Seconds a stream has to live for its loss to be retried at once: a kubelet that takes the
registration and drops every stream must not be answered in a tight loop."""
LONGEST_WAIT = 30.0


def backoff(attempt: int) -> float:
    """Seconds to wait before try number `attempt` in a row: 0, then 0.1 doubling, at most 30."""
    return 0.0 if attempt <= 0 else min(LONGEST_WAIT, 0.1 * 2.0 ** min(attempt - 1, 30))


Outcome = tuple[State, tuple[Effect, ...]]
Action = Callable[[State, Event], Outcome]


def _serve(state: State) -> Outcome:
    generation = state.generation + 1
    fresh = evolve(state, phase=Phase.SERVING, generation=generation, streams=0, woken=False)
    return fresh, (Serve(generation),)


def _try(state: State, _event: Event) -> Outcome:
    return _serve(evolve(state, present=True, attempt=0))


def _retry(state: State, _event: Event) -> Outcome:
    """The next try after a retired endpoint or a wait: now, later, or when a kubelet comes."""
    if not state.present:
        return evolve(state, phase=Phase.ABSENT, attempt=0), ()
    delay = 0.0 if state.woken or state.phase is Phase.WAITING else backoff(state.attempt)
    if delay == 0.0:
        return _serve(evolve(state, attempt=0 if state.woken else state.attempt))
    return evolve(state, phase=Phase.WAITING), (Wait(state.generation, delay),)


def _register(state: State, _event: Event) -> Outcome:
    return evolve(state, phase=Phase.REGISTERING), (Register(state.generation),)


def _await(state: State, _event: Event) -> Outcome:
    waited = evolve(state, phase=Phase.AWAITING)
    return waited, (Wait(state.generation, STREAM_WITHIN),)


def _live(state: State, event: Event) -> Outcome:
    if not isinstance(event, Streams) or event.live == 0:
        return state, ()
    live = evolve(state, phase=Phase.LIVE, streams=event.live, settled=False, problem="")
    return live, (Wait(state.generation, STABLE_AFTER),)


def _settled(state: State, _event: Event) -> Outcome:
    return evolve(state, attempt=0, settled=True), ()


def _fail(problem: str) -> Action:
    def action(state: State, event: Event) -> Outcome:
        text = event.problem if isinstance(event, Refused) else problem
        failed = evolve(
            state, phase=Phase.RETIRING, attempt=state.attempt + 1, streams=0, problem=text
        )
        return failed, (Retire(state.generation),)

    return action


def _not_served(state: State, event: Event) -> Outcome:
    problem = event.problem if isinstance(event, ServeFailed) else ""
    failed = evolve(state, attempt=state.attempt + 1, problem=problem)
    return _retry(failed, event)


def _streams(state: State, event: Event) -> Outcome:
    if isinstance(event, Streams) and event.live:
        return evolve(state, streams=event.live), ()
    lost, effects = _fail("the kubelet ended the stream")(state, event)
    return (evolve(lost, attempt=0) if state.settled else lost), effects


def _note_seen(state: State, _event: Event) -> Outcome:
    return evolve(state, present=True, woken=True), ()


def _note_gone(state: State, _event: Event) -> Outcome:
    return evolve(state, present=False, woken=False), ()


def _replaced(state: State, event: Event) -> Outcome:
    """Another kubelet.sock while the stream is awaited: the kubelet that answered is no more."""
    seen, _ = _note_seen(state, event)
    return _fail("the kubelet was restarted before it opened the stream")(seen, event)


def _end(state: State, _event: Event) -> Outcome:
    return evolve(state, phase=Phase.STOPPED, streams=0), ()


def _wind_up(state: State, _event: Event) -> Outcome:
    return evolve(state, phase=Phase.STOPPING, streams=0), (Retire(state.generation),)


def _await_end(state: State, _event: Event) -> Outcome:
    return evolve(state, phase=Phase.STOPPING), ()


@frozen
class Row:
    """One line of the table: in this phase, on this event, do this, and be in one of these."""

    action: Action
    to: tuple[Phase, ...]


_GOES_ON = (Phase.SERVING, Phase.WAITING, Phase.ABSENT)

TABLE: Mapping[tuple[Phase, type], Row] = {
    (Phase.ABSENT, KubeletSeen): Row(_try, (Phase.SERVING,)),
    (Phase.ABSENT, Stop): Row(_end, (Phase.STOPPED,)),
    (Phase.SERVING, Served): Row(_register, (Phase.REGISTERING,)),
    (Phase.SERVING, ServeFailed): Row(_not_served, _GOES_ON),
    (Phase.SERVING, Stop): Row(_wind_up, (Phase.STOPPING,)),
    (Phase.REGISTERING, Registered): Row(_await, (Phase.AWAITING,)),
    (Phase.REGISTERING, Refused): Row(_fail(""), (Phase.RETIRING,)),
    (Phase.REGISTERING, Streams): Row(_live, (Phase.LIVE,)),
    (Phase.REGISTERING, Stop): Row(_wind_up, (Phase.STOPPING,)),
    (Phase.AWAITING, Streams): Row(_live, (Phase.LIVE,)),
    (Phase.AWAITING, TimeUp): Row(
        _fail("registered, but the kubelet opened no stream"), (Phase.RETIRING,)
    ),
    (Phase.AWAITING, KubeletSeen): Row(_replaced, (Phase.RETIRING,)),
    (Phase.AWAITING, Stop): Row(_wind_up, (Phase.STOPPING,)),
    (Phase.LIVE, Streams): Row(_streams, (Phase.LIVE, Phase.RETIRING)),
    (Phase.LIVE, TimeUp): Row(_settled, (Phase.LIVE,)),
    (Phase.LIVE, Stop): Row(_wind_up, (Phase.STOPPING,)),
    (Phase.RETIRING, Retired): Row(_retry, _GOES_ON),
    (Phase.RETIRING, Stop): Row(_await_end, (Phase.STOPPING,)),
    (Phase.WAITING, TimeUp): Row(_retry, (Phase.SERVING, Phase.ABSENT)),
    (Phase.WAITING, KubeletSeen): Row(_try, (Phase.SERVING,)),
    (Phase.WAITING, Stop): Row(_end, (Phase.STOPPED,)),
    (Phase.STOPPING, Retired): Row(_end, (Phase.STOPPED,)),
}

_SEEN = Row(_note_seen, ())
_GONE = Row(_note_gone, ())
_ENDED = (Phase.STOPPING, Phase.STOPPED)


def step(state: State, event: Event) -> Outcome:
    """The state after an event, and what to do, in order.

    Never an error: what fits nowhere is a late answer, and is ignored.
    """
    if state.phase in _ENDED and not isinstance(event, Retired):
        return state, ()
    if not isinstance(event, KubeletSeen | KubeletGone | Stop) and (
        event.generation != state.generation
    ):
        return state, ()
    row = TABLE.get((state.phase, type(event)))
    if row is None and isinstance(event, KubeletSeen):
        row = _SEEN
    elif row is None and isinstance(event, KubeletGone):
        row = _GONE
    return row.action(state, event) if row else (state, ())
