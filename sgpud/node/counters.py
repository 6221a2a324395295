"""Counts events, and logs those that an operator should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from twisted.logger import Logger

from sgpud.core.allocation.allocate import RefusedError
from sgpud.core.allocation.decisions import parts_of
from sgpud.core.planning.holdings import Grant
from sgpud.core.planning.plan import Plan
from sgpud.core.status.view import CallTimes, Counters

MOST_XIDS, OTHER_XIDS = 1000, 0
"""Beyond this many pairs of GPU and XID, the rest is counted under this number."""


class EventCounters:
    """Counts grants, refusals, lists, XIDs and reloads."""

    _log = Logger()

    def __init__(self) -> None:
        """All counters start at 0."""
        self._allocations = 0
        self._refusals: Counter[str] = Counter()
        self._reloads: Counter[str] = Counter()
        self._xids: Counter[tuple[str, int]] = Counter()
        self._lists: Counter[str] = Counter()
        self._overuse: Counter[str] = Counter()
        self._notes: tuple[str, ...] = ()

    def granted(self, grants: Sequence[Grant]) -> None:
        """Shares were granted. A burst of grants is one line: each is among the decisions."""
        self._allocations += len(grants)
        given: dict[str, Counter[str]] = {}
        for grant in grants:
            counts = given.setdefault(grant.resource, Counter())
            for part in parts_of(grant.shares, grant.gpu):
                counts[part.uuid] += part.count
        for resource, counts in given.items():
            self._log.debug(
                "{resource}: granted {shares}",
                resource=resource,
                shares=", ".join(f"{count} of {uuid}" for uuid, count in counts.items()),
            )

    def refused(self, resource: str, refusal: RefusedError) -> None:
        """A request was refused: the pod fails, and its controller recreates it."""
        self._refusals[refusal.rule.value] += 1
        self._log.warn(
            "{resource}: refused a container, its pod fails: {problem}",
            resource=resource,
            problem=str(refusal),
            rule=refusal.rule.value,
        )

    def listed(self, resource: str) -> None:
        """A list was sent to the kubelet."""
        self._lists[resource] += 1

    def planned(self, plan: Plan) -> None:
        """There is a new plan: log its new notes."""
        for note in plan.notes:
            if note not in self._notes:
                self._log.warn("{note}", note=note)
        self._notes = plan.notes

    def overused(self, gpus: Iterable[str]) -> None:
        """A container of each of these GPUs has begun to overuse its memory."""
        self._overuse.update(gpus)

    def xid(self, gpu: str, number: int, times: int) -> None:
        """A GPU reported an XID this many times."""
        known = (gpu, number) in self._xids or len(self._xids) < MOST_XIDS
        self._xids[gpu, number if known else OTHER_XIDS] += times

    def reloaded(self, result: str) -> None:
        """A reload ended with this result."""
        self._reloads[result] += 1

    def counters(
        self, registrations: int, probe_starts: int, calls: tuple[CallTimes, ...]
    ) -> Counters:
        """The counts so far, with those of other parts."""
        return Counters(
            self._allocations,
            dict(self._refusals),
            dict(self._reloads),
            registrations,
            tuple((gpu, xid, count) for (gpu, xid), count in sorted(self._xids.items())),
            dict(self._lists),
            probe_starts,
            calls,
            dict(self._overuse),
        )
