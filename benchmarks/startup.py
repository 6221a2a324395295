"""How long from a process's start until the kubelet can use it."""

from collections.abc import Iterator

from benchmarks.node import FLOOR, RESOURCE, Node
from benchmarks.report import Number, Target, median

OVER_SKELETON = 60.0
"""Milliseconds from start to Register beyond the skeleton's to listening."""


def startup(*, quick: bool) -> Iterator[Number]:
    """Start to Register, Register to first list: skeleton, floor and daemon in turn."""
    register: dict[str, list[float]] = {"skeleton": [], FLOOR: [], RESOURCE: []}
    listed: dict[str, list[float]] = {FLOOR: [], RESOURCE: []}
    with Node(8, 100) as node:
        # The first of each only warms the file cache up.
        for _ in range(1 + (3 if quick else 9)):
            skeleton = node.skeleton()
            register["skeleton"].append((skeleton.said("listening") - skeleton.began) * 1000)
            skeleton.stop()
            for resource, start in ((FLOOR, node.floor), (RESOURCE, node.sgpud)):
                process = start()
                attempt, devices = node.registered(resource, process.began)
                register[resource].append((attempt.at - process.began) * 1000)
                listed[resource].append((devices.at - attempt.at) * 1000)
                process.stop()
    skeleton_ms = median(register["skeleton"][1:])
    yield Number(
        "start to Register, p50",
        "ms",
        median(register[RESOURCE][1:]),
        floor=median(register[FLOOR][1:]),
        skeleton=skeleton_ms,
        target=Target(skeleton_ms + OVER_SKELETON, f"skeleton + {OVER_SKELETON:g} ms"),
    )
    yield Number(
        "Register to first list, p50",
        "ms",
        median(listed[RESOURCE][1:]),
        floor=median(listed[FLOOR][1:]),
    )
