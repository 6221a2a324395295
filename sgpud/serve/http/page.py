"""The page at /: one file that requests nothing but this sgpud's own data.

Its policy allows the style and the script it contains, by their hashes, and nothing else: even a
name that was injected into the markup could load and run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

PAGE = (Path(__file__).parent / "page.html").read_bytes()
"""The page, as it is sent."""


def _hash(tag: bytes) -> str:
    """The hash of the content of the only element with this name."""
    found = re.search(rb"<%s>(.*?)</%s>" % (tag, tag), PAGE, re.DOTALL)
    text = found[1] if found else b""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; style-src {_hash(b'style')}; script-src {_hash(b'script')}; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""The Content-Security-Policy of the page."""
