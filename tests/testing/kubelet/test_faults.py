"""The faults of the stand-in kubelet, each on request."""

import concurrent.futures
from collections.abc import Iterator

import grpc
import pytest

from sgpud.kubelet.api import deviceplugin_pb2 as api
from sgpud.testing.kubelet.faults import Gate
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.testing.kubelet.scripted import RESOURCE, ScriptedPlugin


@pytest.fixture
def pool() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    """Threads to register in while something hangs."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        yield pool


def register(kubelet: StandInKubelet, plugin: ScriptedPlugin) -> None:
    plugin.send({"a": True})
    plugin.register()
    kubelet.next_registration(5)
    kubelet.next_devices(RESOURCE, 5)


def code_of(plugin: ScriptedPlugin) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        plugin.register()
    return caught.value.code()


def test_register_is_refused_as_often_as_asked(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    kubelet.faults.refuse(2, grpc.StatusCode.UNAVAILABLE, "not now")
    assert [code_of(plugin) for _ in "12"] == [grpc.StatusCode.UNAVAILABLE] * 2
    register(kubelet, plugin)
    assert len(kubelet.attempts) == 3


def test_a_kubelet_of_another_version_says_so(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    kubelet.faults.wrong_version()
    with pytest.raises(grpc.RpcError, match="v1beta2"):
        plugin.register()


def test_register_hangs_before_the_dial_until_released(
    kubelet: StandInKubelet,
    plugin: ScriptedPlugin,
    pool: concurrent.futures.ThreadPoolExecutor,
) -> None:
    gate = kubelet.faults.hang()
    call = pool.submit(plugin.register)
    gate.wait_reached(5)
    assert not kubelet.registered(RESOURCE)
    assert not call.done()
    gate.release()
    call.result(5)
    assert kubelet.registered(RESOURCE)


def test_the_answer_hangs_while_the_stream_is_open_already(
    kubelet: StandInKubelet,
    plugin: ScriptedPlugin,
    pool: concurrent.futures.ThreadPoolExecutor,
) -> None:
    gate = kubelet.faults.hang_answer()
    plugin.send({"a": True})
    call = pool.submit(plugin.register)
    kubelet.next_devices(RESOURCE, 5)
    assert not call.done()
    gate.release()
    call.result(5)


@pytest.mark.parametrize("where", ["hang", "hang_answer"])
def test_a_restart_in_the_middle_of_register_ends_the_call(
    kubelet: StandInKubelet,
    plugin: ScriptedPlugin,
    pool: concurrent.futures.ThreadPoolExecutor,
    where: str,
) -> None:
    gate: Gate = getattr(kubelet.faults, where)()
    call = pool.submit(plugin.register)
    gate.wait_reached(5)
    kubelet.restart()
    with pytest.raises(grpc.RpcError):
        call.result(5)
    assert not kubelet.registered(RESOURCE)


def test_a_hang_asked_for_before_a_restart_is_for_the_next_life(
    kubelet: StandInKubelet,
    plugin: ScriptedPlugin,
    pool: concurrent.futures.ThreadPoolExecutor,
) -> None:
    gate = kubelet.faults.hang()
    kubelet.restart()
    call = pool.submit(plugin.register)
    gate.wait_reached(5)
    kubelet.stop()
    with pytest.raises(grpc.RpcError):
        call.result(5)


def test_a_gate_without_arrivals_times_out() -> None:
    with pytest.raises(TimeoutError, match="nothing arrived"):
        Gate().wait_reached(0.01)


def test_registered_without_a_stream(kubelet: StandInKubelet, plugin: ScriptedPlugin) -> None:
    kubelet.faults.never_follow()
    plugin.send({"a": True})
    plugin.register()
    kubelet.next_registration(5)
    with pytest.raises(TimeoutError):
        kubelet.next_devices(RESOURCE, 0.1)
    register(kubelet, plugin)


def test_a_dropped_connection_ends_the_stream(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    register(kubelet, plugin)
    kubelet.drop(RESOURCE)
    assert plugin.stream_ended.wait(5)
    assert (kubelet.capacity(RESOURCE), kubelet.allocatable(RESOURCE)) == (1, 0)
    kubelet.drop(RESOURCE)


def test_more_streams_of_one_plugin(kubelet: StandInKubelet, plugin: ScriptedPlugin) -> None:
    register(kubelet, plugin)
    streams = [kubelet.plugin(RESOURCE).open_stream() for _ in range(3)]
    for stream in streams:
        assert b"Healthy" in stream.next(5)
    streams[0].cancel()
    assert streams[0].wait_ended(5)[0] is grpc.StatusCode.CANCELLED
    with pytest.raises(TimeoutError):
        streams[1].wait_ended(0.01)
    with pytest.raises(TimeoutError):
        streams[1].next(0.01)
    assert len(kubelet.lists(RESOURCE)) == 1
    plugin.end_streams()
    ends = {stream.wait_ended(5)[0] for stream in streams[1:]}
    # The plugin ends them; the kubelet closes the connection when the first of all has ended.
    assert ends <= {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED}


def test_a_slow_reader_leaves_messages_lying(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    register(kubelet, plugin)
    reading = kubelet.plugin(RESOURCE).reading
    reading.clear()
    plugin.send({"b": True})
    kubelet.next_devices(RESOURCE, 5)
    plugin.send({"c": True})
    with pytest.raises(TimeoutError):
        kubelet.next_devices(RESOURCE, 0.1)
    reading.set()
    assert set(kubelet.next_devices(RESOURCE, 5).devices) == {"c"}


def test_a_slow_reader_does_not_keep_the_kubelet_from_stopping(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    register(kubelet, plugin)
    kubelet.plugin(RESOURCE).reading.clear()
    kubelet.stop()
    assert plugin.stream_ended.wait(5)


def test_garbage_and_messages_are_sent_as_they_are(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    register(kubelet, plugin)
    client = kubelet.plugin(RESOURCE)
    assert client.send("Allocate", b"\xff\xff", 5)[0] is not grpc.StatusCode.OK
    assert client.send("NoSuchMethod", b"", 5)[0] is grpc.StatusCode.UNIMPLEMENTED
    request = api.AllocateRequest(container_requests=[api.ContainerAllocateRequest()])
    code, answer = client.send("Allocate", request.SerializeToString(), 5)
    assert code is grpc.StatusCode.OK
    assert len(api.AllocateResponse.FromString(answer).container_responses) == 1
    stream = client.open_stream(b"\xff\xff")
    assert stream.wait_ended(5)[0] is not grpc.StatusCode.OK


def test_kubelet_sock_is_touched(kubelet: StandInKubelet) -> None:
    before = kubelet.socket.stat()
    kubelet.disk.touch_socket()
    touched = kubelet.socket.stat()
    kubelet.disk.chmod_socket(0o600)
    changed = kubelet.socket.stat()
    assert before.st_ino == touched.st_ino == changed.st_ino
    assert before.st_ctime_ns < touched.st_ctime_ns <= changed.st_ctime_ns
    assert changed.st_mode & 0o777 == 0o600


def test_the_plugin_s_socket_is_deleted_and_its_stream_lives(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    register(kubelet, plugin)
    kubelet.disk.delete_endpoint("a.sock")
    plugin.send({"b": True})
    assert set(kubelet.next_devices(RESOURCE, 5).devices) == {"b"}


def test_the_directory_is_replaced_and_only_a_restart_makes_kubelet_sock_there(
    kubelet: StandInKubelet,
) -> None:
    old = kubelet.disk.replace()
    assert (old / "kubelet.sock").is_socket()
    assert list(kubelet.plugin_dir.iterdir()) == []
    kubelet.restart()
    assert kubelet.socket.is_socket()


def test_the_directory_is_removed_and_made_again(kubelet: StandInKubelet) -> None:
    kubelet.disk.remove()
    assert not kubelet.plugin_dir.exists()
    kubelet.disk.make()
    assert list(kubelet.plugin_dir.iterdir()) == []
