"""[health]: an XID has one class, and everything else in it is a mistake with its line."""

from __future__ import annotations

import pytest

from sgpud.config.load import parse
from sgpud.config.problems import ConfigError
from sgpud.core.health.causes import HealthPolicy


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    return [str(problem) for problem in caught.value.problems]


def test_what_it_says_arrives() -> None:
    text = """
        [health]
        hold_down = "90s"
        ignore = [79]
        restart = [1, 2]
        reset = [13]
        reboot = [99999]
        trust_last_known = false
        trust_for = "10s"
    """
    assert parse(text, "f").health == HealthPolicy(
        90.0, (79,), (1, 2), (13,), (99999,), trust_last_known=False, trust_for=10.0
    )
    assert parse("", "f").health == HealthPolicy()


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("[-4]", "f:2: health.reset: -4 is out of range; expected integer from 1 to"),
        ("[0]", "f:2: health.reset: 0 is out of range"),
        ('["48"]', 'f:2: health.reset: is the string "48"; expected integer'),
        ("[true]", "f:2: health.reset: is true; expected integer"),
        ("[48.0]", "f:2: health.reset: is the float 48.0; expected integer"),
        ("48", "f:2: health.reset: is the number 48; expected list of XIDs, e.g. [48, 95]"),
        ("[48, 95, 48]", "f:2: health.reset: 48 is listed twice; remove one"),
    ],
)
def test_a_bad_list_of_xids_is_a_mistake(value: str, wrong: str) -> None:
    (found,) = mistakes(f"[health]\nreset = {value}\n")
    assert found.startswith(wrong)


def test_an_xid_in_two_classes_is_an_error_at_its_second_place() -> None:
    found = mistakes("[health]\nreboot = [\n 1,\n 13,\n]\nignore = [13]\nreset = [5, 1]\n")
    assert found == [
        "f:3: health.reboot: 1 is in reset too: remove it from one of them",
        "f:4: health.reboot: 13 is in ignore too: remove it from one of them",
    ]


@pytest.mark.parametrize(
    "line",
    ['hold_down = "60"', 'hold_down = "-1s"', "hold_down = 60", 'trust_for = "0"', "xid = [1]"],
)
def test_other_mistakes(line: str) -> None:
    (found,) = mistakes(f"[health]\n{line}\n")
    assert found.startswith(f"f:2: health.{line.split(maxsplit=1)[0]}: ")
