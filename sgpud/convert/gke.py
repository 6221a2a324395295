"""GKE's /etc/nvidia/gpu_config.json, which its own plugin and partitioner read.

Go reads it, so that the case of a key does not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgpud.convert.draft import Draft, shares, table

RESOURCE = "nvidia.com/gpu"
_MPS = (
    "MPS was not taken over: the containers take turns on the GPU, and nothing holds them to a part"
    ' of its memory. Write share_memory = "1GiB" to have memory counted'
)


def is_gke(document: Mapping[str, Any]) -> bool:
    """Whether a document is such a file."""
    known = {"gpupartitionsize", "gpusharingconfig", "maxtimesharedclientspergpu"}
    return bool(known & {key.lower() for key in document})


def convert_gke(document: Mapping[str, Any]) -> Draft:
    """What GKE's plugin was told, for sgpud."""
    draft = Draft("GKE's GPU plugin")
    draft.set("sharing", "resource", RESOURCE)
    draft.set("sharing", "duplication_factor", 1)
    draft.set("sharing", "multiple", "refuse")
    draft.set("container", "method", "device-nodes")
    for key, value in document.items():
        match key.lower():
            case "gpusharingconfig":
                _sharing(table(value, key, draft), key, draft)
            case "maxtimesharedclientspergpu" if value:
                _clients(value, key, draft)
            case "gpupartitionsize" if value:
                draft.note(
                    key,
                    f"sgpud shares the MIG instances that it finds and makes none. Whoever made"
                    f" those of {value} (GKE's driver installation) has to go on doing so",
                )
            case "maxtimesharedclientspergpu" | "gpupartitionsize":
                pass
            case _:
                draft.note(key, "is not known here, and was left out")
    if draft.sections["sharing"]["duplication_factor"] == 1:
        draft.note("the file", "nothing is shared: each GPU is one share, until you write more")
    return draft


def _sharing(config: Mapping[str, Any], place: str, draft: Draft) -> None:
    for key, value in config.items():
        match key.lower():
            case "gpusharingstrategy":
                if "mps" in str(value).lower():
                    draft.note(f"{place}.{key}", _MPS)
                elif value and "time-sharing" not in str(value).lower():
                    draft.note(f"{place}.{key}", f"{value!r} is not known here, and was left out")
            case "maxsharedclientspergpu":
                if value:
                    _clients(value, f"{place}.{key}", draft)
            case _:
                draft.note(f"{place}.{key}", "is not known here, and was left out")


def _clients(value: object, place: str, draft: Draft) -> None:
    count = shares(value, place, draft)
    if count:
        draft.set("sharing", "duplication_factor", count)
