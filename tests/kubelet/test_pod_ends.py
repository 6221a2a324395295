"""What the API server tells of pods: names at once, and ends that the kubelet is asked about."""

from __future__ import annotations

from attrs import evolve

from sgpud.kubelet.holders import SOON, SOON_DUTY, SOON_FOR, WHILE_HELD
from tests.core.values import ids
from tests.kubelet.holding import HoldersCase


class PodEndsTest(HoldersCase):
    """The pod with the UID `uid` holds two shares."""

    def setUp(self) -> None:
        super().setUp()
        self.start(*ids(0, 1, 2))
        self.ask(*ids(0, 1, 2))
        self.waiting = False
        self.clock.advance(SOON)

    def soon(self, count: int = 1) -> None:
        self.clock.pump([SOON] * count)

    def test_the_name_is_told_as_soon_as_it_is_known(self) -> None:
        self.holders.pods_named({"uid": ("ns", "web"), "other": ("ns", "other")})
        assert [(one.namespace, one.name) for one in self.learned[-1].holders] == [("ns", "web")]
        count = len(self.learned)
        self.holders.pods_named({"uid": ("ns", "web")})
        assert len(self.learned) == count
        # It keeps its name until the kubelet has freed it.
        self.holders.pods_named({})
        self.holders.read()
        assert self.learned[-1].holders[0].name == "web"

    def test_a_new_holder_has_its_name_without_the_kubelet(self) -> None:
        self.holders.pods_named({"uid": ("ns", "web")})
        asked = len(self.lists.asked)
        self.record(*ids(0, 3))
        self.holders.changed()
        self.clock.advance(SOON * 4)
        assert self.learned[-1].holders[0].name == "web"
        assert len(self.lists.asked) == asked

    def test_an_end_has_the_kubelet_asked_and_its_file_read_at_once(self) -> None:
        asked = len(self.lists.asked)
        self.holders.pods_ended(["uid"])
        self.soon()
        assert len(self.lists.asked) == asked + 1
        self.lists.answer()
        assert self.resends == 1
        self.file.write_text('{"Data": {}}')
        self.holders.changed()
        self.soon()
        assert self.learned[-1].holders == ()
        self.soon(40)
        assert len(self.lists.asked) == asked + 1

    def test_only_the_kubelet_says_that_shares_are_free(self) -> None:
        """A pod that was deleted by force may run on."""
        self.holders.pods_ended(["uid"])
        asked = len(self.lists.asked)
        for _ in range(int(2 * SOON_FOR / SOON)):
            self.soon()
            if not self.lists.asked[-1].called:
                self.lists.answer(*ids(0, 1, 2))
        assert self.resends == 0
        assert len(self.learned[-1].holders[0].shares) == 1
        in_time = len(self.lists.asked) - asked
        assert SOON_FOR / SOON / 2 <= in_time <= SOON_FOR / SOON + 2 * SOON_FOR / WHILE_HELD

    def test_an_end_that_concerns_no_holder_asks_nobody(self) -> None:
        asked = len(self.lists.asked)
        self.holders.pods_ended(["another"])
        self.soon(10)
        assert len(self.lists.asked) == asked

    def test_a_kubelet_that_is_slow_is_asked_more_seldom(self) -> None:
        self.holders.pods_ended(["uid"])
        self.soon()
        asked = len(self.lists.asked)
        self.clock.advance(0.2)
        self.lists.answer(*ids(0, 1, 2))
        self.clock.advance(0.2 * SOON_DUTY - 0.1)
        assert len(self.lists.asked) == asked
        self.clock.advance(0.2)
        assert len(self.lists.asked) == asked + 1

    def test_a_kubelet_that_fails_is_not_asked_any_sooner(self) -> None:
        self.holders.pods_ended(["uid"])
        self.soon()
        asked = len(self.lists.asked)
        self.lists.asked[-1].errback(ValueError("no"))
        self.soon(10)
        assert len(self.lists.asked) == asked

    def test_who_is_listed_is_told(self) -> None:
        assert self.learned[-1].listed == frozenset(["uid"])
        self.waiting = True
        self.ask()
        assert self.learned[-1].listed == frozenset()
        assert evolve(self.learned[-1], listed=None).holders
