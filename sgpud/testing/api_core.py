"""What the stand-in API server has of the core group: a node, its pods, Events, evictions.

As with a node's credentials: pods are listed and watched with `spec.nodeName` only, the node writes
the status of itself, and evicts its own pods. RBAC of a service account is `forbidden`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from uuid import uuid4

from attrs import Factory, define, field

from sgpud.testing.api_objects import Object, Refused

CORE = "/api/v1/"
PODS = "/api/v1/pods"
STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"


@define
class CoreObjects:
    """The objects, and what a test does to them. The server's lock is held by `store`."""

    node: str
    store: Callable[[str, str, Object], None]
    """Is told the path of the collection, the kind of change, and the object, which gets its
    resourceVersion from it."""
    pods: dict[tuple[str, str], Object] = Factory(dict)
    events: dict[tuple[str, str], Object] = Factory(dict)
    budgets: dict[tuple[str, str], str] = Factory(dict)
    """Pods that a PodDisruptionBudget protects, and what it says."""
    forbidden: set[str] = field(factory=set)
    """Verb and resource for which there is no right, e.g. "patch nodes/status"."""
    evicted: list[str] = Factory(list)
    """Names of the pods whose eviction was accepted."""
    patches: list[Object] = Factory(list)
    """Every patch of the node's status."""
    status: Object = field(
        factory=lambda: {
            "allocatable": {"cpu": "8"},
            "capacity": {"cpu": "8"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        }
    )
    """Of the node."""

    # What a test does. ---------------------------------------------------------------------------

    def add_pod(
        self,
        name: str,
        namespace: str = "default",
        uid: str = "",
        phase: str = "Running",
        annotations: Mapping[str, str] | None = None,
    ) -> Object:
        """A pod that is bound to the node."""
        pod: Object = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "uid": uid or str(uuid4())},
            "spec": {"nodeName": self.node, "restartPolicy": "Never"},
            "status": {"phase": phase},
        }
        if annotations:
            pod["metadata"]["annotations"] = dict(annotations)
        self.pods[namespace, name] = pod
        self.store(PODS, "ADDED", pod)
        return pod

    def end_pod(self, name: str, namespace: str = "default", phase: str = "Succeeded") -> None:
        """Every container of a pod has ended for good."""
        pod = copy.deepcopy(self.pods[namespace, name])
        pod["status"]["phase"] = phase
        self.pods[namespace, name] = pod
        self.store(PODS, "MODIFIED", pod)

    def delete_pod(self, name: str, namespace: str = "default") -> None:
        """A pod is gone."""
        self.store(PODS, "DELETED", copy.deepcopy(self.pods.pop((namespace, name))))

    def condition(self, kind: str) -> Object:
        """A condition of the node; empty if it has none of this type."""
        return next((one for one in self.status["conditions"] if one["type"] == kind), {})

    # Answers. ------------------------------------------------------------------------------------

    def answer(
        self, method: str, path: str, query: Mapping[str, str], body: Object, content_type: str
    ) -> Object | None:
        """The answer to a call; None where it is not of this group; Refused."""
        if not path.startswith(CORE):
            return None
        words = path[len(CORE) :].split("/")
        match (method, *words):
            case "GET", "pods":
                self._allow("list", "pods")
                return self._list(query)
            case "GET", "nodes", self.node:
                self._allow("get", "nodes")
                return self._node()
            case "PATCH", "nodes", self.node, "status":
                self._allow("patch", "nodes/status")
                return self._patch_status(body, content_type)
            case "POST", "namespaces", namespace, "events":
                self._allow("create", "events")
                return self._new_event(namespace, body)
            case "PATCH", "namespaces", namespace, "events", name:
                self._allow("patch", "events")
                return self._patch_event(namespace, name, body, content_type)
            case "POST", "namespaces", namespace, "pods", name, "eviction":
                self._allow("create", "pods/eviction")
                return self._evict(namespace, name, body)
        return None

    def select(self, query: Mapping[str, str]) -> Callable[[Object], bool]:
        """What a field selector selects of the pods; Refused."""
        self._allow("watch" if "watch" in query else "list", "pods")
        if query.get("fieldSelector") != f"spec.nodeName={self.node}":
            raise Refused(403, "pods is forbidden: can only list/watch pods with spec.nodeName")
        return lambda pod: pod["spec"]["nodeName"] == self.node

    def _allow(self, verb: str, resource: str) -> None:
        if f"{verb} {resource}" in self.forbidden:
            raise Refused(
                403,
                f'{resource} is forbidden: User "system:serviceaccount:sgpud:sgpud" cannot {verb}'
                f' resource "{resource}" in API group ""',
            )

    def _list(self, query: Mapping[str, str]) -> Object:
        selected = self.select(query)
        found = [pod for _, pod in sorted(self.pods.items()) if selected(pod)]
        start = int(query.get("continue") or 0)
        end = start + int(query.get("limit") or len(found) or 1)
        more = {"continue": str(end)} if end < len(found) else {}
        return {"kind": "PodList", "metadata": more, "items": copy.deepcopy(found[start:end])}

    def _node(self) -> Object:
        metadata = {"name": self.node, "uid": "node-uid"}
        return {"kind": "Node", "metadata": metadata, "status": copy.deepcopy(self.status)}

    def _patch_status(self, body: Object, content_type: str) -> Object:
        if content_type not in (MERGE, STRATEGIC):
            raise Refused(415, f"the body of the request was in an unknown format: {content_type}")
        self.patches.append(body["status"])
        for key, value in body["status"].items():
            if isinstance(value, dict):
                self.status[key] = {**self.status.get(key, {}), **value}
            elif content_type == STRATEGIC and key == "conditions":
                merged = {one["type"]: one for one in self.status[key]}
                for one in value:
                    merged[one["type"]] = {**merged.get(one["type"], {}), **one}
                self.status[key] = list(merged.values())
            else:
                self.status[key] = value
        return self._node()

    def _new_event(self, namespace: str, body: Object) -> Object:
        name = body["metadata"]["name"]
        if body["metadata"]["namespace"] != namespace:
            raise Refused(400, "the namespace of the object does not match the request")
        about = body["involvedObject"].get("namespace", "")
        if namespace != (about or "default"):
            raise Refused(422, "involvedObject.namespace: does not match event.namespace")
        if (namespace, name) in self.events:
            raise Refused(409, f'events "{name}" already exists')
        self.events[namespace, name] = copy.deepcopy(body)
        return body

    def _patch_event(self, namespace: str, name: str, body: Object, content_type: str) -> Object:
        if content_type not in (MERGE, STRATEGIC):
            raise Refused(415, f"the body of the request was in an unknown format: {content_type}")
        if (namespace, name) not in self.events:
            raise Refused(404, f'events "{name}" not found')
        self.events[namespace, name] |= json.loads(json.dumps(body))
        return copy.deepcopy(self.events[namespace, name])

    def _evict(self, namespace: str, name: str, body: Object) -> Object:
        pod = self.pods.get((namespace, name))
        if pod is None:
            raise Refused(404, f'pods "{name}" not found')
        wanted = body.get("deleteOptions", {}).get("preconditions", {}).get("uid")
        if wanted not in (None, pod["metadata"]["uid"]):
            raise Refused(409, "the UID in the precondition does not match the UID in record")
        budget = self.budgets.get((namespace, name))
        if budget is not None:
            text = "Cannot evict pod as it would violate the pod's disruption budget."
            raise Refused(429, f"{text} {budget}")
        self.evicted.append(name)
        pod = copy.deepcopy(pod)
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        self.pods[namespace, name] = pod
        self.store(PODS, "MODIFIED", pod)
        return {"kind": "Status", "status": "Success", "code": 201}
