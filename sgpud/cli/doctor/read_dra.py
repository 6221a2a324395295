"""Reads what a driver of Dynamic Resource Allocation needs of the cluster. Changes nothing."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sgpud.cli.doctor.facts import DraFacts
from sgpud.cluster import tls
from sgpud.cluster.claims import NoAnswerError, get
from sgpud.cluster.credentials import Access, Credentials, CredentialsError
from sgpud.config.values import Config
from sgpud.core.dra.classes import class_name
from sgpud.core.dra.objects import API

WITHIN = 5.0
"""Seconds for each answer."""
FORBIDDEN, NOT_FOUND = 403, 404


def dra_facts(config: Config, environment: Mapping[str, str], root: Path) -> DraFacts:
    """The facts; `root` is the node's file system."""
    try:
        access = Credentials(config.dra.kubeconfig, environment, time.time, root).access()
        version = _version(get(access, "/version", WITHIN))
    except (CredentialsError, NoAnswerError) as error:
        return DraFacts(used=True, problem=str(error))
    resources = config.sharing.resources
    name = config.dra.node_name or environment.get("NODE_NAME") or tls.node_of(access)
    return DraFacts(
        used=True,
        version=version,
        classes={resource: _class(access, resource) for resource in resources},
        allocatable=_allocatable(access, name or socket.gethostname().lower(), resources),
    )


def _version(answer: object) -> tuple[int, int]:
    told = answer if isinstance(answer, dict) else {}
    numbers = [re.match("[0-9]{1,4}", str(told.get(key, ""))) for key in ("major", "minor")]
    major, minor = (int(found[0]) if found else 0 for found in numbers)
    return major, minor


def _class(access: Access, resource: str) -> str:
    try:
        found: Any = get(access, f"/apis/{API}/deviceclasses/{class_name(resource)}", WITHIN)
    except NoAnswerError as error:
        return "absent" if error.status == NOT_FOUND else str(error)
    spec = found.get("spec") if isinstance(found, dict) else None
    mapped = spec.get("extendedResourceName") if isinstance(spec, dict) else None
    return "there" if mapped == resource else f"it maps {mapped or 'no resource'}"


def _allocatable(access: Access, node: str, resources: tuple[str, ...]) -> dict[str, str]:
    try:
        found: Any = get(access, f"/api/v1/nodes/{node}", WITHIN)
        shown = found["status"]["allocatable"]
        return {name: str(shown[name]) for name in resources if str(shown.get(name, "0")) != "0"}
    except (NoAnswerError, KeyError, TypeError, AttributeError):
        return {}
