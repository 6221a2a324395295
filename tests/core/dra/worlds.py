"""Nodes, devices and claims that the tests of DRA are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve

from sgpud.core.dra.claims import MEMORY, SHARES, AllocatedClaim, AllocatedShare, PreparedClaim
from sgpud.core.dra.slices import Device, DraSettings, devices
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.planning.node import Node
from sgpud.core.sharing.rules import Sharing
from tests.core.values import GIB, gpu, node, sharing

POOL = "node-1"
SETTINGS = DraSettings()


def of_node(of: Node, claims: Sequence[PreparedClaim] = ()) -> tuple[Device, ...]:
    """The devices of a node."""
    return devices(of, SETTINGS, claims)


def places(factor: int = 4, count: int = 2) -> Node:
    """A node whose GPUs are shared in places."""
    return node(sharing(factor), [gpu(number) for number in range(count)])


def memory(size: int = GIB, gpus: Sequence[Gpu] = ()) -> Node:
    """A node whose GPUs are shared by memory."""
    base = sharing()
    config: Sharing = evolve(base, default=evolve(base.default, share_memory=size))
    return node(config, gpus or [gpu(0), gpu(1)])


def claim(uid: str, *shares: tuple[str, Mapping[str, int]], request: str = "gpu") -> AllocatedClaim:
    """A claim with shares of these devices."""
    return AllocatedClaim(
        uid,
        "prod",
        uid,
        tuple(
            AllocatedShare(request, POOL, device, f"{uid}-{number}", amounts)
            for number, (device, amounts) in enumerate(shares)
        ),
    )


def amount(size: int, shares: int = 1) -> dict[str, int]:
    """What a share consumes."""
    return {MEMORY: size, SHARES: shares}
