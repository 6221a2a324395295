"""ResourceClaims: as read from the API server, and as prepared on this node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import field, frozen

MEMORY = "memory"
"""The capacity of a device that counts bytes."""
SHARES = "shares"
"""The capacity of a device that counts places."""


@frozen
class AllocatedShare:
    """One share of one device, as the scheduler gave it to a claim."""

    request: str
    """The claim's request, without a subrequest."""
    pool: str
    device: str
    share_id: str
    """The share's UID: it tells two shares of one device apart."""
    consumed: Mapping[str, int] = field(factory=dict)
    """By capacity: bytes of MEMORY, a count of SHARES."""


@frozen
class ClaimPod:
    """A pod that a claim is reserved for."""

    uid: str
    name: str = ""


@frozen
class AllocatedClaim:
    """A ResourceClaim that was allocated, as far as it concerns this driver."""

    uid: str
    namespace: str
    name: str
    shares: tuple[AllocatedShare, ...]
    pods: tuple[ClaimPod, ...] = ()
    """Those that it is reserved for."""
    extended_resource: bool = False
    """Whether the scheduler made it for a pod's `limits`."""


@frozen
class PreparedClaim:
    """A claim that this node has prepared, until it is unprepared."""

    claim: AllocatedClaim
    uuids: Mapping[str, str]
    """GPU UUIDs by device name."""
    since: int
    """Seconds since the epoch."""

    @property
    def uid(self) -> str:
        """The claim's UID."""
        return self.claim.uid


def consumption(claims: Iterable[PreparedClaim]) -> dict[str, dict[str, int]]:
    """What prepared claims consume together, by GPU UUID and capacity.

    A share counts once, however often the kubelet lists it, and a negative amount as 0.
    """
    found: dict[str, dict[str, int]] = {}
    counted: set[tuple[str, str]] = set()
    for prepared in claims:
        for share in prepared.claim.shares:
            uuid = prepared.uuids.get(share.device)
            key = (share.device, share.share_id or f"{prepared.uid}/{share.request}")
            if uuid is None or key in counted:
                continue
            counted.add(key)
            sums = found.setdefault(uuid, {})
            for capacity, amount in share.consumed.items():
                sums[capacity] = sums.get(capacity, 0) + max(0, amount)
    return found
