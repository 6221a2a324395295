"""TLS to the API server: from the reactor and from a thread, as a node with its certificate."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from twisted.internet import reactor as installed  # noqa: TID251 - it runs what is tested
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import TestCase

from sgpud.cluster import tls
from sgpud.cluster.calls import ApiCall, ApiError
from sgpud.cluster.claims import ClaimReader, UnreadableClaimError
from sgpud.cluster.client import ApiClient
from sgpud.cluster.credentials import Credentials
from tests.cluster.certificates import Pair, authority

reactor: Any = installed
Steps = Any
CLAIM = {
    "metadata": {"name": "c", "namespace": "n", "uid": "u"},
    "status": {"allocation": {"devices": {"results": []}}},
}
AUTHORITY, OTHER = authority(), authority("other")
SERVER = AUTHORITY.signs("kube-apiserver", "127.0.0.1")
NODE = AUTHORITY.signs("system:node:worker-7")


class Handler(BaseHTTPRequestHandler):
    """Tells who called."""

    def do_GET(self) -> None:
        connection: Any = self.connection
        subject = dict(part[0] for part in connection.getpeercert()["subject"])
        raw = json.dumps({**CLAIM, "caller": subject["commonName"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
        pass


class Server(ThreadingHTTPServer):
    """Says nothing of handshakes that fail: they are what is tested."""

    accepted = 0

    def process_request(self, request: Any, client_address: Any) -> None:
        self.accepted += 1
        super().process_request(request, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class Echo(BaseHTTPRequestHandler):
    """Sends back what comes, in an answer of many pieces; the connection stays."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        for start in range(0, len(raw), 5000):
            self.wfile.write(raw[start : start + 5000])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
        pass


class TlsTest(TestCase):
    timeout = 30

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (self.folder / "server.pem").write_bytes(SERVER.certificate + SERVER.key)
        context.load_cert_chain(self.folder / "server.pem")
        context.load_verify_locations(cadata=AUTHORITY.pair.certificate.decode())
        context.verify_mode = ssl.CERT_REQUIRED
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        thread = Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)

    def credentials(
        self, ca: bytes = AUTHORITY.pair.certificate, pair: Pair = NODE, name: str = ""
    ) -> Credentials:
        (self.folder / "node.pem").write_bytes(pair.certificate + pair.key)
        found = {
            "server": f"https://127.0.0.1:{self.server.server_address[1]}",
            "certificate-authority-data": b64encode(ca).decode(),
            "tls-server-name": name,
        }
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": found}],
            # The kubelet's own file names the same PEM for both.
            "users": [
                {"name": "u", "user": {"client-certificate": "node.pem", "client-key": "node.pem"}}
            ],
        }
        path = self.folder / "kubelet.conf"
        path.write_text(json.dumps(config))
        return Credentials(str(path), {}, time.time)

    def get(self, credentials: Credentials) -> Deferred[dict[str, Any]]:
        client = ApiClient(reactor, credentials)
        self.addCleanup(client.reset)
        return Deferred.fromCoroutine(client.call(ApiCall("GET", "/x")))

    @inlineCallbacks
    def test_the_reactor_calls_as_the_node(self) -> Steps:
        answer = yield self.get(self.credentials())
        assert answer["caller"] == "system:node:worker-7"

    def test_a_thread_calls_as_the_node(self) -> None:
        reader = ClaimReader(self.credentials(), "d", time.monotonic)
        assert reader.read("n", "c", "u", 5).uid == "u"

    @inlineCallbacks
    def test_a_large_body_comes_and_goes_whole_over_one_connection(self) -> Steps:
        self.server.RequestHandlerClass = Echo
        client = ApiClient(reactor, self.credentials())
        self.addCleanup(client.reset)
        body = {"text": "".join(map(str, range(60_000)))}
        for _ in range(3):
            call = client.call(ApiCall("POST", "/x", (), body))
            answer = yield Deferred.fromCoroutine(call)
            assert answer == body
        assert self.server.accepted == 1

    @inlineCallbacks
    def test_a_server_that_ends_in_the_greeting_is_no_answer(self) -> Steps:
        credentials = self.credentials(pair=OTHER.signs("system:node:worker-7"))
        with self.assertRaises(ApiError):
            yield self.get(credentials)

    @inlineCallbacks
    def test_another_authority_is_not_believed(self) -> Steps:
        credentials = self.credentials(OTHER.pair.certificate)
        with self.assertRaisesRegex(ApiError, "certificate"):
            yield self.get(credentials)
        reader = ClaimReader(credentials, "d", time.monotonic)
        with self.assertRaisesRegex(UnreadableClaimError, "certificate"):
            reader.read("n", "c", "u", 0.2)

    @inlineCallbacks
    def test_a_name_that_the_certificate_has_not_is_not_believed(self) -> Steps:
        credentials = self.credentials(name="evil.example.com")
        with self.assertRaises(ApiError):
            yield self.get(credentials)
        reader = ClaimReader(credentials, "d", time.monotonic)
        with self.assertRaisesRegex(UnreadableClaimError, "evil.example.com"):
            reader.read("n", "c", "u", 0.2)

    @inlineCallbacks
    def test_a_name_of_its_own_is_checked_instead_of_the_address(self) -> Steps:
        credentials = self.credentials(name="api.example.com")
        answer = yield self.get(credentials)
        assert answer["caller"] == "system:node:worker-7"
        reader = ClaimReader(credentials, "d", time.monotonic)
        assert reader.read("n", "c", "u", 5).uid == "u"

    @inlineCallbacks
    def test_a_certificate_that_rotates_is_used_from_then_on(self) -> Steps:
        client = ApiClient(reactor, self.credentials())
        self.addCleanup(client.reset)
        ask = ApiCall("GET", "/x")
        yield Deferred.fromCoroutine(client.call(ask))
        fresh = AUTHORITY.signs("system:node:worker-7-rotated")
        (self.folder / "node.pem").write_bytes(fresh.certificate + fresh.key)
        answer = yield Deferred.fromCoroutine(client.call(ask))
        assert answer["caller"] == "system:node:worker-7-rotated"

    def test_the_certificate_names_the_node(self) -> None:
        assert tls.node_of(self.credentials().access()) == "worker-7"
        other = self.credentials(pair=AUTHORITY.signs("somebody"))
        assert tls.node_of(other.access()) == ""


@pytest.mark.slow
def test_the_command_does_without_pyopenssl() -> None:
    code = (
        "import sys; sys.modules['OpenSSL'] = None;"  # as the command does
        "import sgpud.cli.main, sgpud.__main__ as _; from sgpud import app;"
        "late = ('sgpud.cluster.', 'sgpud.composition.dra', 'sgpud.composition.cluster_parts',"
        " 'sgpud.core.cluster', 'sgpud.kubelet.dra', 'sgpud.core.dra');"
        "print(sorted(m for m in sys.modules if m.startswith(late)));"
        "import sgpud.composition.dra; print(sys.modules['OpenSSL'], 'cryptography' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == ["[]", "None False"]


@pytest.mark.slow
def test_an_encrypted_key_is_refused_and_no_terminal_asked_for_its_password(tmp_path: Path) -> None:
    key = serialization.load_pem_private_key(NODE.key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (tmp_path / "pair").write_bytes(NODE.certificate + key)
    code = (
        "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "from sgpud.cluster import tls; from sgpud.cluster.credentials import Access;"
        "tls.context(Access('127.0.0.1', 1, certificate=open(sys.argv[1], 'rb').read()))"
    )
    ours, terminal = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "pair")],
            stdin=terminal,
            start_new_session=True,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(terminal)
    assert "a certificate or key is invalid" in done.stderr
