"""`python -m tools.manuals FOLDER` writes the manual pages and the completions there."""

from __future__ import annotations

import sys
from pathlib import Path

from sgpud.cli.main import command_line
from tools.manuals.completion import bash, zsh
from tools.manuals.pages import sgpud_8, sgpud_toml_5


def main(folder: Path) -> None:
    """Write them; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    parser = command_line()
    for name, text in {
        "sgpud.8": sgpud_8(parser),
        "sgpud.toml.5": sgpud_toml_5(),
        "sgpud": bash(parser),
        "_sgpud": zsh(parser),
    }.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
