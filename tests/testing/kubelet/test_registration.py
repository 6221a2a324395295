"""Registration, list streams and lives of the stand-in kubelet, as the real one's."""

import socket
import stat
from pathlib import Path

import grpc
import pytest

from sgpud.testing.kubelet.registry import valid_resource
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.testing.kubelet.scripted import RESOURCE, ScriptedPlugin

TWO = {"a": True, "b": False}


def registered(kubelet: StandInKubelet, plugin: ScriptedPlugin) -> None:
    plugin.send(TWO)
    plugin.register()
    kubelet.next_registration(5)
    kubelet.next_devices(RESOURCE, 5)


def refused(
    plugin: ScriptedPlugin, *, version: str = "v1beta1", resource: str = RESOURCE
) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        plugin.register(version=version, resource=resource)
    return caught.value


def test_start_makes_the_directory_private_and_wipes_sockets_only(directory: Path) -> None:
    directory.mkdir()
    (directory / "file").write_text("stays")
    (directory / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(directory / "stale.sock"))
    with StandInKubelet(directory):
        assert sorted(path.name for path in directory.iterdir()) == [
            "file",
            "folder",
            "kubelet.sock",
        ]


def test_start_makes_a_missing_directory_that_others_cannot_enter(directory: Path) -> None:
    with StandInKubelet(directory):
        assert stat.S_IMODE(directory.stat().st_mode) & 0o027 == 0


def test_a_registration_dials_back_and_reads_the_list(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    plugin.options.get_preferred_allocation_available = True
    plugin.send(TWO, numa=1)
    plugin.register()
    registration = kubelet.next_registration(5)
    message = kubelet.next_devices(RESOURCE, 5)
    assert kubelet.registrations == [registration]
    assert (registration.resource, registration.endpoint) == (RESOURCE, "a.sock")
    assert (registration.preferred, registration.pre_start) == (True, False)
    assert kubelet.devices(RESOURCE) == {"a": ("Healthy", 1), "b": ("Unhealthy", 1)}
    assert (set(message.healthy), set(message.unhealthy)) == ({"a"}, {"b"})
    assert (kubelet.capacity(RESOURCE), kubelet.allocatable(RESOURCE)) == (2, 1)
    assert message.at >= registration.at


def test_the_options_come_from_the_call_before_register_returns(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    plugin.options.pre_start_required = True
    plugin.register()
    assert kubelet.registered(RESOURCE)
    assert kubelet.next_registration(5).pre_start


def test_each_message_replaces_the_whole_list(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    registered(kubelet, plugin)
    plugin.send({"c": True})
    kubelet.next_devices(RESOURCE, 5)
    assert kubelet.devices(RESOURCE) == {"c": ("Healthy", None)}
    assert [set(one.devices) for one in kubelet.lists(RESOURCE)] == [{"a", "b"}, {"c"}]


def test_another_version_is_refused(kubelet: StandInKubelet, plugin: ScriptedPlugin) -> None:
    error = refused(plugin, version="v1beta2")
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert "v1beta1" in (error.details() or "")
    assert [one.version for one in kubelet.attempts] == ["v1beta2"]


def test_a_name_that_is_not_an_extended_resource_is_refused(plugin: ScriptedPlugin) -> None:
    assert "kubernetes.io/gpu" in (refused(plugin, resource="kubernetes.io/gpu").details() or "")


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("deepomatic.com/shared-gpu", True),
        ("a/b", True),
        ("example.com/A_b.c", True),
        ("gpu", False),
        ("x.kubernetes.io/gpu", False),
        ("requests.example.com/gpu", False),
        ("Example.com/gpu", False),
        ("example.com/", False),
        ("example.com/-gpu", False),
        (f"example.com/{'x' * 64}", False),
        (f"{'x.' * 122}x/gpu", False),
    ],
)
def test_resource_names(name: str, *, valid: bool) -> None:
    assert valid_resource(name) is valid


def test_an_endpoint_without_a_server_is_refused_after_the_dial_timeout(directory: Path) -> None:
    with (
        StandInKubelet(directory, dial_timeout=0.2) as kubelet,
        ScriptedPlugin(directory) as plugin,
    ):
        plugin.endpoint = "nobody.sock"
        assert "nobody.sock" in (refused(plugin).details() or "")
        assert not kubelet.registered(RESOURCE)


def test_the_end_of_a_stream_makes_everything_unhealthy_at_once(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    registered(kubelet, plugin)
    plugin.end_streams()
    kubelet.wait_for(lambda k: not k.registered(RESOURCE), 5)
    assert (kubelet.capacity(RESOURCE), kubelet.allocatable(RESOURCE)) == (2, 0)


def test_a_resource_without_a_plugin_is_forgotten_after_the_grace_time(directory: Path) -> None:
    now = [0.0]
    with (
        StandInKubelet(directory, clock=lambda: now[0]) as kubelet,
        ScriptedPlugin(directory) as plugin,
    ):
        registered(kubelet, plugin)
        kubelet.drop(RESOURCE)
        now[0] = 299.0
        assert kubelet.capacity(RESOURCE) == 2
        now[0] = 300.0
        assert kubelet.capacity(RESOURCE) == 0


def test_a_list_beyond_4_mib_ends_the_stream(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    registered(kubelet, plugin)
    plugin.send({f"{i:060}": True for i in range(64_000)})
    kubelet.wait_for(lambda k: not k.registered(RESOURCE), 20)
    assert kubelet.allocatable(RESOURCE) == 0
    assert len(kubelet.lists(RESOURCE)) == 1


def test_the_end_of_an_old_stream_disconnects_the_new_client_of_that_name(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    registered(kubelet, plugin)
    with ScriptedPlugin(kubelet.plugin_dir, "b.sock") as newer:
        registered(kubelet, newer)
        plugin.end_streams()
        assert newer.stream_ended.wait(5)
        kubelet.wait_for(lambda k: not k.registered(RESOURCE), 5)
        assert kubelet.allocatable(RESOURCE) == 0


def test_an_old_stream_that_stays_open_does_no_harm(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    registered(kubelet, plugin)
    with ScriptedPlugin(kubelet.plugin_dir, "b.sock") as newer:
        registered(kubelet, newer)
        assert kubelet.allocatable(RESOURCE) == 1
        assert kubelet.plugin(RESOURCE).socket.name == "b.sock"


def test_a_restart_wipes_the_plugin_s_socket_and_ends_its_stream(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    registered(kubelet, plugin)
    kubelet.restart()
    assert plugin.stream_ended.wait(5)
    assert not (kubelet.plugin_dir / "a.sock").exists()
    assert (kubelet.capacity(RESOURCE), kubelet.registered(RESOURCE)) == (0, False)


def test_after_a_restart_a_new_registration_brings_everything_back(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    registered(kubelet, plugin)
    kubelet.restart()
    with ScriptedPlugin(kubelet.plugin_dir, "b.sock") as again:
        registered(kubelet, again)
        assert kubelet.allocatable(RESOURCE) == 1


def test_stop_removes_its_socket(kubelet: StandInKubelet) -> None:
    kubelet.stop()
    assert not kubelet.socket.exists()
    assert not kubelet.running


def test_stop_can_leave_a_stale_socket(kubelet: StandInKubelet) -> None:
    before = kubelet.socket.stat()
    kubelet.stop(leave_socket=True)
    after = kubelet.socket.stat()
    assert (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns)
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(str(kubelet.socket))


def test_a_new_life_has_a_new_kubelet_sock(kubelet: StandInKubelet) -> None:
    before = kubelet.socket.stat()
    kubelet.restart(leave_socket=True)
    after = kubelet.socket.stat()
    assert before.st_ctime_ns != after.st_ctime_ns
    assert stat.S_ISSOCK(after.st_mode)


def test_a_directory_that_is_removed_comes_back_with_the_next_life(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    registered(kubelet, plugin)
    kubelet.disk.remove()
    plugin.send({"c": True})
    kubelet.next_devices(RESOURCE, 5)
    kubelet.restart()
    assert kubelet.socket.exists()


def test_50_restarts_leak_no_thread_descriptor_or_socket(
    kubelet: StandInKubelet, directory: Path
) -> None:
    def tasks() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def life(number: int) -> None:
        with ScriptedPlugin(directory, f"{number}.sock") as plugin:
            registered(kubelet, plugin)
            kubelet.restart()

    for number in range(5):
        life(number)
    before = (tasks(), descriptors())
    for number in range(5, 55):
        life(number)
    after = (tasks(), descriptors())
    # gRPC's own pool comes and goes by a few.
    assert after[0] <= before[0] + 8
    assert after[1] <= before[1] + 4
    assert sorted(path.name for path in directory.iterdir()) == [
        "kubelet.sock",
        "kubelet_internal_checkpoint",
    ]
