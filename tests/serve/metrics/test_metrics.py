"""The metrics."""

from collections.abc import Iterable
from typing import Any

import pytest
from attrs import evolve
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as of_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from sgpud.core.allocation.allocate import RefusalRule
from sgpud.core.status.gpus import HealthView, UsageView
from sgpud.core.status.view import ClusterView, ConfigurationView, Counters, NodeView
from sgpud.serve.metrics.collector import FAMILIES, exposed, make_registry
from tests.node_view import CONTAINER, GIB, GPU, POOL, STATE, VIEW
from tools.metrics_page import PAGE, page

TEAM = 'container="main",gpu="GPU-1",namespace="team",pod="train"'


def lines(view: NodeView) -> list[str]:
    return generate_latest(make_registry(lambda: view)).decode().splitlines()


def test_shares_are_exported_by_resource_gpu_and_state() -> None:
    labels = 'gpu="GPU-1",resource="example.com/gpu"'
    found = lines(VIEW)
    for state, count in (
        ("free", 0),
        ("withheld", 97),
        ("unhealthy", 0),
        ("held", 3),
        ("draining", 2),
    ):
        assert f'sgpud_shares{{{labels},state="{state}"}} {count}.0' in found
    assert f"sgpud_shares_allocatable{{{labels}}} 3.0" in found
    assert f"sgpud_shares_surplus{{{labels}}} 1.0" in found
    for availability, holds in (("available", 0), ("withheld", 1), ("unhealthy", 0)):
        assert (
            f'sgpud_gpu_availability{{availability="{availability}",{labels}}} {holds}.0' in found
        )


def test_the_health_of_each_gpu_is_exported() -> None:
    sick = HealthView("GPU-1", "unhealthy", "XID 79: x", "reboot", cordoned=True, cause="XID 79")
    well = HealthView("MIG-2", "healthy", "", "", cordoned=False)
    counters = evolve(VIEW.counters, xids=(("GPU-1", 79, 2), ("GPU-1", 13, 40)))
    found = lines(evolve(VIEW, healths=(sick, well), counters=counters))
    for gpu, health in (("GPU-1", "unhealthy"), ("MIG-2", "healthy")):
        for each in ("healthy", "suspect", "unhealthy", "probation"):
            value = float(each == health)
            assert f'sgpud_gpu_health{{gpu="{gpu}",health="{each}"}} {value}' in found
    assert [line for line in found if line.startswith("sgpud_gpu_unhealthy{")] == [
        'sgpud_gpu_unhealthy{gpu="GPU-1",reason="XID 79"} 1.0'
    ]
    assert 'sgpud_gpu_cordoned{gpu="GPU-1"} 1.0' in found
    assert 'sgpud_gpu_cordoned{gpu="MIG-2"} 0.0' in found
    assert 'sgpud_gpu_xids_total{gpu="GPU-1",xid="79"} 2.0' in found
    assert 'sgpud_gpu_xids_total{gpu="GPU-1",xid="13"} 40.0' in found


def test_a_gpu_in_two_pools_is_described_once() -> None:
    dropped = evolve(POOL, resource="example.com/old", dropped=True, registration="no kubelet")
    found = lines(evolve(VIEW, pools=(POOL, dropped)))
    assert [line for line in found if line.startswith("sgpud_gpu_info{")] == [
        (
            r'sgpud_gpu_info{gpu="GPU-1",index="0",mig="",pci="0000:3b:00.0",'
            r'product="NVIDIA \"A100\"\\n80GB"} 1.0'
        )
    ]
    (memory,) = (line for line in found if line.startswith('sgpud_gpu_memory_bytes{gpu="GPU-1"} '))
    assert float(memory.split()[1]) == GPU.memory
    assert 'sgpud_pool_registered{resource="example.com/gpu"} 1.0' in found
    assert 'sgpud_pool_registered{resource="example.com/old"} 0.0' in found


def values(view: NodeView, name: str) -> list[float]:
    return [float(line.rpartition(" ")[2]) for line in lines(view) if line.startswith(name + "{")]


def test_the_use_of_containers_is_exported_by_pod_and_gpu() -> None:
    found = lines(VIEW)
    for name, value in (
        ("shares", 4),
        ("memory_granted_bytes", 4 * GIB),
        ("memory_used_bytes", 6 * GIB),
        ("memory_over_bytes", 2 * GIB),
        ("utilisation_ratio", 0.4),
    ):
        assert values(VIEW, f"sgpud_container_{name}") == [value]
    assert any(line.startswith(f"sgpud_container_memory_used_bytes{{{TEAM}}} ") for line in found)
    assert values(VIEW, "sgpud_gpu_memory_used_bytes") == [7 * GIB]
    assert values(VIEW, "sgpud_gpu_utilisation_ratio") == [0.55]
    assert values(VIEW, "sgpud_gpu_processes") == [1, 0, 1, 0]
    assert values(VIEW, "sgpud_gpu_process_memory_bytes") == [6 * GIB, 0, GIB, 0]


def test_what_limits_memory_is_exported() -> None:
    found = lines(VIEW)
    for kind in ("toolkit", "watch", "none"):
        value = float(kind == "watch")
        labels = f'enforcement="{kind}",gpu="GPU-1"'
        assert f"sgpud_gpu_memory_enforcement{{{labels}}} {value}" in found


@pytest.mark.parametrize("required", [True, False])
def test_whether_a_limit_is_required_is_exported(*, required: bool) -> None:
    view = evolve(VIEW, gpus=(evolve(STATE, limit_required=required),))
    assert values(view, "sgpud_gpu_memory_limit_required") == [float(required)]


def test_overuse_is_exported_of_those_that_it_is_found_of() -> None:
    assert values(VIEW, "sgpud_container_overuse_bytes") == []
    one = evolve(CONTAINER, over_for=45.0, verdict="x")
    gpus = (evolve(STATE, containers=(one,)),)
    counters = evolve(VIEW.counters, overuse={STATE.uuid: 3})
    view = evolve(VIEW, gpus=gpus, counters=counters)
    assert values(view, "sgpud_container_overuse_bytes") == [2 * GIB]
    assert values(view, "sgpud_overuse_total") == [3]
    assert values(VIEW, "sgpud_overuse_total") == [0], "there from the start, for a rate"


def test_evictions_for_overuse_are_counted_with_an_api_server_or_without() -> None:
    assert "sgpud_overuse_evictions_total 0.0" in lines(VIEW)
    cluster = ClusterView("n1", pods_followed=True, overuse_evictions=2)
    assert "sgpud_overuse_evictions_total 2.0" in lines(evolve(VIEW, cluster=(cluster,)))


def test_unknown_values_have_no_series() -> None:
    unknown = evolve(CONTAINER, granted=None, used=None, over=None, utilisation=None)
    view = evolve(VIEW, gpus=(evolve(STATE, containers=(unknown,), used=None, utilisation=None),))
    for name in ("memory_granted_bytes", "memory_used_bytes", "memory_over_bytes"):
        assert values(view, f"sgpud_container_{name}") == []
    assert values(view, "sgpud_container_shares") == [4]
    assert values(view, "sgpud_gpu_memory_used_bytes") == []


def test_stale_values_have_no_series() -> None:
    old = evolve(
        VIEW,
        gpus=(evolve(STATE, fresh=False),),
        usage=UsageView(99.0, fresh=False, problem=""),
    )
    for name in ("container_memory_used_bytes", "gpu_memory_used_bytes", "gpu_processes"):
        assert values(old, f"sgpud_{name}") == []
    assert values(old, "sgpud_container_shares") == [4]
    assert "sgpud_usage_age_seconds 99.0" in lines(old)


def test_two_pods_with_the_same_name_are_one_series() -> None:
    again = evolve(CONTAINER, uid="another", shares=1)
    view = evolve(VIEW, gpus=(evolve(STATE, containers=(CONTAINER, again)),))
    assert values(view, "sgpud_container_shares") == [5]
    assert values(view, "sgpud_container_memory_used_bytes") == [12 * GIB]


def test_every_family_can_be_parsed_by_prometheus_client() -> None:
    text = generate_latest(make_registry(lambda: VIEW)).decode()
    read = {family.name: family for family in text_string_to_metric_families(text)}
    for family in FAMILIES:
        found = read[family.name]
        assert found.type == family.kind.value
        for sample in found.samples:
            assert set(sample.labels) == set(family.labels), sample
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text;version=1.0.0,*/*;q=0.1"])
def test_both_formats_equal_prometheus_clients_output(accept: str) -> None:
    odd = evolve(CONTAINER, pod='a "b"\\\n{c}', namespace="é,=")
    registry = make_registry(lambda: evolve(VIEW, gpus=(evolve(STATE, containers=(odd,)),)))
    text, content_type = exposed(registry.collect(), accept)
    assert ("openmetrics" in content_type) is bool(accept)
    parse = of_openmetrics if accept else text_string_to_metric_families
    encode, _ = choose_encoder(accept)
    ours, theirs = (known(parse(each.decode())) for each in (text, encode(registry)))
    ours_fixed = {name: found for name, found in ours.items() if not name.startswith("process_")}
    assert ours_fixed
    assert ours_fixed.items() <= theirs.items()
    assert ours.keys() == theirs.keys()


def known(families: Iterable[Metric]) -> dict[str, Any]:
    """Type and samples of each family."""
    return {
        family.name: (
            family.type,
            {(s.name, tuple(sorted(s.labels.items()))): s.value for s in family.samples},
        )
        for family in families
    }


def test_nan_and_infinity_are_written_as_go_parses_them() -> None:
    family = GaugeMetricFamily("x", "Odd.", labels=("a",))
    for number, value in enumerate(
        (float("inf"), float("-inf"), float("nan"), 1e300, 0.1, 2.0**60)
    ):
        family.add_metric([str(number)], value)
    lines = exposed([family], "")[0].decode().splitlines()[2:]
    assert [line.rpartition(" ")[2] for line in lines] == [
        "+Inf",
        "-Inf",
        "NaN",
        "1e+300",
        "0.1",
        "1.152921504606847e+18",
    ]


def test_the_page_in_docs_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tools.metrics_page"


def test_the_probe_and_the_lists_are_counted() -> None:
    found = lines(VIEW)
    assert "sgpud_probe_restarts_total 2.0" in found
    assert 'sgpud_probe_call_seconds_count{call="sample"} 20.0' in found
    assert 'sgpud_probe_call_seconds_sum{call="sample"} 0.25' in found
    assert 'sgpud_list_messages_total{resource="example.com/gpu"} 9.0' in found


def test_problems_are_exported_as_zero() -> None:
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
    assert 'sgpud_driver_info{driver="550.54"} 1.0' in well
    assert any(line.startswith("sgpud_build_info{python=") for line in well)
    assert 'sgpud_configuration_in_use{source="file"} 1.0' in well
    assert 'sgpud_configuration_in_use{source="last_good"} 1.0' in ill


def test_event_counters_start_at_zero() -> None:
    found = lines(VIEW)
    assert "sgpud_allocations_total 7.0" in found
    assert "sgpud_registrations_total 5.0" in found
    assert 'sgpud_refusals_total{rule="multiple"} 2.0' in found
    assert 'sgpud_reloads_total{result="applied"} 3.0' in found
    assert 'sgpud_reloads_total{result="refused"} 0.0' in found
    quiet = lines(evolve(VIEW, counters=Counters()))
    for rule in RefusalRule:
        assert f'sgpud_refusals_total{{rule="{rule.value}"}} 0.0' in quiet


def test_a_scrape_shows_the_current_view() -> None:
    views = [VIEW, evolve(VIEW, pools=())]
    registry = make_registry(lambda: views.pop(0))
    assert b"sgpud_shares{" in generate_latest(registry)
    assert b"sgpud_shares{" not in generate_latest(registry)


def test_process_metrics_are_exported() -> None:
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines(VIEW))


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text"])
def test_a_name_cannot_control_a_terminal(accept: str) -> None:
    evil = "\x1b[2J\x07L4\u202e"
    pod = evolve(VIEW.gpus[0].containers[0], pod=evil)
    gpu = evolve(VIEW.gpus[0], product=evil, containers=(pod,))
    view = evolve(VIEW, gpus=(gpu,), driver=evil)
    text = exposed(make_registry(lambda: view).collect(), accept)[0].decode()
    assert "L4" in text
    assert all(line.isprintable() for line in text.splitlines())
