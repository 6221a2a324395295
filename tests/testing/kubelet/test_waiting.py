"""The stand-in kubelet's awaitables."""

import pytest

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.testing.kubelet.scripted import RESOURCE, ScriptedPlugin


def test_each_call_gives_the_next_record_even_one_that_is_past(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    plugin.send({"a": True})
    plugin.register()
    kubelet.next_registration(5)
    kubelet.wait_for(lambda k: k.lists(RESOURCE), 5)
    for name in "bc":
        plugin.send({name: True})
    assert [set(kubelet.next_devices(RESOURCE, 5).devices) for _ in "abc"] == [{"a"}, {"b"}, {"c"}]


def test_a_wait_that_times_out_lists_the_records(
    kubelet: StandInKubelet, plugin: ScriptedPlugin
) -> None:
    plugin.register()
    kubelet.next_registration(5)
    with pytest.raises(TimeoutError, match=f"no registration.*1 Register calls.*{RESOURCE} has 0"):
        kubelet.next_registration(0.01)
    with pytest.raises(TimeoutError, match="no list of"):
        kubelet.next_devices(RESOURCE, 0.01)
    with pytest.raises(TimeoutError, match="not so within"):
        kubelet.wait_for(lambda k: k.allocatable(RESOURCE), 0.01)


def test_skip_moves_past_what_there_is(kubelet: StandInKubelet, plugin: ScriptedPlugin) -> None:
    plugin.send({"a": True})
    plugin.register()
    kubelet.wait_for(lambda k: k.lists(RESOURCE), 5)
    kubelet.skip()
    plugin.send({"b": True})
    assert set(kubelet.next_devices(RESOURCE, 5).devices) == {"b"}
    with pytest.raises(TimeoutError):
        kubelet.next_attempt(0.01)


def test_wait_for_returns_the_value(kubelet: StandInKubelet, plugin: ScriptedPlugin) -> None:
    plugin.send({"a": True, "b": True})
    plugin.register()
    assert kubelet.wait_for(lambda k: k.allocatable(RESOURCE), 5) == 2


def test_old_records_are_forgotten_and_the_reader_goes_on_with_the_oldest_kept(
    kubelet: StandInKubelet,
) -> None:
    with (
        StandInKubelet(kubelet.plugin_dir.with_name("other"), keep=2) as small,
        ScriptedPlugin(small.plugin_dir) as plugin,
    ):
        for name in "abc":
            plugin.send({name: True})
            if name == "a":
                plugin.register()
                small.wait_for(lambda k: k.lists(RESOURCE), 5)
        small.wait_for(lambda k: "c" in k.devices(RESOURCE), 5)
        assert set(small.next_devices(RESOURCE, 5).devices) == {"b"}
