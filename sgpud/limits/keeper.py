"""Has the pods' memory caps in force: before a pod's containers start, and again when one is lost.

The kubelet asks before it creates each container (PreStartContainer), in a worker of gRPC's. What
that cannot see (a helper or driver that was restarted, a pod that has ended) is looked at every few
seconds, in a thread of the reactor's pool. Both block on the helper, and nothing waits for them but
the container.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, execute
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import OneAtATime, Reactor, Timer
from sgpud.core.errors import SgpudError
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.intset import IntSet
from sgpud.core.limits.caps import CapTerms
from sgpud.core.limits.pod_caps import (
    CapFacts,
    CapState,
    FoundCap,
    GpuLimiting,
    PodGpu,
    changes,
    pod_caps,
)
from sgpud.core.limits.settings import MemoryLimits
from sgpud.core.planning.holdings import Holder
from sgpud.limits.client import HelperError

_T = TypeVar("_T")

LOOK_EVERY = 5.0
"""Seconds between two looks at the caps in force."""
TRY_EVERY = 60.0
"""Seconds until a GPU is tried again that could not be limited."""
KNOWN_WITHIN = 2.0
"""Seconds for the kubelet to have written a container into its checkpoint, and made the cgroup of
its pod."""
AGAIN = 0.1
"""Seconds between two looks for that."""
ALL_WITHIN = 15.0
"""Seconds for a container's caps on all its GPUs; the kubelet gives up after 30."""
GONE = "gone"
"""The helper's word for a cgroup that is not there."""


@frozen
class CapOrders:
    """What is to be in force, as the reactor knows it."""

    memory: MemoryLimits
    terms: CapTerms
    gpus: Mapping[str, Gpu]
    """By UUID."""
    driver: str
    readable: bool
    """Whether GPUs can be read now: while the driver is released, NVML is left alone."""
    by_toolkit: frozenset[str] = frozenset()
    """GPUs on which NVIDIA's container toolkit limits each container."""


class NotLimitedError(SgpudError):
    """A container that does not start: its memory cannot be limited."""


@frozen
class PodReader:
    """What is read of the pods of this node, in threads."""

    holders: Callable[[], Sequence[Holder]]
    """What the kubelet's checkpoint says and what claims give; SgpudError where it is not known."""
    pod: Callable[[str, Mapping[str, IntSet]], Sequence[Holder]]
    """What the pod holds of which a container holds exactly these shares of a resource; empty where
    that is not certain. SgpudError likewise."""
    cgroup: Callable[[str], Path | None]
    """The cgroup of the pod with a UID; None where there is none."""


class CapHelper(Protocol):
    """The helper. All of it blocks, and raises HelperError."""

    @property
    def installed(self) -> bool:
        """Whether there is one."""

    def set(self, pod: str, cgroup: Path, gpu: str, size: int, *, late: bool) -> None:
        """Limit a pod's memory of a GPU to so many bytes."""

    def clear(self, cap: FoundCap) -> None:
        """Lift a limit of ours."""

    def caps(self) -> tuple[FoundCap, ...]:
        """Every limit that it has set, as it is now."""

    def probe(self, gpus: Collection[str]) -> Mapping[str, GpuLimiting]:
        """Whether limits can be set for these GPUs."""


class CapKeeper:
    """Has the caps in force that the orders say."""

    _log = Logger()

    def __init__(
        self,
        reactor: Reactor,
        helper: CapHelper,
        pods: PodReader,
        learned: Callable[[CapFacts], None],
        wall: Callable[[], float] = time.time,
        known_within: float = KNOWN_WITHIN,
        work: Callable[[Callable[[], CapFacts]], Deferred[CapFacts]] = execute,
    ) -> None:
        """`learned` is called on the reactor with what has changed.

        `wall` gives seconds since the epoch; `known_within`: seconds for the kubelet to name
        a container that starts. `work` runs what would block the reactor, in a thread.
        """
        self._work = work
        self._reactor = reactor
        self._helper = helper
        self._node = pods
        self._learned = learned
        self._wall = wall
        self._known_within = known_within
        self._may_run = wall()
        """Who was given shares up to then may have been started without our knowing."""
        self._orders: CapOrders | None = None
        self._facts = CapFacts(helper.installed)
        self._lock = threading.Lock()
        self._started: frozenset[str] = frozenset()
        self._stopped = threading.Event()
        self._tried: tuple[object, float] = (None, 0.0)
        self._told: dict[PodGpu, str] = {}
        self._noted: dict[PodGpu, CapState] = {}
        """What containers that started since the last look began have got."""
        self._looking = OneAtATime(self._look)
        self._timer = Timer(reactor)

    @property
    def facts(self) -> CapFacts:
        """What is known."""
        return self._facts

    def start(self) -> None:
        """Look from now on."""
        self._timer.set(LOOK_EVERY, self.start)
        self._looking.request()

    def stop(self) -> None:
        """Look no more; caps stay in force."""
        self._stopped.set()
        self._timer.cancel()
        self._looking.stop()

    def order(self, orders: CapOrders) -> None:
        """Have this in force from now on."""
        before, self._orders = self._orders, orders
        if before is None or self._key(before) != self._key(orders):
            self._looking.request()

    # Asked by the kubelet, in a worker. ----------------------------------------------------------

    def before_start(self, resource: str, shares: Mapping[str, IntSet]) -> None:
        """Limit the pod whose container holds these shares; NotLimitedError if it must not start.

        Blocks, for as long as the kubelet, the helper and the driver need.
        """
        orders = self._orders
        if orders is None or orders.memory is MemoryLimits.OFF:
            return
        end = time.monotonic() + ALL_WITHIN
        found = self._awaited(lambda: self._mine(resource, shares))
        if found is None:
            self._may_run = self._wall()
            self._refuse(orders, "the kubelet's checkpoint does not name the container")
            return
        self._limit(orders, found[0].pod, found, end)

    def before_claim(self, pod: str, holders: Sequence[Holder]) -> None:
        """The same for a pod that holds claims; `holders`: all that it holds."""
        orders = self._orders
        if orders is not None and orders.memory is not MemoryLimits.OFF:
            mine = [one for one in holders if one.pod == pod]
            self._limit(orders, pod, mine, time.monotonic() + ALL_WITHIN)

    def _limit(self, orders: CapOrders, pod: str, holders: Sequence[Holder], end: float) -> None:
        with self._lock:
            self._started |= {pod}
        caps = pod_caps(holders, orders.gpus, orders.terms)
        settable = any(isinstance(cap, int) for cap in caps.values())
        cgroup = self._awaited(lambda: self._node.cgroup(pod)) if settable else None
        states = self._capped(orders, pod, cgroup, caps, end)
        self._reactor.callFromThread(self._note, states)
        problems = [f"{gpu}: {one.problem}" for (_, gpu), one in states.items() if one.problem]
        if problems:
            self._refuse(orders, "; ".join(problems))

    def _refuse(self, orders: CapOrders, problem: str) -> None:
        if orders.memory is MemoryLimits.REQUIRE:
            raise NotLimitedError(
                f'its memory cannot be limited, and [limits] memory is "require": {problem}'
            )

    def _mine(self, resource: str, shares: Mapping[str, IntSet]) -> Sequence[Holder] | None:
        """What the pod of the container with these shares holds; None: it is not known yet."""
        try:
            return self._node.pod(resource, shares) or None
        except SgpudError:
            return None

    def _awaited(self, look: Callable[[], _T | None]) -> _T | None:
        end = time.monotonic() + self._known_within
        while (found := look()) is None and time.monotonic() < end:
            if self._stopped.wait(AGAIN):
                break
        return found

    def _capped(
        self,
        orders: CapOrders,
        pod: str,
        cgroup: Path | None,
        caps: Mapping[str, int | str],
        end: float,
    ) -> dict[PodGpu, CapState]:
        states: dict[PodGpu, CapState] = {}
        broken = "" if cgroup else "the cgroup of the pod was not found"
        for gpu, cap in caps.items():
            if self._is_toolkits(orders, gpu):
                continue
            problem = cap if isinstance(cap, str) else broken
            if not problem and cgroup and isinstance(cap, int):
                try:
                    self._helper.set(pod, cgroup, gpu, cap, late=self._is_late(pod, gpu))
                except HelperError as error:
                    problem = error.reason
                    if error.kind in {"away", "hung"} or time.monotonic() > end:
                        broken = problem  # another GPU would cost as long
            waits = bool(problem) and orders.memory is MemoryLimits.REQUIRE
            limit = cap if isinstance(cap, int) and not problem else None
            late = self._is_late(pod, gpu) and limit is not None
            states[pod, gpu] = CapState(limit, None, late, problem, waits)
        return states

    def _is_late(self, pod: str, gpu: str) -> bool:
        """Whether a cap comes late, or did: that stays so until its pod ends.

        One that could not be set when a container of the pod started does, but on dmem, where the
        pod's memory has been counted all along.
        """
        known = self._facts.caps.get((pod, gpu), CapState())
        limiting = self._facts.gpus.get(gpu, GpuLimiting())
        return limiting.backend != "dmem" and (
            known.late or (bool(known.problem) and not known.waits)
        )

    def _is_toolkits(self, orders: CapOrders, gpu: str) -> bool:
        """Whether the toolkit's limit of each container is all there is to be.

        On misc the nearest limit alone counts: one of the pod would do nothing beside it.
        """
        limiting = self._facts.gpus.get(gpu)
        return gpu in orders.by_toolkit and (limiting is None or limiting.backend != "dmem")

    # Looked at every few seconds. ----------------------------------------------------------------

    def _look(self) -> Deferred[None]:
        orders, self._noted = self._orders, {}
        return self._work(partial(self._looked, orders)).addBoth(self._seen)

    def _seen(self, result: CapFacts | Failure) -> None:
        if isinstance(result, Failure):
            self._log.failure("Cannot check memory limits", failure=result)
        elif not self._stopped.is_set():
            self._tell(evolve(result, caps={**result.caps, **self._noted}))

    def _note(self, states: Mapping[PodGpu, CapState]) -> None:
        self._noted |= states
        self._tell(evolve(self._facts, caps={**self._facts.caps, **states}))

    def _tell(self, facts: CapFacts) -> None:
        for (pod, gpu), one in facts.caps.items():
            if self._told.get((pod, gpu), "") != one.problem:
                self._told[pod, gpu] = one.problem
                if one.problem:
                    self._log.warn(
                        "Pod {pod}: its memory of {gpu} is not limited: {problem}",
                        pod=pod,
                        gpu=gpu,
                        problem=one.problem,
                    )
                else:
                    self._log.info("Pod {pod}: its memory of {gpu} is limited", pod=pod, gpu=gpu)
        self._told = {key: text for key, text in self._told.items() if key in facts.caps}
        if facts != self._facts:
            self._facts = facts
            self._learned(facts)

    def _looked(self, orders: CapOrders | None) -> CapFacts:
        """Put in force what is missing, lift what is left over; what there is then. In a thread."""
        before = self._facts
        with self._lock:
            earlier = self._started
        if not self._helper.installed:
            return CapFacts(caps=self._unset(before))
        if orders is None or not orders.readable:
            return evolve(before, installed=True)
        try:
            gpus = self._probed(orders, before)
            found = self._helper.caps()
        except HelperError as error:
            return self._away(orders, before, error)
        try:
            # After what the helper says: what it had set by then, this names, unless it has ended.
            holders = self._node.holders()
        except SgpudError:
            return evolve(before, installed=True, gpus=gpus)
        wanted = self._wanted(orders, holders)
        capable = {key: cap for key, cap in wanted.items() if isinstance(cap, int)}
        with self._lock:
            # Not those that have started since: the holders may have been read before.
            self._started -= earlier - {one.pod for one in holders}
            started = self._started
        started |= {one.pod for one in holders if one.since <= self._may_run or one.claim}
        states = {(one.pod, one.gpu): _state(one) for one in found if (one.pod, one.gpu) in wanted}
        waiting = {key for key, one in before.caps.items() if one.waits}
        states |= {
            key: CapState(problem=cap, waits=key in waiting)
            for key, cap in wanted.items()
            if isinstance(cap, str)
        }
        todo = changes(capable, found, started)
        for cap in todo.clear:
            self._clear(cap)
        counted = {(one.pod, one.gpu) for one in found if one.limit is not None} | waiting
        for key, size in todo.set.items():
            limiting = gpus.get(key[1], GpuLimiting())
            # dmem has counted the pod's memory all along; misc counts what comes after.
            late = limiting.backend != "dmem" and key not in counted
            state = self._put(*key, size, late=late)
            if state is not None:
                states[key] = evolve(state, waits=bool(state.problem) and key in waiting)
        return CapFacts(installed=True, gpus=gpus, caps=states)

    def _unset(self, before: CapFacts) -> Mapping[PodGpu, CapState]:
        """What was tried without a helper, for the pods that are still there."""
        if not before.caps:
            return {}
        try:
            pods = {one.pod for one in self._node.holders()}
        except SgpudError:
            return before.caps
        return {key: one for key, one in before.caps.items() if one.problem and key[0] in pods}

    def _clear(self, cap: FoundCap) -> None:
        try:
            self._helper.clear(cap)
        except HelperError as error:
            self._log.warn(
                "Cannot clear the limit of pod {pod}, which has ended: {problem}",
                pod=cap.pod,
                problem=error.reason,
            )

    def _put(self, pod: str, gpu: str, size: int, *, late: bool) -> CapState | None:
        """Set a cap that is missing; None where the pod is gone."""
        cgroup = self._node.cgroup(pod)
        if cgroup is None:
            return None
        try:
            self._helper.set(pod, cgroup, gpu, size, late=late)
        except HelperError as error:
            return None if error.kind == GONE else CapState(problem=error.reason)
        return CapState(size, None, late)

    def _wanted(self, orders: CapOrders, holders: Sequence[Holder]) -> dict[PodGpu, int | str]:
        if orders.memory is MemoryLimits.OFF:
            return {}
        by_pod: dict[str, list[Holder]] = {}
        for one in holders:
            if one.pod:
                by_pod.setdefault(one.pod, []).append(one)
        return {
            (pod, gpu): cap
            for pod, mine in by_pod.items()
            for gpu, cap in pod_caps(mine, orders.gpus, orders.terms).items()
            if not self._is_toolkits(orders, gpu)
        }

    def _probed(self, orders: CapOrders, before: CapFacts) -> Mapping[str, GpuLimiting]:
        """What the helper can do for each GPU: tried once, and again where it could nothing."""
        key, now = self._key(orders), time.monotonic()
        failed = any(one.problem for one in before.gpus.values())
        if self._tried[0] == key and not (failed and now > self._tried[1] + TRY_EVERY):
            return before.gpus
        real = [uuid for uuid, gpu in orders.gpus.items() if not gpu.fake and not gpu.mig]
        found = self._helper.probe(real) if real else {}
        self._tried = (key, now)
        return found

    def _key(self, orders: CapOrders) -> object:
        return (orders.driver, frozenset(orders.gpus), orders.readable, orders.memory, orders.terms)

    def _away(self, orders: CapOrders, before: CapFacts, error: HelperError) -> CapFacts:
        """The helper does not answer: what it has set stays in force, and cannot be seen."""
        self._tried = (None, 0.0)
        gpus = {uuid: GpuLimiting("", error.reason) for uuid in orders.gpus}
        return evolve(before, installed=True, gpus=gpus)


def _state(one: FoundCap) -> CapState:
    return CapState(one.limit, one.used, one.late and one.limit is not None, one.problem)
