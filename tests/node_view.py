"""A node's view with a bit of everything, for tests of status, page, metrics and the schema."""

from attrs import evolve

from sgpud.core.gpu.attribution import ProcessView
from sgpud.core.status.gpus import ContainerView, GpuStateView, UsageView
from sgpud.core.status.pools import PoolGpuView, PoolView
from sgpud.core.status.view import CallTimes, ConfigurationView, Counters, NodeView

GIB = 2**30
UID = "0a1b2c3d-1111-2222-3333-444455556666"
PROCESS = ProcessView(
    4711, "python3", 6 * GIB, 40, "holder", "team", "train", UID, "main", "f" * 64, "/kubepods", ""
)
CONTAINER = ContainerView(
    "team", "train", UID, "main", 4, 4 * GIB, 1_790_000_000.0, 1, 6 * GIB, 2 * GIB, 40
)
STATE = GpuStateView(
    uuid="GPU-1",
    physical="GPU-1",
    index=0,
    mig="",
    product='NVIDIA "A100"\n80GB',
    pci="0000:3b:00.0",
    numa=1,
    memory=85_899_345_920,
    reserved=GIB,
    used=7 * GIB,
    utilisation=55,
    measured_ago=1.5,
    fresh=True,
    uncorrected_ecc=3,
    row_remap_pending=True,
    row_remap_failed=None,
    health="healthy",
    cause="",
    reason="",
    advice="",
    cordoned=False,
    missing=False,
    containers=(CONTAINER,),
    processes=(
        PROCESS,
        evolve(PROCESS, pid=12, used=GIB, owner="outside", uid="", pod="", namespace=""),
    ),
    use_problem="",
    enforcement="watch",
    enforcement_reason="driver 550.54 cannot limit memory",
    enforcement_remedy="Install driver 615 or later.",
)
GPU = PoolGpuView(
    uuid="GPU-1",
    product='NVIDIA "A100"\n80GB',
    index=0,
    memory=85_899_345_920,
    shares=100,
    held=3,
    free=0,
    withheld=97,
    unhealthy=0,
    draining=2,
    surplus=1,
    allocatable=3,
    availability="withheld",
    reason="cordoned",
)
POOL = PoolView("example.com/gpu", "live", "", 4, dropped=False, gpus=(GPU,))
VIEW = NodeView(
    version="1.2.3",
    serving="serving",
    directory="/var/lib/kubelet/device-plugins",
    configuration=ConfigurationView("/etc/sgpud.toml", "file"),
    driver="550.54",
    probe="",
    method="cdi: asked for",
    holders="",
    pools=(POOL,),
    notes=(),
    counters=Counters(
        7,
        {"multiple": 2},
        {"applied": 3},
        5,
        lists={"example.com/gpu": 9},
        probe_starts=3,
        calls=(CallTimes("sample", 20, 0.25),),
    ),
    gpus=(STATE,),
    usage=UsageView(1.5, fresh=True, problem=""),
)
