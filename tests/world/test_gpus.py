"""GPUs whose answers are unlike a data centre's."""

from __future__ import annotations

import json

import pytest
from attrs import evolve

from sgpud.config.load import parse as parse_config
from sgpud.core.allocation.injection import GrantedGpu, InjectionChoice, NodeHost, answer
from sgpud.core.gpu.gpu import matches, pci_address
from sgpud.core.gpu.observations import GpuProcess, GpuProcesses
from sgpud.core.planning.holdings import CheckpointState
from sgpud.core.planning.plan import plan
from sgpud.core.sharing.rules import InjectionMethod
from sgpud.core.sharing.share_id import parse_share_id, share_id
from sgpud.gpus.nvml.messages import Inventory, ProcessesMessage, parse
from tests.core.status.viewing import viewed
from tests.core.values import GIB, gpu, node, sharing
from tests.world.inputs import JETSON_UUID, UNIFIED, UNIFIED_PCI
from tests.world.nvml import inventory, sample, told

ORIN = evolve(gpu(0), uuid=JETSON_UUID, product="Orin (nvgpu)")


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
        {
            "uuid": "GPU-2",
            "processes": [[7, -1, None], [-7, 1, 1], "x", [8, 2**64 - 1, 250]],
            "error": "",
        },
        {"uuid": "card no. 1", "processes": [], "error": ""},
        {"uuid": "GPU-3", "error": ""},
        7,
    ]
    line = {"type": "processes", "gpus": [odd[0], good, *odd[1:]]}
    found = parse(json.dumps(line).encode())
    assert isinstance(found, ProcessesMessage)
    assert found.running == (
        GpuProcesses("GPU-2", (GpuProcess(7), GpuProcess(8))),
        GpuProcesses("GPU-1", (GpuProcess(7, 1024),)),
    )
    assert len(found.odd) == 5


def test_an_odd_unreadable_gpu_takes_nothing_from_the_others() -> None:
    lost = {"index": 1, "uuid": "", "pci": "", "reason": "lost"}
    line = {
        "type": "inventory",
        "driver": "540.4.0",
        "nvml": "",
        "gpus": [told("GPU-1")],
        "unreadable": [
            lost,
            {"index": 2, "reason": None},
            "x",
            {**lost, "index": "3", "pci": None},
        ],
    }
    found = parse(json.dumps(line).encode())
    assert isinstance(found, Inventory)
    assert [gpu.uuid for gpu in found.gpus] == ["GPU-1"]
    assert [gpu.index for gpu in found.unreadable] == [1, 2, 3]


def test_only_asterisk_and_question_mark_are_wildcards() -> None:
    bracket = evolve(ORIN, product="Tesla [M60]")
    assert matches("tesla [m60]", bracket)
    assert matches("Tesla ?M*]", bracket)
    assert not matches("Tesla [[]M60]", bracket)
    assert not matches("Tesla [A-Z]*", evolve(ORIN, product="Tesla T4"))


GB10 = evolve(gpu(0), product=UNIFIED, memory=None, reserved=0)


def test_memory_that_nvml_does_not_report_is_unknown_and_not_zero() -> None:
    assert [each.memory for each in inventory(told("GPU-1", memory=None)).gpus] == [None]
    chosen = InjectionChoice(InjectionMethod.NVIDIA_RUNTIME, "")
    given = answer(chosen, NodeHost(), [GrantedGpu(GB10, 1, 4)], prefix="SGPUD_")
    assert "SGPUD_GPU_MEMORY_BYTES" not in given.envs
    of = node(sharing(), [GB10], CheckpointState())
    assert [each.memory for each in viewed(of, plan(of, 0.0)).gpus] == [None]


@pytest.mark.parametrize("memory", [0, 2**64 - 1, 2**63, 2**50])
def test_a_sentinel_in_place_of_the_memory_is_unknown_memory(memory: int) -> None:
    assert [each.memory for each in inventory(told("GPU-1", memory=memory)).gpus] == [None]


def test_a_pci_domain_that_is_not_0_stays() -> None:
    assert pci_address(UNIFIED_PCI) == "000f:01:00.0"


def test_memory_shares_of_a_gpu_of_unknown_memory_say_how_to_give_it() -> None:
    config = parse_config('[sharing]\nshare_memory = "2GiB"\n', "x").sharing
    found = plan(node(config, [GB10], CheckpointState()), 0.0)
    assert found is not None
    (note,) = found.notes
    assert f"({UNIFIED}) does not report its memory" in note
    assert 'match = "0", memory = "100GiB"' in note


def test_memory_that_a_rule_gives_is_what_an_unknown_one_is_taken_for() -> None:
    text = '[sharing]\nshare_memory = "2GiB"\n[[gpu]]\nmatch = "*GB10"\nmemory = "100GiB"\n'
    config = parse_config(text, "x").sharing
    of = node(config, [GB10, gpu(1)], CheckpointState())
    assert sorted(of.wanted().values()) == [20, 50]
    assert [each.memory for each in viewed(of, plan(of, 0.0)).gpus] == [100 * GIB, 40 * GIB]


def test_a_reading_that_cannot_be_is_unknown_and_the_others_stay() -> None:
    found = sample(utilisation=250)
    assert (found.samples[0].used, found.samples[0].utilisation) == (1, None)
    assert found.odd == ("GPU-1: 250 % utilisation",)
    found = sample(used=16 << 40, total=24 << 30)
    assert (found.samples[0].used, found.samples[0].utilisation) == (None, 3)
    assert len(found.odd) == 1
    assert sample(used=None, total=None).samples[0].utilisation == 3


@pytest.mark.parametrize("name", ["used", "total", "utilisation", "recovery", "ecc", "ecc_total"])
@pytest.mark.parametrize("value", [2**64 - 1, -1, "N/A", 1.5])
def test_a_sentinel_in_place_of_one_reading_leaves_the_others(name: str, value: object) -> None:
    found = sample(**{name: value})
    (read,) = found.samples
    assert getattr(read, name) is None
    assert [read.utilisation, read.ecc].count(None) == (name in ("utilisation", "ecc"))
    assert [str(value) in text for text in found.odd] == [True]
