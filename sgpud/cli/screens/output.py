"""The commands' documents as text for a person. Pure: documents in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from sgpud.core.text import one_line
from sgpud.core.units import format_size

Document = Mapping[str, Any]
WORDS = (
    (
        "cordon",
        "{gpu} is cordoned: held shares stay, no other is given out.",
        "Give no more shares of a GPU out; held ones stay, over restarts and boots too.",
    ),
    ("uncordon", "{gpu} is no longer cordoned.", "Give shares of a GPU out again."),
    (
        "heal",
        "{gpu} is on probation: it is given out again once three probes in a row have passed.",
        "Say that a GPU is well, after a reset that sgpud cannot see.",
    ),
)
"""The commands that tell the daemon something of a GPU: name, what is answered, what it does."""


def clean(document: Any) -> Any:
    """The document with every text made printable: a GPU's name is not to steer a terminal."""
    if isinstance(document, str):
        return one_line(document)
    if isinstance(document, Mapping):
        return {key: clean(value) for key, value in document.items()}
    if isinstance(document, Sequence):
        return [clean(value) for value in document]
    return document


def checked(found: Document) -> str:
    """The answer of check-config."""
    lines = [*found["errors"], *found["warnings"]]
    count = len(found["errors"])
    verdict = "is good" if not count else f"has {count} problem{'s' if count > 1 else ''}"
    if found["warnings"] and not count:
        verdict += f", with {len(found['warnings'])} to think about"
    return "\n".join([*lines, f"{found['file']} {verdict}"])


def gpus(found: Document) -> str:
    """The answer of gpus."""
    lines = []
    if found["fault"]:
        lines.append(f"No GPU can be read: {found['fault']}")
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
                format_size(gpu["memory"]),
                "-" if gpu["numa"] is None else str(gpu["numa"]),
                f"{shared['shares']} x {shared['resource']}" if shared else "not shared",
            )
        )
    if found["gpus"]:
        lines += table(rows)
        lines.append(f"Driver {found['driver']}")
    lines += [f"GPU {gpu} fails: {error}" for gpu, error in found["errors"].items()]
    if found["configuration"]:
        lines.append(f"Shown with the defaults, since {found['configuration']}")
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
        ("Holders", seen["holders"]),
        ("Method", seen["method"]),
        ("Not known yet", ", ".join(seen["unknown"])),
    )
    lines += [f"{name}: {text}" for name, text in facts if text]
    lines += [f"Note: {note}" for note in seen["notes"]]
    lines += _healths(seen.get("healths", ()))
    for pool in seen["pools"]:
        lines += ["", *_pool(pool)]
    if found["reload"]:
        lines += ["", reloaded(found["reload"], would=True)]
    return "\n".join(lines)


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
            "An XID that is not here is counted and logged, and changes nothing.",
            "",
            "To reset a GPU under a running sgpud:",
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
        head = "The file is refused, the configuration in use stays:"
        return "\n".join([head, *(f"  {text}" for text in outcome["problems"])])
    if result == "unchanged":
        head = "A reload would change nothing" if would else "Reloaded: nothing differs"
    else:
        head = "A reload would change:" if would else "Reloaded:"
    lines = (*outcome["keys"], *outcome["shares"], *outcome["warnings"])
    return "\n".join([head, *(f"  {text}" for text in lines)])


def released(found: Document) -> str:
    """The answer of release."""
    if found["released"]:
        return (
            "The driver is let go of for 15 minutes: held shares stay, free ones are withheld.\n"
            "Unload it or reset the GPU now, then run `sgpud acquire`."
        )
    return (
        "The process that read the GPUs hangs in the driver and cannot be ended: unloading or a "
        "reset will not work, only a reboot helps."
    )


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned lines."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(_padded(row, widths)).rstrip() for row in rows]


def _padded(row: Sequence[str], widths: Iterable[int]) -> list[str]:
    return [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]


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
    state = pool["registration"] + (f" ({pool['problem']})" if pool["problem"] else "")
    leaving = ", no longer configured" if pool["dropped"] else ""
    lines = [f"{pool['resource']}: {state}{leaving}"]
    rows = [("  GPU", "PRODUCT", "SHARES", "HELD", "FREE", "DRAINING", "STATE")]
    for gpu in pool["gpus"]:
        reason = f": {gpu['reason']}" if gpu["reason"] else ""
        numbers = (gpu["shares"], gpu["held"], gpu["free"], gpu["draining"])
        rows.append(
            (f"  {gpu['uuid']}", gpu["product"], *map(str, numbers), gpu["availability"] + reason)
        )
    return lines + (table(rows) if pool["gpus"] else ["  no shares"]) + _holders(pool)


def _holders(pool: Document) -> list[str]:
    """Who holds shares of a pool, as a table; nothing where nobody does."""
    rows = [("  HELD BY", "CONTAINER", "GPU", "SHARES", "MEMORY", "SINCE")]
    for gpu in pool["gpus"]:
        for holder in gpu.get("holders", ()):
            pod = f"{holder['namespace']}/{holder['pod']}" if holder["pod"] else holder["uid"]
            since = datetime.fromtimestamp(holder["since"], timezone.utc)
            rows.append(
                (
                    f"  {pod or 'a pod that is being started'}",
                    holder["container"] or "-",
                    gpu["uuid"],
                    str(holder["shares"]),
                    format_size(holder["bytes"]) if holder["bytes"] else "-",
                    since.strftime("%Y-%m-%d %H:%M:%SZ") if holder["since"] else "-",
                )
            )
    return ["", *table(rows)] if len(rows) > 1 else []
