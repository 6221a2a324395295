"""The command: a file in, a document out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sgpud.cli.convert.draft import ConvertError, Draft
from sgpud.cli.convert.gke import convert_gke, is_gke
from sgpud.cli.convert.nvidia import convert_nvidia, is_nvidia
from sgpud.cli.convert.write import document
from sgpud.config.load import parse
from sgpud.config.problems import ConfigError
from sgpud.yaml.block import parse_yaml
from sgpud.yaml.scalars import YamlError

LARGEST = 1 << 20
"""Bytes of a file that is read: what a ConfigMap can hold."""
_KNOWN = (
    "NVIDIA's device plugin (YAML with version, flags, sharing), a ConfigMap that holds it,"
    " GKE's gpu_config.json, or a GKE node pool (node-pools describe --format=json)"
)


def run(file: str, entry: str | None = None) -> dict[str, Any]:
    """Convert a file: the TOML, and a line for each thing that is not as it was.

    `entry` names the entry of a ConfigMap with several. Errors: ConvertError, OSError.
    """
    draft = _draft(_read(file), file, entry)
    text = document(draft)
    try:
        warnings = parse(text, "sgpud.toml").warnings
    except ConfigError as error:
        # Names and patterns go through as they are; sgpud is stricter about some.
        raise ConvertError(file, f"cannot be taken over as it is:\n{error}") from error
    draft.notes.extend(f"{each.key}: {each.text}" for each in warnings)
    return {"file": file, "source": draft.source, "toml": document(draft), "notes": draft.notes}


def _read(file: str) -> str:
    with Path(file).open("rb") as stream:
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ConvertError(file, f"is larger than {LARGEST} bytes: name a configuration")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConvertError(file, "is no UTF-8 text: name a configuration") from error


def _draft(text: str, file: str, entry: str | None) -> Draft:
    found = _parsed(text, file)
    if isinstance(found, Mapping) and found.get("kind") == "ConfigMap":
        name, inner = _entry(found.get("data"), file, entry)
        file = f"{file}: {name}"
        found = _parsed(inner, file)
    elif entry is not None:
        raise ConvertError(file, "is no ConfigMap: leave --entry out")
    if isinstance(found, Mapping) and is_gke(found):
        return convert_gke(found)
    if isinstance(found, Mapping) and is_nvidia(found):
        return convert_nvidia(found)
    raise ConvertError(file, f"is no configuration that is known here: name one of {_KNOWN}")


def _entry(data: object, file: str, entry: str | None) -> tuple[str, str]:
    """The one entry of a ConfigMap that is meant."""
    texts = data if isinstance(data, Mapping) else {}
    names = ", ".join(map(str, texts)) or "none"
    if entry is None and len(texts) != 1:
        raise ConvertError(file, f"is a ConfigMap with the entries {names}: name one with --entry")
    name = str(next(iter(texts)) if entry is None else entry)
    if not isinstance(texts.get(name), str):
        raise ConvertError(file, f"has no text under {name}: its entries are {names}")
    return name, texts[name]


def _parsed(text: str, file: str) -> Any:
    """JSON or YAML; numbers and booleans of JSON stay what they are."""
    try:
        if text.lstrip().startswith("{"):
            return json.loads(text)
        return parse_yaml(text)
    except (ValueError, RecursionError) as error:
        raise ConvertError(file, f"is no JSON: {error}") from error
    except YamlError as error:
        raise ConvertError(file, f"{error}. Write it plainly") from error
