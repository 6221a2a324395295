"""Which pods are evicted by sgpud itself: those that no taint evicts."""

from __future__ import annotations

from attrs import evolve

from sgpud.core.cluster.events import pod_reference
from sgpud.core.dra.claims import ClaimPod, PreparedClaim
from sgpud.core.dra.evictions import pods_to_evict
from sgpud.core.dra.prepare import prepare
from tests.core.dra.worlds import POOL, amount, claim, of_node, places
from tests.core.values import fallen, uuid

OF = places()
ONE, TWO = (device.name for device in of_node(OF))


def prepared(name: str, device: str, *, limits: bool = True, **pod: str) -> PreparedClaim:
    """A claim of one pod, prepared."""
    pods = (ClaimPod(pod.get("uid", f"uid-{name}"), pod.get("named", name)),)
    asked = evolve(claim(name, (device, amount(0))), pods=pods, extended_resource=limits)
    return prepare(asked, POOL, of_node(OF), {}, (), 5)


def test_pods_with_limits_on_an_unhealthy_gpu_are() -> None:
    claims = [
        prepared("sick", TWO),
        prepared("fine", ONE),
        prepared("claim", TWO, limits=False),  # the taint evicts it
        prepared("nameless", TWO, named=""),
    ]
    assert pods_to_evict(claims, OF) == {}
    assert pods_to_evict(claims, fallen(OF, uuid(1))) == {
        pod_reference("prod", "sick", "uid-sick"): f"its GPU {uuid(1)} is unhealthy"
    }
