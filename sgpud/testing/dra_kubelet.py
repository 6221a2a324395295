"""A stand-in for the part of a kubelet that speaks to DRA drivers.

As the kubelet of 1.36 it looks for sockets in plugins_registry, calls only what it has registered,
keeps what is prepared in memory and in its checkpoint, deletes every slice of its node when it
starts (after a delay, if so told), and those of a driver that is gone for too long.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Condition, Event, Thread
from time import monotonic
from typing import Any

import grpc
from attrs import Factory, define, frozen

from sgpud.kubelet.api import dra_pb2 as api
from sgpud.kubelet.api import drahealth_pb2 as health_api
from sgpud.kubelet.api import pluginregistration_pb2 as registration_api

LOOK_EVERY = 0.05
"""Seconds between looks at the folder; a kubelet looks once a second, and is told by inotify."""
PREPARE_WITHIN = 45.0
KNOWN = ("v1.DRAPlugin", "v1beta1.DRAPlugin")
PLUGIN = "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin"
CHECKPOINT = "dra_manager_state"


class NotRegisteredError(Exception):
    """No driver to call."""


@frozen
class Driver:
    """A driver that was registered."""

    name: str
    versions: tuple[str, ...]
    socket: Path


@define
class DraKubelet:
    """The kubelet; `root` is its --root-dir."""

    root: Path
    wipe: Callable[[], None] = lambda: None
    """Deletes every slice of the node."""
    wipe_after: float = 0.0
    """Seconds from the start until it does so."""
    gone_after: float = 30.0
    """Seconds without a driver until its slices are deleted."""
    alone: bool = True
    """Whether kubelet.sock is its own; False beside a stand-in of the device manager."""
    refuse: str = ""
    """Why no driver is registered; empty: it is."""
    drivers: dict[str, Driver] = Factory(dict)
    prepared: dict[str, list[api.Device]] = Factory(dict)
    """Devices by claim UID, in memory: a restart forgets that they are prepared."""
    health: dict[str, tuple[int, str]] = Factory(dict)
    """Status and message by device, from the stream."""
    wipes: int = 0
    _changed: Condition = Factory(Condition)
    _stop: Event = Factory(Event)
    _threads: list[Thread] = Factory(list)
    _books: dict[str, dict[str, Any]] = Factory(dict)

    def start(self) -> None:
        """Start; returns at once."""
        self._stop = Event()
        self.prepared.clear()
        for name in ("plugins_registry", "device-plugins"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        if self.alone:
            socket = self.root / "device-plugins" / "kubelet.sock"
            socket.unlink(missing_ok=True)
            socket.touch()
        self._threads = [
            Thread(target=self._look, args=(self._stop,), daemon=True),
            Thread(target=self._wipe_at_start, args=(self._stop,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; the driver's socket stays where it is."""
        self._stop.set()
        for thread in self._threads:
            thread.join(5)
        with self._changed:
            self.drivers.clear()

    def restart(self) -> None:
        """A new life of it: nothing of what was prepared is known."""
        self.stop()
        self.start()

    def wait(self, condition: Callable[[], bool], seconds: float = 10.0) -> bool:
        """Wait until something is so; whether it is."""
        with self._changed:
            return self._changed.wait_for(condition, seconds)

    # Claims. -------------------------------------------------------------------------------------

    def prepare(
        self, claims: Sequence[Mapping[str, Any]], driver: str = "gpu.deepomatic.com"
    ) -> dict[str, str]:
        """Have claims prepared, as they are at the API server; the errors by UID, empty: none."""
        asked = api.NodePrepareResourcesRequest(claims=[_claim(claim) for claim in claims])
        for claim in claims:
            self._write(claim)
        raw = self._call(driver, "NodePrepareResources", asked.SerializeToString())
        answer = api.NodePrepareResourcesResponse.FromString(raw)
        found = {}
        for claim in claims:
            uid = claim["metadata"]["uid"]
            if uid not in answer.claims:
                found[uid] = "skipped"
                continue
            found[uid] = answer.claims[uid].error
            if not found[uid]:
                self.prepared[uid] = list(answer.claims[uid].devices)
                self._write(claim, answer.claims[uid].devices)
        return found

    def unprepare(
        self, claims: Sequence[Mapping[str, Any]], driver: str = "gpu.deepomatic.com"
    ) -> dict[str, str]:
        """Have claims unprepared; the errors by UID."""
        asked = api.NodeUnprepareResourcesRequest(claims=[_claim(claim) for claim in claims])
        raw = self._call(driver, "NodeUnprepareResources", asked.SerializeToString())
        answer = api.NodeUnprepareResourcesResponse.FromString(raw)
        for claim in claims:
            uid = claim["metadata"]["uid"]
            if uid in answer.claims and not answer.claims[uid].error:
                self.prepared.pop(uid, None)
                self._books.pop(uid, None)
        self._save()
        return {uid: entry.error for uid, entry in answer.claims.items()}

    def forget(self, claim: Mapping[str, Any]) -> None:
        """Lose a claim from the checkpoint."""
        self._books.pop(claim["metadata"]["uid"], None)
        self._save()

    def environment(self, uid: str, cdi: Path) -> dict[str, str]:
        """The variables that a container with a prepared claim gets: from the CDI specs.

        KeyError for a device that no spec has, as a runtime refuses such a container.
        """
        edits: dict[str, list[str]] = {}
        for path in sorted(cdi.glob("*.json")):
            spec = json.loads(path.read_text())
            for device in spec["devices"]:
                edits[f"{spec['kind']}={device['name']}"] = device["containerEdits"]["env"]
        names = [name for device in self.prepared[uid] for name in device.cdi_device_ids]
        return dict(line.split("=", 1) for name in names for line in edits[name])

    def _call(self, driver: str, method: str, request: bytes) -> bytes:
        with self._changed:
            found = self.drivers.get(driver)
        if found is None:
            raise NotRegisteredError(f"DRA driver {driver} is not registered")
        with grpc.insecure_channel(f"unix:{found.socket}") as channel:
            call: Any = channel.unary_unary(f"{PLUGIN}/{method}")
            answer: bytes = call(request, timeout=PREPARE_WITHIN)
            return answer

    def _write(self, claim: Mapping[str, Any], devices: Sequence[api.Device] = ()) -> None:
        """Write the checkpoint: with the claim before it is prepared, with its devices after."""
        metadata = claim["metadata"]
        entries = [
            {
                "PoolName": device.pool_name,
                "DeviceName": device.device_name,
                "ShareID": device.share_id,
                "RequestNames": list(device.request_names),
                "CDIDeviceIDs": list(device.cdi_device_ids),
            }
            for device in devices
        ]
        self._books[metadata["uid"]] = {
            "ClaimUID": metadata["uid"],
            "ClaimName": metadata["name"],
            "Namespace": metadata["namespace"],
            "PodUIDs": {},
            "DriverState": {"gpu.deepomatic.com": {"Devices": entries}},
        }
        self._save()

    def _save(self) -> None:
        data = {
            "kind": "DRACheckpoint",
            "apiVersion": "checkpoint.dra.kubelet.k8s.io/v1",
            "ClaimInfoStateList": list(self._books.values()),
        }
        text = json.dumps({"Data": json.dumps(data), "Checksum": 0})
        draft = self.root / f".{CHECKPOINT}"
        draft.write_text(text)
        draft.replace(self.root / CHECKPOINT)

    # Drivers. ------------------------------------------------------------------------------------

    def _wipe_at_start(self, stop: Event) -> None:
        if not stop.wait(self.wipe_after):
            self._wiped()

    def _wiped(self) -> None:
        self.wipe()
        with self._changed:
            self.wipes += 1
            self._changed.notify_all()

    def _look(self, stop: Event) -> None:
        seen: dict[Path, str] = {}
        gone_at: float | None = None
        while not stop.is_set():
            there = {
                path for path in (self.root / "plugins_registry").glob("*") if path.is_socket()
            }
            for path in sorted(there - seen.keys()):
                with suppress(grpc.RpcError):
                    seen[path] = self._register(path, stop)
            for path in [path for path in seen if path not in there]:
                self._unregister(seen.pop(path), path)
            if self.drivers:
                gone_at = None
            elif seen or gone_at is not None or self.wipes:
                gone_at = monotonic() if gone_at is None else gone_at
                if monotonic() - gone_at > self.gone_after:
                    gone_at = float("inf")
                    self._wiped()
            stop.wait(LOOK_EVERY)

    def _register(self, path: Path, stop: Event) -> str:
        with grpc.insecure_channel(f"unix:{path}") as channel:
            ask: Any = channel.unary_unary("/pluginregistration.Registration/GetInfo")
            info = registration_api.PluginInfo.FromString(ask(b"", timeout=1.0))
            problem = self.refuse
            if not problem and not any(version in KNOWN for version in info.supported_versions):
                problem = f"none of the versions {list(info.supported_versions)} is supported"
            status = registration_api.RegistrationStatus(
                plugin_registered=not problem, error=problem
            )
            if not problem:
                socket = Path(info.endpoint) if info.endpoint else path
                driver = Driver(info.name, tuple(info.supported_versions), socket)
                with self._changed:
                    self.drivers[info.name] = driver
                    self._changed.notify_all()
                Thread(target=self._follow_health, args=(driver, stop), daemon=True).start()
            tell: Any = channel.unary_unary(
                "/pluginregistration.Registration/NotifyRegistrationStatus"
            )
            tell(status.SerializeToString(), timeout=5.0)
        return info.name

    def _unregister(self, name: str, path: Path) -> None:
        with self._changed:
            if name in self.drivers and self.drivers[name].socket == path:
                del self.drivers[name]
            self._changed.notify_all()

    def _follow_health(self, driver: Driver, stop: Event) -> None:
        with suppress(grpc.RpcError), grpc.insecure_channel(f"unix:{driver.socket}") as channel:
            watch: Any = channel.unary_stream("/v1.DRAResourceHealth/NodeWatchResources")
            call = watch(b"")
            Thread(target=lambda: (stop.wait(), call.cancel()), daemon=True).start()
            for raw in call:
                answer = health_api.NodeWatchResourcesResponse.FromString(raw)
                with self._changed:
                    self.health = {
                        each.device.device_name: (each.health, each.message)
                        for each in answer.devices
                    }
                    self._changed.notify_all()


def _claim(claim: Mapping[str, Any]) -> api.Claim:
    metadata = claim["metadata"]
    return api.Claim(namespace=metadata["namespace"], uid=metadata["uid"], name=metadata["name"])
