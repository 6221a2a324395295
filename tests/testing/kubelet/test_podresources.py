"""The stand-in kubelet's podresources server and its faults."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from sgpud.kubelet.api import podresources_pb2 as api
from sgpud.testing.kubelet.podresources import PodResourcesFault
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.testing.kubelet.scripted import RESOURCE, ScriptedPlugin


class Client:
    """A podresources client."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel

    def call(self, method: str, request: Any, answer: Any, timeout: float = 5) -> Any:
        call = self.channel.unary_unary(
            f"/v1.PodResourcesLister/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return call(request, timeout=timeout, wait_for_ready=True)

    def list(self, timeout: float = 5) -> api.ListPodResourcesResponse:
        request, answer = api.ListPodResourcesRequest(), api.ListPodResourcesResponse
        response = self.call("List", request, answer, timeout)
        assert isinstance(response, answer)
        return response

    def status(self, timeout: float = 5) -> grpc.StatusCode:
        try:
            self.list(timeout)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


@pytest.fixture
def client(kubelet: StandInKubelet, plugin: ScriptedPlugin) -> Iterator[Client]:
    """A client of a kubelet whose plugin has listed three ids, one of them unhealthy."""
    plugin.send({"a": True, "b": True, "c": False}, numa=1)
    plugin.register()
    kubelet.next_devices(RESOURCE, 5)
    with grpc.insecure_channel(f"unix:{kubelet.pod_resources.path}") as channel:
        yield Client(channel)


def test_list_names_pods_and_their_ids_without_ordinary_init_containers(
    kubelet: StandInKubelet, client: Client
) -> None:
    kubelet.admit("uid", "space", "pod", "init", {RESOURCE: 1}, init=True)
    container = kubelet.admit("uid", "space", "pod", "main", {RESOURCE: 2})
    (pod,) = client.list().pod_resources
    assert (pod.name, pod.namespace) == ("pod", "space")
    (one,) = pod.containers
    assert one.name == "main"
    assert [list(devices.device_ids) for devices in one.devices] == [
        [i] for i in container.ids[RESOURCE]
    ]
    assert {devices.resource_name for devices in one.devices} == {RESOURCE}
    assert {devices.topology.nodes[0].ID for devices in one.devices} == {1}


def test_list_frees_what_finished_pods_hold_and_leaves_the_checkpoint(
    kubelet: StandInKubelet, client: Client
) -> None:
    kubelet.admit("uid", "space", "pod", "main", {RESOURCE: 1})
    kubelet.terminate("uid")
    assert list(client.list().pod_resources) == []
    assert kubelet.in_use(RESOURCE) == set()
    assert len(kubelet.checkpoint.read()[0]) == 1


def test_get_finds_one_pod(kubelet: StandInKubelet, client: Client) -> None:
    kubelet.admit("uid", "space", "pod", "main", {RESOURCE: 1})
    request = api.GetPodResourcesRequest(pod_name="pod", pod_namespace="space")
    found = client.call("Get", request, api.GetPodResourcesResponse)
    assert found.pod_resources.containers[0].name == "main"


def test_get_of_an_unknown_pod_is_an_error(client: Client) -> None:
    request = api.GetPodResourcesRequest(pod_name="pod", pod_namespace="nowhere")
    with pytest.raises(grpc.RpcError) as caught:
        client.call("Get", request, api.GetPodResourcesResponse)
    assert caught.value.details() == "no such pod: nowhere/pod"


def test_allocatable_resources_are_the_healthy_ids(client: Client) -> None:
    request, answer = api.AllocatableResourcesRequest(), api.AllocatableResourcesResponse
    devices = client.call("GetAllocatableResources", request, answer).devices
    assert sorted(i for one in devices for i in one.device_ids) == ["a", "b"]


def test_the_rate_is_limited(directory: Any, tmp_path: Any) -> None:
    now = [0.0]
    path = tmp_path / "pods.sock"
    with (
        StandInKubelet(directory, path, clock=lambda: now[0]),
        grpc.insecure_channel(f"unix:{path}") as channel,
    ):
        client = Client(channel)
        assert [client.status() for _ in range(11)] == [
            *[grpc.StatusCode.OK] * 10,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        ]
        now[0] = 0.01
        assert client.status() is grpc.StatusCode.OK


def test_it_serves_again_after_a_restart(kubelet: StandInKubelet, client: Client) -> None:
    kubelet.restart()
    assert client.status() is grpc.StatusCode.OK


def test_it_is_gone_with_the_kubelet(kubelet: StandInKubelet) -> None:
    path = kubelet.pod_resources.path
    assert path is not None
    kubelet.stop()
    assert not path.exists()


def test_an_absent_podresources_has_no_socket_until_restored(
    kubelet: StandInKubelet, client: Client
) -> None:
    path = kubelet.pod_resources.path
    assert path is not None
    kubelet.pod_resources.set_fault(PodResourcesFault.ABSENT)
    assert not path.exists()
    kubelet.restart()
    assert not path.exists()
    kubelet.pod_resources.set_fault(None)
    assert client.status() is grpc.StatusCode.OK


def test_a_hanging_podresources_answers_nothing_until_restored(
    kubelet: StandInKubelet, client: Client
) -> None:
    kubelet.pod_resources.set_fault(PodResourcesFault.HANGING)
    assert client.status(0.1) is grpc.StatusCode.DEADLINE_EXCEEDED
    kubelet.pod_resources.set_fault(None)
    assert client.status() is grpc.StatusCode.OK


def test_a_hanging_call_does_not_keep_the_kubelet_from_stopping(
    kubelet: StandInKubelet, client: Client
) -> None:
    kubelet.pod_resources.set_fault(PodResourcesFault.HANGING)
    assert client.status(0.1) is grpc.StatusCode.DEADLINE_EXCEEDED
    kubelet.stop()
    assert not kubelet.running


def test_garbage_is_not_a_message(kubelet: StandInKubelet, client: Client) -> None:
    kubelet.pod_resources.set_fault(PodResourcesFault.GARBAGE)
    assert client.status() is grpc.StatusCode.INTERNAL


def test_a_failing_podresources_answers_with_errors(
    kubelet: StandInKubelet, client: Client
) -> None:
    kubelet.pod_resources.set_fault(PodResourcesFault.FAILING)
    assert client.status() is grpc.StatusCode.INTERNAL


def test_without_a_path_there_is_no_podresources(directory: Any) -> None:
    with StandInKubelet(directory) as kubelet:
        assert kubelet.pod_resources.path is None
