"""The table of XIDs as a document: what each means on this node."""

from __future__ import annotations

from sgpud.core.health.causes import HealthPolicy, reset_steps
from sgpud.core.health.xids import (
    BLACKWELL,
    CATALOGUE,
    CLASSES,
    EDITION,
    HOPPER,
    TABLE_CLASSES,
    XIDS,
    Remedy,
    Xid,
)

EFFECTS = {
    Remedy.IGNORE: "none: an error of the application, or no error",
    Remedy.RESTART: "none: restart the application that was hit",
    Remedy.RESET: "all its shares are Unhealthy until it is reset",
    Remedy.REBOOT: "all its shares are Unhealthy until the node is rebooted",
    Remedy.PROBE: "suspect until a probe has read the driver's recovery action",
}
_CONFIGURED = "classified by [health]"


def document(policy: HealthPolicy) -> dict[str, object]:
    """The table with what the configuration changes in it."""
    entries = [_entry(xid, policy) for xid in XIDS]
    known = {xid.number for xid in XIDS}
    entries += [
        {
            "number": number,
            "class": remedy.value,
            "meaning": _CONFIGURED,
            "bucket": "-",
            "gpus": "all",
            "source": "[health]",
        }
        for remedy in CLASSES
        for number in policy.numbers(remedy)
        if number not in known
    ]
    others = sorted({xid.source for xid in XIDS} - {CATALOGUE})
    named = {
        source: ", ".join(str(xid.number) for xid in XIDS if xid.source == source)
        for source in others
    }
    return {
        "xids": sorted(entries, key=lambda entry: int(str(entry["number"]))),
        "classes": {remedy.value: EFFECTS[remedy] for remedy in TABLE_CLASSES},
        "reset": reset_steps("GPU-..."),
        "edition": EDITION,
        "sources": [CATALOGUE, *(f"{source} for {xids}" for source, xids in named.items())],
    }


def _entry(xid: Xid, policy: HealthPolicy) -> dict[str, object]:
    remedy = policy.of_xid(xid.number, None) or xid.remedy
    configured = any(xid.number in policy.numbers(each) for each in CLASSES)
    return {
        "number": xid.number,
        "class": remedy.value,
        "meaning": f"{xid.meaning} ({_CONFIGURED})" if configured else xid.meaning,
        "bucket": xid.bucket,
        "gpus": "all" if configured else _gpus(xid),
        "source": xid.source,
    }


def _gpus(xid: Xid) -> str:
    names = {HOPPER: "Hopper", BLACKWELL: "Blackwell"}
    if xid.first == xid.last:
        return f"{names[xid.first]} only"
    if xid.first:
        return f"from {names[xid.first]} on"
    return "all" if xid.last > BLACKWELL else f"before {names[xid.last + 1]}"
