"""The registrar: it does what its machine says, in time, and takes every answer back to it."""

from __future__ import annotations

from pathlib import Path

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from sgpud.bridge import Reactor
from sgpud.core.registration.events import (
    AllocatableOwner,
    AllocatableRead,
    KubeletAppeared,
    KubeletVanished,
    RegistrationPhase,
    StreamsChanged,
    TimerExpired,
)
from sgpud.core.registration.machine import STABLE_AFTER, STREAM_WITHIN, backoff
from sgpud.kubelet.api import deviceplugin_pb2 as api
from sgpud.kubelet.deviceplugin.endpoint import EndpointError
from sgpud.kubelet.deviceplugin.registrar import REGISTER, REGISTER_WITHIN, Registrar
from tests.core.values import POOL
from tests.surroundings import FakeReactor, listening

SOCKET = Path("/plugins/kubelet.sock")


@define
class Endpoint:
    """An endpoint that listens nowhere."""

    path: Path
    story: list[str]
    fails: bool = False
    end: Deferred[None] | None = None
    """When given, the endpoint ends with it."""
    prefers: bool = True
    asks: bool = False

    def start(self) -> None:
        if self.fails:
            self.story.append(f"cannot serve {self.path.name}")
            raise EndpointError(self.path, "no room")
        self.story.append(f"serve {self.path.name}")

    def hold(self) -> None:
        self.story.append(f"hold {self.path.name}")

    def end_unread(self) -> None:
        self.story.append(f"look at {self.path.name}")

    def stop(self) -> Deferred[None]:
        self.story.append(f"end {self.path.name}")
        return self.end or succeed(None)


@define
class Kubelet:
    """Takes Register calls, and answers when the test does."""

    story: list[str]
    calls: list[Deferred[bytes]] = field(factory=list)
    requests: list[api.RegisterRequest] = field(factory=list)

    def call(
        self, _: Reactor, socket: Path, method: str, request: bytes, timeout: float
    ) -> Deferred[bytes]:
        assert (socket, method, timeout) == (SOCKET, REGISTER, REGISTER_WITHIN)
        self.story.append("register")
        self.requests.append(api.RegisterRequest.FromString(request))
        self.calls.append(Deferred(lambda _: self.story.append("call cancelled")))
        return self.calls[-1]


class RegistrarTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = FakeReactor()
        self.story: list[str] = []
        self.kubelet = Kubelet(self.story)
        self.fails = False
        self.end: Deferred[None] | None = None
        self.prefers, self.asks = True, False
        self.changes = 0
        self.registrar = Registrar(
            POOL, self.clock, self.endpoint, SOCKET, self.changed, self.kubelet.call
        )

    def endpoint(self, generation: int) -> Endpoint:
        path = Path(f"/plugins/{generation}")
        return Endpoint(path, self.story, self.fails, self.end, self.prefers, self.asks)

    def changed(self) -> None:
        self.changes += 1

    def phase(self) -> RegistrationPhase:
        return self.registrar.state.phase

    def live(self) -> None:
        """Go from nothing to a live stream."""
        self.registrar.handle(KubeletAppeared())
        self.kubelet.calls[-1].callback(b"")
        self.registrar.handle(StreamsChanged(self.registrar.state.generation, 1))
        assert self.phase() is RegistrationPhase.LIVE

    def refuse(self) -> None:
        self.kubelet.calls[-1].errback(ValueError("version\nunknown"))

    # The usual way. ------------------------------------------------------------------------------

    def test_nothing_happens_before_there_is_a_kubelet(self) -> None:
        self.clock.advance(100)
        assert self.story == []
        assert self.phase() is RegistrationPhase.ABSENT

    def test_serve_then_register_with_what_the_kubelet_asks_for(self) -> None:
        self.registrar.handle(KubeletAppeared())
        assert self.story == ["serve 1", "register"]
        (request,) = self.kubelet.requests
        assert (request.version, request.endpoint) == ("v1beta1", "1")
        assert request.resource_name == POOL
        assert request.options.get_preferred_allocation_available
        assert not request.options.pre_start_required

    def test_what_is_wanted_before_a_start_is_told_again_when_it_changes(self) -> None:
        self.live()
        self.registrar.offers(prefers=True, asks=False)
        assert len(self.kubelet.requests) == 1
        self.asks = True
        self.registrar.offers(prefers=True, asks=True)
        assert [one.options.pre_start_required for one in self.kubelet.requests] == [False, True]

    def test_an_answer_and_a_stream_are_a_live_registration(self) -> None:
        with listening() as said:
            self.live()
        assert said.about("its stream is live")
        assert self.registrar.registrations == 1
        self.clock.pump([1] * 100)
        assert self.story == ["serve 1", "register"]
        assert self.phase() is RegistrationPhase.LIVE

    def test_the_stream_may_open_before_register_is_answered(self) -> None:
        self.registrar.handle(KubeletAppeared())
        self.registrar.handle(StreamsChanged(1, 1))
        assert self.phase() is RegistrationPhase.LIVE
        self.kubelet.calls[-1].callback(b"")
        self.clock.pump([1] * 100)
        assert self.story == ["serve 1", "register"]

    def test_every_transition_is_reported(self) -> None:
        self.live()
        assert self.changes >= 4

    def test_the_kubelet_is_told_of_other_options_by_a_new_registration(self) -> None:
        self.live()
        self.registrar.offers(prefers=True)
        assert self.story == ["serve 1", "register"]
        self.prefers = False
        with listening() as said:
            self.registrar.offers(prefers=False)
        assert self.story[2:] == ["end 1", "serve 2", "register"]
        assert not self.kubelet.requests[-1].options.get_preferred_allocation_available
        assert said.about("its options have changed")
        self.registrar.offers(prefers=False)
        assert len(self.story) == 5

    # What can fail. ------------------------------------------------------------------------------

    def test_a_refusal_retires_the_endpoint_and_retries_after_the_backoff(self) -> None:
        self.registrar.handle(KubeletAppeared())
        with listening() as said:
            self.refuse()
        assert said.about("Register: version unknown")
        assert self.story == ["serve 1", "register", "end 1"]
        self.clock.advance(backoff(1) - 0.01)
        assert len(self.story) == 3
        self.clock.advance(0.01)
        assert self.story[3:] == ["serve 2", "register"]

    def test_a_kubelet_that_keeps_refusing_is_asked_with_backoff(self) -> None:
        self.registrar.handle(KubeletAppeared())
        for attempt in range(1, 12):
            self.refuse()
            before = len(self.kubelet.calls)
            assert before == attempt
            self.clock.advance(backoff(attempt) * 0.99)
            assert len(self.kubelet.calls) == before
            self.clock.advance(backoff(attempt) * 0.02)
        assert self.registrar.registrations == 0
        assert self.story.count("register") == 12

    def test_a_registration_without_a_stream_is_lost_in_time(self) -> None:
        self.registrar.handle(KubeletAppeared())
        self.kubelet.calls[-1].callback(b"")
        self.clock.advance(STREAM_WITHIN - 0.1)
        assert self.phase() is RegistrationPhase.AWAITING
        self.clock.advance(0.1)
        assert self.story[2:] == ["end 1"]
        assert "opened no stream" in self.registrar.state.problem

    def test_a_stream_that_ends_early_is_retried_with_backoff(self) -> None:
        self.live()
        self.registrar.handle(StreamsChanged(1, 0))
        assert self.phase() is RegistrationPhase.WAITING
        self.clock.advance(backoff(1))
        assert self.story[2:] == ["end 1", "serve 2", "register"]

    def test_a_stream_that_was_stable_is_replaced_at_once(self) -> None:
        self.live()
        self.clock.advance(STABLE_AFTER)
        self.registrar.handle(StreamsChanged(1, 0))
        assert self.story[2:] == ["end 1", "serve 2", "register"]

    def test_the_next_endpoint_is_served_only_after_the_last_one_has_ended(self) -> None:
        self.end = Deferred()
        self.live()
        self.clock.advance(STABLE_AFTER)
        self.registrar.handle(StreamsChanged(1, 0))
        self.clock.advance(100)
        assert self.story[2:] == ["end 1"]
        self.end.callback(None)
        assert self.story[3:] == ["serve 2", "register"]

    def test_an_endpoint_that_fails_to_stop_counts_as_ended(self) -> None:
        self.end = Deferred()
        self.live()
        self.clock.advance(STABLE_AFTER)
        self.registrar.handle(StreamsChanged(1, 0))
        self.end.errback(OSError("busy"))
        assert self.story[3:] == ["serve 2", "register"]
        assert len(self.flushLoggedErrors(OSError)) == 1

    def test_an_endpoint_that_cannot_be_created_is_a_failed_attempt(self) -> None:
        self.fails = True
        with listening() as said:
            self.registrar.handle(KubeletAppeared())
        assert self.story == ["cannot serve 1"]
        assert said.about("cannot listen on /plugins/1: no room")
        self.fails = False
        self.clock.advance(backoff(1))
        assert self.story[1:] == ["serve 2", "register"]

    def test_without_a_kubelet_nothing_is_attempted(self) -> None:
        self.registrar.handle(KubeletAppeared())
        self.registrar.handle(KubeletVanished())
        self.refuse()
        self.clock.pump([10] * 100)
        assert self.story == ["serve 1", "register", "end 1"]
        self.registrar.handle(KubeletAppeared())
        assert self.story[3:] == ["serve 2", "register"]

    def test_a_new_kubelet_ends_the_wait(self) -> None:
        self.registrar.handle(KubeletAppeared())
        self.refuse()
        self.registrar.handle(KubeletAppeared())
        assert self.story[3:] == ["serve 2", "register"]
        self.clock.pump([10] * 100)
        assert len(self.story) == 5

    # What comes late. ----------------------------------------------------------------------------

    def test_answers_for_a_retired_endpoint_are_ignored(self) -> None:
        self.live()
        self.registrar.handle(StreamsChanged(1, 0))
        self.clock.advance(backoff(1))
        state = self.registrar.state
        for late in (StreamsChanged(1, 0), StreamsChanged(1, 1), TimerExpired(1)):
            self.registrar.handle(late)
        assert self.registrar.state == state
        assert self.story[-2:] == ["serve 2", "register"]

    def test_an_answer_to_register_after_the_stop_is_ignored(self) -> None:
        self.registrar.handle(KubeletAppeared())
        self.successResultOf(self.registrar.stop())
        assert self.story[2:] == ["call cancelled", "end 1"]
        assert self.phase() is RegistrationPhase.STOPPED

    # The stop. -----------------------------------------------------------------------------------

    def test_a_stop_retires_and_then_fires(self) -> None:
        self.end = Deferred()
        self.live()
        stopped = self.registrar.stop()
        assert self.story[2:] == ["end 1"]
        self.assertNoResult(stopped)
        self.end.callback(None)
        self.successResultOf(stopped)

    def test_a_stop_before_the_start_and_a_second_stop_fire_at_once(self) -> None:
        self.successResultOf(self.registrar.stop())
        self.registrar.stop()
        self.registrar.handle(KubeletAppeared())
        assert self.story == []

    def test_a_stop_leaves_no_timer(self) -> None:
        self.live()
        self.registrar.stop()
        assert self.clock.getDelayedCalls() == []

    def test_a_stop_while_it_waits_for_the_next_try(self) -> None:
        self.registrar.handle(KubeletAppeared())
        self.refuse()
        self.successResultOf(self.registrar.stop())
        self.clock.pump([10] * 10)
        assert self.story == ["serve 1", "register", "end 1"]
        assert self.clock.getDelayedCalls() == []

    # Another plugin. -----------------------------------------------------------------------------

    def test_another_plugin_is_named_in_the_log_and_its_list_is_left_alone(self) -> None:
        self.live()
        with listening() as said:
            self.registrar.handle(
                AllocatableRead(1, AllocatableOwner.OTHERS, 1.0, example="GPU-9::1")
            )
        assert self.phase() is RegistrationPhase.SUPERSEDED
        assert self.story[-1] == "hold 1"
        (line,) = said.lines
        assert "another plugin registered it after sgpud and lists GPU-9::1" in line
        assert "remove it from this node" in line
        with listening() as said:
            self.registrar.handle(AllocatableRead(1, AllocatableOwner.NOTHING, 2.0))
        assert self.story[-3:] == ["end 1", "serve 2", "register"]
        assert said.about("the other plugin has ended; registering again")

    def test_only_an_existing_endpoint_is_checked(self) -> None:
        self.registrar.end_unread()
        self.live()
        self.registrar.end_unread()
        assert self.story[-1] == "look at 1"
