#!/usr/bin/env python3
"""Writes the alerts as a PrometheusRule: deploy/components/alerts, from deploy/monitoring.

Kustomize has no way to nest one file into another. Run it as `python -m tools.prometheus_rule` in
the repository's root after a change of the alerts; a test tells when that was forgotten.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
ALERTS = DEPLOY / "monitoring" / "alerts.yaml"
RULE = DEPLOY / "components" / "alerts" / "prometheus-rule.yaml"
_HEAD = """\
# Generated from deploy/monitoring/alerts.yaml by `python -m tools.prometheus_rule`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: sgpud
  namespace: sgpud
  labels:
    app.kubernetes.io/name: sgpud
spec:
"""


def rule() -> str:
    """The PrometheusRule with every alert."""
    lines = ALERTS.read_text(encoding="utf-8").splitlines(keepends=True)
    groups = "".join(line for line in lines if not line.startswith("#"))
    return _HEAD + textwrap.indent(groups, "  ")


if __name__ == "__main__":
    RULE.write_text(rule(), encoding="utf-8")
