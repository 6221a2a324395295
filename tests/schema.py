"""Holds documents to a JSON schema, as far as tools/status_schema.py makes use of schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_KINDS: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list, tuple),
    "object": (dict,),
}


def problems(document: Any, schema: Mapping[str, Any]) -> list[str]:
    """What in a document does not fit."""
    return list(_problems(document, schema, schema, ""))


def _problems(
    value: Any, part: Mapping[str, Any], whole: Mapping[str, Any], at: str
) -> Iterator[str]:
    if "$ref" in part:
        part = whole["$defs"][part["$ref"].rpartition("/")[2]]
    if "const" in part:
        if value != part["const"]:
            yield f"{at}: {part['const']} expected, not {value!r}"
        return
    kinds = [part["type"]] if isinstance(part["type"], str) else part["type"]
    if not any(_is(value, kind) for kind in kinds):
        yield f"{at}: {' or '.join(kinds)} expected, not {value!r}"
    elif isinstance(value, dict):
        yield from _in_object(value, part, whole, at)
    elif isinstance(value, (list, tuple)):
        yield from _in_array(value, part, whole, at)


def _in_object(
    value: dict[str, Any], part: Mapping[str, Any], whole: Mapping[str, Any], at: str
) -> Iterator[str]:
    known, others = part.get("properties", {}), part["additionalProperties"]
    for name in part.get("required", ()):
        if name not in value:
            yield f"{at}{name}: missing"
    for name, each in value.items():
        found = known.get(name, others)
        if found is False:
            yield f"{at}{name}: not in the schema"
        else:
            yield from _problems(each, found, whole, f"{at}{name}" + _dot(each))


def _in_array(
    value: Any, part: Mapping[str, Any], whole: Mapping[str, Any], at: str
) -> Iterator[str]:
    if "prefixItems" in part:
        if len(value) != len(part["prefixItems"]):
            yield f"{at.removesuffix('.')}: {len(part['prefixItems'])} items expected"
            return
        pairs = zip(value, part["prefixItems"], strict=True)
    else:
        pairs = zip(value, [part["items"]] * len(value), strict=True)
    for number, (each, found) in enumerate(pairs):
        yield from _problems(each, found, whole, f"{at}{number}" + _dot(each))


def _dot(value: Any) -> str:
    return "." if isinstance(value, (dict, list, tuple)) else ""


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))
