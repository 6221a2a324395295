"""Overuse of memory in a running daemon: whom it evicts, whom it spares, and what it says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sgpud.core.limits.settings import OVERUSE_ANNOTATION, SPARE
from sgpud.testing.api_server import ApiServer
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import GPUS, A, Node
from tests.daemon.process import Process
from tests.daemon.record import WITHIN
from tests.daemon.steps import became, waiting
from tests.daemon.with_api_server import MEMORY

pytestmark = pytest.mark.slow
PODS = {
    name: f"0a1b2c3d-1111-4222-8333-44445555000{number}"
    for number, name in enumerate(("train", "serve", "spared", "fair"))
}
HELD = {"train": 2, "serve": 6, "spared": 1, "fair": 4}
USED = {"train": 5, "serve": 8, "spared": 12, "fair": 4}
"""GiB: train exceeds its grant most of those that are not spared; serve uses more."""
ID = "0123456789abcdef" * 4
LIMITS = '[limits]\npressure = "always"\nover_for = "1s"\ncool_down = "5s"\noveruse = "evict"\n'


@pytest.fixture
def api() -> Iterator[ApiServer]:
    server = ApiServer()
    server.start()
    yield server
    server.stop()


def configure(node: Node, api: ApiServer | None, limits: str) -> None:
    """Write the configuration, with more lines of [limits]."""
    dra = ""
    if api is not None:
        access = api.write_kubeconfig(node.root / "kubeconfig")
        dra = f'[dra]\nkubeconfig = "{access}"\nnode_name = "{api.node}"\n'
    node.configure(
        resource=MEMORY,
        sharing='share_memory = "1GiB"\nmeasure_every = "1s"',
        rest=f"{LIMITS}{limits}\n{dra}",
    )


@contextmanager
def overusing(
    node: Node, kubelet: StandInKubelet, api: ApiServer | None, limits: str = "dry_run = false"
) -> Iterator[Process]:
    """A daemon, and pods on its only GPU that use what USED says."""
    top = f"sgpud-test-{node.root.name}/kubepods/burstable"
    with waiting({name: f"{top}/pod{uid}/{ID}" for name, uid in PODS.items()}) as pids:
        node.gpus.write_text(
            GPUS.partition("\n\n")[0]
            + "".join(
                f'\n[[event]]\nat = "0s"\ngpu = 0\nprocess = {pids[name]}\nmemory = "{size}GiB"\n'
                for name, size in USED.items()
            )
        )
        if api is not None:
            for name, uid in PODS.items():
                marked = {OVERUSE_ANNOTATION: SPARE} if name == "spared" else {}
                api.core.add_pod(name, uid=uid, annotations=marked)
        configure(node, api, limits)
        process = node.start()
        became(kubelet, MEMORY, 40, 40)
        for name, uid in PODS.items():
            held = {MEMORY: HELD[name]}
            kubelet.admit(uid, "default", name, "main", held, timeout=WITHIN)
        yield process


def told(api: ApiServer, reason: str) -> dict[str, str]:
    """The Events of this reason: what they say, by pod."""
    return {
        str(one["involvedObject"]["name"]): str(one["message"])
        for one in list(api.core.events.values())
        if one["reason"] == reason
    }


def test_the_one_that_exceeds_its_grant_most_is_evicted_and_nobody_else(
    node: Node, kubelet: StandInKubelet, api: ApiServer
) -> None:
    with overusing(node, kubelet, api) as process:
        process.said("Evicted pod default/train: container main has used 3GiB more memory")
        assert api.wait(lambda: "train" in told(api, "Evicted"), WITHIN)
        assert f"used 3GiB more memory of GPU {A}" in told(api, "Evicted")["train"]
        assert api.wait(
            lambda: told(api, "MemoryOveruse").keys() == {"train", "serve", "spared"}, WITHIN
        ), api.core.events
        (cluster,) = process.view()["cluster"]
        assert (cluster["overuse_evictions"], cluster["evicted"]) == (1, 1)
        said = node.command("explain", "default/spared", "--run-dir", str(node.run)).stdout
        assert f'it is spared: its annotation {OVERUSE_ANNOTATION} is "{SPARE}"' in said
    assert api.core.evicted == ["train"]


def test_a_budget_is_honoured_and_said(node: Node, kubelet: StandInKubelet, api: ApiServer) -> None:
    api.core.budgets["default", "train"] = "It needs 1 healthy pod and has 1."
    with overusing(node, kubelet, api) as process:
        process.said("Cannot evict pod default/train")
        (cluster,) = process.view()["cluster"]
        assert "disruption budget" in " ".join(cluster["problems"])
        assert api.core.evicted == []
        api.core.budgets.clear()
        process.said("Evicted pod default/train")
    assert api.core.evicted == ["train"]


def test_without_the_right_it_says_whom_it_cannot_evict(
    node: Node, kubelet: StandInKubelet, api: ApiServer
) -> None:
    api.core.forbidden.add("create pods/eviction")
    with overusing(node, kubelet, api) as process:
        process.said("Cannot evict pod default/train")
        (cluster,) = process.view()["cluster"]
        assert "cannot evict pod default/train: 403" in " ".join(cluster["problems"])
    assert api.core.evicted == []


def test_a_dry_run_says_who_would_be_evicted_until_it_is_none(
    node: Node, kubelet: StandInKubelet, api: ApiServer
) -> None:
    with overusing(node, kubelet, api, limits="") as process:
        process.said("Without [limits] dry_run, pod default/train would be evicted: container main")
        said = node.command("explain", "default/train", "--run-dir", str(node.run)).stdout
        assert "without [limits] dry_run its pod would be evicted" in " ".join(said.split())
        assert api.wait(lambda: "train" in told(api, "MemoryOveruse"), WITHIN)
        assert not any("/eviction" in path for _, path in api.calls)
        configure(node, api, "dry_run = false")
        process.hang_up()
        process.said("Evicted pod default/train")
    assert api.core.evicted == ["train"]


def test_without_credentials_nobody_is_evicted_and_the_status_says_why(
    node: Node, kubelet: StandInKubelet
) -> None:
    with overusing(node, kubelet, None) as process:
        process.said("default/train/main has used 3GiB more memory")
        assert "there are no credentials" in " ".join(process.view()["notes"])
