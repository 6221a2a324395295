"""Counts what happens, and says what an operator should hear of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from twisted.logger import Logger

from sgpud.core.allocation.allocate import RefusedError
from sgpud.core.planning.holdings import Grant
from sgpud.core.planning.plan import Plan
from sgpud.core.status.view import CallTimes, Counters

MOST_XIDS, OTHER_XIDS = 1000, 0
"""Beyond so many pairs of GPU and XID the rest is counted under this number."""


class EventCounters:
    """Hears of grants, refusals, plans and reloads."""

    _log = Logger()

    def __init__(self) -> None:
        """Everything is counted from 0."""
        self._allocations = 0
        self._refusals: Counter[str] = Counter()
        self._reloads: Counter[str] = Counter()
        self._xids: Counter[tuple[str, int]] = Counter()
        self._lists: Counter[str] = Counter()
        self._noted: tuple[str, ...] = ()

    def granted(self, grants: Sequence[Grant]) -> None:
        """Shares were given."""
        self._allocations += len(grants)
        for grant in grants:
            self._log.debug(
                "{resource}: gave {shares}",
                resource=grant.resource,
                shares=", ".join(
                    f"{len(numbers)} of {uuid}" for uuid, numbers in grant.shares.items()
                ),
            )

    def refused(self, resource: str, refusal: RefusedError) -> None:
        """Shares were refused: the pod fails, and its controller makes another."""
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
        """There is a new plan: what a person should know of it, once."""
        for note in plan.notes:
            if note not in self._noted:
                self._log.warn("{note}", note=note)
        self._noted = plan.notes

    def xid(self, gpu: str, number: int, times: int) -> None:
        """A GPU has had an XID so many times."""
        known = (gpu, number) in self._xids or len(self._xids) < MOST_XIDS
        self._xids[gpu, number if known else OTHER_XIDS] += times

    def reloaded(self, result: str) -> None:
        """A reload came to this."""
        self._reloads[result] += 1

    def counters(
        self, registrations: int, probe_starts: int, calls: tuple[CallTimes, ...]
    ) -> Counters:
        """What was counted so far, here and elsewhere."""
        return Counters(
            self._allocations,
            dict(self._refusals),
            dict(self._reloads),
            registrations,
            tuple((gpu, xid, count) for (gpu, xid), count in sorted(self._xids.items())),
            dict(self._lists),
            probe_starts,
            calls,
        )
