"""Reads a ResourceClaim in a thread that may wait: gRPC's worker that prepares it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Event

from sgpud.cluster import tls
from sgpud.cluster.credentials import Access, Credentials, CredentialsError
from sgpud.core.dra.claims import AllocatedClaim
from sgpud.core.dra.objects import API, ClaimError, claim_of
from sgpud.core.errors import SgpudError

TRY_WITHIN = 5.0
"""Seconds for one try."""
PAUSES = (0.1, 0.3, 0.6, 1.0, 2.0)
"""Seconds between two tries. An error costs the pod 11 to 15 s, and a refusal is often only that of
an authorizer that has not seen the pod yet."""
LARGEST = 1 << 20
"""Bytes of a claim: etcd keeps no larger object."""
OK, UNAUTHORIZED = 200, 401


class UnreadableClaimError(SgpudError):
    """A claim that could not be read in time."""

    def __init__(self, claim: str, problem: str) -> None:
        """`problem`: that of the last try."""
        super().__init__(claim, problem)
        self.claim, self.problem = claim, problem

    def __str__(self) -> str:
        """Which claim, and why not."""
        return f"cannot read ResourceClaim {self.claim}: {self.problem}"


class NoAnswerError(SgpudError):
    """A GET that got nothing."""

    def __init__(self, status: int, problem: str) -> None:
        """`status`: of HTTP; 0: there was no answer."""
        super().__init__(status, problem)
        self.status, self.problem = status, problem

    def __str__(self) -> str:
        """The problem."""
        return self.problem


class ClaimReader:
    """Reads claims from the API server; each call has a connection of its own."""

    def __init__(self, credentials: Credentials, driver: str, seconds: Callable[[], float]) -> None:
        """`seconds`: of a monotonic clock."""
        self._credentials = credentials
        self._driver = driver
        self._seconds = seconds
        self._closed = Event()

    def open(self) -> None:
        """Read, also after `close`."""
        self._closed.clear()

    def close(self) -> None:
        """End the waits."""
        self._closed.set()

    def read(self, namespace: str, name: str, uid: str, within: float) -> AllocatedClaim:
        """The claim of this name and UID; UnreadableClaimError or ClaimError."""
        end = self._seconds() + within
        problem, refresh = "", False
        for pause in (*PAUSES, *[PAUSES[-1]] * 20):
            left = end - self._seconds()
            if left <= 0 or self._closed.is_set():
                break
            try:
                claim = claim_of(
                    self._get(namespace, name, min(left, TRY_WITHIN), refresh=refresh), self._driver
                )
                if claim.uid == uid:
                    return claim
                problem = f"its UID is {claim.uid}, not {uid}: it was deleted and created again"
            except (NoAnswerError, CredentialsError, ClaimError) as error:
                problem = str(error)
                refresh = problem.startswith(str(UNAUTHORIZED))
            self._closed.wait(min(pause, max(0.0, end - self._seconds())))
        raise UnreadableClaimError(f"{namespace}/{name}", problem or "sgpud is stopping")

    def _get(self, namespace: str, name: str, within: float, *, refresh: bool) -> object:
        path = f"/apis/{API}/namespaces/{namespace}/resourceclaims/{name}"
        return get(self._credentials.access(refresh=refresh), path, within)


def get(access: Access, path: str, within: float) -> object:
    """What the API server has at a path, as JSON; NoAnswerError. Blocks."""
    return call_now(access, "GET", path, within)


def call_now(
    access: Access, method: str, path: str, within: float, body: object = None, content: str = ""
) -> object:
    """What the API server answers, as JSON; NoAnswerError. Blocks. `content`: the body's type."""
    connection = _connection(access, within)
    try:
        headers = {**access.headers, "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content or "application/json"
        sent = None if body is None else json.dumps(body)
        connection.request(method, f"{access.prefix}{path}", sent, headers)
        response = connection.getresponse()
        raw = response.read(LARGEST + 1)
    except (OSError, HTTPException, ValueError) as error:
        text = " ".join((str(error) or type(error).__name__).split())
        raise NoAnswerError(0, f"no answer from {access.netloc}: {text}") from error
    finally:
        connection.close()
    if response.status != OK:
        raise NoAnswerError(response.status, f"{response.status}: {_message(raw)}")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise NoAnswerError(0, "the answer is not JSON") from error


def _connection(access: Access, within: float) -> HTTPConnection:
    if access.plain:
        return HTTPConnection(access.host, access.port, timeout=within)
    context = tls.context(access)
    if not access.name:
        return HTTPSConnection(access.host, access.port, timeout=within, context=context)
    return _NamedConnection(access, within, context)


class _NamedConnection(HTTPSConnection):
    """To a server whose certificate is for another name than its host's."""

    def __init__(self, access: Access, within: float, context: ssl.SSLContext) -> None:
        super().__init__(access.host, access.port, timeout=within, context=context)
        self._name, self._secure = access.name, context

    def connect(self) -> None:
        """Connect, and check the certificate for that name."""
        HTTPConnection.connect(self)
        self.sock = self._secure.wrap_socket(self.sock, server_hostname=self._name)


def _message(raw: bytes) -> str:
    try:
        return str(json.loads(raw)["message"])[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        return raw.decode(errors="replace")[:300]
