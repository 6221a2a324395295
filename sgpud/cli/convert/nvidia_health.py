"""The section `health` of NVIDIA's configuration: which XIDs count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgpud.cli.convert.draft import Draft, listed, whole


def health(given: Mapping[str, Any], draft: Draft) -> None:
    """XIDs that are ignored stay so; those that are critical take a GPU out until it was reset."""
    ignored = _xids(given.get("ignoredXIDs"), "health.ignoredXIDs", draft)
    if ignored:
        draft.set("health", "ignore", ignored)
    critical = given.get("criticalXIDs")
    if critical is not None and str(critical).lower() != "all":
        reset = [x for x in _xids(critical, "health.criticalXIDs", draft) if x not in ignored]
        draft.set("health", "reset", reset)
        draft.note("health.criticalXIDs", "other XIDs are classified as in `sgpud xids`")
    elif critical is not None:
        draft.note("health.criticalXIDs", "not every XID: they are classified as in `sgpud xids`")
    if str(given.get("disabled")).lower() == "true":
        draft.note(
            "health.disabled", "sgpud always checks health; list XIDs in [health] ignore instead"
        )
    for key in sorted(set(given) - {"disabled", "eventTypes", "ignoredXIDs", "criticalXIDs"}):
        draft.note(f"health.{key}", "is unknown and was ignored")


def _xids(value: object, place: str, draft: Draft) -> list[int]:
    found: list[int] = []
    for each in listed(value, place, draft):
        number = whole(each)
        if number:
            found.append(number)
        else:
            draft.note(place, f"{each!r} is not an XID and was ignored")
    return list(dict.fromkeys(found))
