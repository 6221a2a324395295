"""The reconciler, the only writer of Node: facts in, coalesced; a plan out if it changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from attrs import evolve
from twisted.logger import Logger

from sgpud.bridge import Clock, Timer
from sgpud.core.planning.advance import advance, next_turn
from sgpud.core.planning.holdings import Grant, unconfirmed
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Plan, plan

GRANT_DELAY = 0.5
"""Seconds until a grant shows in the plan. Its shares are held as soon as it is made, whatever the
plan says; reconciling for each of a burst of allocations would only take CPU time from them."""

RETRY_FIRST, RETRY_MOST = 1.0, 30.0
"""Seconds until a reconciliation that failed is tried again: at first, and after many failures."""


class NodeUpdates(Protocol):
    """Where facts go, and the node made of them."""

    node: Node

    def update(self, **facts: Any) -> None:
        """Set facts."""

    def change(self, step: Callable[[Node], Node]) -> None:
        """Set a fact that depends on the current ones."""


class PlanPublisher(Protocol):
    """Publishes plans, and reports the grants made under them."""

    def grants(self) -> list[Grant]:
        """The grants since the last call."""

    def put(self, plan: Plan) -> bool:
        """Serve this plan; False if a grant was made meanwhile that it does not list."""


class Reconciler:
    """Holds the node's facts, and publishes the plan that follows from them."""

    _log = Logger()

    def __init__(
        self,
        clock: Clock,
        wall: Callable[[], float],
        publisher: PlanPublisher,
        published: Callable[[Plan], None],
        reconciled: Callable[[Node], None],
        collected: Callable[[Sequence[Grant]], None] = lambda _: None,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """`wall`: seconds since the epoch. `failed` is called when `alive` has changed.

        `published` is called after each new plan; `reconciled` with the node, after each
        reconciliation, with or without a new plan; `collected` with the grants found by each.
        """
        self.node = Node()
        self.plan: Plan | None = None
        self._clock = clock
        self._wall = wall
        self._publisher = publisher
        self._published = published
        self._reconciled = reconciled
        self._collected = collected
        self._timer = Timer(clock)
        self._failed = failed
        self._failures = 0
        self.alive = True
        """Whether the last reconciliation completed: one that fails leaves the plan as it was, and
        is tried again."""

    @property
    def unconfirmed(self) -> bool:
        """Whether a grant waits for the kubelet to write its checkpoint."""
        node = self.node
        return node.checkpoint is not None and unconfirmed(
            node.grants, node.checkpoint, self._wall()
        )

    def update(self, **facts: Any) -> None:
        """Set facts: fields of Node. The plan follows in the next iteration of the reactor."""
        self.node = evolve(self.node, **facts)
        self.enqueue()

    def change(self, step: Callable[[Node], Node]) -> None:
        """Set a fact that depends on the current ones."""
        changed = step(self.node)
        if changed is not self.node:
            self.node = changed
            self.enqueue()

    def granted(self) -> None:
        """Shares were granted: reconcile soon."""
        self.enqueue(GRANT_DELAY)

    def enqueue(self, delay: float = 0.0) -> None:
        """Reconcile in `delay` seconds at the latest."""
        self._timer.at_most(delay, self.reconcile)

    def preview(self, **facts: Any) -> Plan | None:
        """The plan that would follow from these facts. Changes nothing."""
        node = advance(evolve(self.node, **facts), self._clock.seconds(), self._wall())
        return plan(node, self._wall())

    def reconcile(self) -> None:
        """Bring the plan up to date now."""
        self._timer.cancel()
        try:
            while not self._publish():
                # A grant was made that the plan does not list. It is held now, so this loop ends.
                continue
            self._reconciled(self.node)
            delay = next_turn(self.node, self._clock.seconds(), self._wall())
        except Exception:  # noqa: BLE001 - whatever it is: the plan in force stays, and pods start
            self._fails()
            return
        if not self.alive:
            self._log.info("The plan follows the facts again")
            self._failures = 0
            self.alive = True
            self._failed()
        if delay is not None:
            self.enqueue(delay)

    def stop(self) -> None:
        """Reconcile no more."""
        self._timer.cancel()

    def _fails(self) -> None:
        delay = min(RETRY_MOST, RETRY_FIRST * 2.0 ** min(self._failures, 16))
        self._log.failure(
            "Cannot reconcile: the last plan stays in force. Trying again in {delay:.0f} s",
            delay=delay,
        )
        self._failures += 1
        self.enqueue(delay)
        if self.alive:
            self.alive = False
            self._failed()

    def _publish(self) -> bool:
        """Make the plan and publish it if it has changed; False if it must be made again."""
        wall = self._wall()
        fresh_grants = self._publisher.grants()
        if fresh_grants:
            # At once: they are held, whatever comes of the rest.
            self.node = evolve(self.node, grants=(*self.node.grants, *fresh_grants))
            self._collected(fresh_grants)
        self.node = advance(self.node, self._clock.seconds(), wall)
        fresh = plan(self.node, wall)
        if fresh is None or fresh == self.plan:
            return True
        if not self._publisher.put(fresh):
            return False
        self.plan = fresh
        self._published(fresh)
        return True
