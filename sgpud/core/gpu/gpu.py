"""A GPU as sgpud sees it: one physical GPU, or one MIG instance, known by its UUID."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from attrs import frozen

from sgpud.core.json_checks import is_a, maybe, number, pair, uuid_of

_MOST_MEMORY = 2**50
_PCI = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})(?:\.([0-7]))?", re.IGNORECASE)

_PREFIX = re.compile(r"(?:mig-gpu-|mig-|gpu-)(?=.)")
_GROUPS = re.compile(r"[0-9a-f]{8}-[0-9a-f*?-]+")


@frozen
class Mig:
    """Where a MIG instance sits: its physical GPU, GPU instance and compute instance."""

    parent: str
    """UUID of the physical GPU."""
    gi: int
    """GPU instance id, as the driver numbers it."""
    ci: int
    """Compute instance id within that GPU instance."""


@frozen
class Gpu:
    """One GPU that can be shared. Equality covers every fact: a changed fact is a changed GPU."""

    uuid: str
    """The identity, stable over reboots: `GPU-…`, `MIG-…`, or without a prefix (Jetson)."""
    index: int
    """NVML's index of the physical GPU (a MIG instance has its parent's)."""
    product: str
    """The product name, e.g. `NVIDIA A100-SXM4-40GB`; a MIG instance's names its profile."""
    memory: int | None
    """Total memory in bytes; None where NVML does not report it (GPUs that share the machine's)."""
    reserved: int = 0
    """Memory in bytes that the driver keeps for itself (NVML's memory info, version 2)."""
    minor: int | None = None
    """N of the physical GPU's /dev/nvidiaN."""
    pci: str = ""
    """PCI address of the physical GPU, e.g. `0000:3b:00.0`, in lower case."""
    numa: int | None = None
    """NUMA node, or None where the machine does not tell."""
    compute: tuple[int, int] | None = None
    """CUDA compute capability (major, minor)."""
    mig: Mig | None = None
    """Set for a MIG instance."""
    fake: bool = False
    """True for a GPU that exists in a file of fake GPUs only."""

    @property
    def physical(self) -> str:
        """The UUID of the physical GPU: its own, or the parent's."""
        return self.mig.parent if self.mig else self.uuid

    @property
    def order(self) -> tuple[int, int, int, str]:
        """The order in which GPUs are shown and planned: by index, then by instance."""
        gi, ci = (self.mig.gi, self.mig.ci) if self.mig else (-1, -1)
        return (self.index, gi, ci, self.uuid)


def gpu_of(entry: object) -> Gpu:
    """The GPU in a JSON object: the probe's, or one of the state directory's.

    KeyError, TypeError or ValueError for what is not such an object.
    """
    said = is_a(dict, entry)
    compute, mig = said["compute"], said["mig"]
    return Gpu(
        uuid=uuid_of(said["uuid"]),
        index=number(said["index"]),
        product=is_a(str, said["product"]) or "unnamed GPU",
        memory=_memory_of(said["memory"]),
        reserved=number(said["reserved"]),
        minor=maybe(said["minor"]),
        pci=pci_address(is_a(str, said["pci"])) or "",
        numa=maybe(said["numa"]),
        compute=None if compute is None else pair(compute),
        mig=None if mig is None else _mig_of(is_a(dict, mig)),
        fake=is_a(bool, said.get("fake", False)),
    )


def _memory_of(value: object) -> int | None:
    """Bytes; None for 0, and for more than can be, as 2^64-1 which some libraries say."""
    if isinstance(value, int) and value >= _MOST_MEMORY:
        return None
    return maybe(value) or None


def _mig_of(said: dict[str, object]) -> Mig:
    return Mig(uuid_of(said["parent"]), number(said["gi"]), number(said["ci"]))


@frozen
class UnreadableGpu:
    """A GPU that NVML counts and that cannot be shared, with the reason."""

    index: int
    """NVML's index."""
    reason: str
    uuid: str = ""
    """Empty where it could not be read."""
    pci: str = ""
    """Its PCI address, or empty."""

    @property
    def named(self) -> str:
        """How a log line or a status names it."""
        known = ", ".join(filter(None, (self.uuid, self.pci)))
        return f"GPU {self.index}" + (f" ({known})" if known else "")

    def is_meant(self, entry: str) -> bool:
        """Whether an entry of a list, or a name that a person gives, means it."""
        return (
            entry == str(self.index)
            or (bool(self.uuid) and same_uuid(entry, self.uuid))
            or (bool(self.pci) and pci_address(entry) == self.pci)
        )


def pci_address(text: str) -> str | None:
    """`0000:3b:00.0` for every usual way to write that PCI address; None for anything else.

    NVML writes an eight-digit domain, lspci often none, and people leave the function out.
    """
    found = _PCI.fullmatch(text)
    if not found:
        return None
    domain, bus, slot, function = found.groups()
    return f"{int(domain or '0', 16):04x}:{bus}:{slot}.{function or '0'}".lower()


def uuid_key(text: str) -> str:
    """What is left of a UUID without what people and tools write differently.

    That is its case, and the prefix, which not every driver and tool gives.
    """
    lower = text.casefold()
    prefix = _PREFIX.match(lower)
    return lower[prefix.end() :] if prefix else lower


def same_uuid(written: str, uuid: str) -> bool:
    """Whether what a person or a file says is this UUID. An index never is."""
    return written == uuid or (not written.isdecimal() and uuid_key(written) == uuid_key(uuid))


def looks_like_uuid(entry: str) -> bool:
    """Whether a text is written like a UUID, or its beginning, with a prefix or without."""
    return bool(_PREFIX.match(entry.casefold()) or _GROUPS.fullmatch(entry.casefold()))


def matches(entry: str, gpu: Gpu) -> bool:
    """Whether an entry of a list means this GPU.

    An entry is a UUID (a physical GPU's stands for its MIG instances too), an index, a PCI
    address, or a glob on the product name (`*` and `?`) in which case does not count.
    """
    if same_uuid(entry, gpu.uuid) or same_uuid(entry, gpu.physical):
        return True
    if entry.isascii() and entry.isdigit():
        return int(entry) == gpu.index
    address = pci_address(entry)
    if address is not None:
        return address == gpu.pci
    return glob_matches(entry, gpu.product)


def glob_matches(pattern: str, text: str) -> bool:
    """Whether a text is what a pattern says, in which only `*` and `?` mean more than themselves.

    Case does not count.
    """
    return fnmatchcase(text.casefold(), pattern.casefold().replace("[", "[[]"))
