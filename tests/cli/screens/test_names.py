"""The names that commands take, as `sgpud status --names` lists them."""

from __future__ import annotations

from attrs import evolve

from sgpud.cli.screens.names import gpus, pods
from sgpud.core.gpu.gpu import UnreadableGpu
from sgpud.core.status.view import document
from tests.node_view import CONTAINER, STATE, VIEW


def test_gpus_are_named_by_index_and_uuid() -> None:
    mig = evolve(STATE, uuid="MIG-1", physical="GPU-9", mig="1/0", index=1)
    gone = evolve(STATE, uuid="GPU-gone", physical="GPU-gone", index=-1)
    view = evolve(VIEW, gpus=(STATE, mig, gone), unreadable=(UnreadableGpu(2, "lost"),))
    assert gpus(document(view)) == ["0", "1", "2", "GPU-1", "GPU-9", "MIG-1", "GPU-gone"]


def test_pods_are_named_once_and_only_when_they_are_known() -> None:
    holders = (CONTAINER, evolve(CONTAINER, container="other"), evolve(CONTAINER, pod=""))
    other = evolve(STATE, containers=(evolve(CONTAINER, namespace="a", pod="b"),))
    view = evolve(VIEW, gpus=(evolve(STATE, containers=holders), other))
    assert pods(document(view)) == ["a/b", "team/train"]
