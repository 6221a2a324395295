"""The verbs of the control socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from attrs import asdict
from twisted.internet.defer import Deferred

from sgpud.core.errors import SgpudError
from sgpud.core.status.view import document
from sgpud.serve.control.protocol import Verb

if TYPE_CHECKING:
    from sgpud.core.explain.explain import Evidence


class DriverHolder(Protocol):
    """Holds the driver open."""

    def release(self) -> Deferred[bool]:
        """Release the driver for a while; whether that succeeded."""

    def acquire(self) -> None:
        """End a release."""


class HealthOverrides(Protocol):
    """The operator's overrides of a GPU's health.

    Each returns the UUIDs it applies to, and why one stays as it was, or "".
    """

    def cordon(self, name: str) -> dict[str, str]:
        """Grant no more of its shares."""

    def uncordon(self, name: str) -> dict[str, str]:
        """Grant its shares again."""

    def heal(self, name: str) -> dict[str, str]:
        """Declare it healthy."""


class MissingArgumentError(SgpudError):
    """A request without an argument that its verb needs."""

    def __init__(self, key: str = "gpu", what: str = "the UUID or the index of a GPU") -> None:
        """`key`: the missing argument; `what` it has to be."""
        super().__init__(key, what)
        self.key, self.what = key, what

    def __str__(self) -> str:
        """The missing argument."""
        return f'the request needs "{self.key}": {self.what}'


def verbs(
    known: Callable[[], Evidence],
    preview: Callable[[str, str, tuple[str, ...]], Any],
    reload: Callable[[], Any],
    source: DriverHolder,
    overrides: HealthOverrides,
    switch: Callable[[str], dict[str, object]],
) -> dict[str, Verb]:
    """The verbs by name. `preview` and `reload` return attrs values, answered as documents."""

    def plan(arguments: Mapping[str, object]) -> dict[str, object]:
        file, text = arguments.get("file", ""), arguments.get("text", "")
        sets = arguments.get("set", [])
        if (
            not isinstance(file, str)
            or not isinstance(text, str)
            or not isinstance(sets, list)
            or not all(isinstance(each, str) for each in sets)
        ):
            raise MissingArgumentError(
                "file", 'a name, "text" its content, and "set" a list of strings'
            )
        would = preview(file, text, tuple(sets))
        return {"view": document(known().seen), "reload": asdict(would)}

    def release(_: Mapping[str, object]) -> Deferred[dict[str, object]]:
        return source.release().addCallback(lambda gone: {"released": gone})

    def acquire(_: Mapping[str, object]) -> dict[str, object]:
        source.acquire()
        return {"acquired": True}

    def explained(arguments: Mapping[str, object]) -> dict[str, object]:
        name = arguments.get("about")
        if not isinstance(name, str) or not name:
            raise MissingArgumentError("about", "a pod, a share or a GPU")
        from sgpud.core.explain.explain import explain  # noqa: PLC0415 - no start needs it

        return asdict(explain(name, known()))

    def on_gpu(do: Callable[[str], dict[str, str]]) -> Verb:
        def verb(arguments: Mapping[str, object]) -> dict[str, object]:
            name = arguments.get("gpu")
            if not isinstance(name, str) or not name:
                raise MissingArgumentError
            found = do(name)
            return {
                "gpus": list(found),
                "unchanged": {uuid: why for uuid, why in found.items() if why},
            }

        return verb

    return {
        "status": lambda _: document(known().seen),
        "explain": explained,
        "plan": plan,
        "reload": lambda _: asdict(reload()),
        "release": release,
        "switch": lambda arguments: switch(str(arguments.get("step", ""))),
        "acquire": acquire,
        "cordon": on_gpu(overrides.cordon),
        "uncordon": on_gpu(overrides.uncordon),
        "heal": on_gpu(overrides.heal),
    }
