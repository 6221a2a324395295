"""Where processes are: in a /proc that the test writes, and in this machine's own."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from attrs import define

from sgpud.core.gpu.observations import ProcessOwner
from sgpud.gpus.process_locator import ELSEWHERE, FIRST_PIDS, HIDDEN, KNOWN_FOR, ProcessLocator
from tests.cgroups import VERSIONS, hierarchy, process
from tests.daemon.process import SOURCE

UID = "0a1b2c3d-1111-2222-3333-444455556666"
ID = "0123456789abcdef" * 4
POD = f"0::/kubepods/pod{UID}/{ID}\n"
MOUNTS = f"31 22 8:1 /pods/{UID}/containers/main/aa /dev/termination-log rw - ext4 /dev/sda rw\n"


@define
class Proc:
    """A /proc of the test's."""

    root: Path
    now: float = 0.0

    def add(self, pid: int, *, cgroup: str = POD, mounts: str = "", began: int = 100) -> None:
        folder = self.root / str(pid)
        folder.mkdir(exist_ok=True)
        fields = " ".join(["S", *map(str, range(4, 22)), str(began), "0"])
        (folder / "stat").write_text(f"{pid} (a ) b) {fields}\n")
        (folder / "cgroup").write_text(cgroup)
        (folder / "mountinfo").write_text(mounts)

    def places(self, *, ours: bool = True) -> ProcessLocator:
        return ProcessLocator(self.root, ours=ours, clock=lambda: self.now)


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    made = Proc(tmp_path)
    made.add(1, cgroup="0::/init.scope\n")
    return made


def test_a_process_in_a_pod(proc: Proc) -> None:
    proc.add(12, mounts=MOUNTS)
    found = proc.places().look([12])
    path = POD.rstrip().removeprefix("0::")
    assert found.places == {12: ProcessOwner((UID,), "main", ID, path, "a ) b")}
    assert found.problem == ""


def test_mounts_that_name_another_pod_are_not_trusted(proc: Proc) -> None:
    proc.add(12, mounts=MOUNTS.replace(UID, UID.replace("0", "9")))
    assert proc.places().look([12]).places[12].container == ""


def test_one_that_has_ended_is_left_out(proc: Proc) -> None:
    proc.add(12)
    assert set(proc.places().look([12, 13]).places) == {12}


def test_a_cgroup_that_cannot_be_read_is_a_problem(proc: Proc) -> None:
    proc.add(12)
    (proc.root / "12" / "cgroup").unlink()
    (proc.root / "12" / "cgroup").mkdir()
    place = proc.places().look([12]).places[12]
    assert place.problem == "its cgroup cannot be read: Is a directory"
    assert place.pods == ()


def test_without_mounts_the_pod_is_still_known(proc: Proc) -> None:
    proc.add(12)
    (proc.root / "12" / "mountinfo").unlink()
    assert proc.places().look([12]).places[12].pods == (UID,)


def test_a_process_is_remembered_for_a_while(proc: Proc) -> None:
    proc.add(12)
    places = proc.places()
    first = places.look([12]).places[12]
    (proc.root / "12" / "cgroup").write_text("0::/elsewhere\n")
    assert places.look([12]).places[12] == first
    proc.now += KNOWN_FOR
    assert places.look([12]).places[12].pods == ()


def test_a_reused_process_id_is_another_process(proc: Proc) -> None:
    proc.add(12)
    places = proc.places()
    places.look([12])
    proc.add(12, cgroup="0::/user.slice\n", began=200)
    assert places.look([12]).places[12].cgroup == "/user.slice"


def test_with_hidden_processes_a_missing_one_has_not_ended(proc: Proc) -> None:
    (proc.root / "1" / "stat").unlink()
    proc.add(12)
    found = proc.places().look([12, 13])
    assert found.problem == HIDDEN
    assert found.places[13] == ProcessOwner(problem=HIDDEN)
    assert found.places[12].pods == (UID,)


def test_garbage_in_stat_is_ignored(proc: Proc) -> None:
    for text in ("", "12 (x", "12 (x) S 1"):
        proc.add(12)
        (proc.root / "12" / "stat").write_text(text)
        assert proc.places().look([12]).places == {}


# This machine's. ---------------------------------------------------------------------------------

LOOK = """
import json, os, sys
from pathlib import Path
from attrs import asdict
from sgpud.gpus.process_locator import ProcessLocator
if len(sys.argv) > 4:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
found = ProcessLocator(Path(sys.argv[1]), ours=sys.argv[2] == "ours").look([int(sys.argv[3])])
print(json.dumps(asdict(found)))
"""


def look(pid: int, *before: str, proc: str = "/proc", ours: bool = True, user: str = "") -> Any:
    """What another process finds; `before` is what executes it."""
    words = [sys.executable, "-c", LOOK, proc, "ours" if ours else "node", str(pid)]
    done = subprocess.run(
        [*before, *words, *([user] if user else [])],
        env={"PYTHONPATH": SOURCE, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found["places"].get(str(pid)), found["problem"]


def path_of(name: str, *, systemd: bool) -> str:
    """A path as the kubelet and containerd make it, below a folder of the test's own."""
    uid = UID.replace("-", "_")
    if systemd:
        return f"{name}/kubepods.slice/kubepods-pod{uid}.slice/cri-containerd-{ID}.scope"
    return f"{name}/kubepods/burstable/pod{UID}/{ID}"


@pytest.fixture
def name() -> str:
    """A folder for cgroups that nobody else has."""
    return f"sgpud-test-{uuid.uuid4().hex[:8]}"


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("systemd", [True, False], ids=["systemd", "cgroupfs"])
def test_a_real_process_in_a_real_cgroup(version: str, name: str, *, systemd: bool) -> None:
    with (
        hierarchy(version).cgroup(path_of(name, systemd=systemd)) as cgroup,
        process(cgroup) as pid,
    ):
        place = ProcessLocator(Path("/proc"), ours=True).look([pid]).places[pid]
    assert (place.pods, place.container_id, place.command) == ((UID,), ID, "cat")
    assert ProcessLocator(Path("/proc"), ours=True).look([pid]).places == {}


@pytest.mark.parametrize("version", VERSIONS)
def test_from_a_cgroup_namespace_of_its_own(
    version: str, name: str, need_tool: Callable[[str], str]
) -> None:
    here = hierarchy(version)
    own = f"{name}/kubepods/burstable/pod{UID.replace('0', '9')}/{ID[::-1]}"
    enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
    with (
        here.cgroup(path_of(name, systemd=False)) as cgroup,
        here.cgroup(own) as ours,
        process(cgroup) as other,
        process(ours) as beside,
    ):
        before = ("sh", "-c", enter, str(ours), need_tool("unshare"), "--cgroup")
        place, problem = look(other, *before)
        mine, _ = look(beside, *before)
        outside, _ = look(1, *before)
    assert (place["pods"], place["container_id"], problem) == ([UID], ID, "")
    assert place["cgroup"].startswith("/../")
    assert (mine["own"], mine["pods"]) == (True, [])
    assert (outside["own"], outside["pods"]) == (False, [])


def test_the_kubelets_mount_names_the_container(
    name: str, tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
    words = tmp_path / "pods" / UID / "containers" / "main-1" / "4f0e7a11"
    words.parent.mkdir(parents=True)
    words.touch()
    target = tmp_path / "termination-log"
    target.touch()
    mount = f'mount --bind "{words}" "{target}" && echo done && exec cat'
    with hierarchy("v2").cgroup(path_of(name, systemd=True)) as cgroup:
        unshare = need_tool("unshare")
        waits = subprocess.Popen(
            [unshare, "--mount", "sh", "-c", mount], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert waits.stdout is not None
        assert waits.stdout.readline() == b"done\n"
        (cgroup / "cgroup.procs").write_text(f"{waits.pid}\n")
        place = ProcessLocator(Path("/proc"), ours=True).look([waits.pid]).places[waits.pid]
        waits.communicate(timeout=20)
    assert (place.pods, place.container) == ((UID,), "main-1")


def test_in_a_private_pid_namespace_nothing_is_attributed(need_tool: Callable[[str], str]) -> None:
    hierarchy("v2")  # needs root, as this does
    place, problem = look(1, need_tool("unshare"), "--pid", "--fork", "--mount-proc", ours=False)
    assert problem == ELSEWHERE
    assert place["problem"] == ELSEWHERE
    assert place["pods"] == []


@pytest.mark.slow
def test_in_the_hosts_pid_namespace_processes_are_attributed() -> None:
    if Path("/proc/self/ns/pid").stat().st_ino != FIRST_PIDS:
        pytest.skip("the tests run in a PID namespace of their own")
    with process(None) as pid:
        found = ProcessLocator(Path("/proc")).look([pid])
    assert found.problem == ""
    assert found.places[pid].command == "cat"


def test_a_hidden_process_is_distinguished_from_an_ended_one(
    need_tool: Callable[[str], str],
) -> None:
    hierarchy("v2")
    with process(None) as pid, TemporaryDirectory(prefix="sgpud-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        mount = f'mount -t proc -o hidepid=2 proc "{folder}" && exec "$@"'
        before = (need_tool("unshare"), "--mount", "sh", "-c", mount, "sh")
        place, problem = look(pid, *before, proc=folder, user="nobody")
    assert problem == HIDDEN
    assert place["problem"] == HIDDEN
