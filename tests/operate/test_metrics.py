"""The metrics."""

from attrs import evolve
from prometheus_client import generate_latest

from sgpud.core.allocation import RefusalRule
from sgpud.core.health_view import HealthView
from sgpud.core.pool_views import GpuView, PoolView
from sgpud.core.status import ConfigurationView, Counters, View
from sgpud.operate.metrics import make_registry

GPU = GpuView(
    uuid="GPU-1",
    product='NVIDIA "A100"\n80GB',
    index=0,
    memory=85_899_345_920,
    shares=100,
    held=3,
    free=97,
    draining=2,
    surplus=1,
    healthy=98,
    standing="withheld",
    reason="cordoned",
)
POOL = PoolView("example.com/gpu", "live", "", 4, dropped=False, gpus=(GPU,))
VIEW = View(
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
    counters=Counters(7, {"multiple": 2}, {"applied": 3}, 5),
)


def lines(view: View) -> list[str]:
    return generate_latest(make_registry(lambda: view)).decode().splitlines()


def test_shares_are_told_by_resource_gpu_and_state() -> None:
    labels = 'gpu="GPU-1",resource="example.com/gpu"'
    found = lines(VIEW)
    for state, count in (("free", 97), ("held", 3), ("draining", 2)):
        assert f'sgpud_shares{{{labels},state="{state}"}} {count}.0' in found
    assert f"sgpud_shares_allocatable{{{labels}}} 98.0" in found
    assert f"sgpud_shares_surplus{{{labels}}} 1.0" in found
    for standing, holds in (("well", 0), ("withheld", 1), ("sick", 0)):
        assert f'sgpud_gpu_standing{{{labels},standing="{standing}"}} {holds}.0' in found


def test_the_health_of_each_gpu_is_told() -> None:
    sick = HealthView("GPU-1", "unhealthy", "XID 79", "reboot", cordoned=True)
    well = HealthView("MIG-2", "healthy", "", "", cordoned=False)
    counters = evolve(VIEW.counters, xids=(("GPU-1", 79, 2), ("GPU-1", 13, 40)))
    found = lines(evolve(VIEW, healths=(sick, well), counters=counters))
    for gpu, health in (("GPU-1", "unhealthy"), ("MIG-2", "healthy")):
        for each in ("healthy", "suspect", "unhealthy", "probation"):
            value = float(each == health)
            assert f'sgpud_gpu_health{{gpu="{gpu}",health="{each}"}} {value}' in found
    assert 'sgpud_gpu_cordoned{gpu="GPU-1"} 1.0' in found
    assert 'sgpud_gpu_cordoned{gpu="MIG-2"} 0.0' in found
    assert 'sgpud_gpu_xids_total{gpu="GPU-1",xid="79"} 2.0' in found
    assert 'sgpud_gpu_xids_total{gpu="GPU-1",xid="13"} 40.0' in found


def test_the_gpu_is_described_once_though_two_pools_list_it() -> None:
    dropped = evolve(POOL, resource="example.com/old", dropped=True, registration="no kubelet")
    found = lines(evolve(VIEW, pools=(POOL, dropped)))
    assert [line for line in found if line.startswith("sgpud_gpu_info{")] == [
        r'sgpud_gpu_info{gpu="GPU-1",index="0",product="NVIDIA \"A100\"\\n80GB"} 1.0'
    ]
    (memory,) = (line for line in found if line.startswith('sgpud_gpu_memory_bytes{gpu="GPU-1"} '))
    assert float(memory.split()[1]) == GPU.memory
    assert 'sgpud_pool_registered{resource="example.com/gpu"} 1.0' in found
    assert 'sgpud_pool_registered{resource="example.com/old"} 0.0' in found


def test_what_is_wrong_shows_as_a_zero() -> None:
    well, ill = (
        lines(VIEW),
        lines(
            evolve(
                VIEW,
                serving="standby",
                probe="no driver",
                holders="stale",
                configuration=ConfigurationView("f", "last good", ("f:1: bad",)),
            )
        ),
    )
    for name in ("serving", "probe_up", "holders_fresh", "configuration_current"):
        assert f"sgpud_{name} 1.0" in well
        assert f"sgpud_{name} 0.0" in ill
    assert 'sgpud_info{driver="550.54",version="1.2.3"} 1.0' in well


def test_events_are_counted_and_begin_with_zero() -> None:
    found = lines(VIEW)
    assert "sgpud_allocations_total 7.0" in found
    assert "sgpud_registrations_total 5.0" in found
    assert 'sgpud_refusals_total{rule="multiple"} 2.0' in found
    assert 'sgpud_reloads_total{result="applied"} 3.0' in found
    assert 'sgpud_reloads_total{result="refused"} 0.0' in found
    quiet = lines(evolve(VIEW, counters=Counters()))
    for rule in RefusalRule:
        assert f'sgpud_refusals_total{{rule="{rule.value}"}} 0.0' in quiet


def test_a_scrape_shows_what_is_so_now() -> None:
    views = [VIEW, evolve(VIEW, pools=())]
    registry = make_registry(lambda: views.pop(0))
    assert b"sgpud_shares{" in generate_latest(registry)
    assert b"sgpud_shares{" not in generate_latest(registry)


def test_the_process_tells_of_itself() -> None:
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines(VIEW))
