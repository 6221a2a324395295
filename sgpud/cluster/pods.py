"""Follows the pods of this node: their names, and their ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Clock
from sgpud.cluster.calls import ApiError, ApiWatcher
from sgpud.cluster.credentials import CredentialsError
from sgpud.cluster.reflector import Reflector, ReflectorObserver
from sgpud.core.cluster.pods import ClusterPod, PodsChange, changed, listed, pod_of

PODS = "/api/v1/pods"
PAGE = 50
"""Pods of one answer: the reactor parses it, and one pod is some 10 KB."""


class PodWatcher:
    """Watches the pods that are bound to this node; `problem` says why it cannot."""

    _log = Logger()

    def __init__(
        self,
        clock: Clock,
        api: ApiWatcher,
        on_pods: Callable[[PodsChange], None],
        on_problem: Callable[[], None],
    ) -> None:
        """`on_pods` is told each change; `on_problem` that `problem` or `following` has changed."""
        self.pods: Mapping[str, ClusterPod] = {}
        """Those known, by UID."""
        self.problem = ""
        """Why they are not followed, or empty."""
        self.following = False
        """Whether they have been listed."""
        self._on_pods = on_pods
        self._on_problem = on_problem
        observer = ReflectorObserver(self._listed, self._changed, self._failed, self._died)
        self._reflector = Reflector(clock, api, PODS, observer, page=PAGE)

    def start(self, node: str) -> None:
        """Follow the pods of this Node."""
        self._reflector.start(f"spec.nodeName={node}")

    def stop(self) -> None:
        """Follow them no more."""
        self._reflector.stop()

    def _listed(self, items: list[dict[str, Any]]) -> None:
        self._learned(listed(self.pods, map(pod_of, items)))
        self._tell("", following=True)

    def _changed(self, kind: str, document: dict[str, Any]) -> None:
        self._learned(changed(self.pods, pod_of(document), deleted=kind == "DELETED"))

    def _learned(self, change: PodsChange) -> None:
        known = self.pods
        self.pods = change.pods
        if change.ended or change.pods != known:
            self._on_pods(change)

    def _failed(self, doing: str, error: ApiError | CredentialsError) -> None:
        self._tell(f"cannot {doing} the pods of this node: {error}", following=False)

    def _died(self, failure: Failure) -> None:
        self._log.failure("Watching the pods of this node failed", failure)
        self._tell(f"watching the pods of this node failed: {failure.value!r}")

    def _tell(self, problem: str, *, following: bool = False) -> None:
        if (problem, following) == (self.problem, self.following):
            return
        if problem != self.problem:
            if problem:
                self._log.warn(
                    "{problem}. Their names and ends come from the kubelet", problem=problem
                )
            else:
                self._log.info("Watching the pods of this node again")
        self.problem, self.following = problem, following
        self._on_problem()
