"""By which API this node's GPUs are served, device plugin or DRA, and whether that may change.

A node must not serve both under one name: the scheduler takes DRA for a name only where the node
shows 0 of it. And what one of them gave does not count for the other.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from sgpud.config.values import KubeletApi
from sgpud.node.store import StateDirectory

SERVED = "api"
"""The file of the state directory that says which one was served last."""


class ServedApi:
    """Which API is served, and which one was served last."""

    _log = Logger()

    def __init__(self, store: StateDirectory, holders: Callable[[KubeletApi], str]) -> None:
        """`holders`: who holds GPUs that this API gave, in words, or empty. It may block."""
        self.problem = ""
        """Why another one is served than is configured, or empty."""
        self._store = store
        self._holders = holders
        self.served = KubeletApi.DEVICE_PLUGIN
        """Valid after `choose`."""

    def choose(self, configured: KubeletApi, *, force: bool) -> KubeletApi:
        """The one to serve: what is configured, unless pods hold what the other one gave."""
        self.served = configured
        other = self.other
        if self._store.read(SERVED) == configured.value.encode():
            return configured
        who = self._holders(other)
        if who and force:
            self._log.warn("Serving {api} despite {who}", api=configured.value, who=who)
        elif who:
            self.served = other
            self.problem = (
                f'[kubelet] api = "{configured.value}" is not in use, "{other.value}" is, because '
                f"of {who}. Drain the node and restart sgpud, or run `sgpud dra switch`; "
                "`sgpud run --force` changes it anyway"
            )
            self._log.error("{problem}", problem=self.problem)
        return self.served

    @property
    def other(self) -> KubeletApi:
        """The one that is not served."""
        dra = self.served is KubeletApi.DRA
        return KubeletApi.DEVICE_PLUGIN if dra else KubeletApi.DRA

    def keep(self) -> None:
        """Remember the one that is served."""
        self._keep(self.served)

    def switch(self) -> None:
        """Have the next start serve the other one, where the configuration says so."""
        self._keep(self.other)

    def _keep(self, api: KubeletApi) -> None:
        content = api.value.encode()
        if self._store.read(SERVED) != content:
            self._store.write(SERVED, content)
