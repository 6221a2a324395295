import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.allocation.injection import DeviceNode, Injection
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import advance
from sgpud.core.planning.plan import Availability, GpuShares, Pool
from sgpud.core.sharing.rules import HostMount, InjectionMethod, InjectionSettings
from sgpud.core.sharing.share_id import LONGEST_ID, MESSAGE_LIMIT, listed_bytes, share_id
from sgpud.kubelet.api import deviceplugin_pb2 as api
from sgpud.kubelet.deviceplugin.messages import (
    container_response,
    list_message,
    offers,
    plugin_options,
)
from tests.core.values import POOL, fallen, gpu, node, planned, pool_of, sharing, uuid

shares = st.sets(
    st.integers(0, 12) | st.integers(98, 101) | st.integers(9_998, 10_002) | st.just(999_999_999)
).map(IntSet.of)
uuids = st.from_regex(r"(GPU|MIG)-[0-9A-Za-z/.\-]{1,48}", fullmatch=True)
nodes = st.none() | st.sampled_from([0, 1, 7, 127])


@st.composite
def groups(draw: st.DrawFn) -> GpuShares:
    name = draw(uuids)
    known: Gpu | None = evolve(gpu(0), uuid=name, numa=draw(nodes)) if draw(st.booleans()) else None
    active, draining = draw(shares), draw(shares)
    held = active & draw(shares)
    availability = draw(st.sampled_from(Availability))
    return GpuShares(name, known, 4, active, held, draining - active, availability)


pools = st.builds(
    Pool,
    st.just(POOL),
    st.lists(groups(), max_size=4, unique_by=lambda one: one.uuid).map(tuple),
    numa=st.booleans(),
)


def expected(pool: Pool) -> list[api.Device]:
    """The same list, made by protobuf, an object per share."""
    devices = []
    for group in pool.groups:
        topology = None
        if pool.numa and group.gpu is not None and group.gpu.numa is not None:
            topology = api.TopologyInfo(nodes=[api.NUMANode(ID=group.gpu.numa)])
        unhealthy = group.listed - group.healthy
        devices += [
            api.Device(ID=share_id(group.uuid, number), health=health, topology=topology)
            for health, numbers in (("Healthy", group.healthy), ("Unhealthy", unhealthy))
            for number in numbers
        ]
    return devices


@pytest.mark.slow
@given(pools)
def test_a_list_message_is_what_protobuf_encodes(pool: Pool) -> None:
    whole = api.ListAndWatchResponse(devices=expected(pool))
    found = list_message(pool).data
    assert found == whole.SerializeToString()
    assert list(api.ListAndWatchResponse.FromString(found).devices) == expected(pool)


@pytest.mark.slow
@given(pools)
def test_a_message_is_never_longer_than_the_core_counted(pool: Pool) -> None:
    counted = sum(listed_bytes(group.uuid, group.listed) for group in pool.groups)
    assert len(list_message(pool).data) <= counted


@given(groups())
def test_the_core_computes_the_exact_size_for_an_unhealthy_gpu_with_a_numa_node(
    group: GpuShares,
) -> None:
    sick = evolve(group, availability=Availability.UNHEALTHY, gpu=gpu(0, numa=1))
    message = list_message(Pool(POOL, (sick,), numa=True))
    assert len(message.data) == listed_bytes(group.uuid, group.listed)


@pytest.mark.slow
@given(pools, pools)
def test_a_message_does_not_depend_on_earlier_ones(before: Pool, after: Pool) -> None:
    assert list_message(after, list_message(before)) == list_message(after)


@given(pools)
def test_a_message_of_the_same_list_is_the_same_object(pool: Pool) -> None:
    first = list_message(pool)
    assert list_message(evolve(pool), first) is first


def test_only_the_gpus_that_changed_are_encoded_again() -> None:
    begun = node(
        sharing(injection=InjectionSettings(InjectionMethod.NVIDIA_RUNTIME)), [gpu(0), gpu(1)]
    )
    first = list_message(pool_of(planned(begun)))
    lost = fallen(begun, uuid(1))
    second = list_message(pool_of(planned(advance(lost, 1.0, 1001.0))), first)
    assert second.fragments[0] is first.fragments[0]
    assert second.fragments[1] is not first.fragments[1]


def test_of_a_gpu_with_fewer_shares_only_the_blocks_that_changed_are_encoded_again() -> None:
    before = node(
        sharing(250, injection=InjectionSettings(InjectionMethod.NVIDIA_RUNTIME)), [gpu(0)]
    )
    first = list_message(pool_of(planned(before)))
    less = sharing(180, injection=InjectionSettings(InjectionMethod.NVIDIA_RUNTIME))
    fewer = advance(evolve(before, sharing=less), 10.0, 1010.0)
    second = list_message(pool_of(planned(fewer)), first)
    (known,), (made,) = first.fragments, second.fragments
    kept = [(key[1:], known.blocks.get(key) is data) for key, data in made.blocks.items()]
    expected_blocks = [((0, 100), True), ((100, 180), False), ((180, 200), False)]
    assert kept == [*expected_blocks, ((200, 250), False)]
    assert second == list_message(pool_of(planned(fewer)))


def test_a_grant_alone_makes_no_new_message() -> None:
    begun = pool_of(
        planned(
            node(sharing(injection=InjectionSettings(InjectionMethod.NVIDIA_RUNTIME)), [gpu(0)])
        )
    )
    first = list_message(begun)
    held = evolve(begun.groups[0], held=IntSet.of([2]))
    assert list_message(evolve(begun, groups=(held,)), first) is first


def test_an_empty_pool_is_an_empty_message() -> None:
    assert list_message(Pool(POOL)).data == b""


def test_the_largest_allowed_list_is_accepted_by_the_kubelet() -> None:
    begun = node(sharing(10_000, numa=True), [gpu(number) for number in range(8)])
    assert begun.listing.past_limit != ()
    pool = pool_of(planned(begun))
    message = list_message(pool)
    assert sum(len(group.listed) for group in pool.groups) == 60_000
    assert len(message.data) <= MESSAGE_LIMIT
    assert len(api.ListAndWatchResponse.FromString(message.data).devices) == 60_000


def test_the_longest_id_is_encoded() -> None:
    name = "MIG-" + "1" * (LONGEST_ID - len("MIG-::12345"))
    group = GpuShares(name, gpu(0, numa=1), 1, IntSet.of([12_345]), IntSet(), IntSet())
    (device,) = api.ListAndWatchResponse.FromString(
        list_message(Pool(POOL, (group,), numa=True)).data
    ).devices
    assert (len(device.ID), device.topology.nodes[0].ID) == (LONGEST_ID, 1)


def test_an_answer_is_encoded_completely() -> None:
    answer = Injection(
        {"A": "1", "B": ""},
        (HostMount("/host", "/container"), HostMount("/h", "/c", read_only=False)),
        (DeviceNode("/dev/nvidia0", "/dev/nvidia0"),),
        ("nvidia.com/gpu=0", "nvidia.com/gpu=1"),
    )
    found = container_response(answer)
    assert dict(found.envs) == answer.envs
    assert [(one.host_path, one.container_path, one.read_only) for one in found.mounts] == [
        ("/host", "/container", True),
        ("/h", "/c", False),
    ]
    (device,) = found.devices
    assert (device.host_path, device.container_path, device.permissions) == (
        "/dev/nvidia0",
        "/dev/nvidia0",
        "mrw",
    )
    assert [one.name for one in found.cdi_devices] == list(answer.cdi)
    assert dict(found.annotations) == {}


def test_an_id_is_found_in_the_bytes_of_a_request_only_if_it_is_available() -> None:
    request = api.PreferredAllocationRequest()
    request.container_requests.add(
        available_deviceIDs=["GPU-a::10", "GPU-a::2"],
        must_include_deviceIDs=["GPU-a::3"],
        allocation_size=1,
    )
    encoded = request.SerializeToString()
    assert offers(encoded, "GPU-a::10")
    assert offers(encoded, "GPU-a::2")
    assert not any(offers(encoded, each) for each in ("GPU-a::1", "GPU-a::3", "PU-a::2"))


def test_the_options_ask_for_preferred_allocations_and_for_no_pre_start() -> None:
    for prefers in (True, False):
        options = api.DevicePluginOptions.FromString(plugin_options(prefers=prefers))
        assert options.get_preferred_allocation_available == prefers
        assert not options.pre_start_required
