"""`sgpud top`: the status again and again on a terminal, until q."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from sgpud.cli.screens.status import Document, StatusStyle, status
from sgpud.cli.tables import CellStyle, cut, painted
from sgpud.core.errors import SgpudError

QUIT = frozenset(b"qQ\x03\x04")
"""q, Ctrl-C and Ctrl-D."""
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _TO_END_OF_LINE, _TO_END = "\x1b[H", "\x1b[K", "\x1b[J"
_FOOT = "q quits"


class Top:
    """Shows what `read` gives, every so many seconds, on a terminal."""

    def __init__(
        self,
        read: Callable[[], Document],
        out: TextIO,
        keys: int,
        size: Callable[[], os.terminal_size],
        *,
        colour: bool,
    ) -> None:
        """`keys`: the descriptor of the terminal's keyboard. `size`: its columns and lines now."""
        self._read = read
        self._out = out
        self._keys = keys
        self._size = size
        self._colour = colour

    def run(self, every: float) -> None:
        """Show until a key ends it, or the terminal is gone."""
        with self._terminal():
            while True:
                self._show()
                ready, _, _ = select.select([self._keys], [], [], every)
                if ready:
                    pressed = os.read(self._keys, 64)
                    if not pressed or QUIT & set(pressed):
                        return

    @contextmanager
    def _terminal(self) -> Iterator[None]:
        """The terminal, without echo and on its other screen; as it was, whatever happens."""
        before = termios.tcgetattr(self._keys)
        # So that it unwinds, and the terminal is left as it was.
        handler = signal.signal(signal.SIGTERM, _terminate)
        self._out.write(_ENTER)
        try:
            # Keys come one by one, Ctrl-C too: it ends this as q does.
            tty.setraw(self._keys, termios.TCSANOW)
            yield
        finally:
            termios.tcsetattr(self._keys, termios.TCSANOW, before)
            self._out.write(_LEAVE)
            self._out.flush()
            signal.signal(signal.SIGTERM, handler)

    def _show(self) -> None:
        columns, lines = self._size()
        style = StatusStyle(columns, self._colour, by_memory=True)
        try:
            shown = status(self._read(), style)
        except SgpudError as problem:
            text = cut(str(problem), columns)
            shown = [painted(text, CellStyle.BAD, colour=self._colour)]
        self._out.write(_HOME)
        for line in fitted(shown, lines):
            # The terminal is raw: a line end moves down and no further.
            self._out.write(f"{line}{_TO_END_OF_LINE}\r\n")
        self._out.write(f"{cut(_FOOT, columns)}{_TO_END_OF_LINE}{_TO_END}")
        self._out.flush()


def _terminate(number: int, _: object) -> None:
    """End with the status that a shell gives a process that this signal ended."""
    sys.exit(128 + number)


def fitted(shown: Sequence[str], lines: int) -> list[str]:
    """As many of the lines as a terminal of so many has room for above the last one."""
    room = max(1, lines - 1)
    if len(shown) <= room:
        return list(shown)
    return [*shown[: room - 1], f"... and {len(shown) - room + 1} more lines: `sgpud status`"]
