"""The commands as the argument parser has them: values to write manuals and completions from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from attrs import frozen


@frozen
class Argument:
    """An option, or a word that stands without one."""

    flags: tuple[str, ...]
    """Empty for a word without an option."""
    value: str
    """What stands for its value, such as FILE; empty for a switch."""
    choices: tuple[str, ...]
    text: str

    @property
    def path(self) -> str:
        """`file` or `folder` where the value is one, otherwise empty."""
        return {"FILE": "file", "DIR": "folder"}.get(self.value, "")

    @property
    def names(self) -> tuple[str, ...]:
        """What `sgpud status --names` lists for it; empty: nothing."""
        return {"GPU": ("gpus",), "POD|SHARE|GPU": ("pods", "gpus")}.get(self.value, ())


@frozen
class Command:
    """One command, or the program itself (named "")."""

    name: str
    text: str
    arguments: tuple[Argument, ...]

    @property
    def options(self) -> tuple[Argument, ...]:
        """The arguments that begin with a dash."""
        return tuple(argument for argument in self.arguments if argument.flags)

    @property
    def words(self) -> tuple[Argument, ...]:
        """The others, in their order."""
        return tuple(argument for argument in self.arguments if not argument.flags)


def read(parser: argparse.ArgumentParser) -> tuple[Command, ...]:
    """The program itself, then every command, in the parser's order."""
    found = [Command("", parser.description or "", tuple(_arguments(parser)))]
    for group in _subparsers(parser):
        for name, inner in group.choices.items():
            found.append(Command(name, inner.description or "", tuple(_arguments(inner))))
    return tuple(found)


def _subparsers(
    parser: argparse.ArgumentParser,
) -> Iterator[argparse._SubParsersAction[argparse.ArgumentParser]]:
    for action in parser._actions:  # noqa: SLF001 - argparse tells it in no other way
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            yield action


def _arguments(parser: argparse.ArgumentParser) -> Iterator[Argument]:
    for action in parser._actions:  # noqa: SLF001 - as above
        if isinstance(action, argparse._SubParsersAction) or action.help == argparse.SUPPRESS:  # noqa: SLF001
            continue
        yield Argument(
            tuple(action.option_strings),
            _value(action),
            tuple(map(str, action.choices or ())),
            _filled(parser, action),
        )


def _value(action: argparse.Action) -> str:
    """How its value is written in a usage line."""
    if action.nargs == 0:
        return ""
    if action.metavar is not None:
        return action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar)
    return "|".join(map(str, action.choices)) if action.choices else action.dest.upper()


def _filled(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Its help with %(default)s and the like filled in."""
    values = {**vars(action), "prog": parser.prog}
    return (action.help or "") % values
