"""A stand-in API server with what a DRA driver needs of one: slices, claims and a node.

It answers as Kubernetes 1.36 does to a node's credentials: what is absent is 403, lists need a
nodeName, quantities come back in another form, fields of a gate that is off are dropped without a
word. Plain HTTP on loopback, in threads of its own.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Condition, Thread
from uuid import uuid4

from attrs import Factory, define, field

from sgpud.core.dra.allocator import DeviceRequest, allocate_first_fit
from sgpud.core.dra.claims import MEMORY
from sgpud.core.dra.objects import API, EXTENDED
from sgpud.core.dra.quantity import format_bytes, whole_quantity
from sgpud.core.dra.slices import Device
from sgpud.testing import api_http
from sgpud.testing.api_core import PODS, CoreObjects
from sgpud.testing.api_objects import Object, Refused, checked, device_of

SLICES = f"/apis/{API}/resourceslices"
NAMESPACES = f"/apis/{API}/namespaces/"
BOOKMARK_EVERY = 1.0
"""Seconds between bookmarks; a real server sends one a minute."""
KEPT_EVENTS = 1000


@define
class ApiFault:
    """What befalls the next calls."""

    status: int
    times: int = 1
    method: str = ""
    """Only calls with this method; empty: all."""
    retry_after: int = 0


@define
class ApiServer:
    """The server's objects, its faults, and what was asked of it."""

    node: str = "node-1"
    token: str = "a-token"  # noqa: S105 - of a server on loopback that lives for one test
    gates_off: set[str] = field(factory=set)
    """Feature gates that are off: their fields are dropped."""
    faults: list[ApiFault] = Factory(list)
    calls: list[tuple[str, str]] = Factory(list)
    """Method and path with query of every call."""
    slices: dict[str, Object] = Factory(dict)
    claims: dict[tuple[str, str], Object] = Factory(dict)
    core: CoreObjects = Factory(lambda self: CoreObjects(self.node, self._record), takes_self=True)
    """The node, its pods, Events and evictions."""
    slow: float = 0.0
    """Seconds that each answer takes."""
    _changed: Condition = Factory(Condition)
    _version: int = 100
    _oldest: int = 0
    _events: list[tuple[int, str, str, Object]] = Factory(list)
    """Version, collection, kind of change, and the object."""
    _watch_life: int = 0
    """Counts up to end every watch."""
    _stalled: bool = False
    _server: ThreadingHTTPServer | None = None

    # Its life. -----------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None  # noqa: S101 - since `start`
        return int(self._server.server_address[1])

    @property
    def running(self) -> bool:
        """Whether it is started."""
        return self._server is not None

    def start(self, port: int = 0) -> None:
        """Listen on loopback."""
        api = self

        class Handler(api_http.Handler):
            server_of = api

        self._server = api_http.Server(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """End it, with every watch."""
        server, self._server = self._server, None
        self.cut_watches()
        if server is not None:
            server.shutdown()
            server.server_close()

    def write_kubeconfig(self, path: Path) -> Path:
        """A kubeconfig that finds the server and has its token."""
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "u", "user": {"token": self.token}}],
        }
        path.write_text(json.dumps(config))
        return path

    # What a test does to it. ---------------------------------------------------------------------

    def wait(self, condition: Callable[[], bool], seconds: float = 10.0) -> bool:
        """Wait until something is so; whether it is."""
        with self._changed:
            return self._changed.wait_for(condition, seconds)

    def delete_all(self) -> None:
        """Delete every slice, as a kubelet that starts does."""
        with self._changed:
            for name in list(self.slices):
                self._delete(name)

    def edit(self, name: str, change: Callable[[Object], None]) -> None:
        """Edit a slice by hand."""
        with self._changed:
            found = copy.deepcopy(self.slices[name])
            change(found)
            self._store(found, "MODIFIED")

    def cut_watches(self) -> None:
        """End every watch now."""
        with self._changed:
            self._watch_life += 1
            self._changed.notify_all()

    def forget_history(self) -> None:
        """A watch that begins with a version of before gets 410."""
        with self._changed:
            self._oldest = self._version

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Answer nothing while the block runs."""
        with self._changed:
            self._stalled = True
        try:
            yield
        finally:
            with self._changed:
                self._stalled = False
                self._changed.notify_all()

    # The scheduler. ------------------------------------------------------------------------------

    def devices(self) -> tuple[Device, ...]:
        """The devices of the node, as the scheduler reads them from the slices."""
        with self._changed:
            stored = [self.slices[name]["spec"] for name in sorted(self.slices)]
        return tuple(device_of(each) for spec in stored for each in spec.get("devices") or ())

    def used(self) -> dict[str, dict[str, int]]:
        """What allocated claims consume, by device."""
        found: dict[str, dict[str, int]] = {}
        with self._changed:
            claims = list(self.claims.values())
        for claim in claims:
            allocation = claim.get("status", {}).get("allocation", {})
            for result in allocation.get("devices", {}).get("results", ()):
                sums = found.setdefault(result["device"], {})
                for name, text in result["consumedCapacity"].items():
                    sums[name] = sums.get(name, 0) + whole_quantity(text)
        return found

    def schedule(
        self,
        name: str,
        *requests: DeviceRequest,
        namespace: str = "default",
        pod: str = "",
        limits: bool = False,
    ) -> Object | None:
        """Create and allocate a claim for a pod, first fit; None where it has to wait."""
        found = allocate_first_fit(self.devices(), self.used(), requests)
        if found is None:
            return None
        with self._changed:
            driver = next(iter(self.slices.values()))["spec"]["driver"]
        results = [
            {
                "request": request,
                "driver": driver,
                "pool": self.node,
                "device": device,
                "shareID": str(uuid4()),
                "consumedCapacity": {
                    key: format_bytes(amount) if key == MEMORY else str(amount)
                    for key, amount in amounts.items()
                },
            }
            for request, device, amounts in found
        ]
        return self.add_claim(name, results, namespace=namespace, pod=pod or name, limits=limits)

    def add_claim(
        self,
        name: str,
        results: list[Object],
        *,
        namespace: str = "default",
        pod: str = "",
        limits: bool = False,
    ) -> Object:
        """A claim with this allocation, reserved for a pod; it replaces one of the same name."""
        claim: Object = {
            "apiVersion": API,
            "kind": "ResourceClaim",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": str(uuid4()),
                "annotations": {EXTENDED: "true"} if limits else {},
            },
            "status": {
                "allocation": {"devices": {"results": results}},
                "reservedFor": [{"resource": "pods", "name": pod, "uid": str(uuid4())}],
            },
        }
        with self._changed:
            self._version += 1
            claim["metadata"]["resourceVersion"] = str(self._version)
            self.claims[namespace, name] = claim
        return claim

    def delete_claim(self, name: str, namespace: str = "default") -> None:
        """Delete a claim."""
        with self._changed:
            self.claims.pop((namespace, name), None)

    # Answers. ------------------------------------------------------------------------------------

    def admit(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Take note of a call; Refused where it gets no answer of its own."""
        with self._changed:
            self.calls.append((method, path))
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._stalled, 60)
            self._changed.wait_for(lambda: False, self.slow)
            self._faulty(method)
            if headers.get("Authorization") != f"Bearer {self.token}":
                raise Refused(401, "Unauthorized")

    def answer(
        self, method: str, path: str, query: Mapping[str, str], body: Object, content_type: str
    ) -> Object:
        """The answer to a call; Refused."""
        with self._changed:
            try:
                found = self.core.answer(method, path, query, body, content_type)
                if found is None:
                    return self._found(method, path, query, body)
                found.setdefault("metadata", {}).setdefault("resourceVersion", str(self._version))
                return found
            finally:
                self._changed.notify_all()

    def _faulty(self, method: str) -> None:
        for fault in self.faults:
            if fault.method in ("", method):
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after else {}
                raise Refused(fault.status, "a fault of the test", headers)

    def _found(self, method: str, path: str, query: Mapping[str, str], body: Object) -> Object:
        if path == "/version":
            return {"major": "1", "minor": "36", "gitVersion": "v1.36.2"}
        if path == SLICES:
            if method == "GET":
                return self._list(query)
            if method == "POST":
                return self._create(body, query)
        elif path.startswith(f"{SLICES}/"):
            return self._one(method, path[len(SLICES) + 1 :], body)
        elif path.startswith(NAMESPACES) and method == "GET":
            namespace, _, name = path[len(NAMESPACES) :].split("/", 2)
            if (namespace, name) in self.claims:
                return copy.deepcopy(self.claims[namespace, name])
        raise Refused(403, f"no relationship found between node '{self.node}' and this object")

    def _list(self, query: Mapping[str, str]) -> Object:
        selected = self.selected(SLICES, query)
        items = [copy.deepcopy(each) for each in self.slices.values() if selected(each)]
        return {
            "kind": "ResourceSliceList",
            "metadata": {"resourceVersion": str(self._version)},
            "items": items,
        }

    def selected(self, path: str, query: Mapping[str, str]) -> Callable[[Object], bool]:
        """What a field selector selects; Refused for one that a node may not use."""
        if path == PODS:
            return self.core.select(query)
        terms = dict(
            term.split("=", 1) for term in query.get("fieldSelector", "").split(",") if "=" in term
        )
        for key in terms:
            if key not in ("spec.nodeName", "spec.driver"):
                raise Refused(400, f"field label not supported: {key}")
        if terms.get("spec.nodeName") != self.node:
            raise Refused(
                403, "can only list/watch/deletecollection resourceslices with nodeName selector"
            )
        driver = terms.get("spec.driver")
        return lambda one: driver in (None, one["spec"]["driver"])

    def _create(self, body: Object, query: Mapping[str, str]) -> Object:
        made = checked(body, self.gates_off)
        if made["spec"].get("nodeName") != self.node:
            raise Refused(403, "can only create ResourceSlice with the same NodeName")
        metadata = made["metadata"]
        metadata["name"] = metadata.get("name") or f"{metadata['generateName']}{uuid4().hex[:5]}"
        metadata["uid"] = str(uuid4())
        if query.get("dryRun") == "All":
            metadata["resourceVersion"] = ""
            return made
        self._store(made, "ADDED")
        return copy.deepcopy(made)

    def _one(self, method: str, name: str, body: Object) -> Object:
        stored = self.slices.get(name)
        if stored is None:
            raise Refused(403, f"no relationship found between node '{self.node}' and this object")
        if method == "GET":
            return copy.deepcopy(stored)
        if method == "DELETE":
            wanted = (body.get("preconditions") or {}).get("uid")
            if wanted not in (None, stored["metadata"]["uid"]):
                raise Refused(409, "the UID in the precondition differs")
            self._delete(name)
            return {"kind": "Status", "status": "Success"}
        version = body["metadata"].get("resourceVersion")
        if version not in (None, stored["metadata"]["resourceVersion"]):
            raise Refused(409, f'Operation cannot be fulfilled on "{name}": it has been modified')
        for key in ("driver", "nodeName"):
            if body["spec"].get(key) != stored["spec"].get(key):
                raise Refused(422, f"spec.{key}: field is immutable")
        made = checked(body, self.gates_off)
        made["metadata"] = {**stored["metadata"], **made["metadata"]}
        self._store(made, "MODIFIED")
        return copy.deepcopy(made)

    def _store(self, made: Object, kind: str) -> None:
        self.slices[made["metadata"]["name"]] = made
        self._record(SLICES, kind, made)

    def _delete(self, name: str) -> None:
        self._record(SLICES, "DELETED", copy.deepcopy(self.slices.pop(name)))

    def _record(self, path: str, kind: str, changed: Object) -> None:
        """Give a change its version, and tell the watches."""
        with self._changed:
            self._version += 1
            changed["metadata"]["resourceVersion"] = str(self._version)
            self._events.append((self._version, path, kind, copy.deepcopy(changed)))
            del self._events[:-KEPT_EVENTS]
            self._changed.notify_all()

    # Watches. ------------------------------------------------------------------------------------

    def watch(self, path: str, query: Mapping[str, str]) -> Iterator[Object]:
        """The events of a watch, with bookmarks; ends when it is cut."""
        selected = self.selected(path, query)
        seen = int(query.get("resourceVersion") or 0)
        with self._changed:
            life = self._watch_life
            if seen < self._oldest:
                yield {
                    "type": "ERROR",
                    "object": {"code": 410, "message": "too old resource version"},
                }
                return
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._watch_life != life or self._version > seen,  # noqa: B023
                    BOOKMARK_EVERY,
                )
                if self._watch_life != life:
                    return
                fresh = [event for event in self._events if event[0] > seen]
                seen = self._version
            for _, collection, kind, found in fresh:
                if collection == path and selected(found):
                    yield {"type": kind, "object": found}
            metadata = {"resourceVersion": str(seen)}
            yield {"type": "BOOKMARK", "object": {"metadata": metadata}}
