"""Names, paths and GPU entries: what is good passes, what is not is told what to write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpud.config.schema import formats

UUID = "GPU-8f6c1b0e-1d7f-4a55-9a55-3c1a4f0e7a11"


@pytest.mark.parametrize(
    "text",
    [
        "deepomatic.com/shared-gpu",
        "a/b",
        "nvidia.com/gpu",
        "0a.1-b/A_b.c-9",
        f"{'d' * 244}/x",
        f"example.com/{'n' * 63}",
        "kubernetes.io.example.com/gpu",
        "example.com/requests.gpu",
    ],
)
def test_the_kubelet_accepts_these_resource_names(text: str) -> None:
    assert formats.resource_name(text) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("shared-gpu", "no domain"),
        ("", "no domain"),
        ("a/b/c", "more than one slash"),
        ("requests.example.com/gpu", 'begins with "requests."'),
        ("kubernetes.io/gpu", "domain of Kubernetes"),
        ("node.kubernetes.io/gpu", "domain of Kubernetes"),
        ("notkubernetes.io/gpu", "domain of Kubernetes"),
        (f"{'d' * 245}/x", "a domain of 245 characters, at most 244"),
        ("Example.com/gpu", "an invalid domain"),
        ("/gpu", "an invalid domain"),
        ("a..b/gpu", "an invalid domain"),
        ("-a/gpu", "an invalid domain"),
        ("a b/gpu", "an invalid domain"),
        ("a\n/gpu", "an invalid domain"),
        (f"a/{'n' * 64}", "64 characters after the slash, at most 63"),
        ("a/", "an invalid name"),
        ("a/-b", "an invalid name"),
        ("a/b\n", "an invalid name"),
        ("a/b c", "an invalid name"),
    ],
)
def test_a_resource_name_that_the_kubelet_refuses_is_explained(text: str, says: str) -> None:
    wrong = formats.resource_name(text)
    assert wrong is not None
    assert says in wrong


@pytest.mark.parametrize("text", ["nvidia.com/gpu", "a/b", "V-e_n.d0r/c.l-a_ss9"])
def test_cdi_kinds(text: str) -> None:
    assert formats.cdi_kind(text) is None


@pytest.mark.parametrize(
    "text", ["", "gpu", "/gpu", "a/", "1a/gpu", "a/gpu-", "a/b/c", "a/b=c", "a/gpu\n"]
)
def test_no_cdi_kinds(text: str) -> None:
    assert "vendor/class" in str(formats.cdi_kind(text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("var/lib", "must begin with /"),
        ("", "must begin with /"),
        ("/var//lib", 'use "/var/lib"'),
        ("//var", 'use "/var"'),
        ("/var/./lib/", 'use "/var/lib"'),
        ("/var/../lib", 'use "/lib"'),
        ("/a\nb", "control character"),
        ("/a\0b", "control character"),
        ("/" + "a" * 4095, "at most 4095 bytes"),
    ],
)
def test_a_path_that_is_not_absolute_and_plain_is_explained(text: str, says: str) -> None:
    assert says in str(formats.absolute_path(text))


def test_plain_paths_pass() -> None:
    assert formats.absolute_path("/") is None
    assert formats.absolute_path("/home/kubernetes/bin/nvidia") is None
    assert formats.mount_point("/usr/local/nvidia") is None
    assert "hide the whole container" in str(formats.mount_point("/"))


def test_a_socket_folder_leaves_room_for_a_socket_name() -> None:
    longest = "/" + "a" * 65
    assert len(longest) + 1 + formats.SOCKET_NAME == formats.SUN_PATH
    assert formats.socket_folder(longest) is None
    assert formats.socket_folder(longest + "a") == (
        "is 67 bytes long, and with 41 for a slash and the socket's name 108, but the address of a"
        " unix socket holds 107: use a path of at most 66 bytes"
    )
    assert "is 67 bytes long" in str(formats.socket_folder("/" + "é" * 33))
    assert "must begin with /" in str(formats.socket_folder("a"))


def test_a_socket_path_fits_in_an_address() -> None:
    assert formats.socket_path("/" + "a" * 106) is None
    assert formats.socket_path("/" + "a" * 107) == (
        "is 108 bytes long, but the address of a unix socket holds 107:"
        " use a path of at most 107 bytes"
    )
    assert "treats as an escape" in str(formats.socket_path("/a%20b"))


@pytest.mark.parametrize(
    "text", ["*", UUID, "MIG-GPU-1/0/0", "0", "0000:3b:00.0", "3b:00", "NVIDIA A100*", "[a-c]?"]
)
def test_gpu_entries(text: str) -> None:
    assert formats.gpu_entry(text) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        (" ", "is empty"),
        (" A100", "spaces around it"),
        ("A100\n", "spaces around it"),
        ("A\x07100", "control character"),
        ("A" * 129, "129 characters, at most 128"),
        ("GPU-8f6c*", "use the whole UUID"),
    ],
)
def test_an_entry_that_can_match_no_gpu_is_explained(text: str, says: str) -> None:
    assert says in str(formats.gpu_entry(text))


def test_host_names() -> None:
    for good in ("node-1", "Node-1.example.com", "10.0.0.1"):
        assert formats.host_name(good) is None
    for bad in ("", "node:80", "-a", "a..b", "a b", "é", "a" * 254):
        assert "without a port" in str(formats.host_name(bad))


@pytest.mark.slow
@given(st.text())
def test_no_rule_raises(text: str) -> None:
    for rule in (
        formats.resource_name,
        formats.cdi_kind,
        formats.mount_point,
        formats.socket_folder,
        formats.socket_path,
        formats.gpu_entry,
        formats.host_name,
    ):
        assert rule(text) != ""
