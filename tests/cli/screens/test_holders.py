"""The holders of a pool as text."""

from __future__ import annotations

from typing import Any

from sgpud.cli.screens.output import plan

GIB = 2**30
HOLDER = {
    "namespace": "team",
    "pod": "train",
    "uid": "6f1c",
    "container": "main",
    "shares": 12,
    "bytes": 12 * GIB,
    "since": 1_790_000_000.0,
}


def shown(*holders: dict[str, Any]) -> str:
    """The status of a pool with one GPU that they hold."""
    gpu = {
        "uuid": "GPU-1",
        "product": "A100",
        "shares": 40,
        "held": 12,
        "free": 28,
        "withheld": 0,
        "unhealthy": 0,
        "draining": 0,
        "allocatable": 40,
        "availability": "available",
        "reason": "",
        "holders": list(holders),
    }
    pool = {
        "resource": "a.com/memory",
        "registration": "live",
        "problem": "",
        "dropped": False,
        "gpus": [gpu],
    }
    view = {
        "version": "1",
        "serving": "serving",
        "directory": "/d",
        "configuration": {"file": "/f", "in_use": "file", "problems": [], "warnings": []},
        "probe": "",
        "holders": "podresources cannot be asked",
        "method": "",
        "unknown": [],
        "notes": [],
        "pools": [pool],
    }
    return plan({"view": view, "reload": None})


def test_a_holder_is_a_line_with_name_memory_and_start() -> None:
    found = shown(HOLDER).splitlines()
    assert "Holders may be stale: podresources cannot be asked" in found
    assert found[-1].split() == [
        "team/train",
        "main",
        "GPU-1",
        "12",
        "12GiB",
        "2026-09-21",
        "14:13:20Z",
    ]


def test_unknown_fields_of_a_holder_are_shown_as_dashes() -> None:
    unnamed = {**HOLDER, "namespace": "", "pod": "", "since": 0.0, "bytes": 0}
    assert shown(unnamed).splitlines()[-1].split() == ["6f1c", "main", "GPU-1", "12", "-", "-"]
    starting = {**unnamed, "uid": "", "container": ""}
    assert "a pod that is starting" in shown(starting)


def test_without_holders_there_is_no_holder_table() -> None:
    assert "HOLDER" not in shown()
