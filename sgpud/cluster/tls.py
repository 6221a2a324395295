"""TLS to the API server: for the reactor, and for threads that block."""

from __future__ import annotations

import os
import re
import ssl
import sys

# The command keeps Twisted from importing pyOpenSSL, since a device plugin speaks no TLS.
if sys.modules.get("OpenSSL", ssl) is None:
    del sys.modules["OpenSSL"]

from OpenSSL.SSL import Error as OpenSslError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    KeyPair,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)

from sgpud.cluster.credentials import Access, CredentialsError

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_NODE = "system:node:"
COMMON_NAME = "2.5.4.3"
"""The object identifier of a subject's common name (X.520)."""


def connection_creator(access: Access) -> IOpenSSLClientConnectionCreator:
    """What makes the reactor's TLS connections; CredentialsError where a certificate is bad."""
    try:
        authorities = [Certificate.loadPEM(pem) for pem in _CERTIFICATE.findall(access.ca)]
        own = None
        if access.certificate:
            key = KeyPair.load(access.key, 1)
            own = PrivateCertificate.fromCertificateAndKeyPair(
                Certificate.loadPEM(access.certificate), key
            )
        if access.ca and not authorities:
            raise CredentialsError("the certificate authority is not a PEM certificate")
        return optionsForClientTLS(
            access.name or access.host,
            trustRoot=trustRootFromCertificates(authorities) if authorities else None,
            clientCertificate=own,
        )
    except (OpenSslError, ValueError, TypeError) as error:
        raise CredentialsError(f"a certificate or key is invalid: {error}") from error


def blocking_context(access: Access) -> ssl.SSLContext:
    """The same for a thread."""
    try:
        context = ssl.create_default_context(cadata=access.ca.decode() or None)
        if access.certificate:
            # OpenSSL takes a path only, and the key may stand in the kubeconfig.
            descriptor = os.memfd_create("sgpud-key")
            try:
                os.write(descriptor, access.certificate + b"\n" + access.key)
                context.load_cert_chain(f"/proc/self/fd/{descriptor}")
            finally:
                os.close(descriptor)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise CredentialsError(f"a certificate or key is invalid: {error}") from error
    return context


def node_of(access: Access) -> str:
    """The node whose kubelet the certificate is of, or empty."""
    try:
        subject = Certificate.loadPEM(access.certificate).original.to_cryptography().subject
    except (OpenSslError, ValueError, TypeError):
        return ""
    named = (str(each.value) for each in subject if each.oid.dotted_string == COMMON_NAME)
    name = next(named, "")
    return name[len(_NODE) :] if name.startswith(_NODE) else ""
