"""Memory caps of pods, put together: what has them in force, whichever API serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from sgpud.bridge import Reactor, in_thread
from sgpud.config.values import Config, KubeletApi
from sgpud.core.limits.enforcement import limited_by_toolkit
from sgpud.core.limits.pod_caps import CapFacts
from sgpud.core.planning.holdings import Holder
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Plan
from sgpud.kubelet.cgroups import pod_cgroup
from sgpud.kubelet.checkpoint import CheckpointError, read, read_pod
from sgpud.kubelet.directory import CHECKPOINT
from sgpud.limits.client import HelperClient
from sgpud.limits.keeper import CapKeeper, CapOrders, PodReader

HELPER = "limits.sock"
"""The helper's socket in the run directory."""


def cap_keeper(
    reactor: Reactor,
    config: Config,
    run: Path,
    learned: Callable[[CapFacts], None],
    root: Path = Path("/"),
) -> CapKeeper:
    """What has the memory caps of pods in force. `run`: the run directory; `root`: the node's /."""
    path = Path(config.kubelet.plugin_directory) / CHECKPOINT
    alone = config.kubelet.api is KubeletApi.DRA

    def holders() -> Sequence[Holder]:
        found = read(path)
        if not found.written and not alone:
            # One that was removed while pods run names none of them.
            raise CheckpointError(path, "it is not there")
        return found.holders

    return CapKeeper(
        reactor,
        HelperClient(run / HELPER),
        PodReader(holders, partial(read_pod, path), lambda uid: pod_cgroup(root, uid)),
        learned,
        work=partial(in_thread, reactor),
    )


def cap_orders(node: Node, plan: Plan | None) -> CapOrders:
    """The caps that are to be in force on this node."""
    holders = node.checkpoint.holders if node.checkpoint else ()
    return CapOrders(
        node.limits.memory,
        node.limits.cap_terms,
        {gpu.uuid: gpu for gpu in node.gpus or ()},
        node.driver,
        node.gpus is not None and not node.probe_problem,
        limited_by_toolkit(node, plan.chosen if plan else None),
        tuple(one for one in holders if one.claim),
    )
