"""What people see of healths: the view of each GPU, and what a status line names."""

from __future__ import annotations

from sgpud.core.gpu.observations import EventKind, GpuEvent
from sgpud.core.health.node_health import cordoned, heard
from sgpud.core.status.gpus import SHOWN, HealthView, healths, troubles
from tests.core.values import gpu, mig, node, sharing

A, B = gpu(0), gpu(1)
WELL = HealthView("GPU-1", "healthy", "", "", cordoned=False)


def test_every_gpu_and_every_parent_of_mig_instances_is_listed() -> None:
    part = mig(A, 1)
    seen = healths(node(sharing(), (part, B)))
    assert [one.uuid for one in seen] == [A.uuid, part.uuid, B.uuid]
    assert {one.health for one in seen} == {"healthy"}
    assert troubles(seen) == []


def test_an_unhealthy_gpu_is_shown_with_reason_and_advice() -> None:
    sick = heard(node(sharing(), (A, B)), GpuEvent(A.uuid, EventKind.XID, 79), 0.0)
    seen = healths(cordoned(sick, B.uuid, on=True))
    assert (seen[0].health, seen[0].reason) == (
        "unhealthy",
        "XID 79: the GPU has fallen off the bus",
    )
    assert "reboot" in seen[0].advice
    assert troubles(seen) == [
        f"{A.uuid} unhealthy (XID 79: the GPU has fallen off the bus)",
        f"{B.uuid} healthy, cordoned",
    ]


def test_what_to_do_about_an_instance_is_done_to_its_gpu() -> None:
    part = mig(A, 1)
    event = GpuEvent(A.uuid, EventKind.XID, 95, gi=1, ci=0)
    seen = healths(heard(node(sharing(), (part,)), event, 0.0))
    assert f"--gpu-reset -i {A.uuid}" in seen[1].advice


def test_a_status_line_names_a_few() -> None:
    many = [HealthView(f"GPU-{n}", "unhealthy", "XID 79", "", cordoned=False) for n in range(9)]
    said = troubles([WELL, *many])
    assert len(said) == SHOWN + 1
    assert said[-1] == f"and {9 - SHOWN} more GPUs with problems"
