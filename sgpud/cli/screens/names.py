"""The names in a status document that commands take: GPUs and pods. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def gpus(found: Mapping[str, Any]) -> list[str]:
    """Every GPU by its index and its UUID, and the physical GPUs of MIG instances."""
    indices = [gpu["index"] for gpu in found["gpus"] if gpu["index"] >= 0]
    uuids = [uuid for gpu in found["gpus"] for uuid in (gpu["physical"], gpu["uuid"])]
    unreadable = [gpu["index"] for gpu in found["unreadable"]]
    return [*dict.fromkeys(map(str, sorted({*indices, *unreadable}))), *dict.fromkeys(uuids)]


def pods(found: Mapping[str, Any]) -> list[str]:
    """The pods that hold shares, as NAMESPACE/NAME."""
    holders = [one for gpu in found["gpus"] for one in gpu["containers"] if one["pod"]]
    return sorted({f"{one['namespace']}/{one['pod']}" for one in holders})


KINDS: Mapping[str, Callable[[Mapping[str, Any]], list[str]]] = {"gpus": gpus, "pods": pods}
"""What can be listed."""
