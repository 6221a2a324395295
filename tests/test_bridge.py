"""Between reactor and workers: the latest value always arrives, and no thread waits forever.

Every wait here has a time limit; a test that reaches it fails.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import Queue
from threading import Event, Thread
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase

from sgpud.bridge import OneAtATime, RingBuffer, Subscription, Watchable, deferred, in_thread
from tests.surroundings import listening

LIMIT = 30.0
"""Seconds: far more than any wait of these tests takes."""
END = -1
N = TypeVar("N")


def holds(_: object) -> bool:
    return True


def note(what: N, _: object) -> tuple[None, list[N]]:
    """A decision that only leaves a note."""
    return None, [what]


def watchable() -> Watchable[int, str]:
    return Watchable(0)


@contextmanager
def running(*functions: Callable[[], object]) -> Iterator[None]:
    """Run these in threads, and fail when one of them does not end."""
    threads = [Thread(target=function, daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()


def into(seen: Queue[int], subscription: Subscription[int]) -> Callable[[], None]:
    """A function that iterates to the end and collects all that it saw."""

    def iterate() -> None:
        for value in subscription:
            seen.put(value)
        seen.put(END)

    return iterate


# Watchable and Subscription. -------------------------------------------------------------------


def test_a_subscription_starts_with_the_current_value() -> None:
    value = watchable()
    assert value.publish(1, holds)
    assert next(iter(value.subscribe())) == 1
    assert value.value == 1


def test_a_burst_is_coalesced_to_the_latest_value() -> None:
    value = watchable()
    values = iter(value.subscribe())
    assert next(values) == 0
    for number in (1, 2, 3):
        value.publish(number, holds)
    assert next(values) == 3


def test_publishing_the_same_value_again_is_a_new_version() -> None:
    value = watchable()
    values = iter(value.subscribe())
    assert next(values) == 0
    value.publish(0, holds)
    assert next(values) == 0


def test_a_value_wakes_a_waiting_subscription() -> None:
    value, seen = watchable(), Queue[int]()
    subscription = value.subscribe()
    with running(into(seen, subscription)):
        for number in range(100):
            assert seen.get(timeout=LIMIT) == number
            value.publish(number + 1, holds)
        assert seen.get(timeout=LIMIT) == 100
        subscription.close()
    assert seen.get(timeout=LIMIT) == END


def test_closing_wakes_only_the_closed_subscription() -> None:
    value, one, two = watchable(), Queue[int](), Queue[int]()
    first, second = value.subscribe(), value.subscribe()
    with running(into(one, first), into(two, second)):
        assert (one.get(timeout=LIMIT), two.get(timeout=LIMIT)) == (0, 0)
        first.close()
        assert one.get(timeout=LIMIT) == END
        value.publish(1, holds)
        assert two.get(timeout=LIMIT) == 1
        second.close()
        second.close()


def test_a_subscription_closed_before_it_starts_is_empty() -> None:
    subscription = watchable().subscribe()
    subscription.close()
    assert list(subscription) == []


def test_a_closed_subscription_yields_no_later_value() -> None:
    value = watchable()
    subscription = value.subscribe()
    values = iter(subscription)
    assert next(values) == 0
    value.publish(1, holds)
    subscription.close()
    assert list(values) == []


def test_no_wake_up_is_lost_however_fast_values_come() -> None:
    last = 3_000
    value = watchable()
    seen = [Queue[int]() for _ in range(4)]
    subscriptions = [value.subscribe() for _ in seen]
    with running(*map(into, seen, subscriptions)):
        for number in range(1, last + 1):
            value.publish(number, holds)
        for queue, subscription in zip(seen, subscriptions, strict=True):
            got = [queue.get(timeout=LIMIT)]
            while got[-1] != last:
                got.append(queue.get(timeout=LIMIT))
            assert got == sorted(set(got))
            subscription.close()


# Notes. ----------------------------------------------------------------------------------------


def test_a_decision_sees_the_latest_value_and_its_note_is_collected_once() -> None:
    value = watchable()
    value.publish(7, holds)
    assert value.decide(lambda seen: (seen * 2, [f"saw {seen}"])) == 14
    assert value.decide(lambda seen: (seen, ())) == 7
    assert value.collect() == ["saw 7"]
    assert value.collect() == []


def test_notes_are_collected_in_their_order() -> None:
    value = watchable()
    for word in ("a", "b", "c"):
        value.decide(partial(note, word))
    assert value.collect() == ["a", "b", "c"]


def test_a_decision_that_raises_leaves_no_note_and_no_lock() -> None:
    value = watchable()

    def fail(_: int) -> tuple[None, list[str]]:
        raise LookupError

    failures = Queue[int]()

    def decide() -> None:
        try:
            value.decide(fail)
        except LookupError:
            failures.put(END)

    with running(decide):
        assert failures.get(timeout=LIMIT) == END
    with running(lambda: value.publish(1, holds)):
        pass
    assert (value.value, value.collect()) == (1, [])


def test_a_value_is_not_published_if_a_note_would_not_hold() -> None:
    value = watchable()
    values = iter(value.subscribe())
    assert next(values) == 0
    value.decide(lambda _: (None, ["held"]))
    asked: list[str] = []

    def never(note: str) -> bool:
        asked.append(note)
        return False

    assert not value.publish(1, never)
    assert (value.value, asked) == (0, ["held"])
    assert value.publish(2, holds)
    assert next(values) == 2
    assert value.collect() == ["held"]
    assert value.publish(3, never)
    assert asked == ["held"]


def test_no_value_is_published_between_a_decision_and_its_note() -> None:
    """The reactor publishes during a decision: it has to wait, and then to try again."""
    value = watchable()
    begun, outcome = Event(), Queue[bool]()

    def publish() -> None:
        begun.set()
        outcome.put(value.publish(1, lambda note: note != "granted"))

    threads: list[Thread] = []

    def decision(seen: int) -> tuple[int, list[str]]:
        threads.append(Thread(target=publish, daemon=True))
        threads[0].start()
        assert begun.wait(LIMIT)
        return seen, ["granted"]

    assert value.decide(decision) == 0
    assert outcome.get(timeout=LIMIT) is False
    threads[0].join(LIMIT)
    assert value.value == 0
    assert value.collect() == ["granted"]
    assert value.publish(1, lambda note: note != "granted")


def test_no_grant_is_lost_or_duplicated_while_workers_decide_and_the_reactor_publishes() -> None:
    value: Watchable[int, tuple[int, int]] = Watchable(0)
    workers, each = 4, 500
    done = [Event() for _ in range(workers)]

    def work(worker: int) -> None:
        for number in range(each):
            value.decide(partial(note, (worker, number)))
        done[worker].set()

    collected: list[tuple[int, int]] = []
    with running(*(lambda worker=worker: work(worker) for worker in range(workers))):
        while not all(event.is_set() for event in done):
            collected += value.collect()
            value.publish(value.value + 1, holds)
    collected += value.collect()
    for worker in range(workers):
        assert [number for one, number in collected if one == worker] == list(range(each))


# Futures. --------------------------------------------------------------------------------------


class Reactor:
    """Runs what other threads schedule on the reactor, when the test says so."""

    def __init__(self) -> None:
        self.calls: Queue[tuple[Callable[..., object], tuple[object, ...]]] = Queue()
        self.pool = ThreadPool(0, 1)

    def callFromThread(self, function: Callable[..., Any], /, *args: object) -> None:
        self.calls.put((function, args))

    def getThreadPool(self) -> ThreadPool:
        return self.pool

    def seconds(self) -> float:
        raise AssertionError("the bridge needs no clock")

    def callLater(self, *_: Any) -> IDelayedCall:
        raise AssertionError("the bridge needs no clock")

    addReader: Any = None
    removeReader: Any = None
    stop: Any = None

    def run_next(self) -> None:
        """Run the next call; wait if there is none yet."""
        function, args = self.calls.get(timeout=LIMIT)
        function(*args)


class DeferredTests(SynchronousTestCase):
    """A future's Deferred fires on the reactor, and cancels the future."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.future: concurrent.futures.Future[str] = concurrent.futures.Future()

    def test_the_response_arrives_on_the_reactor_and_not_before(self) -> None:
        result = deferred(self.reactor, self.future)
        self.future.set_result("answer")
        self.assertNoResult(result)
        self.reactor.run_next()
        self.assertEqual(self.successResultOf(result), "answer")

    def test_a_future_that_is_done_already_arrives_too(self) -> None:
        self.future.set_result("answer")
        result = deferred(self.reactor, self.future)
        self.assertNoResult(result)
        self.reactor.run_next()
        self.assertEqual(self.successResultOf(result), "answer")

    def test_a_failure_arrives_as_a_failure(self) -> None:
        result = deferred(self.reactor, self.future)
        self.future.set_exception(LookupError("unavailable"))
        self.reactor.run_next()
        self.assertEqual(str(self.failureResultOf(result, LookupError).value), "unavailable")

    def test_cancelling_cancels_the_call(self) -> None:
        result = deferred(self.reactor, self.future)
        result.cancel()
        self.assertTrue(self.future.cancelled())
        self.failureResultOf(result, CancelledError)
        self.reactor.run_next()  # the end of the future is reported, and ignored

    def test_an_answer_that_crosses_a_cancel_is_dropped(self) -> None:
        result = deferred(self.reactor, self.future)
        self.future.set_result("late")
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.reactor.run_next()

    def test_a_call_cancelled_elsewhere_fails(self) -> None:
        result = deferred(self.reactor, self.future)
        self.future.cancel()
        self.reactor.run_next()
        self.failureResultOf(result, concurrent.futures.CancelledError)


class InThreadTests(SynchronousTestCase):
    """A blocking function runs in the reactor's pool, and its result arrives on the reactor."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.reactor.pool.start()
        self.addCleanup(self.reactor.pool.stop)

    def test_the_result_arrives_on_the_reactor(self) -> None:
        go = Event()
        result = in_thread(self.reactor, lambda: go.wait(LIMIT))
        self.assertNoResult(result)
        go.set()
        self.reactor.run_next()
        self.assertTrue(self.successResultOf(result))

    def test_a_failure_arrives_as_a_failure(self) -> None:
        def fail() -> None:
            raise LookupError

        result = in_thread(self.reactor, fail)
        self.reactor.run_next()
        self.failureResultOf(result, LookupError)


def test_a_burst_of_notes_calls_back_once() -> None:
    calls: list[None] = []
    value: Watchable[int, str] = Watchable(0, lambda: calls.append(None))
    for _ in range(3):
        value.decide(lambda seen: (seen, ["granted"]))
    assert len(calls) == 1
    value.collect()
    value.decide(lambda seen: (seen, ()))
    assert len(calls) == 1
    value.decide(lambda seen: (seen, ["granted"]))
    assert len(calls) == 2


def test_the_ring_buffer_keeps_the_last_items() -> None:
    recent: RingBuffer[int] = RingBuffer(3)
    assert recent.all() == ()
    for number in range(5):
        recent.add(number)
    assert recent.all() == (2, 3, 4)


def test_many_threads_add_while_others_read() -> None:
    recent: RingBuffer[tuple[int, int]] = RingBuffer(100)
    over = Event()
    reads: Queue[bool] = Queue()

    def read() -> None:
        while not over.is_set():
            seen = recent.all()
            # The kept items of each writer are in the order in which they were added.
            kept = [[at for who, at in seen if who == writer] for writer in range(4)]
            reads.put(all(each == sorted(each) for each in kept))

    def write(who: int) -> None:
        for at in range(5000):
            recent.add((who, at))

    readers = [Thread(target=read) for _ in range(2)]
    writers = [Thread(target=write, args=(who,)) for who in range(4)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join(LIMIT)
    over.set()
    for thread in readers:
        thread.join(LIMIT)
    assert len(recent.all()) == 100
    assert not reads.empty()
    while not reads.empty():
        assert reads.get_nowait()


def test_one_at_a_time_and_once_more_for_all_that_asked_meanwhile() -> None:
    begun: list[Deferred[None]] = []

    def do() -> Deferred[None]:
        begun.append(Deferred())
        return begun[-1]

    one = OneAtATime(do)
    for _ in range(5):
        one.request()
    assert len(begun) == 1
    idle: list[None] = []
    one.idle().addCallback(idle.append)
    begun[0].callback(None)
    assert (len(begun), len(idle)) == (2, 0)
    begun[1].callback(None)
    assert (len(begun), len(idle)) == (2, 1)
    one.request()
    one.request()
    one.stop()
    begun[2].callback(None)
    one.request()
    assert len(begun) == 3


def test_a_failure_is_logged_and_ends_nothing() -> None:
    fails = [True, False]

    def do() -> Deferred[None]:
        if fails.pop(0):
            raise OSError(5, "injected by the test")
        return Deferred()

    one = OneAtATime(do)
    with listening() as said:
        one.request()
    assert said.about("Unexpected error in the background")
    one.request()
    assert one.busy
