#!/usr/bin/env python3
"""What an image, or another file, holds, as SPDX 2.3.

`python3 tools/spdx.py NAME DIGEST REVISION EPOCH PINS < LIST` is for an image. LIST has a line for
each Debian package: name, version and architecture, with tabs between. PINS is the requirements
file of what the .deb carries beside. The document depends on these alone.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

_UNKNOWN = "NOASSERTION"
_WHOLE = "SPDXRef-whole"


def document(
    name: str,
    digest: str,
    revision: str,
    epoch: int,
    packages: Iterable[dict[str, Any]],
    purpose: str = "CONTAINER",
) -> dict[str, Any]:
    """The whole document. `purpose`: what it is about, as SPDX has it."""
    held = [_whole(name, digest, revision, purpose), *packages]
    content = json.dumps(held, sort_keys=True).encode()
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://spdx.org/spdxdocs/sgpud-{sha256(content).hexdigest()}",
        "creationInfo": {
            "created": datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: sgpud-tools-spdx"],
        },
        "packages": held,
        "relationships": [
            _relation("SPDXRef-DOCUMENT", "DESCRIBES", _WHOLE),
            *(_relation(_WHOLE, "CONTAINS", each["SPDXID"]) for each in held[1:]),
        ],
    }


def debian_packages(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The packages that dpkg knows."""
    for line in sorted(lines):
        name, version, architecture = line.rstrip("\n").split("\t")
        purl = f"pkg:deb/debian/{name}@{version}?arch={architecture}&distro=bookworm"
        yield _package(name, version, f"deb-{name}", purl)


def carried_packages(pins: str) -> Iterator[dict[str, Any]]:
    """The Python packages that the .deb carries itself."""
    for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", pins, re.MULTILINE):
        yield _package(name, version, f"pypi-{name}", f"pkg:pypi/{name}@{version}")


def _package(name: str, version: str, identity: str, purl: str) -> dict[str, Any]:
    return {
        "SPDXID": f"SPDXRef-{re.sub('[^A-Za-z0-9.-]', '-', identity)}",
        "name": name,
        "versionInfo": version,
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "licenseConcluded": _UNKNOWN,
        "licenseDeclared": "Apache-2.0" if name == "sgpud" else _UNKNOWN,
        "copyrightText": _UNKNOWN,
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": purl,
            }
        ],
    }


def _whole(name: str, digest: str, revision: str, purpose: str) -> dict[str, Any]:
    return {
        "SPDXID": _WHOLE,
        "name": name,
        "versionInfo": digest,
        "comment": f"built from revision {revision}",
        "primaryPackagePurpose": purpose,
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "licenseConcluded": _UNKNOWN,
        "licenseDeclared": _UNKNOWN,
        "copyrightText": _UNKNOWN,
    }


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


def main(arguments: list[str]) -> None:
    """Read the packages, write the document."""
    name, digest, revision, epoch, pins = arguments
    held = [*debian_packages(sys.stdin), *carried_packages(Path(pins).read_text())]
    json.dump(document(name, digest, revision, int(epoch), held), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main(sys.argv[1:])
