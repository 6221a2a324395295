"""The API's own schemas, of the oldest Kubernetes that is supported and of the newest known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import kubernetes_validate

VERSIONS = ("1.29", kubernetes_validate.latest_version())
FOREIGN = {"PodMonitor", "PrometheusRule"}
"""Kinds of other projects, which have no schema there."""

SINCE_1_30 = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
"""Kinds of what is optional: the component api-server."""


def validate(manifest: Mapping[str, Any]) -> None:
    """Hold an object against every version; ValidationError says what is wrong where."""
    if manifest["kind"] not in FOREIGN:
        for version in VERSIONS[manifest["kind"] in SINCE_1_30 :]:
            kubernetes_validate.validate(manifest, version, strict=True)
