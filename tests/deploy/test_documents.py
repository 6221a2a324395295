"""What is written about clusters agrees with what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from sgpud import __version__
from tests.deploy.rendering import COMPONENTS, DEPLOY, OVERLAYS, ROOT, Renderer

README = (ROOT / "README.md").read_text()
CLUSTERS = (ROOT / "docs" / "clusters.md").read_text()
FOLDERS = (ROOT, ROOT / "docs")
PAGES = sorted(
    (*(page for folder in FOLDERS for page in folder.glob("*.md")), *DEPLOY.rglob("*.md"))
)
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


def heads(page: Path) -> set[str]:
    """The places of a page that a link may name, as forges name them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_linked_is_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        name, _, place = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not place or place in heads(target), link


def test_the_index_leads_to_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    named = set(re.findall(r"\]\((\w[\w-]*\.md)", index))
    assert named == {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}


@pytest.mark.parametrize(
    ("page", "begin", "end"),
    [("deploy/README.md", "```yaml\n", "```"), ("docs/gke.md", "<<END\n", "END\n")],
)
def test_your_own_overlay_uses_your_image(
    page: str, begin: str, end: str, renderer: Renderer
) -> None:
    text = (ROOT / page).read_text().partition(begin)[2].partition(end)[0]
    mine = "europe-west4-docker.pkg.dev/my-project/sgpud"
    text = text.replace("$REGISTRY", mine)
    rendered = renderer.written(page.replace("/", "-"), text)
    assert rendered.container["image"] == f"{mine}/sgpud:{__version__}"


def test_every_overlay_and_component_is_explained() -> None:
    text = (DEPLOY / "README.md").read_text()
    overlays = {folder.name for folder in (DEPLOY / "overlays").iterdir()}
    assert overlays > set(OVERLAYS)
    for folder in (DEPLOY / "components").iterdir():
        assert f"`{folder.name}`" in text
    for overlay in overlays:
        assert f"`overlays/{overlay}`" in text
    for overlay in OVERLAYS:
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


def test_the_version_in_the_documents_is_this_one() -> None:
    versions = re.findall(r"sgpud:(\d+\.\d+\.\d+)", "".join(map(Path.read_text, PAGES)))
    assert versions
    assert set(versions) == {__version__}
