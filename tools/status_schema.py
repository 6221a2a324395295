#!/usr/bin/env python3
"""Writes docs/status.schema.json: the JSON schema of the status document, made from its classes.

`python -m tools.status_schema`; a test holds the file current.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import textwrap
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from sgpud.core.status.view import FORMAT, NodeView

FILE = Path(__file__).parents[1] / "docs" / "status.schema.json"
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def schema() -> dict[str, Any]:
    """The schema of the document."""
    definitions: dict[str, Any] = {}
    _object(NodeView, definitions)
    root = definitions.pop(NodeView.__name__)
    root["properties"]["format"] = {
        "const": FORMAT,
        "description": root["properties"]["format"].get("description", "")
        or "The version of this shape.",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The status document of sgpud",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def text() -> str:
    """The file's text."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _object(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if kind.__name__ not in definitions:
        definitions[kind.__name__] = {}
        hints = typing.get_type_hints(kind)
        said = _said(kind)
        properties = {}
        for field in attrs.fields(kind):
            properties[field.name] = _of(hints[field.name], definitions)
            if said.get(field.name):
                properties[field.name]["description"] = said[field.name]
        definitions[kind.__name__] = {
            "description": " ".join((kind.__doc__ or "").split()),
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if attrs.has(kind):
        return _object(kind, definitions)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return {"type": [_PLAIN[each] for each in arguments]}
    if origin is tuple and arguments[-1:] == (...,):
        return {"type": "array", "items": _of(arguments[0], definitions)}
    if origin is tuple:
        return {
            "type": "array",
            "prefixItems": [_of(each, definitions) for each in arguments],
            "items": False,
        }
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _of(arguments[1], definitions)}
    return {"type": _PLAIN[kind]}


def _said(kind: type) -> dict[str, str]:
    """What stands below each field: the texts that a reader of the source sees."""
    (made,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    body = made.body if isinstance(made, ast.ClassDef) else []
    found = {}
    for field, after in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            value = after.value if isinstance(after, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found[field.target.id] = " ".join(value.value.split())
    return found


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
