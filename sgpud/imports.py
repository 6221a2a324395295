"""What a start does not import: what nothing uses, and what can wait for the first list."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgpud.bridge import Timer

LEFT_OUT = ("grpc.aio", "http.cookiejar")
"""gRPC and Twisted import them only to pass them on, with urllib, email and http.client."""
IMPORTED_WITHIN = 1.0
"""Seconds until everything is imported, whether there was a list or not. An upgrade replaces the
files under a running process: what is imported later could be the next version's."""


class _LeftOut(ModuleType):
    """Stands for a module until something in it is asked for, and imports it then."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


@contextmanager
def without_unused() -> Iterator[None]:
    """Import in this context without them, and as if there were no ssl: asyncio tries it."""
    for name in LEFT_OUT:
        sys.modules.setdefault(name, _LeftOut(name))
    without_ssl = "ssl" not in sys.modules
    if without_ssl:
        sys.modules["ssl"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if without_ssl:
            del sys.modules["ssl"]


class LateImports:
    """Imports modules once the first list is out, one in each turn of the reactor.

    What needs one earlier imports it itself, in a function.
    """

    def __init__(
        self, timer: Timer, names: Sequence[str], more: Callable[[], Sequence[str]] = tuple
    ) -> None:
        """`names`: what is imported, in this order; then what `more` says when it is asked."""
        self._names = list(names)
        self._more = more
        self._timer = timer

    def start(self) -> None:
        """Import everything within IMPORTED_WITHIN seconds."""
        self._timer.set(IMPORTED_WITHIN, self._next)

    def soon(self) -> None:
        """A list is out: begin."""
        if self._names:
            self._timer.at_most(0, self._next)

    def stop(self) -> None:
        """Import nothing more."""
        self._names.clear()
        self._timer.cancel()

    def _next(self) -> None:
        name = self._names.pop(0)
        if self._names:
            self._timer.set(0, self._next)
        import_module(name)
        if not self._names:
            self._names += self._more()
            self._more = tuple
            if self._names:
                self._timer.set(0, self._next)
