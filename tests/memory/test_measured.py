"""Placement by what is measured and by NUMA node, with the real daemon and fake GPUs."""

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import RESOURCE, Node
from tests.memory.shared import admit, became

GUARD = 'full_guard = true\nmeasure_every = "1s"'
"""A full GPU among them shows in the list that all of them have been measured."""


def uuid(number: int) -> str:
    """The UUID of a GPU."""
    return f"GPU-0000000{number}-0000-4000-8000-000000000000"


def gpus(*used: int) -> str:
    """GPUs of 40 GiB of which so many GiB are in use from the start; odd ones on NUMA node 1."""
    known = "".join(
        f'[[gpu]]\nuuid = "{uuid(number)}"\nproduct = "NVIDIA A100"\nmemory = "40GiB"\n'
        f"numa = {number % 2}\n"
        for number in range(len(used))
    )
    happens = "".join(
        f'[[event]]\nat = "0s"\ngpu = {number}\nused = "{size}GiB"\n'
        for number, size in enumerate(used)
        if size
    )
    return known + happens


def given(kubelet: StandInKubelet, pod: str, count: int = 1) -> list[str]:
    """The GPUs that a pod gets."""
    return sorted(admit(kubelet, pod, count, RESOURCE).envs["SGPUD_GPU_UUIDS"].split(","))


def test_of_equal_gpus_the_one_with_more_free_memory_is_next(
    node: Node, kubelet: StandInKubelet
) -> None:
    node.gpus.write_text(gpus(20, 1, 40))
    node.configure(sharing=GUARD)
    node.start()
    became(kubelet, 20, 30, RESOURCE)
    assert given(kubelet, "first") == [uuid(1)]
    assert given(kubelet, "second") == [uuid(0)]
    assert given(kubelet, "third") == [uuid(1)]


def test_several_gpus_are_of_the_better_numa_node(node: Node, kubelet: StandInKubelet) -> None:
    node.gpus.write_text(gpus(0, 0, 20, 0, 40))
    node.configure(sharing=GUARD, kubelet="numa = true")
    node.start()
    became(kubelet, 40, 50, RESOURCE)
    assert given(kubelet, "pair", 2) == [uuid(1), uuid(3)]
