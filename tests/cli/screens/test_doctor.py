"""The doctor's findings as a person reads them."""

import pytest

from sgpud.cli.screens.doctor import examined


def finding(severity: str, **texts: str) -> dict[str, str]:
    return {"check": "driver", "severity": severity, "what": "", "means": "", "todo": "", **texts}


def test_each_finding_has_a_meaning_and_an_action() -> None:
    found = {
        "worst": "error",
        "findings": [
            finding("good", what="it answers"),
            finding("error", what="it " + "hangs " * 15, means="No pod starts.", todo="Reboot."),
        ],
    }
    assert examined(found).splitlines() == [
        "  ok  driver: it answers",
        f"FAIL  driver: it{' hangs' * 13} hangs",
        "        hangs",
        "      means: No pod starts.",
        "      to do: Reboot.",
        "",
        "Something is broken: see FAIL above.",
    ]


@pytest.mark.parametrize(
    ("worst", "sign"), [("good", "  ok"), ("note", "note"), ("warning", "WARN"), ("error", "FAIL")]
)
def test_the_sign_of_each_severity(worst: str, sign: str) -> None:
    lines = examined({"worst": worst, "findings": [finding(worst, what="x")]}).splitlines()
    assert lines[0] == f"{sign}  driver: x"
    assert lines[-1]
