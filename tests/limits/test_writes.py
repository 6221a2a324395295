"""Nothing of sgpud but its helper writes to cgroups."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import sgpud

SOURCE = Path(sgpud.__file__).parent
WRITES = {
    *("write", "write_text", "write_bytes", "mkdir", "makedirs", "rmdir", "unlink", "rename"),
    *("replace", "touch", "chmod", "chown", "symlink", "symlink_to", "truncate"),
}


def names_of_cgroups(tree: ast.AST) -> bool:
    """Whether a module names the cgroup tree, or a file in it that is written to."""
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return any(
        isinstance(text, str)
        and "\n" not in text
        and any(name in text for name in ("sys/fs/cgroup", "cgroup.", "kubepods"))
        for text in texts
    )


def writes(tree: ast.AST) -> Iterator[str]:
    """The names of the calls that change files."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            mode = node.args[0] if node.func.attr == "open" and node.args else None
            written = isinstance(mode, ast.Constant) and set(str(mode.value)) & set("wa+")
            if node.func.attr in WRITES or written:
                yield f"{node.func.attr} in line {node.lineno}"


def modules() -> Iterator[tuple[str, ast.AST]]:
    for file in sorted(SOURCE.rglob("*.py")):
        name = str(file.relative_to(SOURCE))
        if not name.startswith("testing/"):
            yield name, ast.parse(file.read_text())


def test_no_module_that_names_cgroups_changes_files() -> None:
    found = {
        name: list(writes(tree))
        for name, tree in modules()
        if names_of_cgroups(tree) and not name.startswith("limits/helper/")
    }
    assert {"kubelet/cgroups.py", "gpus/host.py"} <= set(found), "the test looks at something"
    # What replaces in a text is no write.
    assert {
        name: calls
        for name, calls in found.items()
        if [one for one in calls if not one.startswith("replace ")]
    } == {}


def test_the_helper_is_imported_by_nothing() -> None:
    named = [
        (name, node.module)
        for name, tree in modules()
        if not name.startswith("limits/helper/")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("sgpud.limits.helper")
    ]
    assert named == []
