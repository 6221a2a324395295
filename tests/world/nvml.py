"""What the NVML process tells of a GPU."""

from __future__ import annotations

import json

from sgpud.gpus.nvml.messages import Inventory, ProcessesMessage, SamplesMessage, parse


def told(uuid: str, **facts: object) -> dict[str, object]:
    """A GPU as the NVML process tells of it."""
    return {
        "uuid": uuid, "index": 0, "minor": 0, "pci": "", "product": "Orin", "numa": None,
        "compute": [8, 7], "mig": None, "memory": 1 << 33, "reserved": 0, **facts,
    }  # fmt: skip


def inventory(*gpus: dict[str, object]) -> Inventory:
    line = {
        "type": "inventory",
        "driver": "540.4.0",
        "nvml": "12.540",
        "gpus": gpus,
        "unreadable": [],
    }
    found = parse(json.dumps(line).encode())
    assert isinstance(found, Inventory)
    return found


def sample(**facts: object) -> SamplesMessage:
    entry = {
        "uuid": "GPU-1", "used": 1, "total": 2, "utilisation": 3, "recovery": 0, "ecc": 0,
        "ecc_total": None, "remap": None, "error": "", **facts,
    }  # fmt: skip
    found = parse(json.dumps({"type": "samples", "gpus": [entry]}).encode())
    assert isinstance(found, SamplesMessage)
    return found


def processes(*rows: list[int | None]) -> ProcessesMessage:
    """The processes of one GPU: process id, bytes, percent."""
    entry = {"uuid": "GPU-1", "processes": rows, "error": ""}
    found = parse(json.dumps({"type": "processes", "gpus": [entry]}).encode())
    assert isinstance(found, ProcessesMessage)
    return found
