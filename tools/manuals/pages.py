"""The manual pages sgpud(8) and sgpud.toml(5)."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

from sgpud import __version__
from sgpud.config.schema.kinds import Key, ListOf, Table, toml
from sgpud.config.schema.sections import ROOT, header
from tools.manuals.commands import Argument, Command, read
from tools.manuals.roff import bold, italic, plain, prose, tagged, verbatim

TEMPLATES = Path(__file__).parents[2] / "docs" / "man"


def sgpud_8(parser: ArgumentParser) -> str:
    """sgpud(8): the words of docs/man/sgpud.8.in with the commands as they are now."""
    examples, statuses = (parser.epilog or "").strip().split("\n\n", 1)
    return _filled(
        "sgpud.8.in",
        commands="\n".join(_command(command) for command in read(parser)[1:]),
        examples=verbatim(examples),
        statuses="\n".join(_statuses(statuses)),
    )


def sgpud_toml_5() -> str:
    """sgpud.toml(5): the words of docs/man/sgpud.toml.5.in with every key of the schema."""
    return _filled("sgpud.toml.5.in", keys="\n".join(_section(key) for key in ROOT.keys))


def _filled(template: str, **parts: str) -> str:
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    for name, part in {"version": plain(__version__), **parts}.items():
        text = text.replace(f"@{name}@", part)
    return text


def _command(command: Command) -> str:
    """One command: its usage, what it does, its arguments."""
    words = " ".join(italic(word.value) for word in command.words)
    usage = f'.SS "{command.name}"\n.PP\n{bold(f"sgpud {command.name}")} [options] {words}'.rstrip()
    own = [each for each in command.arguments if each.flags != ("-h", "--help")]
    return "\n".join((usage, prose(command.text), *map(_argument, own)))


def _argument(argument: Argument) -> str:
    value = italic(argument.value)
    flags = ", ".join(map(bold, argument.flags))
    tag = f"{flags} {value}" if flags and argument.value else flags or value
    return tagged(tag, plain(argument.text))


def _statuses(text: str) -> Iterator[str]:
    """`Exit status: 0 done; 1 …` as a list."""
    joined = " ".join(text.split()).removeprefix("Exit status: ").removesuffix(".")
    for each in joined.split("; "):
        number, _, meaning = each.partition(" ")
        yield tagged(bold(number), plain(meaning))


def _section(section: Key) -> str:
    title = f'.SH "{header(section)}"'
    return "\n".join((title, prose(section.doc), *(_key(key) for key in _keys(section))))


def _key(key: Key) -> str:
    default = "It must be given." if key.required else ""
    if not key.required and key.default is not None:
        default = f"Default: `{toml(key.default)}`."
    facts = [f"Write {key.kind.words}.", f"Unit: {key.unit}." if key.unit else "", default]
    if key.restart:
        facts.append("A new value counts after a restart of sgpud.")
    inner = [f"- `{each.name}`: {each.doc}" for each in _keys(key)]
    text = "\n".join((key.doc, " ".join(filter(None, facts)), *inner))
    return f'.SS "{key.name}"\n{prose(text)}'


def _keys(key: Key) -> tuple[Key, ...]:
    kind = key.kind.element if isinstance(key.kind, ListOf) else key.kind
    return kind.keys if isinstance(kind, Table) else ()
