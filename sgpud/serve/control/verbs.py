"""What can be asked over the control socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from attrs import asdict
from twisted.internet.defer import Deferred

from sgpud.core.errors import SgpudError
from sgpud.core.explain.explain import Evidence, explain
from sgpud.core.status.view import document
from sgpud.serve.control.protocol import Verb


class DriverHolder(Protocol):
    """Where GPUs come from."""

    def release(self) -> Deferred[bool]:
        """Let go of the driver for a while; whether that is done."""

    def acquire(self) -> None:
        """End a release."""


class HealthOverrides(Protocol):
    """Takes the operator's word about GPUs; each gives the UUIDs that it was about."""

    def cordon(self, name: str) -> tuple[str, ...]:
        """Give no more of it out."""

    def uncordon(self, name: str) -> tuple[str, ...]:
        """Give it out again."""

    def heal(self, name: str) -> tuple[str, ...]:
        """It is well."""


class NamelessError(SgpudError):
    """A request that does not say what it is about."""

    def __init__(self, key: str = "gpu", what: str = "the UUID or the index of a GPU") -> None:
        """`key`: the argument that is missing; `what` it has to be."""
        super().__init__(key, what)
        self.key, self.what = key, what

    def __str__(self) -> str:
        """What is missing."""
        return f'the request needs "{self.key}": {self.what}'


def verbs(
    known: Callable[[], Evidence],
    preview: Callable[[], Any],
    reload: Callable[[], Any],
    source: DriverHolder,
    word: HealthOverrides,
) -> dict[str, Verb]:
    """The verbs by name. `preview` and `reload` give attrs values, answered as documents."""

    def plan(_: Mapping[str, object]) -> dict[str, object]:
        return {"view": document(known().seen), "reload": asdict(preview())}

    def release(_: Mapping[str, object]) -> Deferred[dict[str, object]]:
        return source.release().addCallback(lambda gone: {"released": gone})

    def acquire(_: Mapping[str, object]) -> dict[str, object]:
        source.acquire()
        return {"acquired": True}

    def explained(arguments: Mapping[str, object]) -> dict[str, object]:
        name = arguments.get("about")
        if not isinstance(name, str) or not name:
            raise NamelessError("about", "a pod, a share or a GPU")
        return asdict(explain(name, known()))

    def about(do: Callable[[str], tuple[str, ...]]) -> Verb:
        def verb(arguments: Mapping[str, object]) -> dict[str, object]:
            name = arguments.get("gpu")
            if not isinstance(name, str) or not name:
                raise NamelessError
            return {"gpus": list(do(name))}

        return verb

    return {
        "status": lambda _: document(known().seen),
        "explain": explained,
        "plan": plan,
        "reload": lambda _: asdict(reload()),
        "release": release,
        "acquire": acquire,
        "cordon": about(word.cordon),
        "uncordon": about(word.uncordon),
        "heal": about(word.heal),
    }
