"""Checks keys against each other: contradictions, and what deserves a warning."""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import evolve

from sgpud.config.schema.check import Violation
from sgpud.config.schema.kinds import show
from sgpud.config.values import ApiServerUse, Config, DraConfig, Evict, KubeletApi
from sgpud.core.allocation.injection import variable_prefix
from sgpud.core.gpu.gpu import glob_matches, looks_like_uuid, pci_address, uuid_key
from sgpud.core.health.causes import HealthPolicy
from sgpud.core.health.xids import CLASSES
from sgpud.core.json_checks import UUID
from sgpud.core.limits.caps import CUDA_CONTEXT
from sgpud.core.limits.settings import MemoryLimits, OveruseAction
from sgpud.core.sharing.rules import (
    FullGuardSettings,
    InjectionMethod,
    InjectionSettings,
    Multiple,
    Placement,
    ShareTerms,
    Sharing,
)
from sgpud.core.units import format_size

_ALL = 100.0


def contradictions(config: Config) -> Iterator[Violation]:
    """Every contradiction in a configuration, in the order of the sections."""
    yield from _resume(config.sharing.guard_settings)
    yield from _kinds(config.sharing)
    yield from _classes(config.health)


def _resume(guard_settings: FullGuardSettings) -> Iterator[Violation]:
    """The threshold to resume must be above the headroom."""
    headroom, resume = guard_settings.headroom, guard_settings.resume
    if resume is None:
        if 2 * headroom.percent >= _ALL:
            yield Violation(
                ("sharing", "memory_headroom"),
                f"is {headroom}: twice as much can never be free. Use less than 50%, or set"
                " memory_resume",
            )
        return
    # A percentage and a size can only be compared for a given GPU, where the larger one applies.
    alike = bool(headroom.percent) == bool(resume.percent) or not (headroom.size or resume.size)
    if alike and (resume.percent, resume.size) <= (headroom.percent, headroom.size):
        yield Violation(
            ("sharing", "memory_resume"),
            f"is {resume}, but memory_headroom is {headroom}: it must be more than that",
        )


def _kinds(sharing: Sharing) -> Iterator[Violation]:
    """All shares of a resource are places, or memory shares of one size: a pod cannot choose."""
    known = {sharing.default.resource: sharing.default}
    for number, rule in enumerate(sharing.rules):
        terms = rule.terms(sharing.default)
        other = known.setdefault(terms.resource, terms)
        if other.share_memory != terms.share_memory:
            yield Violation(
                ("gpu", number, "resource"),
                f"is {show(terms.resource)} for {_kind(terms)}, but elsewhere for"
                f" {_kind(other)}: give these GPUs a separate resource",
            )


def _kind(terms: ShareTerms) -> str:
    if not terms.share_memory:
        return "places (duplication_factor)"
    return f"memory shares of {format_size(terms.share_memory)}"


def _classes(policy: HealthPolicy) -> Iterator[Violation]:
    """An XID has one class, and is listed once."""
    named: dict[int, str] = {}
    for remedy in CLASSES:
        for place, number in enumerate(policy.numbers(remedy)):
            other = named.setdefault(number, remedy.value)
            first = policy.numbers(remedy).index(number) == place
            if other != remedy.value:
                text = f"{number} is in {other} too: remove it from one of them"
            elif not first:
                text = f"{number} is listed twice; remove one"
            else:
                continue
            yield Violation(("health", remedy.value, place), text)


_USERS = (
    ("cdi_kind", (InjectionMethod.AUTO, InjectionMethod.CDI)),
    ("mounts", (InjectionMethod.AUTO, InjectionMethod.DEVICE_NODES)),
)
"""The methods that use a key of [container]."""


def advice(config: Config) -> Iterator[Violation]:
    """Every warning about a configuration, in the order of the sections."""
    yield from _lists(config.sharing)
    yield from _hopeless(config.sharing)
    yield from _shadowed(config.sharing)
    yield from _variables(config.sharing)
    yield from _memory(config.sharing)
    yield from _context(config)
    yield from _overuse(config)
    yield from _container(config.sharing)
    yield from _dra(config)
    yield from _fast_status(config)
    if config.sharing.numa and _shares_memory(config.sharing):
        yield _warning(
            ("kubelet", "numa"),
            "has no effect on memory shares: which GPU they are of is chosen after the kubelet"
            " has chosen their ids",
        )
    if config.sharing.numa and config.sharing.multiple in (Multiple.DISTINCT, Multiple.SAME):
        yield _warning(
            ("kubelet", "numa"),
            f'with sharing.multiple = "{config.sharing.multiple.value}" pods can be refused: with a'
            " topology manager policy the kubelet picks aligned shares without asking sgpud. Set"
            ' numa = false, or multiple = "any"',
        )

    if _splits(config):
        yield _warning(
            ("sharing", "multiple"),
            'with placement = "spread" every GPU is soon used in part, so that pods with many'
            ' shares are refused although the node has as many free: placement = "packed" refuses'
            " fewer. `sgpud simulate` compares them",
        )


def _splits(config: Config) -> bool:
    """Whether containers need several places of one GPU, and pods are spread over all GPUs."""
    sharing = config.sharing
    kinds = (sharing.default, *(rule.terms(sharing.default) for rule in sharing.rules))
    return (
        config.kubelet.api is not KubeletApi.DRA
        and sharing.multiple is Multiple.SAME
        and sharing.placement is Placement.SPREAD
        and any(terms.factor > 1 and not terms.share_memory for terms in kinds)
    )


def _shares_memory(sharing: Sharing) -> bool:
    kinds = (sharing.default, *(rule.terms(sharing.default) for rule in sharing.rules))
    return any(terms.share_memory for terms in kinds)


def covers(earlier: str, later: str) -> bool:
    """Whether every GPU that the later entry can match is matched by the earlier one.

    True only if that is certain from the two strings.
    """
    if not earlier.strip("*"):
        return True
    one, other = _single(earlier), _single(later)
    if one or other:
        return one == other
    return _glob_covers(earlier.casefold(), later.casefold())


def _single(entry: str) -> str | None:
    """The one GPU that an entry names, in one form for all spellings; None for a glob."""
    if looks_like_uuid(entry):
        return uuid_key(entry)
    if entry.isascii() and entry.isdigit():
        return str(int(entry))
    return pci_address(entry)


def _same(entry: str, other: str) -> bool:
    """Whether two entries certainly mean the same."""
    return entry == other or (_single(entry) is not None and _single(entry) == _single(other))


def _glob_covers(earlier: str, later: str) -> bool:
    """Whether one glob covers another: surely so if it matches the other's own text.

    That holds while the earlier one has no wildcard but `*`.
    """
    return earlier == later or ("?" not in earlier and glob_matches(earlier, later))


_AFTER_MIG = re.compile(r"\bMIG ([^*?]+)\Z", re.IGNORECASE)
_PROFILE = re.compile(r"(?:[1-9]c\.)?[1-9]g\.[0-9]{1,4}gb(?:[+-][a-z][a-z.,+-]*)?", re.IGNORECASE)
"""A MIG profile, by the names that NVIDIA's user guide lists."""
_ABOUT_MIG = re.compile(r"\bMIG(?!-[0-9a-f]{8})\b|[1-9]g\.[0-9]+gb", re.IGNORECASE)
"""In an entry that can mean MIG instances only, and is not the UUID of one."""
_WRITTEN = re.compile(
    r"((?:[1-9]c\.)?[1-9]g\.[0-9]{1,4}gb)(?:([+.-])([a-z][a-z.,+-]*))?", re.IGNORECASE
)
"""A profile as people write it, like that of a resource's name."""
_SUFFIXES = ("", "+me", "+gfx", "+me.all", "-me")
_SIZES = frozenset({5, 6, 10, 12, 18, 20, 24, 35, 40, 48, 80, 96, 141, 180})
"""Some of the gigabytes in names of profiles."""


def _warning(path: tuple[str | int, ...], text: str) -> Violation:
    """A violation that does not prevent a configuration from being used."""
    return Violation(path, text, warning=True)


def _lists(sharing: Sharing) -> Iterator[Violation]:
    """Lists that leave nothing to share, and entries that are in both."""
    if not sharing.allow:
        yield _warning(("gpus", "allow"), 'is empty: no GPU is shared. Use allow = ["*"] for all')
    for number, entry in enumerate(sharing.deny):
        if not entry.strip("*"):
            yield _warning(
                ("gpus", "deny", number), f"{show(entry)} denies every GPU: none is shared"
            )
        elif any(_same(entry, allowed) for allowed in sharing.allow):
            yield _warning(
                ("gpus", "deny", number),
                f"{show(entry)} is in allow as well, and deny wins: remove one of them",
            )


def _hopeless(sharing: Sharing) -> Iterator[Violation]:
    """Entries that can match no GPU of any product."""
    entries: list[tuple[tuple[str | int, ...], str]] = [
        *((("gpus", "allow", number), entry) for number, entry in enumerate(sharing.allow)),
        *((("gpus", "deny", number), entry) for number, entry in enumerate(sharing.deny)),
        *((("gpu", number, "match"), rule.match) for number, rule in enumerate(sharing.rules)),
    ]
    for path, entry in entries:
        named = _AFTER_MIG.search(entry)
        if named and not _PROFILE.fullmatch(named[1]):
            yield _warning(
                path,
                f"{show(entry)} can match no GPU, since {show(named[1])} is not a MIG profile:"
                f" {_as_nvml_names_it(entry)}",
            )
        elif _ABOUT_MIG.search(entry) and not _matches_an_instance(entry):
            yield _warning(
                path,
                f"{show(entry)} can match no GPU, since a MIG instance has the name of its product"
                f" and of its profile: {_as_nvml_names_it(entry)}",
            )
        elif looks_like_uuid(entry) and not UUID.fullmatch(entry):
            yield _warning(path, f"{show(entry)} can match no GPU, since it is not a UUID")


def _as_nvml_names_it(entry: str) -> str:
    written = _WRITTEN.search(entry)
    if not written:
        return 'write one as NVML names it, such as "*MIG 1g.10gb" or "*MIG 1g.24gb+gfx"'
    slices, sign, more = written.groups()
    profile = slices.lower() + (f"{'-' if sign == '-' else '+'}{more.lower()}" if more else "")
    return f'write "*MIG {profile}", as NVML names it'


def _matches_an_instance(entry: str) -> bool:
    """Whether an entry can match a MIG instance of any product."""
    head = re.split(r"\bMIG\b|[1-9*?](?:c\.[1-9*?])?g\.", entry, maxsplit=1, flags=re.IGNORECASE)[0]
    product = re.sub(r"[*?]", "x", head.strip(" *")) or "NVIDIA"
    sizes = _SIZES | {int(found) for found in re.findall(r"[0-9]{1,4}", entry)}
    return any(
        glob_matches(entry, f"{product} MIG {compute}{slices}g.{size}gb{suffix}")
        for slices in range(1, 8)
        for compute in ("", *(f"{part}c." for part in range(1, slices)))
        for size in sizes
        for suffix in _SUFFIXES
    )


def _shadowed(sharing: Sharing) -> Iterator[Violation]:
    """Rules that never apply, since an earlier one matches everything they match."""
    shadows: dict[int, int] = {}
    for first, earlier in enumerate(sharing.rules):
        for number in range(first + 1, len(sharing.rules)):
            if number not in shadows and covers(earlier.match, sharing.rules[number].match):
                shadows[number] = first
    for number, first in sorted(shadows.items()):
        yield _warning(
            ("gpu", number, "match"),
            f"{show(sharing.rules[number].match)} never applies, since the earlier rule"
            f" {show(sharing.rules[first].match)} matches all of it: move this rule up, or"
            " remove it",
        )


def _variables(sharing: Sharing) -> Iterator[Violation]:
    """Resources whose SGPUD_* variables have the same names."""
    seen: dict[str, str] = {}
    for resource in sharing.resources:
        other = seen.setdefault(variable_prefix(resource, sharing.resources), resource)
        if other != resource:
            number = next(n for n, rule in enumerate(sharing.rules) if rule.resource == resource)
            yield _warning(
                ("gpu", number, "resource"),
                f"{show(resource)} has the same environment variables as {show(other)}, so a"
                " container that requests both sees those of one: choose another name after the"
                " slash",
            )


def _memory(sharing: Sharing) -> Iterator[Violation]:
    """Keys for memory shares if there are none, and keys for places if there are none."""
    terms = _all_terms(sharing)
    memory = [each for each in terms if each.share_memory]
    if sharing.reserve_memory and not memory:
        yield _warning(("sharing", "reserve_memory"), "is not used without share_memory: remove it")
    if sharing.full_guard and len(memory) == len(terms):
        yield _warning(
            ("sharing", "full_guard"),
            "is not used with share_memory, which accounts for memory itself: remove it",
        )
    for number, rule in enumerate(sharing.rules):
        if rule.factor and rule.share_memory:
            yield _warning(
                ("gpu", number, "duplication_factor"),
                "is not used with share_memory: remove one of them",
            )


def _context(config: Config) -> Iterator[Violation]:
    """Memory shares of which one alone would be a limit below what CUDA needs for itself."""
    sharing, limits = config.sharing, config.limits
    if limits.memory is MemoryLimits.OFF:
        return
    sizes: list[tuple[tuple[str | int, ...], int]] = [
        (("sharing", "share_memory"), sharing.default.share_memory)
    ]
    sizes += [
        (("gpu", number, "share_memory"), rule.share_memory or 0)
        for number, rule in enumerate(sharing.rules)
    ]
    for path, size in sizes:
        if size and limits.cap_terms.of(size) < CUDA_CONTEXT:
            yield _warning(
                path,
                f"is {format_size(size)}: where limits.memory applies, CUDA does not start in a"
                " container with a single share, since its context alone takes up to"
                f" {format_size(CUDA_CONTEXT)}. Use a larger size, have pods request several, or"
                " set limits.memory_context",
            )


def _container(sharing: Sharing) -> Iterator[Violation]:
    """A method that does not support several resources, and keys that the method does not use."""
    injection, default = sharing.injection, InjectionSettings()
    if injection.method is InjectionMethod.NVIDIA_RUNTIME and len(sharing.resources) > 1:
        yield _warning(
            ("container", "method"),
            '"nvidia-runtime" supports only one resource, but there are'
            f" {len(sharing.resources)}: a container that requests two of them sees the GPU of"
            ' one. Use "auto", "cdi" or "device-nodes"',
        )
    for name, users in _USERS:
        if injection.method not in users and getattr(injection, name) != getattr(default, name):
            yield _warning(
                ("container", name),
                f'is not used by method = "{injection.method.value}": remove it',
            )


def _overuse(config: Config) -> Iterator[Violation]:
    """Evictions without an API server to ask for them."""
    never = config.kubelet.api_server is ApiServerUse.NEVER
    if never and config.limits.overuse is OveruseAction.EVICT:
        yield _warning(
            ("limits", "overuse"),
            'is "evict", but evicts nobody while [kubelet] api_server is "never": overuse is only'
            " reported",
        )


def _fast_status(config: Config) -> Iterator[Violation]:
    """A fast status of what never changes, or without an API server."""
    kubelet = config.kubelet
    if not kubelet.fast_status or kubelet.api is KubeletApi.DRA:
        return
    if not _shares_memory(config.sharing):
        yield _warning(("kubelet", "fast_status"), "is not used without share_memory: remove it")
    elif kubelet.api_server is ApiServerUse.NEVER:
        yield _warning(("kubelet", "fast_status"), 'has no effect while api_server is "never"')


def _dra(config: Config) -> Iterator[Violation]:
    """What Dynamic Resource Allocation cannot do, and keys that only it reads."""
    sharing, dra = config.sharing, config.dra
    if config.kubelet.api is not KubeletApi.DRA:
        # Where the API server is, and what this Node is called there, matters without DRA too.
        if evolve(dra, kubeconfig="", node_name="") != DraConfig():
            yield _warning(
                ("dra",),
                'is not used with [kubelet] api = "device-plugin", but for kubeconfig and'
                " node_name: remove the rest",
            )
        return
    if config.kubelet.fast_status:
        yield _warning(
            ("kubelet", "fast_status"),
            'is not used with [kubelet] api = "dra", where the Node shows no shares: remove it',
        )
    if dra.evict is Evict.UNHEALTHY and config.kubelet.api_server is ApiServerUse.NEVER:
        yield _warning(
            ("dra", "evict"),
            'evicts pods with a claim only while [kubelet] api_server is "never": pods with limits'
            " stay on an unhealthy GPU",
        )
    if sharing.multiple in (Multiple.SAME, Multiple.ANY):
        yield _warning(
            ("sharing", "multiple"),
            f'"{sharing.multiple.value}" is impossible with [kubelet] api = "dra": there a pod that'
            " requests n gets n different GPUs. Write a claim for an amount of memory of one GPU"
            " (docs/dra.md)",
        )
    if any(terms.share_memory for terms in _all_terms(sharing)):
        yield _warning(
            ("kubelet", "api"),
            'is "dra": with share_memory a pod whose limits request n gets one share of each of n'
            " GPUs. Write a claim for more memory of one GPU (docs/dra.md)",
        )


def _all_terms(sharing: Sharing) -> tuple[ShareTerms, ...]:
    return (sharing.default, *(rule.terms(sharing.default) for rule in sharing.rules))
