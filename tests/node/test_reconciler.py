"""The reconciler: facts are coalesced, and a plan is published only if it has changed."""

from __future__ import annotations

from attrs import define, evolve, field
from twisted.internet.task import Clock

from sgpud.core.health.node_health import gpus_seen
from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import LATE
from sgpud.core.planning.holdings import SETTLED_AFTER, Grant
from sgpud.core.planning.listing import DRAIN_FOR
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Plan
from sgpud.node.reconciler import GRANT_DELAY, RETRY_MOST, Reconciler
from tests.core.values import POOL, checkpoint, gpu, grant, group_of, holder, planned, sharing, uuid
from tests.core.values import node as settled
from tests.surroundings import listening

EPOCH = 1000.0
GPUS = (gpu(0, fake=True), gpu(1, fake=True))
GPU0 = uuid(0)
ONE = IntSet.of([1])


@define
class FakePublisher:
    """Collects plans; `racing` are grants that are made just when a plan is put."""

    put_plans: list[Plan] = field(factory=list)
    given: list[Grant] = field(factory=list)
    racing: list[Grant] = field(factory=list)
    refused: int = 0

    def grants(self) -> list[Grant]:
        given, self.given = self.given, []
        return given

    def put(self, plan: Plan) -> bool:
        if self.racing:
            self.given.append(self.racing.pop(0))
            self.refused += 1
            return False
        self.put_plans.append(plan)
        return True


@define
class Bench:
    clock: Clock = field(factory=Clock)
    publisher: FakePublisher = field(factory=FakePublisher)
    published: list[Plan] = field(factory=list)
    reconciled: list[Node] = field(factory=list)
    reconciler: Reconciler = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.reconciler = Reconciler(
            self.clock,
            lambda: EPOCH + self.clock.seconds(),
            self.publisher,
            self.published.append,
            self.reconciled.append,
        )

    def set_all(self, factor: int = 4) -> None:
        self.reconciler.update(sharing=sharing(factor))
        self.reconciler.update(gpus=GPUS)
        self.reconciler.update(checkpoint=checkpoint(written=EPOCH))
        self.clock.advance(0)

    @property
    def due(self) -> list[float]:
        """In how many seconds a reconciliation is due."""
        return [call.getTime() - self.clock.seconds() for call in self.clock.getDelayedCalls()]


def started(factor: int = 4) -> Bench:
    bench = Bench()
    bench.set_all(factor)
    return bench


def test_nothing_is_published_before_every_fact_is_known() -> None:
    bench = Bench()
    for facts in ({"sharing": sharing()}, {"gpus": GPUS}):
        bench.reconciler.update(**facts)
        bench.clock.advance(1)
        assert bench.published == []
        assert bench.reconciler.plan is None
    bench.reconciler.update(checkpoint=checkpoint())
    bench.clock.advance(0)
    assert bench.published == [bench.reconciler.plan]


def test_the_plan_is_the_one_that_core_makes() -> None:
    bench = started()
    assert bench.reconciler.plan == planned(settled(sharing(4), GPUS))
    assert bench.publisher.put_plans == bench.published == [bench.reconciler.plan]


def test_many_facts_at_once_make_one_plan() -> None:
    bench = started()
    for factor in (5, 6, 7):
        bench.reconciler.update(sharing=sharing(factor))
    bench.reconciler.change(lambda node: gpus_seen(node, GPUS[:1], "550.1", 0.0))
    assert len(bench.published) == 1
    assert bench.due == [0.0]
    bench.clock.advance(0)
    assert len(bench.published) == 2
    assert len(group_of(bench.published[1], 0).active) == 7


def test_an_unchanged_plan_is_not_published_again() -> None:
    bench = started()
    bench.reconciler.update(checkpoint=checkpoint(written=EPOCH + 1))
    bench.reconciler.update(driver="551.0")
    bench.clock.advance(0)
    bench.reconciler.reconcile()
    assert len(bench.published) == len(bench.publisher.put_plans) == 1


def test_reconciling_at_once_cancels_the_pending_call() -> None:
    bench = started()
    bench.reconciler.update(sharing=sharing(5))
    bench.reconciler.reconcile()
    assert len(bench.published) == 2
    bench.clock.advance(0)
    assert len(bench.published) == 2


def test_a_plan_outdated_by_a_grant_is_made_again() -> None:
    bench = started()
    given = grant({GPU0: IntSet.of([3])}, at=EPOCH)
    bench.publisher.racing = [given, grant({GPU0: IntSet.of([2])}, at=EPOCH - 1)]
    bench.reconciler.update(sharing=sharing(1))
    bench.clock.advance(0)
    assert bench.publisher.refused == 2
    assert len(bench.published) == 2
    assert group_of(bench.published[-1], 0).held == IntSet.of([2, 3])
    assert bench.reconciler.node.grants[0] == given


def test_a_burst_of_grants_is_reconciled_once_and_soon() -> None:
    bench = started()
    for number in range(4):
        bench.publisher.given.append(grant({GPU0: IntSet.of([number])}, at=EPOCH))
        bench.reconciler.granted()
    assert bench.due == [GRANT_DELAY]
    bench.clock.advance(GRANT_DELAY)
    assert len(bench.published) == 2
    assert group_of(bench.published[-1], 0).held == IntSet.span(0, 4)


def test_a_fact_does_not_wait_for_the_delay_of_a_grant() -> None:
    bench = started()
    bench.reconciler.granted()
    bench.reconciler.update(sharing=sharing(9))
    assert bench.due == [0.0]
    bench.reconciler.granted()
    assert bench.due == [0.0]


def test_a_grant_that_no_checkpoint_names_expires() -> None:
    bench = started()
    bench.publisher.given.append(grant({GPU0: ONE}, at=EPOCH))
    bench.reconciler.reconcile()
    bench.reconciler.update(checkpoint=checkpoint(written=EPOCH + SETTLED_AFTER - 1))
    bench.clock.advance(SETTLED_AFTER)
    assert group_of(bench.published[-1], 0).held == ONE
    assert bench.reconciler.unconfirmed
    bench.clock.advance(1)
    bench.reconciler.update(checkpoint=checkpoint(written=EPOCH + SETTLED_AFTER))
    bench.clock.advance(0)
    assert group_of(bench.published[-1], 0).held == IntSet()
    assert bench.reconciler.node.grants == ()
    assert not bench.reconciler.unconfirmed


def test_a_grant_that_the_checkpoint_names_becomes_a_holder() -> None:
    bench = started()
    bench.publisher.given.append(grant({GPU0: ONE}, at=EPOCH))
    bench.reconciler.reconcile()
    bench.clock.advance(SETTLED_AFTER)
    bench.reconciler.update(
        checkpoint=checkpoint(holder({GPU0: ONE}), written=EPOCH + SETTLED_AFTER)
    )
    bench.clock.advance(0)
    assert bench.reconciler.node.grants == ()
    assert group_of(bench.published[-1], 0).held == ONE


def test_draining_shares_are_removed_when_their_time_is_over() -> None:
    bench = started()
    bench.reconciler.update(sharing=sharing(1))
    bench.clock.advance(0)
    assert group_of(bench.published[-1], 0).draining == IntSet.span(1, 4)
    # First the kubelet's choices from the last list run out, then what drains goes.
    assert bench.due == [LATE]
    bench.clock.advance(LATE)
    assert bench.due == [DRAIN_FOR - LATE]
    bench.clock.advance(DRAIN_FOR - LATE - 0.1)
    assert group_of(bench.published[-1], 0).draining
    bench.clock.advance(0.1)
    assert not group_of(bench.published[-1], 0).draining
    assert bench.due == []


def test_nothing_is_scheduled_if_nothing_depends_on_time() -> None:
    assert started().due == []


def test_a_preview_is_the_next_plan_and_changes_nothing() -> None:
    bench = started()
    before = bench.reconciler.node
    seen = bench.reconciler.preview(sharing=sharing(9))
    assert seen is not None
    assert len(group_of(seen, 0).active) == 9
    assert bench.reconciler.node == before
    assert (len(bench.published), bench.due) == (1, [])
    bench.reconciler.update(sharing=sharing(9))
    bench.clock.advance(0)
    assert bench.reconciler.plan == seen


def test_without_all_facts_there_is_no_preview() -> None:
    assert Bench().reconciler.preview(sharing=sharing()) is None


def test_nothing_is_reconciled_after_stop() -> None:
    bench = started()
    bench.reconciler.update(sharing=sharing(1))
    bench.reconciler.stop()
    bench.reconciler.stop()
    bench.clock.advance(100)
    assert len(bench.published) == 1


def test_callbacks_see_the_new_plan_and_node() -> None:
    clock, publisher = Clock(), FakePublisher()
    found: list[bool] = []
    reconciler = Reconciler(
        clock,
        lambda: EPOCH,
        publisher,
        lambda plan: found.append(plan is reconciler.plan),
        lambda node: found.append(node is reconciler.node),
    )
    reconciler.update(sharing=sharing(), gpus=GPUS, checkpoint=checkpoint())
    clock.advance(0)
    assert found == [True, True]


def test_a_fact_set_while_a_plan_is_published_is_reconciled_next() -> None:
    clock, publisher = Clock(), FakePublisher()
    plans: list[Plan] = []

    def published(plan: Plan) -> None:
        plans.append(plan)
        if len(plans) == 1:
            reconciler.update(sharing=evolve(sharing(9), numa=False))

    reconciler = Reconciler(clock, lambda: EPOCH, publisher, published, lambda _: None)
    reconciler.update(sharing=sharing(4), gpus=GPUS, checkpoint=checkpoint())
    clock.advance(0)
    clock.advance(0)
    assert [len(group_of(plan, 0).active) for plan in plans] == [4, 9]
    assert plans[-1].pool(POOL) is not None


def test_each_reconciliation_is_reported_even_without_a_new_plan() -> None:
    bench = started()
    before = len(bench.reconciled)
    bench.reconciler.change(lambda node: evolve(node, driver="560"))
    bench.clock.advance(0)
    assert [node.driver for node in bench.reconciled[before:]] == ["560"]
    assert len(bench.published) == 1


def test_a_change_that_changes_nothing_triggers_no_reconciliation() -> None:
    bench = started()
    before = len(bench.reconciled)
    bench.reconciler.change(lambda node: node)
    bench.clock.advance(0)
    assert len(bench.reconciled) == before


def test_a_failed_reconciliation_shows_until_one_completes() -> None:
    bench = Bench()
    assert bench.reconciler.alive
    reconciled, fails = bench.reconciled.append, [True]

    def reconcile(node: Node) -> None:
        if fails:
            raise OSError(5, "injected by the test")
        reconciled(node)

    reconciler = Reconciler(
        bench.clock, lambda: EPOCH, bench.publisher, bench.published.append, reconcile
    )
    reconciler.update(sharing=sharing(4), gpus=GPUS, checkpoint=checkpoint())
    with listening() as logged:
        reconciler.reconcile()
    assert not reconciler.alive
    assert logged.about("Cannot reconcile")
    fails.clear()
    reconciler.reconcile()
    assert reconciler.alive


def test_a_failed_reconciliation_is_retried_by_itself_and_reported() -> None:
    bench, changes = started(), list[bool]()
    fails = [True]

    def reconcile(_: Node) -> None:
        if fails:
            raise OSError(5, "injected by the test")

    reconciler = Reconciler(
        bench.clock,
        lambda: EPOCH,
        bench.publisher,
        bench.published.append,
        reconcile,
        failed=lambda: changes.append(reconciler.alive),
    )
    reconciler.update(sharing=sharing(4), gpus=GPUS, checkpoint=checkpoint())
    with listening():
        bench.clock.pump([0.5] * 40)
    assert changes == [False]
    assert min(bench.due) <= RETRY_MOST
    fails.clear()
    bench.clock.pump([0.5] * round(2 * RETRY_MOST))
    assert changes == [False, True]


def test_a_grant_is_kept_by_a_reconciliation_that_fails() -> None:
    bench = started()
    bench.publisher.given = [grant({GPU0: ONE}, at=EPOCH)]

    def collected(_: object) -> None:
        raise OSError(5, "injected by the test")

    reconciler = Reconciler(
        bench.clock,
        lambda: EPOCH,
        bench.publisher,
        bench.published.append,
        bench.reconciled.append,
        collected,
    )
    with listening():
        reconciler.reconcile()
    assert len(reconciler.node.grants) == 1
