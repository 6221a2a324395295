"""`sgpud top`: the status again and again on a terminal, until q."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from attrs import evolve

from sgpud.cli.screens.status import Document, Order, StatusStyle, status
from sgpud.cli.tables import CellStyle, painted, truncate, wrapped
from sgpud.core.errors import SgpudError

QUIT = frozenset({b"q", b"Q", b"\x03", b"\x04"})
"""q, Ctrl-C and Ctrl-D."""
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _TO_END_OF_LINE, _TO_END = "\x1b[H", "\x1b[K", "\x1b[J"
_FOOT = "q quit  m memory  b busy  p pod  / filter  space fold  up/down scroll"
_ORDERS = {b"m": Order.MEMORY, b"b": Order.BUSY, b"p": Order.POD}
_MOVES = {b"\x1b[A": -1, b"k": -1, b"\x1b[B": 1, b"j": 1, b"\x1b[5~": -10, b"\x1b[6~": 10}
"""Lines that a key scrolls: the arrows, j and k, page up and down."""
_ENTER_KEY, _ESCAPE, _ERASE = b"\r", b"\x1b", b"\x7f"
_KEYS = re.compile(rb"\x1b\[[0-9;]*[A-Za-z~]|.", re.DOTALL)


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
        self._style = StatusStyle(colour=colour, order=Order.MEMORY, bars=True)
        self._first = 0
        self._typing = False
        """Whether keys go to the filter."""

    def run(self, every: float) -> None:
        """Show until a key ends it, or the terminal is gone."""
        with self._terminal():
            while True:
                self._show()
                ready, _, _ = select.select([self._keys], [], [], every)
                if ready:
                    pressed = os.read(self._keys, 64)
                    if not pressed or not all(map(self._press, _KEYS.findall(pressed))):
                        return

    def _press(self, key: bytes) -> bool:
        """Do what a key asks; False: quit."""
        style = self._style
        if self._typing and key not in {b"\x03", b"\x04"}:
            self._type(key)
        elif key in QUIT:
            return False
        elif key == b"/":
            self._typing = True
        elif key == b" ":
            self._style = evolve(style, folded=not style.folded)
        elif key in _ORDERS:
            self._style = evolve(style, order=_ORDERS[key])
        else:
            self._first = max(0, self._first + _MOVES.get(key, 0))
        return True

    def _type(self, key: bytes) -> None:
        """Change the filter."""
        only = self._style.only
        if key in {_ENTER_KEY, _ESCAPE}:
            self._typing = False
            only = only if key == _ENTER_KEY else ""
        elif key == _ERASE:
            only = only[:-1]
        elif key.isascii() and key.decode("ascii").isprintable():
            only += key.decode("ascii")
        self._style = evolve(self._style, only=only)
        self._first = 0

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
        try:
            shown = status(self._read(), evolve(self._style, columns=columns))
        except SgpudError as problem:
            text = wrapped(str(problem), columns)
            shown = [painted(line, CellStyle.BAD, colour=self._colour) for line in text]
        self._out.write(_HOME)
        self._first = min(self._first, max(0, len(shown) - (lines - 1)))
        for line in fitted(shown[self._first :], lines):
            # The terminal is raw: a line end moves down and no further.
            self._out.write(f"{line}{_TO_END_OF_LINE}\r\n")
        only = self._style.only
        foot = f"filter: {only}  (Enter keeps it, Esc clears it)" if self._typing or only else _FOOT
        self._out.write(f"{truncate(foot, columns)}{_TO_END_OF_LINE}{_TO_END}")
        self._out.flush()


def _terminate(number: int, _: object) -> None:
    """End with the status that a shell gives a process that this signal ended."""
    sys.exit(128 + number)


def fitted(shown: Sequence[str], lines: int) -> list[str]:
    """As many of the lines as a terminal of so many has room for above the last one."""
    room = max(1, lines - 1)
    if len(shown) <= room:
        return list(shown)
    return [*shown[: room - 1], f"... and {len(shown) - room + 1} more lines"]
