"""What enforces memory: said only where it is known to apply, else with reason and remedy."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from sgpud.core.allocation.injection import GpuAccess, InjectionChoice, NodeHost
from sgpud.core.intset import IntSet
from sgpud.core.limits.enforcement import (
    Enforcement,
    EnforcementKind,
    enforcement,
    limited_by_toolkit,
)
from sgpud.core.limits.pod_caps import CapFacts, GpuLimiting
from sgpud.core.limits.settings import LimitSettings, MemoryLimits, OveruseAction
from sgpud.core.planning.node import Node
from sgpud.core.sharing.rules import FullGuardSettings, InjectionMethod, ShareTerms, Sharing
from tests.core.values import GIB, POOL, checkpoint, gpu, holder, mig, node

ONE = gpu(0)
HOST = NodeHost(
    cgroup_problem="",
    unlimited="",
    access={ONE.uuid: GpuAccess(cdi=f"nvidia.com/gpu={ONE.uuid}", limited=True)},
)
WITHOUT_HOOK = evolve(HOST, access={ONE.uuid: GpuAccess(cdi="x")})
CDI, RUNTIME = InjectionMethod.CDI, InjectionMethod.NVIDIA_RUNTIME


def of(
    method: InjectionMethod | None = CDI,
    *,
    size: int = GIB,
    one: Any = ONE,
    problem: str = "",
    expected: int = 0,
    **facts: Any,
) -> Enforcement:
    """What enforces the memory of a GPU of a node where everything is there."""
    sharing = Sharing(
        default=ShareTerms(POOL, 4, size), guard_settings=FullGuardSettings(expected=expected)
    )
    known: Node = node(sharing, [one])
    facts = {"driver": "615.71.09", "host": HOST, **facts}
    chosen = InjectionChoice(method, "test") if method else None
    return enforcement(evolve(known, **facts), chosen, one, problem)


def test_driver_toolkit_and_method_together_enforce_it() -> None:
    found = of()
    assert (found.kind, found.remedy) == (EnforcementKind.TOOLKIT, "")
    assert "615.71.09" in found.reason


def test_the_report_says_that_a_pod_can_override_variables() -> None:
    found = of(RUNTIME)
    assert found.kind is EnforcementKind.TOOLKIT
    assert "overrides" in found.reason
    assert "cdi" in found.remedy
    found = of(host=evolve(HOST, caps_problem="cannot write /var/run/cdi/x: Read-only"))
    assert found.kind is EnforcementKind.TOOLKIT
    assert "cannot write /var/run/cdi/x" in found.reason


def helper(backend: str = "", problem: str = "") -> CapFacts:
    """What the helper has found out about the GPU."""
    return CapFacts(installed=True, gpus={ONE.uuid: GpuLimiting(backend, problem)})


@pytest.mark.parametrize("backend", ["dmem", "misc"])
@pytest.mark.parametrize("method", [CDI, RUNTIME, InjectionMethod.DEVICE_NODES])
def test_the_helper_does_without_toolkit_and_whatever_the_method(
    backend: str, method: InjectionMethod
) -> None:
    host = NodeHost(cgroup_problem="", unlimited="no hook")
    found = of(method, host=host, capping=helper(backend))
    assert (found.kind.value, found.remedy) == (backend, "")
    assert "the helper sets them for each pod" in found.reason


def test_on_misc_the_toolkits_limit_of_each_container_counts() -> None:
    assert of(capping=helper("misc")).kind is EnforcementKind.TOOLKIT
    assert of(capping=helper("dmem")).kind is EnforcementKind.DMEM
    known = evolve(node(Sharing(), [ONE, gpu(1)]), driver="615.71.09", host=HOST)
    assert limited_by_toolkit(known, InjectionChoice(CDI, "test")) == {ONE.uuid}
    assert limited_by_toolkit(known, None) == frozenset()


def test_what_the_helper_cannot_is_told_with_its_reason() -> None:
    away = helper(problem="the helper does not answer")
    found = of(host=WITHOUT_HOOK, capping=away)
    assert found.kind is EnforcementKind.WATCH
    assert found.reason.endswith("; the helper does not answer")
    assert "helper" not in of(driver="580.65.06", capping=away).reason
    require = LimitSettings(MemoryLimits.REQUIRE)
    found = of(host=WITHOUT_HOOK, capping=away, limits=require)
    assert 'containers wait, since [limits] memory is "require"' in found.reason
    assert of(capping=helper("dmem"), limits=LimitSettings(MemoryLimits.OFF)).kind is (
        EnforcementKind.WATCH
    )


@pytest.mark.parametrize(
    ("facts", "reason", "remedy"),
    [
        ({"driver": "580.65.06"}, "driver 580.65.06 cannot", "Install driver 615"),
        ({"driver": ""}, "of unknown version", "Install driver 615"),
        ({"host": evolve(HOST, cgroup_problem="cgroup v1")}, "cgroup v1", "Use cgroup v2"),
        ({"host": WITHOUT_HOOK}, "apply-cuda-memory-limits", "nvidia-ctk cdi generate"),
        ({"host": NodeHost(cgroup_problem=""), "method": RUNTIME}, "not been checked", "1.20.1"),
        (
            {"host": evolve(HOST, unlimited="toolkit is old"), "method": RUNTIME},
            "toolkit is old",
            "1.20.1",
        ),
        ({"method": InjectionMethod.DEVICE_NODES}, "device-nodes", 'method = "cdi"'),
        ({"method": None}, "not known yet", ""),
        ({"limits": LimitSettings(MemoryLimits.OFF)}, 'memory is "off"', 'memory = "auto"'),
        ({"one": mig(ONE, 1)}, "MIG", ""),
        ({"one": evolve(ONE, fake=True)}, "fake", ""),
    ],
)
def test_without_one_of_them_it_is_watched_and_the_reason_says_which(
    facts: dict[str, Any], reason: str, remedy: str
) -> None:
    found = of(**facts)
    assert found.kind is EnforcementKind.WATCH
    assert reason in found.reason
    assert remedy in found.remedy
    assert bool(remedy) is bool(found.remedy)


def test_where_use_is_not_known_or_not_watched_there_is_nothing() -> None:
    found = of(driver="580.1", problem="the processes cannot be read")
    assert found.kind is EnforcementKind.NONE
    assert "the processes cannot be read" in found.reason
    off = LimitSettings(overuse=OveruseAction.OFF)
    assert of(driver="580.1", limits=off).kind is EnforcementKind.NONE
    assert of(problem="x", limits=off).kind is EnforcementKind.TOOLKIT


def test_places_are_watched_where_something_is_expected_of_them() -> None:
    found = of(size=0)
    assert found.kind is EnforcementKind.NONE
    assert "places" in found.reason
    assert "expected_memory" in found.remedy
    assert of(size=0, expected=GIB).kind is EnforcementKind.WATCH


def test_a_claim_for_memory_is_limited_whatever_the_shares_of_its_gpu_are() -> None:
    claim = evolve(holder({ONE.uuid: IntSet.of([0])}), sizes={ONE.uuid: GIB})
    assert of(size=0, checkpoint=checkpoint(claim)).kind is EnforcementKind.TOOLKIT
    assert of(size=0, checkpoint=checkpoint(evolve(claim, sizes={}))).kind is EnforcementKind.NONE


def test_a_gpu_that_is_not_shared_is_reported_as_such() -> None:
    known = node(Sharing(deny=("*",)), [ONE])
    assert enforcement(known, None, ONE, "").reason == "it is not shared"
