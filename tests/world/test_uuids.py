"""Every form of UUID that NVML gives, and every way to write one, wherever sgpud takes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attrs import evolve

from sgpud.config.load import parse
from sgpud.config.problems import ConfigError
from sgpud.core.explain.explain import Evidence, explain
from sgpud.core.gpu.gpu import Gpu, UnreadableGpu, matches, same_uuid
from sgpud.core.health.node_health import cordoned, find, verdict
from sgpud.core.intset import IntSet
from sgpud.core.json_checks import UUID
from sgpud.core.planning.holdings import CheckpointState
from sgpud.core.planning.plan import plan
from sgpud.core.sharing.share_id import parse_share_id, share_id
from sgpud.gpus.host import look
from sgpud.kubelet.checkpoint import shares
from tests.core.status.viewing import viewed
from tests.core.values import POOL, gpu, mig, node, sharing
from tests.world.inputs import GIVEN_UUIDS, UUID_SPELLINGS
from tests.world.nvml import inventory, told

KIND = "nvidia.com/gpu"
OTHER = gpu(7)


def of(uuid: str) -> Gpu:
    return gpu(0, uuid=uuid)


@pytest.mark.parametrize("uuid", GIVEN_UUIDS)
def test_what_nvml_gives_is_a_gpu_a_share_and_a_line_of_the_checkpoint(uuid: str) -> None:
    found = inventory(told(uuid))
    assert ([each.uuid for each in found.gpus], found.refused) == ([uuid], ())
    made = share_id(uuid, 99)
    assert parse_share_id(made) == (uuid, 99)
    assert shares([made], POOL) == {uuid: IntSet.of([99])}
    (pool,) = planned_pools(of(uuid))
    assert pool == uuid


def planned_pools(*gpus: Gpu) -> list[str]:
    made = plan(node(sharing(), gpus, CheckpointState()), 0.0)
    assert made is not None
    return [group.uuid for pool in made.pools for group in pool.groups]


@pytest.mark.parametrize(
    "uuid", ["", "0", "17", "a,b", "a b", "a::0", "GPU-" + "a" * 52, "x-0badcafe"]
)
def test_what_no_share_id_can_hold_is_listed_with_its_reason(uuid: str) -> None:
    found = inventory(told(uuid, index=3, pci="00000000:3B:00.0"))
    assert found.gpus == ()
    (listed,) = found.unreadable
    assert listed.pci == "0000:3b:00.0"
    assert "{" not in listed.reason
    assert (listed.index, "cannot be part of a share id" in listed.reason) == (3, True)


@pytest.mark.parametrize(("written", "uuid"), UUID_SPELLINGS)
def test_a_uuid_is_known_however_it_is_written(written: str, uuid: str, tmp_path: Path) -> None:
    here = of(uuid)
    assert same_uuid(written, uuid)
    assert matches(written, here)
    assert not matches(written, OTHER)
    config = parse(
        f"[gpus]\nallow = [{json.dumps(written)}]\n"
        f"[[gpu]]\nmatch = {json.dumps(written)}\nduplication_factor = 3\n",
        "x",
    ).sharing
    assert [config.allows(each) for each in (here, OTHER)] == [True, False]
    terms = config.terms(here)
    assert terms is not None
    assert terms.factor == 3
    known = node(sharing(), [here, OTHER], CheckpointState())
    assert find(known, written) == (uuid,)
    (found,) = find(known, written)
    assert "cordoned" in verdict(cordoned(known, found, on=True), here).withheld
    made = plan(known, 0.0)
    answer = explain(written, Evidence(known, made, viewed(known, made), ()))
    assert answer.subject == "gpu"
    assert uuid in "\n".join(answer.answer)
    assert UnreadableGpu(4, "lost", uuid).is_meant(written)
    spec = {
        "cdiVersion": "0.6.0",
        "kind": KIND,
        "devices": [
            {"name": written, "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}}
        ],
    }
    (tmp_path / "etc/cdi").mkdir(parents=True)
    (tmp_path / "etc/cdi/a.json").write_text(json.dumps(spec))
    assert look(tmp_path, [here], KIND, ()).access[uuid].cdi == f"{KIND}={written}"


def test_the_beginning_of_a_uuid_names_its_gpu_in_whatever_case() -> None:
    (written, uuid), *_ = UUID_SPELLINGS
    known = node(sharing(), [of(uuid), OTHER], CheckpointState())
    made = plan(known, 0.0)
    answer = explain(written[:14], Evidence(known, made, viewed(known, made), ()))
    assert (answer.subject, uuid in answer.answer[0]) == ("gpu", True)


@pytest.mark.parametrize("index", ["0", "7", "12345678"])
def test_an_index_is_never_a_uuid(index: str) -> None:
    assert not same_uuid(index, f"GPU-{index}")
    assert not UUID.fullmatch(index)


@pytest.mark.parametrize("entry", ["gpu-1833c8b5*", "1833C8B5-9aa0-*", "GPU-????-1", "mig-1*"])
def test_a_wildcard_in_a_uuid_is_refused_in_every_spelling(entry: str) -> None:
    with pytest.raises(ConfigError, match="UUID with a wildcard"):
        parse(f'[gpus]\nallow = ["{entry}"]\n', "x")


def test_two_spellings_of_one_uuid_are_one_entry() -> None:
    (written, uuid), *_ = UUID_SPELLINGS
    text = f'[[gpu]]\nmatch = "{uuid}"\n[[gpu]]\nmatch = "{written}"\nduplication_factor = 2\n'
    (warning,) = parse(text, "x").warnings
    assert "never applies" in warning.text
    text = f'[gpus]\nallow = ["{uuid}"]\ndeny = ["{written}"]\n'
    (warning,) = parse(text, "x").warnings
    assert "deny wins" in warning.text


def test_a_mig_instance_is_named_by_its_own_uuid_and_by_its_parents() -> None:
    parent = "GPU-1833C8B5-9aa0-5382-b784-68b7e77eb186"
    part = evolve(mig(of(parent), 1), uuid="MIG-GPU-1833C8B5-9aa0-5382-b784-68b7e77eb186/1/0")
    assert matches("1833c8b5-9aa0-5382-b784-68b7e77eb186", part)
    assert matches("mig-gpu-1833c8b5-9aa0-5382-b784-68b7e77eb186/1/0", part)
    assert not matches("1833c8b5-9aa0-5382-b784-68b7e77eb186/2/0", part)
