"""How long a simulation of 100 000 pods on 16 GPUs takes: `python -m benchmarks.simulation`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import count, islice

from attrs import evolve

from sgpud.cli.simulate.engine.simulation import simulate
from sgpud.cli.simulate.engine.values import (
    Cluster,
    ContainerRequest,
    PodOutcome,
    PodRequest,
    SimulatedDra,
)
from sgpud.core.dra.slices import DraSettings
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.sharing.rules import (
    DEFAULT_RESOURCE,
    Advertise,
    Multiple,
    Placement,
    ShareTerms,
    Sharing,
)

GIB = 2**30
SIZES = (2, 4, 8, 12)
MEMORY = Sharing(default=ShareTerms(share_memory=GIB))
TRACE = (*range(47, 101), *range(48, 101, 4), 5, 10, 10, 15, 20, 20, 25, 25, 30, 40, 46, 46)
"""Four of five pods of public traces ask for most of a GPU."""
SAME = Sharing(multiple=Multiple.SAME)
PACKED = evolve(SAME, placement=Placement.PACKED)
ALL = evolve(MEMORY, advertise=Advertise.ALL)
DRA = SimulatedDra(DraSettings(memory_placement=Placement.PACKED), 10.0)
CASES = (
    ("trace-like, same, spread, 2 x 8 GPUs", SAME, None, 2, TRACE, 64.0),
    ("trace-like, same, packed, 2 x 8 GPUs", PACKED, None, 2, TRACE, 64.0),
    ("100 places per GPU, 1 x 16 GPUs", Sharing(), None, 1, (1,), 0.7),
    ("100 places per GPU, 2 x 8 GPUs", Sharing(), None, 2, (1,), 0.7),
    ("1GiB shares, advertise all, 2 x 8", ALL, None, 2, SIZES, 18.0),
    ("1GiB shares, advertise largest, 2 x 8", MEMORY, None, 2, SIZES, 18.0),
    ("1GiB shares, DRA, 2 x 8", MEMORY, DRA, 2, SIZES, 18.0),
)
"""(what, configuration, DRA, nodes, shares that pods ask for, mean seconds between two pods): busy
for about 90 and 60 percent, as pods run for 1 000 s on average."""
GPUS = 16


def main() -> None:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=100_000, metavar="N", help="pods (100000)")
    pods = parser.parse_args().pods
    for what, sharing, dra, nodes, sizes, apart in CASES:
        gpus = tuple(_gpu(number) for number in range(GPUS // nodes))
        requests = list(islice(_requests(sizes, apart), pods))
        wall, processor = time.perf_counter(), time.process_time()
        outcome = simulate(Cluster(sharing, (gpus,) * nodes, dra=dra), requests)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        placed = sum(entry.end is PodOutcome.PLACED for entry in outcome.entries)
        failed = sum(len(entry.failures) for entry in outcome.entries)
        assert placed > pods * 0.9
        print(
            f"{what}: {pods} pods in {wall:.1f} s ({processor:.1f} s of processor), "
            f"{placed} placed, {failed} failed on a node"
        )


def _gpu(number: int) -> Gpu:
    uuid = f"GPU-{number:08x}-0000-4000-8000-000000000000"
    return Gpu(uuid, number, "NVIDIA A100-SXM4-40GB", 40 * GIB, fake=True)


def _requests(sizes: tuple[int, ...], apart: float) -> Iterator[PodRequest]:
    """Pods without end, uneven and yet the same each time (a linear congruential generator)."""
    state, at = 1, 0.0
    for number in count():
        state = (state * 1_103_515_245 + 12_345) % 2**31
        part = (state >> 8) % 1000 / 1000
        at = round(at + 2 * apart * part, 3)
        size = sizes[(state >> 20) % len(sizes)]
        container = ContainerRequest(size, DEFAULT_RESOURCE)
        yield PodRequest(f"pod-{number}", at, (container,), round(500 + 1000 * part, 3))


if __name__ == "__main__":
    main()
