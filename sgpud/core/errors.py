"""The errors of sgpud: each carries its data, and is turned into text at the edge."""

from __future__ import annotations


class SgpudError(Exception):
    """The root of everything that sgpud raises on purpose."""

    exit_status = 1
    """Of a command that ends with it."""
