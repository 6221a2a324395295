"""What a valid file says that cannot be: keys that are good each, and not together."""

from __future__ import annotations

from collections.abc import Iterator

from sgpud.config.check import Fault
from sgpud.config.kinds import show
from sgpud.config.values import Config
from sgpud.core.causes import Policy
from sgpud.core.sharing import Guarding, Sharing, Terms
from sgpud.core.sizes import format_size
from sgpud.core.xids import CLASSES

_ALL = 100.0


def contradictions(config: Config) -> Iterator[Fault]:
    """Every contradiction in a configuration, in the order of the sections."""
    yield from _resume(config.sharing.guarding)
    yield from _kinds(config.sharing)
    yield from _classes(config.health)


def _resume(guarding: Guarding) -> Iterator[Fault]:
    """A full GPU has to become another one before it counts as one."""
    headroom, resume = guarding.headroom, guarding.resume
    if resume is None:
        if 2 * headroom.percent >= _ALL:
            yield Fault(
                ("sharing", "memory_headroom"),
                f"is {headroom}: twice as much is never free. Write less than 50%, or set"
                " memory_resume",
            )
        return
    # A percentage and a size can be compared for a GPU only; the larger one counts there.
    alike = bool(headroom.percent) == bool(resume.percent) or not (headroom.size or resume.size)
    if alike and (resume.percent, resume.size) <= (headroom.percent, headroom.size):
        yield Fault(
            ("sharing", "memory_resume"),
            f"is {resume}, and memory_headroom is {headroom}: write more than that",
        )


def _kinds(sharing: Sharing) -> Iterator[Fault]:
    """A resource counts places, or memory in shares of one size: a pod cannot tell which."""
    known = {sharing.default.resource: sharing.default}
    for number, rule in enumerate(sharing.rules):
        terms = rule.terms(sharing.default)
        other = known.setdefault(terms.resource, terms)
        if other.share_memory != terms.share_memory:
            yield Fault(
                ("gpu", number, "resource"),
                f"is {show(terms.resource)} for {_kind(terms)}, which elsewhere counts"
                f" {_kind(other)}: give these GPUs a resource of their own",
            )


def _kind(terms: Terms) -> str:
    if not terms.share_memory:
        return "places (duplication_factor)"
    return f"memory in shares of {format_size(terms.share_memory)}"


def _classes(policy: Policy) -> Iterator[Fault]:
    """An XID has one class, and is named once."""
    named: dict[int, str] = {}
    for remedy in CLASSES:
        for place, number in enumerate(policy.numbers(remedy)):
            other = named.setdefault(number, remedy.value)
            first = policy.numbers(remedy).index(number) == place
            if other != remedy.value:
                text = f"{number} stands in {other} too: leave it in one of the two"
            elif not first:
                text = f"{number} comes twice, leave one out"
            else:
                continue
            yield Fault(("health", remedy.value, place), text)
