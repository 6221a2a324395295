"""Credentials: every way to have them, what is refused, and when they are read again."""

from __future__ import annotations

import json
import os
import stat
import sys
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sgpud.cluster.credentials import (
    ACCOUNT,
    KUBELET_FILES,
    Access,
    Credentials,
    CredentialsError,
)

NOW = 1_790_000_000.0


def kubeconfig(
    folder: Path, user: Mapping[str, Any], server: str = "https://192.0.2.1:6443", **cluster: Any
) -> Path:
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": dict(user)}],
    }
    path = folder / "config"
    path.write_text(json.dumps(document))
    return path


def token_of(access: Access) -> str:
    return access.token


def read(path: Path, now: float = NOW) -> Credentials:
    return Credentials(str(path), {}, lambda: now)


def test_a_token_and_data_in_the_file(tmp_path: Path) -> None:
    ca = b64encode(b"CA").decode()
    path = kubeconfig(tmp_path, {"token": "abc"}, **{"certificate-authority-data": ca})
    access = read(path).access()
    assert (access.host, access.port, access.token, access.ca) == (
        "192.0.2.1", 6443, "abc", b"CA",
    )  # fmt: skip
    assert access.headers == {"Authorization": "Bearer abc"}


def test_yaml_as_kubeadm_writes_it_with_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("CA")
    (tmp_path / "node.pem").write_text("BOTH")
    path = tmp_path / "kubelet.conf"
    path.write_text(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: k\n  cluster:\n"
        "    certificate-authority: ca.crt\n    server: https://[2001:db8::1]:6443/prefix/\n"
        "users:\n- name: u\n  user:\n    client-certificate: node.pem\n    client-key: node.pem\n"
        "contexts:\n- name: c\n  context: {cluster: k, user: u}\ncurrent-context: c\n"
    )
    access = read(path).access()
    assert (access.netloc, access.prefix) == ("[2001:db8::1]:6443", "/prefix")
    assert (access.ca, access.certificate, access.key) == (b"CA", b"BOTH", b"BOTH")


def test_a_service_account_and_its_token_that_rotates(tmp_path: Path) -> None:
    folder = tmp_path / ACCOUNT
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_text("CA")
    (folder / "token").write_text("one\n")
    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    found = Credentials("", environment, lambda: NOW, tmp_path)
    assert token_of(found.access()) == "one"
    draft = folder / "draft"
    draft.write_text("two")
    draft.replace(folder / "token")
    assert token_of(found.access()) == "two"


def test_the_kubelets_own_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / KUBELET_FILES[2]
    path.parent.mkdir(parents=True)
    kubeconfig(path.parent, {"token": "x"}).rename(path)
    assert token_of(Credentials("", {}, lambda: NOW, tmp_path).access()) == "x"


def test_nothing_at_all_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match=r"kubelet\.conf.*set \[dra\] kubeconfig"):
        Credentials("", {}, lambda: NOW, tmp_path).access()


@pytest.mark.slow
def test_a_plugin_is_run_until_its_credential_expires(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    script = tmp_path / "plugin"
    # 1 790 014 400 seconds since the epoch.
    answer = '{"status": {"token": "t%d", "expirationTimestamp": "2026-09-21T18:13:20Z"}}'
    script.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"open({str(calls)!r}, 'a').write('x')\n"
        "told = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "assert told['spec']['cluster']['server'].startswith('https://')\n"
        "assert sys.argv[1:] == ['get'] and os.environ['REGION'] == 'eu'\n"
        f"print({answer!r} % os.path.getsize({str(calls)!r}))\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "./plugin",
            "args": ["get"],
            "env": [{"name": "REGION", "value": "eu"}],
            "provideClusterInfo": True,
        }
    }
    path = kubeconfig(tmp_path, user)
    now = NOW
    found = Credentials(str(path), dict(os.environ), lambda: now)
    assert [token_of(found.access()) for _ in range(2)] == ["t1", "t1"]
    assert token_of(found.access(refresh=True)) == "t2"
    now = 1_790_014_400.0
    assert token_of(found.access()) == "t3"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("user", "server", "cluster", "says"),
    [
        ({"auth-provider": {"name": "gcp"}}, "https://a", {}, "auth-provider is obsolete"),
        ({"token": "a b"}, "https://a", {}, "not a token"),
        ({"tokenFile": "absent"}, "https://a", {}, "cannot read .*absent: No such file"),
        ({}, "ftp://a", {}, "server is not a URL"),
        ({}, "https://a:99999", {}, "server: Port out of range"),
        ({}, "http://192.0.2.1", {}, "speaks TLS only"),
        ({}, "https://a", {"insecure-skip-tls-verify": True}, "name an authority instead"),
        ({}, "https://a", {"proxy-url": "http://p"}, "proxy-url is not supported"),
        ({}, "https://a", {"certificate-authority-data": "?"}, "is not base64"),
        ({"exec": {"apiVersion": "v0", "command": "x"}}, "https://a", {}, "v0 is not supported"),
        (
            {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/false"}},
            "https://a",
            {},
            "exec /bin/false failed",
        ),
        (
            {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/true"}},
            "https://a",
            {},
            "did not print an ExecCredential",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_file_and_the_reason(
    tmp_path: Path, user: Mapping[str, Any], server: str, cluster: Mapping[str, Any], says: str
) -> None:
    with pytest.raises(CredentialsError, match=says):
        read(kubeconfig(tmp_path, user, server, **cluster)).access()


@pytest.mark.parametrize("text", ["", "[]", "{}", "a: [", "current-context: x"])
def test_a_file_that_is_no_kubeconfig_is_an_error_of_ours(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(CredentialsError):
        read(path).access()


def test_whether_there_are_any_is_known_without_reading_them(tmp_path: Path) -> None:
    def exist(named: str = "", environment: Mapping[str, str] | None = None) -> bool:
        return Credentials(named, environment or {}, lambda: NOW, tmp_path).exist()

    pod = {"KUBERNETES_SERVICE_HOST": "192.0.2.1"}
    assert not exist()
    assert not exist(environment=pod)  # automountServiceAccountToken: false
    assert not exist(str(tmp_path / "absent"))
    account = tmp_path / ACCOUNT
    account.mkdir(parents=True)
    (account / "token").write_text("abc")
    assert exist(environment=pod)
    assert not exist()
    kubelet = tmp_path / KUBELET_FILES[0]
    kubelet.parent.mkdir(parents=True)
    kubelet.write_text("{}")
    assert exist()
    assert exist(str(kubelet))
    # As in the packaged service: RestrictAddressFamilies=AF_UNIX.
    assert not Credentials(str(kubelet), {}, lambda: NOW).exist(lambda: False)
