"""The stand-in kubelet's checkpoint file: its shape, its moments, its faults."""

import base64
import json
import stat

import pytest

from sgpud.kubelet.api import deviceplugin_pb2 as api
from sgpud.testing.kubelet.checkpoint import NAME, CheckpointFault, PodDevices, Slot, decode, encode
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.testing.kubelet.scripted import RESOURCE, ScriptedPlugin

SLOT = Slot("uid", "main", RESOURCE)
ALLOCATION = PodDevices(
    {0: ("a",), -1: ("b",)}, api.ContainerAllocateResponse(envs={"NAME": "value"})
)


def listed(kubelet: StandInKubelet, plugin: ScriptedPlugin) -> None:
    plugin.send({"a": True, "b": False}, numa=0)
    if not kubelet.registered(RESOURCE):
        plugin.register()
        kubelet.next_registration(5)
    kubelet.next_devices(RESOURCE, 5)


def on_disk(kubelet: StandInKubelet) -> bytes:
    return (kubelet.plugin_dir / NAME).read_bytes()


def test_the_shape_is_the_kubelet_s() -> None:
    document = json.loads(encode({SLOT: ALLOCATION}, {RESOURCE: {"b", "a"}}))
    assert isinstance(document.pop("Checksum"), int)
    assert document == {
        "Data": {
            "PodDeviceEntries": [
                {
                    "PodUID": "uid",
                    "ContainerName": "main",
                    "ResourceName": RESOURCE,
                    "DeviceIDs": {"0": ["a"], "-1": ["b"]},
                    "AllocResp": base64.b64encode(ALLOCATION.response.SerializeToString()).decode(),
                }
            ],
            "RegisteredDevices": {RESOURCE: ["a", "b"]},
        }
    }


def test_no_entry_is_null() -> None:
    assert json.loads(encode({}, {}))["Data"]["PodDeviceEntries"] is None


def test_a_written_checkpoint_is_read_back() -> None:
    data = encode({SLOT: ALLOCATION}, {RESOURCE: ["a"]})
    assert decode(data) == ({SLOT: ALLOCATION}, {RESOURCE: ["a"]})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b'{"Data":{}}',
        encode({SLOT: ALLOCATION}, {}).replace(b'"uid"', b'"iud"'),
        encode({}, {})[:-1],
    ],
)
def test_an_invalid_checkpoint_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(data)


def test_a_list_message_writes_the_healthy_ids(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    listed(kubelet, plugin)
    assert decode(on_disk(kubelet)) == ({}, {RESOURCE: ["a"]})
    assert stat.S_IMODE((kubelet.plugin_dir / NAME).stat().st_mode) == 0o600


def test_an_allocation_is_written_under_its_numa_node(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    listed(kubelet, plugin)
    container = kubelet.admit("uid", "default", "pod", "main", {RESOURCE: 1})
    allocations, _ = decode(on_disk(kubelet))
    assert allocations == {SLOT: PodDevices({0: ("a",)}, container.responses[RESOURCE])}


def test_a_finished_pod_leaves_the_file_late(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    listed(kubelet, plugin)
    kubelet.admit("1", "default", "first", "main", {RESOURCE: 1})
    kubelet.terminate("1")
    listed(kubelet, plugin)
    assert {slot.pod_uid for slot in decode(on_disk(kubelet))[0]} == {"1"}
    kubelet.admit("2", "default", "second", "main", {RESOURCE: 1})
    assert {slot.pod_uid for slot in decode(on_disk(kubelet))[0]} == {"2"}


def test_another_kubelet_on_that_directory_reads_it(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    listed(kubelet, plugin)
    kubelet.admit("uid", "default", "pod", "main", {RESOURCE: 1})
    kubelet.stop()
    with StandInKubelet(kubelet.plugin_dir) as other:
        assert other.in_use(RESOURCE) == {"a"}
        assert (other.capacity(RESOURCE), other.allocatable(RESOURCE)) == (0, 0)


@pytest.mark.parametrize(
    "fault", [CheckpointFault.ABSENT, CheckpointFault.CORRUPT, CheckpointFault.OTHER_SHAPE]
)
def test_a_restart_with_an_invalid_file_has_no_allocations(
    kubelet: StandInKubelet, plugin: ScriptedPlugin, fault: CheckpointFault
) -> None:
    kubelet.checkpoint.fault = fault
    listed(kubelet, plugin)
    kubelet.admit("uid", "default", "pod", "main", {RESOURCE: 1})
    kubelet.restart()
    assert kubelet.in_use(RESOURCE) == set()


def test_an_absent_file_is_not_there(kubelet: StandInKubelet, plugin: ScriptedPlugin) -> None:
    listed(kubelet, plugin)
    kubelet.checkpoint.fault = CheckpointFault.ABSENT
    listed(kubelet, plugin)
    assert not kubelet.checkpoint.path.exists()


def test_a_corrupt_file_is_not_json(kubelet: StandInKubelet, plugin: ScriptedPlugin) -> None:
    kubelet.checkpoint.fault = CheckpointFault.CORRUPT
    listed(kubelet, plugin)
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(on_disk(kubelet))


def test_another_shape_has_flat_lists(kubelet: StandInKubelet, plugin: ScriptedPlugin) -> None:
    kubelet.checkpoint.fault = CheckpointFault.OTHER_SHAPE
    listed(kubelet, plugin)
    kubelet.admit("uid", "default", "pod", "main", {RESOURCE: 1})
    (entry,) = json.loads(on_disk(kubelet))["Data"]["PodDeviceEntries"]
    assert entry["DeviceIDs"] == ["a"]


def test_a_stale_file_stays_as_it_is(kubelet: StandInKubelet, plugin: ScriptedPlugin) -> None:
    listed(kubelet, plugin)
    before = on_disk(kubelet)
    kubelet.checkpoint.fault = CheckpointFault.STALE
    kubelet.admit("uid", "default", "pod", "main", {RESOURCE: 1})
    assert on_disk(kubelet) == before


def test_a_test_may_put_any_bytes_there(kubelet: StandInKubelet) -> None:
    kubelet.checkpoint.replace(b"anything")
    assert on_disk(kubelet) == b"anything"
