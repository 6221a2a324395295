import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.allocation.injection import (
    WAYS_OUT,
    DeviceNode,
    GpuAccess,
    GrantedGpu,
    Injection,
    InjectionChoice,
    NodeHost,
    answer,
    choose,
    lacks,
    variable_prefix,
)
from sgpud.core.sharing.rules import HostMount, InjectionMethod, InjectionSettings
from tests.core.values import GIB, OTHER, POOL, THIRD, gpu, mig, uuid

ONE, TWO = gpu(0), gpu(1)
GKE = HostMount("/home/kubernetes/bin/nvidia", "/usr/local/nvidia")
CONTROL, UVM = (
    DeviceNode("/dev/nvidiactl", "/dev/nvidiactl"),
    DeviceNode("/dev/nvidia-uvm", "/dev/nvidia-uvm"),
)


def card(number: int) -> DeviceNode:
    return DeviceNode(f"/dev/nvidia{number}", f"/dev/nvidia{number}")


def access(number: int) -> GpuAccess:
    return GpuAccess((card(number),), cdi=f"nvidia.com/gpu={uuid(number)}")


FULL = NodeHost(
    runtime="/usr/bin/nvidia-container-runtime",
    common_nodes=(CONTROL, UVM),
    mounts=(GKE,),
    access={uuid(0): access(0), uuid(1): access(1)},
)
OURS = {
    "SGPUD_GPU_UUIDS": f"{uuid(0)},{uuid(1)}",
    "SGPUD_SHARES": "3",
    "SGPUD_SHARES_PER_GPU": "100,20",
    "SGPUD_GPU_MEMORY_BYTES": f"{40 * GIB},{40 * GIB}",
}


def given_by(
    method: InjectionMethod, *taken: GrantedGpu, host: NodeHost = FULL, prefix: str = "SGPUD_"
) -> Injection:
    some = taken or (GrantedGpu(ONE, 2, 100), GrantedGpu(TWO, 1, 20))
    return answer(InjectionChoice(method, "test"), host, some, prefix=prefix)


def test_nvidia_runtime_is_one_variable_with_each_uuid_once() -> None:
    assert given_by(InjectionMethod.NVIDIA_RUNTIME) == Injection(
        {**OURS, "NVIDIA_VISIBLE_DEVICES": f"{uuid(0)},{uuid(1)}"}
    )


def test_volume_mounts_are_dev_null_mounted_under_the_path_in_the_variable() -> None:
    folder = "/var/run/nvidia-container-devices"
    assert given_by(InjectionMethod.VOLUME_MOUNTS) == Injection(
        {**OURS, "NVIDIA_VISIBLE_DEVICES": folder},
        mounts=(
            HostMount("/dev/null", f"{folder}/{uuid(0)}"),
            HostMount("/dev/null", f"{folder}/{uuid(1)}"),
        ),
    )


def test_cdi_is_names_and_void() -> None:
    assert given_by(InjectionMethod.CDI) == Injection(
        {**OURS, "NVIDIA_VISIBLE_DEVICES": "void"},
        cdi=(f"nvidia.com/gpu={uuid(0)}", f"nvidia.com/gpu={uuid(1)}"),
    )


def test_device_nodes_are_the_common_ones_the_gpus_the_mounts_and_void() -> None:
    assert given_by(InjectionMethod.DEVICE_NODES) == Injection(
        {**OURS, "NVIDIA_VISIBLE_DEVICES": "void"},
        mounts=(GKE,),
        devices=(CONTROL, UVM, card(0), card(1)),
    )
    assert card(0).permissions == "mrw"


def test_two_instances_of_one_gpu_have_its_node_once_and_capabilities_of_their_own() -> None:
    first, second = mig(ONE, 1), mig(ONE, 2)
    caps = {one: DeviceNode(f"/dev/nvidia-caps/nvidia-cap{one}", "x") for one in (1, 2, 3, 4)}
    host = NodeHost(
        common_nodes=(CONTROL,),
        access={
            first.uuid: GpuAccess((card(0), caps[1], caps[2])),
            second.uuid: GpuAccess((card(0), caps[3], caps[4])),
        },
    )
    found = given_by(
        InjectionMethod.DEVICE_NODES, GrantedGpu(first, 1, 4), GrantedGpu(second, 1, 4), host=host
    )
    assert found.devices == (CONTROL, card(0), caps[1], caps[2], caps[3], caps[4])


@pytest.mark.parametrize(
    "method", [InjectionMethod.CDI, InjectionMethod.DEVICE_NODES, InjectionMethod.VOLUME_MOUNTS]
)
def test_a_container_on_fake_gpus_gets_environment_variables_only(method: InjectionMethod) -> None:
    found = given_by(method, GrantedGpu(evolve(ONE, fake=True), 1, 4))
    assert (found.mounts, found.devices, found.cdi) == ((), (), ())
    assert found.envs["SGPUD_GPU_UUIDS"] == uuid(0)


@given(
    st.sampled_from([m for m in InjectionMethod if m is not InjectionMethod.AUTO]),
    st.sampled_from([POOL, OTHER]),
)
def test_two_resources_of_one_container_share_no_variable_but_the_runtime_s(
    method: InjectionMethod, resource: str
) -> None:
    several = (POOL, OTHER, THIRD)
    other = THIRD
    one = given_by(method, GrantedGpu(ONE, 1, 4), prefix=variable_prefix(resource, several))
    two = given_by(method, GrantedGpu(TWO, 1, 4), prefix=variable_prefix(other, several))
    common = set(one.envs) & set(two.envs)
    assert common == {"NVIDIA_VISIBLE_DEVICES"}
    same = one.envs["NVIDIA_VISIBLE_DEVICES"] == two.envs["NVIDIA_VISIBLE_DEVICES"]
    assert same == (method is not InjectionMethod.NVIDIA_RUNTIME)


def test_a_variable_s_name_carries_the_pool_only_where_there_are_several() -> None:
    assert variable_prefix(POOL, (POOL,)) == "SGPUD_"
    assert variable_prefix(OTHER, (POOL, OTHER)) == "SGPUD_SHARED_A100_"
    assert variable_prefix("a.com/gpu", ("a.com/gpu", "b.com/gpu")) == "SGPUD_A_COM_GPU_"


names = st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,4})?", fullmatch=True)
resources = st.builds(lambda domain, name: f"{domain}.com/{name}", st.sampled_from("abc"), names)


@given(st.lists(resources, min_size=2, max_size=5, unique=True))
def test_every_pool_has_names_of_its_own(several: list[str]) -> None:
    assert len({variable_prefix(one, several) for one in several}) == len(several)


# The choice of a method. -----------------------------------------------------------------------


def chosen(
    host: NodeHost, *, several: bool = False, method: InjectionMethod = InjectionMethod.AUTO
) -> InjectionChoice:
    return choose(InjectionSettings(method), host, [ONE, TWO], several=several)


def test_auto_uses_cdi_if_a_spec_names_every_gpu() -> None:
    assert chosen(FULL).method is InjectionMethod.CDI
    assert chosen(FULL).unavailable == {}


def test_auto_uses_the_runtime_if_a_name_is_missing() -> None:
    some = evolve(FULL, access={uuid(0): access(0)})
    assert chosen(some).method is InjectionMethod.NVIDIA_RUNTIME
    assert some.runtime in chosen(some).why


def test_auto_never_uses_the_runtime_for_several_resources() -> None:
    nodes = evolve(
        FULL, access={uuid(n): evolve(access(n), cdi="", cdi_missing="x") for n in (0, 1)}
    )
    assert chosen(nodes).method is InjectionMethod.NVIDIA_RUNTIME
    assert chosen(nodes, several=True).method is InjectionMethod.DEVICE_NODES


def test_auto_uses_device_nodes_if_nothing_else_works() -> None:
    access = {uuid(n): GpuAccess((card(n),), cdi_missing="no spec") for n in (0, 1)}
    bare = NodeHost(mounts=(GKE,), access=access)
    assert chosen(bare).method is InjectionMethod.DEVICE_NODES
    assert chosen(bare).unavailable == {}


def test_auto_uses_device_nodes_only_if_the_driver_libraries_are_mounted() -> None:
    access = {uuid(n): GpuAccess((card(n),), cdi_missing="no spec") for n in (0, 1)}
    bare = NodeHost(access=access)
    found = chosen(bare)
    assert set(found.unavailable) == {uuid(0), uuid(1)}
    for way in ("nvidia-ctk cdi generate", "nvidia-container-toolkit", "[container] mounts"):
        assert way in found.unavailable[uuid(0)]
    assert f"as {GKE.host} is absent" in found.unavailable[uuid(0)]
    unfilled = evolve(bare, mounts=(GKE,), empty_mounts=frozenset({GKE.host}))
    assert f"as {GKE.host} is empty" in chosen(unfilled).unavailable[uuid(0)]
    brought = choose(InjectionSettings(mounts=()), bare, [ONE, TWO], several=False)
    assert (brought.method, brought.unavailable) == (InjectionMethod.DEVICE_NODES, {})
    assert "mounts is empty" in brought.why


def test_auto_uses_volume_mounts_for_several_resources_if_the_runtime_accepts_them() -> None:
    nodes = evolve(
        FULL,
        volume_mounts=True,
        access={uuid(n): evolve(access(n), cdi="", cdi_missing="x") for n in (0, 1)},
    )
    assert chosen(nodes, several=True).method is InjectionMethod.VOLUME_MOUNTS
    assert chosen(nodes).method is InjectionMethod.NVIDIA_RUNTIME


def test_where_no_method_serves_a_gpu_the_reason_names_all_three() -> None:
    host = NodeHost(
        mounts=(GKE,),
        access={
            uuid(0): GpuAccess((card(0),), cdi_missing="no spec"),
            uuid(1): GpuAccess(nodes_missing="/dev/nvidia1 is missing", cdi_missing="no spec"),
        },
    )
    found = chosen(host)
    assert (found.method, set(found.unavailable)) == (InjectionMethod.DEVICE_NODES, {uuid(1)})
    assert found.unavailable[uuid(1)] == (
        "no method to hand the GPU over: cdi: no spec; nvidia-runtime: not found on the node; "
        f"device-nodes: /dev/nvidia1 is missing. {WAYS_OUT}"
    )
    several = chosen(evolve(host, runtime="/usr/bin/x"), several=True).unavailable[uuid(1)]
    assert "nvidia-runtime: not with several resources" in several


@pytest.mark.parametrize("method", [m for m in InjectionMethod if m is not InjectionMethod.AUTO])
def test_a_configured_method_is_always_used(method: InjectionMethod) -> None:
    found = chosen(NodeHost(), method=method)
    assert found.method is method
    needs = method in (InjectionMethod.CDI, InjectionMethod.DEVICE_NODES)
    assert set(found.unavailable) == ({uuid(0), uuid(1)} if needs else set())


def test_device_nodes_that_cannot_be_used_at_all_are_missing_for_every_gpu() -> None:
    host = evolve(FULL, device_nodes_missing="/dev/nvidiactl is missing")
    assert lacks(InjectionMethod.DEVICE_NODES, host, [ONE]) == {
        uuid(0): "device-nodes: /dev/nvidiactl is missing"
    }


@pytest.mark.parametrize("several", [True, False])
def test_fake_gpus_need_nothing(several: bool) -> None:  # noqa: FBT001
    fleet = [evolve(ONE, fake=True)]
    found = choose(InjectionSettings(), NodeHost(), fleet, several=several)
    assert found.unavailable == {}
    assert found.method is (
        InjectionMethod.DEVICE_NODES if several else InjectionMethod.NVIDIA_RUNTIME
    )
    assert lacks(InjectionMethod.CDI, NodeHost(), fleet) == {}


hosts = st.builds(
    NodeHost,
    runtime=st.sampled_from(["", "/usr/bin/x"]),
    device_nodes_missing=st.sampled_from(["", "none"]),
    access=st.dictionaries(
        st.sampled_from([uuid(0), uuid(1)]),
        st.builds(
            GpuAccess,
            nodes=st.just((card(0),)),
            nodes_missing=st.sampled_from(["", "no node"]),
            cdi=st.just("a/b=c"),
            cdi_missing=st.sampled_from(["", "no name"]),
        ),
    ),
)


@given(hosts, st.booleans(), st.sampled_from(InjectionMethod))
def test_what_is_available_can_be_handed_over_and_what_is_not_has_a_reason(
    host: NodeHost,
    several: bool,  # noqa: FBT001
    method: InjectionMethod,
) -> None:
    found = chosen(host, several=several, method=method)
    assert found.method is not InjectionMethod.AUTO
    assert all(found.unavailable.values())
    for one in (ONE, TWO):
        if one.uuid not in found.unavailable:
            whole = answer(found, host, [GrantedGpu(one, 1, 4)], prefix="SGPUD_")
            assert found.method is not InjectionMethod.CDI or whole.cdi == ("a/b=c",)
            assert found.method is not InjectionMethod.DEVICE_NODES or card(0) in whole.devices
