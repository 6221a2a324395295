"""What is written about clusters agrees with what is there."""

from __future__ import annotations

import re

import pytest
import yaml

from sgpud import __version__
from tests.deploy.rendering import COMPONENTS, DEPLOY, OVERLAYS, ROOT

README = (ROOT / "README.md").read_text()
CLUSTERS = (ROOT / "docs" / "clusters.md").read_text()
REFERENCE = (ROOT / "docs" / "configuration.md").read_text()


def commands(text: str) -> list[str]:
    """The lines of the first block of code."""
    found = re.search(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1].splitlines()


def test_the_cluster_section_of_the_readme_is_three_commands() -> None:
    section = README.partition("### On a cluster\n")[2]
    assert len(commands(section)) == 3
    assert [line.split("#")[0].rstrip() for line in commands(section)] == [
        line.split("#")[0].rstrip() for line in commands(CLUSTERS)
    ]
    for line in commands(section):
        for path in re.findall(r"(?:deploy|examples)/\S+", line):
            assert (ROOT / path).exists()


@pytest.mark.parametrize("text", [README, CLUSTERS, (DEPLOY / "README.md").read_text()])
def test_what_is_linked_is_there(text: str) -> None:
    folders = (ROOT, ROOT / "docs", DEPLOY)
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert any((folder / link).exists() for folder in folders), link


def test_every_overlay_and_component_is_explained() -> None:
    text = (DEPLOY / "README.md").read_text()
    assert {folder.name for folder in (DEPLOY / "overlays").iterdir()} == set(OVERLAYS)
    for overlay in OVERLAYS:
        assert f"`overlays/{overlay}`" in text
        for component in COMPONENTS[overlay]:
            assert f"`{component}`" in text


def test_the_readme_of_the_chart_has_every_value() -> None:
    chart = DEPLOY / "helm" / "sgpud"
    named = set(re.findall(r"`([\w.]+)`", (chart / "README.md").read_text()))
    named |= {name.partition(".")[0] for name in named}
    assert set(yaml.safe_load((chart / "values.yaml").read_text())) <= named


def test_what_people_migrate_to_are_keys_of_sgpud() -> None:
    text = (ROOT / "docs" / "migrating.md").read_text()
    for flag in ("gpu-duplication-factor", "host-path", "container-path", "plugin-directory"):
        assert f"-{flag}" in text
    for section, key in re.findall(r"`\[(\w+)\] (\w+)", text):
        assert f"### {section}.{key}" in REFERENCE


def test_what_leads_to_another_place_of_the_page_arrives_there() -> None:
    heads = re.findall(r"^## (.+)$", CLUSTERS, re.MULTILINE)
    places = {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}
    links = re.findall(r"\]\(#([^)]+)\)", CLUSTERS)
    assert links
    assert set(links) <= places


def test_the_version_in_the_documents_is_this_one() -> None:
    versions = re.findall(r"sgpud:(\d+\.\d+\.\d+)", README + CLUSTERS)
    assert versions
    assert set(versions) == {__version__}
