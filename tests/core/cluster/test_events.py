"""Which Events are written: counted, combined and limited as client-go's correlator does it."""

from __future__ import annotations

from sgpud.core.cluster.events import (
    BURST,
    COMBINED,
    KEPT,
    LONGEST,
    ONE_MORE_EVERY,
    SIMILAR_AT_MOST,
    SIMILAR_WITHIN,
    ClusterEvent,
    Correlation,
    EventWrite,
    correlate,
    event_document,
    event_patch,
    forget,
    node_reference,
    pod_reference,
)

NODE = node_reference("node-1")
NOW = 1_700_000_000.0


def said(*messages: str, at: float = NOW, apart: float = 1.0) -> list[EventWrite | None]:
    """What is written of these, one after the other."""
    state, found = Correlation(), []
    for number, message in enumerate(messages):
        state, write = correlate(state, ClusterEvent(NODE, "Sick", message), at + apart * number)
        found.append(write)
    return found


def test_the_same_again_is_one_event_with_a_count() -> None:
    first, second = said("a", "a")
    assert first is not None
    assert second is not None
    assert (first.count, second.count) == (1, 2)
    assert second.name == first.name
    assert (second.first, second.last) == (NOW, NOW + 1)
    assert event_patch(second) == {
        "count": 2,
        "lastTimestamp": "2023-11-14T22:13:21Z",
        "message": "a",
    }


def test_two_of_the_same_moment_have_two_names() -> None:
    first, second = said("a", "b", apart=0.0)
    assert first is not None
    assert second is not None
    assert first.name != second.name


def test_many_that_differ_in_their_message_become_one() -> None:
    found = said(*(f"m{number}" for number in range(SIMILAR_AT_MOST + 2)))
    singles, combined = found[: SIMILAR_AT_MOST - 1], found[SIMILAR_AT_MOST - 1 :]
    assert all(write and write.count == 1 for write in singles)
    assert [write and write.count for write in combined] == [1, 2, 3]
    assert {write and write.name for write in combined} == {combined[0] and combined[0].name}
    assert combined[2] is not None
    assert combined[2].event.message == f"{COMBINED}m{SIMILAR_AT_MOST + 1}"


def test_those_of_long_ago_are_not_combined() -> None:
    messages = [f"m{number}" for number in range(SIMILAR_AT_MOST + 2)]
    found = said(*messages, apart=SIMILAR_WITHIN + 1)
    assert [write and write.event.message for write in found] == messages


def test_of_one_object_there_is_a_limited_number() -> None:
    found = said(*["a"] * (BURST + 5), apart=0.0)
    assert [write is not None for write in found] == [True] * BURST + [False] * 5
    state = Correlation()
    for _ in range(BURST):
        state, _ = correlate(state, ClusterEvent(NODE, "Sick", "a"), NOW)
    assert correlate(state, ClusterEvent(NODE, "Sick", "a"), NOW)[1] is None
    other = pod_reference("ns", "pod", "uid")
    state, write = correlate(state, ClusterEvent(other, "Sick", "a"), NOW)
    assert write is not None
    state, write = correlate(state, ClusterEvent(NODE, "Sick", "a"), NOW + ONE_MORE_EVERY)
    assert write is not None
    # What was not written is not counted.
    assert write.count == BURST + 1


def test_one_that_is_gone_is_a_new_one_next_time() -> None:
    state, write = correlate(Correlation(), ClusterEvent(NODE, "Sick", "a"), NOW)
    assert write is not None
    _, again = correlate(forget(state, write), ClusterEvent(NODE, "Sick", "a"), NOW + 1)
    assert again is not None
    assert (again.count, again.name != write.name) == (1, True)


def test_a_clock_that_is_set_back_frees_nothing() -> None:
    state = Correlation()
    for _ in range(BURST):
        state, _ = correlate(state, ClusterEvent(NODE, "Sick", "a"), NOW)
    state, write = correlate(state, ClusterEvent(NODE, "Sick", "a"), NOW - 10_000)
    assert write is None


def test_what_is_remembered_is_bounded() -> None:
    state = Correlation()
    for number in range(2 * KEPT):
        about = pod_reference("ns", f"pod-{number}", f"uid-{number}")
        state, _ = correlate(state, ClusterEvent(about, "Refused", "x" * 2 * LONGEST), NOW)
    assert max(len(state.similar), len(state.written), len(state.buckets)) == KEPT


def test_the_document_is_what_the_api_server_takes() -> None:
    about = pod_reference("ns", "pod", "uid")
    _, write = correlate(Correlation(), ClusterEvent(about, "Refused", "x" * 2 * LONGEST), NOW)
    assert write is not None
    document = event_document(write, "node-1")
    assert document["metadata"]["namespace"] == "ns"
    assert document["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "pod",
        "namespace": "ns",
        "uid": "uid",
    }
    assert document["source"] == {"component": "sgpud", "host": "node-1"}
    assert (document["count"], len(document["message"])) == (1, LONGEST)
    _, write = correlate(Correlation(), ClusterEvent(NODE, "Sick", "a"), NOW)
    assert write is not None
    document = event_document(write, "node-1")
    assert document["metadata"]["namespace"] == "default"
    # The kubelet refers to its Node like this, and kubectl describe looks for it.
    assert document["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Node",
        "name": "node-1",
        "uid": "node-1",
    }
