"""The committed messages are what the .proto files compile to, and speak the kubelet's bytes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from sgpud.kubelet.api import (
    deviceplugin_pb2,
    dra_pb2,
    drahealth_pb2,
    pluginregistration_pb2,
    podresources_pb2,
)

ROOT = Path(deviceplugin_pb2.__file__).parents[3]
COMMITTED: list[FileDescriptor] = [
    module.DESCRIPTOR
    for module in (
        deviceplugin_pb2,
        dra_pb2,
        drahealth_pb2,
        pluginregistration_pb2,
        podresources_pb2,
    )
]


def without_json_names(serialized: bytes) -> FileDescriptorProto:
    """A descriptor without the JSON names, which a generated module leaves out."""
    file = FileDescriptorProto.FromString(serialized)
    messages = list(file.message_type)
    while messages:
        message = messages.pop()
        messages += message.nested_type
        for field in message.field:
            field.ClearField("json_name")
    return file


@pytest.mark.parametrize("committed", COMMITTED, ids=lambda one: Path(one.name).stem)
def test_committed_messages_are_what_the_proto_compiles_to(
    committed: FileDescriptor, need_tool: Callable[[str], str], tmp_path: Path
) -> None:
    out = tmp_path / "descriptors"
    subprocess.run(
        [need_tool("protoc"), f"-I{ROOT}", f"--descriptor_set_out={out}", committed.name],
        check=True,
        cwd=ROOT,
        timeout=60,
    )
    (compiled,) = FileDescriptorSet.FromString(out.read_bytes()).file
    expected = without_json_names(compiled.SerializeToString())
    assert without_json_names(committed.serialized_pb) == expected


@pytest.mark.slow
def test_importing_the_messages_gives_no_warning() -> None:
    names = ", ".join(Path(one.name).stem + "_pb2" for one in COMMITTED)
    code = f"from sgpud.kubelet.api import {names}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_device_with_topology_has_the_kubelet_s_bytes() -> None:
    device = deviceplugin_pb2.Device(
        ID="a",
        health="Healthy",
        topology=deviceplugin_pb2.TopologyInfo(nodes=[deviceplugin_pb2.NUMANode(ID=1)]),
    )
    assert device.SerializeToString() == b"\x0a\x01a\x12\x07Healthy\x1a\x04\x0a\x02\x08\x01"


def test_an_allocate_answer_has_the_kubelet_s_bytes() -> None:
    answer = deviceplugin_pb2.ContainerAllocateResponse(
        envs={"E": "1"},
        mounts=[deviceplugin_pb2.Mount(container_path="c", host_path="h", read_only=True)],
        devices=[deviceplugin_pb2.DeviceSpec(container_path="c", host_path="h", permissions="mrw")],
        annotations={"A": "2"},
        cdi_devices=[deviceplugin_pb2.CDIDevice(name="v/c=n")],
    )
    assert answer.SerializeToString() == (
        b"\x0a\x06\x0a\x01E\x12\x011"
        b"\x12\x08\x0a\x01c\x12\x01h\x18\x01"
        b"\x1a\x0b\x0a\x01c\x12\x01h\x1a\x03mrw"
        b"\x22\x06\x0a\x01A\x12\x012"
        b"\x2a\x07\x0a\x05v/c=n"
    )


def test_a_preferred_allocation_request_has_the_kubelet_s_bytes() -> None:
    request = deviceplugin_pb2.ContainerPreferredAllocationRequest(
        available_deviceIDs=["a", "b"], must_include_deviceIDs=["a"], allocation_size=2
    )
    assert request.SerializeToString() == b"\x0a\x01a\x0a\x01b\x12\x01a\x18\x02"


def test_a_register_request_has_the_kubelet_s_bytes() -> None:
    request = deviceplugin_pb2.RegisterRequest(
        version="v1beta1",
        endpoint="e",
        resource_name="d/n",
        options=deviceplugin_pb2.DevicePluginOptions(
            pre_start_required=True, get_preferred_allocation_available=True
        ),
    )
    assert request.SerializeToString() == (
        b"\x0a\x07v1beta1\x12\x01e\x1a\x03d/n\x22\x04\x08\x01\x10\x01"
    )


def test_pod_resources_have_the_kubelet_s_bytes() -> None:
    pod = podresources_pb2.PodResources(
        name="p",
        namespace="n",
        containers=[
            podresources_pb2.ContainerResources(
                name="c",
                devices=[podresources_pb2.ContainerDevices(resource_name="d/n", device_ids=["a"])],
            )
        ],
    )
    assert pod.SerializeToString() == (
        b"\x0a\x01p\x12\x01n\x1a\x0d\x0a\x01c\x12\x08\x0a\x03d/n\x12\x01a"
    )
