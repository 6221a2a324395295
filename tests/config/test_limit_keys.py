"""The keys of [limits]: what each means, and what is wrong with it."""

from __future__ import annotations

import pytest

from sgpud.config.load import parse
from sgpud.config.problems import ConfigError
from sgpud.core.limits.settings import LimitSettings, MemoryLimits, OveruseAction
from sgpud.core.units import Amount


def problem(text: str) -> str:
    """What is wrong with a file, the first of it."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    return str(caught.value.problems[0])


def test_every_key_arrives_where_it_belongs() -> None:
    text = """
        [limits]
        memory = "off"
        limit_factor = 1.5
        memory_context = "600MiB"
        overuse = "evict"
        dry_run = false
        tolerance = "1GiB"
        over_for = "2m"
        pressure = "always"
        spare = ["team/*", "a/b"]
        cool_down = "5m"
    """
    assert parse(text, "f").limits == LimitSettings(
        MemoryLimits.OFF,
        1.5,
        600 * 2**20,
        OveruseAction.EVICT,
        dry_run=False,
        tolerance=2**30,
        over_for=120.0,
        pressure=None,
        spare=("team/*", "a/b"),
        cool_down=300.0,
    )
    assert parse("[limits]\npressure = '4GiB'", "f").limits.pressure == Amount(4 * 2**30)
    assert parse("", "f").limits == LimitSettings()
    assert parse("[limits]\nlimit_factor = 2", "f").limits.factor == 2.0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('memory = "required"', '"auto", "require" or "off"'),
        ('memory_context = "600"', "the unit is missing"),
        ("memory_context = 600", "size"),
        ("memory = true", '"auto", "require" or "off"'),
        ("limit_factor = 0.5", "number from 1 to 4"),
        ("limit_factor = 4.1", "number from 1 to 4"),
        ("limit_factor = nan", "number from 1 to 4"),
        ("limit_factor = inf", "number from 1 to 4"),
        ("limit_factor = true", "number from 1 to 4"),
        ('limit_factor = "2"', "number from 1 to 4"),
        ("factor = 2", "limit_factor"),
        ('overuse = "kill"', '"report", "evict" or "off"'),
        ('dry_run = "no"', "true or false"),
        ('cool_down = "1s"', 'use "5s" to "1h"'),
        ('cool_down = "60"', "the unit is missing"),
        ('tolerance = "512MB"', 'write the unit as "MiB"'),
        ('over_for = "30"', "the unit is missing"),
        ('pressure = "often"', 'or "always"'),
        ('pressure = "101%"', "more than 100 %"),
        ('spare = ["kube-system"]', "NAMESPACE/POD"),
        ('spare = ["a/b/c"]', "NAMESPACE/POD"),
        ('spare = "a/b"', "list of strings"),
    ],
)
def test_problems_are_reported_with_their_line(line: str, says: str) -> None:
    found = problem(f"[limits]\n{line}")
    assert found.startswith("f:2: limits")
    assert says in found


def test_evictions_without_an_api_server_are_a_warning() -> None:
    never = "[kubelet]\napi_server = 'never'\n[limits]\n"
    (warning,) = parse(f"{never}overuse = 'evict'", "f").warnings
    assert str(warning).startswith("f:4: warning: limits.overuse: ")
    assert "evicts nobody" in str(warning)
    assert not parse(f"{never}overuse = 'report'", "f").warnings
    assert not parse("[limits]\noveruse = 'evict'", "f").warnings


def test_a_share_smaller_than_a_cuda_context_is_a_warning() -> None:
    small = "[sharing]\nshare_memory = '256MiB'\n"
    (warning,) = parse(small, "f").warnings
    assert str(warning).startswith("f:2: warning: sharing.share_memory: is 256MiB: ")
    assert not parse(f"{small}[limits]\nmemory = 'off'", "f").warnings
    assert not parse(f"{small}[limits]\nlimit_factor = 2", "f").warnings
    assert not parse("[sharing]\nshare_memory = '1GiB'", "f").warnings
    rule = "[[gpu]]\nmatch = '0'\nresource = 'a.b/c'\nshare_memory = '64MiB'"
    assert str(parse(rule, "f").warnings[0]).startswith("f:4: warning: gpu.")
