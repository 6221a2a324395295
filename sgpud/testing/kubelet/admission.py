"""Pod admission as the kubelet does it: serial, one Allocate per container and resource."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from attrs import define, field

from sgpud.testing.kubelet.checkpoint import WITHOUT_TOPOLOGY, PodDevices, Slot
from sgpud.testing.kubelet.device_manager import Pod
from sgpud.testing.kubelet.plugins import PluginError
from sgpud.testing.kubelet.records import (
    AdmissionError,
    Container,
    KubeletPanic,
    KubeletRestarted,
    Pause,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping

    from sgpud.testing.kubelet.device_manager import DeviceManager, Resource
    from sgpud.testing.kubelet.plugins import PluginClient

    Pauses = Mapping[Pause, Callable[[tuple[str, ...]], object]]

_T = TypeVar("_T")


@define(eq=False)
class Admission:
    """Admits one container at a time."""

    manager: DeviceManager
    rng: random.Random
    _serial: threading.Lock = field(init=False, factory=threading.Lock)

    def admit(
        self,
        pod: Pod,
        name: str,
        pauses: Pauses,
        timeout: float,
        numa: int | None,
    ) -> Container:
        """Admit one container of a pod that has it in `wants`; AdmissionError fails the pod."""
        with self._serial:
            life = self.manager.life
            step = _Step(self.manager, self.rng, pod, name, pauses, timeout, numa, life)
            self.manager.free_finished()
            try:
                given = [step.give(resource, n) for resource, n in pod.wants[name].items()]
                if any(given):
                    step.save()
            except AdmissionError:
                with self.manager.changed:
                    pod.finished = True
                    self.manager.changed.notify_all()
                raise
            with self.manager.changed:
                if name not in pod.init:
                    pod.running.add(name)
                self.manager.changed.notify_all()
                return container_of(self.manager, pod, name)


def container_of(manager: DeviceManager, pod: Pod, name: str) -> Container:
    """Give a container as the kubelet has it in memory."""
    with manager.changed:
        held = {
            slot.resource: one
            for slot, one in manager.allocations.items()
            if slot.pod_uid == pod.uid and slot.container == name
        }
        return Container(
            pod.uid,
            pod.namespace,
            pod.name,
            name,
            name in pod.init,
            {resource: one.ids for resource, one in held.items()},
            {resource: one.response for resource, one in held.items()},
        )


@define(eq=False)
class _Step:
    """The admission of one container."""

    manager: DeviceManager
    rng: random.Random
    pod: Pod
    name: str
    pauses: Pauses
    timeout: float
    numa: int | None
    life: int
    ids: list[str] = field(init=False, factory=list)

    def give(self, resource: str, size: int) -> bool:
        """Allocate `size` ids of a resource; False when the container has them already."""
        slot = Slot(self.pod.uid, self.name, resource)
        chosen = self._choose(slot, size)
        if not chosen:
            return False
        self.ids.extend(chosen)
        self._pause(Pause.BEFORE_ALLOCATE)
        response = self._ask(lambda: self._plugin(resource).allocate(chosen, self.timeout))
        self._pause(Pause.AFTER_ALLOCATE)
        if not response.container_responses:
            raise AdmissionError(f"the answer to Allocate of {resource} has no container response")
        with self.manager.changed:
            by_node = self._by_node(resource, chosen)
            self.manager.allocations[slot] = PodDevices(by_node, response.container_responses[0])
            self.manager.changed.notify_all()
        return True

    def save(self) -> None:
        """Write the checkpoint."""
        self._pause(Pause.BEFORE_CHECKPOINT)
        try:
            self.manager.write()
        except OSError as error:
            raise AdmissionError(f"cannot write the checkpoint: {error}") from error

    def _pause(self, point: Pause) -> None:
        self.pauses.get(point, _nothing)(tuple(self.ids))
        self._check_life()

    def _check_life(self) -> None:
        if self.manager.life != self.life:
            raise KubeletRestarted

    def _choose(self, slot: Slot, size: int) -> tuple[str, ...]:
        with self.manager.changed:
            held = self.manager.allocations.get(slot)
            previous = frozenset(held.ids) if held else frozenset()
            if held and len(previous) != size:
                raise AdmissionError(
                    f"{slot.container} has {len(previous)} of {slot.resource} and asks for {size}"
                )
            if held and self.name in self.pod.running:
                return ()
            known = self._known(slot.resource)
            if not known.healthy:
                raise AdmissionError(f"no healthy devices present; cannot allocate {slot.resource}")
            if not previous <= known.healthy:
                raise AdmissionError(
                    f"previously allocated devices are no longer healthy: {slot.resource}"
                )
            if held or not size:
                return ()
            picked = _Pick(self.rng, size)
            picked.take(self._reusable(slot.resource))
            free = known.healthy - self.manager.in_use(slot.resource) - picked.ids
            if len(free) < picked.needed:
                raise AdmissionError(f"{size} of {slot.resource} requested, {len(free)} available")
            aligned = {i for i in free if known.listed[i].numa == self.numa}
        if picked.needed:
            self._pick_free(slot.resource, picked, free, aligned if self.numa is not None else free)
        return self._shuffled(picked.ids)

    def _pick_free(self, resource: str, picked: _Pick, free: set[str], aligned: set[str]) -> None:
        if picked.needed >= len(aligned):
            # All the aligned ones, without asking; the plugin is asked for the rest.
            picked.take(aligned)
            aligned = free - picked.ids
        if 0 < picked.needed < len(aligned):
            picked.take(self._preferred(resource, aligned, picked) & aligned)
        picked.take(aligned)

    def _preferred(self, resource: str, free: set[str], picked: _Pick) -> set[str]:
        plugin = self._plugin(resource)
        if not plugin.options.get_preferred_allocation_available:
            return set()
        available = list(self._shuffled(free | picked.ids))
        must = list(self._shuffled(picked.ids))
        return set(self._ask(lambda: plugin.prefer(available, must, picked.size, self.timeout)))

    def _ask(self, call: Callable[[], _T]) -> _T:
        try:
            return call()
        except PluginError as error:
            self._check_life()
            raise AdmissionError(str(error), error.code, error.details) from error

    def _reusable(self, resource: str) -> set[str]:
        ours = {s: a for s, a in self.manager.allocations.items() if s.pod_uid == self.pod.uid}
        given: set[str] = set()
        taken: set[str] = set()
        for slot, one in ours.items():
            if slot.resource == resource:
                (given if slot.container in self.pod.init else taken).update(one.ids)
        return given - taken

    def _known(self, resource: str) -> Resource:
        known = self.manager.resources.get(resource)
        if known is None:
            raise AdmissionError(f"{resource} is not registered")
        return known

    def _plugin(self, resource: str) -> PluginClient:
        plugin = self._known(resource).plugin
        if plugin is None:
            raise AdmissionError(f"the plugin of {resource} has gone")
        return plugin

    def _by_node(self, resource: str, ids: Iterable[str]) -> dict[int, tuple[str, ...]]:
        listed = self._known(resource).listed
        missing = tuple(i for i in ids if i not in listed)
        if missing:
            panic = KubeletPanic(resource, missing)
            self.manager.panics.append(panic)
            self.manager.changed.notify_all()
            raise panic
        nodes: dict[int, tuple[str, ...]] = {}
        for i in ids:
            numa = listed[i].numa
            node = WITHOUT_TOPOLOGY if numa is None else numa
            nodes[node] = (*nodes.get(node, ()), i)
        return nodes

    def _shuffled(self, ids: Iterable[str]) -> tuple[str, ...]:
        ordered = sorted(ids)
        self.rng.shuffle(ordered)
        return tuple(ordered)


@define(eq=False)
class _Pick:
    """Ids picked so far."""

    rng: random.Random
    size: int
    ids: set[str] = field(init=False, factory=set)

    @property
    def needed(self) -> int:
        """How many are still to be picked."""
        return self.size - len(self.ids)

    def take(self, ids: set[str]) -> None:
        """Take what is needed of these, at random."""
        rest = sorted(ids - self.ids)
        self.ids.update(self.rng.sample(rest, min(self.needed, len(rest))))


def _nothing(_: tuple[str, ...]) -> None:
    pass
