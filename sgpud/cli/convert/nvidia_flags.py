"""The section `flags` of NVIDIA's configuration: how containers are given GPUs, and the rest.

What sgpud does by itself, or what only tells how NVIDIA's plugin works inside, goes in silence.
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
                draft.note(place, "sgpud labels no nodes: GPU feature discovery goes on by itself")
            case "nvidiaDriverRoot":
                if value not in ("/", "", None):
                    draft.note(
                        place,
                        f"run sgpud with LD_LIBRARY_PATH on the folder of libnvidia-ml.so.1 below"
                        f" {value}; it has no key for that",
                    )
            case _ if key in _EXTRAS:
                if truth(value):
                    draft.note(place, "sgpud hands out GPUs only, and it was left out")
            case _:
                draft.note(place, "is not known here, and was left out")


def _mig(value: object, place: str, draft: Draft) -> None:
    if value == "mixed":
        draft.note(
            place,
            "profiles that are not listed under sharing get the resource and the number of shares"
            ' in [sharing]: write a [[gpu]] rule such as match = "*MIG 1g.5gb" for each',
        )
    elif value not in ("single", "none", None):
        draft.note(place, f"{value!r} is not known here, and was left out")


def _plugin(given: Mapping[str, Any], draft: Draft) -> None:
    for key, value in given.items():
        place = f"flags.plugin.{key}"
        if key == "deviceListStrategy":
            _method(value, place, draft)
        elif key == "passDeviceSpecs":
            if truth(value):
                draft.note(place, 'the method "cdi" does what it is for; it was left out')
        elif key not in _SILENT_PLUGIN:
            draft.note(place, "is not known here, and was left out")


def _method(value: object, place: str, draft: Draft) -> None:
    asked = [str(each) for each in (value if isinstance(value, list) else str(value).split(","))]
    methods = list(dict.fromkeys(_METHODS[each] for each in asked if each in _METHODS))
    for each in asked:
        if each not in _METHODS:
            draft.note(place, f"{each!r} is not known here, and was left out")
    if len(methods) > 1:
        draft.note(place, f"sgpud uses one method, and {methods[0]} is the first of those")
    resources = {draft.sections["sharing"]["resource"], *(r["resource"] for r in draft.rules)}
    if methods[:1] == ["nvidia-runtime"] and len(resources) > 1:
        draft.note(
            place,
            "with several resources a container that asks for two would see the GPU of one: the"
            ' method is left to sgpud ("auto"), which takes another',
        )
    elif methods:
        draft.set("container", "method", methods[0])
