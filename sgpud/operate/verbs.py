"""What can be asked over the control socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from attrs import asdict
from twisted.internet.defer import Deferred

from sgpud.core.errors import SgpudError
from sgpud.core.status import View, document
from sgpud.operate.requests import Verb


class Source(Protocol):
    """Where GPUs come from."""

    def release(self) -> Deferred[bool]:
        """Let go of the driver for a while; whether that is done."""

    def acquire(self) -> None:
        """End a release."""


class Word(Protocol):
    """Takes the operator's word about GPUs; each gives the UUIDs that it was about."""

    def cordon(self, name: str) -> tuple[str, ...]:
        """Give no more of it out."""

    def uncordon(self, name: str) -> tuple[str, ...]:
        """Give it out again."""

    def heal(self, name: str) -> tuple[str, ...]:
        """It is well."""


class NamelessError(SgpudError):
    """A request about a GPU that names none."""

    def __str__(self) -> str:
        """What is missing."""
        return 'the request needs "gpu": the UUID or the index of a GPU'


def verbs(
    look: Callable[[], View],
    preview: Callable[[], Any],
    reload: Callable[[], Any],
    source: Source,
    word: Word,
) -> dict[str, Verb]:
    """The verbs by name. `preview` and `reload` give attrs values, answered as documents."""

    def plan(_: Mapping[str, object]) -> dict[str, object]:
        return {"view": document(look()), "reload": asdict(preview())}

    def release(_: Mapping[str, object]) -> Deferred[dict[str, object]]:
        return source.release().addCallback(lambda gone: {"released": gone})

    def acquire(_: Mapping[str, object]) -> dict[str, object]:
        source.acquire()
        return {"acquired": True}

    def about(do: Callable[[str], tuple[str, ...]]) -> Verb:
        def verb(arguments: Mapping[str, object]) -> dict[str, object]:
            name = arguments.get("gpu")
            if not isinstance(name, str) or not name:
                raise NamelessError
            return {"gpus": list(do(name))}

        return verb

    return {
        "status": lambda _: document(look()),
        "plan": plan,
        "reload": lambda _: asdict(reload()),
        "release": release,
        "acquire": acquire,
        "cordon": about(word.cordon),
        "uncordon": about(word.uncordon),
        "heal": about(word.heal),
    }
