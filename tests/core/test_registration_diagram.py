"""docs/registration.md shows the machine as it is."""

from __future__ import annotations

import re

from sgpud.core.registration.events import RegistrationPhase
from sgpud.core.registration.machine import TABLE
from tools.registration_diagram import PAGE, page


def test_the_page_in_docs_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tools.registration_diagram"


def test_the_diagram_has_exactly_the_arrows_of_the_table() -> None:
    arrows = {
        (start, to, event)
        for start, to, events in re.findall(
            r"^ +([A-Z]+) --> ([A-Z]+): (.+)$", page(), re.MULTILINE
        )
        for event in events.split(", ")
    }
    assert arrows == {
        (phase.name, to.name, event.__name__)
        for (phase, event), row in TABLE.items()
        for to in row.to
    }


def test_every_phase_but_the_last_can_be_reached_and_left() -> None:
    reached = {to for row in TABLE.values() for to in row.to}
    assert reached == set(RegistrationPhase)
    assert {phase for phase, _ in TABLE} == set(RegistrationPhase) - {RegistrationPhase.STOPPED}
