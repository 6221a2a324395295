"""Finds the pod and container of a process from its files in /proc. Text in, values out.

/proc/PID/cgroup has lines `ID:CONTROLLERS:PATH`, one on cgroup v2 (`0::PATH`) and one for each
hierarchy on v1. The paths of the kubelet and the runtimes, here for a Burstable pod:

- systemd driver: `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID, with _ for
  ->.slice/cri-containerd-<ID>.scope`, `crio-<ID>.scope` or `docker-<ID>.scope`
- cgroupfs driver: `/kubepods/burstable/pod<UID>/<ID>`, with CRI-O `crio-<ID>`
- containerd configured for cgroupfs under a kubelet that is not:
  `/system.slice/containerd.service/kubepods-burstable-pod<UID>.slice:cri-containerd:<ID>`

A reader in its own cgroup namespace sees `/../` for each level above its own cgroup and nothing
beyond: the UID of its own pod is hidden.

/proc/PID/mountinfo has the termination log that the kubelet mounts into every container:
`.../pods/<UID>/containers/<NAME>/<HEX>`. Only the runtime knows a container's name otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import evolve, frozen

from sgpud.core.gpu.cgroup_names import CONTAINER, POD, UID, uid_of

_MOUNTED = re.compile(
    rf"/pods/(?P<uid>{UID})/containers/(?P<name>[a-z0-9](?:[a-z0-9-]{{0,61}}[a-z0-9])?)/[0-9a-f]+",
    re.ASCII,
)
_BESIDE = 2
"""Maximum levels from a container's cgroup up to the one shared with other containers of its pod:
CRI-O with crun has one more. Another pod's is at least three levels up."""


@frozen
class Cgroup:
    """The pod and container in the cgroups of a process."""

    pods: tuple[str, ...] = ()
    """Pod UIDs as the API writes them, the outermost first."""
    container_id: str = ""
    """Of the container in the outermost of these pods, or of one outside every pod."""
    path: str = ""
    """The path this was found in; the first one, if nothing was found."""
    hidden: bool = False
    """Whether it is in the reader's own container or pod, whose UID a cgroup namespace hides."""


def parse_cgroup(text: str, *, private: bool = False) -> Cgroup:
    """Parse the text of /proc/PID/cgroup; an empty Cgroup for garbage.

    `private`: it was read in a cgroup namespace other than the host's.
    """
    found = [_of_path(path, private=private) for path in _paths(text)]
    best = next((each for each in found if each.pods), None)
    if best or not found:
        return best or Cgroup()
    # On v1 the reader may be in a cgroup of some hierarchies, and at the root of others.
    hidden = all(each.hidden for each in found)
    best = next((each for each in found if each.container_id), found[0])
    return evolve(best, hidden=hidden)


def mounted_in(text: str) -> tuple[str, str] | None:
    """Pod UID and name of the container whose mounts these are (/proc/PID/mountinfo), or None."""
    for line in text.splitlines():
        # The fourth field is the mounted file's path within its own file system.
        fields = line.split(" ", 5)
        found = _MOUNTED.search(fields[3]) if len(fields) > 4 else None  # noqa: PLR2004
        if found:
            return uid_of(found["uid"]), found["name"]
    return None


def _paths(text: str) -> Iterator[str]:
    """The paths, v2's first: on a machine with both, v1's have the same or less."""
    lines = [line.split(":", 2) for line in text.splitlines()]
    known = [line for line in lines if len(line) == 3 and line[2].startswith("/")]  # noqa: PLR2004
    yield from (path for number, _, path in sorted(known, key=lambda line: line[0] != "0"))


def _of_path(path: str, *, private: bool) -> Cgroup:
    pods: list[str] = []
    containers: list[str] = []
    segments = re.split("[/:]", path)
    for segment in segments:
        pod, container = POD.fullmatch(segment), CONTAINER.fullmatch(segment)
        if pod:
            if not pods:
                containers.clear()
            pods.append(uid_of(pod["uid"]))
        elif container:
            containers.append(container["id"])
    inside = containers[0 if pods else -1] if containers else ""
    hidden = private and not pods and segments.count("..") <= _BESIDE
    return Cgroup(tuple(pods), inside, path, hidden)
