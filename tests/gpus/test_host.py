"""What the node has for handing GPUs over: device nodes, CDI names, the runtime, mounts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.allocation.injection import DeviceNode, GpuAccess, NodeHost
from sgpud.core.gpu.gpu import Gpu, Mig
from sgpud.core.sharing.rules import GKE_DRIVER, HostMount
from sgpud.gpus.cdi import read_specs
from sgpud.gpus.host import look
from tests.gpus.nvml.stub import GPU_A, GPU_B, MIG_1

KIND = "nvidia.com/gpu"
A = Gpu(GPU_A, 0, "NVIDIA A100", 2**35, minor=1)
B = Gpu(GPU_B, 1, "NVIDIA A100", 2**35, minor=0)
CUT = Gpu(MIG_1, 1, "NVIDIA A100 MIG 1g.5gb", 2**32, minor=0, mig=Mig(GPU_B, 7, 0))

BY_INDEX = """\
---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  - path: /dev/nvidia-uvm
  hooks:
  - args:
    - nvidia-cdi-hook
    - create-symlinks
    - --link
    - ../libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia1
    - path: /dev/dri/card1
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    - path: /dev/nvidia-caps/nvidia-cap66
    - path: /dev/nvidia-caps/nvidia-cap67
  name: "1:0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    - path: /dev/nvidia1
  name: all
kind: nvidia.com/gpu
"""


class Node:
    """A node's file system below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, path: str, text: str = "") -> None:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def devices(self, *names: str) -> None:
        for name in ("nvidiactl", "nvidia-uvm", *names):
            self.put(f"dev/{name}")

    def capabilities(self, gi: int, ci: int) -> None:
        base = "proc/driver/nvidia/capabilities/gpu0/mig/gi7"
        mode = "DeviceFileMode: 292\nDeviceFileModify: 1\n"
        self.put(f"{base}/access", f"DeviceFileMinor: {gi}\n{mode}")
        self.put(f"{base}/ci0/access", f"DeviceFileMinor: {ci}\n{mode}")

    def look(self, *gpus: Gpu, mounts: Iterable[HostMount] = ()) -> NodeHost:
        return look(self.root, gpus, KIND, mounts)

    def access(self, gpu: Gpu) -> GpuAccess:
        return self.look(gpu).access[gpu.uuid]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def spec(*devices: Mapping[str, object], kind: str = KIND) -> str:
    return json.dumps({"cdiVersion": "0.6.0", "kind": kind, "devices": devices})


def device(name: str, *nodes: str) -> dict[str, object]:
    return {"name": name, "containerEdits": {"deviceNodes": [{"path": path} for path in nodes]}}


def same(*paths: str) -> tuple[DeviceNode, ...]:
    return tuple(DeviceNode(path, path) for path in paths)


def test_the_device_nodes_of_a_gpu_are_its_own_and_the_common_ones(node: Node) -> None:
    node.devices("nvidia1", "nvidia-modeset")
    host = node.look(A)
    assert host.common_nodes == same("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-modeset")
    assert host.access[GPU_A].nodes == same("/dev/nvidia1")
    assert (host.device_nodes_missing, host.access[GPU_A].nodes_missing) == ("", "")
    assert all(each.permissions == "mrw" for each in host.common_nodes)


def test_a_missing_node_is_named_with_the_command_that_creates_it(node: Node) -> None:
    node.put("dev/nvidiactl")
    host = node.look(A)
    assert "/dev/nvidia-uvm missing" in host.device_nodes_missing
    assert "nvidia-modprobe" in host.device_nodes_missing
    assert "/dev/nvidia1 missing" in host.access[GPU_A].nodes_missing
    assert host.access[GPU_A].nodes == ()


def test_a_gpu_without_a_minor_number_has_no_nodes(node: Node) -> None:
    node.devices("nvidia0")
    assert "minor number" in node.access(evolve(A, minor=None)).nodes_missing


def test_a_mig_instance_needs_its_parents_node_and_both_capabilities(node: Node) -> None:
    node.devices("nvidia0", "nvidia-caps/nvidia-cap66", "nvidia-caps/nvidia-cap67")
    node.capabilities(66, 67)
    caps = ("/dev/nvidia-caps/nvidia-cap66", "/dev/nvidia-caps/nvidia-cap67")
    assert node.access(CUT).nodes == same("/dev/nvidia0", *caps)


def test_a_mig_instance_with_a_capability_node_missing_has_none(node: Node) -> None:
    node.devices("nvidia0", "nvidia-caps/nvidia-cap66")
    node.capabilities(66, 67)
    assert "/dev/nvidia-caps/nvidia-cap67 missing" in node.access(CUT).nodes_missing


@pytest.mark.parametrize("text", ["", "DeviceFileMinor: \n", "DeviceFileMinor: x", "\x00"])
def test_a_capability_without_its_number_is_reported(node: Node, text: str) -> None:
    node.devices("nvidia0")
    node.capabilities(66, 67)
    node.put("proc/driver/nvidia/capabilities/gpu0/mig/gi7/ci0/access", text)
    assert "gpu0/mig/gi7/ci0/access does not contain" in node.access(CUT).nodes_missing


def test_a_cdi_name_is_the_uuid_if_a_spec_has_it(node: Node) -> None:
    node.put("var/run/cdi/nvidia.json", spec(device(GPU_A, "/dev/nvidia1")))
    assert node.access(A).cdi == f"nvidia.com/gpu={GPU_A}"
    assert node.access(A).cdi_missing == ""


def test_a_cdi_name_is_the_index_if_its_device_node_matches(node: Node) -> None:
    node.devices("nvidia0", "nvidia1")
    node.capabilities(66, 67)
    node.put("etc/cdi/nvidia.yaml", BY_INDEX)
    assert node.access(A).cdi == "nvidia.com/gpu=0"
    assert node.access(CUT).cdi == "nvidia.com/gpu=1:0"


def test_an_index_that_has_moved_to_another_gpu_is_refused(node: Node) -> None:
    node.devices("nvidia0", "nvidia1")
    node.put("etc/cdi/nvidia.yaml", BY_INDEX)
    access = node.access(evolve(A, minor=0))
    assert access.cdi == ""
    assert "nvidia.com/gpu=0 of /etc/cdi/nvidia.yaml injects nvidia1" in access.cdi_missing
    assert "this GPU is nvidia0" in access.cdi_missing


def test_an_index_that_injects_more_than_the_gpu_is_refused(node: Node) -> None:
    node.put("etc/cdi/a.json", spec(device("0", "/dev/nvidia1", "/dev/nvidia0")))
    assert "injects nvidia0, nvidia1" in node.access(A).cdi_missing


def test_an_index_of_a_mig_instance_with_other_capabilities_is_refused(node: Node) -> None:
    node.devices("nvidia0")
    node.capabilities(66, 70)
    node.put("etc/cdi/nvidia.yaml", BY_INDEX)
    assert "nvidia-cap70" in node.access(CUT).cdi_missing


def test_an_index_that_cannot_be_checked_is_refused(node: Node) -> None:
    node.put("etc/cdi/nvidia.yaml", BY_INDEX)
    assert "cannot be verified" in node.access(evolve(A, minor=None)).cdi_missing


def test_the_names_that_carry_the_type_are_read_too(node: Node) -> None:
    node.put("etc/cdi/a.json", spec(device("gpu0", "/dev/nvidia1")))
    assert node.access(A).cdi == "nvidia.com/gpu=gpu0"


def test_the_node_on_the_host_counts_not_the_one_in_the_container(node: Node) -> None:
    inside = {"hostPath": "/run/nvidia/driver/dev/nvidia1", "path": "/dev/nvidia0"}
    moved = {"name": "0", "containerEdits": {"deviceNodes": [inside]}}
    node.put("etc/cdi/a.json", spec(moved))
    assert node.access(A).cdi == "nvidia.com/gpu=0"


def test_specs_of_another_kind_are_ignored(node: Node) -> None:
    node.put("etc/cdi/a.json", spec(device(GPU_A, "/dev/nvidia1"), kind="example.com/gpu"))
    assert "no CDI spec of nvidia.com/gpu" in node.access(A).cdi_missing
    host = look(node.root, [A], "example.com/gpu", ())
    assert host.access[GPU_A].cdi == f"example.com/gpu={GPU_A}"


def test_a_later_folder_wins_device_by_device(node: Node) -> None:
    node.put("etc/cdi/a.json", spec(device("0", "/dev/nvidia1"), device("1", "/dev/nvidia2")))
    node.put("var/run/cdi/a.json", spec(device("0", "/dev/nvidia7")))
    assert "/var/run/cdi/a.json injects nvidia7" in node.access(A).cdi_missing
    other = evolve(A, uuid="GPU-other", index=1, minor=2)
    assert node.access(other).cdi == "nvidia.com/gpu=1"


def test_a_name_in_two_files_of_one_folder_is_a_conflict(node: Node) -> None:
    for name in ("a", "b"):
        node.put(f"etc/cdi/{name}.json", spec(device(GPU_A, "/dev/nvidia1")))
    reason = node.access(A).cdi_missing
    assert f"both /etc/cdi/a.json and /etc/cdi/b.json define {KIND}={GPU_A}" in reason
    # A folder that comes later does not mend it: the runtimes drop the name for good.
    node.put("var/run/cdi/c.json", spec(device(GPU_A, "/dev/nvidia1")))
    assert node.access(A).cdi == ""


@pytest.mark.parametrize(
    ("nodes", "said"),
    [(("/dev/nvidia7",), "injects nvidia7"), (("/dev/x",), "injects no GPU")],
)
def test_a_uuid_is_checked_like_every_other_name(
    node: Node, nodes: tuple[str, ...], said: str
) -> None:
    node.put("etc/cdi/a.json", spec(device(GPU_A, *nodes)))
    assert said in node.access(A).cdi_missing
    node.put("etc/cdi/a.json", spec(device(GPU_A, *nodes), device("0", "/dev/nvidia1")))
    assert node.access(A).cdi == "nvidia.com/gpu=0"


@pytest.mark.parametrize(
    ("node_of", "said"),
    [
        # The numbers of a node win over its path, with its type or without (the CDI library).
        ({"path": "/dev/nvidia1", "type": "c", "major": 195, "minor": 7}, "injects nvidia7"),
        ({"path": "/dev/nvidia1", "major": 195, "minor": 7}, "injects nvidia7"),
        ({"path": "/dev/nvidia1", "type": "c", "major": 10, "minor": 1}, "injects no GPU"),
        ({"path": "/dev/gpu", "type": "c", "major": 195, "minor": 1}, ""),
        ({"path": "/dev/nvidia1", "type": "c"}, ""),
        ({"path": "/dev/nvidia0", "hostPath": "/dev/nvidia1"}, ""),
    ],
)
def test_a_node_is_the_device_that_a_runtime_makes_of_it(
    node: Node, node_of: dict[str, object], said: str
) -> None:
    edits = {"deviceNodes": [node_of, {"path": "/dev/nvidiactl", "major": 195, "minor": 255}]}
    node.put("etc/cdi/a.json", spec({"name": GPU_A, "containerEdits": edits}))
    assert said in node.access(A).cdi_missing
    assert bool(node.access(A).cdi) is not bool(said)


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        (None, "no containerEdits"),
        ({}, "no containerEdits"),
        ({"deviceNodes": []}, "no containerEdits"),
        ({"env": ["NVIDIA_VISIBLE_DEVICES"]}, "invalid variable"),
        ({"env": ["=x"]}, "invalid variable"),
        ({"deviceNodes": [{"hostPath": "/dev/nvidia1"}]}, "has no path"),
        ({"deviceNodes": [{"path": "/dev/nvidia1", "permissions": "rx"}]}, "permissions"),
        ({"deviceNodes": [{"path": "/dev/nvidia1", "type": "char"}]}, "invalid type"),
        ({"hooks": [{"hookName": "createcontainer", "path": "/x"}]}, "unknown hookName"),
        ({"hooks": [{"hookName": "createContainer"}]}, "has no path"),
        ({"mounts": [{"hostPath": "/lib/libcuda.so"}]}, "no containerPath"),
    ],
)
def test_one_invalid_part_makes_the_whole_spec_useless(
    node: Node, edits: object, said: str
) -> None:
    odd = {"name": "odd", "containerEdits": edits}
    node.put("etc/cdi/a.json", spec(device(GPU_A, "/dev/nvidia1"), odd))
    assert node.access(A).cdi == ""
    assert "/etc/cdi/a.json is not a valid CDI spec" in node.access(A).cdi_missing
    assert said in node.access(A).cdi_missing


def test_a_spec_without_devices_is_none(node: Node) -> None:
    node.put("etc/cdi/a.json", spec())
    assert "it has no devices" in node.access(A).cdi_missing


@pytest.mark.parametrize("path", ["etc/containerd/config.toml", "etc/crio/crio.conf.d/10-cdi.conf"])
def test_specs_are_looked_for_where_the_runtime_looks(node: Node, path: str) -> None:
    table = "crio.runtime" if "crio" in path else 'plugins."io.containerd.cri.v1.runtime"'
    node.put(path, f'[{table}]\ncdi_spec_dirs = ["/opt/cdi", "/run/cdi"]\n')
    node.put("etc/cdi/a.json", spec(device(GPU_A, "/dev/nvidia1")))
    missing = node.access(A).cdi_missing
    assert f"no CDI spec of {KIND} in /opt/cdi or /run/cdi" in missing
    node.put("opt/cdi/a.json", spec(device(GPU_A, "/dev/nvidia1")))
    assert node.access(A).cdi == f"{KIND}={GPU_A}"
    node.put("run/cdi/b.json", spec(device(GPU_A, "/dev/nvidia7")))
    assert "/run/cdi/b.json injects nvidia7" in node.access(A).cdi_missing


def test_nodes_of_the_whole_spec_are_injected_with_every_device(node: Node) -> None:
    whole = json.loads(spec(device(GPU_A, "/dev/nvidia1")))
    whole["containerEdits"] = {"deviceNodes": [{"path": "/dev/nvidia7"}]}
    node.put("etc/cdi/a.json", json.dumps(whole))
    assert "injects nvidia1, nvidia7" in node.access(A).cdi_missing


@pytest.mark.parametrize(
    ("version", "name", "said"),
    [
        ("0.3.0", "0", "begins with a digit"),
        ("9.9.9", "gpu0", "no runtime knows cdiVersion 9.9.9"),
        ("0.3.0", "gpu0", ""),
        ("0.5.0", "0", ""),
        ("1.1.0", "0", ""),
        ("0.10.0", "gpu0", "no runtime knows"),
        ("1", "gpu0", "no runtime knows"),
        ("0.4.0", "0", "begins with a digit"),
        ("v0.6.0", "0", ""),
    ],
)
def test_a_spec_is_only_what_its_version_allows(
    node: Node, version: str, name: str, said: str
) -> None:
    text = spec(device(name, "/dev/nvidia1")).replace("0.6.0", version)
    node.put("etc/cdi/a.json", text)
    assert said in node.access(A).cdi_missing
    assert bool(node.access(A).cdi) is not bool(said)


@pytest.mark.parametrize(
    ("more", "first"),
    [
        (
            {
                "containerEdits": {
                    "mounts": [{"hostPath": "/a", "containerPath": "/a", "type": "bind"}]
                }
            },
            "0.4.0",
        ),
        ({"containerEdits": {"deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/b"}]}}, "0.5.0"),
        ({"annotations": {"made-by": "hand"}}, "0.6.0"),
        ({"containerEdits": {"intelRdt": {"closID": "x"}}}, "0.7.0"),
    ],
)
def test_what_a_version_does_not_allow_yet_makes_a_spec_useless(
    node: Node, more: dict[str, object], first: str
) -> None:
    whole = {**json.loads(spec(device("gpu0", "/dev/nvidia1"))), **more}
    older = f"0.{int(first.split('.')[1]) - 1}.0"
    node.put("etc/cdi/a.json", json.dumps({**whole, "cdiVersion": older}))
    assert f"which cdiVersion {first} is the first to allow, and it says {older}" in (
        node.access(A).cdi_missing
    )
    node.put("etc/cdi/a.json", json.dumps({**whole, "cdiVersion": first}))
    assert node.access(A).cdi == f"{KIND}=gpu0"


def test_another_cdi_kind_that_names_the_gpu_is_reported(node: Node) -> None:
    other = "k8s.device-plugin.nvidia.com/gpu"
    node.put("var/run/cdi/a.json", spec(device(GPU_A, "/dev/nvidia1"), kind=other))
    assert f'set [container] cdi_kind = "{other}"' in node.access(A).cdi_missing


def test_an_invalid_spec_of_another_kind_is_passed_over(node: Node) -> None:
    node.put("etc/cdi/a.json", spec(device("n/a"), kind="vendor.com/nic"))
    node.put("etc/cdi/b.yaml", "kind: vendor.com/nic\ncdiVersion: [")
    node.put("etc/cdi/c.json", spec(device(GPU_A, "/dev/nvidia1")))
    passed: list[str] = []
    found = read_specs(node.root, KIND, on_other=passed.append)
    assert (list(found.devices), found.unreadable) == ([GPU_A], ())
    assert [text.split(" is not")[0] for text in passed] == ["/etc/cdi/a.json", "/etc/cdi/b.yaml"]


def test_the_links_of_a_node_mounted_elsewhere_lead_inside_it(node: Node) -> None:
    node.devices("nvidia1")
    node.put("run/cdi/a.json", spec(device(GPU_A, "/dev/nvidia1")))
    (node.root / "var").mkdir()
    (node.root / "var/run").symlink_to("/run")
    (node.root / "run/cdi/b.json").symlink_to("../../../../cdi/absent.json")
    node.put("data/containerd/config.toml", "nvidia-container-runtime")
    (node.root / "etc").mkdir()
    (node.root / "etc/containerd").symlink_to("../data/containerd")
    assert node.access(A).cdi == f"{KIND}={GPU_A}"
    assert node.look().runtime == "/etc/containerd/config.toml names nvidia-container-runtime"


def test_wsl2_gets_its_own_advice(node: Node) -> None:
    node.put("dev/dxg")
    missing = node.look(A).device_nodes_missing
    assert "WSL2" in missing
    assert "nvidia-modprobe" not in missing


def test_a_gpu_missing_in_the_specs_is_reported_with_the_spec(node: Node) -> None:
    node.put("etc/cdi/a.json", spec(device("5", "/dev/nvidia5")))
    reason = node.access(A).cdi_missing
    assert "/etc/cdi/a.json names neither" in reason
    assert GPU_A in reason


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.yaml", "cdiVersion: [0\n", "line 2"),
        ("a.json", "{", "line 1"),
        ("a.json", "[]", "cdiVersion is missing"),
        ("a.json", '{"cdiVersion": "0.5.0"}', "kind is missing"),
        ("a.json", spec(device("0"), kind=KIND).replace('"name"', '"nam"'), "without a name"),
        ("a.json", '{"cdiVersion":"0.6.0","kind":"nvidia.com/gpu","devices":{}}', "not a list"),
        ("a.json", spec({"name": "0", "containerEdits": [1]}), "not a mapping"),
        ("a.json", spec({"name": "0", "containerEdits": {"deviceNodes": ["x"]}}), "not a mapping"),
        ("a.json", "[" * 100_000, "recursion"),
        ("a.json", "#" * (5 << 20), "larger than"),
        ("a.yaml", "\udcff", "UTF-8"),
    ],
)
def test_an_invalid_spec_is_named_with_the_reason(
    node: Node, name: str, text: str, reason: str
) -> None:
    node.put("etc/cdi/good.json", spec(device("5", "/dev/nvidia5")))
    (node.root / "etc/cdi" / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    missing = node.access(A).cdi_missing
    assert f"/etc/cdi/{name}" in missing
    assert reason in missing
    node.put("etc/cdi/good.json", spec(device(GPU_A, "/dev/nvidia1")))
    assert node.access(A).cdi == f"{KIND}={GPU_A}"


@pytest.mark.parametrize(
    ("path", "text", "why"),
    [
        ("usr/bin/nvidia-container-runtime", "", "/usr/bin/nvidia-container-runtime exists"),
        (
            "usr/local/nvidia/toolkit/nvidia-container-runtime",
            "",
            "/usr/local/nvidia/toolkit/nvidia-container-runtime exists",
        ),
        (
            "etc/nvidia-container-runtime/config.toml",
            "",
            "/etc/nvidia-container-runtime/config.toml exists",
        ),
        (
            "etc/containerd/config.toml",
            'BinaryName = "/opt/nvidia-container-runtime"',
            "/etc/containerd/config.toml names nvidia-container-runtime",
        ),
        *(
            (path, 'BinaryName = "/opt/nvidia-container-runtime"', f"/{path} names nvidia-con")
            for path in (
                "etc/cri/conf.d/20-customization.part",
                "var/lib/rancher/k3s/agent/etc/containerd/config.toml",
                "var/lib/rancher/rke2/agent/etc/containerd/config.toml",
                "etc/k0s/containerd.d/nvidia.toml",
            )
        ),
        (
            "usr/local/bin/nvidia-container-runtime",
            "",
            "/usr/local/bin/nvidia-container-runtime exists",
        ),
        (
            "etc/crio/crio.conf.d/99-nvidia.conf",
            "nvidia-container-runtime",
            "/etc/crio/crio.conf.d/99-nvidia.conf names nvidia-container-runtime",
        ),
        (
            "etc/docker/daemon.json",
            '{"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}',
            "/etc/docker/daemon.json names nvidia-container-runtime",
        ),
        (
            "etc/containerd/config.toml",
            "[a.options]\nruntime_path = '/nix/store/x/bin/nvidia-container-runtime.cdi'",
            "/etc/containerd/config.toml names nvidia-container-runtime",
        ),
        ("etc/docker/daemon.json", '{"runtimes": {}}', ""),
        ("etc/containerd/config.toml", '# BinaryName = "/usr/bin/nvidia-container-runtime"', ""),
        ("etc/crio/crio.conf.d/a", "x =\n # was nvidia-container-runtime", ""),
        ("etc/containerd/config.toml", "runc", ""),
    ],
)
def test_the_runtime_counts_as_installed_by_what_is_found(
    node: Node, path: str, text: str, why: str
) -> None:
    node.put(path, text)
    found = node.look().runtime
    assert found.startswith(why)
    assert bool(found) is bool(why)


def test_what_containerds_configuration_imports_counts(node: Node) -> None:
    node.put("etc/containerd/config.toml", 'imports = ["/opt/conf/*.toml", "more/*.toml"]')
    node.put("opt/conf/a.toml", "imports = 3")
    assert node.look().runtime == ""
    node.put("opt/conf/b.toml", 'BinaryName = "/x/nvidia-container-runtime"')
    assert node.look().runtime == "/opt/conf/b.toml names nvidia-container-runtime"


def test_volume_mounts_are_used_if_the_runtime_accepts_them(node: Node) -> None:
    path = "usr/local/nvidia/toolkit/.config/nvidia-container-runtime/config.toml"
    assert not node.look().volume_mounts
    node.put(path, "accept-nvidia-visible-devices-as-volume-mounts = true")
    assert node.look().volume_mounts
    node.put(path, 'accept-nvidia-visible-devices-as-volume-mounts = "true')
    assert not node.look().volume_mounts


def test_an_empty_folder_has_no_libraries(node: Node) -> None:
    (node.root / GKE_DRIVER.host.lstrip("/")).mkdir(parents=True)
    host = node.look(mounts=[GKE_DRIVER])
    assert (host.mounts, set(host.empty_mounts)) == ((GKE_DRIVER,), {GKE_DRIVER.host})
    node.put(f"{GKE_DRIVER.host}/lib64/libcuda.so.1")
    assert node.look(mounts=[GKE_DRIVER]).empty_mounts == frozenset()


def test_only_mounts_whose_host_path_exists_are_given(node: Node) -> None:
    node.put("home/kubernetes/bin/nvidia/lib64/libcuda.so")
    other = HostMount("/opt/absent", "/opt/absent")
    assert node.look(mounts=[GKE_DRIVER, other]).mounts == (GKE_DRIVER,)


def test_an_empty_node_reports_what_is_missing(node: Node) -> None:
    host = node.look(A)
    assert (host.runtime, host.common_nodes, host.mounts) == ("", (), ())
    assert host.device_nodes_missing
    assert host.access[GPU_A].nodes_missing
    assert host.access[GPU_A].cdi_missing


def test_folders_in_place_of_files_are_ignored(node: Node) -> None:
    for path in ("etc/cdi/a.json", "etc/docker/daemon.json", "etc/containerd/config.toml"):
        (node.root / path).mkdir(parents=True)
    host = node.look(A)
    assert host.runtime == ""
    assert "/etc/cdi/a.json cannot be read: Is a directory" in host.access[GPU_A].cdi_missing


def test_fake_gpus_have_no_access(node: Node) -> None:
    node.devices("nvidia1")
    assert node.look(evolve(A, fake=True)).access == {}


@given(text=st.text(), suffix=st.sampled_from(["json", "yaml"]))
def test_any_text_as_a_spec_is_tolerated(
    tmp_path_factory: pytest.TempPathFactory, text: str, suffix: str
) -> None:
    node = Node(tmp_path_factory.mktemp("node", numbered=True))
    target = node.root / f"etc/cdi/a.{suffix}"
    target.parent.mkdir(parents=True)
    target.write_bytes(text.encode("utf-8", "surrogatepass"))
    access = node.access(A)
    assert (access.cdi, bool(access.cdi_missing)) == ("", True)


HOOK = {"hookName": "createRuntime", "path": "/x", "args": ["x", "apply-cuda-memory-limits"]}


def test_a_cdi_name_limits_memory_where_its_spec_brings_the_hook(node: Node) -> None:
    node.devices("nvidia1")
    one = device(GPU_A, "/dev/nvidia1")
    node.put("etc/cdi/a.json", spec(one))
    assert not node.access(A).limited
    edits = {"deviceNodes": [{"path": "/dev/nvidia1"}], "hooks": [HOOK]}
    node.put("etc/cdi/a.json", spec({"name": GPU_A, "containerEdits": edits}))
    assert node.access(A).limited
    common = {"cdiVersion": "0.6.0", "kind": KIND, "devices": [one]}
    node.put("etc/cdi/a.json", json.dumps({**common, "containerEdits": {"hooks": [HOOK]}}))
    assert node.access(A).limited


def test_the_runtime_limits_memory_where_its_hook_is_in_the_programs_file(node: Node) -> None:
    assert "not found" in node.look(A).unlimited
    node.put("usr/bin/nvidia-cdi-hook", "ELF create-symlinks")
    assert "older than 1.20.1" in node.look(A).unlimited
    node.put("usr/bin/nvidia-cdi-hook", "ELF create-symlinks apply-cuda-memory-limits")
    assert node.look(A).unlimited == ""
    node.put("etc/nvidia-container-runtime/config.toml", '[nvidia-container-runtime]\nmode="auto"')
    assert node.look(A).unlimited == ""
    node.put("etc/nvidia-container-runtime/config.toml", '[nvidia-container-runtime]\nmode="csv"')
    assert 'mode = "csv"' in node.look(A).unlimited


def test_an_empty_or_unreadable_program_has_no_hook(node: Node) -> None:
    node.put("usr/bin/nvidia-cdi-hook")
    assert "older than" in node.look(A).unlimited
    (node.root / "usr/bin/nvidia-ctk").mkdir()
    assert "older than" in node.look(A).unlimited


def test_memory_limits_need_version_2_of_cgroups_with_a_controller_for_them(node: Node) -> None:
    assert "cgroup v2" in node.look(A).cgroup_problem
    node.put("sys/fs/cgroup/unified/cgroup.controllers", "misc")
    assert "cgroup v2" in node.look(A).cgroup_problem
    # Without one the driver refuses the limit, and the toolkit's hook fails with the container.
    node.put("sys/fs/cgroup/cgroup.controllers", "cpu memory\n")
    assert node.look(A).cgroup_problem == "its kernel has no cgroup controller dmem or misc"
    for controllers in ("cpu misc", "dmem memory\n"):
        node.put("sys/fs/cgroup/cgroup.controllers", controllers)
        assert node.look(A).cgroup_problem == ""
