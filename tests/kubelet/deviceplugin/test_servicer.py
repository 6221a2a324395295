"""The device plugin service, asked over a real gRPC connection as the kubelet asks it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

import grpc
import pytest
from attrs import define, evolve, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgpud.core.allocation.allocate import RefusalRule, RefusedError
from sgpud.core.allocation.decisions import Decision, DecisionKind, GpuCount
from sgpud.core.allocation.preference import prefer
from sgpud.core.errors import SgpudError
from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import advance
from sgpud.core.planning.node import Node
from sgpud.core.sharing.rules import Multiple
from sgpud.core.sharing.share_id import share_id
from sgpud.kubelet.api import deviceplugin_pb2 as api
from sgpud.kubelet.deviceplugin.endpoint import SERVER_OPTIONS, WORKERS
from sgpud.kubelet.deviceplugin.publisher import ServedPool, SnapshotPublisher
from sgpud.kubelet.deviceplugin.servicer import (
    SERVICE,
    STARTS,
    STREAMS,
    BeforeStart,
    DevicePluginServicer,
)
from tests.core.values import (
    OTHER,
    POOL,
    checkpoint,
    fallen,
    gpu,
    holder,
    ids,
    node,
    planned,
    sharing,
    uuid,
)
from tests.kubelet.half_open import HALF, HalfOpenCall, end_all
from tests.surroundings import WITHIN, listening, short_folder

# Debian 12's protobuf takes a stray end tag for the end of the message, and only warns.
pytestmark = pytest.mark.filterwarnings("ignore:Unexpected end-group tag:RuntimeWarning")

GPUS = [gpu(number, fake=True) for number in range(2)]
WALL = 1234.5


@define
class Told:
    """What the workers told, to be waited for."""

    lives: SimpleQueue[int] = field(factory=SimpleQueue)
    refusals: list[tuple[str, RefusedError]] = field(factory=list)
    lists: list[str] = field(factory=list)

    def streams(self, live: int) -> None:
        self.lives.put(live)

    def refused(self, resource: str, refusal: RefusedError) -> None:
        self.refusals.append((resource, refusal))

    def listed(self, resource: str) -> None:
        self.lists.append(resource)

    def reach(self, live: int) -> None:
        """Wait until so many streams live; queue.Empty where that does not come."""
        while self.lives.get(timeout=WITHIN) != live:
            pass


class Watch:
    """A ListAndWatch stream, read in a thread of its own."""

    def __init__(self, channel: grpc.Channel) -> None:
        watch: Any = channel.unary_stream(f"/{SERVICE}/ListAndWatch")
        self.stream = watch(b"", timeout=WITHIN)
        self._messages: SimpleQueue[bytes | None] = SimpleQueue()
        Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for message in self.stream:
                self._messages.put(message)
        except grpc.RpcError:
            pass
        finally:
            self._messages.put(None)

    def next(self) -> Mapping[str, str] | None:
        """Health by id of the next list; None at the end of the stream."""
        message = self._messages.get(timeout=WITHIN)
        if message is None:
            return None
        devices = api.ListAndWatchResponse.FromString(message).devices
        return {device.ID: device.health for device in devices}

    @property
    def silent(self) -> bool:
        return self._messages.empty()


@define
class Line:
    """A servicer and a connection to it."""

    publisher: SnapshotPublisher
    told: Told
    servicer: DevicePluginServicer
    address: str
    channel: grpc.Channel

    def serve(self, of: Node) -> None:
        assert self.publisher.put(planned(of))

    def ask(self, method: str, request: bytes = b"") -> bytes:
        unary: Any = self.channel.unary_unary(f"/{SERVICE}/{method}")
        answer: bytes = unary(request, timeout=WITHIN)
        return answer

    def allocate(self, *containers: list[str]) -> api.AllocateResponse:
        request = api.AllocateRequest()
        for wanted in containers:
            request.container_requests.add(devices_ids=wanted)
        return api.AllocateResponse.FromString(self.ask("Allocate", request.SerializeToString()))

    def prefer(self, available: list[str], must: list[str], size: int) -> list[str]:
        request = api.PreferredAllocationRequest()
        request.container_requests.add(
            available_deviceIDs=available, must_include_deviceIDs=must, allocation_size=size
        )
        answer = self.ask("GetPreferredAllocation", request.SerializeToString())
        (one,) = api.PreferredAllocationResponse.FromString(answer).container_responses
        return list(one.deviceIDs)

    def watch(self) -> Watch:
        return Watch(self.channel)


@pytest.fixture
def line() -> Iterator[Line]:
    with served() as made:
        yield made


@contextmanager
def served(before_start: BeforeStart | None = None) -> Iterator[Line]:
    """A servicer that is served; `before_start` as its own."""
    told, publisher = Told(), SnapshotPublisher()
    servicer = DevicePluginServicer(POOL, publisher, told, lambda: WALL, before_start=before_start)
    workers = ThreadPoolExecutor(WORKERS)
    server = grpc.server(workers, options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers([servicer.handlers()])
    with short_folder() as folder:
        address = f"unix:{folder / 'a.sock'}"
        assert server.add_insecure_port(address)
        server.start()
        with grpc.insecure_channel(address) as channel:
            yield Line(publisher, told, servicer, address, channel)
        servicer.close()
        assert server.stop(1).wait(WITHIN)
        workers.shutdown()


def shared(factor: int = 4, resource: str = POOL, **rest: object) -> Node:
    return node(sharing(factor, resource=resource, **rest), GPUS)


def code(line: Line, method: str, request: bytes) -> tuple[grpc.StatusCode, str]:
    """How a call is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        line.ask(method, request)
    return caught.value.code(), caught.value.details() or ""


def refusal(line: Line, *wanted: str) -> tuple[grpc.StatusCode, str]:
    request = api.AllocateRequest()
    request.container_requests.add(devices_ids=wanted)
    return code(line, "Allocate", request.SerializeToString())


# Unary calls. ------------------------------------------------------------------------------------


def test_the_options_match_the_capabilities(line: Line) -> None:
    options = api.DevicePluginOptions.FromString(line.ask("GetDevicePluginOptions"))
    assert options.get_preferred_allocation_available
    assert not options.pre_start_required
    assert line.ask("PreStartContainer", b"\xff") == b""


@pytest.mark.parametrize("method", ["Allocate", "GetPreferredAllocation"])
@pytest.mark.parametrize("garbage", [b"\x0a\xff\xff\xff", b"\x0a", b"\xff" * 20])
def test_garbage_is_an_invalid_argument(line: Line, method: str, garbage: bytes) -> None:
    line.serve(shared())
    found = code(line, method, garbage)
    assert found == (grpc.StatusCode.INVALID_ARGUMENT, "sgpud: the request cannot be decoded")


@pytest.mark.parametrize(
    ("method", "refusals"),
    [
        ("GetDevicePluginOptions", set()),
        ("PreStartContainer", set()),
        ("GetPreferredAllocation", {grpc.StatusCode.INVALID_ARGUMENT}),
        (
            "Allocate",
            {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION},
        ),
    ],
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(request=st.binary(max_size=60))
def test_any_bytes_get_an_answer_or_a_refusal(
    line: Line, method: str, refusals: set[grpc.StatusCode], request: bytes
) -> None:
    try:
        line.ask(method, request)
    except grpc.RpcError as error:
        assert error.code() in refusals  # noqa: PT017 - an answer is as good


def test_a_container_gets_its_gpu_and_the_grant_is_recorded(line: Line) -> None:
    line.serve(shared())
    answer = line.allocate(ids(0, 3))
    assert answer.container_responses[0].envs["SGPUD_GPU_UUIDS"] == uuid(0)
    (grant,) = line.publisher.grants()
    assert (grant.resource, grant.at) == (POOL, WALL)
    assert grant.shares == {uuid(0): IntSet.of([3])}
    assert grant.per_gpu == {uuid(0): 4}


def test_each_container_of_a_request_gets_its_own(line: Line) -> None:
    line.serve(shared())
    first, second = line.allocate(ids(0, 1), ids(1, 2)).container_responses
    assert first.envs["SGPUD_GPU_UUIDS"] == uuid(0)
    assert second.envs["SGPUD_GPU_UUIDS"] == uuid(1)
    assert len(line.publisher.grants()) == 2


def test_a_refused_container_leaves_no_grant_of_another_in_the_request(line: Line) -> None:
    line.serve(shared())
    request = api.AllocateRequest()
    for wanted in (ids(0, 1), ids(0, 99)):
        request.container_requests.add(devices_ids=wanted)
    code(line, "Allocate", request.SerializeToString())
    assert line.publisher.grants() == []
    assert [one.kind for one in line.publisher.decisions.all()] == [DecisionKind.REFUSAL]


@pytest.mark.parametrize("method", ["Allocate", "GetPreferredAllocation"])
@pytest.mark.parametrize(
    "request_",
    [
        b"\x0a\x00" * 2_000_000,
        b"\x1d\x00\x00\x00\x00" + b"\x0a\x00" * 17,
        b"\x1b" * 17,
        b"\x10\x01" * 17,
        b"\x0a\x88\x27" + b"\x0a\x00" * 2_500 + b"\x0a\x88\x27" + b"\x12\x00" * 7_500,
        b"\x0a\xe0\xa7\x12" + b"\x0a\x0e" * 150_000,
    ],
    ids=["containers", "fields", "groups", "numbers", "ids", "bytes"],
)
def test_an_implausible_request_is_refused(line: Line, method: str, request_: bytes) -> None:
    line.serve(shared())
    found, message = code(line, method, request_)
    assert (found, "sgpud: the request" in message) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    assert line.publisher.grants() == []


def test_a_request_for_every_share_of_the_largest_pool_is_accepted(line: Line) -> None:
    line.serve(shared(28_000))
    every = [*ids(0, *range(28_000)), *ids(1, *range(28_000))]
    assert len(line.prefer(every, every, 2)) == 2


def test_a_request_without_containers_is_answered_without_any(line: Line) -> None:
    assert line.ask("Allocate") == b""
    assert line.ask("GetPreferredAllocation") == b""


def test_an_invalid_request_is_an_invalid_argument(line: Line) -> None:
    line.serve(shared())
    for wanted, rule in (
        ([], RefusalRule.NOTHING),
        (ids(0, 99), RefusalRule.UNKNOWN),
        (ids(0, 1, 1), RefusalRule.TWICE),
    ):
        found, message = refusal(line, *wanted)
        assert found is grpc.StatusCode.INVALID_ARGUMENT
        assert message.startswith(f"sgpud: {rule.value}: ")
        assert all(each in message for each in set(wanted))
        assert line.told.refusals[-1][1].rule is rule
    assert line.publisher.grants() == []


def test_an_obstacle_on_the_node_is_a_failed_precondition(line: Line) -> None:
    line.serve(fallen(shared(), uuid(0)))
    found, message = refusal(line, *ids(0, 1))
    assert found is grpc.StatusCode.FAILED_PRECONDITION
    assert "fallen off the bus" in message
    assert uuid(0) in message
    line.serve(shared(multiple=Multiple.REFUSE))
    found, message = refusal(line, *ids(0, 1), *ids(1, 1))
    assert found is grpc.StatusCode.FAILED_PRECONDITION
    assert "refuse" in message
    assert [refused.rule for _, refused in line.told.refusals] == [
        RefusalRule.UNHEALTHY,
        RefusalRule.MULTIPLE,
    ]


def test_before_the_first_plan_nothing_is_known(line: Line) -> None:
    found, message = refusal(line, *ids(0, 1))
    assert found is grpc.StatusCode.INVALID_ARGUMENT
    assert f"{POOL} is not served" in message


def test_a_removed_pool_is_not_served(line: Line) -> None:
    line.serve(shared(resource=OTHER))
    assert f"{POOL} is not served" in refusal(line, *ids(0, 1))[1]


def test_a_draining_share_is_still_granted(line: Line) -> None:
    line.serve(advance(evolve(shared(), sharing=sharing(1)), 1.0, 1001.0))
    assert len(line.allocate(ids(0, 3)).container_responses) == 1


# GetPreferredAllocation. -------------------------------------------------------------------------


def test_the_preference_is_the_cores(line: Line) -> None:
    line.serve(shared())
    snapshot = line.publisher.snapshot
    assert snapshot is not None
    served = snapshot.pools[POOL]
    available = [*ids(0, 0, 1, 2, 3), *ids(1, 0, 1, 2, 3)]
    wanted = prefer(snapshot.plan, served.pool, served.index, available, ids(1, 2), 2).ids
    assert line.prefer(available, ids(1, 2), 2) == wanted


@pytest.mark.parametrize("size", range(1, 8))
def test_a_preference_names_available_ids_although_as_many_others_are_known_to_be_free(
    line: Line, size: int
) -> None:
    """The kubelet has begun to give one share and freed another, and sgpud knows of neither."""
    line.serve(node(sharing(4), GPUS, checkpoint(holder({uuid(0): IntSet.of([0])}))))
    snapshot = line.publisher.snapshot
    assert snapshot is not None
    served = snapshot.pools[POOL]
    available = [*ids(0, 0, 1, 2, 3), *ids(1, 1, 2, 3)]
    wanted = prefer(snapshot.plan, served.pool, served.index, available, (), size).ids
    assert line.prefer(available, [], size) == wanted
    assert ids(1, 0)[0] not in wanted


def test_what_was_granted_a_moment_ago_is_not_known_to_be_free(line: Line) -> None:
    line.serve(shared(multiple=Multiple.ANY))
    line.allocate(ids(1, 0))
    available = [*ids(0, 0, 1, 2, 3), *ids(1, 1, 2, 3)]
    assert line.prefer(available, [], 1) == ids(0, 0)


known = st.sampled_from([share_id(uuid(one), number) for one in range(3) for number in range(6)])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.lists(known | st.text(max_size=3), max_size=12),
    st.lists(known, max_size=3),
    st.integers(-(2**31), 2**31 - 1),
    st.booleans(),
)
def test_a_preference_never_fails(
    line: Line,
    available: list[str],
    must: list[str],
    size: int,
    planned_already: bool,  # noqa: FBT001
) -> None:
    if planned_already:
        line.serve(shared())
    everything = [*must, *available]
    chosen = line.prefer(everything, must, size)
    assert len(chosen) == len(set(chosen)) == min(max(0, size), len(set(everything)))
    assert set(chosen) <= set(everything)
    assert set(must) <= set(chosen) or len(chosen) < len(set(must))


def test_an_error_in_the_preference_is_logged_and_a_valid_answer_returned(line: Line) -> None:
    line.serve(shared())
    snapshot = line.publisher.snapshot
    assert snapshot is not None
    served = snapshot.pools[POOL]
    # An index of another kind: nothing that would ever be put there.
    places: Any = {ids(0, 1)[0]: 1, ids(0, 2)[0]: "two"}
    spoilt = evolve(served.index, places=places)
    pools: Mapping[str, ServedPool] = {POOL: evolve(served, index=spoilt)}
    assert line.publisher.published.publish(evolve(snapshot, pools=pools), lambda _: True)
    with listening() as said:
        assert line.prefer(ids(0, 1, 2), ids(0, 2), 2) == ids(0, 2, 1)
    assert said.about(f"Choosing shares of {POOL} failed")


# ListAndWatch. -----------------------------------------------------------------------------------


def test_a_stream_begins_with_the_current_list(line: Line) -> None:
    line.serve(shared(1))
    assert line.watch().next() == {ids(0, 0)[0]: "Healthy", ids(1, 0)[0]: "Healthy"}


def test_a_stream_before_the_first_plan_waits_for_it(line: Line) -> None:
    watch = line.watch()
    line.told.reach(1)
    assert watch.silent
    line.serve(shared(1))
    assert len(watch.next() or {}) == 2


def test_changes_are_sent_and_identical_lists_are_not(line: Line) -> None:
    line.serve(shared(1))
    watch = line.watch()
    assert len(watch.next() or {}) == 2
    line.serve(shared(1))
    line.serve(shared(1, multiple=Multiple.ANY))
    line.serve(shared(2))
    # Were one of the plans between sent, it would come first.
    assert len(watch.next() or {}) == 4
    assert watch.silent


def test_resending_sends_the_same_list_again(line: Line) -> None:
    line.serve(shared(1))
    watch = line.watch()
    first = watch.next()
    line.publisher.resend()
    assert watch.next() == first
    assert line.told.lists == [POOL, POOL]
    line.serve(shared(1))
    line.serve(shared(2))
    assert len(watch.next() or {}) == 4


def test_a_plan_without_the_pool_sends_nothing(line: Line) -> None:
    line.serve(shared(1))
    watch = line.watch()
    assert watch.next()
    line.serve(shared(1, resource=OTHER))
    line.serve(shared(2))
    assert len(watch.next() or {}) == 4


def test_an_unhealthy_gpu_makes_its_shares_unhealthy_on_the_open_stream(line: Line) -> None:
    line.serve(shared(1))
    watch = line.watch()
    watch.next()
    line.serve(fallen(shared(1), uuid(1)))
    assert watch.next() == {ids(0, 0)[0]: "Healthy", ids(1, 0)[0]: "Unhealthy"}


def test_a_stream_beyond_the_limit_is_refused(line: Line) -> None:
    """The first one is the kubelet's: whoever comes after it must not end it."""
    line.serve(shared(1))
    watches = []
    for _ in range(STREAMS):
        watches.append(line.watch())
        assert watches[-1].next()
    for _ in range(3):
        newest = line.watch()
        assert newest.next() is None
        assert newest.stream.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    line.serve(shared(2))
    for watch in watches:
        assert len(watch.next() or {}) == 4


def test_the_end_of_the_first_stream_ends_all(line: Line) -> None:
    """What others read does not keep the pool registered."""
    line.serve(shared(1))
    first = line.watch()
    assert first.next()
    second = line.watch()
    assert second.next()
    line.told.reach(2)
    first.stream.cancel()
    line.told.reach(0)
    assert second.next() is None


@contextmanager
def unread(line: Line, count: int) -> Iterator[None]:
    """Streams whose clients have gRPC hold back what comes.

    On a connection of their own, which makes no more room for what is not read.
    """
    fixed_window = [("grpc.http2.bdp_probe", 0)]
    with grpc.insecure_channel(line.address, options=fixed_window) as channel:
        watch: Any = channel.unary_stream(f"/{SERVICE}/ListAndWatch")
        streams = [watch(b"", timeout=10 * WITHIN) for _ in range(count)]
        yield
        for stream in streams:
            stream.cancel()


def test_streams_that_are_never_read_leave_workers_for_allocate(line: Line) -> None:
    line.serve(shared(20_000))
    with unread(line, WORKERS):
        line.told.reach(STREAMS)
        for count in (20_001, 20_002, 20_003):
            line.serve(shared(count))
            assert line.allocate(ids(0, count - 1)).container_responses
    line.told.reach(0)


def test_a_list_that_is_not_read_in_time_ends_its_own_stream(line: Line) -> None:
    line.serve(shared(20_000))
    first = line.watch()
    assert first.next()
    line.told.reach(1)
    with unread(line, 1), listening() as said:
        line.told.reach(2)
        while not said.lines:
            # A call between two looks gives the stream that is read its time to be sent.
            line.ask("GetDevicePluginOptions")
            line.servicer.end_unread()
        line.told.reach(1)
        assert said.about("was not read within")
    line.serve(shared(19_999))
    assert first.next()


def test_a_storm_of_streams_leaves_workers_for_allocate(line: Line) -> None:
    line.serve(shared(1))
    watches = [line.watch() for _ in range(4 * WORKERS)]
    assert line.allocate(ids(0, 0)).container_responses
    for watch in watches:
        watch.stream.cancel()
    assert line.allocate(ids(1, 0)).container_responses


@pytest.mark.parametrize("method", ["Allocate", "ListAndWatch"])
def test_calls_without_a_request_leave_workers_for_allocate(line: Line, method: str) -> None:
    line.serve(shared(1))
    with ExitStack() as stack:
        calls = [
            stack.enter_context(HalfOpenCall(line.address, f"/{SERVICE}/{method}", HALF))
            for _ in range(2 * WORKERS)
        ]
        end_all(calls, line.servicer.end_unread)
        assert line.allocate(ids(0, 0)).container_responses


def test_a_stream_ends_when_the_kubelet_disconnects(line: Line) -> None:
    line.serve(shared(1))
    for _ in range(2 * WORKERS):
        watch = line.watch()
        assert watch.next()
        line.told.reach(1)
        watch.stream.cancel()
        line.told.reach(0)
    assert line.allocate(ids(0, 0)).container_responses


def test_a_connection_that_breaks_ends_its_stream(line: Line) -> None:
    line.serve(shared(1))
    with grpc.insecure_channel(line.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        assert Watch(channel).next()
        line.told.reach(1)
    line.told.reach(0)


def test_the_close_ends_every_stream(line: Line) -> None:
    line.serve(shared(1))
    watches = [line.watch(), line.watch()]
    for watch in watches:
        assert watch.next()
    line.servicer.close()
    assert [watch.next() for watch in watches] == [None, None]
    line.told.reach(0)


def test_the_number_of_live_streams_is_reported(line: Line) -> None:
    line.serve(shared(1))
    for _ in range(STREAMS):
        assert line.watch().next()
    for live in range(1, STREAMS + 1):
        line.told.reach(live)
    line.servicer.close()
    line.told.reach(0)
    with pytest.raises(Empty):
        line.told.lives.get(block=False)


def test_paths_of_the_service_are_the_kubelets() -> None:
    assert SERVICE == "v1beta1.DevicePlugin"
    proto = Path(api.__file__).with_name("deviceplugin.proto").read_text()
    assert "package v1beta1;" in proto
    assert "service DevicePlugin" in proto


# Decisions. --------------------------------------------------------------------------------------


def decided(line: Line) -> list[tuple[DecisionKind, int, tuple[GpuCount, ...], str]]:
    found = line.publisher.decisions.all()
    assert all(one.at == WALL and one.resource == POOL for one in found)
    return [(one.kind, one.asked, one.parts, one.rule) for one in found]


def test_every_answer_leaves_a_decision(line: Line) -> None:
    refusal(line, *ids(0, 1))
    line.serve(shared())
    assert line.prefer([*ids(0, 1, 2), *ids(1, 3)], [], 1) == ids(0, 1)
    line.allocate(ids(0, 1))
    refusal(line, *ids(0, 2, 3))
    assert decided(line) == [
        (DecisionKind.REFUSAL, 1, (), "unknown"),
        (DecisionKind.PREFERENCE, 1, (GpuCount(uuid(0), 1, 1),), "distinct, spread"),
        (DecisionKind.ALLOCATION, 1, (GpuCount(uuid(0), 1, 1),), "distinct"),
        (DecisionKind.REFUSAL, 2, (GpuCount(uuid(0), 2, 2),), "multiple"),
    ]
    _, preference, allocation, _ = line.publisher.decisions.all()
    assert preference.offered == (2, 1)
    assert [(one.uuid, one.shares) for one in allocation.gpu_snapshots] == [
        (uuid(0), 4),
        (uuid(1), 4),
    ]


def test_a_preference_that_fails_leaves_a_decision_too(line: Line) -> None:
    line.serve(shared())
    snapshot = line.publisher.snapshot
    assert snapshot is not None
    broken = evolve(snapshot.pools[POOL], gpu_snapshots=())
    line.publisher.published.publish(evolve(snapshot, pools={POOL: broken}), lambda _: True)
    assert line.prefer(ids(0, 1, 2), [], 2) == ids(0, 1, 2)[:2]
    (one,) = line.publisher.decisions.all()
    assert (one.kind, one.asked, one.rule) == (DecisionKind.PREFERENCE, 2, "none")
    assert "choosing failed" in one.text


def test_decisions_of_many_callers_at_once_are_all_kept(line: Line) -> None:
    line.serve(shared(40))
    with ThreadPoolExecutor(8) as callers:
        list(callers.map(lambda number: line.allocate(ids(number % 2, number)), range(40)))
    parts: list[Decision] = list(line.publisher.decisions.all())
    assert sorted(one.parts[0].first for one in parts) == list(range(40))


def starts(*wanted: str) -> bytes:
    return api.PreStartContainerRequest(devices_ids=wanted).SerializeToString()


def test_the_kubelet_is_told_whether_it_is_to_ask_before_a_start(line: Line) -> None:
    line.serve(shared())
    options = api.DevicePluginOptions.FromString(line.ask("GetDevicePluginOptions"))
    assert not options.pre_start_required
    assert line.ask("PreStartContainer", starts(share_id(uuid(0), 1))) == b""
    with served(lambda _resource, _shares: None) as asking:
        asking.serve(shared())
        options = api.DevicePluginOptions.FromString(asking.ask("GetDevicePluginOptions"))
        assert options.pre_start_required


def test_before_a_start_it_is_told_the_resource_and_the_shares() -> None:
    told: list[tuple[str, Mapping[str, IntSet]]] = []
    with served(lambda resource, shares: told.append((resource, shares))) as line:
        line.serve(shared())
        wanted = [share_id(uuid(0), 1), share_id(uuid(0), 3), share_id(uuid(1), 0)]
        assert line.ask("PreStartContainer", starts(*wanted)) == b""
    assert told == [(POOL, {uuid(0): IntSet.of([1, 3]), uuid(1): IntSet.of([0])})]


class NotNowError(SgpudError):
    """It is not to start."""


def test_an_error_keeps_the_container_from_starting_and_says_why() -> None:
    def refuse(_resource: str, _shares: object) -> None:
        raise NotNowError("no limit")

    with served(refuse) as line:
        line.serve(shared())
        with pytest.raises(grpc.RpcError) as caught:
            line.ask("PreStartContainer", starts(share_id(uuid(0), 1)))
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "sgpud: no limit",
    )


def test_a_start_that_hangs_holds_up_no_allocation() -> None:
    """A start may wait for a helper that hangs; pod admission never does."""
    began, release = SimpleQueue[None](), Event()

    def hang(_resource: str, _shares: object) -> None:
        began.put(None)
        assert release.wait(WITHIN)

    with served(hang) as line, ThreadPoolExecutor(STARTS) as callers:
        line.serve(shared())
        asked = starts(share_id(uuid(0), 1))
        waiting = [callers.submit(line.ask, "PreStartContainer", asked) for _ in range(STARTS)]
        for _ in waiting:
            began.get(timeout=WITHIN)
        with pytest.raises(grpc.RpcError) as caught:
            line.ask("PreStartContainer", asked)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert line.allocate([share_id(uuid(0), 0)]).container_responses
        release.set()
        assert [one.result(WITHIN) for one in waiting] == [b""] * STARTS


@pytest.mark.parametrize("request_", [b"\xff", starts("x" * 200_000), starts(*["a"] * 60_000)])
def test_a_start_that_no_kubelet_asks_for_is_refused(request_: bytes) -> None:
    told: list[str] = []
    with served(lambda resource, _shares: told.append(resource)) as line:
        line.serve(shared())
        with pytest.raises(grpc.RpcError) as caught:
            line.ask("PreStartContainer", request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert told == []
