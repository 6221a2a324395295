"""What the commands print for a person."""

from typing import Any

import pytest

from sgpud.cli.screens import output
from sgpud.core.status.pools import PoolGpuView, PoolView
from sgpud.core.status.view import ConfigurationView, Counters, NodeView, document

GPU = PoolGpuView(
    uuid="GPU-1",
    product="NVIDIA A100",
    index=0,
    memory=2**30,
    shares=10,
    held=2,
    free=0,
    withheld=8,
    unhealthy=0,
    draining=1,
    surplus=0,
    allocatable=2,
    availability="withheld",
    reason="cordoned",
)
_GPU_ROW = (
    "  GPU-1  NVIDIA A100  2     0     8         0          1         2            "
    "withheld: cordoned"
)
VIEW = NodeView(
    version="1.2.3",
    serving="serving",
    directory="/plugins",
    configuration=ConfigurationView("/etc/sgpud.toml", "last good", ("sgpud.toml:3: bad",)),
    driver="550",
    probe="no driver",
    method="",
    holders="",
    pools=(
        PoolView("example.com/gpu", "live", "", 1, dropped=False, gpus=(GPU,)),
        PoolView("example.com/old", "no kubelet", "refused", 1, dropped=True, gpus=()),
    ),
    notes=("too many",),
    counters=Counters(),
    unknown=("holders",),
)


def outcome(result: str, **parts: tuple[str, ...]) -> dict[str, Any]:
    empty: tuple[str, ...] = ()
    names = ("keys", "shares", "warnings", "problems")
    return {"result": result, **dict.fromkeys(names, empty), **parts}


@pytest.mark.parametrize(
    ("errors", "warnings", "verdict"),
    [
        ([], [], "f.toml is valid"),
        ([], ["f.toml:1: odd"], "f.toml is valid, with 1 warning"),
        (["f.toml:1: bad"], [], "f.toml has 1 problem"),
        (["f.toml:1: bad", "f.toml:2: bad"], ["f.toml:3: odd"], "f.toml has 2 problems"),
    ],
)
def test_check_config_ends_with_a_verdict(
    errors: list[str], warnings: list[str], verdict: str
) -> None:
    found = {"file": "f.toml", "errors": errors, "warnings": warnings}
    assert output.checked(found).splitlines() == [*errors, *warnings, verdict]


def test_gpus_are_a_table() -> None:
    gpu = {
        "index": 0,
        "uuid": "GPU-1",
        "product": "NVIDIA A100",
        "memory": 2**30,
        "numa": None,
        "mig": None,
        "shared": {"shares": 10, "resource": "example.com/gpu"},
    }
    instance = {**gpu, "uuid": "MIG-1", "numa": 1, "mig": {"gi": 1, "ci": 0}, "shared": None}
    found = {
        "fault": "",
        "gpus": [gpu, instance],
        "driver": "550",
        "errors": {"GPU-2": "is lost", "3": "no UUID"},
        "unreadable": [{"index": 3, "reason": "no UUID", "uuid": "", "pci": "0000:3b:00.0"}],
        "configuration": "",
    }
    head, first, second, driver, nameless, lost = output.gpus(found).splitlines()
    assert head.split() == ["INDEX", "UUID", "PRODUCT", "MEMORY", "NUMA", "SHARED", "AS"]
    assert "GPU-1" in first
    assert first.endswith("10 x example.com/gpu")
    assert second.startswith("0 MIG 1/0")
    assert second.endswith("not shared")
    assert head.index("UUID") == first.index("GPU-1") == second.index("MIG-1")
    assert (driver, lost) == ("Driver 550", "GPU GPU-2 cannot be shared: is lost")
    assert nameless == "GPU 3 (0000:3b:00.0) cannot be shared: no UUID"


def test_without_gpus_there_is_no_table() -> None:
    found = {
        "fault": "no driver",
        "gpus": [],
        "driver": "",
        "errors": {},
        "unreadable": [],
        "configuration": "bad",
    }
    assert output.gpus(found).splitlines() == [
        "Cannot read GPUs: no driver",
        "Shown with the default configuration: bad",
    ]


def test_a_plan_shows_problems_before_pools() -> None:
    text = output.plan({"view": document(VIEW), "reload": None})
    assert text.splitlines() == [
        "sgpud 1.2.3: serving (/plugins)",
        "Configuration: /etc/sgpud.toml, in use: last good",
        "  sgpud.toml:3: bad",
        "GPUs: no driver",
        "Not known yet: holders",
        "Note: too many",
        "",
        "example.com/gpu: registered",
        "  GPU    PRODUCT      HELD  FREE  WITHHELD  UNHEALTHY  DRAINING  ALLOCATABLE  REASON",
        _GPU_ROW,
        "",
        "example.com/old: no kubelet (refused), no longer configured",
        "  no shares",
    ]


def test_a_plan_ends_with_what_a_reload_would_change() -> None:
    found = {"view": document(VIEW), "reload": outcome("applied", keys=("a: 1 to 2",))}
    assert output.plan(found).endswith("\n\nA reload would change:\n  a: 1 to 2")


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (outcome("unchanged"), "Reloaded: nothing changed"),
        (outcome("applied", keys=("a",), shares=("b",)), "Reloaded:\n  a\n  b"),
        (
            outcome("refused", problems=("f:1: bad",)),
            "The file is invalid; the configuration in use stays:\n  f:1: bad",
        ),
    ],
)
def test_a_reload_shows_its_outcome(found: dict[str, Any], text: str) -> None:
    assert output.reloaded(found) == text


def test_a_failed_release_says_what_to_do() -> None:
    assert "sgpud acquire" in output.released({"released": True})
    assert "Reboot the node" in output.released({"released": False})
