"""What `sgpud dra` asks of the API server, with the daemon's own credentials. It blocks."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sgpud.cli.dra.switch import SwitchingError
from sgpud.cluster import tls
from sgpud.cluster.claims import NoAnswerError, call_now, get
from sgpud.cluster.credentials import Access, Credentials, CredentialsError
from sgpud.cluster.slices import SLICES
from sgpud.config.values import Config

WITHIN = 5.0
"""Seconds for each answer."""
PATCH = "application/strategic-merge-patch+json"


class NodeAccess:
    """This node at the API server."""

    def __init__(self, config: Config, environment: Mapping[str, str]) -> None:
        """SwitchingError without credentials."""
        self._driver = config.dra.driver
        self._credentials = Credentials(config.dra.kubeconfig, environment, time.time)
        try:
            named = config.dra.node_name or environment.get("NODE_NAME", "")
            self.name = named or tls.node_of(self._access) or socket.gethostname().lower()
        except CredentialsError as error:
            raise SwitchingError(str(error)) from error

    @property
    def _access(self) -> Access:
        return self._credentials.access()

    def allocatable(self) -> Mapping[str, int]:
        """How many of each resource the node shows."""
        try:
            found: Any = get(self._access, f"/api/v1/nodes/{self.name}", WITHIN)
            shown = found["status"].get("allocatable") or {}
        except (NoAnswerError, CredentialsError, KeyError, TypeError, AttributeError) as error:
            raise SwitchingError(f"cannot read Node {self.name}: {error}") from error
        return {name: int(text) for name, text in shown.items() if str(text).isdigit()}

    def show_none(self, resources: Sequence[str]) -> str:
        """Have the node show 0 of these; why that was refused, or empty."""
        body = {"status": {"allocatable": dict.fromkeys(resources, "0")}}
        path = f"/api/v1/nodes/{self.name}/status"
        try:
            call_now(self._access, "PATCH", path, WITHIN, body, PATCH)
        except (NoAnswerError, CredentialsError) as error:
            return str(error)
        return ""

    def remove_slices(self) -> Iterator[str]:
        """Delete the node's slices of this driver; their names. SwitchingError."""
        query = f"fieldSelector=spec.nodeName%3D{self.name}%2Cspec.driver%3D{self._driver}"
        try:
            found: Any = get(self._access, f"{SLICES}?{query}", WITHIN)
            for each in found.get("items") or ():
                name = str(each["metadata"]["name"])
                call_now(self._access, "DELETE", f"{SLICES}/{name}", WITHIN)
                yield name
        except (NoAnswerError, CredentialsError, KeyError, TypeError, AttributeError) as error:
            raise SwitchingError(f"cannot remove the ResourceSlices: {error}") from error
