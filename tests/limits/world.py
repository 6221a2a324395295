"""A node in memory: a driver's model, cgroups of pods, the kubelet's checkpoint, helper and keeper.

The helper's own code sets the limits, on the model instead of NVML.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, evolve, field

from sgpud.core.intset import IntSet
from sgpud.core.limits.caps import CapTerms
from sgpud.core.limits.pod_caps import CapFacts, CapState, FoundCap, GpuLimiting
from sgpud.core.limits.settings import MemoryLimits
from sgpud.core.planning.holdings import Holder
from sgpud.core.sharing.share_id import memory_stem
from sgpud.kubelet.checkpoint import CheckpointError
from sgpud.limits.client import AWAY, HelperError
from sgpud.limits.helper.cgroups import LimitRefusedError
from sgpud.limits.helper.limiter import Limiter
from sgpud.limits.helper.record import Record
from sgpud.limits.keeper import CapKeeper, CapOrders, PodReader
from tests.core.values import GIB, gpu
from tests.limits.models import DmemModel
from tests.surroundings import FakeReactor

ROOT = "/sys/fs/cgroup"
POOL = "deepomatic.com/shared-gpu-memory"
STEM = memory_stem(POOL)
GPUS = {one.uuid: one for one in (gpu(0), gpu(1))}
A, B = GPUS
ORDERS = CapOrders(MemoryLimits.AUTO, CapTerms(), GPUS, "615.71.09", readable=True)


class MemoryRecord(Record):
    """The helper's record, kept in memory."""

    def __init__(self, inodes: Mapping[str, int]) -> None:
        super().__init__("")
        self._inodes = inodes

    @contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def forget_gone(self) -> None:
        for path, known in tuple(self.caps.items()):
            if self._inodes.get(path) != known["inode"]:
                del self.caps[path]

    def _write(self) -> None:
        """It is written."""


@define
class World:
    """The node, and the helper as the keeper sees it."""

    driver: DmemModel
    cgroups: dict[str, int] = field(factory=dict)
    """The inode of each pod's cgroup."""
    books: list[Holder] = field(factory=list)
    """What the kubelet's checkpoint says, and what claims give."""
    readable: bool = True
    """Whether that can be read."""
    installed: bool = True
    away: bool = False
    """Whether the helper does not answer."""
    failing: int = 0
    """Calls to NVML until one fails; 0: none does."""
    facts: CapFacts = field(factory=CapFacts)
    orders: CapOrders = ORDERS
    now: float = 1000.0
    meanwhile: list[Callable[[], None]] = field(factory=list)
    """What happens, once each, before the helper says what it has set."""
    late: list[Callable[[], None]] = field(factory=list)
    """Likewise after the checkpoint was read."""
    sets: list[tuple[str, str, int, bool]] = field(factory=list)
    """Every limit that was asked for: pod, GPU, bytes, late."""
    _inode: int = 0
    record: MemoryRecord = field(init=False)
    limiter: Limiter = field(init=False)
    reactor: FakeReactor = field(init=False, factory=FakeReactor)
    keeper: CapKeeper = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.record = MemoryRecord(self.cgroups)
        self.limiter = Limiter(ROOT, self.record, self, self._locate)  # type: ignore[arg-type]
        self.restart()

    # The daemon. ---------------------------------------------------------------------------------

    def restart(self) -> None:
        """A daemon starts."""
        self.facts = CapFacts()
        self.keeper = CapKeeper(
            self.reactor,
            self,
            PodReader(self._holders, self._pod, self._cgroup),
            self._learned,
            lambda: self.now,
            0.0,
        )
        self.keeper.order(self.orders)

    def order(self, **changed: Any) -> None:
        """Other orders."""
        self.orders = evolve(self.orders, **changed)
        self.keeper.order(self.orders)

    def look(self) -> None:
        """The keeper looks at the node once."""
        self.keeper.start()

    def start(self, holder: Holder) -> None:
        """The kubelet starts a container; NotLimitedError."""
        try:
            self.keeper.before_start(holder.resource, holder.shares)
        finally:
            while not self.reactor.quiet:
                self.reactor.let_in()

    def state(self, pod: str, on: str = A) -> CapState | None:
        """What is known of a pod's cap."""
        return self.keeper.facts.caps.get((pod, on))

    # The kubelet. --------------------------------------------------------------------------------

    def admit(self, pod: str, *containers: Holder) -> None:
        """A pod is admitted: it is in the books, and has a cgroup."""
        self.books += [evolve(one, pod=pod) for one in containers]
        self._inode += 1
        self.cgroups[path_of(pod)] = self._inode

    def end(self, pod: str, *, lingers: bool = False) -> None:
        """A pod ends; its cgroup may linger."""
        self.books = [one for one in self.books if one.pod != pod]
        if not lingers:
            self.remove(pod)

    def remove(self, pod: str) -> None:
        """The cgroup of a pod goes."""
        if self.cgroups.pop(path_of(pod), None):
            self.driver.remove(path_of(pod))

    # What the keeper reads and asks. -------------------------------------------------------------

    def _holders(self) -> Sequence[Holder]:
        if not self.readable:
            raise CheckpointError(Path("checkpoint"), "not JSON")
        books = tuple(self.books)
        while self.late:
            self.late.pop()()
        return books

    def _pod(self, resource: str, shares: Mapping[str, IntSet]) -> Sequence[Holder]:
        books = self._holders()
        pods = {one.pod for one in books if (one.resource, one.shares) == (resource, shares)}
        return [one for one in books if one.pod in pods] if len(pods) == 1 else []

    def _cgroup(self, pod: str) -> Path | None:
        return Path(path_of(pod)) if path_of(pod) in self.cgroups else None

    def _learned(self, facts: CapFacts) -> None:
        self.facts = facts

    def set(self, pod: str, cgroup: Path, gpu: str, size: int, *, late: bool) -> None:
        self.sets.append((pod, gpu, size, late))
        target = {"pod": pod, "cgroup": str(cgroup), "gpu": gpu}
        self._ask({"op": "set", **target, "bytes": size, "late": late})

    def clear(self, cap: FoundCap) -> None:
        self._ask({"op": "clear", "pod": cap.pod, "cgroup": cap.cgroup, "gpu": cap.gpu})

    def caps(self) -> tuple[FoundCap, ...]:
        while self.meanwhile:
            self.meanwhile.pop()()
        return tuple(
            FoundCap(
                *(one["pod"], one["gpu"], one["cgroup"], one["bytes"], one["late"]),
                *(one["limit"], one["used"], one["problem"]),
            )
            for one in self._ask({"op": "get"})["caps"]
        )

    def probe(self, gpus: Collection[str]) -> Mapping[str, GpuLimiting]:
        if self.away:
            raise HelperError(AWAY, "the helper does not answer")
        return {one: GpuLimiting(self.driver.backend) for one in gpus}

    def _ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        if self.away:
            raise HelperError(AWAY, "the helper does not answer")
        answer = self.limiter.answer(dict(request))
        if not answer["ok"]:
            raise HelperError(answer["error"], answer["detail"])
        return answer

    def _locate(self, _root: str, path: str, _pod: str) -> int:
        if path not in self.cgroups:
            raise LimitRefusedError("gone", f"there is no cgroup {path}")
        return self.cgroups[path]

    def call(self, _deadline: float, name: str, *arguments: Any) -> Sequence[int]:
        """What the helper's worker does."""
        self.failing -= 1
        if self.failing == 0:
            raise LimitRefusedError("nvml", f"{name} failed with 999")
        return getattr(self.driver, name)(*arguments) or ()


def path_of(pod: str) -> str:
    """The cgroup of a pod."""
    return f"{ROOT}/kubepods.slice/kubepods-pod{pod.replace('-', '_')}.slice"


def uid(number: int) -> str:
    """The UID of a pod."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def container(name: str, numbers: IntSet, on: str = A, size: int = GIB, at: float = 0.0) -> Holder:
    """A container that holds memory shares of one GPU."""
    return Holder("", name, POOL, {STEM: numbers}, {}, {on: size} if size else {}, at, gpu=on)
