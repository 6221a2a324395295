"""What a reload changes, key by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from sgpud.config.build import complete
from sgpud.config.schema.kinds import Table, toml
from sgpud.config.schema.sections import ROOT
from sgpud.config.values import Config

NOTHING = "none"
"""Stands for a rule that is not there."""


@frozen
class KeyChange:
    """One key whose value differs, both values as TOML writes them."""

    key: str
    old: str
    new: str
    restart: bool = False
    """True if a running daemon keeps the old value until it starts again."""

    def __str__(self) -> str:
        """`key: old -> new`, with a remark where a restart is needed."""
        remark = " (after a restart)" if self.restart else ""
        return f"{self.key}: {self.old} -> {self.new}{remark}"


def diff(old: Config, new: Config) -> tuple[KeyChange, ...]:
    """Every key that differs between two configurations, in the order of the schema."""
    if old == new:
        return ()
    before, after = (config.document or complete({}) for config in (old, new))
    return tuple(_keys(before, after))


def _keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[KeyChange]:
    """The changes in every section."""
    for section in ROOT.keys:
        if not isinstance(section.kind, Table):
            yield from _rules(section.name, before[section.name], after[section.name])
            continue
        for key in section.kind.keys:
            was, now = before[section.name][key.name], after[section.name][key.name]
            if was != now:
                name = f"{section.name}.{key.name}"
                yield KeyChange(name, toml(was), toml(now), key.restart)


def _rules(
    section: str, before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> Iterator[KeyChange]:
    """The rules that came, went or say something else, and a new order of those that stayed."""
    was, now = _by_match(before), _by_match(after)
    for match in dict.fromkeys((*was, *now)):
        if was.get(match) != now.get(match):
            yield KeyChange(f"{section} {toml(match)}", _text(was, match), _text(now, match))
    stayed = [match for match in was if match in now]
    order = [match for match in now if match in was]
    if stayed != order:
        yield KeyChange(f"{section} order", toml(stayed), toml(order))


def _text(rules: dict[str, dict[str, Any]], match: str) -> str:
    """What a rule says, as TOML writes it."""
    return toml(rules[match]) if match in rules else NOTHING


def _by_match(rules: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What each rule says beside its match; of two with the same match the first one counts."""
    found: dict[str, dict[str, Any]] = {}
    for rule in rules:
        found.setdefault(rule["match"], {k: v for k, v in rule.items() if k != "match"})
    return found
