"""Slices and claims as JSON: what is sent, what comes back, and what is not to be believed."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.dra.claims import MEMORY, SHARES
from sgpud.core.dra.objects import (
    EXTENDED,
    ClaimError,
    SliceOwner,
    claim_of,
    difference,
    gates_missing,
    same_but_for_order,
    slice_document,
    slice_of,
)
from sgpud.core.health.node_health import cordoned
from tests.core.dra.worlds import of_node, places
from tests.core.values import uuid

OWNER = SliceOwner("gpu.deepomatic.com", "node-1", "node-uid")
DOCUMENT = slice_document(OWNER, of_node(places()))
SPEC = DOCUMENT["spec"]
CLAIM: dict[str, Any] = {
    "metadata": {"name": "c", "namespace": "n", "uid": "u", "annotations": {EXTENDED: "true"}},
    "status": {
        "allocation": {
            "devices": {
                "results": [
                    {
                        "request": "gpu/large",
                        "driver": OWNER.driver,
                        "pool": "node-1",
                        "device": "d",
                        "shareID": "s",
                        "consumedCapacity": {"memory": "1500M", "shares": "1"},
                    },
                    {"request": "nic", "driver": "nic.example.com", "pool": "p", "device": "d"},
                ]
            }
        },
        "reservedFor": [{"resource": "pods", "name": "web", "uid": "pod-uid"}],
    },
}


def test_a_claim_is_read_as_far_as_it_is_ours() -> None:
    found = claim_of(CLAIM, OWNER.driver)
    (share,) = found.shares
    assert (share.request, share.device, share.share_id) == ("gpu", "d", "s")
    assert share.consumed == {MEMORY: 1_500_000_000, SHARES: 1}
    assert [(pod.name, pod.uid) for pod in found.pods] == [("web", "pod-uid")]
    assert found.extended_resource


def test_a_claim_without_an_allocation_is_an_error() -> None:
    with pytest.raises(ClaimError, match="it is not allocated"):
        claim_of({**CLAIM, "status": {}}, OWNER.driver)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["metadata", "status", "allocation", "devices", "results", "uid"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_json)
def test_whatever_the_server_answers_makes_no_other_error(document: Any) -> None:
    with suppress(ClaimError):
        claim_of(document, OWNER.driver)
    with suppress(KeyError, TypeError, ValueError):
        slice_of(document)


def test_a_slice_that_is_rewritten_with_other_quantities_is_the_same() -> None:
    stored = copy.deepcopy(SPEC)
    for device in stored["devices"]:
        assert device["capacity"]["memory"]["value"] == "40Gi"
        device["capacity"]["memory"]["value"] = "40960Mi"
    assert difference(SPEC, stored) == ()


@pytest.mark.parametrize(
    ("field", "gates"),
    [
        ("allowMultipleAllocations", ("DRAConsumableCapacity",)),
        ("attributes", ()),
    ],
)
def test_what_the_server_drops_is_named_with_its_gate(field: str, gates: tuple[str, ...]) -> None:
    stored = copy.deepcopy(SPEC)
    for device in stored["devices"]:
        del device[field]
    dropped = difference(SPEC, stored)
    assert any(field in path for path in dropped)
    assert gates_missing(dropped) == gates


def test_a_dropped_taint_names_its_gate() -> None:
    sent = slice_document(OWNER, of_node(cordoned(places(), uuid(0), on=True)))["spec"]
    assert gates_missing(difference(sent, SPEC)) == ("DRADeviceTaints",)
    assert difference(SPEC, sent)


def test_another_order_is_told_from_another_device() -> None:
    turned = {**SPEC, "devices": list(reversed(SPEC["devices"]))}
    assert difference(SPEC, turned)
    assert same_but_for_order(SPEC, turned)
    assert not same_but_for_order(SPEC, {**SPEC, "devices": SPEC["devices"][:1]})


def test_a_taint_that_stays_keeps_its_time() -> None:
    of = cordoned(places(), uuid(0), on=True)
    stored = json.loads(json.dumps(slice_document(OWNER, of_node(of))))
    stored["metadata"] = {"name": "s", "uid": "u", "resourceVersion": "7"}
    for device in stored["spec"]["devices"]:
        for taint in device.get("taints", ()):
            taint["timeAdded"] = "2026-01-01T00:00:00Z"
    found = slice_document(OWNER, of_node(of), slice_of(stored))
    assert found["metadata"]["resourceVersion"] == "7"
    assert found["spec"] == stored["spec"]
