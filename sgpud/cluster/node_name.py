"""What this Node is called at the API server, found out however often that takes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Reactor, Timer, in_thread
from sgpud.cluster import tls
from sgpud.cluster.credentials import Credentials, CredentialsError

AGAIN = 5.0
"""Seconds until the credentials are looked at again."""
VARIABLE = "NODE_NAME"
"""Of the environment, set in a pod's manifest."""


class NodeName:
    """Finds the name, once."""

    _log = Logger()

    def __init__(
        self,
        reactor: Reactor,
        credentials: Credentials,
        environment: Mapping[str, str],
        found: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        """`found` is told the name; `changed` is called when `problem` has changed."""
        self.name = ""
        """Empty until it is known."""
        self.problem = ""
        """Why it is not known, or empty."""
        self._reactor = reactor
        self._credentials = credentials
        self._environment = environment
        self._found = found
        self._changed = changed
        self._again = Timer(reactor)

    def find(self, configured: str) -> None:
        """Find it; `configured` is the one of the configuration, or empty."""
        named = configured or self._environment.get(VARIABLE, "")
        if named:
            self._told(named)
        else:
            asked = in_thread(self._reactor, self._of_credentials)
            asked.addCallbacks(self._told, lambda failure: self._unknown(failure, configured))

    def stop(self) -> None:
        """Look no more."""
        self._again.cancel()

    def _of_credentials(self) -> str:
        named = tls.node_of(self._credentials.access())
        if not named and self._credentials.in_pod:
            raise CredentialsError(
                f"the name of this Node is unknown: set {VARIABLE} in the pod to spec.nodeName, or"
                " [dra] node_name"
            )
        return named or socket.gethostname().lower()

    def _unknown(self, failure: Failure, configured: str) -> None:
        failure.trap(CredentialsError)
        if str(failure.value) != self.problem:
            self.problem = str(failure.value)
            self._log.warn("{problem}", problem=self.problem)
            self._changed()
        self._again.set(AGAIN, lambda: self.find(configured))

    def _told(self, name: str) -> None:
        self.name, self.problem = name, ""
        self._found(name)
        self._changed()
