"""The names of the cgroups of pods and containers; standard library only, for small processes."""

from __future__ import annotations

import re

_HEX4 = "(?P=dash)[0-9a-f]{4}"
UID = rf"[0-9a-f]{{8}}(?P<dash>[-_]?)[0-9a-f]{{4}}{_HEX4}{_HEX4}(?P=dash)[0-9a-f]{{12}}"
"""A UID with dashes, with the systemd driver's underscores, or a static pod's, which is a hash."""
POD = re.compile(rf"(?:.*-)?pod(?P<uid>{UID})(?:\.slice)?", re.ASCII)
"""The name of a pod's cgroup."""
CONTAINER = re.compile(
    r"(?:(?:cri-containerd|crio|docker|libpod)-)?(?P<id>[0-9a-f]{64})(?:\.scope)?", re.ASCII
)
"""The name of a container's cgroup."""


def uid_of(text: str) -> str:
    """The UID in a cgroup's name, as the API writes it."""
    return text.replace("_", "-")


def pod_of(name: str) -> str:
    """The UID of the pod whose own cgroup has this name, or empty."""
    found = POD.fullmatch(name)
    return uid_of(found["uid"]) if found else ""
