"""An explanation as text for a person. Pure: a document in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from textwrap import wrap
from typing import Any

from sgpud.cli.screens.output import table
from sgpud.core.text import several

Document = Mapping[str, Any]
WIDTH = 100
"""Columns at which sentences are broken."""
_TAKEN = {"preference": "PREFERRED", "allocation": "GRANTED", "refusal": "REQUESTED"}
_SAID = {
    "preference": "preferred {shares} of {resource}",
    "allocation": "granted {shares} of {resource}",
    "refusal": "refused {shares} of {resource}: rule `{rule}`",
}


def explained(found: Document) -> str:
    """The answer of explain: sentences, then the decisions that they rest on."""
    lines = [line for sentence in found["answer"] for line in _broken(sentence)]
    decisions = found["decisions"]
    if found["left_out"]:
        lines += ["", f"{found['left_out']} earlier decisions are not shown."]
    for one in decisions:
        lines += ["", *_decision(one)]
    return "\n".join([*lines, "", _memory(found)])


def _decision(one: Document) -> list[str]:
    count = one["asked"]
    shares = several(count, "share")
    said = _SAID[one["kind"]].format(shares=shares, resource=one["resource"], rule=one["rule"])
    why = _broken(one["why"], "  ")
    said += f" to {one['holder']}" if one["holder"] else ""
    return [f"{_time(one['at'])} {said}", *why, *_gpus(one)]


def _broken(sentence: str, indent: str = "") -> list[str]:
    """A sentence in lines; ids and UUIDs stay whole."""
    return wrap(
        sentence,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _gpus(one: Document) -> list[str]:
    gpus = one["gpus"]
    if not gpus:
        return []
    offers = any(gpu["offered"] is not None for gpu in gpus)
    measured = any(gpu["free_memory"] is not None for gpu in gpus)
    head = ["  GPU", "HELD OF", "ELSEWHERE"]
    head += ["MEASURED FREE"] * measured + ["OFFERED"] * offers + [_TAKEN[one["kind"]], "STATE"]
    return table([head, *(_gpu(gpu, offers=offers, measured=measured) for gpu in gpus)])


def _gpu(gpu: Document, *, offers: bool, measured: bool) -> Sequence[str]:
    reason = f": {gpu['reason']}" if gpu["reason"] else ""
    cells = [f"  {gpu['gpu']}", f"{gpu['held']} of {gpu['shares']}", _part(gpu["elsewhere"])]
    if measured:
        cells.append("-" if gpu["free_memory"] is None else f"{gpu['free_memory']} %")
    if offers:
        cells.append(str(gpu["offered"] or 0))
    return [*cells, str(gpu["taken"] or "-"), gpu["availability"] + reason]


def _part(fraction: float) -> str:
    return f"{fraction:.0%}" if fraction else "-"


def _memory(found: Document) -> str:
    """How far back the recorded decisions go."""
    if not found["kept"]:
        return "No decisions since sgpud started."
    since = _time(found["since"])
    kept = several(found["kept"], "decision")
    return f"{kept} recorded since {since} (at most {found['most']} are kept)."


def _time(at: float) -> str:
    moment = datetime.fromtimestamp(at, timezone.utc)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}Z"
