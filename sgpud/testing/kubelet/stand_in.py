"""A stand-in for the kubelet's device manager, over real unix sockets and real gRPC.

It behaves towards a device plugin as the kubelet of Kubernetes 1.36 does, and has faults on
request. It uses threads and no reactor: a test in a reactor calls its waiting methods in a thread.

    with StandInKubelet(directory) as kubelet:      # starts; on exit stops and checks for panics
        kubelet.next_registration(timeout=5)        # the next accepted Register
        kubelet.next_devices(RESOURCE, timeout=5)   # the next list message
        container = kubelet.admit("uid", "default", "pod", "main", {RESOURCE: 1})
        container.envs, container.mounts, container.ids

Life: start, stop, restart, reboot. `stop(leave_socket=True)` leaves a stale kubelet.sock.
State (view.py): capacity, allocatable, devices, in_use, registered, plugin; the records: attempts,
registrations, lists, calls, panics.
Waiting (view.py): next_attempt, next_registration, next_devices, wait_for, skip.
Pods: admit, readmit, terminate, container, exit_container, restart_container, prestart.
Faults: `faults` (registration: refuse, wrong_version, hang, hang_answer, never_follow),
`disk` (touch_socket, chmod_socket, delete_endpoint, remove, make, replace),
`checkpoint` (fault, replace), `pod_resources` (set_fault), `drop(resource)` (cut the connection),
`plugin(resource)` (reading.clear() to read slowly, open_stream, send raw bytes).
"""

from __future__ import annotations

import os
import random
import shutil
import time
from typing import TYPE_CHECKING

from attrs import frozen

from sgpud.testing.kubelet.admission import Admission, container_of
from sgpud.testing.kubelet.checkpoint import CheckpointFile
from sgpud.testing.kubelet.device_manager import DeviceManager, Pod
from sgpud.testing.kubelet.faults import RegistrationFaults
from sgpud.testing.kubelet.plugins import PluginError
from sgpud.testing.kubelet.podresources import PodResourcesServer
from sgpud.testing.kubelet.records import PreStartError
from sgpud.testing.kubelet.registry import SOCKET, Registry
from sgpud.testing.kubelet.view import KubeletView

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from sgpud.testing.kubelet.admission import Pauses
    from sgpud.testing.kubelet.records import Container


@frozen
class Disk:
    """What can happen to the plugin directory behind the kubelet's and the plugin's backs."""

    directory: Path

    def touch_socket(self) -> None:
        """Set the times of kubelet.sock."""
        os.utime(self.directory / SOCKET)

    def chmod_socket(self, mode: int) -> None:
        """Set the permissions of kubelet.sock: its change time moves, its inode does not."""
        (self.directory / SOCKET).chmod(mode)

    def delete_endpoint(self, endpoint: str) -> None:
        """Delete a plugin's own socket; FileNotFoundError when it is not there."""
        (self.directory / endpoint).unlink()

    def remove(self) -> None:
        """Remove the directory with all in it; a kubelet's `restart` makes it again."""
        shutil.rmtree(self.directory)

    def make(self) -> None:
        """Make the directory, empty."""
        self.directory.mkdir(mode=0o750, parents=True)

    def replace(self) -> Path:
        """Put a new, empty directory in its place; give where the old one lies now."""
        old = self.directory.with_name(f"{self.directory.name}.old")
        self.directory.rename(old)
        self.make()
        return old


class StandInKubelet(KubeletView):
    """The device manager of one node. Its methods may be called from any thread."""

    def __init__(
        self,
        plugin_dir: Path,
        pod_resources: Path | None = None,
        *,
        seed: int = 0,
        dial_timeout: float = 10.0,
        grace: float = 300.0,
        keep: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make it on a plugin directory, which `start` creates.

        `pod_resources` is the path of the podresources socket, None for none. `seed` decides what
        the kubelet leaves to chance. `dial_timeout` and `grace` (the time until a resource without
        a plugin is forgotten) are seconds. `keep` is how many records of each kind are remembered.
        """
        self.plugin_dir = plugin_dir
        self.faults = RegistrationFaults()
        self.checkpoint = CheckpointFile(plugin_dir)
        self.disk = Disk(plugin_dir)
        super().__init__(DeviceManager(clock, self.checkpoint, keep, grace))
        self.pod_resources = PodResourcesServer(pod_resources, self._manager)
        self._dial_timeout = dial_timeout
        self._admission = Admission(self._manager, random.Random(seed))  # noqa: S311 - repeatable
        self._registry: Registry | None = None

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop; raise the first panic there was, unless something else is being raised."""
        self.stop()
        if error is None:
            self.assert_no_panics()

    @property
    def socket(self) -> Path:
        """Where kubelet.sock is, or would be."""
        return self.plugin_dir / SOCKET

    @property
    def running(self) -> bool:
        """Whether it is started."""
        return self._registry is not None

    def start(self) -> None:
        """Read the checkpoint, clear stale sockets, listen on kubelet.sock."""
        if self._registry is None:
            self._manager.start()
            self._registry = Registry(
                self.plugin_dir, self._manager, self.faults, self._dial_timeout
            )
            self.pod_resources.start()

    def stop(self, *, leave_socket: bool = False) -> None:
        """End every connection and stop listening; containers run on."""
        registry, self._registry = self._registry, None
        if registry is not None:
            self._manager.stop()
            self.pod_resources.stop()
            registry.stop(leave_socket=leave_socket)

    def restart(self, *, leave_socket: bool = False) -> None:
        """Stop and start: every resource is at zero until its plugin has registered again."""
        self.stop(leave_socket=leave_socket)
        self.start()

    def reboot(self) -> None:
        """Restart with every container dead; the pods are there to be readmitted."""
        self.stop()
        with self._manager.changed:
            for pod in self._manager.pods.values():
                pod.running.clear()
        self.start()

    def drop(self, resource: str) -> None:
        """Cut the connection to a resource's plugin: its streams end, its ids are unhealthy.

        The name race of this end is over when it returns; see `sgpud.testing.kubelet.registry`.
        """
        if self._registry is not None:
            self._registry.drop(resource)

    def admit(  # noqa: PLR0913 - each after the fifth has a default
        self,
        pod_uid: str,
        namespace: str,
        pod: str,
        container: str,
        wants: Mapping[str, int],
        *,
        init: bool = False,
        numa: int | None = None,
        pauses: Pauses | None = None,
        timeout: float = 30.0,
    ) -> Container:
        """Admit a container that wants so many of each resource.

        AdmissionError: the pod has failed for good. KubeletPanic: the real kubelet has crashed.
        PluginHung: a call took `timeout` seconds; the kubelet itself has no deadline there.
        KubeletRestarted: somebody restarted this kubelet meanwhile.

        `init` makes it an ordinary init container: the pod's next containers reuse its ids. `numa`
        is the topology manager's hint. `pauses` are functions that run at points of the admission;
        each is given the ids chosen so far.
        """
        with self._manager.changed:
            known = self._manager.pods.setdefault(pod_uid, Pod(pod_uid, namespace, pod))
            known.wants[container] = dict(wants)
            if init:
                known.init.add(container)
        return self._admission.admit(known, container, pauses or {}, timeout, numa)

    def readmit(self, pod_uid: str, *, timeout: float = 30.0) -> list[Container]:
        """Admit a pod's containers again, as after a restart or a reboot.

        A container that runs keeps what it has; one that does not run gets its cached answer if its
        ids are healthy, and otherwise the pod fails with AdmissionError.
        """
        pod = self._pod(pod_uid)
        return [self._admission.admit(pod, name, {}, timeout, None) for name in list(pod.wants)]

    def terminate(self, pod_uid: str) -> None:
        """End a pod. What it holds is freed by the next Allocate or podresources List only."""
        with self._manager.changed:
            pod = self._pod(pod_uid)
            pod.running.clear()
            pod.finished = True
            self._manager.changed.notify_all()

    def container(self, pod_uid: str, name: str) -> Container:
        """Give a container with what the kubelet has in memory for it."""
        return container_of(self._manager, self._pod(pod_uid), name)

    def exit_container(self, pod_uid: str, name: str) -> None:
        """Let a container exit, its pod going on."""
        with self._manager.changed:
            self._pod(pod_uid).running.discard(name)

    def restart_container(self, pod_uid: str, name: str) -> Container:
        """Start a container again in place: from the cached answer, the plugin is not asked."""
        with self._manager.changed:
            self._pod(pod_uid).running.add(name)
            return self.container(pod_uid, name)

    def prestart(self, pod_uid: str, name: str, timeout: float = 30.0) -> None:
        """Call PreStartContainer where a plugin wants it, as before every container create."""
        for resource, ids in self.container(pod_uid, name).ids.items():
            plugin = self.plugin(resource)
            if plugin.options.pre_start_required:
                try:
                    plugin.pre_start(ids, timeout)
                except PluginError as error:
                    raise PreStartError(error.code, error.details) from error

    def _pod(self, uid: str) -> Pod:
        with self._manager.changed:
            return self._manager.pods[uid]
