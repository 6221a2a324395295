"""Calls to the API server from the reactor: JSON requests, and watches."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any, Protocol
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol as WireProtocol
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, FileBodyProducer, HTTPConnectionPool, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from sgpud import __version__
from sgpud.bridge import Reactor, Timer, in_thread
from sgpud.cluster import tls
from sgpud.cluster.calls import UNAUTHORIZED, ApiCall, ApiError
from sgpud.cluster.credentials import Access, Credentials

AGENT = f"sgpud/{__version__}"
CONNECT_WITHIN = 5.0
ANSWER_WITHIN = 20.0
"""Seconds for a whole answer."""
LARGEST = 16 << 20
"""Bytes of an answer."""
LONGEST_LINE = 4 << 20
"""Bytes of one event of a watch."""
IDLE = 120.0
"""Seconds without an event: bookmarks come about once a minute."""
_SHOWN = 300


class Connected(Protocol):
    """A connection that can be cut."""

    def abortConnection(self) -> None:
        """Cut it."""


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """Connects to one host, with TLS unless it is this machine's plain port."""

    def __init__(self, reactor: Reactor, access: Access, made: Callable[[Connected], None]) -> None:
        self._endpoint = HostnameEndpoint(reactor, access.host, access.port, CONNECT_WITHIN)
        self._context = None if access.plain else tls.context(access)
        self._name = access.name or access.host
        self._made = made

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """Connect; fires with the protocol that the factory makes."""
        if self._context is None:
            return self._endpoint.connect(protocolFactory).addCallback(self._plain)
        wrapped = tls.TlsFactory(protocolFactory, self._context, self._name)
        return self._endpoint.connect(wrapped).addCallback(self._secured)

    def _plain(self, protocol: Any) -> Any:
        self._made(protocol.transport)
        return protocol

    def _secured(self, wrapper: Any) -> Any:
        self._made(wrapper)
        if ITCPTransport.providedBy(wrapper.transport):
            wrapper.transport.setTcpKeepAlive(True)
        return wrapper.wrappedProtocol


@implementer(IAgentEndpointFactory)
class _Endpoints:
    def __init__(self, endpoint: _Endpoint) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, _uri: URI) -> IStreamClientEndpoint:
        return self._endpoint


class ApiClient:
    """Calls the API server with the credentials as they are at the time."""

    def __init__(self, reactor: Reactor, credentials: Credentials) -> None:
        """Nothing is connected before the first call."""
        self._reactor = reactor
        self._credentials = credentials
        self._access: Access | None = None
        self._agent: Any = None
        self._pool: HTTPConnectionPool | None = None
        self._connections: list[Connected] = []

    async def call(self, call: ApiCall) -> dict[str, Any]:
        """The JSON object that the server answers; ApiError or CredentialsError."""
        try:
            return await self._called(call, refresh=False)
        except ApiError as error:
            if error.status != UNAUTHORIZED:
                raise
        return await self._called(call, refresh=True)

    async def watch(self, call: ApiCall, event: Callable[[dict[str, Any]], None]) -> None:
        """Tell each event of a watch; returns when the server ends it, ApiError when it breaks."""
        response = await self._requested(call, refresh=False)
        if response.code != 200:  # noqa: PLR2004 - OK
            raise _error(response, await self._body(response))
        done: Deferred[None] = Deferred(lambda _: self.reset())
        response.deliverBody(_Lines(self._reactor, event, done, self.reset))
        await done

    def reset(self) -> None:
        """Cut every connection: one that hangs may not be the only one."""
        connections, self._connections = self._connections, []
        if self._pool is not None:
            self._pool.closeCachedConnections()
        self._access = self._agent = self._pool = None
        for connection in connections:
            connection.abortConnection()

    async def _called(self, call: ApiCall, *, refresh: bool) -> dict[str, Any]:
        response = await self._requested(call, refresh=refresh)
        raw = await self._body(response)
        if not 200 <= response.code < 300:  # noqa: PLR2004 - success
            raise _error(response, raw)
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ApiError(0, f"{call.method} {call.path}: the answer is not a JSON object")
        return found

    async def _requested(self, call: ApiCall, *, refresh: bool) -> IResponse:
        access = await in_thread(self._reactor, lambda: self._credentials.access(refresh=refresh))
        if access != self._access:
            self.reset()
            self._pool = HTTPConnectionPool(self._reactor)
            endpoints = _Endpoints(_Endpoint(self._reactor, access, self._connections.append))
            self._agent = Agent.usingEndpointFactory(self._reactor, endpoints, self._pool)
            self._access = access
        # Closed ones leave the list, so that it stays as short as the pool.
        self._connections = [one for one in self._connections if _is_open(one)][-8:]
        headers = Headers({"User-Agent": [AGENT], "Accept": ["application/json"]})
        for name, value in access.headers.items():
            headers.addRawHeader(name, value)
        body = None
        if call.body is not None:
            headers.addRawHeader("Content-Type", call.content_type)
            body = FileBodyProducer(BytesIO(json.dumps(call.body).encode()))
        scheme = "http" if access.plain else "https"
        query = f"?{urlencode(call.query)}" if call.query else ""
        url = f"{scheme}://{access.netloc}{access.prefix}{call.path}{query}"
        asked = self._agent.request(call.method.encode(), url.encode(), headers, body)
        try:
            response: IResponse = await _within(asked, ANSWER_WITHIN, self._reactor)
        except Exception as error:
            raise ApiError(0, f"no answer from {access.netloc}: {_why(error)}") from error
        return response

    async def _body(self, response: IResponse) -> bytes:
        done: Deferred[bytes] = Deferred(lambda _: self.reset())
        response.deliverBody(_Collector(done))
        raw: bytes = await _within(done, ANSWER_WITHIN, self._reactor)
        return raw


def _is_open(connection: Any) -> bool:
    return bool(getattr(connection, "connected", True))


def _within(waiting: Deferred[Any], seconds: float, clock: Any) -> Deferred[Any]:
    return waiting.addTimeout(
        seconds, clock, lambda _, after: Failure(ApiError(0, f"no answer within {after:g} s"))
    )


def _why(error: BaseException | None) -> str:
    reasons = getattr(error, "reasons", None) or [error]
    first = reasons[0].value if isinstance(reasons[0], Failure) else reasons[0]
    return " ".join((str(first) or type(first).__name__).split())[:_SHOWN]


def _error(response: IResponse, raw: bytes) -> ApiError:
    """What the server says about a call that it refused: a Status, or just text."""
    try:
        problem = str(json.loads(raw)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        problem = raw.decode(errors="replace")
    waits = response.headers.getRawHeaders("Retry-After") or [""]
    seconds = float(waits[0]) if waits[0].isascii() and waits[0].isdigit() else 0.0
    text = " ".join(problem.split())[:_SHOWN] or "no reason was given"
    return ApiError(response.code, text, min(seconds, 300.0))


class _Collector(WireProtocol):
    """The body of an answer, as long as it is not too long."""

    def __init__(self, done: Deferred[bytes]) -> None:
        self._done = done
        self._parts: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= LARGEST:
            self._parts.append(data)
        elif not self._done.called:
            self._done.errback(ApiError(0, f"the answer is larger than {LARGEST} bytes"))

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:  # noqa: B008
        if self._done.called:
            return
        if reason.check(ResponseDone) or "PotentialDataLoss" in str(reason.type):
            self._done.callback(b"".join(self._parts))
        else:
            self._done.errback(ApiError(0, f"the answer broke off: {_why(reason.value)}"))


class _Lines(WireProtocol):
    """The events of a watch: a JSON object per line."""

    def __init__(
        self,
        clock: Reactor,
        event: Callable[[dict[str, Any]], None],
        done: Deferred[None],
        cut: Callable[[], None],
    ) -> None:
        self._event = event
        self._done = done
        self._cut = cut
        self._rest = b""
        self._idle = Timer(clock)

    def connectionMade(self) -> None:
        self._idle.set(IDLE, lambda: self._broke(f"nothing came for {IDLE:g} s"))

    def dataReceived(self, data: bytes) -> None:
        if self._done.called:
            return
        if self._idle.active:
            self.connectionMade()
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            self._broke(f"an event is larger than {LONGEST_LINE} bytes")
            return
        for line in lines:
            if not line.strip():
                continue
            try:
                found = json.loads(line)
                if not isinstance(found, dict):
                    raise TypeError(found)  # noqa: TRY301 - as any other that is none
                self._event(found)
            except ApiError as error:
                self._broke(error)
                return
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                self._broke(f"an event is invalid: {error}")
                return

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:  # noqa: B008
        self._idle.cancel()
        if self._done.called:
            return
        if reason.check(ResponseDone) or "PotentialDataLoss" in str(reason.type):
            self._done.callback(None)
        else:
            self._done.errback(ApiError(0, f"the watch broke off: {_why(reason.value)}"))

    def _broke(self, problem: str | ApiError) -> None:
        self._idle.cancel()
        error = problem if isinstance(problem, ApiError) else ApiError(0, problem)
        if not self._done.called:
            self._done.errback(error)
        self._cut()
