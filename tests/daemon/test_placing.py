"""Which GPU a container gets, asked as the kubelet asks."""

import pytest

from sgpud.testing.kubelet.records import AdmissionError
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import OTHER, RESOURCE, A, B, Node
from tests.daemon.record import WITHIN
from tests.daemon.steps import RULE, admit, became


def start(node: Node, kubelet: StandInKubelet, sharing: str) -> None:
    node.configure(sharing=sharing)
    node.start()
    became(kubelet, RESOURCE, 20, 20)


def gpus(kubelet: StandInKubelet, pod: str, count: int = 1) -> list[str]:
    """The GPU of each share that a pod is given."""
    return sorted(i.partition("::")[0] for i in admit(kubelet, pod, count).ids[RESOURCE])


def test_spread_takes_the_gpu_that_is_used_least(node: Node, kubelet: StandInKubelet) -> None:
    start(node, kubelet, 'placement = "spread"')
    given = [gpus(kubelet, f"pod-{number}")[0] for number in range(8)]
    assert (given.count(A), given.count(B)) == (4, 4)
    assert {given[0], given[1]} == {A, B}


def test_packed_fills_one_gpu_first(node: Node, kubelet: StandInKubelet) -> None:
    start(node, kubelet, 'placement = "packed"')
    given = [gpus(kubelet, f"pod-{number}")[0] for number in range(12)]
    assert len(set(given[:10])) == 1
    assert len(set(given[10:])) == 1
    assert len(set(given)) == 2


def test_distinct_shares_are_of_different_gpus(node: Node, kubelet: StandInKubelet) -> None:
    start(node, kubelet, 'multiple = "distinct"')
    for number in range(10):
        assert gpus(kubelet, f"pod-{number}", 2) == [A, B]
    with pytest.raises(AdmissionError, match="0 available"):
        gpus(kubelet, "eleventh", 2)


def test_the_same_gpu_for_all_shares_of_a_container(node: Node, kubelet: StandInKubelet) -> None:
    start(node, kubelet, 'multiple = "same"')
    given = [gpus(kubelet, f"pod-{number}", 5) for number in range(4)]
    assert sorted(given) == [[A] * 5, [A] * 5, [B] * 5, [B] * 5]


def test_any_gpus_for_many_shares(node: Node, kubelet: StandInKubelet) -> None:
    start(node, kubelet, 'multiple = "any"')
    container = admit(kubelet, "large", 15)
    assert container.envs["SGPUD_SHARES"] == "15"
    assert container.envs["NVIDIA_VISIBLE_DEVICES"] == f"{A},{B}"


def test_refuse_allows_one_share(node: Node, kubelet: StandInKubelet) -> None:
    start(node, kubelet, 'multiple = "refuse"')
    with pytest.raises(AdmissionError, match="allows 1"):
        gpus(kubelet, "two", 2)
    assert gpus(kubelet, "one") in ([A], [B])


def test_two_resources_of_one_container_do_not_collide(node: Node, kubelet: StandInKubelet) -> None:
    node.configure(rest=RULE)
    node.start()
    became(kubelet, RESOURCE, 10, 10)
    became(kubelet, OTHER, 4, 4)
    container = kubelet.admit(
        "uid", "default", "pod", "main", {RESOURCE: 1, OTHER: 1}, timeout=WITHIN
    )
    first, second = (response.envs for response in container.responses.values())
    assert {name for name in first if first[name] != second.get(name, first[name])} == set()
    assert container.envs["SGPUD_SHARED_GPU_GPU_UUIDS"] == A
    assert container.envs["SGPUD_OTHER_GPU_GPU_UUIDS"] == B
    assert container.envs["NVIDIA_VISIBLE_DEVICES"] == "void"
