"""From what /proc says of a process to its pod and container."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.gpu.cgroup import Cgroup, mounted_in, parse_cgroup

UID = "0a1b2c3d-1111-2222-3333-444455556666"
LOW = UID.replace("-", "_")
STATIC = "8b4ed6b5d3f4fd4d3c9c0dcbd8e1c8c4"
ID = "0123456789abcdef" * 4
OTHER = "f" * 64
SLICES = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{LOW}.slice"
GUARANTEED = f"/kubepods.slice/kubepods-pod{LOW}.slice"

OURS = {
    "v2 systemd containerd": f"0::{SLICES}/cri-containerd-{ID}.scope\n",
    "v2 systemd crio": f"0::{SLICES}/crio-{ID}.scope\n",
    "v2 systemd crio with crun": f"0::{SLICES}/crio-{ID}.scope/container\n",
    "v2 systemd docker": f"0::{GUARANTEED}/docker-{ID}.scope\n",
    "v2 cgroupfs containerd": f"0::/kubepods/burstable/pod{UID}/{ID}\n",
    "v2 cgroupfs crio": f"0::/kubepods/pod{UID}/crio-{ID}\n",
    "v2 below a root of its own": f"0::/custom/kubepods/besteffort/pod{UID}/{ID}\n",
    "v2 made deeper by the container": f"0::{SLICES}/cri-containerd-{ID}.scope/init/docker/{OTHER}",
    "v1 systemd": f"12:memory:{SLICES}/cri-containerd-{ID}.scope\n1:name=systemd:/x\n",
    "v1 cgroupfs": f"11:cpu,cpuacct:/kubepods/besteffort/pod{UID}/{ID}\n",
    "v1 and v2, where v2 is empty": f"9:pids:/kubepods/pod{UID}/{ID}\n1:cpu:/\n0::/\n",
    "v1 some controllers elsewhere": f"9:devices:/\n8:memory:/kubepods/pod{UID}/{ID}\n",
    "containerd for cgroupfs under systemd": (
        f"4:memory:/system.slice/containerd.service/kubepods-pod{LOW}.slice:cri-containerd:{ID}\n"
    ),
    "private, of another class": f"0::/../../../..{SLICES}/cri-containerd-{ID}.scope\n",
    "private, beside": f"0::/../../kubepods-besteffort-pod{LOW}.slice/crio-{ID}.scope\n",
    "private, cgroupfs": f"0::/../../pod{UID}/{ID}\n",
    "a node in docker": (
        f"0::/docker/{OTHER}/kubelet.slice/kubelet-kubepods.slice/"
        f"kubelet-kubepods-pod{LOW}.slice/cri-containerd-{ID}.scope\n"
    ),
}


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("text", OURS.values(), ids=OURS.keys())
def test_the_pod_and_the_container_are_found(text: str, *, private: bool) -> None:
    found = parse_cgroup(text, private=private)
    assert (found.pods, found.container_id, found.hidden) == ((UID,), ID, False)


def test_a_static_pods_uid_is_a_hash() -> None:
    for path in (f"/kubepods/pod{STATIC}/{ID}", f"/x.slice/kubepods-pod{STATIC}.slice/{ID}"):
        assert parse_cgroup(f"0::{path}").pods == (STATIC,)


def test_a_pod_in_a_pod_names_both_the_outer_first() -> None:
    inner = f"/kubepods.slice/kubepods-pod{LOW}.slice/cri-containerd-{OTHER}.scope"
    found = parse_cgroup(f"0::/kubepods/pod{STATIC}/{ID}{inner}")
    assert (found.pods, found.container_id) == ((STATIC, UID), ID)


@pytest.mark.parametrize(
    ("path", "container"),
    [
        ("/", ""),
        ("/user.slice/user-1000.slice/session-3.scope", ""),
        ("/system.slice/nvidia-persistenced.service", ""),
        (f"/system.slice/docker-{ID}.scope", ID),
        (f"/docker/{ID}", ID),
        (f"/machine.slice/machine-libpod_pod_{OTHER}.slice/libpod-{ID}.scope", ID),
        ("/kubepods.slice", ""),
        ("/kubepods/podless", ""),
        (f"/kubepods/pod{UID}x/{ID}", ID),
        (f"/kubepods/pod{UID[:-1]}", ""),
        (f"/kubepods/pod{UID.upper()}", ""),
        (f"/kubepods/pod{UID.replace('-', '_', 1)}", ""),
    ],
)
def test_what_is_in_no_pod(path: str, container: str) -> None:
    assert parse_cgroup(f"0::{path}\n") == Cgroup((), container, path)


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("/", True),
        ("/child", True),
        (f"/../cri-containerd-{ID}.scope", True),
        (f"/../../crio-{ID}.scope/container", True),
        ("/../../../system.slice/x.service", False),
        ("/../../../../user.slice", False),
    ],
)
def test_a_namespace_hides_the_readers_own_pod_and_no_other(path: str, *, hidden: bool) -> None:
    assert parse_cgroup(f"0::{path}", private=True).hidden is hidden
    assert parse_cgroup(f"0::{path}", private=False).hidden is False


def test_on_v1_one_hierarchy_that_leads_elsewhere_is_enough() -> None:
    text = "9:pids:/../../../../user.slice\n1:cpu:/\n0::/\n"
    assert parse_cgroup(text, private=True).hidden is False
    assert parse_cgroup(text.replace("/../../../../user.slice", "/.."), private=True).hidden is True


@given(st.text(), st.booleans())
def test_garbage_gives_an_empty_cgroup(text: str, private: bool) -> None:  # noqa: FBT001 - hypothesis'
    found = parse_cgroup(text, private=private)
    assert "/" in text or found == Cgroup()
    assert mounted_in(text) is None or "/pods/" in text


def test_the_termination_log_mount_names_the_container() -> None:
    before = "22 1 0:20 / /proc rw - proc proc rw\n"
    root = f"/var/lib/kubelet/pods/{UID}/containers/main-1/4f0e7a11"
    line = f"31 22 8:1 {root} /dev/termination-log rw,relatime - ext4 /dev/sda1 rw\n"
    assert mounted_in(before + line) == (UID, "main-1")
    own_disk = line.replace("/var/lib/kubelet", "").replace("/dev/termination-log", "/tmp/last")
    assert mounted_in(own_disk) == (UID, "main-1")
    assert mounted_in(line.replace(UID, STATIC)) == (STATIC, "main-1")


@pytest.mark.parametrize(
    "root",
    [
        f"/var/lib/kubelet/pods/{UID}/etc-hosts",
        f"/pods/{UID}/containers/",
        f"/pods/{UID}/containers/UPPER/aa",
        f"/pods/{UID}/containers/-x/aa",
        "/pods/x/containers/main/aa",
        "/",
    ],
)
def test_other_mounts_name_none(root: str) -> None:
    assert mounted_in(f"31 22 8:1 {root} /dev/x rw - ext4 /dev/sda1 rw\n") is None


def test_where_something_is_mounted_does_not_count() -> None:
    target = f"/pods/{UID}/containers/main/aa"
    assert mounted_in(f"31 22 8:1 / {target} rw - ext4 /dev/sda1 rw\n") is None
