"""etc/sgpud.toml and docs/configuration.md are what the schema says now."""

import re
from pathlib import Path

from sgpud.config.build import build
from sgpud.config.load import load, parse
from sgpud.config.schema import reference
from sgpud.config.schema.kinds import Key, ListOf, Table
from sgpud.config.schema.sections import ROOT
from sgpud.config.values import Config

TOP = Path(__file__).parents[2]
AGAIN = "it is made by `python -m sgpud.config.schema.reference`: run that"


def test_the_shipped_files_are_current() -> None:
    assert (TOP / reference.TOML_FILE).read_text("utf-8") == reference.toml_text(), AGAIN
    assert (TOP / reference.MARKDOWN_FILE).read_text("utf-8") == reference.markdown_text(), AGAIN


def test_both_files_are_written_below_a_folder(tmp_path: Path) -> None:
    reference.main(tmp_path)
    assert (tmp_path / "etc/sgpud.toml").read_text("utf-8") == reference.toml_text()
    assert (tmp_path / "docs/configuration.md").read_text("utf-8") == reference.markdown_text()


def test_the_shipped_file_is_the_defaults() -> None:
    config = load(TOP / reference.TOML_FILE)
    assert config == Config()
    assert config.warnings == ()


def test_the_shipped_file_with_every_key_uncommented_is_the_defaults_too() -> None:
    text, count = re.subn(r"^# (\w+ = )", r"\1", reference.toml_text(), flags=re.MULTILINE)
    config = parse(text, "f")
    assert config == Config()
    assert config.warnings == ()
    tables = [section.kind for section in ROOT.keys if isinstance(section.kind, Table)]
    assert count == sum(len(table.keys) for table in tables)


def test_the_example_of_a_rule_is_valid() -> None:
    example = re.findall(r"^#     (.*)$", reference.toml_text(), flags=re.MULTILINE)
    (rule,) = parse("\n".join(example), "f").sharing.rules
    assert rule.match == "NVIDIA A100*"


def test_defaults_are_the_same_in_the_schema_and_in_the_values() -> None:
    assert build({}) == Config()


def test_every_key_is_explained() -> None:
    def explained(key: Key) -> bool:
        kind = key.kind.element if isinstance(key.kind, ListOf) else key.kind
        inner = kind.keys if isinstance(kind, Table) else ()
        return key.doc.endswith((".", "empty", "collectors")) and all(map(explained, inner))

    assert all(map(explained, ROOT.keys))
