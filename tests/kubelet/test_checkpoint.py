"""The kubelet's checkpoint: what it says of our shares, and that nothing in it can do harm."""

import base64
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sgpud.core.intset import IntSet
from sgpud.core.planning.holdings import CheckpointState, Holder
from sgpud.kubelet.api import deviceplugin_pb2 as api
from sgpud.kubelet.checkpoint import LARGEST, CheckpointError, parse, read, read_pod
from sgpud.testing.kubelet.checkpoint import PodDevices, Slot, encode
from tests.core.values import OTHER, POOL, ids, uuid
from tests.surroundings import descriptors, without_privilege

# Debian 12's protobuf takes a stray end tag for the end of the message, and only warns.
pytestmark = pytest.mark.filterwarnings("ignore:Unexpected end-group tag:RuntimeWarning")

GPU0, GPU1 = uuid(0), uuid(1)


def response(**envs: str) -> api.ContainerAllocateResponse:
    return api.ContainerAllocateResponse(envs=envs)


def as_base64(**envs: str) -> str:
    # Deterministic: it names tests, and every worker has to find the same names.
    return base64.b64encode(response(**envs).SerializeToString(deterministic=True)).decode()


def entry(**changes: object) -> dict[str, object]:
    known = {
        "PodUID": "uid-1",
        "ContainerName": "main",
        "ResourceName": POOL,
        "DeviceIDs": {"-1": ids(0, 3)},
        "AllocResp": as_base64(SGPUD_GPU_UUIDS=GPU0, SGPUD_SHARES_PER_GPU="100"),
    }
    return {key: value for key, value in {**known, **changes}.items() if value is not None}


def document(*entries: object, **data: object) -> bytes:
    content = {"PodDeviceEntries": list(entries), "RegisteredDevices": {}, **data}
    return json.dumps({"Data": content, "Checksum": 1}).encode()


def holders(*entries: object) -> tuple[Holder, ...]:
    return parse(document(*entries))[0]


# What it says. -----------------------------------------------------------------------------------


def test_an_entry_is_a_holder_with_the_terms_it_was_given() -> None:
    assert holders(entry()) == (Holder("uid-1", "main", POOL, {GPU0: IntSet.of([3])}, {GPU0: 100}),)


def test_the_stand_in_kubelets_checkpoint_can_be_read() -> None:
    found = {
        Slot("uid-1", "main", POOL): PodDevices({0: (ids(0, 1)[0],)}, response()),
        Slot("uid-2", "main", OTHER): PodDevices({-1: (ids(1, 4)[0],)}, response()),
    }
    held, registered = parse(encode(found, {POOL: ids(0, 0, 1, 2)}))
    assert held == (
        Holder("uid-1", "main", POOL, {GPU0: IntSet.of([1])}),
        Holder("uid-2", "main", OTHER, {GPU1: IntSet.of([4])}),
    )
    assert registered == {(POOL, GPU0): IntSet.span(0, 3)}


def test_ids_of_every_numa_node_count() -> None:
    by_node = {"0": ids(0, 1, 2), "1": [*ids(1, 5), *ids(0, 9)]}
    (holder,) = holders(entry(DeviceIDs=by_node))
    assert holder.shares == {GPU0: IntSet.of([1, 2, 9]), GPU1: IntSet.of([5])}


def test_the_old_form_is_a_plain_list_of_ids() -> None:
    (holder,) = holders(entry(DeviceIDs=ids(0, 1, 2)))
    assert holder.shares == {GPU0: IntSet.of([1, 2])}


@pytest.mark.parametrize("own", [*ids(0, 1), *ids(0, 999_999_999)])
def test_ids_of_other_plugins_are_ignored(own: str) -> None:
    foreign = ["nic-0", f"{GPU0}-_-3", f"{GPU0}::03", f"{GPU0}::-1", f"{GPU0}::9999999999", ""]
    (holder,) = holders(
        entry(ResourceName="example.com/nic", DeviceIDs={"0": ["eth0"]}),
        entry(DeviceIDs={"-1": [*foreign, own, None, 7, ["x"], {}]}),
    )
    assert [len(numbers) for numbers in holder.shares.values()] == [1]


def test_shares_of_nvidias_plugin_are_not_ours() -> None:
    answer = as_base64(NVIDIA_VISIBLE_DEVICES=GPU0)
    assert holders(entry(ResourceName="nvidia.com/gpu", AllocResp=answer)) == ()


def test_each_pool_of_a_container_has_its_own_terms() -> None:
    answer = as_base64(
        SGPUD_SHARED_GPU_GPU_UUIDS=f"{GPU0},{GPU1}",
        SGPUD_SHARED_GPU_SHARES_PER_GPU="100,20",
        SGPUD_SHARED_A100_GPU_UUIDS=uuid(2),
        SGPUD_SHARED_A100_SHARES_PER_GPU="7",
    )
    (holder,) = holders(entry(AllocResp=answer))
    assert holder.per_gpu == {GPU0: 100, GPU1: 20, uuid(2): 7}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "",
        "not base64!",
        "ÿ",
        "AAAA",
        base64.b64encode(b"\x0a\xff\xff").decode(),
        12,
        as_base64(SGPUD_GPU_UUIDS=GPU0),
        as_base64(SGPUD_GPU_UUIDS=GPU0, SGPUD_SHARES_PER_GPU=""),
        as_base64(SGPUD_GPU_UUIDS=GPU0, SGPUD_SHARES_PER_GPU="0"),
        as_base64(SGPUD_GPU_UUIDS=GPU0, SGPUD_SHARES_PER_GPU="-5"),
        as_base64(SGPUD_GPU_UUIDS=GPU0, SGPUD_SHARES_PER_GPU="٣"),
        as_base64(SGPUD_GPU_UUIDS=GPU0, SGPUD_SHARES_PER_GPU="9" * 5000),
    ],
)
def test_shares_without_terms_are_held(answer: object) -> None:
    (holder,) = holders(entry(AllocResp=answer))
    assert holder.shares == {GPU0: IntSet.of([3])}
    assert holder.per_gpu == {}


def test_unknown_keys_are_ignored() -> None:
    more = entry(Weight=10**400, Nested={"a": [[[]]]})
    known = parse(document(more, Later={"x": 1}))
    assert known == parse(document(entry()))


def test_an_entry_without_pod_or_container_still_holds() -> None:
    (holder,) = holders(entry(PodUID=None, ContainerName=4))
    assert (holder.pod, holder.container) == ("", "")


@pytest.mark.parametrize(
    "broken",
    [
        None,
        3,
        [],
        "text",
        {},
        entry(DeviceIDs=None),
        entry(DeviceIDs=GPU0),
        entry(DeviceIDs={"0": GPU0, "1": None, "2": 5}),
        entry(ResourceName=None),
        entry(ResourceName=["a"]),
        entry(ResourceName=""),
        entry(ResourceName="no-domain"),
        entry(ResourceName="example.com/a\nb"),
        entry(ResourceName="example.com/\ud800"),
    ],
)
def test_a_foreign_entry_does_not_hide_others(broken: object) -> None:
    assert holders(broken, entry(), broken) == holders(entry())


def test_registered_ids_are_read_only_on_request() -> None:
    known = {POOL: [*ids(0, 0, 1), "eth0", 5], "example.com/nic": ["eth0"], OTHER: 4}
    text = document(entry(), RegisteredDevices=known)
    assert parse(text)[1] == {(POOL, GPU0): IntSet.of([0, 1])}
    assert parse(text, registered=False) == (holders(entry()), {})


def test_an_invalid_resource_name_gives_no_pool() -> None:
    text = document(RegisteredDevices={"": ids(0, 1), "\udcff/x": ids(0, 1), "a/b/c": ids(0, 1)})
    assert parse(text) == ((), {})


def test_a_kubelet_without_allocations_writes_null() -> None:
    text = document(PodDeviceEntries=None, RegisteredDevices=None)
    assert parse(text) == ((), {})


# What it may be instead. -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b'{"Data": {', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"Data":' * 50_000, "not JSON"),
        (b"null", '"Data"'),
        (b"[]", '"Data"'),
        (b'{"Data": []}', '"Data"'),
        (b'{"data": {}}', '"Data"'),
    ],
)
def test_an_invalid_checkpoint_is_an_error(text: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse(text)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([POOL, *ids(0, 1), GPU0, "Data", "AAAA", as_base64(SGPUD_GPU_UUIDS=GPU0)])
)
names = st.text(max_size=4) | st.sampled_from(
    ["PodUID", "ContainerName", "ResourceName", "DeviceIDs", "AllocResp", "-1", POOL]
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4)
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "PodUID": values,
        "ContainerName": values,
        "ResourceName": st.just(POOL) | values,
        "DeviceIDs": st.dictionaries(st.text(max_size=2), values, max_size=3) | values,
        "AllocResp": st.binary(max_size=40).map(lambda raw: base64.b64encode(raw).decode())
        | values,
    },
)
data = st.fixed_dictionaries(
    {},
    optional={
        "PodDeviceEntries": st.lists(entries | values, max_size=4) | values,
        "RegisteredDevices": st.dictionaries(names, values, max_size=4) | values,
    },
)


def is_understood(text: bytes) -> bool:
    """A value of the promised types, or ValueError; every other exception fails the test."""
    try:
        found, registered = parse(text)
    except ValueError:
        return False
    for holder in found:
        assert all(numbers for numbers in holder.shares.values())
        holder.resource.encode()
    assert all(isinstance(numbers, IntSet) for numbers in registered.values())
    return True


@given(values)
@example({"Data": {"RegisteredDevices": {"\ud800": ids(0, 1)}}})
def test_any_json_is_read_or_refused(value: Any) -> None:
    is_understood(json.dumps(value).encode())


@given(data)
def test_any_data_in_the_right_place_is_read(value: Any) -> None:
    assert is_understood(json.dumps({"Data": value}).encode())


@given(st.binary())
@example(b'{"Data": {"PodDeviceEntries": [' + b"1" * 5000 + b"]}}")
@example(b'{"Data": {"PodDeviceEntries": [1e999, NaN, -0.0]}}')
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    is_understood(text)


@given(st.integers(0, 2000), st.binary(max_size=3))
def test_a_damaged_checkpoint_is_read_or_refused(at: int, instead: bytes) -> None:
    whole = document(entry(), entry(ResourceName=OTHER, DeviceIDs=ids(1, 1)))
    is_understood(whole[: at % len(whole)] + instead + whole[at % len(whole) + len(instead) :])


# The file. ---------------------------------------------------------------------------------------


def test_without_a_file_there_are_no_holders(tmp_path: Path) -> None:
    assert read(tmp_path / "absent") == CheckpointState()
    assert read(tmp_path / "no" / "such" / "folder") == CheckpointState()


def test_the_time_of_the_checkpoint_is_read(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint"
    file.write_bytes(document(entry(), RegisteredDevices={POOL: ids(0, 7)}))
    os.utime(file, (1, 1234.5))
    assert read(file) == CheckpointState(holders(entry()), 1234.5)
    assert read(file, registered=True).registered == {(POOL, GPU0): IntSet.of([7])}


def test_an_invalid_checkpoint_is_reported_with_path_and_problem(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint"
    file.write_bytes(b"{")
    with pytest.raises(CheckpointError, match="not JSON") as caught:
        read(file)
    assert caught.value.path == file
    assert str(caught.value).startswith(f"{file}: not JSON")


def test_a_directory_instead_of_the_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"directory|ordinary"):
        read(tmp_path)


@pytest.mark.timeout(20)
def test_a_pipe_instead_of_the_checkpoint_does_not_block(tmp_path: Path) -> None:
    pipe = tmp_path / "checkpoint"
    os.mkfifo(pipe)
    with pytest.raises(CheckpointError, match="not a regular file"):
        read(pipe)


def test_an_oversized_checkpoint_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint"
    with file.open("wb") as whole:
        whole.truncate(LARGEST + 1)
    with pytest.raises(CheckpointError, match="larger than 268435456 bytes"):
        read(file)


def test_a_symbolic_link_loop_is_an_error(tmp_path: Path) -> None:
    link = tmp_path / "checkpoint"
    link.symlink_to(link)
    with pytest.raises(CheckpointError, match="symbolic link"):
        read(link)


def test_an_unreadable_checkpoint_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint"
    file.write_bytes(document())
    file.chmod(0)
    with without_privilege(), pytest.raises(CheckpointError, match="denied"):
        read(file)


def test_reading_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = descriptors()
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "absent"):
        with suppress(CheckpointError):
            read(path)
    assert descriptors() <= before


def test_the_pod_of_a_container_with_exactly_these_shares_is_read(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint"

    def of(pod: str, container: str, *numbers: int, resource: str = POOL) -> object:
        return {
            "PodUID": pod,
            "ContainerName": container,
            "ResourceName": resource,
            "DeviceIDs": {"-1": [f"{uuid(0)}::{number}" for number in numbers]},
            "AllocResp": "",
        }

    def found(*numbers: int, resource: str = POOL) -> list[str]:
        held = {uuid(0): IntSet.of(numbers)}
        return [one.container for one in read_pod(file, resource, held)]

    assert read_pod(file, POOL, {}) == ()
    entries = [of("a", "main", 0, 1), of("a", "more", 2), of("b", "other", 3)]
    entries += [of("c", "twin", 4), of("d", "twin", 4), "garbage"]
    file.write_text(json.dumps({"Data": {"PodDeviceEntries": entries}}))
    assert found(0, 1) == ["main", "more"]
    assert found(3) == ["other"]
    assert (found(0), found(0, 1, resource=OTHER)) == ([], [])
    assert found(4) == [], "whose it is is not certain"
    file.write_text("{")
    with pytest.raises(CheckpointError):
        found(0)
