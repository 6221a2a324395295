"""docs/health.md shows the machine as it is."""

from __future__ import annotations

import re

from attrs import evolve

from sgpud.core.gpu.observations import Sample
from sgpud.core.health.causes import RECOVERY
from sgpud.core.health.machine import EDGES, Health, step
from sgpud.core.health.xids import XIDS
from tests.core.values import PASS, POLICY
from tools.health_page import PAGE, page


def test_the_page_in_docs_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tools.health_page"


def test_the_diagram_has_exactly_the_possible_transitions() -> None:
    arrows = re.findall(r"^ +(\w+) --> (\w+): (.+)$", page(), re.MULTILINE)
    assert arrows == [(edge.source.value, edge.target.value, edge.when) for edge in EDGES]


def test_the_recovery_actions_do_what_the_page_says() -> None:
    for action in RECOVERY:
        sample: Sample = evolve(PASS, recovery=action)
        phase = step(Health(), sample, POLICY, 0.0).phase.value
        assert re.search(rf"^\| {action} \| .* \| {phase} \|$", page(), re.MULTILINE)


def test_every_xid_of_the_table_is_on_the_page() -> None:
    told = page().partition("| class | XIDs |")[2].partition("\n\n")[0]
    numbers = set()
    for first, last in re.findall(r"\b(\d+)(?: to (\d+))?", told):
        numbers |= set(range(int(first), int(last or first) + 1))
    assert numbers == {xid.number for xid in XIDS}
