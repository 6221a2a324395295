"""Pod admission of the stand-in kubelet, as the real one's."""

import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from sgpud.kubelet.api import deviceplugin_pb2 as api
from sgpud.testing.kubelet.records import (
    AdmissionError,
    Container,
    KubeletPanic,
    KubeletRestarted,
    Pause,
    PluginHung,
    PreStartError,
)
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.testing.kubelet.scripted import RESOURCE, RefusedError, ScriptedPlugin, device_list

FOUR = dict.fromkeys("abcd", True)


@pytest.fixture
def plugin(kubelet: StandInKubelet, plugin: ScriptedPlugin) -> ScriptedPlugin:
    """A plugin that is registered, with four healthy ids."""
    return register(kubelet, plugin)


def register(kubelet: StandInKubelet, plugin: ScriptedPlugin) -> ScriptedPlugin:
    kubelet.drop(plugin.resource)
    kubelet.skip()
    plugin.send(FOUR)
    plugin.register()
    kubelet.next_registration(5)
    kubelet.next_devices(plugin.resource, 5)
    return plugin


def admit(kubelet: StandInKubelet, uid: str = "uid", size: int = 1) -> Container:
    return kubelet.admit(uid, "default", f"pod-{uid}", "main", {RESOURCE: size})


def preferring(plugin: ScriptedPlugin, *ids: str) -> None:
    plugin.options.get_preferred_allocation_available = True
    plugin.prefer = lambda _: api.PreferredAllocationResponse(
        container_responses=[api.ContainerPreferredAllocationResponse(deviceIDs=ids)]
    )


def test_a_container_gets_free_healthy_ids_and_the_plugin_s_answer(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    plugin.send({**FOUR, "d": False})
    kubelet.next_devices(RESOURCE, 5)
    first = admit(kubelet, "1", 2)
    second = admit(kubelet, "2", 1)
    given = first.ids[RESOURCE] + second.ids[RESOURCE]
    assert sorted(given) == ["a", "b", "c"]
    assert first.envs == {"IDS": ",".join(sorted(first.ids[RESOURCE]))}
    assert kubelet.in_use(RESOURCE) == set("abc")


def test_the_ids_are_sent_in_an_order_that_the_seed_decides(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    for number in range(6):
        admit(kubelet, str(number), 4)
        kubelet.terminate(str(number))
    assert len(set(plugin.allocations)) > 1
    assert {frozenset(one) for one in plugin.allocations} == {frozenset("abcd")}


def test_too_few_free_ids_fail_the_pod(kubelet: StandInKubelet, plugin: ScriptedPlugin) -> None:
    with pytest.raises(AdmissionError, match=r"5 of .* requested, 4 available") as caught:
        admit(kubelet, size=5)
    assert caught.value.reason == "UnexpectedAdmissionError"
    assert plugin.allocations == []


def test_an_unknown_resource_fails_the_pod(kubelet: StandInKubelet) -> None:
    with pytest.raises(AdmissionError, match="is not registered"):
        admit(kubelet)


def test_a_resource_without_its_plugin_fails_the_pod(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    plugin.end_streams()
    kubelet.wait_for(lambda k: not k.registered(RESOURCE), 5)
    with pytest.raises(AdmissionError, match="no healthy devices present"):
        admit(kubelet)


def test_a_refusal_fails_the_pod_with_the_plugins_message(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    def refuse(_: api.AllocateRequest) -> api.AllocateResponse:
        raise RefusedError(grpc.StatusCode.FAILED_PRECONDITION, "no room")

    plugin.allocate = refuse
    with pytest.raises(AdmissionError) as caught:
        admit(kubelet)
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details == "no room"
    assert kubelet.in_use(RESOURCE) == set()


def test_an_answer_without_a_container_fails_the_pod(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    plugin.allocate = lambda _: api.AllocateResponse()
    with pytest.raises(AdmissionError, match="no container response"):
        admit(kubelet)


def test_a_plugin_that_never_answers_raises_plugin_hung(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    answer = threading.Event()

    def hang(_: api.AllocateRequest) -> api.AllocateResponse:
        answer.wait(20)
        return api.AllocateResponse()

    plugin.allocate = hang
    with pytest.raises(PluginHung, match="did not answer Allocate"):
        kubelet.admit("uid", "default", "pod", "main", {RESOURCE: 1}, timeout=0.1)
    answer.set()


@pytest.mark.usefixtures("plugin")
def test_two_resources_are_two_calls_and_one_environment(kubelet: StandInKubelet) -> None:
    with ScriptedPlugin(kubelet.plugin_dir, "b.sock", "example.com/other") as other:
        other.allocate = lambda _: api.AllocateResponse(
            container_responses=[
                api.ContainerAllocateResponse(
                    envs={"IDS": "lost", "OTHER": "1"},
                    mounts=[api.Mount(container_path="/m")],
                    devices=[api.DeviceSpec(container_path="/d")],
                    cdi_devices=[api.CDIDevice(name="v/c=n")],
                )
            ]
        )
        other.send({"x": True})
        other.register()
        kubelet.next_devices("example.com/other", 5)
        wants = {RESOURCE: 1, "example.com/other": 1}
        container = kubelet.admit("uid", "default", "pod", "main", wants)
    assert container.envs == {"IDS": container.ids[RESOURCE][0], "OTHER": "1"}
    assert [one.container_path for one in container.mounts] == ["/m"]
    assert [one.container_path for one in container.device_nodes] == ["/d"]
    assert container.cdi_names == ["v/c=n"]
    assert [one.resource for one in kubelet.calls] == [RESOURCE, "example.com/other"]


def test_the_preferred_ids_are_taken(kubelet: StandInKubelet, plugin: ScriptedPlugin) -> None:
    preferring(plugin, "b", "c")
    register(kubelet, plugin)
    assert set(admit(kubelet, size=2).ids[RESOURCE]) == {"b", "c"}
    (asked,) = plugin.preferences
    assert sorted(asked.available_deviceIDs) == list("abcd")
    assert list(asked.must_include_deviceIDs) == []
    assert asked.allocation_size == 2
    assert [one.method for one in kubelet.calls] == ["GetPreferredAllocation", "Allocate"]


def test_no_preference_is_asked_without_the_option(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    admit(kubelet)
    assert plugin.preferences == []


def test_no_preference_is_asked_when_all_free_ids_are_taken(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    preferring(plugin, "a")
    register(kubelet, plugin)
    admit(kubelet, size=4)
    assert plugin.preferences == []


def test_of_too_many_preferred_ids_some_are_taken(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    preferring(plugin, "a", "b", "c")
    register(kubelet, plugin)
    assert set(admit(kubelet, size=2).ids[RESOURCE]) < {"a", "b", "c"}


def test_too_few_preferred_ids_are_filled_up_and_unknown_ones_ignored(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    preferring(plugin, "a", "nonsense")
    register(kubelet, plugin)
    given = admit(kubelet, size=3).ids[RESOURCE]
    assert len(given) == 3
    assert "a" in given
    assert set(given) < set("abcd")


def test_an_error_of_the_preference_fails_the_pod(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    def refuse(_: api.PreferredAllocationRequest) -> api.PreferredAllocationResponse:
        raise RefusedError(grpc.StatusCode.INTERNAL, "broken")

    plugin.options.get_preferred_allocation_available = True
    plugin.prefer = refuse
    register(kubelet, plugin)
    with pytest.raises(AdmissionError) as caught:
        admit(kubelet)
    assert caught.value.code is grpc.StatusCode.INTERNAL
    assert plugin.allocations == []


def test_a_topology_hint_uses_aligned_ids_first_and_asks_for_the_rest(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    preferring(plugin, "c")
    register(kubelet, plugin)
    message = device_list(FOUR)
    for device, node in zip(message.devices, (0, 0, 1, 1), strict=True):
        device.topology.nodes.add(ID=node)
    plugin.send_message(message)
    kubelet.next_devices(RESOURCE, 5)
    container = kubelet.admit("uid", "default", "pod", "main", {RESOURCE: 3}, numa=0)
    assert set(container.ids[RESOURCE]) == set("abc")
    (asked,) = plugin.preferences
    assert sorted(asked.must_include_deviceIDs) == ["a", "b"]
    assert sorted(asked.available_deviceIDs) == list("abcd")
    assert asked.allocation_size == 3


def test_a_topology_hint_lets_the_plugin_choose_among_the_aligned_ids(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    preferring(plugin, "b")
    register(kubelet, plugin)
    plugin.send(FOUR, numa=0)
    kubelet.next_devices(RESOURCE, 5)
    container = kubelet.admit("uid", "default", "pod", "main", {RESOURCE: 1}, numa=0)
    assert container.ids[RESOURCE] == ("b",)


def test_an_init_container_s_ids_are_used_again(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    preferring(plugin, "a")
    register(kubelet, plugin)
    first = kubelet.admit("uid", "default", "pod", "init", {RESOURCE: 1}, init=True)
    plugin.preferences.clear()
    second = kubelet.admit("uid", "default", "pod", "main", {RESOURCE: 2})
    third = kubelet.admit("uid", "default", "pod", "more", {RESOURCE: 2})
    assert first.ids[RESOURCE] == ("a",)
    assert "a" in second.ids[RESOURCE]
    assert list(plugin.preferences[0].must_include_deviceIDs) == ["a"]
    assert not set(third.ids[RESOURCE]) & set(second.ids[RESOURCE])


def test_pauses_run_in_order_with_the_ids_chosen(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    seen: list[tuple[Pause, int, bool]] = []

    def noting(pause: Pause) -> None:
        written = bool(kubelet.checkpoint.read()[0])
        seen.append((pause, len(plugin.allocations), written))

    ids: list[tuple[str, ...]] = []

    def at(pause: Pause) -> Callable[[tuple[str, ...]], None]:
        def run(chosen: tuple[str, ...]) -> None:
            ids.append(chosen)
            noting(pause)

        return run

    pauses = {pause: at(pause) for pause in Pause}
    container = kubelet.admit("uid", "default", "pod", "main", {RESOURCE: 2}, pauses=pauses)
    assert seen == [
        (Pause.BEFORE_ALLOCATE, 0, False),
        (Pause.AFTER_ALLOCATE, 1, False),
        (Pause.BEFORE_CHECKPOINT, 1, False),
    ]
    assert set(ids) == {container.ids[RESOURCE]}
    assert len(kubelet.checkpoint.read()[0]) == 1


@pytest.mark.parametrize("pause", [Pause.BEFORE_ALLOCATE, Pause.AFTER_ALLOCATE])
def test_an_id_that_leaves_the_list_before_allocate_is_done_panics_the_kubelet(
    directory: Path, pause: Pause
) -> None:
    def lose_an_id(kubelet: StandInKubelet) -> None:
        with kubelet, ScriptedPlugin(directory) as plugin:
            register(kubelet, plugin)

            def drop(_: tuple[str, ...]) -> None:
                plugin.send({"other": True})
                kubelet.next_devices(RESOURCE, 5)

            with pytest.raises(KubeletPanic) as caught:
                kubelet.admit("uid", "default", "pod", "main", {RESOURCE: 1}, pauses={pause: drop})
            assert caught.value.ids == plugin.allocations[0]

    kubelet = StandInKubelet(directory)
    with pytest.raises(KubeletPanic) as at_the_end:
        lose_an_id(kubelet)
    assert kubelet.panics == [at_the_end.value]
    assert not kubelet.running


def test_an_id_that_becomes_unhealthy_during_allocate_does_not_panic_the_kubelet(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    def sicken(_: tuple[str, ...]) -> None:
        plugin.send(dict.fromkeys(FOUR, False))
        kubelet.next_devices(RESOURCE, 5)

    pauses = {Pause.AFTER_ALLOCATE: sicken}
    kubelet.admit("uid", "default", "pod", "main", {RESOURCE: 1}, pauses=pauses)
    assert kubelet.panics == []


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("pause", list(Pause))
def test_a_kubelet_restart_during_allocate_records_nothing_and_the_pod_can_retry(
    kubelet: StandInKubelet, pause: Pause
) -> None:
    pauses = {pause: lambda _: kubelet.restart()}
    with pytest.raises(KubeletRestarted):
        kubelet.admit("uid", "default", "pod", "main", {RESOURCE: 1}, pauses=pauses)
    assert kubelet.in_use(RESOURCE) == set()
    with ScriptedPlugin(kubelet.plugin_dir, "b.sock") as again:
        register(kubelet, again)
        (container,) = kubelet.readmit("uid")
    assert len(container.ids[RESOURCE]) == 1


@pytest.mark.usefixtures("plugin")
def test_a_finished_pod_s_ids_are_freed_by_the_next_allocate_only(kubelet: StandInKubelet) -> None:
    admit(kubelet, "1", 4)
    kubelet.terminate("1")
    assert kubelet.in_use(RESOURCE) == set("abcd")
    assert len(admit(kubelet, "2", 4).ids[RESOURCE]) == 4


def test_a_container_that_restarts_in_place_gets_the_cached_answer(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    before = admit(kubelet)
    plugin.send(dict.fromkeys(FOUR, False))
    kubelet.next_devices(RESOURCE, 5)
    kubelet.exit_container("uid", "main")
    assert kubelet.restart_container("uid", "main") == before
    assert len(plugin.allocations) == 1


@pytest.mark.usefixtures("plugin")
def test_a_running_container_survives_a_kubelet_restart_without_its_plugin(
    kubelet: StandInKubelet,
) -> None:
    before = admit(kubelet)
    kubelet.restart()
    assert kubelet.readmit("uid") == [before]
    assert kubelet.container("uid", "main") == before


@pytest.mark.usefixtures("plugin")
def test_a_container_that_is_down_over_a_kubelet_restart_needs_its_plugin_again(
    kubelet: StandInKubelet,
) -> None:
    admit(kubelet)
    kubelet.exit_container("uid", "main")
    kubelet.restart()
    with pytest.raises(AdmissionError, match="no healthy devices present"):
        kubelet.readmit("uid")


@pytest.mark.usefixtures("plugin")
def test_after_a_reboot_a_pod_comes_back_when_its_ids_are_healthy(kubelet: StandInKubelet) -> None:
    before = admit(kubelet)
    kubelet.reboot()
    with ScriptedPlugin(kubelet.plugin_dir, "b.sock") as again:
        register(kubelet, again)
        assert kubelet.readmit("uid") == [before]
        assert again.allocations == []


@pytest.mark.usefixtures("plugin")
def test_after_a_reboot_a_pod_is_lost_when_its_plugin_is_late(kubelet: StandInKubelet) -> None:
    admit(kubelet)
    kubelet.reboot()
    with pytest.raises(AdmissionError, match="no healthy devices present"):
        kubelet.readmit("uid")
    assert kubelet.in_use(RESOURCE) <= set(FOUR)


@pytest.mark.usefixtures("plugin")
def test_after_a_reboot_a_pod_is_lost_when_its_ids_are_not_healthy(kubelet: StandInKubelet) -> None:
    (held,) = admit(kubelet).ids[RESOURCE]
    kubelet.reboot()
    with ScriptedPlugin(kubelet.plugin_dir, "b.sock") as again:
        again.send({**FOUR, held: False})
        again.register()
        kubelet.next_registration(5)
        kubelet.wait_for(lambda k: k.allocatable(RESOURCE) == 3, 5)
        with pytest.raises(AdmissionError, match="no longer healthy"):
            kubelet.readmit("uid")


def test_prestart_is_called_if_required_and_its_failure_loses_nothing(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    started: list[tuple[str, ...]] = []
    plugin.options.pre_start_required = True
    plugin.pre_start = lambda request: started.append(tuple(request.devices_ids))
    register(kubelet, plugin)
    container = admit(kubelet)
    kubelet.prestart("uid", "main")
    assert started == [container.ids[RESOURCE]]

    def refuse(_: api.PreStartContainerRequest) -> None:
        raise RefusedError(grpc.StatusCode.UNAVAILABLE, "later")

    plugin.pre_start = refuse
    with pytest.raises(PreStartError, match="UNAVAILABLE: later"):
        kubelet.prestart("uid", "main")
    assert kubelet.container("uid", "main") == container


@pytest.mark.usefixtures("plugin")
def test_prestart_is_not_called_if_not_required(kubelet: StandInKubelet) -> None:
    admit(kubelet)
    kubelet.prestart("uid", "main")
    assert [one.method for one in kubelet.calls] == ["Allocate"]
