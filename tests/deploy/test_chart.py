"""The Helm chart makes the objects that the overlays make, and refuses values that mean nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from sgpud import __version__
from sgpud.config.load import parse
from tests.deploy.rendering import (
    CHART,
    COMPONENTS,
    DEPLOY,
    IMAGE,
    MONITORING,
    OVERLAYS,
    Renderer,
)
from tests.deploy.schemas import validate

WAYS = [
    (overlay, components)
    for overlay in OVERLAYS
    for components in ((), COMPONENTS[overlay], ("dra",))
]


def comparable(manifest: Mapping[str, Any]) -> Any:
    """The object without the order of what is named, and without what Helm says of itself."""
    made = deepcopy(dict(manifest))
    made["metadata"].pop("labels", None)
    pod = made.get("spec", {}).get("template", {}).get("spec", {})
    for holder in (pod, *pod.get("containers", ())):
        for name in ("volumes", "volumeMounts", "env"):
            if name in holder:
                holder[name] = sorted(holder[name], key=lambda each: str(each["name"]))
    return made


@pytest.mark.parametrize(("overlay", "components"), WAYS)
def test_it_makes_what_the_overlay_makes(
    renderer: Renderer, overlay: str, components: tuple[str, ...]
) -> None:
    kustomized = renderer.overlay(overlay, components)
    chart = renderer.chart(overlay, components)
    for made in chart.objects:
        assert comparable(made) == comparable(
            kustomized.one(made["kind"], made["metadata"]["name"])
        )
    kinds = {each["kind"] for each in kustomized.objects}
    assert kinds == {each["kind"] for each in chart.objects} | {"Namespace"}


def test_its_files_are_links_to_those_of_the_overlays() -> None:
    pairs = {
        "gke.toml": "overlays/gke/sgpud.toml",
        "nvidia-runtime.toml": "overlays/nvidia-runtime/sgpud.toml",
        "fake-gpus.toml": "base/sgpud.toml",
        "gpus.toml": "overlays/fake-gpus/gpus.toml",
        "alerts.yaml": "monitoring/alerts.yaml",
        "dashboard.json": "components/dashboard/dashboard.json",
        "cluster-role.yaml": "components/dra/cluster-role.yaml",
        "admission-policy.yaml": "components/dra/admission-policy.yaml",
        "device-class.yaml": "components/dra/device-class.yaml",
    }
    assert {file.name for file in (CHART / "files").iterdir()} == set(pairs)
    for name, other in pairs.items():
        assert (CHART / "files" / name).readlink() == Path("../../..", other)
        assert (CHART / "files" / name).samefile(DEPLOY / other)


def test_its_version_is_sgpuds() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__


def test_every_value_has_a_schema() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(values) | {"global"} == set(schema["properties"])
    for name in ("image", "podMonitor"):
        assert set(values[name]) == set(schema["properties"][name]["properties"])
    for name in ("alerts", "dashboard"):
        assert schema["properties"][name] == {"$ref": "#/definitions/labelled"}
        assert set(values[name]) == set(schema["definitions"]["labelled"]["properties"])


def test_lint_finds_nothing(renderer: Renderer) -> None:
    for flavour in OVERLAYS:
        sets = f"flavour={flavour},image.repository={IMAGE}"
        renderer.helm("lint", "--strict", "--set", sets, str(CHART))


def test_without_an_image_it_says_what_to_set(renderer: Renderer) -> None:
    said = renderer.refused("template", "sgpud", str(CHART))
    assert "No image: build one and name it, --set image.repository=REGISTRY/sgpud" in said


@pytest.mark.parametrize(
    "value",
    [
        "flavour=other",
        "unknown=1",
        "image.repository=",
        "kubeletDirectory=relative",
        "kubeletDirectory=/ends/",
        "criticalPods=-1",
        "whoUsesWhat=perhaps",
        "dra=perhaps",
        "podMonitor.interval=soon",
        "podMonitor.labels.release=1",
        "alerts.enabled=yes",
        "dashboard.label=grafana_dashboard",
        "resources.limits=null",
        "affinity.nodes=here",
        "env[0].value=nameless",
    ],
)
def test_a_value_that_means_nothing_is_refused(renderer: Renderer, value: str) -> None:
    assert "sgpud" in renderer.refused("template", "sgpud", str(CHART), "--set", value)


def test_monitoring_carries_the_labels_that_it_is_found_by(renderer: Renderer) -> None:
    made = renderer.chart(
        "gke", MONITORING,
        *("--set", "podMonitor.labels.release=prometheus", "--set", "alerts.labels.release=rules"),
        *("--set", "dashboard.labels.more=label"),
    )  # fmt: skip
    kinds = {"PodMonitor": "prometheus", "PrometheusRule": "rules"}
    for kind, release in kinds.items():
        assert made.one(kind)["metadata"]["labels"]["release"] == release
    labels = made.one("ConfigMap", "sgpud-dashboard")["metadata"]["labels"]
    assert (labels["grafana_dashboard"], labels["more"]) == ("1", "label")


def test_the_driver_of_dra_has_its_rights_in_the_namespace_of_the_release(
    renderer: Renderer,
) -> None:
    made = renderer.chart("fake-gpus", ("dra",), "--namespace=gpus")
    (subject,) = made.one("ClusterRoleBinding")["subjects"]
    assert subject["namespace"] == "gpus"
    (condition,) = made.one("ValidatingAdmissionPolicy")["spec"]["matchConditions"]
    assert '"system:serviceaccount:gpus:sgpud"' in condition["expression"]


def test_values_reach_the_objects(renderer: Renderer) -> None:
    made = renderer.chart(
        "fake-gpus", (),
        "--set", "kubeletDirectory=/var/lib/k0s/kubelet", "--set", "criticalPods=0",
        "--set-string", "image.tag=7", "--set", "imagePullSecrets[0].name=registry",
        "--set-string", "podAnnotations.a/b=c",
        "--set-string", "config=[sharing]\nduplication_factor = 3\n",
        "--set-string", "fakeGpus=# none",
    )  # fmt: skip
    assert [each["kind"] for each in made.objects if each["kind"] == "ResourceQuota"] == []
    volumes = {each["name"]: each for each in made.pod["volumes"]}
    assert volumes["pod-resources"]["hostPath"]["path"] == "/var/lib/k0s/kubelet/pod-resources"
    assert made.container["image"].endswith(":7")
    assert made.pod["imagePullSecrets"] == [{"name": "registry"}]
    assert parse(made.files["sgpud.toml"], "sgpud.toml").sharing.default.factor == 3
    assert made.files["gpus.toml"].strip() == "# none"
    annotations = made.one("DaemonSet")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["a/b"] == "c"
    for each in made.objects:
        validate(each)


@pytest.mark.parametrize("flavour", OVERLAYS)
def test_affinity_and_environment_are_added(renderer: Renderer, flavour: str) -> None:
    where = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"
    term = f"{where}.nodeSelectorTerms[0].matchExpressions[0]"
    made = renderer.chart(
        flavour, (),
        "--set", f"{term}.key=nvidia.com/gpu.product", "--set", f"{term}.operator=Exists",
        "--set", "env[0].name=HTTPS_PROXY", "--set", "env[0].value=http://proxy:3128",
    )  # fmt: skip
    (found,) = made.pod["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"]
    assert found["matchExpressions"] == [{"key": "nvidia.com/gpu.product", "operator": "Exists"}]
    environment = made.container["env"]
    assert environment[-1] == {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}
    plain = renderer.chart(flavour)
    assert environment[:-1] == plain.container.get("env", [])
    assert "affinity" not in plain.pod
    for each in made.objects:
        validate(each)


def test_an_older_kubernetes_is_refused_with_a_sentence(renderer: Renderer) -> None:
    sets = ("--set", f"image.repository={IMAGE}", "--kube-version", "1.28.0")
    said = renderer.refused("template", "sgpud", str(CHART), *sets)
    assert "chart requires kubeVersion: >=1.29.0-0" in said
