"""What the daemon says to a kubelet that asks for what it may not give, over real gRPC."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from sgpud.testing.kubelet.plugins import PluginError
from sgpud.testing.kubelet.records import AdmissionError
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import RESOURCE, A, B, Node, shares
from tests.daemon.process import Process
from tests.daemon.record import WITHIN
from tests.daemon.steps import admit, became

INVALID = grpc.StatusCode.INVALID_ARGUMENT
FAILED = grpc.StatusCode.FAILED_PRECONDITION
UNKNOWN = f"{A}::4000"
LEFT = "GPU-00000000-0000-4000-8000-00000000000c::0"
REQUESTS = [
    ("distinct", (), INVALID, "nothing", ["no share was requested"]),
    ("distinct", (UNKNOWN,), INVALID, "unknown", [UNKNOWN, "not advertised here"]),
    ("distinct", (f"{A}::0", LEFT, UNKNOWN), INVALID, "unknown", [UNKNOWN, LEFT]),
    ("distinct", ("not an id",), INVALID, "unknown", ["not an id"]),
    ("distinct", (f"{A}::1", f"{A}::1"), INVALID, "twice", ["named more than once", f"{A}::1"]),
    (
        "distinct",
        (f"{A}::1", f"{A}::2"),
        FAILED,
        "multiple",
        [f"{A}::1, {A}::2", "2 shares are on 1 of the 2 GPUs", '"distinct"'],
    ),
    (
        "same",
        (f"{A}::1", f"{B}::2"),
        FAILED,
        "multiple",
        [A, B, "2 shares are on 2 GPUs", '"same"'],
    ),
    ("refuse", (f"{A}::1", f"{B}::1"), FAILED, "multiple", [A, B, '"refuse" allows 1']),
]


@pytest.fixture(scope="module")
def refusing() -> Iterator[tuple[Node, Process, StandInKubelet]]:
    """One daemon for every refusal: none of them changes anything."""
    with Node() as node, node.kubelet() as kubelet:
        process = node.start()
        became(kubelet, RESOURCE, 20, 20)
        yield node, process, kubelet


@pytest.mark.parametrize(("multiple", "ids", "code", "rule", "texts"), REQUESTS)
def test_a_refusal_names_rule_shares_and_gpu(
    refusing: tuple[Node, Process, StandInKubelet],
    multiple: str,
    ids: tuple[str, ...],
    code: grpc.StatusCode,
    rule: str,
    texts: list[str],
) -> None:
    node, process, kubelet = refusing
    node.configure(sharing=f'multiple = "{multiple}"')
    process.ask("reload")
    before = process.view()["counters"]["refusals"].get(rule, 0)
    mark = process.log.mark
    with pytest.raises(PluginError) as caught:
        kubelet.plugin(RESOURCE).allocate(ids, WITHIN)
    assert caught.value.code is code
    assert caught.value.details.startswith(f"sgpud: {rule}: ")
    for text in texts:
        assert text in caught.value.details
    process.said("refused a container, its pod fails", mark)
    shown = node.command("plan", "--json", "--run-dir", str(node.run))
    assert json.loads(shown.stdout)["view"]["counters"]["refusals"][rule] == before + 1
    assert kubelet.lists(RESOURCE)[-1].healthy == shares(10, 10)


@pytest.mark.parametrize("order", [(1, -1), (-1, 1)])
def test_the_order_of_the_ids_does_not_matter(
    refusing: tuple[Node, Process, StandInKubelet], order: tuple[int, int]
) -> None:
    node, process, kubelet = refusing
    node.configure()
    process.ask("reload")
    ids = tuple(sorted((f"{A}::5", f"{B}::6"), key=lambda share: order[share.startswith(A)]))
    (answer,) = kubelet.plugin(RESOURCE).allocate(ids, WITHIN).container_responses
    assert answer.envs["SGPUD_GPU_UUIDS"] == f"{A},{B}"
    assert answer.envs["NVIDIA_VISIBLE_DEVICES"] == f"{A},{B}"
    assert answer.envs["SGPUD_SHARES"] == "2"
    assert answer.envs["SGPUD_GPU_MEMORY_BYTES"] == f"{40 * 2**30},{24 * 2**30}"


GARBAGE = (b"\xff\xff\xff\xff", b"\x0a\xff", b"\x0a\x05\x0a\x03\xff\xfe\xfd")


@pytest.mark.parametrize("method", ["Allocate", "GetPreferredAllocation"])
def test_garbage_is_an_invalid_argument(
    refusing: tuple[Node, Process, StandInKubelet], method: str
) -> None:
    _, process, kubelet = refusing
    for garbage in GARBAGE:
        code, _answer = kubelet.plugin(RESOURCE).send(method, garbage, WITHIN)
        assert code is INVALID
    assert process.running


@pytest.mark.parametrize("method", ["GetDevicePluginOptions", "PreStartContainer"])
def test_garbage_in_a_request_that_says_nothing_is_not_looked_at(
    refusing: tuple[Node, Process, StandInKubelet], method: str
) -> None:
    _, process, kubelet = refusing
    for garbage in GARBAGE:
        code, _answer = kubelet.plugin(RESOURCE).send(method, garbage, WITHIN)
        assert code is grpc.StatusCode.OK
    stream = kubelet.plugin(RESOURCE).open_stream(GARBAGE[0])
    assert len(stream.next(WITHIN)) == kubelet.lists(RESOURCE)[-1].size
    stream.cancel()
    stream.wait_ended(WITHIN)
    assert process.running
    assert kubelet.registered(RESOURCE)


def test_more_than_there_are_gpus_never_fits_distinct(
    refusing: tuple[Node, Process, StandInKubelet],
) -> None:
    node, process, kubelet = refusing
    node.configure()
    process.ask("reload")
    with pytest.raises(AdmissionError, match="3 shares are on 2 of the 2 GPUs") as caught:
        admit(kubelet, "three", 3)
    assert caught.value.code is FAILED


def test_numa_nodes_are_published_only_if_asked_for(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    def nodes(k: StandInKubelet) -> set[tuple[str, int | None]]:
        return {(i.partition("::")[0], one.numa) for i, one in k.devices(RESOURCE).items()}

    assert nodes(kubelet) == {(A, None), (B, None)}
    node.configure(kubelet="numa = true")
    assert any("numa" in warning for warning in daemon.ask("reload")["warnings"])
    kubelet.wait_for(lambda k: nodes(k) == {(A, 0), (B, 1)}, WITHIN)
    container = kubelet.admit("uid", "default", "pod", "main", {RESOURCE: 1}, numa=1)
    assert container.envs["SGPUD_GPU_UUIDS"] == B


def test_what_does_not_fit_into_one_message_is_refused_on_reload(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    crowd(node.gpus)
    daemon.end()
    kubelet.skip()
    # The GPUs of before are not to be listed with a hundred shares each until the probe answers.
    node.configure(100, rest="[health]\ntrust_last_known = false\n")
    process = node.start()
    became(kubelet, RESOURCE, 800, 820)
    node.configure(10_000)
    outcome = process.ask("reload")
    assert outcome["result"] == "refused"
    (problem,) = outcome["problems"]
    assert "80000 shares on this node: 80000 x " in problem
    assert "over the kubelet's limit of 4194304" in problem
    assert kubelet.allocatable(RESOURCE) == 800


def test_what_does_not_fit_at_start_is_listed_as_far_as_it_fits(
    node: Node, kubelet: StandInKubelet
) -> None:
    crowd(node.gpus)
    node.configure(10_000)
    process = node.start()
    kubelet.wait_for(lambda k: k.allocatable(RESOURCE) >= 40_000, WITHIN)
    assert kubelet.allocatable(RESOURCE) % 10_000 == 0
    assert kubelet.lists(RESOURCE)[-1].size <= 4 * 1024 * 1024
    process.said("would take the list message over the kubelet's 4 MiB")
    notes = process.view()["notes"]
    assert len(notes) == 8 - kubelet.allocatable(RESOURCE) // 10_000


def crowd(file: Path) -> None:
    """Eight GPUs alike."""
    file.write_text('[[gpu]]\nproduct = "NVIDIA L4"\nmemory = "24GiB"\ncount = 8\n')


def test_requests_that_no_kubelet_sends_cost_no_memory(
    daemon: Process, kubelet: StandInKubelet
) -> None:
    plugin = kubelet.plugin(RESOURCE)
    large = b"\x0a\x80\x80\x80\x07" + b"\x0a\x0e" + bytes(14 << 20)
    empty = b"\x0a\x00" * 2_000_000
    with ThreadPoolExecutor(6) as callers:
        for request, code in ((large, grpc.StatusCode.RESOURCE_EXHAUSTED), (empty, INVALID)):
            calls = [callers.submit(plugin.send, "Allocate", request, WITHIN) for _ in range(6)]
            assert [call.result()[0] for call in calls] == [code] * 6
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{daemon.pid}/status").read_text())
    assert int(peak) < 200 * 1024
    admit(kubelet, "pod")
