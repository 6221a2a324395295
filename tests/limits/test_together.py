"""The daemon, the helper, a kubelet and a real tree of cgroups; NVML alone is the stub."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from attrs import define

from sgpud.testing.kubelet.records import PreStartError
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.cgroups import hierarchy
from tests.daemon.node import Node
from tests.daemon.process import Process
from tests.daemon.record import WITHIN
from tests.daemon.steps import until_it_holds
from tests.e2e.waiting import until
from tests.gpus.nvml.stub import A100, GPU_A, Stub
from tests.limits.helping import GIB, SLOWLY, Helper
from tests.limits.tree import CgroupTree

pytestmark = pytest.mark.slow
MEMORY = "deepomatic.com/shared-gpu-memory"
SHARING = 'share_memory = "1GiB"\n[container]\nmethod = "nvidia-runtime"\n[limits]\nmemory = "{}"'


@define
class Together:
    """A node with all of it."""

    node: Node
    kubelet: StandInKubelet
    helper: Helper
    kubepods: Path
    daemon: Process
    cleanup: ExitStack

    def admit(self, count: int = 4) -> tuple[str, Path]:
        """A pod is admitted, and its cgroup is made: its UID and that."""
        uid = str(uuid.uuid4())
        self.kubelet.admit(uid, "default", uid[:8], "main", {MEMORY: count}, timeout=WITHIN)
        cgroup = self.kubepods / f"pod{uid}"
        cgroup.mkdir()
        self.cleanup.callback(lambda: cgroup.rmdir() if cgroup.exists() else None)
        return uid, cgroup

    def limited(self, cgroup: Path, size: int | None) -> None:
        """Wait until the driver limits a cgroup to so much."""
        until(
            lambda: self.helper.in_force().get(str(cgroup)) == size,
            f"{cgroup} is limited to {size}",
            SLOWLY,
        )

    def restart(self) -> None:
        """Another daemon takes over."""
        self.daemon.end()
        self.daemon = start(self.node, self.helper.stub)
        self.kubelet.next_devices(MEMORY, WITHIN)


def start(node: Node, stub: Stub) -> Process:
    return node.start(fake_gpus=False, environment=stub.env)


@contextmanager
def together(built: Callable[..., Path], memory: str, *, helped: bool = True) -> Iterator[Together]:
    root = hierarchy("v2").root
    kubepods = root / f"sgpud-kubepods-{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        kubepods.mkdir()
        stack.callback(kubepods.rmdir)
        node = stack.enter_context(Node())
        stub = Stub(node.root / "script", built(), node.root)
        helper = Helper(stub, CgroupTree(root), node.run, node.root / "helper")
        stub.write("driver 615.71.09", "limits misc", A100)
        node.run.mkdir(exist_ok=True)
        node.configure(resource=MEMORY, sharing=SHARING.format(memory))
        if helped:
            stack.enter_context(helper.running())
        kubelet = stack.enter_context(node.kubelet())
        daemon = start(node, stub)
        kubelet.next_devices(MEMORY, WITHIN)
        yield Together(node, kubelet, helper, kubepods, daemon, stack)


def test_a_pod_is_limited_before_its_container_starts_until_it_ends(
    built: Callable[..., Path],
) -> None:
    with together(built, "auto") as all_of_it:
        assert all_of_it.kubelet.registrations[-1].pre_start
        uid, cgroup = all_of_it.admit()
        all_of_it.kubelet.prestart(uid, "main")
        assert all_of_it.helper.in_force() == {str(cgroup): 4 * GIB}
        found = until_it_holds(all_of_it.node, uid)
        assert any(f"Its memory of {GPU_A} is limited to 4GiB" in one for one in found["answer"])
        assert any("Memory limits apply on" in one for one in found["answer"]), found["answer"]
        all_of_it.restart()
        # What was lost meanwhile, as with a reload of the driver, is put back.
        all_of_it.helper.stub.script.with_name("script.limits").unlink()
        all_of_it.limited(cgroup, 4 * GIB)
        all_of_it.kubelet.terminate(uid)
        all_of_it.limited(cgroup, None)


def test_a_helper_that_is_killed_keeps_containers_waiting_with_require(
    built: Callable[..., Path],
) -> None:
    with together(built, "require", helped=False) as all_of_it:
        with all_of_it.helper.running():
            first, cgroup = all_of_it.admit()
            all_of_it.kubelet.prestart(first, "main")
        second, other = all_of_it.admit(2)
        with pytest.raises(PreStartError, match="start sgpud-limits"):
            all_of_it.kubelet.prestart(second, "main")
        found = until_it_holds(all_of_it.node, second)
        assert any("A container of it waits" in one for one in found["answer"]), found["answer"]
        with all_of_it.helper.running():
            all_of_it.kubelet.prestart(second, "main")
            assert all_of_it.helper.in_force() == {str(cgroup): 4 * GIB, str(other): 2 * GIB}


def test_a_helper_that_hangs_delays_the_start_and_no_allocation(
    built: Callable[..., Path],
) -> None:
    with together(built, "auto") as all_of_it:
        uid, cgroup = all_of_it.admit()
        all_of_it.helper.stub.write(
            "driver 615.71.09", "limits misc", A100, "hang nvmlDeviceSetMemoryLimits_v1 0"
        )
        all_of_it.kubelet.prestart(uid, "main")
        other, _ = all_of_it.admit(1)
        assert all_of_it.kubelet.container(other, "main").ids[MEMORY]
        all_of_it.helper.stub.write("driver 615.71.09", "limits misc", A100)
        all_of_it.limited(cgroup, 4 * GIB)
