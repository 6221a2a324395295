"""The kubelet's checkpoint of prepared claims, `dra_manager_state`.

It names every claim before NodePrepareResources is called, and drops it after
NodeUnprepareResources: a prepared claim that is not in it is a leftover, and one that only it knows
was lost here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

from sgpud.core.errors import SgpudError
from sgpud.core.json_checks import is_a
from sgpud.files import read_regular

CHECKPOINT = "dra_manager_state"
LARGEST = 64 << 20
"""Bytes of a checkpoint that is still read."""


class DraCheckpointError(SgpudError):
    """A checkpoint that cannot be read."""

    def __init__(self, path: Path, problem: str) -> None:
        """`problem`: what is wrong with it."""
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        """The file and the problem."""
        return f"{self.path}: {self.problem}"


@frozen
class RecordedClaim:
    """A claim that the kubelet has on record."""

    namespace: str
    name: str
    uid: str
    prepared: bool
    """Whether this driver has answered for it with devices."""


def read_recorded(path: Path, driver: str) -> dict[str, RecordedClaim]:
    """The claims on record by UID; DraCheckpointError where there is no valid file."""
    try:
        document = is_a(dict, json.loads(read_regular(path, LARGEST)))
        data = is_a(dict, json.loads(is_a(str, document["Data"])))
        return {claim.uid: claim for claim in _claims(data, driver)}
    except OSError as error:
        raise DraCheckpointError(path, error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DraCheckpointError(path, f"{type(error).__name__}: {error}") from error


def _claims(data: dict[str, Any], driver: str) -> Iterator[RecordedClaim]:
    for entry in is_a(list, data.get("ClaimInfoStateList") or []):
        found = is_a(dict, entry)
        state = is_a(dict, found.get("DriverState") or {}).get(driver) or {}
        yield RecordedClaim(
            is_a(str, found["Namespace"]),
            is_a(str, found["ClaimName"]),
            is_a(str, found["ClaimUID"]),
            bool(is_a(dict, state).get("Devices")),
        )
