"""`sgpud xids`: what each XID means here, with what the configuration changes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from sgpud.cli.main import main
from sgpud.cli.screens import output
from sgpud.cli.xids import document
from sgpud.core.health.causes import HealthPolicy
from sgpud.core.health.xids import CATALOGUE, XIDS


def entry(policy: HealthPolicy, number: int) -> dict[str, Any]:
    found: Any = document(policy)["xids"]
    (one,) = (xid for xid in found if xid["number"] == number)
    return dict(one)


def test_every_xid_is_listed_with_class_meaning_and_source() -> None:
    found: Any = document(HealthPolicy())["xids"]
    assert [xid["number"] for xid in found] == sorted(xid.number for xid in XIDS)
    assert all(xid["class"] and xid["meaning"] and xid["source"] for xid in found)


def test_the_xid_table_shows_the_configuration() -> None:
    policy = HealthPolicy(ignore=(79,), reset=(4711,))
    assert entry(HealthPolicy(), 79)["class"] == "reboot"
    assert entry(policy, 79)["class"] == "ignore"
    assert "[health]" in entry(policy, 79)["meaning"]
    assert entry(policy, 4711) == {
        "number": 4711,
        "class": "reset",
        "meaning": "classified by [health]",
        "bucket": "-",
        "gpus": "all",
        "source": "[health]",
    }


def test_xids_are_listed_with_the_gpus_they_apply_to() -> None:
    assert entry(HealthPolicy(), 79)["gpus"] == "all"
    assert entry(HealthPolicy(), 74)["gpus"] == "before Blackwell"
    assert entry(HealthPolicy(), 136)["gpus"] == "Hopper only"
    assert entry(HealthPolicy(), 143)["gpus"] == "from Hopper on"
    assert entry(HealthPolicy(), 93)["gpus"] == "before Hopper"


def test_the_text_has_the_table_the_sequence_and_the_sources() -> None:
    text = output.xids(document(HealthPolicy()))
    rows = [line.split() for line in text.splitlines()]
    assert rows[0] == ["XID", "CLASS", "MEANING", "CATALOGUE", "GPUS"]
    assert ["79", "reboot", "the", "GPU", "has", "fallen", "off", "the", "bus"] in [
        row[:9] for row in rows
    ]
    steps = ("sgpud release", "nvidia-smi --gpu-reset", "sgpud acquire", "sgpud heal")
    places = [text.index(step) for step in steps]
    assert places == sorted(places)
    assert CATALOGUE in text


def run(*words: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return main(["xids", *words], {}, out, err), out.getvalue(), err.getvalue()


def test_the_command_reads_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "sgpud.toml"
    file.write_text("[health]\nreset = [13]\n")
    status, out, _ = run("--json", "--config", str(file), "--set", "health.ignore=[95]")
    assert status == 0
    classes = {xid["number"]: xid["class"] for xid in json.loads(out)["xids"]}
    assert (classes[13], classes[95], classes[79]) == ("reset", "ignore", "reboot")


def test_the_command_refuses_an_invalid_configuration(tmp_path: Path) -> None:
    file = tmp_path / "sgpud.toml"
    file.write_text("[health]\nreset = [13]\nignore = [13]\n")
    status, out, err = run("--config", str(file))
    assert (status, out) == (78, "")
    assert "13 is in ignore too" in err
