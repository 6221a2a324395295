"""What the child says is taken over only where it makes sense."""

import json
from typing import Any

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from sgpud.core.gpu.gpu import Gpu, Mig
from sgpud.core.gpu.observations import EventKind, GpuEvent, Sample
from sgpud.gpus.nvml.faults import GpuFault, GpuFaultKind
from sgpud.gpus.nvml.messages import (
    CallsEnded,
    CallStarted,
    EventMessage,
    GpuErrorMessage,
    Inventory,
    MessageError,
    SamplesMessage,
    parse,
)
from tests.gpus.nvml.stub import GPU_A, GPU_B, MIG_1

WHOLE: dict[str, Any] = {
    "uuid": GPU_A,
    "index": 0,
    "minor": 1,
    "pci": "00000000:3B:00.0",
    "product": "NVIDIA A100",
    "memory": 42949672960,
    "reserved": 671088640,
    "numa": 0,
    "compute": [8, 0],
    "mig": None,
}
SLICE: dict[str, Any] = {
    **WHOLE,
    "uuid": MIG_1,
    "index": 1,
    "mig": {"parent": GPU_B, "gi": 7, "ci": 0},
}
SAMPLE: dict[str, Any] = {
    "uuid": "GPU-1",
    "used": 1,
    "total": 2,
    "utilisation": 3,
    "recovery": 4,
    "ecc": 5,
    "ecc_total": 9,
    "remap": [True, False],
    "error": "",
}
SAMPLED = Sample("GPU-1", 1, 2, 3, 4, 5, ecc_total=9, remap_pending=True, remap_failed=False)


def said(*gpus: object, **more: object) -> bytes:
    message = {
        "type": "inventory",
        "driver": "580.12",
        "nvml": "12.580",
        "gpus": gpus,
        "unreadable": [],
    }
    return json.dumps({**message, **more}).encode()


def test_an_inventory_becomes_gpus_in_the_order_of_their_indexes() -> None:
    assert parse(said(SLICE, WHOLE)) == Inventory(
        "580.12",
        "12.580",
        (
            Gpu(
                uuid=GPU_A,
                index=0,
                product="NVIDIA A100",
                memory=42949672960,
                reserved=671088640,
                minor=1,
                pci="0000:3b:00.0",
                numa=0,
                compute=(8, 0),
            ),
            Gpu(
                uuid=MIG_1,
                index=1,
                product="NVIDIA A100",
                memory=42949672960,
                reserved=671088640,
                minor=1,
                pci="0000:3b:00.0",
                numa=0,
                compute=(8, 0),
                mig=Mig(GPU_B, 7, 0),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            b'{"type":"begin","call":"read","gpu":"GPU-1","index":0}',
            CallStarted("read", "GPU-1", 0),
        ),
        (b'{"type":"begin","call":"nvmlInit","gpu":null,"index":null}', CallStarted("nvmlInit")),
        (b'{"type":"end","took":{}}', CallsEnded()),
        (
            b'{"type":"end","took":{"read":[2,0.5],"sample":[1,1]}}',
            CallsEnded((("read", 2, 0.5), ("sample", 1, 1.0))),
        ),
        (b'{"type":"gpu-error","gpu":"3","error":"lost"}', GpuErrorMessage("3", "lost")),
        (
            b'{"type":"fault","kind":"no-driver","detail":"d"}',
            GpuFault(GpuFaultKind.NO_DRIVER, "d"),
        ),
        (
            b'{"type":"xid","gpu":"GPU-1","number":79,"gi":1,"ci":null,"count":3}',
            EventMessage(GpuEvent("GPU-1", EventKind.XID, 79, 1), 3),
        ),
        (
            b'{"type":"ecc","gpu":"GPU-1","gi":null,"ci":null,"count":1}',
            EventMessage(GpuEvent("GPU-1", EventKind.ECC)),
        ),
        (
            b'{"type":"error","gpu":"GPU-1","error":"lost"}',
            EventMessage(GpuEvent("GPU-1", EventKind.ERROR, detail="lost")),
        ),
        (
            json.dumps({"type": "samples", "gpus": [SAMPLE]}).encode(),
            SamplesMessage((SAMPLED,)),
        ),
    ],
)
def test_each_message_is_read(line: bytes, message: object) -> None:
    assert parse(line) == message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("uuid", ""),
        ("uuid", "GPU-" + "a" * 60),
        ("uuid", "GPU-a::1"),
        ("uuid", "GPU-\u00e9"),
        ("uuid", None),
        ("uuid", "0"),
        ("index", -1),
        ("index", True),
        ("memory", 1.5),
        ("memory", -1),
        ("compute", [8]),
        ("compute", "8.0"),
        ("mig", {"parent": "0", "gi": 1, "ci": 0}),
        ("mig", []),
        ("product", None),
    ],
)
def test_a_gpu_with_an_invalid_fact_is_ignored_and_named(field: str, value: object) -> None:
    message = parse(said({**WHOLE, field: value}, SLICE))
    assert isinstance(message, Inventory)
    assert [gpu.uuid for gpu in message.gpus] == [MIG_1]
    assert len(message.refused) == 1


def test_of_two_gpus_with_one_uuid_the_second_is_ignored() -> None:
    message = parse(said(WHOLE, {**SLICE, "uuid": GPU_A}))
    assert isinstance(message, Inventory)
    assert [gpu.index for gpu in message.gpus] == [0]
    assert message.refused == (("1", f"another GPU has the same UUID {GPU_A}"),)


def test_a_strange_pci_address_or_an_empty_name_is_accepted() -> None:
    message = parse(said({**WHOLE, "pci": "what", "product": ""}))
    assert isinstance(message, Inventory)
    assert (message.gpus[0].pci, message.gpus[0].product) == ("", "unnamed GPU")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"NVRM: something",
        b"[]",
        b"{}",
        b"null",
        b'{"type": 1}',
        b'{"type": []}',
        b'{"type": "inventory"}',
        b'{"type": "inventory", "driver": "", "nvml": "", "gpus": {}}',
        b'{"type": "fault", "kind": "no such", "detail": ""}',
        b'{"type": "fault", "kind": "died"}',
        b'{"type": "xid", "gpu": "GPU-1", "number": -1, "gi": null, "ci": null, "count": 1}',
        b'{"type": "xid", "gpu": "GPU-1", "number": 79, "gi": null, "ci": null}',
        b'{"type": "xid", "gpu": "0", "number": 79, "gi": null, "ci": null, "count": 1}',
        b'{"type": "ecc", "gpu": null, "gi": null, "ci": null, "count": 1}',
        b'{"type": "error", "gpu": "GPU-1", "error": null}',
        b'{"type": "hang", "gpu": "GPU-1", "error": "x"}',
        b'{"type": "samples", "gpus": {}}',
        b'{"type": "begin", "call": null, "gpu": null, "index": null}',
        b"\xff\xfe",
        b"[" * 100_000,
        b"1" * 10_000,
    ],
)
def test_anything_else_is_refused_in_a_short_line(line: bytes) -> None:
    with pytest.raises(MessageError) as caught:
        parse(line)
    assert len(str(caught.value)) < 500


def outcome(line: bytes) -> str:
    try:
        return str(parse(line))
    except MessageError as error:
        return str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
@example(b'{"type": NaN}')
def test_any_bytes_are_a_message_or_a_message_error(line: bytes) -> None:
    assert outcome(line)


@given(st.sampled_from(sorted(WHOLE)), JSON)
def test_any_value_in_a_gpu_gives_a_gpu_or_a_reason(field: str, value: object) -> None:
    message = parse(said({**WHOLE, field: value}))
    assert isinstance(message, Inventory)
    assert len(message.gpus) + len(message.refused) == 1


@given(st.sampled_from(sorted(SAMPLE)), JSON)
def test_any_value_in_a_sample_gives_a_sample_or_none(field: str, value: object) -> None:
    entries = [{**SAMPLE, field: value}, {**SAMPLE, "uuid": "GPU-2"}]
    message = parse(json.dumps({"type": "samples", "gpus": entries}).encode())
    assert isinstance(message, SamplesMessage)
    assert message.samples[-1] == evolve(SAMPLED, uuid="GPU-2")
