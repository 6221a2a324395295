"""Memory caps of pods, put together: what has them in force, whichever API serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from sgpud.bridge import Reactor, in_thread
from sgpud.config.values import Config
from sgpud.core.limits.enforcement import limited_by_toolkit
from sgpud.core.planning.holdings import Holder
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Plan
from sgpud.kubelet.cgroups import pod_cgroup
from sgpud.kubelet.checkpoint import CheckpointError, read, read_pod
from sgpud.kubelet.directory import CHECKPOINT
from sgpud.limits.client import HelperClient
from sgpud.limits.keeper import CapKeeper, CapOrders, PodReader
from sgpud.node.reconciler import Reconciler

HELPER = "limits.sock"
"""The helper's socket in the run directory."""


class Claimed(Protocol):
    """Knows what pods hold through claims."""

    def claimed(self) -> Sequence[Holder]:
        """That, now; in any thread. SgpudError: it is not known yet."""


def cap_keeper(
    reactor: Reactor,
    config: Config,
    run: Path,
    reconciler: Reconciler,
    dra: Callable[[], Claimed | None],
    root: Path = Path("/"),
) -> CapKeeper:
    """What has the memory caps of pods in force. `run`: the run directory; `root`: the node's /.

    `dra`: who knows the claims, which the checkpoint does not name; None with a device plugin.
    """
    path = Path(config.kubelet.plugin_directory) / CHECKPOINT

    def holders() -> Sequence[Holder]:
        found, claims = read(path), dra()
        if not found.written and claims is None:
            # One that was removed while pods run names none of them.
            raise CheckpointError(path, "it is not there")
        return (*found.holders, *(claims.claimed() if claims else ()))

    return CapKeeper(
        reactor,
        HelperClient(run / HELPER),
        PodReader(holders, partial(read_pod, path), lambda uid: pod_cgroup(root, uid)),
        lambda facts: reconciler.update(capping=facts),
        work=partial(in_thread, reactor),
    )


def cap_orders(node: Node, plan: Plan | None) -> CapOrders:
    """The caps that are to be in force on this node."""
    return CapOrders(
        node.limits.memory,
        node.limits.cap_terms,
        {gpu.uuid: gpu for gpu in node.gpus or ()},
        node.driver,
        node.gpus is not None and not node.probe_problem,
        limited_by_toolkit(node, plan.chosen if plan else None),
    )
