"""GPUs whose answers are unlike a data centre's."""

from __future__ import annotations

import json

from attrs import evolve

from sgpud.core.gpu.gpu import matches
from sgpud.core.sharing.share_id import parse_share_id, share_id
from sgpud.gpus.nvml.messages import Inventory, ProcessesMessage, parse
from tests.core.values import gpu
from tests.world.inputs import JETSON_UUID

ORIN = evolve(gpu(0), uuid=JETSON_UUID, product="Orin (nvgpu)")


def told(uuid: str, **facts: object) -> dict[str, object]:
    """A GPU as the NVML process tells of it."""
    return {
        "uuid": uuid, "index": 0, "minor": 0, "pci": "", "product": "Orin", "numa": None,
        "compute": [8, 7], "mig": None, "memory": 1 << 33, "reserved": 0, **facts,
    }  # fmt: skip


def inventory(*gpus: dict[str, object]) -> Inventory:
    line = {"type": "inventory", "driver": "540.4.0", "nvml": "12.540", "gpus": gpus}
    found = parse(json.dumps(line).encode())
    assert isinstance(found, Inventory)
    return found


def test_a_uuid_without_its_prefix_is_a_gpu_and_part_of_share_ids() -> None:
    found = inventory(told(JETSON_UUID))
    assert [each.uuid for each in found.gpus] == [JETSON_UUID]
    assert found.refused == ()
    made = share_id(JETSON_UUID, 99)
    assert parse_share_id(made) == (JETSON_UUID, 99)


def test_a_uuid_without_its_prefix_names_its_gpu_in_a_list() -> None:
    assert matches(JETSON_UUID, ORIN)
    assert not matches(JETSON_UUID.replace("6", "7"), ORIN)


def test_a_gpu_that_no_share_id_can_name_is_told_with_its_index_and_the_reason() -> None:
    found = inventory(told("card no. 1", index=4))
    assert [(name, "cannot be part" in reason) for name, reason in found.refused] == [("4", True)]


def test_the_processes_of_an_odd_gpu_take_nothing_from_the_others() -> None:
    good = {"uuid": "GPU-1", "processes": [[7, 1024, None]], "error": ""}
    odd = [
        {"uuid": "GPU-2", "processes": [[7, -1, None]], "error": ""},
        {"uuid": "card no. 1", "processes": [], "error": ""},
        {"uuid": "GPU-3", "error": ""},
        7,
    ]
    line = {"type": "processes", "gpus": [odd[0], good, *odd[1:]]}
    found = parse(json.dumps(line).encode())
    assert isinstance(found, ProcessesMessage)
    assert [(each.uuid, len(each.processes)) for each in found.running] == [("GPU-1", 1)]


def test_only_asterisk_and_question_mark_are_wildcards() -> None:
    bracket = evolve(ORIN, product="Tesla [M60]")
    assert matches("tesla [m60]", bracket)
    assert matches("Tesla ?M*]", bracket)
    assert not matches("Tesla [[]M60]", bracket)
    assert not matches("Tesla [A-Z]*", evolve(ORIN, product="Tesla T4"))
