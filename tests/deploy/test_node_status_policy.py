"""The policy that holds sgpud to what it writes of a Node's status."""

from __future__ import annotations

import json
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.deploy.rendering import DEPLOY

POLICY = DEPLOY / "components" / "api-server" / "admission-policy.yaml"
IN_CHART = DEPLOY / "helm" / "sgpud" / "templates" / "admission-policy.yaml"
SCHEMAS = Path(kubernetes_validate.__file__).with_name("kubernetes-json-schema")
WRITTEN = {"allocatable", "conditions"}
"""What sgpud writes; of these, the policy looks at each entry."""


def expressions() -> str:
    policy, _ = yaml.safe_load_all(POLICY.read_text())
    return " ".join(one["expression"] for one in policy["spec"]["validations"])


@pytest.mark.parametrize("version", ["1.30.0", kubernetes_validate.latest_version()])
def test_nothing_else_of_the_status_can_be_written(version: str) -> None:
    schema = SCHEMAS / f"v{version}-local" / "nodestatus-v1.json"
    held = expressions()
    for name in set(json.loads(schema.read_text())["properties"]) - WRITTEN:
        assert f"object.status.?{name}.orValue(" in held, name
        assert f"== oldObject.status.?{name}.orValue(" in held, name


@pytest.mark.parametrize("name", ["annotations", "finalizers", "labels", "ownerReferences"])
def test_no_metadata_can_be_written(name: str) -> None:
    """A write to the status of a Node takes them, too."""
    assert f"== oldObject.metadata.?{name}.orValue(" in expressions()


def test_no_other_entry_can_be_removed() -> None:
    assert "oldObject.status.?conditions.orValue([]).all(" in expressions()
    assert "oldObject.status.?allocatable.orValue({}).all(" in expressions()


def test_the_chart_has_the_same() -> None:
    ours, charts = (
        path.read_text().partition("  validations:")[2].partition("---")[0]
        for path in (POLICY, IN_CHART)
    )
    assert ours == charts
