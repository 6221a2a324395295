"""Which Events are written, and how: correlated as client-go's EventCorrelator does it.

An Event that repeats is counted in the one that is there; many that differ in their message only
become one; and of what concerns one object there is a limited number.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from enum import Enum
from typing import Any

from attrs import evolve, field, frozen

COMPONENT = "sgpud"
"""The source of every Event."""
SIMILAR_AT_MOST = 10
"""Messages of one reason about one object: with this many they are combined."""
SIMILAR_WITHIN = 600.0
"""Seconds without one after which they are counted from the beginning."""
BURST = 25
"""Events about one object, until one more is allowed every ONE_MORE_EVERY seconds."""
ONE_MORE_EVERY = 300.0
COMBINED = "(combined from similar events): "
LONGEST = 1024
"""Characters of a message, as events.k8s.io/v1 takes it."""
KEPT = 512
"""Objects, and Events, that are remembered."""
DEFAULT_NAMESPACE = "default"
"""Where Events about nodes are."""

_Key = tuple[str, ...]


class EventType(Enum):
    """How serious an Event is."""

    NORMAL = "Normal"
    WARNING = "Warning"


@frozen
class ObjectReference:
    """The object that an Event is about, or that is to be evicted."""

    kind: str
    name: str
    namespace: str = ""
    """Empty for a Node."""
    uid: str = ""

    @property
    def named(self) -> str:
        """Namespace and name."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def node_reference(name: str) -> ObjectReference:
    """A Node as the kubelet refers to it, with its name for its UID: so kubectl finds it."""
    return ObjectReference("Node", name, uid=name)


def pod_reference(namespace: str, name: str, uid: str) -> ObjectReference:
    """A pod."""
    return ObjectReference("Pod", name, namespace, uid)


@frozen
class ClusterEvent:
    """Something that happened to an object."""

    about: ObjectReference
    reason: str
    """In CamelCase, the same for the same kind of thing."""
    message: str
    type: EventType = EventType.WARNING

    @property
    def namespace(self) -> str:
        """Where it is written."""
        return self.about.namespace or DEFAULT_NAMESPACE


@frozen
class EventWrite:
    """One write: a new Event, or one more in the count of an old one."""

    event: ClusterEvent
    key: _Key
    name: str
    count: int
    first: float
    """Seconds since the epoch, as `last`."""
    last: float


@frozen
class _Similar:
    messages: frozenset[str] = frozenset()
    last: float = float("-inf")


@frozen
class _Bucket:
    tokens: float = BURST
    at: float = 0.0


@frozen
class Correlation:
    """What was written, as far as it matters for the next."""

    similar: Mapping[_Key, _Similar] = field(factory=dict)
    written: Mapping[_Key, EventWrite] = field(factory=dict)
    buckets: Mapping[ObjectReference, _Bucket] = field(factory=dict)
    sequence: int = 0


def correlate(
    state: Correlation, event: ClusterEvent, now: float
) -> tuple[Correlation, EventWrite | None]:
    """What is written of an Event, at `now` (since the epoch); None: there were too many.

    The write is taken to succeed; `forget` takes that back.
    """
    event = evolve(event, message=event.message[:LONGEST])
    group = (*_object(event.about), event.type.value, event.reason)
    known = state.similar.get(group, _Similar())
    if now - known.last > SIMILAR_WITHIN:
        known = _Similar()
    messages = known.messages | {event.message}
    key: _Key = (*group, event.message)
    if len(messages) >= SIMILAR_AT_MOST:
        messages = known.messages
        event = evolve(event, message=f"{COMBINED}{event.message}"[:LONGEST])
        key = group
    before = state.written.get(key)
    sequence = state.sequence + 1
    write = EventWrite(
        event,
        key,
        before.name if before else f"{event.about.name}.{int(now * 1e9) + sequence:x}",
        before.count + 1 if before else 1,
        before.first if before else now,
        now,
    )
    bucket = state.buckets.get(event.about, _Bucket(at=now))
    tokens = min(BURST, bucket.tokens + max(0.0, now - bucket.at) / ONE_MORE_EVERY)
    allowed = tokens >= 1
    spent = _Bucket(tokens - 1 if allowed else tokens, now)
    state = Correlation(
        _kept(state.similar, group, _Similar(messages, now)),
        _kept(state.written, key, write) if allowed else state.written,
        _kept(state.buckets, event.about, spent),
        sequence,
    )
    return state, write if allowed else None


def forget(state: Correlation, write: EventWrite) -> Correlation:
    """The state without an Event that is not there: the next one is a new one."""
    return evolve(
        state, written={key: one for key, one in state.written.items() if key != write.key}
    )


def event_document(write: EventWrite, host: str) -> dict[str, Any]:
    """A new Event as the API server takes it; `host` is this node."""
    event = write.event
    about = {"apiVersion": "v1", "kind": event.about.kind, "name": event.about.name}
    if event.about.namespace:
        about["namespace"] = event.about.namespace
    if event.about.uid:
        about["uid"] = event.about.uid
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": write.name, "namespace": event.namespace},
        "involvedObject": about,
        "reason": event.reason,
        "message": event.message,
        "type": event.type.value,
        "source": {"component": COMPONENT, "host": host},
        "reportingComponent": COMPONENT,
        "reportingInstance": host,
        "firstTimestamp": timestamp(write.first),
        **event_patch(write),
    }


def event_patch(write: EventWrite) -> dict[str, Any]:
    """What changes of an Event that is there."""
    return {
        "count": write.count,
        "lastTimestamp": timestamp(write.last),
        "message": write.event.message,
    }


def timestamp(seconds: float) -> str:
    """A time as Kubernetes writes it."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _object(about: ObjectReference) -> _Key:
    return (about.kind, about.namespace, about.name, about.uid)


def _kept(known: Mapping[Any, Any], key: Any, value: Any) -> dict[Any, Any]:
    """The mapping with this value as its latest, and without the oldest beyond KEPT."""
    others = [(one, each) for one, each in known.items() if one != key]
    return {**dict(others[-(KEPT - 1) :]), key: value}
