"""What a process says, kept as it comes, for tests that wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

WITHIN = 60.0
"""Seconds that anything may take on a slow machine, where a test says nothing else."""


def tell(figure: str) -> None:
    """Show a figure that was measured, with pytest's -rP or -s."""
    print(figure)  # noqa: T201 - that is what it is for


class Record(Generic[T]):
    """A list that one thread fills and others wait for."""

    def __init__(self, what: str) -> None:
        """`what` is kept here, for messages."""
        self._what = what
        self._items: list[T] = []
        self._ended = False
        self._changed = threading.Condition()

    @property
    def items(self) -> list[T]:
        """All there is so far."""
        with self._changed:
            return list(self._items)

    @property
    def mark(self) -> int:
        """How many there are: what `wait` may skip."""
        return len(self.items)

    def add(self, item: T) -> None:
        """One more."""
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def end(self) -> None:
        """There will be no more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait(
        self, wanted: Callable[[T], object], since: int = 0, timeout: float | None = None
    ) -> T:
        """The first item after the mark `since` that is wanted; AssertionError if none comes."""

        def found() -> list[T]:
            return [item for item in self._items[since:] if wanted(item)]

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, timeout or WITHIN)
            if not found():
                shown = "\n".join(map(str, self._items[-30:]))
                raise AssertionError(f"no such {self._what}; the last ones are:\n{shown}")
            return found()[0]
