"""sgpud.toml and the command line to a Config, or to every problem at once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from attrs import evolve

from sgpud.config.build import build
from sgpud.config.consistency import advice, contradictions
from sgpud.config.problems import ConfigError, Problem
from sgpud.config.schema.check import Violation, faults, key_name
from sgpud.config.source import MAX_BYTES, ConfigSource, read_override, read_text
from sgpud.config.values import Config
from sgpud.files import read_regular

_MOST = 100
"""Errors that are reported of one source; nobody reads more at once."""
_REASONS = {
    errno.ENOENT: "does not exist",
    errno.EACCES: "cannot be read: permission denied",
    errno.ELOOP: "cannot be read: too many levels of symbolic links",
    errno.EISDIR: "is a directory, not a file",
    errno.EINVAL: "is not a regular file",
    errno.EFBIG: f"is larger than {MAX_BYTES} bytes",
}


def load(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file, and set over it what the command line says.

    Errors: ConfigError with every problem of the file and the overrides; never another exception.
    """
    file = os.fspath(path)
    return _configure(lambda: read_text(read_file(file), file), overrides)


def parse(text: str | bytes, file: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration that a text stands for, with `section.key=VALUE` overrides set over it.

    `file` is the name that problems carry. Errors: ConfigError with every problem of the text and
    the overrides; never another exception.
    """
    return _configure(lambda: read_text(text, file), overrides)


def _configure(read: Callable[[], ConfigSource], overrides: Sequence[str]) -> Config:
    """Read all sources, check each by itself, and build one configuration of them."""
    readers = [read]
    readers.extend(partial(read_override, each) for each in overrides)
    sources: list[ConfigSource] = []
    problems: list[Problem] = []
    for reader in readers:
        got, wrong = _attempt(reader)
        sources.extend(got)
        problems.extend(wrong)
    if not all(problem.warning for problem in problems):
        raise ConfigError(problems)
    config = build(_merged(sources))
    wrong = [_placed(sources, fault) for fault in contradictions(config)]
    if wrong:
        raise ConfigError([*problems, *wrong])
    problems.extend(_placed(sources, fault) for fault in advice(config))
    return evolve(config, warnings=tuple(problems))


def _attempt(read: Callable[[], ConfigSource]) -> tuple[list[ConfigSource], list[Problem]]:
    """One source, if it can be parsed, and all that is wrong with it."""
    try:
        source = read()
    except ConfigError as error:
        return [], list(error.problems)
    return [source], _problems(source, faults(source.document))


def _problems(source: ConfigSource, found: Iterator[Violation]) -> list[Problem]:
    """The faults of one source as problems, in the order of its lines."""
    problems: list[Problem] = []
    left = _MOST
    for fault in found:
        problems.append(_problem(source, fault))
        left -= not fault.warning
        if not left:
            break
    problems.sort(key=lambda problem: problem.line)
    if next(found, None):
        problems.append(Problem(source.file, 0, "", f"has more than {_MOST} problems"))
    return problems


def _problem(source: ConfigSource, fault: Violation) -> Problem:
    """A fault with the place where its source has it."""
    line = source.line(fault.path)
    return Problem(source.file, line, key_name(fault.path), fault.text, fault.warning)


def _placed(sources: Sequence[ConfigSource], fault: Violation) -> Problem:
    """A fault of the whole configuration, at the last source that sets its key."""
    owner = next((each for each in reversed(sources) if each.has(fault.path)), sources[0])
    return _problem(owner, fault)


def _merged(sources: Iterable[ConfigSource]) -> dict[str, Any]:
    """One document of several checked ones; what comes later wins, key by key."""
    merged: dict[str, Any] = {}
    for source in sources:
        for name, section in source.document.items():
            if isinstance(section, dict):
                merged[name] = {**merged.get(name, {}), **section}
            else:
                merged[name] = section
    return merged


def read_file(file: str) -> bytes:
    """The content of a configuration file; ConfigError if it cannot be read or is too large."""
    if file == os.devnull:
        return b""  # the usual way to say: the defaults
    try:
        return read_regular(file, MAX_BYTES)
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise _unreadable(file, _REASONS.get(error.errno or 0, reason)) from error
    except ValueError as error:
        raise _unreadable(file, "has a NUL in its name") from error


def _unreadable(file: str, text: str) -> ConfigError:
    """The error for a file whose text is not to be had."""
    return ConfigError([Problem(file, 0, "", text)])
