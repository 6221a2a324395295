"""What the doctor finds on whole nodes: a good one, and one for everything that can be wrong."""

from typing import Any

import pytest
from attrs import asdict, evolve

from sgpud.cli.doctor.facts import Finding, Severity
from sgpud.core.planning.node import Node as Known
from sgpud.core.status.view import document
from sgpud.gpus.nvml.faults import GpuFault, GpuFaultKind
from sgpud.gpus.nvml.probe.protocol import EMPTY_MIG
from tests.cli.doctor.nodes import (
    CONTAINERD,
    NVIDIA_RUNTIME,
    PLUGINS,
    PODS,
    SPEC,
    VERSION,
    FakeNode,
)
from tests.core.status.viewing import viewed
from tests.core.values import fallen, gpu, planned, sharing, uuid
from tests.core.values import node as known_node
from tests.world import reports

ERROR, WARNING = Severity.ERROR, Severity.WARNING


def memory_findings(node: FakeNode) -> list[Finding]:
    node.sets = ['sharing.share_memory="1GiB"']
    return [one for one in node.findings() if one.check == "memory"]


def test_why_memory_shares_are_not_limited_is_a_note_with_what_to_do(node: FakeNode) -> None:
    (one,) = memory_findings(node)
    assert one.severity is Severity.NOTE
    assert f"driver {VERSION} cannot limit memory" in one.what
    assert all(each.uuid in one.what for each in node.gpus)
    assert one.todo == "Install driver 615 or later."


def test_memory_limits_that_apply_are_good(node: FakeNode) -> None:
    node.write("sys/module/nvidia/version", "615.71.09\n")
    node.nvml = "615.71.09"
    node.write("usr/bin/nvidia-cdi-hook", "ELF apply-cuda-memory-limits")
    (one,) = memory_findings(node)
    assert "no cgroup controller" in one.what
    node.write("sys/fs/cgroup/cgroup.controllers", "cpu memory misc\n")
    (one,) = memory_findings(node)
    assert one.severity is Severity.GOOD
    assert "memory limits apply on 2 GPUs" in one.what
    node.write("usr/bin/nvidia-cdi-hook", "ELF")
    (one,) = memory_findings(node)
    assert "older than 1.20.1" in one.what
    node.container = 'method = "device-nodes"'
    (one,) = memory_findings(node)
    assert "device-nodes" in one.what


def test_places_without_memory_limits_are_a_warning(node: FakeNode) -> None:
    node.sets = []
    one = node.only("memory")
    assert "deepomatic.com/shared-gpu use together" in one.what
    assert "share_memory" in one.todo
    for guarded in ('sharing.share_memory="1GiB"', "sharing.duplication_factor=1"):
        node.sets = [guarded]
        assert node.bad() == {}


def test_a_node_without_problems(node: FakeNode) -> None:
    found = node.findings()
    assert node.bad() == {}
    assert {one.check for one in found if one.severity is Severity.GOOD} == {
        *("configuration", "driver", "versions", "devices", "method", "runtime"),
        *("kubelet", "podresources", "rivals", "cgroup"),
    }
    (note,) = (one for one in found if one.severity is Severity.NOTE)
    assert (note.check, note.what) == ("daemon", "No sgpud answers")


def test_an_empty_node(node: FakeNode) -> None:
    empty = FakeNode(node.root / "empty", node.stack, gpus=())
    empty.fault = GpuFault(GpuFaultKind.NO_LIBRARY, "libnvidia-ml.so.1: cannot open")
    bad = empty.bad()
    assert {check: one.severity for check, (one, *_) in bad.items()} == {
        "driver": ERROR,
        "versions": ERROR,
        "runtime": WARNING,
        "kubelet": ERROR,
        "podresources": WARNING,
        "cgroup": WARNING,
    }


# Driver and device nodes. ------------------------------------------------------------------------


def test_nvml_that_does_not_answer(node: FakeNode) -> None:
    node.fault = GpuFault(GpuFaultKind.HUNG, "nvmlDeviceGetMemoryInfo", "GPU-1")
    one = node.bad()["driver"][0]
    assert "hung: nvmlDeviceGetMemoryInfo" in one.what
    assert one.todo.startswith("Look for Xid lines")


def test_a_gpu_that_cannot_be_read(node: FakeNode) -> None:
    node.errors = {"GPU-9": "GPU is lost"}
    assert "GPU-9 cannot be read: GPU is lost" in node.only("driver").what


def test_a_gpu_in_mig_mode_without_instances_needs_some(node: FakeNode) -> None:
    node.errors = {"GPU-9": EMPTY_MIG}
    one = node.only("driver")
    assert one.severity is WARNING
    assert "nvidia-smi mig" in one.todo


def test_a_gpu_whose_uuid_no_share_can_hold_has_nothing_to_be_reset_for(node: FakeNode) -> None:
    node.errors = {"2": "its UUID 'a,b' cannot be part of a share id"}
    one = node.only("driver")
    assert "cannot be shared" in one.what
    assert "reset" not in one.todo


def test_a_driver_upgraded_under_a_loaded_module(node: FakeNode) -> None:
    folder = "usr/lib/x86_64-linux-gnu"
    node.remove(f"{folder}/libnvidia-ml.so.550.54.15")
    node.write(f"{folder}/libnvidia-ml.so.560.35.03", "")
    node.write(f"{folder}/libnvidia-ml.so.1", "")
    one = node.only("versions")
    assert one.severity is ERROR
    assert (
        one.what == f"kernel module 550.54.15, but /{folder}/libnvidia-ml.so.560.35.03 (560.35.03)"
    )
    assert "Reboot" in one.todo


def test_a_library_beside_the_right_one(node: FakeNode) -> None:
    node.write("usr/lib64/libnvidia-ml.so.535.183.01", "")
    assert node.only("versions").severity is WARNING


def test_the_module_s_version_is_read_from_proc_too(node: FakeNode) -> None:
    node.remove("sys/module/nvidia/version")
    text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build\n"
    node.write("proc/driver/nvidia/version", text)
    node.nvml = ""
    assert "kernel module 560.35.03, but" in node.only("versions").what


@pytest.mark.parametrize(("kernel", "nvml"), [("550.54.15", "560.35.03"), reports.REPLACED])
def test_two_sources_that_disagree_about_the_driver_are_reported(
    node: FakeNode, kernel: str, nvml: str
) -> None:
    node.remove(f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{VERSION}")
    node.write("sys/module/nvidia/version", f"{kernel}\n")
    node.nvml = nvml
    one = node.only("versions")
    assert one.severity is WARNING
    assert one.what == f"kernel module {kernel}, but NVML reports driver {nvml}"
    assert "Reboot" in one.todo


def test_the_version_that_nvml_alone_tells_is_the_drivers(node: FakeNode) -> None:
    node.remove("sys/module/nvidia/version")
    found = {one.check: one.what for one in node.findings()}
    assert f"driver {VERSION} answers" in found["driver"]
    assert (
        found["versions"]
        == f"driver {VERSION} according to NVML, the kernel does not say, library the same"
    )
    assert node.bad() == {}
    node.spec("535.183.01")
    node.container = 'method = "cdi"'
    assert "names files of driver 535.183.01, but 550.54.15 is loaded" in node.only("cdi").what
    node.nvml = ""
    assert "of unknown version" in next(x.what for x in node.findings() if x.check == "driver")


def test_fake_gpus_need_no_driver(node: FakeNode) -> None:
    node.gpus = (gpu(0, fake=True),)
    node.remove("sys/module/nvidia/version", "dev/nvidia0", "usr/bin/nvidia-container-runtime")
    assert node.bad() == {}


@pytest.mark.parametrize(
    ("method", "severity"), [("device-nodes", ERROR), ("nvidia-runtime", WARNING)]
)
def test_a_missing_node(node: FakeNode, method: str, severity: Severity) -> None:
    node.container = f'method = "{method}"'
    node.remove("dev/nvidia1")
    (one,) = node.bad()["devices"]
    assert one.severity is severity
    assert f"{uuid(1)}: /dev/nvidia1 missing" in one.what


def test_missing_common_nodes(node: FakeNode) -> None:
    node.remove("dev/nvidia-uvm")
    one = node.only("devices")
    assert one.what == "/dev/nvidia-uvm missing"
    assert one.todo == "Run `nvidia-modprobe -c0 -u`."


def test_missing_dev_char_links_are_a_warning(node: FakeNode) -> None:
    node.remove("dev/char/195:1", "dev/char/195:255")
    one = node.only("devices")
    assert one.what == "no /dev/char/195:1, /dev/char/195:255"
    assert "systemctl daemon-reload" in one.means


# Container runtime and CDI. ----------------------------------------------------------------------


def test_no_runtime_at_all(node: FakeNode) -> None:
    node.remove("run/containerd/containerd.sock")
    assert "no socket of containerd" in node.only("runtime").what


def test_nvidia_s_runtime_is_missing_although_the_method_needs_it(node: FakeNode) -> None:
    node.remove("usr/bin/nvidia-container-runtime", NVIDIA_RUNTIME)
    one = node.only("runtime")
    assert one.severity is ERROR
    assert "not installed" in one.what


def test_another_default_runtime_is_a_note(node: FakeNode) -> None:
    node.containerd("", default="runc")
    notes = [one.what for one in node.findings() if one.severity is Severity.NOTE]
    assert "containerd's default runtime is runc" in notes
    assert node.bad() == {}


def test_a_runtime_that_does_not_accept_volume_mounts(node: FakeNode) -> None:
    node.container = 'method = "volume-mounts"'
    assert node.bad() == {}
    node.write(NVIDIA_RUNTIME, "accept-nvidia-visible-devices-as-volume-mounts = false\n")
    assert "as volume mounts" in node.only("runtime").what


def test_a_runtime_that_accepts_the_variable_only_from_privileged_containers(
    node: FakeNode,
) -> None:
    node.write(NVIDIA_RUNTIME, "accept-nvidia-visible-devices-envvar-when-unprivileged = false\n")
    assert "only from privileged containers" in node.only("runtime").what


@pytest.mark.parametrize(
    ("cri", "version", "severity"),
    [
        ("enable_cdi = true", 2, None),
        ("enable_cdi = false", 2, ERROR),
        ("", 2, WARNING),
        ("", 3, None),
        ("enable_cdi = false", 3, ERROR),
    ],
)
def test_containerd_without_cdi(
    node: FakeNode, cri: str, version: int, severity: Severity | None
) -> None:
    node.container = 'method = "cdi"'
    node.spec()
    node.containerd(cri, version=version)
    assert [one.severity for one in node.bad().get("runtime", ())] == [severity] * bool(severity)


def test_a_configuration_that_cannot_be_read_is_a_note(node: FakeNode) -> None:
    node.write(CONTAINERD, "version = [")
    assert node.bad() == {}
    assert any("cannot be read" in one.what for one in node.findings())


def test_a_spec_of_another_driver(node: FakeNode) -> None:
    node.container = 'method = "cdi"'
    node.spec("535.183.01")
    one = node.only("cdi")
    assert one.severity is ERROR
    assert f"/{SPEC} names files of driver 535.183.01, but 550.54.15 is loaded" in one.what
    node.container = 'method = "nvidia-runtime"'
    assert node.only("cdi").severity is WARNING


def test_a_spec_without_a_gpu_and_an_invalid_spec(node: FakeNode) -> None:
    node.container = 'method = "cdi"'
    node.spec()
    node.gpus = (*node.gpus, gpu(2))
    node.write("dev/nvidia2", "")
    node.write("dev/char/195:2", "")
    one = node.only("method")
    assert f"{uuid(2)} cannot be handed to containers: cdi: " in one.what
    node.write(SPEC, "cdiVersion: [")
    assert {"cdi", "method"} == set(node.bad())


# The kubelet. ------------------------------------------------------------------------------------


def test_no_kubelet(node: FakeNode) -> None:
    node.hang_up(f"{PLUGINS}/kubelet.sock")
    assert "nobody listens on it" in node.only("kubelet").what
    node.remove(f"{PLUGINS}/kubelet.sock")
    assert "absent" in node.only("kubelet").what


def test_a_kubelet_in_another_directory(node: FakeNode) -> None:
    there = "/var/lib/k0s/kubelet/device-plugins"
    node.listen(f"{there[1:]}/kubelet.sock")
    node.remove(f"{PLUGINS}/kubelet.sock")
    assert there in node.only("kubelet").todo
    node.more = f'[kubelet]\nplugin_directory = "{there}"\n'
    assert "kubelet" not in node.bad()
    node.more = '[kubelet]\nplugin_directory = "/nowhere"\n'
    assert node.bad()["kubelet"][0].what == "/nowhere is absent"


def test_no_podresources(node: FakeNode) -> None:
    node.remove(PODS)
    assert "by UID only" in node.only("podresources").means
    node.write(PODS, "")
    assert "not a socket" in node.only("podresources").what


def test_a_checkpoint_that_cannot_be_read(node: FakeNode) -> None:
    node.write(f"{PLUGINS}/kubelet_internal_checkpoint", "{")
    assert "not JSON" in node.only("checkpoint").what
    node.remove(f"{PLUGINS}/kubelet_internal_checkpoint")
    assert node.bad() == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "foreign",
    [uuid(1), f"{uuid(1)}::7", "nvidia1", "nvidia0/gi3", "nvidia1/vgpu2", "nvidia0-_-4"],
)
def test_another_plugin_offers_the_same_gpus(node: FakeNode, foreign: str) -> None:
    node.register({"nvidia.com/gpu": [foreign]})
    one = node.only("rivals")
    assert one.severity is ERROR
    assert one.what == f"nvidia.com/gpu offers the same GPUs: 1 ids, e.g. {foreign}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "foreign",
    [
        uuid(1),
        "GPU-12345678-1234-4000-8000-123456789abc::7",
        "nvidia0-_-7",
        "nvidia0/vgpu2",
        "eth0",
    ],
)
def test_another_plugin_serves_the_same_resource(node: FakeNode, foreign: str) -> None:
    node.register({"deepomatic.com/shared-gpu": [f"{uuid(1)}::3", foreign]})
    one = node.only("rivals")
    assert one.severity is ERROR
    said = f"another plugin serves deepomatic.com/shared-gpu: it listed 1 ids, e.g. {foreign}"
    assert one.what == said


@pytest.mark.parametrize("other", ["GPU-12345678-1234-4000-8000-123456789abc", "nvidia7", "eth0"])
def test_plugins_for_other_devices_are_not_rivals(node: FakeNode, other: str) -> None:
    node.register({"nvidia.com/gpu": [other]})
    assert node.bad() == {}


def test_an_older_resource_of_sgpud_s_own(node: FakeNode) -> None:
    node.register({"example.com/old": [f"{uuid(1)}::3"]})
    assert "within 5 minutes" in node.only("rivals").means
    node.view = seen(resource="example.com/old")
    assert "rivals" not in node.bad()


def test_a_dra_driver_for_the_same_gpus(node: FakeNode) -> None:
    node.listen("var/lib/kubelet/plugins_registry/gpu.nvidia.com-reg.sock")
    assert "gpu.nvidia.com-reg.sock" in node.only("rivals").what


# cgroup, configuration, daemon. ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("memory/tasks", "version 1 (v1)"),
        ("unified/cgroup.controllers", "version 1 (hybrid)"),
        ("none", "none is mounted"),
    ],
)
def test_other_cgroups_than_version_2(node: FakeNode, name: str, what: str) -> None:
    node.remove("sys/fs/cgroup/cgroup.controllers")
    node.write(f"sys/fs/cgroup/{name}", "")
    assert what in node.only("cgroup").what


def test_an_invalid_configuration_and_one_with_warnings(node: FakeNode) -> None:
    node.more = "[sharing]\nduplication_factor = 0\nresource = 3\n"
    bad = node.bad()["configuration"]
    assert [one.severity for one in bad] == [ERROR, ERROR]
    assert "sgpud.toml:4: " in bad[0].what
    node.more = "[kubelet]\nnuma = true\n"
    assert node.only("configuration").severity is WARNING


def seen(
    of: Known | None = None, resource: str = "deepomatic.com/shared-gpu", **more: Any
) -> dict[str, Any]:
    """What a daemon that runs would answer."""
    there = of or known_node(sharing(resource=resource), [gpu(0), gpu(1)])
    return {**document(viewed(there, planned(there), resource=resource)), **more}


def test_a_daemon_without_problems(node: FakeNode) -> None:
    node.view = seen(notes=[])
    node.view = {**node.view, "pools": [_registered(pool) for pool in node.view["pools"]]}
    assert node.bad() == {}
    good = {one.check for one in node.findings() if one.severity is Severity.GOOD}
    assert {"daemon", "registration"} <= good


def test_a_daemon_whose_resource_another_plugin_serves(node: FakeNode) -> None:
    view = seen(known_node(sharing(), [gpu(0)]))
    problem = "another plugin registered it after sgpud and lists GPU-9::1"
    (pool,) = view["pools"]
    taken = {**pool, "registration": "superseded by another plugin", "problem": problem}
    node.view = {**view, "pools": [taken]}
    (found,) = node.bad()["registration"]
    assert (found.severity, problem in found.what) == (ERROR, True)
    assert "Remove the other device plugin" in found.todo


def _registered(pool: dict[str, Any]) -> dict[str, Any]:
    return {**pool, "registration": "live", "dropped": False}


def test_a_daemon_with_every_problem(node: FakeNode) -> None:
    sick = fallen(known_node(sharing(), [gpu(0), gpu(1)]), uuid(1))
    view = seen(
        sick,
        probe="hung: look at it",
        holders="stale",
        unsaved="cannot write gpus.json: No space left on device",
        dead=["reconciler"],
        notes=["an entry that means no GPU"],
        unknown=["holders"],
        configuration={"file": "f", "in_use": "last good", "problems": ["f:1: x"], "warnings": []},
    )
    pools = [{**pool, "registration": "no kubelet", "problem": "gone"} for pool in view["pools"]]
    healths = [{**view["healths"][0], "cordoned": True}, *view["healths"][1:]]
    node.view = {**view, "pools": pools, "healths": healths}
    bad = node.bad()
    told = " ".join(one.what for found in bad.values() for one in found)
    for text in (
        "hung: look at it",
        "stale",
        "means no GPU",
        "the holders",
        "last good",
        "reconciler",
        "No space",
    ):
        assert text in told
    assert "is not registered (no kubelet: gone)" in bad["registration"][0].what
    (health,) = bad["health"]
    assert (health.severity, uuid(1) in health.what) == (ERROR, True)
    assert any("is cordoned" in one.what for one in node.findings())


def test_every_finding_can_be_printed(node: FakeNode) -> None:
    for one in node.findings():
        assert isinstance(one, Finding)
        assert all(isinstance(value, (str, int)) for value in asdict(evolve(one)).values())


def test_the_links_of_a_mounted_node_lead_inside_it(node: FakeNode) -> None:
    kubelet = node.root / "var/lib/kubelet"
    (node.root / "data").mkdir()
    kubelet.rename(node.root / "data/kubelet")
    kubelet.symlink_to("/data/kubelet")
    (node.root / "run").rename(node.root / "data/run")
    (node.root / "run").symlink_to("../data/run")
    node.spec()
    (node.root / "etc/cdi").rename(node.root / "data/cdi")
    (node.root / "etc/cdi").symlink_to("/data/cdi")
    assert node.bad() == {}
    assert "/etc/cdi/nvidia.yaml can be used" in [one.what for one in node.findings()]


def test_a_name_in_two_specs_of_one_folder(node: FakeNode) -> None:
    node.spec()
    node.write("etc/cdi/other.yaml", (node.root / SPEC).read_text())
    found = node.bad()["cdi"]
    assert f"define nvidia.com/gpu={uuid(0)}" in str(found)


def test_a_spec_for_other_gpus(node: FakeNode) -> None:
    node.spec()
    text = (node.root / SPEC).read_text()
    node.write(SPEC, text.replace("/dev/nvidia0", "/dev/nvidia6").replace("nvidia1", "nvidia7"))
    assert any("names no GPU of this node" in one.what for one in node.findings())
    assert not any("can be used" in one.what for one in node.findings())


def test_wsl2_needs_no_device_nodes(node: FakeNode) -> None:
    node.remove("dev/nvidiactl", "dev/nvidia-uvm", "dev/nvidia0", "dev/nvidia1")
    node.write("dev/dxg", "")
    node.gpus = tuple(evolve(one, minor=None) for one in node.gpus)
    told = [one for one in node.findings() if one.check == "devices"]
    assert any("WSL2" in one.what and "nvidia-container-toolkit" in one.what for one in told)
    assert not any("nvidia-modprobe" in f"{one.what} {one.todo}" for one in told)


# HTTP under the package's unit. ------------------------------------------------------------------

UNITS = "usr/lib/systemd/system"
LISTENS = '[http]\nlisten = "0.0.0.0:9449"\n'
REFUSED = "cannot serve HTTP at tcp:9449: Address family not supported by protocol"


def test_http_under_a_unit_without_network_names_the_command(node: FakeNode) -> None:
    node.more = LISTENS
    assert node.bad() == {}  # sgpud is no unit here
    node.write(f"{UNITS}/sgpud.service", "[Service]\nPrivateNetwork=yes\n")
    one = node.only("http")
    assert one.severity is WARNING
    assert "sgpud.service has no network" in one.what
    assert "/usr/libexec/sgpud/allow-http" in one.todo
    view = seen(notes=[REFUSED])
    node.view = {**view, "pools": [_registered(pool) for pool in view["pools"]]}
    assert node.only("http").what == REFUSED  # once, and as the daemon says it
    node.write(
        "etc/systemd/system/sgpud.service.d/sgpud-http.conf", "[Service]\nPrivateNetwork=no\n"
    )
    one = node.only("http")
    assert "allow-http" not in one.todo
    node.view = {**node.view, "notes": []}
    assert node.bad() == {}


def test_without_http_a_unit_needs_no_network(node: FakeNode) -> None:
    node.write(f"{UNITS}/sgpud.service", "[Service]\nPrivateNetwork=yes\n")
    assert node.bad() == {}


# The order of the start. -------------------------------------------------------------------------


def test_a_unit_ordered_before_the_kubelet_has_no_finding(node: FakeNode) -> None:
    node.write("etc/systemd/system/kubelet.service", "[Unit]\nAfter=network.target\n")
    assert node.bad() == {}  # sgpud is no unit here: in a container the host's are not seen
    node.write(f"{UNITS}/sgpud.service", "[Unit]\nBefore=x.service kubelet.service\n")
    assert node.bad() == {}


@pytest.mark.parametrize(
    ("unit", "drop_in", "kubelet"),
    [
        ("[Unit]\n", "", "kubelet.service"),
        ("[Unit]\nBefore=kubelet.service\n", "", "snap.microk8s.daemon-kubelite.service"),
        ("[Unit]\nBefore=kubelet.service\n", "[Unit]\nBefore=\n", "kubelet.service"),
    ],
)
def test_a_unit_that_may_start_after_the_kubelet_is_a_warning(
    node: FakeNode, unit: str, drop_in: str, kubelet: str
) -> None:
    node.write(f"{UNITS}/sgpud.service", unit)
    node.write("etc/systemd/system/sgpud.service.d/order.conf", drop_in)
    node.write(f"etc/systemd/system/{kubelet}", "[Unit]\n")
    one = node.only("order")
    assert one.severity is WARNING
    assert one.what == f"sgpud.service is not ordered before {kubelet}"
    node.write(f"etc/systemd/system/{kubelet}.d/gpu.conf", "[Unit]\nAfter=sgpud.service\n")
    assert node.bad() == {}


@pytest.mark.parametrize("name", ["empty.json", "vendor.yaml", "gone.yaml"])
def test_a_file_of_which_nobody_knows_the_kind_is_a_note_while_every_gpu_has_a_name(
    node: FakeNode, name: str
) -> None:
    node.container = 'method = "cdi"'
    node.spec()
    texts = {"empty.json": "", "vendor.yaml": "devices: [", "gone.yaml": None}
    text = texts[name]
    if text is None:
        (node.root / "etc/cdi" / name).symlink_to("nowhere.yaml")
    else:
        node.write(f"etc/cdi/{name}", text)
    assert node.bad() == {}
    (note,) = (x for x in node.findings() if x.check == "cdi" and x.severity is Severity.NOTE)
    assert f"/etc/cdi/{name}" in note.what
    node.remove(SPEC)
    assert f"/etc/cdi/{name}" in " ".join(one.what for one in node.bad()["cdi"])


@pytest.mark.parametrize(
    "text",
    [
        "kind: vendor.com/nic\ncdiVersion: 0.6.0\ndevices: &a\n- *a\n",
        '{"kind": "vendor.com/nic", "cdiVersion": "9.9.9"}',
        "cdiVersion: 0.6.0\nkind: 'amd.com/gpu'\ndevices: []\n",
    ],
)
def test_a_bad_spec_of_another_kind_is_not_a_finding(node: FakeNode, text: str) -> None:
    node.container = 'method = "cdi"'
    node.spec()
    node.write("var/run/cdi/other.yaml", text)
    assert node.bad() == {}
    assert not [one for one in node.findings() if "other.yaml" in one.what]
    node.write("var/run/cdi/other.yaml", text.replace("vendor.com/nic", "nvidia.com/gpu"))
    assert ("amd.com" in text) or "other.yaml" in node.only("cdi").what


def test_device_nodes_without_cudas_library_are_a_warning(node: FakeNode) -> None:
    node.container = 'method = "device-nodes"'
    driver = "home/kubernetes/bin/nvidia"
    (node.root / driver / "lib64").mkdir(parents=True)
    one = node.only("method")
    assert one.severity is WARNING
    assert one.what == f"no libcuda.so in /{driver}"
    node.write(f"{driver}/lib64/libcuda.so.550.54.15", "")
    assert node.bad() == {}
    node.container = 'method = "device-nodes"\nmounts = [{host = "/opt/n", container = "/n"}]'
    node.write("opt/n/usr/lib/libcuda.so.1", "")
    assert node.bad() == {}
