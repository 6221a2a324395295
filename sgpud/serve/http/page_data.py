"""What the pages are made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from sgpud.core.allocation.decisions import Decision
from sgpud.core.status.history import HistoryView
from sgpud.core.status.view import NodeView


@frozen
class PageData:
    """Each is called for one answer, and must not block."""

    look: Callable[[], NodeView]
    decisions: Callable[[], Sequence[Decision]]
    """The oldest first."""
    history: Callable[[], HistoryView]
