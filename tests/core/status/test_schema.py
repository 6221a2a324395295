"""docs/status.schema.json is the shape of the document."""

from __future__ import annotations

from sgpud.core.status.view import document
from tests.node_view import VIEW
from tests.schema import problems
from tools.status_schema import FILE, schema, text


def test_the_schema_in_docs_is_current() -> None:
    assert FILE.read_text(encoding="utf-8") == text(), "run: python -m tools.status_schema"


def test_a_document_fits_it() -> None:
    assert problems(document(VIEW), schema()) == []


def test_what_does_not_fit_is_found() -> None:
    of = document(VIEW)
    assert problems({**of, "at": "now"}, schema()) == ["at: number expected, not 'now'"]
    assert problems({**of, "more": 1}, schema()) == ["more: not in the schema"]
    assert problems({**of, "format": 2}, schema()) == ["format: 1 expected, not 2"]
    counters = {**of["counters"], "xids": [("GPU-1", 79)]}  # type: ignore[dict-item]
    assert problems({**of, "counters": counters}, schema()) == ["counters.xids.0: 3 items expected"]
    del of["gpus"]
    assert problems(of, schema()) == ["gpus: missing"]
