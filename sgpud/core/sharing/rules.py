"""The rules of sharing, as the configuration states them: which GPUs, in how many shares, how."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from attrs import evolve, field, frozen

from sgpud.core.gpu.gpu import Gpu, matches
from sgpud.core.units import Amount

DEFAULT_RESOURCE = "deepomatic.com/shared-gpu"
DEFAULT_FACTOR = 100
LARGE_STATUS = 256
"""Memory shares per GPU without `allow_large_status`: every id of a pod stands in its status."""


class Placement(Enum):
    """Which GPU the next share is taken from."""

    SPREAD = "spread"
    """The GPU with the smallest fraction of its shares held."""
    PACKED = "packed"
    """The GPU with the largest fraction held that still has room."""


class Multiple(Enum):
    """What several shares in one container mean; Allocate enforces it."""

    DISTINCT = "distinct"
    """n shares are n different GPUs."""
    SAME = "same"
    """n shares are n times one GPU; more than any GPU has are several whole GPUs."""
    ANY = "any"
    """n shares of any GPUs."""
    REFUSE = "refuse"
    """More than one share in a container is refused."""


class Advertise(Enum):
    """Which free memory shares are listed Healthy."""

    LARGEST = "largest"
    """Those of the one GPU with the most room: what the scheduler binds then fits on a GPU."""
    ALL = "all"
    """All of them: Allocate refuses what would be split."""


class InjectionMethod(Enum):
    """How a container is given its GPU."""

    AUTO = "auto"
    NVIDIA_RUNTIME = "nvidia-runtime"
    VOLUME_MOUNTS = "volume-mounts"
    CDI = "cdi"
    DEVICE_NODES = "device-nodes"


@frozen
class HostMount:
    """A folder or file of the host that containers see under another path."""

    host: str
    container: str
    read_only: bool = True


GKE_DRIVER = HostMount("/home/kubernetes/bin/nvidia", "/usr/local/nvidia")


@frozen
class InjectionSettings:
    """The `[container]` section: how containers are given their GPUs."""

    method: InjectionMethod = InjectionMethod.AUTO
    cdi_kind: str = "nvidia.com/gpu"
    mounts: tuple[HostMount, ...] = (GKE_DRIVER,)
    """Used by device-nodes only; one whose host path does not exist is left out."""


@frozen
class Partition:
    """How one GPU is shared under its terms."""

    shares: int
    """How many shares it has; 0 where they would be `asked`, more than are allowed."""
    size: int = 0
    """Bytes of one share; 0: a share is a place on the GPU."""
    usable: int = 0
    """Bytes that are shared: without what the driver and `reserve_memory` keep."""
    asked: int = 0


@frozen
class ShareTerms:
    """What a GPU is shared as: so many shares of one resource."""

    resource: str = DEFAULT_RESOURCE
    factor: int = DEFAULT_FACTOR
    """Shares per GPU (`duplication_factor`), where they are no memory shares."""
    share_memory: int = 0
    """Bytes that one share stands for; 0: shares are places, `factor` of them."""


@frozen
class GpuRule:
    """A `[[gpu]]` rule. Keys that it leaves out (None) are those of `[sharing]`."""

    match: str
    resource: str | None = None
    factor: int | None = None
    share_memory: int | None = None
    memory: int | None = None
    """Bytes of memory of a GPU of which NVML does not report it."""

    def terms(self, default: ShareTerms) -> ShareTerms:
        """The terms of the GPUs that it matches. With a factor and no size they are places."""
        size = self.share_memory
        if size is None:
            size = 0 if self.factor else default.share_memory
        return ShareTerms(self.resource or default.resource, self.factor or default.factor, size)


@frozen
class FullGuardSettings:
    """When a GPU counts as full, and when no longer."""

    headroom: Amount = field(factory=lambda: Amount(percent=5))
    """A GPU is full when less of its memory than this is free."""
    resume: Amount | None = None
    """It stops being full when more than this stays free; None: twice the headroom."""
    resume_after: float = 30.0
    """Seconds for which that much has to be free."""
    settle: float = 120.0
    """Seconds in which a container counts with what it is expected to use."""
    expected: int = 0
    """Bytes of that."""


@frozen
class Sharing:
    """The sharing part of the configuration."""

    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()
    default: ShareTerms = ShareTerms()
    rules: tuple[GpuRule, ...] = ()
    placement: Placement = Placement.SPREAD
    multiple: Multiple = Multiple.DISTINCT
    numa: bool = False
    """Publish NUMA nodes to the kubelet's topology manager (`[kubelet] numa`)."""
    injection: InjectionSettings = InjectionSettings()
    reserve_memory: int = 0
    """Bytes of each GPU that memory shares leave out."""
    advertise: Advertise = Advertise.LARGEST
    allow_large_status: bool = False
    full_guard: bool = False
    """Whether full GPUs get no more shares given."""
    guard_settings: FullGuardSettings = FullGuardSettings()
    measure_every: float = 5.0
    """Seconds from one measurement of the GPUs to the next."""

    @property
    def resources(self) -> tuple[str, ...]:
        """Every resource that the rules can make, the default one first."""
        named = (rule.resource for rule in self.rules if rule.resource)
        return tuple(dict.fromkeys((self.default.resource, *named)))

    def allows(self, gpu: Gpu) -> bool:
        """Whether the allow and deny lists let this GPU be shared; deny wins."""
        return any(matches(entry, gpu) for entry in self.allow) and not any(
            matches(entry, gpu) for entry in self.deny
        )

    def unguarded(self, gpus: Iterable[Gpu]) -> tuple[str, ...]:
        """The resources of several shares per GPU of which nothing guards the memory.

        Their shares are places, and no full-GPU guard looks at what their pods use.
        """
        if self.full_guard:
            return ()
        shared = ((terms, gpu) for gpu in gpus if (terms := self.terms(gpu)))
        parts = ((terms.resource, self.partition(gpu, terms)) for terms, gpu in shared)
        return tuple(
            dict.fromkeys(name for name, part in parts if not part.size and part.shares > 1)
        )

    def terms(self, gpu: Gpu) -> ShareTerms | None:
        """The terms of one GPU, by the first rule that matches; None when it is not shared."""
        if not self.allows(gpu):
            return None
        for rule in self.rules:
            if matches(rule.match, gpu):
                return rule.terms(self.default)
        return self.default

    def sized(self, gpu: Gpu) -> Gpu:
        """The GPU, with the memory that its rule gives it if NVML does not report any."""
        if gpu.memory is not None:
            return gpu
        first = next((rule for rule in self.rules if matches(rule.match, gpu)), None)
        return evolve(gpu, memory=first.memory) if first and first.memory else gpu

    def partition(self, gpu: Gpu, terms: ShareTerms) -> Partition:
        """How a GPU is shared under these terms."""
        memory = self.sized(gpu).memory or 0
        usable = max(0, memory - gpu.reserved - self.reserve_memory)
        if not terms.share_memory:
            return Partition(terms.factor, 0, usable, terms.factor)
        count = usable // terms.share_memory
        most = count if self.allow_large_status else LARGE_STATUS
        return Partition(count if count <= most else 0, terms.share_memory, usable, count)

    def unmatched(self, gpus: Iterable[Gpu]) -> tuple[tuple[str, str], ...]:
        """Entries that mean no GPU at all, as (key, entry); `*` is never one of them."""
        present = tuple(gpus)
        entries = [
            *(("gpus.allow", entry) for entry in self.allow),
            *(("gpus.deny", entry) for entry in self.deny),
            *(("gpu.match", rule.match) for rule in self.rules),
        ]
        return tuple(
            (key, entry)
            for key, entry in entries
            if entry != "*" and not any(matches(entry, gpu) for gpu in present)
        )
