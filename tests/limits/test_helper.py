"""The privileged helper: what it does to which cgroups, and what it refuses."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from sgpud.limits.helper.limiter import CALL_WITHIN
from sgpud.limits.helper.main import listen
from tests.e2e.waiting import until
from tests.gpus.nvml.stub import A100, GPU_A, MIG_1
from tests.limits.helping import GIB, SLOWLY, Helper
from tests.limits.tree import OTHER, STATIC, UID

pytestmark = pytest.mark.slow
LIMITS = "nvmlDeviceSetMemoryLimits_v1"


@pytest.mark.parametrize("backend", ["misc", "dmem"])
def test_a_pod_is_limited_and_its_limit_is_cleared(helper: Helper, backend: str) -> None:
    helper.limits(backend, f"  charge {GIB // 2} {helper.tree.systemd()}")
    pod = helper.tree.systemd()
    assert helper.set(pod, 4 * GIB) == {"ok": True, "limit": 4 * GIB}
    assert helper.in_force() == {str(pod): 4 * GIB}
    (cap,) = helper.ask(op="get")["caps"]
    assert (cap["pod"], cap["gpu"], cap["limit"], cap["late"]) == (UID, GPU_A, 4 * GIB, False)
    assert cap["used"] == GIB // 2
    assert helper.clear(pod) == {"ok": True}
    assert (helper.in_force(), helper.ask(op="get")["caps"]) == ({}, [])


@pytest.mark.parametrize("backend", ["misc", "dmem"])
def test_a_probe_tells_what_the_driver_limits_memory_with(helper: Helper, backend: str) -> None:
    helper.limits(backend)
    assert helper.ask(op="probe", gpus=[GPU_A])["gpus"] == {
        GPU_A: {"backend": backend, "problem": ""}
    }
    assert helper.in_force() == {}


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (("limits none",), "the driver cannot limit the memory of this GPU"),
        (("limits misc", "unprivileged"), "the helper lacks CAP_SYS_ADMIN"),
        (("limits misc", f"error {LIMITS} 0 999"), "failed with 999"),
        (("limits misc", "error nvmlInitWithFlags -1 9"), "failed with 9"),
    ],
)
def test_a_probe_tells_why_a_driver_limits_nothing(
    helper: Helper, lines: tuple[str, ...], problem: str
) -> None:
    helper.stub.write(*lines, A100.rstrip())
    found = helper.ask(op="probe", gpus=[GPU_A])["gpus"][GPU_A]
    assert found["backend"] == ""
    assert problem in found["problem"]


def test_a_kernel_that_has_not_enabled_dmem_is_told(helper: Helper) -> None:
    helper.limits("dmem")
    (helper.tree.root / "cgroup.subtree_control").write_text("cpu\n")
    found = helper.ask(op="probe", gpus=[GPU_A])["gpus"][GPU_A]
    assert found == {"backend": "", "problem": "this cgroup has no controller dmem"}


@pytest.mark.parametrize(
    ("path", "pod", "error"),
    [
        ("{root}/kubepods.slice/../kubepods/pod{uid}", UID, "invalid"),
        ("{root}/kubepods/./pod{uid}", UID, "invalid"),
        ("{root}//kubepods/pod{uid}", UID, "invalid"),
        ("{root}/kubepods/pod{uid}/", UID, "invalid"),
        ("/kubepods/pod{uid}", UID, "invalid"),
        ("kubepods/pod{uid}", UID, "invalid"),
        ("", UID, "invalid"),
        ("{root}", UID, "invalid"),
        ("{root}/system.slice/pod{uid}", UID, "invalid"),
        ("{root}/kubepods", UID, "invalid"),
        ("{root}/kubepods/pod{uid}", OTHER, "invalid"),
        ("{root}/kubepods/pod{uid}", "", "invalid"),
        ("{root}/kubepods/pod{uid}/" + "a" * 64, UID, "invalid"),
        ("{root}/kubepods/pod{other}", OTHER, "gone"),
        ("{root}/kubepods/link/pod{uid}", UID, "invalid"),
        ("{root}/kubepods/burstable/pod{uid}", UID, "invalid"),
        ("{root}/kubepods/pod{uid}\x00", UID, "invalid"),
    ],
)
def test_a_path_that_is_not_the_pods_own_cgroup_is_refused(
    helper: Helper, path: str, pod: str, error: str
) -> None:
    helper.tree.cgroupfs()
    helper.tree.make(f"system.slice/pod{UID}")
    helper.tree.make(f"kubepods/pod{UID}/{'a' * 64}")
    helper.tree.make("kubepods/burstable")
    link = helper.tree.root / "kubepods"
    (link / "link").symlink_to(link)
    (link / "burstable" / f"pod{UID}").symlink_to(link / f"pod{UID}")
    named = path.format(root=helper.tree.root, uid=UID, other=OTHER)
    answer = helper.set(Path(named), pod=pod) if named == str(Path(named)) else {}
    answer = answer or helper.ask(op="set", pod=pod, cgroup=named, gpu=GPU_A, bytes=GIB)
    assert (answer["ok"], answer["error"]) == (False, error)
    assert helper.in_force() == {}


def test_a_folder_that_is_no_cgroup_is_refused(helper: Helper) -> None:
    pod = helper.tree.cgroupfs()
    (pod / "cgroup.controllers").unlink()
    assert helper.set(pod)["error"] == "invalid"


@pytest.mark.parametrize(
    "more",
    [
        {"bytes": 0},
        {"bytes": -1},
        {"bytes": GIB + 1},
        {"bytes": float(GIB)},
        {"bytes": True},
        {"bytes": str(GIB)},
        {"bytes": 2**64 - 1},
        {"gpu": MIG_1},
        {"gpu": "0"},
        {"gpu": None},
        {"pod": 7},
        {"cgroup": 7},
        {"late": "no"},
        {"op": "kill"},
        {"op": ["set"]},
        {"op": None},
    ],
)
def test_a_request_that_is_none_is_refused(helper: Helper, more: dict[str, object]) -> None:
    request = {"op": "set", "pod": UID, "cgroup": str(helper.tree.cgroupfs()), "gpu": GPU_A}
    answer = helper.ask(**{**request, "bytes": GIB, **more})
    assert (answer["ok"], answer["error"]) == (False, "invalid")
    assert helper.in_force() == {}


@pytest.mark.parametrize(
    "text", [b"\n", b"{\n", b"[]\n", b"\xff\n", b"[" * 70000, b"7\n", b'{"op": {}}\n']
)
def test_garbage_is_refused_and_the_next_request_is_answered(helper: Helper, text: bytes) -> None:
    assert helper.send(text)["error"] == "invalid"
    assert helper.ask(op="get") == {"ok": True, "caps": []}


def test_who_sends_nothing_keeps_nobody_out(helper: Helper) -> None:
    assert helper.send(b"") == {}
    assert helper.ask(op="get")["ok"]


def test_a_limit_above_the_gpus_memory_is_refused_and_not_recorded(helper: Helper) -> None:
    answer = helper.set(helper.tree.cgroupfs(), 400 * GIB)
    assert (answer["ok"], answer["error"]) == (False, "value")
    assert helper.ask(op="get")["caps"] == []


@pytest.mark.parametrize("backend", ["misc", "dmem"])
def test_a_limit_of_somebody_else_is_never_touched(helper: Helper, backend: str) -> None:
    helper.limits(backend)
    pod = helper.tree.systemd()
    helper.foreign(pod, 8 * GIB)
    answer = helper.set(pod, 4 * GIB)
    assert (answer["ok"], answer["error"]) == (False, "foreign")
    assert str(8 * GIB) in answer["detail"]
    assert helper.clear(pod) == {"ok": True}
    assert helper.in_force() == {str(pod): 8 * GIB}


def test_a_limit_of_ours_that_somebody_has_changed_is_theirs(helper: Helper) -> None:
    pod = helper.tree.systemd()
    helper.set(pod, 4 * GIB)
    helper.foreign(pod, 2 * GIB)
    table = helper.stub.script.with_name("script.limits")
    table.write_text("".join(table.read_text().splitlines(keepends=True)[1:]))
    assert helper.set(pod, 4 * GIB)["error"] == "foreign"
    assert helper.clear(pod)["ok"]
    assert helper.in_force() == {str(pod): 2 * GIB}


def test_the_limit_of_an_ancestor_is_somebody_elses(helper: Helper) -> None:
    """On misc the nearest limit counts: one below it would lift it."""
    pod = helper.tree.systemd()
    helper.foreign(pod.parent, 2 * GIB)
    assert helper.set(pod, 4 * GIB)["error"] == "foreign"


def test_a_limit_can_be_raised_and_lowered(helper: Helper) -> None:
    pod = helper.tree.systemd()
    for size in (4 * GIB, 8 * GIB, 2 * GIB):
        assert helper.set(pod, size)["limit"] == size
    assert helper.in_force() == {str(pod): 2 * GIB}


def test_a_limit_below_what_is_used_is_refused_and_the_old_one_stays_ours(helper: Helper) -> None:
    pod = helper.tree.systemd()
    helper.set(pod, 4 * GIB)
    helper.limits("misc", f"  charge {3 * GIB} {pod}")
    assert helper.set(pod, 2 * GIB)["error"] == "value"
    assert helper.clear(pod)["ok"]
    assert helper.in_force() == {}


def test_a_cgroup_of_the_same_name_that_was_made_again_is_another_one(helper: Helper) -> None:
    pod = helper.tree.cgroupfs()
    helper.set(pod, 4 * GIB, late=True)
    helper.tree.remove(pod)
    pod.with_name("keeps-the-inode").mkdir()
    helper.tree.cgroupfs()
    assert helper.ask(op="get")["caps"] == []
    assert helper.clear(pod)["ok"]
    assert helper.in_force() == {str(pod): 4 * GIB}


def test_a_cgroup_that_is_gone_leaves_no_record(helper: Helper) -> None:
    pod = helper.tree.cgroupfs()
    helper.set(pod)
    helper.tree.remove(pod)
    assert helper.clear(pod) == {"ok": True}
    assert helper.ask(op="get")["caps"] == []


def test_the_next_helper_knows_what_this_one_has_set(place: Helper) -> None:
    pod = place.tree.cgroupfs()
    static = place.tree.cgroupfs(STATIC)
    with place.running():
        place.set(pod, 4 * GIB)
        place.set(static, pod=STATIC)
    with place.running():
        caps = {cap["pod"]: cap["limit"] for cap in place.ask(op="get")["caps"]}
        assert caps == {UID: 4 * GIB, STATIC: GIB}
        assert place.set(pod, 2 * GIB)["ok"]
        assert place.clear(pod)["ok"]
    assert place.in_force() == {str(static): GIB}


def test_a_reloaded_driver_has_forgotten_a_limit_and_the_record_shows_it(helper: Helper) -> None:
    helper.set(helper.tree.cgroupfs())
    helper.stub.script.with_name("script.limits").unlink()
    (cap,) = helper.ask(op="get")["caps"]
    assert (cap["bytes"], cap["limit"]) == (GIB, None)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 100000,
        "[]",
        '{"/a": 7}',
        '{"/a": {"inode": 1, "pod": "b", "gpus": {"c": {}}}}',
        '{"/a": {"inode": 1, "pod": "b", "gpus": {"c": {"bytes": [], "late": false}}}}',
    ],
)
def test_a_record_that_cannot_be_read_is_told(helper: Helper, text: str) -> None:
    (helper.state / "limits.json").write_text(text)
    answer = helper.set(helper.tree.cgroupfs())
    assert answer["error"] == "record"
    assert "remove it" in answer["detail"]


@pytest.mark.parametrize("text", ["", "\0" * 100], ids=["empty", "zeros"])
def test_a_record_that_was_lost_with_the_power_names_no_limit(helper: Helper, text: str) -> None:
    (helper.state / "limits.json").write_text(text)
    assert helper.set(helper.tree.cgroupfs())["ok"]


def test_a_helper_that_was_killed_as_it_began_keeps_none_of_its_pid_out(tmp_path: Path) -> None:
    """In a container each has the same one."""
    path = tmp_path / "limits.sock"
    path.with_name(f"limits.sock.{os.getpid()}").touch()
    listen(str(path)).close()
    assert path.is_socket()


def test_a_call_that_hangs_is_given_up_and_the_next_one_is_made_by_another(helper: Helper) -> None:
    pod = helper.tree.cgroupfs()
    helper.limits("misc", f"hang {LIMITS} 0")
    answer = helper.set(pod)
    assert (answer["ok"], answer["error"]) == (False, "hung")
    assert CALL_WITHIN == 5.0
    helper.limits("misc")
    assert helper.set(pod)["ok"]


def test_a_crash_of_the_library_is_told_and_the_next_call_is_made_by_another(
    helper: Helper,
) -> None:
    pod = helper.tree.cgroupfs()
    helper.limits("misc", f"crash {LIMITS} 0")
    assert helper.set(pod)["error"] == "nvml"
    helper.limits("misc")
    assert helper.set(pod)["ok"]


def test_what_the_library_prints_is_no_answer(helper: Helper) -> None:
    helper.limits("misc", f"print {LIMITS} 0")
    assert helper.set(helper.tree.cgroupfs())["ok"]


def test_an_old_driver_is_told(place: Helper, built: object) -> None:
    place.stub.library = built("-DSTUB_610")  # type: ignore[operator]
    with place.running():
        answer = place.set(place.tree.cgroupfs())
    assert (answer["error"], answer["detail"]) == ("unsupported", "the driver is older than 615")


def test_only_its_own_user_can_connect(helper: Helper) -> None:
    assert stat.S_IMODE(helper.socket.stat().st_mode) == 0o600


def test_it_ends_its_worker_when_nobody_asks(helper: Helper) -> None:
    """While it lives, the driver cannot be unloaded."""
    helper.ask(op="probe", gpus=[GPU_A])
    assert helper.process is not None
    children = Path(f"/proc/{helper.process.pid}/task/{helper.process.pid}/children")
    assert children.read_text().split()
    until(lambda: not children.read_text().split(), "the worker is gone", SLOWLY)


def test_it_is_small(helper: Helper) -> None:
    helper.set(helper.tree.cgroupfs())
    assert helper.process is not None
    pid = helper.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in (pid, child):
        lines = Path(f"/proc/{each}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        assert int(fields["VmRSS"].split()[0]) <= 18 * 1024, json.dumps(fields)
