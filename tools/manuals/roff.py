"""Text as roff writes it (man(7)): nothing in a text is taken for a request."""

from __future__ import annotations

import re


def plain(text: str) -> str:
    """Text that comes out as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    escaped = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in escaped)
    return re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)


def bold(text: str) -> str:
    """A text in bold."""
    return f"\\fB{plain(text)}\\fR"


def italic(text: str) -> str:
    """A text that stands for something."""
    return f"\\fI{plain(text)}\\fR"


def prose(text: str) -> str:
    """Paragraphs, a line for each, with `- ` before the items of a list; `code` is bold."""
    blocks = []
    for line in text.split("\n"):
        item = line.startswith("- ")
        words = "".join(
            bold(part) if number % 2 else plain(part)
            for number, part in enumerate(line.removeprefix("- ").split("`"))
        )
        blocks.append(f".IP \\(bu 2\n{words}" if item else f".PP\n{words}")
    return "\n".join(blocks)


def verbatim(text: str) -> str:
    """Lines that stay lines."""
    return f".PP\n.nf\n{plain(text)}\n.fi"


def tagged(tag: str, text: str) -> str:
    """A paragraph that hangs below its tag, both in roff already."""
    return f".TP\n{tag}\n{text}"
