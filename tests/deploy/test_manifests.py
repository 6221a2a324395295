"""Every way to install: valid for the API, and consistent with what sgpud does."""

from __future__ import annotations

import argparse
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from sgpud import __version__
from sgpud.cli.main import command_line
from sgpud.config.load import parse
from sgpud.core.sharing.rules import InjectionMethod
from sgpud.gpus.fake.file import load as load_gpus
from sgpud.serve.metrics.collector import FAMILIES
from tests.deploy.rendering import COMPONENTS, DEPLOY, OVERLAYS, Rendered, Renderer
from tests.deploy.schemas import VERSIONS, validate

PORT = 9449
WAYS = [
    (way, overlay, components)
    for way in ("overlay", "chart")
    for overlay in OVERLAYS
    for components in ((), COMPONENTS[overlay])
]


CLUSTER_WIDE = (
    *("ClusterRole", "ClusterRoleBinding"),
    *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
)


@pytest.fixture(params=WAYS, ids=lambda way: "-".join((way[0], way[1], *way[2])))
def rendered(request: pytest.FixtureRequest, renderer: Renderer) -> Rendered:
    way, overlay, components = request.param
    made: Rendered = getattr(renderer, way)(overlay, components)
    return made


def test_the_api_accepts_every_object(rendered: Rendered) -> None:
    assert VERSIONS[0] == "1.29"
    assert VERSIONS[1] != VERSIONS[0]
    for manifest in rendered.objects:
        validate(manifest)


def test_the_schemas_do_refuse(renderer: Renderer) -> None:
    wrong = deepcopy(dict(renderer.overlay("gke").one("DaemonSet")))
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(wrong)


def test_what_every_installation_has(rendered: Rendered) -> None:
    kinds = sorted(each["kind"] for each in rendered.objects)
    expected = ["ConfigMap", "DaemonSet", "ResourceQuota", "ServiceAccount"]
    expected += ["Namespace"] if rendered.name.startswith("overlay") else []
    if "pod-monitor" in rendered.name:
        expected += ["ConfigMap", "PodMonitor", "PrometheusRule"]
    if "api-server" in rendered.name:
        expected += CLUSTER_WIDE
    assert kinds == sorted(expected)
    for each in rendered.objects:
        if each["kind"] not in ("Namespace", *CLUSTER_WIDE):
            assert each["metadata"]["namespace"] == "sgpud"


def test_mounts_have_volumes_and_volumes_are_mounted(rendered: Rendered) -> None:
    volumes = [each["name"] for each in rendered.pod["volumes"]]
    mounts = rendered.container["volumeMounts"]
    assert len(set(volumes)) == len(volumes)
    assert sorted(each["name"] for each in mounts) == sorted(volumes)
    paths = [each["mountPath"] for each in mounts]
    assert len(set(paths)) == len(paths)
    # An entry that is mounted by itself never changes again.
    assert not any("subPath" in each for each in mounts)


def arguments_of(rendered: Rendered) -> argparse.Namespace:
    return command_line().parse_args(rendered.container["args"])


def test_no_edit_of_the_configuration_can_make_the_probes_fail(rendered: Rendered) -> None:
    edited = '[http]\nlisten = ""\n'
    assert parse(edited, "sgpud.toml", arguments_of(rendered).set).http.listen == f"tcp:{PORT}"
    appended = [*arguments_of(rendered).set, rf"http.listen=tcp:{PORT}:interface=\:\:"]
    assert parse(edited, "sgpud.toml", appended).http.listen.endswith(r"interface=\:\:")


def test_the_configuration_is_good_without_a_warning(rendered: Rendered) -> None:
    config = parse(rendered.files["sgpud.toml"], "sgpud.toml", arguments_of(rendered).set)
    assert config.warnings == ()
    assert config.http.listen == f"tcp:{PORT}"
    assert parse(rendered.files["sgpud.toml"], "sgpud.toml").http.listen == ""
    folders = {each["mountPath"] for each in rendered.container["volumeMounts"]}
    assert config.kubelet.plugin_directory in folders
    assert str(Path(config.kubelet.pod_resources).parent) in folders


def test_the_arguments_are_sgpuds_and_name_files_of_the_config_map(rendered: Rendered) -> None:
    arguments = arguments_of(rendered)
    assert arguments.watch_config
    files = {f"/etc/sgpud/{name}" for name in rendered.files}
    assert {arguments.config, arguments.fake_gpus} - {None} == files
    assert "command" not in rendered.container


def test_what_the_pod_writes_to_can_be_written(rendered: Rendered) -> None:
    writable = {
        each["mountPath"] for each in rendered.container["volumeMounts"] if not each.get("readOnly")
    }
    arguments = arguments_of(rendered)
    assert {arguments.state_dir, arguments.run_dir, "/tmp"} <= writable
    assert "/var/lib/kubelet/device-plugins" in writable


def test_what_outlives_the_pod_is_on_the_host_and_the_rest_is_not(rendered: Rendered) -> None:
    volumes = {each["name"]: each for each in rendered.pod["volumes"]}
    assert volumes["state"]["hostPath"]["path"] == "/var/lib/sgpud"
    assert volumes["run"]["emptyDir"]["medium"] == "Memory"
    for name in ("device-plugins", "pod-resources"):
        assert volumes[name]["hostPath"]["path"] == f"/var/lib/kubelet/{name}"


def test_probes_ask_the_port_that_is_listened_on(rendered: Rendered) -> None:
    (port,) = rendered.container["ports"]
    assert (port["name"], port["containerPort"]) == ("http", PORT)
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = rendered.container[name]["httpGet"]
        assert asked["port"] == "http"
        assert asked["path"] == ("/readyz" if name == "readinessProbe" else "/healthz")


def test_the_standby_can_start_beside_the_old_pod(rendered: Rendered) -> None:
    strategy = rendered.one("DaemonSet")["spec"]["updateStrategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert not rendered.pod.get("hostNetwork")
    assert all("hostPort" not in port for port in rendered.container["ports"])


def test_it_has_no_right_in_the_cluster_unless_it_is_to_have_some(rendered: Rendered) -> None:
    account = rendered.one("ServiceAccount")
    given = "api-server" in rendered.name
    assert account["automountServiceAccountToken"] is False
    assert rendered.pod["automountServiceAccountToken"] is given
    assert rendered.pod["serviceAccountName"] == account["metadata"]["name"]
    if given:
        (subject,) = rendered.one("ClusterRoleBinding")["subjects"]
        assert (subject["name"], subject["namespace"]) == ("sgpud", "sgpud")
        (named,) = (one for one in rendered.container["env"] if one["name"] == "NODE_NAME")
        assert named["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}


def test_requests_and_limits_are_set(rendered: Rendered) -> None:
    resources = rendered.container["resources"]
    for kind in ("requests", "limits"):
        assert set(resources[kind]) == {"cpu", "memory"}


def test_the_priority_class_is_allowed_by_the_quota(rendered: Rendered) -> None:
    (scope,) = rendered.one("ResourceQuota")["spec"]["scopeSelector"]["matchExpressions"]
    assert scope["values"] == [rendered.pod["priorityClassName"]]


def test_only_gke_is_privileged_and_only_mig_has_a_capability(rendered: Rendered) -> None:
    security = rendered.container["securityContext"]
    assert rendered.pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"]["drop"] == ["ALL"]
    mig = "mig-monitoring" in rendered.name
    assert security["capabilities"].get("add", []) == (["SYS_ADMIN"] if mig else [])
    assert security["privileged"] == ("gke" in rendered.name)
    # The API refuses false beside privileged or that capability.
    assert security["allowPrivilegeEscalation"] == (security["privileged"] or mig)
    assert rendered.pod.get("hostPID", False) == ("who-uses-what" in rendered.name)


def test_only_the_component_memory_limits_has_a_second_container(rendered: Rendered) -> None:
    others = [each for each in rendered.pod["containers"] if each["name"] != "sgpud"]
    assert [each["name"] for each in others] == ["limits"] * ("memory-limits" in rendered.name)
    for each in others:
        arguments = command_line().parse_args(each["args"])
        assert each["image"] == rendered.container["image"]
        security = each["securityContext"]
        assert (security["privileged"], security["readOnlyRootFilesystem"]) == (True, True)
        mounts = {mount["mountPath"]: mount["name"] for mount in each["volumeMounts"]}
        assert set(mounts) == {arguments.state_dir, arguments.run_dir, arguments.cgroup_root}
        # sgpud looks up the same paths, asks on the same socket, and can write to neither cgroup.
        theirs = {mount["mountPath"]: mount for mount in rendered.container["volumeMounts"]}
        assert {path: theirs[path]["name"] for path in mounts} == mounts
        assert theirs["/sys/fs/cgroup"]["readOnly"]


def test_it_goes_where_the_label_is_whatever_the_ancestors_taints(rendered: Rendered) -> None:
    assert rendered.pod["nodeSelector"]["deepomatic.com/shared-gpu"] == "true"
    keys = {each["key"] for each in rendered.pod["tolerations"]}
    assert keys == {"deepomatic.com/shared-gpu", "nvidia.com/gpu"}


def test_the_image_is_this_version(rendered: Rendered) -> None:
    assert rendered.container["image"] == f"registry.example.com/sgpud:{__version__}"


def test_the_namespace_allows_folders_of_the_host(renderer: Renderer) -> None:
    labels = renderer.overlay("gke").one("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"


def test_gkes_driver_is_for_sgpud_and_the_mount_for_pods(renderer: Renderer) -> None:
    rendered = renderer.overlay("gke")
    injection = parse(rendered.files["sgpud.toml"], "sgpud.toml").sharing.injection
    assert injection.method is InjectionMethod.DEVICE_NODES
    (mount,) = injection.mounts
    own = {each["mountPath"]: each for each in rendered.container["volumeMounts"]}
    assert own[mount.host]["mountPropagation"] == "HostToContainer"
    (variable,) = rendered.container["env"]
    assert (variable["name"], variable["value"]) == ("LD_LIBRARY_PATH", f"{mount.host}/lib64")


def test_nvidias_runtime_is_asked_for_every_gpu(renderer: Renderer) -> None:
    rendered = renderer.overlay("nvidia-runtime")
    assert rendered.pod["runtimeClassName"] == "nvidia"
    variables = {each["name"]: each["value"] for each in rendered.container["env"]}
    expected = {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "utility"}
    assert variables == expected


def test_the_fake_gpus_of_the_overlay_are_valid(renderer: Renderer, tmp_path: Path) -> None:
    file = tmp_path / "gpus.toml"
    file.write_text(renderer.overlay("fake-gpus").files["gpus.toml"])
    assert len(load_gpus(file).gpus) == 2


def test_the_monitor_scrapes_the_pods(renderer: Renderer) -> None:
    rendered = renderer.overlay("fake-gpus", ("pod-monitor",))
    spec = rendered.one("PodMonitor")["spec"]
    labels = rendered.one("DaemonSet")["spec"]["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    (endpoint,) = spec["podMetricsEndpoints"]
    assert endpoint["port"] in [port["name"] for port in rendered.container["ports"]]
    assert endpoint["path"] == "/metrics"
    # Otherwise Prometheus renames sgpud's labels, and a holder's memory would be its own pod's.
    assert endpoint["honorLabels"] is True
    made = {each["targetLabel"] for each in endpoint["relabelings"]}
    assert made == {"node", "instance"}
    assert not made & {label for family in FAMILIES for label in family.labels}


@pytest.mark.parametrize("way", ["overlay", "chart"])
def test_the_alerts_are_those_that_promtool_tries(renderer: Renderer, way: str) -> None:
    rendered: Rendered = getattr(renderer, way)("fake-gpus", COMPONENTS["fake-gpus"])
    tried = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())
    assert rendered.one("PrometheusRule")["spec"] == tried


@pytest.mark.parametrize("way", ["overlay", "chart"])
def test_grafana_finds_the_dashboard(renderer: Renderer, way: str) -> None:
    rendered: Rendered = getattr(renderer, way)("fake-gpus", COMPONENTS["fake-gpus"])
    found = rendered.one("ConfigMap", "sgpud-dashboard")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(found["data"]["dashboard.json"])["uid"] == "sgpud"


@pytest.mark.parametrize(
    "file", sorted(DEPLOY.rglob("kustomization.yaml")), ids=lambda file: file.parent.name
)
def test_a_config_map_keeps_its_name(file: Path) -> None:
    """An edit then is a reload of the running pods; a hash in the name makes it a rollout."""
    document: dict[str, Any] = yaml.safe_load(file.read_text())
    if "configMapGenerator" in document:
        assert document["generatorOptions"] == {"disableNameSuffixHash": True}
