"""What the text of a key may be: names, paths, addresses, sizes, durations."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from sgpud.core.units import (
    DurationError,
    SizeError,
    format_duration,
    format_size,
    parse_amount,
    parse_duration,
    parse_size,
)

Rule = Callable[[str], str | None]

SUN_PATH = 107
"""Bytes in the address of a unix socket, the closing NUL left out (unix(7))."""
SOCKET_NAME = 40
"""Bytes that sgpud's longest socket name takes."""
LONGEST_FOLDER = SUN_PATH - SOCKET_NAME - 1
"""Bytes of a folder's path that leave room for a slash and a socket's name."""

_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_CDI = re.compile(r"[A-Za-z]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_ENDPOINT = re.compile(
    r"tcp:([0-9]{1,5})(?::interface=([0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9a-fA-F]*(?:\\:[0-9a-fA-F]*){2,7}))?",
    re.ASCII,
)
_PORTS = 65_535
_NATIVE = "kubernetes.io"
_QUOTA = "requests."
_DOMAIN_LENGTH = 253
_NAME_LENGTH = 63
_PATH_LENGTH = 4095
_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_HOST_LENGTH = 253
_ENTRY_LENGTH = 128
_EXAMPLE = 'write one like "example.com/shared-gpu"'


def resource_name(text: str) -> str | None:
    """Whether the kubelet takes a text as the name of an extended resource.

    It asks for a qualified name outside of kubernetes.io that is still one with `requests.` before
    it, as quotas write it (IsExtendedResourceName, IsQualifiedName).
    """
    domain, slash, name = text.partition("/")
    longest = _DOMAIN_LENGTH - len(_QUOTA)
    checks = (
        (not slash, f"has no domain, {_EXAMPLE}"),
        ("/" in name, f"has more than one slash, {_EXAMPLE}"),
        (text.startswith(_QUOTA), f'begins with "{_QUOTA}", which quotas use: leave that out'),
        (
            domain.endswith(_NATIVE),
            f"is in the domain of Kubernetes itself, which the kubelet refuses: {_EXAMPLE}",
        ),
        (
            len(domain) > longest,
            f"has a domain of {len(domain)} characters, write at most {longest}",
        ),
        (
            not _DOMAIN.fullmatch(domain),
            (
                "has a domain that is none, write small letters, digits, dots and hyphens before"
                " the slash, with a letter or digit at both ends of every part"
            ),
        ),
        (
            len(name) > _NAME_LENGTH,
            f"has {len(name)} characters after the slash, write at most {_NAME_LENGTH}",
        ),
        (
            not _NAME.fullmatch(name),
            (
                "has a name that is none, write letters, digits, dots, hyphens and underscores"
                " after the slash, with a letter or digit at both ends"
            ),
        ),
    )
    return next((wrong for found, wrong in checks if found), None)


def endpoint(text: str) -> str | None:
    """Whether a text says where to listen, as Twisted's endpoint strings do; empty is nowhere."""
    found = _ENDPOINT.fullmatch(text)
    if not text or (found and 0 < int(found[1]) <= _PORTS):
        return None
    return 'is no endpoint, write "tcp:9449:interface=127.0.0.1", or "tcp:9449" for all addresses'


def host_name(text: str) -> str | None:
    """Whether a text is the name of a host, without a port."""
    if len(text) <= _HOST_LENGTH and _HOST.fullmatch(text):
        return None
    return 'is no name of a host, write "node-1.example.com", without a port'


def cdi_kind(text: str) -> str | None:
    """Whether a text is a CDI kind: vendor/class."""
    vendor, slash, cls = text.partition("/")
    if slash and _CDI.fullmatch(vendor) and _CDI.fullmatch(cls):
        return None
    return 'is no CDI kind, write vendor/class as in the specs\' "kind": "nvidia.com/gpu"'


def absolute_path(text: str) -> str | None:
    """Whether a text is an absolute path in normal form."""
    if not text.startswith("/"):
        return "is not an absolute path, write one that begins with /"
    if not text.isprintable():
        return "has a control character in it, leave it out"
    if len(text.encode("utf-8", "replace")) > _PATH_LENGTH:
        return f"is longer than Linux allows, write at most {_PATH_LENGTH} bytes"
    normal = "/" + posixpath.normpath(text).lstrip("/")
    return None if normal == text else f'is not in its shortest form, write "{normal}"'


def mount_point(text: str) -> str | None:
    """Whether a text is a path in a container where something can be mounted."""
    return (
        "would hide the whole container, write a path below /"
        if text == "/"
        else (absolute_path(text))
    )


def socket_folder(text: str) -> str | None:
    """Whether a text is a folder in which every socket of sgpud has a valid address."""
    return absolute_path(text) or _address(text, LONGEST_FOLDER)


def socket_path(text: str) -> str | None:
    """Whether a text is the path of a socket that can be called."""
    return absolute_path(text) or _address(text, SUN_PATH)


def _address(text: str, longest: int) -> str | None:
    """Whether a path can stand in the address of a unix socket, and is not longer than it may."""
    if "%" in text:
        return "has a % in it, which gRPC takes for an escape, write a path without"
    size = len(text.encode("utf-8", "replace"))
    if size <= longest:
        return None
    more = SUN_PATH - longest
    total = f", and with {more} for a slash and the socket's name {size + more}" if more else ""
    return (
        f"is {size} bytes long{total}, but the address of a unix socket holds {SUN_PATH}:"
        f" write a path of at most {longest} bytes"
    )


def gpu_entry(text: str) -> str | None:
    """Whether a text can mean a GPU: a UUID, an index, a PCI address or a product glob."""
    if not text.strip():
        return 'is empty, write a UUID, an index, a PCI address or a product such as "NVIDIA A100*"'
    if text != text.strip() or not text.isprintable():
        return "has blanks around it or a control character in it, leave them out"
    if len(text) > _ENTRY_LENGTH:
        return f"has {len(text)} characters, write at most {_ENTRY_LENGTH}"
    if text.startswith(("GPU-", "MIG-")) and set(text) & set("*?"):
        return "is a UUID with a wildcard, write the whole UUID (`sgpud gpus` lists them)"
    return None


def size(least: int = 0) -> Rule:
    """A size of memory: 0, or at least so many bytes."""

    def rule(text: str) -> str | None:
        try:
            found = parse_size(text)
        except SizeError as error:
            return f"is no size of memory: {error.reason}"
        if 0 < found < least:
            return f'is too small, write at least "{format_size(least)}", or "0"'
        return None

    return rule


def amount(text: str) -> str | None:
    """A part of a GPU's memory: a percentage, or a size."""
    try:
        parse_amount(text)
    except SizeError as error:
        return f"is no amount of memory: {error.reason}"
    return None


def amount_or_nothing(text: str) -> str | None:
    """An amount, or an empty text."""
    return amount(text) if text else None


def duration(least: float, most: float) -> Rule:
    """A duration in a range, in seconds."""

    def rule(text: str) -> str | None:
        try:
            found = parse_duration(text)
        except DurationError as error:
            return f"is no duration: {error.reason}"
        if least <= found <= most:
            return None
        return f'is out of range, write "{format_duration(least)}" to "{format_duration(most)}"'

    return rule
