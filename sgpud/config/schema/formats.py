"""The formats of strings: names, paths, addresses, sizes, durations."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from sgpud.core.gpu.gpu import looks_like_uuid
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
"""Bytes in the address of a unix socket, without the final NUL (unix(7))."""
SOCKET_NAME = 40
"""Bytes of sgpud's longest socket name."""
LONGEST_FOLDER = SUN_PATH - SOCKET_NAME - 1
"""Bytes of a folder's path that leave room for a slash and a socket's name."""

_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_CDI = re.compile(r"[A-Za-z]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_ENDPOINT = re.compile(
    r"tcp:([0-9]{1,5})(?::interface=([0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9a-fA-F]*(?:\\:[0-9a-fA-F]*){2,7}))?",
    re.ASCII,
)
_ADDRESS = re.compile(
    r"([0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9a-fA-F:]{2,45}\])?:([0-9]{1,5})", re.ASCII
)
_PORTS = 65_535
_POD_GLOB = re.compile(r"[-a-z0-9.*?]{1,253}/[-a-z0-9.*?]{1,253}")
_NATIVE = "kubernetes.io"
_QUOTA = "requests."
_DOMAIN_LENGTH = 253
_NAME_LENGTH = 63
_PATH_LENGTH = 4095
_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_HOST_LENGTH = 253
_ENTRY_LENGTH = 128
_EXAMPLE = 'use e.g. "example.com/shared-gpu"'


def resource_name(text: str) -> str | None:
    """Whether the kubelet accepts a string as the name of an extended resource.

    It asks for a qualified name outside of kubernetes.io that is still one with `requests.` before
    it, as quotas write it (IsExtendedResourceName, IsQualifiedName).
    """
    domain, slash, name = text.partition("/")
    longest = _DOMAIN_LENGTH - len(_QUOTA)
    checks = (
        (not slash, f"has no domain, {_EXAMPLE}"),
        ("/" in name, f"has more than one slash, {_EXAMPLE}"),
        (text.startswith(_QUOTA), f'begins with "{_QUOTA}", which is for quotas: remove it'),
        (
            domain.endswith(_NATIVE),
            f"is in the domain of Kubernetes, which the kubelet refuses: {_EXAMPLE}",
        ),
        (
            len(domain) > longest,
            f"has a domain of {len(domain)} characters, at most {longest} are allowed",
        ),
        (
            not _DOMAIN.fullmatch(domain),
            (
                "has an invalid domain: use lower-case letters, digits, dots and hyphens before"
                " the slash, with a letter or digit at both ends of every part"
            ),
        ),
        (
            len(name) > _NAME_LENGTH,
            f"has {len(name)} characters after the slash, at most {_NAME_LENGTH} are allowed",
        ),
        (
            not _NAME.fullmatch(name),
            (
                "has an invalid name: use letters, digits, dots, hyphens and underscores after"
                " the slash, with a letter or digit at both ends"
            ),
        ),
    )
    return next((wrong for found, wrong in checks if found), None)


def endpoint(text: str) -> str | None:
    """Whether a string is ADDRESS:PORT or one of Twisted's TCP endpoints; empty: none."""
    found = _ENDPOINT.fullmatch(twisted_endpoint(text))
    if not text or (found and 0 < int(found[1]) <= _PORTS):
        return None
    return 'is not an endpoint, e.g. "127.0.0.1:9449", or "tcp:9449" for all addresses'


def twisted_endpoint(text: str) -> str:
    """Twisted's endpoint string for `0.0.0.0:9449`, `[::1]:9449` or `:9449`; others unchanged."""
    found = _ADDRESS.fullmatch(text)
    if not found:
        return text
    address = (found[1] or "").strip("[]").replace(":", "\\:")
    return f"tcp:{found[2]}:interface={address}" if address else f"tcp:{found[2]}"


def host_name(text: str) -> str | None:
    """Whether a string is a host name, without a port."""
    if len(text) <= _HOST_LENGTH and _HOST.fullmatch(text):
        return None
    return 'is not a host name, e.g. "node-1.example.com", without a port'


def driver_name(text: str) -> str | None:
    """Whether a text is the name of a DRA driver: a DNS subdomain of at most 63 characters."""
    if _DOMAIN.fullmatch(text) and len(text) <= _NAME_LENGTH:
        return None
    return 'is not the name of a DRA driver, write one like "gpu.example.com"'


def node_name(text: str) -> str | None:
    """Whether a text is the name of a Node, or empty."""
    if not text or (_DOMAIN.fullmatch(text) and len(text) <= _DOMAIN_LENGTH):
        return None
    return 'is not the name of a Node, write it as `kubectl get nodes` does, or ""'


def path_or_nothing(text: str) -> str | None:
    """Whether a text is an absolute path in normal form, or empty."""
    return absolute_path(text) if text else None


def cdi_kind(text: str) -> str | None:
    """Whether a string is a CDI kind: vendor/class."""
    vendor, slash, cls = text.partition("/")
    if slash and _CDI.fullmatch(vendor) and _CDI.fullmatch(cls):
        return None
    return 'is not a CDI kind, vendor/class, e.g. "nvidia.com/gpu"'


def absolute_path(text: str) -> str | None:
    """Whether a string is an absolute path in normal form."""
    if not text.startswith("/"):
        return "is not an absolute path: it must begin with /"
    if not text.isprintable():
        return "contains a control character: remove it"
    if len(text.encode("utf-8", "replace")) > _PATH_LENGTH:
        return f"is longer than Linux allows, at most {_PATH_LENGTH} bytes"
    normal = "/" + posixpath.normpath(text).lstrip("/")
    return None if normal == text else f'is not in its shortest form: use "{normal}"'


def mount_point(text: str) -> str | None:
    """Whether a string is a possible mount point in a container."""
    return (
        "would hide the whole container: use a path below /"
        if text == "/"
        else (absolute_path(text))
    )


def socket_folder(text: str) -> str | None:
    """Whether a string is a folder in which every socket of sgpud has a valid address."""
    return absolute_path(text) or _address(text, LONGEST_FOLDER)


def socket_path(text: str) -> str | None:
    """Whether a string is the path of a socket that can be connected to."""
    return absolute_path(text) or _address(text, SUN_PATH)


def _address(text: str, longest: int) -> str | None:
    """Whether a path is valid in the address of a unix socket, and not too long."""
    if "%" in text:
        return "contains a %, which gRPC treats as an escape: use a path without it"
    size = len(text.encode("utf-8", "replace"))
    if size <= longest:
        return None
    more = SUN_PATH - longest
    total = f", and with {more} for a slash and the socket's name {size + more}" if more else ""
    return (
        f"is {size} bytes long{total}, but the address of a unix socket holds {SUN_PATH}:"
        f" use a path of at most {longest} bytes"
    )


def gpu_entry(text: str) -> str | None:
    """Whether a string can match a GPU: a UUID, an index, a PCI address or a product glob."""
    if not text.strip():
        return 'is empty: use a UUID, an index, a PCI address or a product, e.g. "NVIDIA A100*"'
    if text != text.strip() or not text.isprintable():
        return "has spaces around it or contains a control character: remove them"
    if len(text) > _ENTRY_LENGTH:
        return f"has {len(text)} characters, at most {_ENTRY_LENGTH} are allowed"
    if looks_like_uuid(text) and set(text) & set("*?"):
        return "is a UUID with a wildcard: use the whole UUID (`sgpud gpus` lists them)"
    return None


def size(least: int = 0) -> Rule:
    """A size: 0, or at least `least` bytes."""

    def rule(text: str) -> str | None:
        try:
            found = parse_size(text)
        except SizeError as error:
            return f"is not a size: {error.reason}"
        if 0 < found < least:
            return f'is too small: use at least "{format_size(least)}", or "0"'
        return None

    return rule


def amount(text: str) -> str | None:
    """A part of a GPU's memory: a percentage, or a size."""
    try:
        parse_amount(text)
    except SizeError as error:
        return f"is not an amount of memory: {error.reason}"
    return None


def amount_or_nothing(text: str) -> str | None:
    """An amount, or an empty string."""
    return amount(text) if text else None


ALWAYS = "always"


def amount_or_always(text: str) -> str | None:
    """An amount, or the word always."""
    wrong = None if text == ALWAYS else amount(text)
    return wrong and f'{wrong}, or "{ALWAYS}"'


def pod_glob(text: str) -> str | None:
    """Whether a string can match NAMESPACE/POD."""
    if _POD_GLOB.fullmatch(text):
        return None
    return 'is not NAMESPACE/POD with wildcards * and ?, e.g. "kube-system/*"'


def duration(least: float, most: float) -> Rule:
    """A duration in a range, in seconds."""

    def rule(text: str) -> str | None:
        try:
            found = parse_duration(text)
        except DurationError as error:
            return f"is not a duration: {error.reason}"
        if least <= found <= most:
            return None
        return f'is out of range: use "{format_duration(least)}" to "{format_duration(most)}"'

    return rule
