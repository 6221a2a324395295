"""The command: a file in, an sgpud.toml out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from sgpud.cli.convert.draft import ConvertError, Draft, document
from sgpud.cli.convert.gke import convert_gke, is_gke
from sgpud.cli.convert.nvidia import convert_nvidia, is_nvidia
from sgpud.config.load import parse
from sgpud.config.problems import ConfigError
from sgpud.yaml_reader import LARGEST, YamlError, read_documents

STANDARD_INPUT = "-"
_KNOWN = (
    "NVIDIA's device plugin (YAML with version, flags, sharing), a ConfigMap or Helm values that"
    " hold it, GKE's gpu_config.json, or a GKE node pool (node-pools describe --format=json)"
)
_HELM = (("config", "map"), ("devicePlugin", "config", "data"))
"""Where the values of NVIDIA's charts hold configurations by name: of its device plugin, and of the
GPU operator."""


_VALUES = (
    ("spec", "values"),
    ("spec", "valuesContent"),
    ("spec", "source", "helm", "values"),
    ("spec", "source", "helm", "valuesObject"),
)
"""Where Flux's HelmRelease, k3s' HelmChart and an Application of Argo CD hold a chart's values."""


@frozen
class _Entry:
    """A configuration in a file, or something else in its place."""

    name: str
    """Its key in a ConfigMap or in Helm values; empty: the document itself."""
    holder: str
    """The name of the ConfigMap, or empty."""
    content: Mapping[str, Any] | None
    """None: not a configuration of a known plugin."""
    problem: str = ""
    """Why it is not."""

    @property
    def full(self) -> str:
        """The name for --entry if two ConfigMaps have an entry of this name."""
        return f"{self.holder}/{self.name}" if self.holder else self.name


def run(file: str, entry: str | None = None) -> dict[str, Any]:
    """Convert a file (`-`: standard input): the TOML, and a line for each difference.

    `entry` names the configuration where the file holds several. Errors: ConvertError, OSError.
    """
    draft = _draft(_read(file), file, entry)
    text = document(draft)
    try:
        warnings = parse(text, "sgpud.toml").warnings
    except ConfigError as error:
        # Names and patterns are copied; sgpud is stricter about some.
        raise ConvertError(file, f"cannot be converted:\n{error}") from error
    draft.notes.extend(f"{each.key}: {each.text}" for each in warnings)
    return {"file": file, "source": draft.source, "toml": document(draft), "notes": draft.notes}


def _read(file: str) -> bytes:
    if file == STANDARD_INPUT:
        content = sys.stdin.buffer.read(LARGEST + 1)
    else:
        with Path(file).open("rb") as stream:
            content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ConvertError(file, f"is larger than {LARGEST} bytes")
    return content


def _draft(content: bytes, file: str, entry: str | None) -> Draft:
    try:
        entries = [each for found in read_documents(content) for each in _entries(found)]
    except YamlError as error:
        raise ConvertError(file, f"cannot be read: {error}") from error
    chosen = _chosen(entries, file, entry)
    convert = convert_gke if is_gke(chosen.content or {}) else convert_nvidia
    draft = convert(chosen.content or {})
    if entry is None:
        for other in entries:
            if other is not chosen and other.name:
                draft.note(other.full, f"ignored: {other.problem}")
    return draft


def _chosen(entries: list[_Entry], file: str, wanted: str | None) -> _Entry:
    """The one configuration to convert."""
    named = [each for each in entries if each.name]
    names = ", ".join(each.full for each in named) or "none"
    if wanted is not None:
        if not named:
            raise ConvertError(file, "has no entries: leave --entry out")
        meant = [each for each in named if wanted in (each.name, each.full)]
        if not meant:
            raise ConvertError(file, f"has no entry {wanted}; its entries: {names}")
    else:
        meant = [each for each in entries if each.content is not None] or named or entries
    if len(meant) > 1:
        candidates = ", ".join(each.full or "a document without a name" for each in meant)
        raise ConvertError(
            file, f"holds several configurations: choose one with --entry: {candidates}"
        )
    if not meant:
        raise ConvertError(file, f"is not a known configuration; expected {_KNOWN}")
    if meant[0].content is None:
        place = f"entry {meant[0].full} " if meant[0].name else ""
        raise ConvertError(file, f"{place}{meant[0].problem}")
    return meant[0]


def _entries(found: object) -> Iterator[_Entry]:
    """The configurations in a document."""
    if not isinstance(found, Mapping):
        if found is not None:
            yield _unknown("", "")
        return
    kind = str(found.get("kind", ""))
    if kind.endswith("List") and isinstance(found.get("items"), list):
        for item in found["items"]:
            yield from _entries(item)
    elif kind == "ConfigMap":
        metadata = found.get("metadata")
        holder = metadata.get("name") if isinstance(metadata, Mapping) else ""
        yield from _texts(found.get("data"), str(holder or ""))
    elif kind:
        # Objects that hold a chart's values; any other object of Kubernetes holds no configuration.
        for path in _VALUES:
            yield from _of_chart(_mapping(_inside(found, path)))
    elif is_gke(found) or is_nvidia(found):
        yield _Entry("", "", found)
    else:
        held = list(_of_chart(found))
        yield from held or [_unknown("", "")]


def _of_chart(values: Mapping[str, Any]) -> Iterator[_Entry]:
    """The configurations in the values of one of NVIDIA's charts."""
    for path in _HELM:
        yield from _texts(_inside(values, path), "")


def _mapping(value: object) -> Mapping[str, Any]:
    """A mapping, as it is or as the YAML of one; empty for anything else."""
    if isinstance(value, str):
        try:
            value = next(iter(read_documents(value.encode())), None)
        except YamlError:
            return {}
    return value if isinstance(value, Mapping) else {}


def _inside(found: object, path: tuple[str, ...]) -> object:
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _texts(data: object, holder: str) -> Iterator[_Entry]:
    for name, text in data.items() if isinstance(data, Mapping) else ():
        if isinstance(text, Mapping):  # Helm's values may hold it as it is
            found: object = text
        else:
            try:
                documents = read_documents(str(text).encode())
            except YamlError as error:
                yield _Entry(str(name), holder, None, f"cannot be read: {error}")
                continue
            found = next((each for each in documents if each is not None), None)
        known = isinstance(found, Mapping) and (is_gke(found) or is_nvidia(found))
        yield (
            _Entry(str(name), holder, found)
            if isinstance(found, Mapping) and known
            else _unknown(str(name), holder)
        )


def _unknown(name: str, holder: str) -> _Entry:
    return _Entry(name, holder, None, f"is not a known configuration; expected {_KNOWN}")
