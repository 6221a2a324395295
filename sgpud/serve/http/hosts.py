"""Which Host headers are accepted: protects the node's pages from web pages (DNS rebinding).

A page in a browser on the node can request any address, also a loopback one, under a name of its
own that it resolves to this address. The browser then sends that name.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address

LOCAL = "localhost"


def accepted(header: str | None, names: Collection[str]) -> bool:
    """Whether a Host header is an IP address, `localhost` or one of these names, with any port."""
    host = _name(header or "")
    return bool(host) and (_is_address(host) or host in {LOCAL, *(name.lower() for name in names)})


def _name(header: str) -> str:
    """The host without its port, in lower case; empty for anything but a host."""
    text = header.strip().lower()
    if text.startswith("["):
        address, closed, port = text[1:].partition("]")
        return address if closed and _is_port(port) and ":" in address else ""
    name, colon, port = text.partition(":")
    return name.removesuffix(".") if _is_port(colon + port) else ""


def _is_port(text: str) -> bool:
    return not text or (text[0] == ":" and text[1:].isascii() and text[1:].isdigit())


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
