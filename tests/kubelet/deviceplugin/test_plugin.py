"""The device plugin as a whole: pools that come, go and come back, before the stand-in kubelet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, evolve, field
from twisted.internet import reactor as installed  # noqa: TID251 - it runs what is tested
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from sgpud.core.allocation.allocate import RefusedError
from sgpud.core.registration.events import RegistrationPhase
from sgpud.core.sharing.rules import GpuRule, ShareTerms
from sgpud.kubelet.deviceplugin.plugin import DevicePlugin
from sgpud.kubelet.deviceplugin.publisher import SnapshotPublisher
from sgpud.kubelet.podresources import PodResourcesClient
from sgpud.testing.kubelet.podresources import PodResourcesFault
from sgpud.testing.kubelet.records import AdmissionError
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.core.values import OTHER, POOL, gpu, ids, node, planned, sharing, uuid
from tests.surroundings import WITHIN, short_folder
from tests.testing.kubelet.scripted import ScriptedPlugin

reactor: Any = installed
SLOW = 2.0
"""Seconds by which a busy machine may be late."""
Steps = Any
"""What inlineCallbacks takes."""
GPUS = [gpu(number, fake=True) for number in range(2)]


@define
class Hears:
    refusals: list[str] = field(factory=list)
    lists: list[str] = field(factory=list)

    def refused(self, resource: str, refusal: RefusedError) -> None:  # noqa: ARG002 - the seam's
        self.refusals.append(refusal.rule.value)

    def listed(self, resource: str) -> None:
        self.lists.append(resource)

    def allocatable(self, numbers: Mapping[str, int]) -> None:
        assert not numbers, "these are places"

    @property
    def prompt(self) -> bool:
        return False


class PluginTest(TestCase):
    timeout = 60

    @inlineCallbacks
    def setUp(self) -> Steps:  # type: ignore[override]  # trial waits for a Deferred here too
        folder = short_folder()
        self.path = folder.__enter__() / "plugins"
        self.addCleanup(folder.__exit__, None, None, None)
        books = self.path.with_name("pods") / "kubelet.sock"
        self.kubelet = StandInKubelet(self.path, books)
        yield deferToThread(self.kubelet.start)
        self.addCleanup(deferToThread, self.kubelet.stop)
        self.hears = Hears()
        self.publisher = SnapshotPublisher()
        self.awaited: list[tuple[Any, Deferred[None]]] = []
        self.plugin = DevicePlugin(
            reactor,
            self.publisher,
            self.path,
            "0123",
            self.hears,
            self.changed,
            PodResourcesClient(books, reactor).allocatable,
            lambda resource, _shares: self.begun.append(resource),
        )
        self.begun: list[str] = []
        self.addCleanup(self.plugin.deactivate)

    def changed(self) -> None:
        for entry in tuple(self.awaited):
            condition, fires = entry
            if condition():
                self.awaited.remove(entry)
                # Later: the transition that is told of may not be over yet.
                reactor.callLater(0, fires.callback, None)

    def when(self, condition: Any) -> Deferred[None]:
        """Fires once this is so, looked at after every transition."""
        fires: Deferred[None] = Deferred()
        self.awaited.append((condition, fires))
        self.changed()
        return fires.addTimeout(WITHIN, reactor)

    def phases(self) -> dict[str, RegistrationPhase]:
        return {name: state.phase for name, state in self.plugin.registrations.items()}

    def live(self, *resources: str, times: int) -> Deferred[None]:
        """Fires once exactly these are live, and so many Register calls were answered."""
        wanted = dict.fromkeys(resources, RegistrationPhase.LIVE)
        return self.when(lambda: self.phases() == wanted and self.plugin.registered == times)

    def serve(self, *rules: GpuRule, resource: str = POOL) -> None:
        """Plan like this, and say which pools there are."""
        plan = planned(node(sharing(4, *rules, resource=resource), GPUS))
        assert self.publisher.put(plan)
        self.plugin.update(pool.resource for pool in plan.pools)

    def start(self, *rules: GpuRule) -> None:
        self.serve(*rules)
        self.plugin.activate()
        self.plugin.kubelet_seen()

    def devices(self, resource: str) -> Deferred[Any]:
        return deferToThread(self.kubelet.next_devices, resource, WITHIN)

    @inlineCallbacks
    def test_a_pool_is_registered_and_listed(self) -> Steps:
        self.start()
        assert len((yield self.devices(POOL)).healthy) == 8
        yield self.live(POOL, times=1)
        assert [each.resource for each in self.kubelet.registrations] == [POOL]
        assert self.kubelet.registrations[0].preferred

    @inlineCallbacks
    def test_nothing_is_served_before_the_lock_is_held_and_a_kubelet_runs(self) -> Steps:
        self.serve()
        assert self.phases() == {}
        self.plugin.activate()
        assert self.phases() == {POOL: RegistrationPhase.ABSENT}
        assert list(self.path.glob("sgpud-*")) == []
        self.plugin.kubelet_seen()
        yield self.live(POOL, times=1)

    @inlineCallbacks
    def test_pools_register_in_parallel_under_distinct_names(self) -> Steps:
        self.start(GpuRule(uuid(1), resource=OTHER))
        yield self.live(POOL, OTHER, times=2)
        endpoints = {each.resource: each.endpoint for each in self.kubelet.registrations}
        assert endpoints.keys() == {POOL, OTHER}
        assert len(set(endpoints.values())) == 2

    @inlineCallbacks
    def test_an_added_pool_does_not_affect_the_others(self) -> Steps:
        self.start()
        yield self.live(POOL, times=1)
        self.serve(GpuRule(uuid(1), resource=OTHER))
        yield self.live(POOL, OTHER, times=2)
        assert len(self.kubelet.registrations) == 2

    @inlineCallbacks
    def test_a_removed_pool_is_retired_and_still_counted(self) -> Steps:
        self.start(GpuRule(uuid(1), resource=OTHER))
        yield self.live(POOL, OTHER, times=2)
        self.serve()
        yield self.live(POOL, times=2)
        wait_for = self.kubelet.wait_for
        yield deferToThread(wait_for, lambda seen: not seen.registered(OTHER), WITHIN)
        assert self.kubelet.registered(POOL)

    @inlineCallbacks
    def test_a_pool_added_again_while_it_retires_is_registered_again(self) -> Steps:
        self.start()
        yield self.live(POOL, times=1)
        self.plugin.update([])
        assert self.phases() == {POOL: RegistrationPhase.STOPPING}
        self.plugin.update([POOL])
        yield self.live(POOL, times=2)
        names = [each.endpoint for each in self.kubelet.registrations]
        assert len(set(names)) == 2
        assert (yield self.devices(POOL))

    @inlineCallbacks
    def test_giving_up_the_directory_retires_everything(self) -> Steps:
        self.start(GpuRule(uuid(1), resource=OTHER))
        yield self.live(POOL, OTHER, times=2)
        yield self.plugin.deactivate()
        assert self.phases() == {}
        assert list(self.path.glob("sgpud-*")) == []
        self.plugin.activate()
        assert self.phases() == {POOL: RegistrationPhase.ABSENT, OTHER: RegistrationPhase.ABSENT}
        self.plugin.kubelet_seen()
        yield self.live(POOL, OTHER, times=4)

    @inlineCallbacks
    def test_giving_up_without_a_start_fires_at_once(self) -> Steps:
        yield self.plugin.deactivate()
        self.plugin.activate()
        assert self.phases() == {}

    @inlineCallbacks
    def test_a_restarted_kubelet_is_registered_with_again(self) -> Steps:
        self.start()
        yield self.live(POOL, times=1)
        yield deferToThread(self.kubelet.restart)
        self.plugin.kubelet_seen()
        yield self.live(POOL, times=2)
        wait_for = self.kubelet.wait_for
        yield deferToThread(wait_for, lambda seen: seen.allocatable(POOL) == 8, WITHIN)

    @inlineCallbacks
    def test_without_a_kubelet_it_waits_and_a_new_pool_too(self) -> Steps:
        self.start()
        yield self.live(POOL, times=1)
        self.plugin.kubelet_gone()
        yield deferToThread(self.kubelet.stop)
        yield self.when(lambda: self.phases() == {POOL: RegistrationPhase.ABSENT})
        self.serve(GpuRule(uuid(1), resource=OTHER))
        assert self.phases() == {POOL: RegistrationPhase.ABSENT, OTHER: RegistrationPhase.ABSENT}
        yield deferToThread(self.kubelet.start)
        self.plugin.kubelet_seen()
        yield self.live(POOL, OTHER, times=3)

    @inlineCallbacks
    def test_refusals_are_reported_on_the_reactor(self) -> Steps:
        self.start()
        yield self.live(POOL, times=1)
        yield self.devices(POOL)
        admit = self.kubelet.admit
        yield deferToThread(admit, "uid-1", "default", "one", "main", {POOL: 1})
        failed = deferToThread(admit, "uid-2", "default", "two", "main", {POOL: 3})
        yield self.assertFailure(failed, AdmissionError)
        yield deferToThread(int)  # what the workers told before is on the reactor by now
        assert self.hears.refusals == ["multiple"]
        assert [grant.resource for grant in self.publisher.grants()] == [POOL]

    @inlineCallbacks
    def test_a_pool_that_becomes_one_of_memory_shares_and_back_is_registered_anew(self) -> Steps:
        """The kubelet reads only then whether it is to ask for a preference."""
        self.start()
        yield self.live(POOL, times=1)
        memory = planned(node(sharing(default=ShareTerms(POOL, 4, 2**30)), GPUS))
        assert self.publisher.put(memory)
        self.plugin.update([POOL])
        yield self.live(POOL, times=2)
        self.serve()
        yield self.live(POOL, times=3)
        assert [each.preferred for each in self.kubelet.registrations] == [True, False, True]

    @inlineCallbacks
    def test_a_pool_that_is_to_be_asked_before_a_start_is_registered_again(self) -> Steps:
        self.start(GpuRule(uuid(1), resource=OTHER))
        yield self.live(POOL, OTHER, times=2)
        yield self.devices(POOL)
        admit = self.kubelet.admit
        yield deferToThread(admit, "uid-1", "default", "one", "main", {POOL: 1})
        plan = planned(node(sharing(4, GpuRule(uuid(1), resource=OTHER)), GPUS))
        asking = evolve(plan.pool(POOL) or plan.pools[0], asked_before_start=True)
        pools = (asking, *(pool for pool in plan.pools if pool.resource != POOL))
        assert self.publisher.put(evolve(plan, pools=pools))
        self.plugin.update(pool.resource for pool in plan.pools)
        yield self.live(POOL, OTHER, times=3)
        assert [(each.resource, each.pre_start) for each in self.kubelet.registrations][2:] == [
            (POOL, True)
        ]
        yield self.allocatable(4)
        yield deferToThread(self.kubelet.prestart, "uid-1", "main")
        assert self.begun == [POOL]

    # A rival for the same resource. --------------------------------------------------------------

    def rival(self) -> ScriptedPlugin:
        """Another plugin, which lists two ids of its own once it has registered."""
        rival = ScriptedPlugin(self.path, "rival.sock", POOL)
        rival.send({"GPU-of-another::0": True, "GPU-of-another::1": True})
        return rival

    def allocatable(self, count: int) -> Deferred[Any]:
        wait_for = self.kubelet.wait_for
        return deferToThread(wait_for, lambda seen: seen.allocatable(POOL) == count, WITHIN)

    @inlineCallbacks
    def test_a_rival_that_registers_later_is_noticed_and_outlived(self) -> Steps:
        self.start()
        yield self.live(POOL, times=1)
        yield self.allocatable(8)
        rival = yield deferToThread(self.rival)
        yield deferToThread(rival.register)
        yield self.when(lambda: self.phases() == {POOL: RegistrationPhase.SUPERSEDED})
        assert "GPU-of-another::0" in self.plugin.registrations[POOL].problem
        # Nothing is sent that would replace the rival's list.
        self.publisher.resend()
        yield deferToThread(self.kubelet.pod_resources.set_fault, PodResourcesFault.FAILING)
        yield deferToThread(self.kubelet.pod_resources.set_fault, None)
        assert self.kubelet.allocatable(POOL) == 2
        began = reactor.seconds()
        yield deferToThread(rival.stop)
        yield self.live(POOL, times=2)
        yield self.allocatable(8)
        assert reactor.seconds() - began < 3.0 + SLOW
        admit = self.kubelet.admit
        yield deferToThread(admit, "uid-1", "default", "one", "main", {POOL: 1})

    @inlineCallbacks
    def test_a_rival_that_was_there_first_ends_the_stream_and_is_outlived(self) -> Steps:
        rival = yield deferToThread(self.rival)
        yield deferToThread(rival.register)
        yield self.allocatable(2)
        self.start()
        yield self.live(POOL, times=1)
        yield self.allocatable(8)
        yield deferToThread(rival.stop)
        # By the name race the kubelet cuts the one that came later.
        yield self.live(POOL, times=2)
        yield self.allocatable(8)
        assert len(self.kubelet.registrations) == 3

    @inlineCallbacks
    def test_a_rival_with_our_ids_that_a_list_of_ours_hides_is_outlived(self) -> Steps:
        """The kubelet shows our ids, and sends every pod to the rival that has ended."""
        self.start()
        yield self.live(POOL, times=1)
        yield self.allocatable(8)
        yield self.when(lambda: self.plugin.registrations[POOL].ours_shown)
        rival = ScriptedPlugin(self.path, "rival.sock", POOL)
        rival.send(dict.fromkeys((one for number in range(2) for one in ids(number, 0, 1)), True))
        self.plugin.plugin_seen()
        yield deferToThread(rival.register)
        # One that ends before the kubelet has connected changes nothing.
        yield deferToThread(rival.stream_opened.wait, WITHIN)
        yield deferToThread(rival.stop)
        yield self.allocatable(0)
        yield self.when(lambda: self.plugin.registrations[POOL].displaced)
        self.publisher.resend()
        yield self.live(POOL, times=2)
        yield self.allocatable(8)
        admit = self.kubelet.admit
        yield deferToThread(admit, "uid-1", "default", "one", "main", {POOL: 1})

    @inlineCallbacks
    def test_an_unnoticed_rival_is_outlived_too(self) -> Steps:
        """It ends before anybody looks: the stream lives, and the books show nothing."""
        self.start()
        yield self.live(POOL, times=1)
        yield self.allocatable(8)
        rival = ScriptedPlugin(self.path, "rival.sock", POOL)
        yield deferToThread(rival.register)
        # One that ends before the kubelet has connected changes nothing.
        yield deferToThread(rival.stream_opened.wait, WITHIN)
        yield deferToThread(rival.stop)
        yield self.allocatable(0)
        yield self.live(POOL, times=2)
        yield self.allocatable(8)
