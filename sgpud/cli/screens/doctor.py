"""The doctor's findings as text for a person. Pure: a document in, text out."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

WIDTH = 100
_SIGNS = {"good": "  ok", "note": "note", "warning": "WARN", "error": "FAIL"}
_VERDICTS = {
    "good": "All checks passed.",
    "note": "No problems found.",
    "warning": "It works, with warnings: see WARN above.",
    "error": "Something is broken: see FAIL above.",
}


def examined(found: Mapping[str, Any]) -> str:
    """The answer of doctor: a line per finding, with what it means and what to do below it."""
    lines = []
    for one in found["findings"]:
        head = f"{_SIGNS[one['severity']]}  {one['check']}: "
        lines += _broken(f"{head}{one['what']}", " " * 8, first="")
        for word, text in (("means", one["means"]), ("to do", one["todo"])):
            lines += _broken(f"{word}: {text}", " " * 10, first=" " * 6) if text else []
    return "\n".join([*lines, "", _VERDICTS[found["worst"]]])


def _broken(text: str, indent: str, first: str) -> list[str]:
    return wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
