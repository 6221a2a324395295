"""What takes its time: pods that end, GPUs that fill up. Each scene is a test, all side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from sgpud.testing.kubelet.podresources import PodResourcesFault
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import GPUS, RESOURCE, A, B, Node, of
from tests.daemon.process import Process
from tests.daemon.record import WITHIN, tell
from tests.memory.shared import MEMORY, admit, became, gpu, healthy, start

Scene: TypeAlias = Callable[[], None]
FREED_WITHIN = 45.0
"""Seconds until a finished pod's shares are free while something waits for them."""
GUARD = """
full_guard = true
measure_every = "1s"
resume_after = "2s"
"""
APART = 30.0
"""Seconds between two changes of the guard's mind at least."""


@contextmanager
def a_node() -> Iterator[tuple[Node, StandInKubelet]]:
    """A node and its running kubelet."""
    with Node() as node, node.kubelet() as kubelet:
        yield node, kubelet


def named(process: Process, uuid: str, resource: str) -> dict[str, int]:
    """The holders of one GPU by name, with how many shares each has."""
    holders = gpu(process, uuid, resource)["holders"]
    return {f"{one['namespace']}/{one['pod']}/{one['container']}": one["shares"] for one in holders}


def finished_pods_are_seen_while_memory_is_held() -> None:
    """The kubelet says nothing when a pod ends, and frees what it held only when it is asked."""
    with a_node() as (node, kubelet):
        process = start(node, kubelet)
        admit(kubelet, "short", 30)
        became(kubelet, 30 + 24)
        admit(kubelet, "long", 12)
        became(kubelet, 42 + 12)
        # A grant alone holds for 10 s; another daemon has the kubelet's books only.
        process.end()
        process = node.start()
        became(kubelet, 42 + 12)
        kubelet.terminate("uid-short")
        ended = time.monotonic()
        became(kubelet, 12 + 40, within=FREED_WITHIN)
        tell(f"a finished pod's shares were free after {time.monotonic() - ended:.1f} s")
        assert named(process, B, MEMORY) == {"team/long/main": 12}
        (holder,) = gpu(process, B)["holders"]
        assert holder["bytes"] == 12 * 2**30
        assert abs(holder["since"] - time.time()) < 2 * WITHIN


def without_podresources_the_holders_may_be_stale() -> None:
    with a_node() as (node, kubelet):
        kubelet.pod_resources.set_fault(PodResourcesFault.ABSENT)
        process = start(node, kubelet)
        admit(kubelet, "a", 12)
        process.said("may be stale")
        assert "podresources" in process.view()["holders"]
        assert gpu(process, B)["held"] == 12
        assert named(process, B, MEMORY) == {"//main": 12}
        kubelet.pod_resources.set_fault(None)


def podresources_that_is_broken_costs_no_holder() -> None:
    with a_node() as (node, kubelet):
        process = start(node, kubelet)
        kubelet.pod_resources.set_fault(PodResourcesFault.GARBAGE)
        admit(kubelet, "a", 12)
        process.said("may be stale")
        assert gpu(process, B)["held"] == 12
        became(kubelet, 12 + 40)


def a_holder_whose_gpu_has_gone_is_kept_and_shown() -> None:
    with a_node() as (node, kubelet):
        node.gpus.write_text(f'{GPUS}\n[[event]]\nat = "8s"\ngpu = 0\nunplug = true\n')
        process = start(node, kubelet)
        kept = set(admit(kubelet, "a", 30).ids[MEMORY])
        kubelet.wait_for(lambda k: k.allocatable(MEMORY) == 24, 2 * WITHIN)
        assert kept <= set(kubelet.devices(MEMORY))
        seen = gpu(process, A)
        assert (seen["held"], seen["allocatable"], seen["product"]) == (30, 0, "")
        assert [one["uid"] for one in seen["holders"]] == ["uid-a"]


def a_full_gpu_gets_no_more_pods_until_there_is_room() -> None:
    with a_node() as (node, kubelet):
        happens = ((8, "39GiB"), (12, "1GiB"))
        script = "".join(
            f'\n[[event]]\nat = "{at}s"\ngpu = 0\nused = "{used}"\n' for at, used in happens
        )
        node.gpus.write_text(GPUS + script)
        node.configure(sharing=GUARD)
        process = node.start()
        became(kubelet, 20, 20, RESOURCE)
        kept = {one for pod in "ab" for one in admit(kubelet, pod, 1, RESOURCE).ids[RESOURCE]}
        lists = len(kubelet.lists(RESOURCE))
        became(kubelet, 11, 20, RESOURCE)
        full = time.monotonic()
        assert healthy(kubelet, RESOURCE) == (1, 10)
        reason = gpu(process, A, RESOURCE)["reason"]
        assert reason == "full: 1GiB of 40GiB were free, memory_headroom is 5%"
        process.said("gets no more pods, full: 1GiB of 40GiB were free")
        assert admit(kubelet, "c", 1, RESOURCE).envs["SGPUD_GPU_UUIDS"] == B
        became(kubelet, 20, 20, RESOURCE, within=2 * APART)
        tell(f"a GPU was full for {time.monotonic() - full:.1f} s")
        assert time.monotonic() - full > APART - 2
        assert len(kubelet.lists(RESOURCE)) == lists + 2
        assert of(A, kept)
        process.said("gets pods again")


SCENES: tuple[Scene, ...] = (
    finished_pods_are_seen_while_memory_is_held,
    without_podresources_the_holders_may_be_stale,
    podresources_that_is_broken_costs_no_holder,
    a_holder_whose_gpu_has_gone_is_kept_and_shown,
    a_full_gpu_gets_no_more_pods_until_there_is_room,
)
