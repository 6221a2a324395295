"""The client of the helper. It blocks, with a deadline: never to be called on the reactor."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sgpud.core.errors import SgpudError
from sgpud.core.limits.pod_caps import FoundCap, GpuLimiting

ANSWER_WITHIN = 6.0
"""Seconds for an answer: the helper gives up a call to NVML after 5."""
_LARGEST = 16 * 1024 * 1024
"""Bytes of an answer that are read."""
AWAY = "away"
"""The kind of error of a helper that does not answer."""
UNIT = "sgpud-limits"
"""The helper's unit, and its container in the DaemonSet."""


class HelperError(SgpudError):
    """The helper does not answer, or refuses: the kind of reason, and the reason itself."""

    def __init__(self, kind: str, reason: str) -> None:
        """`kind`: AWAY, or as the helper says."""
        super().__init__(kind, reason)
        self.kind, self.reason = kind, reason

    def __str__(self) -> str:
        """The reason."""
        return self.reason


class HelperClient:
    """Asks the helper that listens on a socket."""

    def __init__(self, path: Path, within: float = ANSWER_WITHIN) -> None:
        """`within`: seconds for an answer."""
        self.path = path
        self._within = within

    @property
    def installed(self) -> bool:
        """Whether a helper listens there, or one did since the machine has started."""
        return self.path.exists()

    def set(self, pod: str, cgroup: Path, gpu: str, size: int, *, late: bool) -> None:
        """Limit a pod's memory of a GPU to so many bytes; HelperError."""
        target = {"pod": pod, "cgroup": str(cgroup), "gpu": gpu}
        self._ask({"op": "set", **target, "bytes": size, "late": late})

    def clear(self, cap: FoundCap) -> None:
        """Lift a limit of ours; HelperError."""
        self._ask({"op": "clear", "pod": cap.pod, "cgroup": cap.cgroup, "gpu": cap.gpu})

    def caps(self) -> tuple[FoundCap, ...]:
        """Every limit that the helper has set, as it is now; HelperError."""
        try:
            return tuple(map(_cap, self._ask({"op": "get"})["caps"]))
        except (KeyError, TypeError, ValueError) as problem:
            raise self._garbled() from problem

    def probe(self, gpus: Collection[str]) -> Mapping[str, GpuLimiting]:
        """Whether limits can be set for these GPUs; HelperError."""
        try:
            found = self._ask({"op": "probe", "gpus": sorted(gpus)})["gpus"]
            return {
                gpu: GpuLimiting(str(found[gpu]["backend"]), str(found[gpu]["problem"]))
                for gpu in gpus
            }
        except (KeyError, TypeError, ValueError) as problem:
            raise self._garbled() from problem

    def _ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        try:
            received = self._exchange(json.dumps(request).encode() + b"\n")
        except TimeoutError:
            reason = f"the helper did not answer within {self._within:g} s"
            raise HelperError(AWAY, f"{reason}: see `systemctl status {UNIT}`") from None
        except OSError as problem:
            reason = f"the helper does not answer on {self.path} ({problem.strerror or problem})"
            raise HelperError(AWAY, f"{reason}: start {UNIT}") from None
        try:
            answer = json.loads(received)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict) or type(answer.get("ok")) is not bool:
            raise self._garbled()
        if not answer["ok"]:
            raise HelperError(str(answer.get("error")), str(answer.get("detail")))
        return answer

    def _exchange(self, request: bytes) -> bytes:
        deadline = time.monotonic() + self._within
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(self._within)
            connection.connect(str(self.path))
            connection.sendall(request)
            received = bytearray()
            while not received.endswith(b"\n") and len(received) < _LARGEST:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                connection.settimeout(left)
                data = connection.recv(65536)
                if not data:
                    break
                received += data
            return bytes(received)

    def _garbled(self) -> HelperError:
        return HelperError(
            AWAY, f"what answers on {self.path} is not this sgpud's helper: restart {UNIT}"
        )


def _cap(said: Mapping[str, Any]) -> FoundCap:
    limit, used = said["limit"], said["used"]
    return FoundCap(
        str(said["pod"]),
        str(said["gpu"]),
        str(said["cgroup"]),
        int(said["bytes"]),
        bool(said["late"]),
        None if limit is None else int(limit),
        None if used is None else int(used),
        str(said["problem"]),
    )
