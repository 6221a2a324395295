"""TLS to the API server by Python's own ssl, in threads that block and in the reactor.

Twisted's own needs pyOpenSSL and cryptography: 12 MiB for what Python brings along.
"""

from __future__ import annotations

import os
import re
import ssl
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IProtocolFactory
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from sgpud.cluster.credentials import Access, CredentialsError

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_NAME = re.compile(rb"\x06\x03\x55\x04\x03[\x0c\x13\x14\x16](.)", re.DOTALL)
"""In DER: the object identifier of a common name (X.520, 2.5.4.3), the type of its text, and its
length."""
_NODE = b"system:node:"
_CHUNK = 1 << 16


def context(access: Access) -> ssl.SSLContext:
    """How a server is checked, and what it is shown; CredentialsError."""
    try:
        made = ssl.create_default_context(cadata=access.ca.decode() or None)
        if access.certificate:
            # OpenSSL takes a path only, and the key may stand in the kubeconfig.
            descriptor = os.memfd_create("sgpud-key")
            try:
                os.write(descriptor, access.certificate + b"\n" + access.key)
                # Without a password here, OpenSSL would ask for one at the terminal.
                made.load_cert_chain(f"/proc/self/fd/{descriptor}", password=b"")
            finally:
                os.close(descriptor)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise CredentialsError(f"a certificate or key is invalid: {error}") from error
    return made


def node_of(access: Access) -> str:
    """The node whose kubelet the certificate is of, or empty."""
    found = _CERTIFICATE.search(access.certificate)
    if found is None:
        return ""
    try:
        encoded = ssl.PEM_cert_to_DER_cert(found[0].decode())
    except ValueError:
        return ""
    ends = ((each.end(), each.end() + each[1][0]) for each in _NAME.finditer(encoded))
    names = (encoded[start:end] for start, end in ends)
    named = next((name for name in names if name.startswith(_NODE)), b"")
    return named[len(_NODE) :].decode(errors="replace")


class TlsFactory(WrappingFactory):
    """Makes connections secure before the protocols of another factory speak over them."""

    noisy = False

    def __init__(self, factory: IProtocolFactory, how: ssl.SSLContext, name: str) -> None:
        """`name`: what the certificate of the server is for."""
        super().__init__(factory)
        self.how = how
        self.name = name

    def buildProtocol(self, addr: Any) -> TlsProtocol:
        """One connection."""
        factory: Any = self  # generic in newer versions of Twisted only
        return TlsProtocol(factory, self.wrappedFactory.buildProtocol(addr))


class TlsProtocol(ProtocolWrapper):
    """One secure connection, as its client.

    The inner protocol is connected at once: what it writes is kept until the server was checked.
    One that is not believed is a connection that was lost for that reason.
    """

    transport: Any

    def makeConnection(self, transport: Any) -> None:
        """Begin to greet."""
        self._received, self._encrypted = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = self.factory.how.wrap_bio(
            self._received, self._encrypted, server_hostname=self.factory.name
        )
        self._unsent = bytearray()
        self._checked = self._busy = False
        self._problem: ssl.SSLError | None = None
        super().makeConnection(transport)
        self._advance()

    def write(self, data: bytes) -> None:
        """Send it, now or once the server was checked."""
        self._unsent += data
        self._advance()

    def writeSequence(self, data: Any) -> None:
        """The same for parts."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Say goodbye and close; what was not sent is not."""
        with suppress(ssl.SSLError, ValueError):
            self._tls.unwrap()
        self._flush()
        super().loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Something came, encrypted."""
        self._received.write(data)
        self._advance()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """It is gone, for a reason of TLS or of TCP."""
        self.connected = 0
        super().connectionLost(Failure(self._problem) if self._problem else reason)

    def _advance(self) -> None:
        """Go on as far as what has come allows; the inner protocol may write meanwhile."""
        if self._busy or self._problem is not None:
            return
        self._busy = True
        try:
            self._exchange()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLZeroReturnError:
            self._flush()
            self.transport.loseConnection()
        except ssl.SSLError as error:
            # The alert that tells the server why, as well.
            self._flush()
            self._problem = error
            self.transport.loseConnection()
        finally:
            self._busy = False

    def _exchange(self) -> None:
        if not self._checked:
            self._tls.do_handshake()
            self._checked = True
        while True:
            while self._unsent:
                sent = self._tls.write(self._unsent)
                del self._unsent[:sent]
            self._flush()
            found = self._tls.read(_CHUNK)
            if not found:
                raise ssl.SSLZeroReturnError
            self.wrappedProtocol.dataReceived(found)

    def _flush(self) -> None:
        if self._encrypted.pending:
            self.transport.write(self._encrypted.read())
