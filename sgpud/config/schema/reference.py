"""etc/sgpud.toml and docs/configuration.md, both made from the schema.

`python -m sgpud.config.schema.reference [FOLDER]` writes them below a checkout's folder.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from sgpud.config.schema.kinds import Choice, Key, ListOf, Table, toml
from sgpud.config.schema.sections import ROOT, header

TOML_FILE = Path("etc/sgpud.toml")
MARKDOWN_FILE = Path("docs/configuration.md")

_WIDTH = 79
_HARD_SPACE = "\N{NO-BREAK SPACE}"
_EXAMPLE = re.compile(r'`[^`]*`|"[^"]*"|\{[^}]*\}')
_INTRO = (
    "The configuration of sgpud. Every key stands here with its default, commented out: to change"
    " one, uncomment its line and write another value.\n"
    "`sgpud check-config FILE` reports every mistake in a file at once, each with its line. A"
    " running sgpud takes a changed file on `systemctl reload sgpud`, on SIGHUP, or on `sgpud"
    " reload`, which shows what changed. Pods keep the shares that they hold. A file with a"
    " mistake changes nothing: sgpud goes on with the configuration that it has, and says so in"
    " its log and its status."
)
_NOTES = """\
sgpud reads one file, `/etc/sgpud.toml`, in [TOML](https://toml.io/en/v1.0.0), of at most 256 KiB.
What a file leaves out has its default. On the command line `--set section.key=VALUE` sets one key
over the file, as often as wanted; VALUE is TOML, and the quotes of a text may be left out.

Unknown keys and impossible values are mistakes, never ignored. `sgpud check-config` reports all of
them at once as `FILE:LINE: key: what is wrong, what to write instead`, and exits with status 78;
what is allowed but unwise is a warning. The file as it is shipped holds every key with its default,
commented out: [etc/sgpud.toml](../etc/sgpud.toml)."""
_ORIGIN = "<!-- Made by `python -m sgpud.config.schema.reference` from sgpud/config/schema.py. -->"


def toml_text() -> str:
    """etc/sgpud.toml: all comments but the headers of sections; it parses to the defaults."""
    blocks = [_comment(_INTRO)]
    for section in ROOT.keys:
        blocks.extend(_toml_section(section))
    return "\n\n".join(blocks) + "\n"


def _toml_section(section: Key) -> Iterator[str]:
    """A section of etc/sgpud.toml as blocks that blank lines part."""
    doc = _comment(section.doc)
    if isinstance(section.kind, ListOf):
        example = textwrap.indent(_example(section), "#     ")
        yield f"{doc} For example:\n#\n{example}"
        return
    yield f"{doc}\n{header(section)}"
    for key in _keys(section):
        yield f"{_comment(_explained(key))}\n# {key.name} = {toml(key.default)}"


def markdown_text() -> str:
    """docs/configuration.md: the reference of every key."""
    blocks = [_ORIGIN, "# Configuration", _NOTES]
    for section in ROOT.keys:
        repeated = isinstance(section.kind, ListOf)
        blocks.extend((f"## `{header(section)}`", _prose(section.doc)))
        if repeated:
            blocks.append(f"```toml\n{_example(section)}\n```")
        for key in _keys(section):
            blocks.extend(_markdown_key(key, section.name))
    return "\n\n".join(blocks) + "\n"


def _markdown_key(key: Key, above: str) -> Iterator[str]:
    """One key of the reference as blocks; the keys of a list's tables follow as items."""
    yield f"### {above}.{key.name}"
    yield "\n".join(_facts(key))
    yield _prose(key.doc)
    inner = [f"- `{each.name}`: {each.doc} {_given(each)}" for each in _keys(key)]
    if inner:
        yield "\n".join(_paragraph(each) for each in inner)


def _facts(key: Key) -> Iterator[str]:
    """What a key takes, as items of a list."""
    yield f"- Write: {key.kind.words}"
    if key.unit:
        yield f"- Unit: {key.unit}"
    yield f"- {_given(key)}"
    if key.restart:
        yield "- A new value counts after a restart of sgpud."


def _given(key: Key) -> str:
    """What a key is when it is left out, as a sentence."""
    if key.required:
        return "It must be given."
    return "It has no default." if key.default is None else f"Default: `{toml(key.default)}`."


def _keys(key: Key) -> tuple[Key, ...]:
    """The keys inside a key: those of its table, or of its list's tables."""
    kind = key.kind.element if isinstance(key.kind, ListOf) else key.kind
    return kind.keys if isinstance(kind, Table) else ()


def _example(section: Key) -> str:
    """One table of a section that can stand many times."""
    lines = (f"{key.name} = {toml(key.example)}" for key in _keys(section))
    return "\n".join((header(section), *lines))


def _explained(key: Key) -> str:
    """The text above a key in etc/sgpud.toml."""
    takes = "" if isinstance(key.kind, Choice) else f"Write {key.kind.words}."
    restart = "A new value counts after a restart of sgpud." if key.restart else ""
    return f"{key.doc}\n{f'{takes} {restart}'.strip()}".rstrip()


def _paragraph(text: str, width: int = 100) -> str:
    """Text in lines of a readable length; items of lists hang, and no example is broken."""
    kept = _EXAMPLE.sub(lambda found: found[0].replace(" ", _HARD_SPACE), text)
    return "\n".join(
        textwrap.fill(
            line,
            width,
            subsequent_indent="  " if line.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in kept.split("\n")
    ).replace(_HARD_SPACE, " ")


def _prose(text: str) -> str:
    """Text as Markdown: blank lines round its lists."""
    return "\n\n".join(
        "\n".join(_paragraph(line) for line in lines)
        for _, lines in groupby(text.split("\n"), key=lambda line: line.startswith("- "))
    )


def _comment(text: str) -> str:
    """Text in comment lines of a readable length."""
    return textwrap.indent(_paragraph(text, _WIDTH - 2), "# ")


def main(folder: Path) -> None:
    """Write both files below a folder."""
    for name, text in ((TOML_FILE, toml_text()), (MARKDOWN_FILE, markdown_text())):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(*sys.argv[1:2]))
