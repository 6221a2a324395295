"""When the kubelet is asked, when the checkpoint is read, and when its writing is provoked."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from twisted.internet.defer import Deferred

from sgpud.core.intset import IntSet
from sgpud.core.planning.holdings import CheckpointState
from sgpud.kubelet.holders import (
    CONFIRM_EVERY,
    DUTY,
    HINTED,
    OTHERWISE,
    READ_APART,
    WHILE_HELD,
    HoldersObserver,
    HolderTracker,
)
from tests.core.values import POOL, ids, uuid
from tests.kubelet.holding import HoldersCase
from tests.surroundings import listening

GPU0 = uuid(0)


class HoldersTest(HoldersCase):
    # The cadence. --------------------------------------------------------------------------------

    def test_the_file_is_read_once_at_the_start(self) -> None:
        self.start(*ids(0, 1))
        assert [checkpoint.holders[0].shares for checkpoint in self.learned] == [
            {GPU0: IntSet.of([1])}
        ]
        assert self.lists.asked == []

    def test_a_known_checkpoint_is_not_read_again_at_start(self) -> None:
        self.record(*ids(0, 1))
        self.holders.take_over()
        self.holders.start()
        assert [checkpoint.registered for checkpoint in self.learned] == [
            {(POOL, GPU0): IntSet.of([8])}
        ]

    def test_registered_ids_are_reported_only_on_takeover(self) -> None:
        self.start(*ids(0, 1))
        self.holders.read()
        assert [dict(checkpoint.registered) for checkpoint in self.learned] == [{}, {}]

    def test_a_takeover_with_an_unreadable_file_is_caught_up_later(self) -> None:
        self.file.write_text("{")
        self.holders.take_over()
        assert self.learned[-1].registered == {}
        self.record(*ids(0, 1))
        self.holders.changed()
        self.clock.advance(READ_APART)
        assert self.learned[-1].registered == {(POOL, GPU0): IntSet.of([8])}
        self.holders.read()
        assert self.learned[-1].registered == {}

    def test_the_kubelet_is_asked_once_a_minute(self) -> None:
        self.start()
        self.seconds(OTHERWISE - 1)
        assert self.lists.asked == []
        self.seconds(1)
        assert len(self.lists.asked) == 1
        self.lists.answer()
        self.seconds(OTHERWISE - 1)
        assert len(self.lists.asked) == 1
        self.seconds(1)
        assert len(self.lists.asked) == 2

    def test_the_kubelet_is_asked_every_five_seconds_while_something_waits(self) -> None:
        self.start()
        self.waiting = True
        for times in range(1, 5):
            self.seconds(WHILE_HELD)
            assert len(self.lists.asked) == times
            self.lists.answer()
        self.waiting = False
        self.seconds(OTHERWISE - WHILE_HELD)
        assert len(self.lists.asked) == 4

    def test_there_is_only_one_request_at_a_time(self) -> None:
        self.start()
        self.waiting = True
        self.seconds(4 * WHILE_HELD)
        assert len(self.lists.asked) == 1

    def test_an_absent_kubelet_is_not_asked(self) -> None:
        self.lists.reachable = False
        self.start()
        self.waiting = True
        self.seconds(10 * WHILE_HELD)
        assert self.lists.asked == []
        self.lists.reachable = True
        self.seconds(WHILE_HELD)
        assert len(self.lists.asked) == 1

    def test_after_the_stop_nothing_is_asked_or_read(self) -> None:
        self.start()
        self.waiting = True
        self.seconds(WHILE_HELD)
        self.holders.changed()
        self.holders.stop()
        assert self.lists.ended == 1
        assert self.clock.getDelayedCalls() == []
        assert len(self.learned) == 1

    # The resend. ----------------------------------------------------------------------------------

    def test_no_list_is_resent_if_the_kubelet_confirms_every_holder(self) -> None:
        self.start(*ids(0, 1, 2))
        self.ask(*ids(0, 1, 2))
        self.ask(*ids(0, 1, 2, 3))
        assert self.resends == 0

    def test_the_list_is_resent_if_the_kubelet_lacks_a_holder_of_the_file(self) -> None:
        self.start(*ids(0, 1, 2))
        self.ask(*ids(0, 1))
        assert self.resends == 1

    def test_a_new_checkpoint_after_resending_ends_it(self) -> None:
        self.start(*ids(0, 1, 2))
        self.ask(*ids(0, 1))
        self.record(*ids(0, 1))
        self.holders.changed()
        self.ask(*ids(0, 1))
        assert self.resends == 1
        assert self.learned[-1].holders[0].shares == {GPU0: IntSet.of([1])}

    def test_a_pod_freed_after_its_end_is_freed_by_resending_twice(self) -> None:
        self.start(*ids(0, 1, 2))
        self.ask(*ids(0, 1))
        self.ask(*ids(0, 1))
        assert self.resends == 2

    def test_an_init_container_in_the_file_causes_resending_with_backoff(self) -> None:
        self.start(*ids(0, 1, 2))
        for _ in range(120):
            self.ask(*ids(0, 1))
        assert 6 <= self.resends <= 8

    def test_another_pod_that_ends_beside_an_init_container_causes_resending(self) -> None:
        self.start(*ids(0, 1, 2, 3))
        self.ask(*ids(0, 1, 2))
        self.ask(*ids(0, 1))
        assert self.resends == 2

    def test_a_recurring_difference_causes_resending_again(self) -> None:
        self.start(*ids(0, 1, 2))
        self.ask(*ids(0, 1))
        self.ask()
        self.ask(*ids(0, 1))
        assert self.resends == 3

    def test_a_failed_request_causes_no_resending_and_is_retried(self) -> None:
        self.start(*ids(0, 1))
        self.waiting = True
        self.seconds(WHILE_HELD)
        self.lists.asked[-1].errback(ValueError("two\nlines"))
        assert self.resends == 0
        self.seconds(WHILE_HELD)
        assert len(self.lists.asked) == 1
        self.ask(*ids(0, 1))
        assert self.learned[-1].problem == ""

    def test_a_grant_newer_than_the_file_causes_resending_until_confirmed(self) -> None:
        self.start(*ids(0, 1))
        self.ask(*ids(0, 1))
        self.unconfirmed = True
        self.ask(*ids(0, 1))
        self.ask(*ids(0, 1))
        assert self.resends == 1
        for _ in range(int(CONFIRM_EVERY / WHILE_HELD)):
            self.ask(*ids(0, 1))
        assert self.resends == 2
        self.unconfirmed = False
        self.ask(*ids(0, 1))
        assert self.resends == 2

    def test_a_grant_newer_than_the_file_causes_resending_without_podresources_too(self) -> None:
        self.lists.reachable = False
        self.start(*ids(0, 1))
        self.waiting = self.unconfirmed = True
        self.seconds(WHILE_HELD)
        assert self.resends == 1

    def test_one_resending_serves_both_reasons(self) -> None:
        self.start(*ids(0, 1, 2))
        self.ask(*ids(0, 1, 2))
        self.unconfirmed = True
        self.ask(*ids(0, 1))
        assert self.resends == 1

    # The end of a pod, seen soon. ----------------------------------------------------------------

    def test_the_kubelet_is_asked_every_second_while_shares_are_held(self) -> None:
        self.start(*ids(0, 1))
        self.ask(*ids(0, 1))
        self.waiting = False
        for _ in range(5):
            before = len(self.lists.asked)
            self.seconds(WHILE_HELD)
            assert len(self.lists.asked) == before + 1
            self.lists.answer(*ids(0, 1))

    def test_a_hint_is_followed_at_once_but_not_each_of_a_burst(self) -> None:
        self.start(*ids(0, 1))
        self.ask(*ids(0, 1))
        before = len(self.lists.asked)
        for _ in range(20):
            self.holders.look()
        self.clock.advance(HINTED)
        assert len(self.lists.asked) == before + 1
        self.lists.answer(*ids(0, 1))
        for _ in range(20):
            self.holders.look()
        self.clock.advance(HINTED / 2)
        assert len(self.lists.asked) == before + 1

    def test_a_hint_without_holders_causes_no_request(self) -> None:
        self.start()
        self.record()
        self.file.write_text('{"Data": {"PodDeviceEntries": null, "RegisteredDevices": {}}}')
        self.holders.read()
        self.holders.look()
        self.clock.advance(HINTED)
        assert self.lists.asked == []

    def test_a_slow_kubelet_is_asked_less_often(self) -> None:
        self.start(*ids(0, 1))
        self.ask(*ids(0, 1))
        self.seconds(WHILE_HELD)
        self.seconds(0.5)
        self.lists.answer(*ids(0, 1))
        before = len(self.lists.asked)
        self.seconds(DUTY * 0.5 - 1)
        assert len(self.lists.asked) == before
        self.seconds(3)
        assert len(self.lists.asked) == before + 1

    def test_a_refusing_kubelet_is_asked_with_backoff(self) -> None:
        self.start(*ids(0, 1))
        times: list[float] = []
        for _ in range(8):
            before = len(self.lists.asked)
            while len(self.lists.asked) == before:
                self.seconds(0.5)
            times.append(self.clock.seconds())
            self.lists.asked[-1].errback(ValueError("too many"))
        waits = [after - before for before, after in pairwise(times)]
        assert waits == sorted(waits)
        assert OTHERWISE <= waits[-1] <= OTHERWISE + WHILE_HELD

    # A file that goes. ---------------------------------------------------------------------------

    def test_a_file_that_is_removed_while_pods_hold_shares_is_a_doubt(self) -> None:
        self.start(*ids(0, 1))
        self.file.unlink()
        self.holders.read()
        assert "was removed while the kubelet runs" in self.learned[-1].problem
        assert self.learned[-1].holders == self.learned[0].holders
        assert self.resends == 1
        self.record(*ids(0, 2))
        self.holders.read()
        assert self.learned[-1].problem == ""
        assert self.learned[-1].holders[0].shares == {GPU0: IntSet.of([2])}

    def test_a_kubelet_that_starts_without_a_file_has_no_holders(self) -> None:
        self.start(*ids(0, 1))
        self.file.unlink()
        self.holders.read()
        self.holders.kubelet_started()
        self.seconds(1)
        assert (self.learned[-1].holders, self.learned[-1].problem) == ((), "")

    def test_no_file_at_our_start_is_a_doubt_once_the_kubelet_names_a_holder(self) -> None:
        self.holders.start()
        assert (self.learned[-1].holders, self.learned[-1].problem) == ((), "")
        self.seconds(WHILE_HELD)
        self.lists.answer(*ids(0, 1))
        assert "was removed while the kubelet runs" in self.learned[-1].problem
        assert self.resends == 1
        self.holders.read()
        assert self.learned[-1].problem

    # The file. -----------------------------------------------------------------------------------

    def test_an_unreadable_file_keeps_the_last_known_holders(self) -> None:
        self.start(*ids(0, 1))
        self.file.write_text("{")
        with listening() as said:
            self.holders.read()
            self.holders.read()
        assert [checkpoint.holders for checkpoint in self.learned] == [self.learned[0].holders] * 3
        assert ["not JSON" in checkpoint.problem for checkpoint in self.learned] == [
            False,
            True,
            True,
        ]
        assert len(said.about("cannot be read")) == 1

    def test_a_file_that_is_readable_again_is_logged_and_used(self) -> None:
        self.start(*ids(0, 1))
        self.file.write_text("{")
        self.holders.read()
        self.record(*ids(0, 2))
        with listening() as said:
            self.holders.read()
        assert said.about("can be read again")
        assert self.learned[-1].problem == ""
        assert self.learned[-1].holders[0].shares == {GPU0: IntSet.of([2])}

    def test_an_unreadable_file_at_start_means_no_holders_and_a_problem(self) -> None:
        self.file.write_text("{")
        self.holders.start()
        assert self.learned[-1].holders == ()
        assert self.learned[-1].problem

    def test_a_change_is_read_at_once_and_a_burst_only_once_more(self) -> None:
        self.start()
        self.seconds(1)
        for _ in range(5):
            self.holders.changed()
        self.clock.advance(0)
        assert len(self.learned) == 2
        for _ in range(5):
            self.holders.changed()
            self.clock.advance(READ_APART / 10)
        assert len(self.learned) == 2
        self.clock.advance(READ_APART)
        assert len(self.learned) == 3

    # In a thread. --------------------------------------------------------------------------------

    def in_thread(self) -> list[Deferred[None]]:
        """Have the file read by somebody who takes time; the readings that have begun."""
        begun: list[Deferred[None]] = []

        def work(reading: Callable[[], CheckpointState]) -> Deferred[CheckpointState]:
            result = reading()
            gate: Deferred[None] = Deferred()
            begun.append(gate)
            return gate.addCallback(lambda _: result)

        self.holders = HolderTracker(
            self.file,
            self.clock,
            self.lists,
            HoldersObserver(self.learned.append, lambda: self.waiting, self.resend),
            work,
        )
        self.addCleanup(self.holders.stop)
        return begun

    def test_changes_during_a_read_cause_one_more_read(self) -> None:
        begun = self.in_thread()
        self.start(*ids(0, 1))
        assert self.learned == []
        self.record(*ids(0, 2))
        for _ in range(5):
            self.holders.changed()
            self.clock.advance(READ_APART)
        assert len(begun) == 1
        begun[0].callback(None)
        assert len(begun) == 2
        begun[1].callback(None)
        assert [one.holders[0].shares for one in self.learned] == [
            {GPU0: IntSet.of([1])},
            {GPU0: IntSet.of([2])},
        ]
        assert len(begun) == 2

    def test_a_takeover_reads_at_once_and_discards_a_read_in_progress(self) -> None:
        begun = self.in_thread()
        self.start(*ids(0, 1))
        self.record(*ids(0, 2))
        self.holders.take_over()
        begun[0].callback(None)
        assert [one.holders[0].shares for one in self.learned] == [{GPU0: IntSet.of([2])}]

    def test_a_read_that_ends_after_the_stop_is_not_reported(self) -> None:
        begun = self.in_thread()
        self.start(*ids(0, 1))
        self.holders.stop()
        begun[0].callback(None)
        assert self.learned == []
