"""The component dra: what the driver needs, and no more."""

from __future__ import annotations

import pytest
import yaml

from sgpud.cli.main import command_line
from sgpud.config.load import parse
from sgpud.config.values import DRIVER, ApiServerUse, KubeletApi
from sgpud.core.dra.classes import device_class
from tests.deploy.rendering import DEPLOY, Rendered, Renderer

OVERLAYS = ("dra", "dra-gke", "dra-fake-gpus")


@pytest.fixture(params=OVERLAYS)
def rendered(request: pytest.FixtureRequest, renderer: Renderer) -> Rendered:
    return renderer.overlay(request.param)


def test_the_pod_is_a_driver_with_a_token_and_its_folders(rendered: Rendered) -> None:
    config = parse(
        rendered.files["sgpud.toml"],
        "sgpud.toml",
        command_line().parse_args(rendered.container["args"]).set,
    )
    assert config.kubelet.api is KubeletApi.DRA
    assert config.warnings == ()
    assert rendered.pod["automountServiceAccountToken"] is True
    writable = {
        mount["mountPath"]
        for mount in rendered.container["volumeMounts"]
        if not mount.get("readOnly")
    }
    assert {"/var/lib/kubelet/plugins_registry", config.dra.cdi_dir} <= writable
    (name,) = (each for each in rendered.container["env"] if each["name"] == "NODE_NAME")
    assert name["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName"


def test_the_component_api_server_comes_on_top(renderer: Renderer) -> None:
    """Without it there is no right to the pods, and so they are not asked for."""
    for components, used in (((), ApiServerUse.NEVER), (("api-server",), ApiServerUse.AUTO)):
        made = renderer.overlay("dra", components)
        words = command_line().parse_args(made.container["args"]).set
        config = parse(made.files["sgpud.toml"], "sgpud.toml", words)
        assert config.kubelet.api_server is used
        names = [each["name"] for each in made.container["env"]]
        assert names.count("NODE_NAME") == 1


def test_every_mount_has_a_volume_and_a_path_of_its_own(rendered: Rendered) -> None:
    mounts = rendered.container["volumeMounts"]
    volumes = [each["name"] for each in rendered.pod["volumes"]]
    assert sorted(each["name"] for each in mounts) == sorted(volumes)
    assert len({each["mountPath"] for each in mounts}) == len(mounts)


def test_its_rights_are_those_of_the_three_objects(rendered: Rendered) -> None:
    rules = rendered.one("ClusterRole")["rules"]
    assert {rule["resources"][0]: set(rule["verbs"]) for rule in rules} == {
        "resourceslices": {"list", "watch", "create", "update", "delete"},
        "resourceclaims": {"get"},
        "nodes": {"get"},
    }
    (subject,) = rendered.one("ClusterRoleBinding")["subjects"]
    account = rendered.one("ServiceAccount")["metadata"]
    assert (subject["name"], subject["namespace"]) == (account["name"], account["namespace"])


def test_the_policy_is_of_the_account_that_the_role_is_bound_to(rendered: Rendered) -> None:
    spec = rendered.one("ValidatingAdmissionPolicy")["spec"]
    (condition,) = spec["matchConditions"]
    assert '"system:serviceaccount:sgpud:sgpud"' in condition["expression"]
    (rule,) = spec["matchConstraints"]["resourceRules"]
    assert set(rule["operations"]) == {"CREATE", "UPDATE", "DELETE"}
    binding = rendered.one("ValidatingAdmissionPolicyBinding")["spec"]
    assert binding == {"policyName": "sgpud-dra", "validationActions": ["Deny"]}
    assert f'"{DRIVER}"' in str(spec["validations"])


def test_the_class_is_what_the_command_prints() -> None:
    shipped = yaml.safe_load((DEPLOY / "components" / "dra" / "device-class.yaml").read_text())
    made = device_class("deepomatic.com/shared-gpu", DRIVER)
    assert {**shipped, "metadata": {"name": shipped["metadata"]["name"]}} == made
