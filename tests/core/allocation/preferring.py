"""Requests for a preferred allocation, and by brute force how good an answer could be."""

from itertools import product

from attrs import frozen
from hypothesis import strategies as st

from sgpud.core.allocation.allocate import IdIndex, index
from sgpud.core.allocation.preference import prefer
from sgpud.core.intset import IntSet
from sgpud.core.planning.plan import GpuShares, Plan, Pool
from sgpud.core.sharing.rules import (
    GpuRule,
    InjectionMethod,
    InjectionSettings,
    Multiple,
    Placement,
)
from sgpud.core.sharing.share_id import parse_share_id, share_id
from tests.core.values import (
    OTHER,
    POOL,
    checkpoint,
    gpu,
    holder,
    node,
    planned,
    sharing,
    uuid,
)


@frozen
class Request:
    """What the kubelet asks, of which pool."""

    plan: Plan
    pool: Pool
    index: IdIndex
    available: list[str]
    must: list[str]
    size: int

    def ask(self) -> list[str]:
        return prefer(self.plan, self.pool, self.index, self.available, self.must, self.size).ids


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A true request: available is free and Healthy, must is available, size fits between."""
    factors = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    rules = [GpuRule(uuid(number), factor=factor) for number, factor in enumerate(factors)]
    held, others = {}, {}
    for number, factor in enumerate(factors):
        taken = draw(st.sets(st.integers(0, factor - 1)))
        if taken:
            held[uuid(number)] = IntSet.of(taken)
        if draw(st.booleans()):
            others[uuid(number)] = IntSet.of([50])
    known = checkpoint(
        holder(held), holder(others, resource=OTHER, per_gpu=draw(st.integers(2, 5)))
    )
    config = sharing(
        4,
        *rules,
        placement=draw(st.sampled_from(Placement)),
        multiple=draw(st.sampled_from(Multiple)),
        injection=InjectionSettings(InjectionMethod.NVIDIA_RUNTIME),
    )
    plan = planned(node(config, [gpu(number) for number in range(len(factors))], known))
    pool = plan.pool(POOL)
    assert pool is not None
    free = [share_id(one.uuid, number) for one in pool.groups for number in one.free]
    available = draw(st.permutations(free))
    left_out = draw(st.integers(0, min(2, len(available))))
    available = available[left_out:]
    must = available[: draw(st.integers(0, min(2, len(available))))]
    size = draw(st.integers(len(must), max(len(must), min(5, len(available)))))
    return Request(plan, pool, index(pool), draw(st.permutations(available)), must, size)


def _group(asked: Request, name: str) -> GpuShares:
    return next(one for one in asked.pool.groups if one.uuid == name)


def _gpus(some: list[str]) -> list[str]:
    return [found[0] for one in some if (found := parse_share_id(one))]


def _free(asked: Request) -> dict[str, int]:
    mine = _gpus([one for one in asked.available if one not in asked.must])
    return {name: mine.count(name) for name in sorted({*_gpus(asked.available)})}


def ways(asked: Request) -> list[dict[str, int]]:
    """Every way to take what is needed beside `must`: how many shares of each GPU."""
    free = _free(asked)
    found = product(*(range(count + 1) for count in free.values()))
    need = asked.size - len(asked.must)
    return [dict(zip(free, way, strict=True)) for way in found if sum(way) == need]


def counted(asked: Request, answer: list[str]) -> dict[str, int]:
    """The way that an answer goes."""
    mine = _gpus([one for one in answer if one not in asked.must])
    return {name: mine.count(name) for name in _free(asked)}


def whole(asked: Request, counts: dict[str, int]) -> list[int]:
    """Shares of each GPU in the whole answer."""
    must = _gpus(asked.must)
    return [counts[name] + must.count(name) for name in counts]


def allowed(asked: Request, counts: dict[str, int]) -> bool:
    """Whether Allocate takes so many shares of each GPU beside those that must be."""
    multiple = asked.pool.multiple
    all_of_each = whole(asked, counts)
    if multiple is Multiple.DISTINCT:
        return all(count <= 1 for count in all_of_each)
    taken = {name: count for name, count in zip(counts, all_of_each, strict=True) if count}
    if multiple is not Multiple.SAME or len(taken) <= 1:
        return True
    factors = {_group(asked, name).factor for name in taken}
    largest = max(group.factor for group in asked.pool.groups)
    return asked.size > largest and set(taken.values()) == factors and len(factors) == 1


def score(asked: Request, counts: dict[str, int]) -> list[float]:
    """What is higher is better, the first number before the second."""
    free, multiple = _free(asked), asked.pool.multiple
    spread = asked.plan.placement is Placement.SPREAD
    loads = {}
    for name in counts:
        group = _group(asked, name)
        taken = len(group.active) - free[name]
        loads[name] = float(group.elsewhere) + taken / group.parts
    all_of_each = whole(asked, counts)
    if multiple is Multiple.DISTINCT:
        different = sum(count > 0 for count in all_of_each)
        if different < asked.size:
            return [different, 0]  # Allocate refuses it: the load is of no interest
        total = sum(loads[name] * count for name, count in counts.items())
        return [different, -total if spread else total]
    if multiple is Multiple.SAME:
        if not allowed(asked, counts):
            return [0, 0, 0]
        gpus = sum(count > 0 for count in all_of_each)
        total = sum(loads[name] * count for name, count in counts.items())
        return [1, -gpus, -total if spread else total]
    if spread:
        return [
            -sum(
                loads[name] + step / _group(asked, name).parts
                for name, count in counts.items()
                for step in range(count)
            )
        ]
    return sorted(
        (loads[name] for name, count in counts.items() for _ in range(count)), reverse=True
    )
