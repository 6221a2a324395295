"""The dashboard and the alerts: they parse, say what they should, and name metrics that are."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sgpud.serve.metrics.collector import FAMILIES
from sgpud.serve.metrics.families import MetricType
from tools.prometheus_rule import RULE, rule

DEPLOY = Path(__file__).parents[2] / "deploy"
MONITORING = DEPLOY / "monitoring"
DASHBOARD = DEPLOY / "components" / "dashboard" / "dashboard.json"
ALERTS, TRIALS = MONITORING / "alerts.yaml", MONITORING / "alerts.test.yaml"
NAME = re.compile(r"\bsgpud_[a-z0-9_]+")
EXPORTED = {
    name
    for family in FAMILIES
    for name in (
        (f"{family.name}_count", f"{family.name}_sum")
        if family.kind is MetricType.SUMMARY
        else (family.shown,)
    )
}
on_one_stack = pytest.mark.skipif(
    os.environ.get("SGPUD_STACK") == "debian-12", reason="promtool is the same beside either stack"
)
LABELS = {label for family in FAMILIES for label in family.labels} | {"instance", "job"}
COLUMNS = 24


def test_the_prometheus_rule_is_current() -> None:
    assert RULE.read_text() == rule(), "run: python -m tools.prometheus_rule"


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def queries() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def rules() -> str:
    """The rules without what people read."""
    return re.sub(r"annotations:.*?(?=\n\n|\Z)", "", ALERTS.read_text(), flags=re.DOTALL)


def promtool(found: str, *words: str, folder: Path = MONITORING) -> str:
    done = subprocess.run(
        [found, *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@on_one_stack
def test_prometheus_accepts_the_rules(need_tool: Callable[[str], str]) -> None:
    assert "SUCCESS: 13 rules found" in promtool(
        need_tool("promtool"), "check", "rules", ALERTS.name
    )


@on_one_stack
def test_each_alert_fires_when_it_should(need_tool: Callable[[str], str]) -> None:
    assert "SUCCESS" in promtool(need_tool("promtool"), "test", "rules", TRIALS.name)


def test_each_alert_is_tried() -> None:
    alerts = set(re.findall(r"alert: (\w+)", ALERTS.read_text()))
    # With what is expected of it, and not only where it is quiet.
    tried = set(re.findall(r"alertname: (\w+)\n +exp_alerts:", TRIALS.read_text()))
    assert alerts == tried


def test_each_alert_leads_to_its_section_of_the_runbook() -> None:
    alerts = re.findall(r"alert: (\w+)", ALERTS.read_text())
    linked = re.findall(r"runbook: docs/runbook\.md#(\w+)", ALERTS.read_text())
    sections = re.findall(
        r"^## (\w+)$", (DEPLOY.parent / "docs/runbook.md").read_text(), re.MULTILINE
    )
    assert linked == [alert.lower() for alert in alerts]
    assert sorted(sections) == sorted(alerts)


def test_gpus_are_named_as_people_name_them() -> None:
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            assert "{{gpu}}" not in target.get("legendFormat", ""), panel["title"]
    # A UUID only where the name is not known any more.
    assert not re.search(r"GPU \{\{ \$labels.gpu", ALERTS.read_text())


@pytest.mark.parametrize(
    ("concern", "metric"),
    [
        ("GPU unhealthy", "sgpud_gpu_health"),
        ("no registration", "sgpud_pool_registered"),
        ("refusals", "sgpud_refusals_total"),
        ("overuse", "sgpud_container_overuse_bytes"),
        ("running on last good", "sgpud_configuration_current"),
    ],
)
def test_every_concern_has_its_alert_and_its_panel(concern: str, metric: str) -> None:
    assert metric in rules(), concern
    assert any(metric in query for query in queries()), concern


def test_every_metric_that_is_named_is_exported() -> None:
    named = {
        name for text in (rules(), TRIALS.read_text(), *queries()) for name in NAME.findall(text)
    }
    assert len(named) > 15
    assert named <= EXPORTED


def test_every_label_that_is_named_is_one() -> None:
    for text in (rules(), TRIALS.read_text(), *queries()):
        labels = {
            label.strip()
            for listed in re.findall(r"\b(?:by|on) \(([^)]*)\)", text)
            for label in listed.split(",")
        }
        labels |= {
            matcher
            for matchers in re.findall(r"sgpud_\w+\{([^}]*)\}", text)
            for matcher in re.findall(r"(\w+)(?:=~|!=|=)", matchers)
        }
        assert labels <= LABELS


@on_one_stack
def test_prometheus_accepts_the_queries_of_the_dashboard(
    need_tool: Callable[[str], str], tmp_path: Path
) -> None:
    known = [one.replace("$__rate_interval", "5m").replace("$instance", ".*") for one in queries()]
    rules = [{"record": f"query:{number}", "expr": one} for number, one in enumerate(known)]
    # JSON is YAML.
    document = json.dumps({"groups": [{"name": "dashboard", "rules": rules}]})
    (tmp_path / "queries.yaml").write_text(document)
    said = promtool(need_tool("promtool"), "check", "rules", "queries.yaml", folder=tmp_path)
    assert f"SUCCESS: {len(known)} rules found" in said


def test_no_panel_lies_over_another() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < COLUMNS
        taken |= cells


def test_every_panel_says_what_it_shows_and_asks_the_chosen_source() -> None:
    board = dashboard()
    variables = {one["name"] for one in board["templating"]["list"]}
    assert variables == {"datasource", "instance"}
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert '$instance"' in target["expr"]
