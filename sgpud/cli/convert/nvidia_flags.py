"""The section `flags` of NVIDIA's configuration: how containers are given GPUs, and the rest.

What sgpud does anyway, or what only concerns the internals of NVIDIA's plugin, gets no note.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgpud.cli.convert.draft import Draft, table, truth

_METHODS = {
    "envvar": "nvidia-runtime",
    "volume-mounts": "volume-mounts",
    "cdi-annotations": "cdi",
    "cdi-cri": "cdi",
}
_SILENT = {
    *("failOnInitError", "restartOnDeviceUnhealthy", "deviceDiscoveryStrategy"),
    *("useNodeFeatureAPI", "mpsRoot", "nvidiaDevRoot"),
}
_EXTRAS = {"gdsEnabled", "mofedEnabled", "gdrcopyEnabled"}
_SILENT_PLUGIN = {"deviceIDStrategy", "cdiAnnotationPrefix", "nvidiaCTKPath", "containerDriverRoot"}


def flags(given: Mapping[str, Any], draft: Draft) -> None:
    """Take the flags over, with a note for each that has no counterpart and was set."""
    for key, value in given.items():
        place = f"flags.{key}"
        if key in _SILENT:
            continue
        match key:
            case "plugin":
                _plugin(table(value, place, draft), draft)
            case "migStrategy":
                _mig(value, place, draft)
            case "gfd":
                draft.note(place, "sgpud does not label nodes: keep GPU feature discovery running")
            case "nvidiaDriverRoot":
                if value not in ("/", "", None):
                    draft.note(
                        place,
                        f"run sgpud with LD_LIBRARY_PATH on the folder of libnvidia-ml.so.1 below"
                        f" {value}; sgpud has no key for that",
                    )
            case _ if key in _EXTRAS:
                if truth(value):
                    draft.note(place, "sgpud shares GPUs only: ignored")
            case _:
                draft.note(place, "is unknown and was ignored")


def _mig(value: object, place: str, draft: Draft) -> None:
    if value == "mixed":
        draft.note(
            place,
            "profiles that are not listed under sharing get the resource and the number of shares"
            ' in [sharing]: write a [[gpu]] rule such as match = "*MIG 1g.5gb" for each',
        )
    elif value not in ("single", "none", None):
        draft.note(place, f"{value!r} is unknown and was ignored")


def _plugin(given: Mapping[str, Any], draft: Draft) -> None:
    for key, value in given.items():
        place = f"flags.plugin.{key}"
        if key == "deviceListStrategy":
            _method(value, place, draft)
        elif key == "passDeviceSpecs":
            if truth(value):
                draft.note(place, 'ignored: the method "cdi" serves the same purpose')
        elif key not in _SILENT_PLUGIN:
            draft.note(place, "is unknown and was ignored")


def _method(value: object, place: str, draft: Draft) -> None:
    asked = [str(each) for each in (value if isinstance(value, list) else str(value).split(","))]
    methods = list(dict.fromkeys(_METHODS[each] for each in asked if each in _METHODS))
    for each in asked:
        if each not in _METHODS:
            draft.note(place, f"{each!r} is unknown and was ignored")
    if len(methods) > 1:
        draft.note(place, f"sgpud uses one method: {methods[0]}, the first of them")
    resources = {draft.sections["sharing"]["resource"], *(r["resource"] for r in draft.rules)}
    if methods[:1] == ["nvidia-runtime"] and len(resources) > 1:
        draft.note(
            place,
            "with several resources a container that requests two would see the GPU of one: the"
            ' method is "auto", which uses another',
        )
    elif methods:
        draft.set("container", "method", methods[0])
