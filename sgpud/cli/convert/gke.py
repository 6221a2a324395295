"""GKE's sharing settings, from two kinds of document.

One is /etc/nvidia/gpu_config.json of a node, which GKE's own plugin reads; the case of its keys
does not count there. The other is a node pool, as `gcloud container node-pools describe` prints it:
the same settings are those of its accelerators.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgpud.cli.convert.draft import Draft, listed, shares, table

RESOURCE = "nvidia.com/gpu"
DRIVER = {
    "host": "/home/kubernetes/bin/nvidia",
    "container": "/usr/local/nvidia",
    "read_only": True,
}
"""Where the driver is on GKE's nodes, and where its plugin has it mounted into every container."""
_OF_THE_POOL = {"acceleratorcount", "acceleratortype", "gpudriverinstallationconfig"}
"""What an accelerator of a node pool has beside the settings of sharing."""
_UNSET = (None, "", 0, "0")
_MPS = (
    "MPS was not converted: containers take turns on the GPU, and nothing limits them to a part"
    ' of its memory. Write share_memory = "1GiB" to have memory counted'
)


def is_gke(document: Mapping[str, Any]) -> bool:
    """Whether a document is one of the two."""
    known = {"gpupartitionsize", "gpusharingconfig", "maxtimesharedclientspergpu"}
    return _is_pool(document) or bool(known & {key.lower() for key in document})


def convert_gke(document: Mapping[str, Any]) -> Draft:
    """The configuration of GKE's plugin, for sgpud."""
    draft = Draft("GKE's GPU plugin")
    draft.set("sharing", "resource", RESOURCE)
    draft.set("sharing", "duplication_factor", 1)
    draft.set("sharing", "multiple", "refuse")
    draft.set("container", "method", "device-nodes")
    draft.set("container", "mounts", [DRIVER])
    for key, value in _settings(document, draft).items():
        match key.lower():
            case "gpusharingconfig":
                _sharing(table(value, key, draft), key, draft)
            case "maxtimesharedclientspergpu" if value not in _UNSET:
                _clients(value, key, draft)
            case "gpupartitionsize" if value:
                draft.note(
                    key,
                    "sgpud shares existing MIG instances and creates none: keep GKE's driver"
                    f" installation, which creates those of {value}",
                )
            case "maxtimesharedclientspergpu" | "gpupartitionsize":
                pass
            case _:
                draft.note(key, "is unknown and was ignored")
    if draft.sections["sharing"]["duplication_factor"] == 1:
        draft.note(
            "the file",
            "nothing is shared: each GPU is one share; raise duplication_factor to share it",
        )
    return draft


def _is_pool(document: Mapping[str, Any]) -> bool:
    config = document.get("config")
    return isinstance(config, Mapping) and "accelerators" in config


def _settings(document: Mapping[str, Any], draft: Draft) -> Mapping[str, Any]:
    """The settings themselves; of a node pool, those of its first accelerator."""
    if not _is_pool(document):
        return document
    place = "config.accelerators"
    found = listed(document["config"]["accelerators"], place, draft)
    if len(found) > 1:
        draft.note(place, f"the first of {len(found)} was read: write [[gpu]] rules for the rest")
    first = table(found[0], f"{place}[0]", draft) if found else {}
    return {key: value for key, value in first.items() if key.lower() not in _OF_THE_POOL}


def _sharing(config: Mapping[str, Any], place: str, draft: Draft) -> None:
    for key, value in config.items():
        match key.lower():
            case "gpusharingstrategy":
                if "mps" in str(value).lower():
                    draft.note(f"{place}.{key}", _MPS)
                elif value and str(value).lower().replace("_", "-") != "time-sharing":
                    draft.note(f"{place}.{key}", f"{value!r} is unknown and was ignored")
            case "maxsharedclientspergpu":
                if value not in _UNSET:
                    _clients(value, f"{place}.{key}", draft)
            case _:
                draft.note(f"{place}.{key}", "is unknown and was ignored")


def _clients(value: object, place: str, draft: Draft) -> None:
    count = shares(value, place, draft)
    if count:
        draft.set("sharing", "duplication_factor", count)
