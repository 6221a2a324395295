"""The commands' documents as text for a person. Pure: documents in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from sgpud.cli import tables
from sgpud.core.gpu.gpu import UnreadableGpu
from sgpud.core.text import SHARE_STATES, one_line, several
from sgpud.core.units import format_size

Document = Mapping[str, Any]
STARTING = "a pod that is starting"
"""A holder whose shares were given this moment: the kubelet has not recorded it yet."""
WORDS = (
    (
        "cordon",
        "{gpu} is cordoned: held shares stay, free ones are withheld.",
        "Withhold the free shares of a GPU, across restarts and reboots; held ones stay.",
    ),
    ("uncordon", "{gpu} is uncordoned.", "Give out shares of a cordoned GPU again."),
    (
        "heal",
        "{gpu} is on probation: its shares are given out again after three good probes in a row.",
        "Declare a GPU healthy, after a reset that sgpud cannot see.",
    ),
)
"""The commands about one GPU: name, answer, help."""


def applied(found: Document, text: str) -> str:
    """The answer of a command about one GPU: `text`, or why nothing changed."""
    unchanged = found["unchanged"]
    return "\n".join(
        f"Nothing changed: {gpu} {unchanged[gpu]}." if gpu in unchanged else text.format(gpu=gpu)
        for gpu in found["gpus"]
    )


def clean(document: Any) -> Any:
    """The document with every text made printable: a GPU's name must not control a terminal."""
    if isinstance(document, str):
        return one_line(document)
    if isinstance(document, Mapping):
        return {clean(key): clean(value) for key, value in document.items()}
    if isinstance(document, Sequence):
        return [clean(value) for value in document]
    return document


def checked(found: Document) -> str:
    """The answer of check-config."""
    lines = [*found["errors"], *found["warnings"]]
    count = len(found["errors"])
    verdict = f"has {several(count, 'problem')}" if count else "is valid"
    if found["warnings"] and not count:
        verdict += f", with {several(len(found['warnings']), 'warning')}"
    return "\n".join([*lines, f"{found['file']} {verdict}"])


def gpus(found: Document) -> str:
    """The answer of gpus."""
    lines = []
    if found["fault"]:
        lines.append(f"Cannot read GPUs: {found['fault']}")
    rows = [("INDEX", "UUID", "PRODUCT", "MEMORY", "NUMA", "SHARED AS")]
    for gpu in found["gpus"]:
        shared = gpu["shared"]
        mig = gpu["mig"]
        index = str(gpu["index"]) + (f" MIG {mig['gi']}/{mig['ci']}" if mig else "")
        rows.append(
            (
                index,
                gpu["uuid"],
                gpu["product"],
                "unknown" if gpu["memory"] is None else format_size(gpu["memory"]),
                "-" if gpu["numa"] is None else str(gpu["numa"]),
                f"{shared['shares']} x {shared['resource']}" if shared else "not shared",
            )
        )
    if found["gpus"]:
        lines += table(rows)
        lines.append(f"Driver {found['driver']}")
    unreadable = [UnreadableGpu(**gpu) for gpu in found.get("unreadable", ())]
    lines += [f"{gpu.named} cannot be shared: {gpu.reason}" for gpu in unreadable]
    named = {name for gpu in unreadable for name in (gpu.uuid, str(gpu.index))}
    lines += [
        f"GPU {gpu} cannot be shared: {error}"
        for gpu, error in found["errors"].items()
        if gpu not in named
    ]
    if found["configuration"]:
        lines.append(f"Shown with the default configuration: {found['configuration']}")
    return "\n".join(lines)


def plan(found: Document) -> str:
    """The answer of plan."""
    seen = found["view"]
    lines = [f"sgpud {seen['version']}: {seen['serving']} ({seen['directory']})"]
    configuration = seen["configuration"]
    lines.append(f"Configuration: {configuration['file']}, in use: {configuration['in_use']}")
    lines += [f"  {text}" for text in (*configuration["problems"], *configuration["warnings"])]
    facts = (
        ("GPUs", seen["probe"]),
        ("Holders may be stale", seen["holders"]),
        ("Method", seen["method"]),
        ("Not known yet", ", ".join(seen["unknown"])),
    )
    lines += [f"{name}: {text}" for name, text in facts if text]
    lines += unreadable(seen)
    lines += [f"Note: {note}" for note in seen["notes"]]
    lines += _healths(seen.get("healths", ()))
    for pool in seen["pools"]:
        lines += ["", *_pool(pool)]
    if found["reload"]:
        lines += ["", reloaded(found["reload"], would=True)]
    return "\n".join(lines)


def unreadable(seen: Document) -> list[str]:
    """A line for each GPU that cannot be shared; of an older daemon none."""
    return [
        "GPU {}{}: {}".format(gpu["index"], f" ({gpu['pci']})" if gpu["pci"] else "", gpu["reason"])
        for gpu in seen.get("unreadable", ())
    ]


def xids(found: Document) -> str:
    """The answer of xids."""
    rows = [("XID", "CLASS", "MEANING", "CATALOGUE", "GPUS")]
    rows += [
        (str(xid["number"]), xid["class"], xid["meaning"], xid["bucket"], xid["gpus"])
        for xid in found["xids"]
    ]
    sources = [f"  {text}" for text in found["sources"]]
    return "\n".join(
        [
            *table(rows),
            "",
            "What each class does to a GPU:",
            *(f"  {name}: {text}" for name, text in found["classes"].items()),
            "An XID that is not listed is logged, counted and otherwise ignored.",
            "",
            "To reset a GPU while sgpud runs:",
            f"  {found['reset']}",
            "",
            f"From NVIDIA's XID catalogue (edition {found['edition']}):",
            *sources,
        ]
    )


def reloaded(outcome: Document, *, would: bool = False) -> str:
    """The answer of reload, or what one would do."""
    result = outcome["result"]
    if result == "refused":
        head = "The file is invalid; the configuration in use stays:"
        return "\n".join([head, *(f"  {text}" for text in outcome["problems"])])
    if result == "unchanged":
        head = "A reload would change nothing" if would else "Reloaded: nothing changed"
    else:
        head = "A reload would change:" if would else "Reloaded:"
    lines = (*outcome["keys"], *outcome["shares"], *outcome["warnings"])
    return "\n".join([head, *(f"  {text}" for text in lines)])


def released(found: Document) -> str:
    """The answer of release."""
    if found["released"]:
        return (
            "The driver is released for 15 minutes: held shares stay, free ones are withheld.\n"
            "Unload the driver or reset the GPU, then run `sgpud acquire`."
        )
    return (
        "The process that reads the GPUs hangs in the driver and cannot be killed: unloading the "
        "driver or resetting a GPU will fail. Reboot the node."
    )


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned lines, as wide as they are."""
    return tables.table([[tables.Cell(text) for text in row] for row in rows])


def _healths(healths: Sequence[Document]) -> list[str]:
    lines = []
    for gpu in healths:
        cordon = ", cordoned" if gpu["cordoned"] else ""
        if cordon or gpu["reason"]:
            reason = f" ({gpu['reason']})" if gpu["reason"] else ""
            todo = f": {gpu['advice']}" if gpu["advice"] else ""
            lines.append(f"GPU {gpu['uuid']} is {gpu['health']}{reason}{cordon}{todo}")
    return lines


def _pool(pool: Document) -> list[str]:
    live = pool["registration"] == "live"
    state = "registered" if live else pool["registration"]
    state += f" ({pool['problem']})" if pool["problem"] else ""
    leaving = ", no longer configured" if pool["dropped"] else ""
    lines = [f"{pool['resource']}: {state}{leaving}"]
    keys = (*SHARE_STATES, "allocatable")
    rows = [("  GPU", "PRODUCT", *map(str.upper, keys), "REASON")]
    for gpu in pool["gpus"]:
        reason = f"{gpu['availability']}: {gpu['reason']}" if gpu["reason"] else ""
        numbers = (str(gpu[key]) for key in keys)
        rows.append((f"  {gpu['uuid']}", gpu["product"], *numbers, reason))
    return lines + (table(rows) if pool["gpus"] else ["  no shares"]) + _holders(pool)


def _holders(pool: Document) -> list[str]:
    """Who holds shares of a pool, as a table; nothing where nobody does."""
    rows = [("  HOLDER", "CONTAINER", "GPU", "SHARES", "MEMORY", "SINCE")]
    for gpu in pool["gpus"]:
        for holder in gpu.get("holders", ()):
            pod = f"{holder['namespace']}/{holder['pod']}" if holder["pod"] else holder["uid"]
            since = datetime.fromtimestamp(holder["since"], timezone.utc)
            rows.append(
                (
                    f"  {pod or STARTING}",
                    holder["container"] or "-",
                    gpu["uuid"],
                    str(holder["shares"]),
                    format_size(holder["bytes"]) if holder["bytes"] else "-",
                    since.strftime("%Y-%m-%d %H:%M:%SZ") if holder["since"] else "-",
                )
            )
    return ["", *table(rows)] if len(rows) > 1 else []
