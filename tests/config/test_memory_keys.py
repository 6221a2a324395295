"""The keys of memory shares and of the guard: what is wrong with each, and with two together."""

import pytest

from sgpud.config.load import parse
from sgpud.config.problems import ConfigError, Problem
from sgpud.core.sharing.rules import Advertise, FullGuardSettings, ShareTerms
from sgpud.core.units import Amount

GIB = 2**30


def problems(text: str) -> list[Problem]:
    """What is wrong with a file."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    return [problem for problem in caught.value.problems if not problem.warning]


def test_every_key_arrives_where_it_belongs() -> None:
    text = """
        [sharing]
        share_memory = "1GiB"
        reserve_memory = "512MiB"
        advertise = "all"
        allow_large_status = true
        full_guard = true
        memory_headroom = "10%"
        memory_resume = "8GiB"
        resume_after = "1m"
        measure_every = "10s"
        settle = "5m"
        expected_memory = "6GiB"
        [[gpu]]
        match = "0"
        resource = "a.com/two"
        share_memory = "2GiB"
        [[gpu]]
        match = "1"
        resource = "a.com/places"
        duplication_factor = 7
        [[gpu]]
        match = "2"
        resource = "a.com/more"
        share_memory = "0"
    """
    sharing = parse(text, "f").sharing
    assert sharing.default.share_memory == GIB
    assert sharing.reserve_memory == 512 * 2**20
    assert (sharing.advertise, sharing.allow_large_status) == (Advertise.ALL, True)
    assert (sharing.full_guard, sharing.measure_every) == (True, 10.0)
    assert sharing.guard_settings == FullGuardSettings(
        Amount(percent=10), Amount(8 * GIB), 60.0, 300.0, 6 * GIB
    )
    assert [rule.terms(sharing.default) for rule in sharing.rules] == [
        ShareTerms("a.com/two", 100, 2 * GIB),
        ShareTerms("a.com/places", 7, 0),
        ShareTerms("a.com/more", 100, 0),
    ]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('share_memory = "1GB"', 'write the unit as "GiB"'),
        ('share_memory = "1"', "the unit is missing"),
        ('share_memory = "63MiB"', 'use at least "64MiB"'),
        ("share_memory = 1", "the number 1"),
        ('share_memory = "-1GiB"', "not a size"),
        ('reserve_memory = "1 gib"', 'write the unit as "GiB"'),
        ('memory_headroom = "101%"', "more than 100 %"),
        ('memory_headroom = ""', "not an amount of memory"),
        ('memory_headroom = "50%"', "twice as much can never be free"),
        ('memory_resume = "5%"', "is 5%, but memory_headroom is 5%: it must be more"),
        ('memory_resume = "4%"', "is 4%, but memory_headroom is 5%: it must be more"),
        ('resume_after = "30"', 'write "30s"'),
        ('resume_after = "2h"', '"0s" to "1h"'),
        ('measure_every = "0.5s"', '"1s" to "1m"'),
        ('settle = "soon"', "not a duration"),
        ('expected_memory = "5%"', "not a size"),
        ('advertise = "some"', '"largest" or "all"'),
    ],
)
def test_each_problem_has_its_line_and_a_remedy(line: str, what: str) -> None:
    (problem,) = problems(f"[sharing]\n{line}\n")
    assert (problem.line, problem.key) == (2, f"sharing.{line.partition(' ')[0]}")
    assert what in problem.text


def test_a_resume_that_cannot_be_compared_without_a_gpu_is_taken() -> None:
    parse('[sharing]\nmemory_headroom = "2GiB"\nmemory_resume = "6%"\n', "f")
    parse('[sharing]\nmemory_headroom = "50%"\nmemory_resume = "60%"\n', "f")


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ("duplication_factor = 7", "places (duplication_factor), but elsewhere for memory"),
        ('share_memory = "2GiB"', "memory shares of 2GiB, but elsewhere for memory shares of"),
        ('share_memory = "0"', "places (duplication_factor)"),
    ],
)
def test_a_resource_counts_one_thing(rule: str, what: str) -> None:
    text = f'[sharing]\nshare_memory = "1GiB"\n[[gpu]]\nmatch = "0"\n{rule}\n'
    (problem,) = problems(text)
    assert problem.key == "gpu.resource"
    assert what in problem.text
    own = parse(f'{text}resource = "own.com/one"\n', "f")
    assert not own.warnings


def test_overrides_are_compared_as_well() -> None:
    with pytest.raises(ConfigError) as caught:
        parse('[sharing]\nmemory_resume = "10%"\n', "f", ["sharing.memory_headroom=20%"])
    (problem,) = caught.value.problems
    assert "memory_headroom is 20%" in problem.text


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[sharing]\nreserve_memory = "1GiB"\n', "sharing.reserve_memory"),
        ('[sharing]\nshare_memory = "1GiB"\nfull_guard = true\n', "sharing.full_guard"),
        (
            (
                '[[gpu]]\nmatch = "0"\nresource = "a.com/b"\nshare_memory = "1GiB"\n'
                "duplication_factor = 5\n"
            ),
            "gpu.duplication_factor",
        ),
    ],
)
def test_keys_that_do_nothing_are_warned_of(text: str, key: str) -> None:
    (warning,) = parse(text, "f").warnings
    assert (warning.key, warning.warning) == (key, True)
    assert "not used" in warning.text
