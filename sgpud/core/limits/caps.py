"""Memory caps: how much GPU memory a container may take, as NVIDIA's container toolkit is told.

Since 1.20.1 the toolkit has a hook that reads two variables of a container, in MiB, and sets them
as limits of its cgroup, for each of its GPUs alike. The hook fails, and with it the start of the
container, where the driver does not know the call, on cgroup v1, for a MIG instance, and for more
than the GPU's memory: so the variables are given only where it can succeed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from attrs import frozen

from sgpud.core.gpu.gpu import Gpu

REQUEST_VARIABLE = "NVIDIA_GPU_MEMORY_REQUEST"
LIMIT_VARIABLE = "NVIDIA_GPU_MEMORY_LIMIT"
CAP_KIND = "deepomatic.com/memory-limit"
"""The kind of our CDI devices; each sets the two variables to one cap."""
HOOK = "apply-cuda-memory-limits"
"""The toolkit's hook."""
FIRST_DRIVER = 615
"""The first driver with nvmlDeviceSetMemoryLimits_v1."""
FIRST_TOOLKIT = "1.20.1"
"""The first toolkit with the hook."""
MOST_CAPS = 4096
"""Different caps for which there are CDI devices; others are given as variables."""
CUDA_CONTEXT = 512 * 2**20
"""Bytes that CUDA takes for itself in each process before the first allocation: 440 to 816 MiB were
measured with driver 615.71.09, less on older GPUs."""
_MIB = 2**20
_VERSION = re.compile(r"([0-9]{1,5})\.[0-9.]+")
_DEVICE = re.compile(rf"{re.escape(CAP_KIND)}=([1-9][0-9]{{0,8}})MiB")


@frozen
class CapTerms:
    """How much more than its grant a container may use."""

    factor: float = 1.0
    """The cap is the grant times this."""
    context: int = 0
    """Bytes that are added for each container's CUDA context."""

    def of(self, granted: int, containers: int = 1) -> int:
        """The cap in bytes of so many containers that were granted these bytes together."""
        return int(granted * self.factor) + self.context * containers


def knows_limits(driver: str) -> bool:
    """Whether a driver of this version can limit the memory of a cgroup."""
    found = _VERSION.fullmatch(driver)
    return found is not None and int(found[1]) >= FIRST_DRIVER


def memory_cap(granted: Iterable[tuple[Gpu, int]], terms: CapTerms) -> int:
    """The cap of a container in MiB; 0: none. `granted`: its GPUs, with the bytes granted of each.

    There is one value for all its GPUs: the largest. None where one of them promises no memory or
    cannot be limited; never more than a GPU has, which the driver refuses.
    """
    caps = []
    for gpu, size in granted:
        if not size or gpu.mig or gpu.fake:
            return 0
        caps.append(min(terms.of(size), gpu.memory or 0) // _MIB)
    return max(caps, default=0)


def possible_caps(sizes: Mapping[tuple[Gpu, int], int], terms: CapTerms) -> frozenset[int]:
    """Every cap that shares can have. `sizes`: how many shares, by GPU and bytes of one share."""
    found: set[int] = set()
    for (gpu, size), count in sizes.items():
        room = min(count, MOST_CAPS)
        found.update(memory_cap([(gpu, size * each)], terms) for each in range(1, room + 1))
    return frozenset(sorted(found - {0})[:MOST_CAPS])


def cap_device(cap: int) -> str:
    """The name of the CDI device that sets a cap of so many MiB, without its kind."""
    return f"{cap}MiB"


def cap_of_device(name: str) -> int:
    """The cap that a fully qualified CDI name stands for, in MiB; 0: it is not one of ours."""
    found = _DEVICE.fullmatch(name)
    return int(found[1]) if found else 0


def cap_variables(cap: int) -> dict[str, str]:
    """The variables that set a cap of so many MiB.

    The request stays 0: on cgroups with the dmem controller it would add up in every ancestor, and
    never be subtracted.
    """
    return {REQUEST_VARIABLE: "0", LIMIT_VARIABLE: str(cap)}


def cap_spec(caps: Iterable[int]) -> dict[str, object]:
    """The CDI spec with a device for each of these caps."""
    return {
        "cdiVersion": "0.5.0",
        "kind": CAP_KIND,
        "devices": [
            {
                "name": cap_device(cap),
                "containerEdits": {
                    "env": [f"{name}={value}" for name, value in cap_variables(cap).items()]
                },
            }
            for cap in sorted(caps)
        ],
    }
