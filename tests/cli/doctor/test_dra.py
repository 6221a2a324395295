"""What the doctor says of a cluster for Dynamic Resource Allocation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve

from sgpud.cli.doctor.check_dra import check_dra
from sgpud.cli.doctor.facts import (
    ConfigurationFacts,
    DeviceFacts,
    DraFacts,
    DriverFacts,
    KubeletFacts,
    NodeFacts,
    RuntimeFacts,
    Severity,
)
from sgpud.cli.doctor.read_dra import dra_facts
from sgpud.config.values import Config, DraConfig
from sgpud.testing.api_server import ApiServer

RESOURCE = "deepomatic.com/shared-gpu"
GOOD = DraFacts(used=True, version=(1, 36), classes={RESOURCE: "there"})


def said(dra: DraFacts, view: dict[str, object] | None = None) -> list[tuple[Severity, str]]:
    kubelet = KubeletFacts("", "", "", "", "")
    facts = NodeFacts(
        ConfigurationFacts(""), DriverFacts(), DeviceFacts(), RuntimeFacts(), kubelet, dra,
        view=view,
    )  # fmt: skip
    return [(one.severity, one.what) for one in check_dra(facts)]


def test_a_device_plugin_is_not_asked_about_it() -> None:
    assert said(DraFacts()) == []


def test_a_good_cluster() -> None:
    assert {severity for severity, _ in said(GOOD)} == {Severity.GOOD}


@pytest.mark.parametrize(
    ("dra", "severity", "what"),
    [
        (evolve(GOOD, problem="no route"), Severity.ERROR, "cannot be asked: no route"),
        (evolve(GOOD, version=(1, 35)), Severity.ERROR, "Kubernetes 1.35"),
        (evolve(GOOD, classes={RESOURCE: "absent"}), Severity.ERROR, "shared-gpu.deepomatic.com"),
        (evolve(GOOD, classes={RESOURCE: "403: no"}), Severity.NOTE, "cannot be read"),
        (evolve(GOOD, allocatable={RESOURCE: "100"}), Severity.ERROR, "shows 100 of"),
    ],
)
def test_what_is_wrong_is_found(dra: DraFacts, severity: Severity, what: str) -> None:
    assert any(each == severity and what in text for each, text in said(dra))


def test_what_the_driver_says_is_a_finding() -> None:
    view: dict[str, object] = {"dra": [{"driver": "gpu.x", "problem": "no gate"}]}
    assert (Severity.ERROR, "gpu.x: no gate") in said(GOOD, view)


@pytest.fixture
def api() -> Iterator[ApiServer]:
    api = ApiServer()
    api.start()
    yield api
    api.stop()


def test_the_facts_are_read_with_the_credentials_of_the_node(
    api: ApiServer, tmp_path: Path
) -> None:
    path = api.write_kubeconfig(tmp_path / "kubeconfig")
    config = Config(dra=DraConfig(kubeconfig=str(path), node_name=api.node))
    found = dra_facts(config, {}, tmp_path)
    assert (found.version, found.problem) == ((1, 36), "")
    assert found.classes[RESOURCE].startswith("403")
    path.write_text(json.dumps({}))
    assert "contexts" in dra_facts(config, {}, tmp_path).problem
