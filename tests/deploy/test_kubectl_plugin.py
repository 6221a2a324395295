"""`kubectl sgpud` against a kubectl that notes what it is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.rendering import DEPLOY

SCRIPT = DEPLOY / "kubectl-sgpud"
# One line of notes for each call, as JSON; what it answers is in the files beside them.
KUBECTL = """#!{python}
import json, pathlib, sys
home = pathlib.Path({home!r})
words = sys.argv[1:]
with (home / "notes").open("a") as notes:
    notes.write(json.dumps(words) + "\\n")
if words[0] == "exec":
    pod = next(word for word in words if word.startswith("sgpud-"))
    print(pod, *words[words.index("--") + 1 :])
    sys.exit(int((home / pod).read_text()) if (home / pod).exists() else 0)
if words[0] == "config":
    print((home / "namespace").read_text(), end="")
elif "pods" in words:
    (field,) = [word for word in words if word.startswith("--field-selector=")]
    node = field.partition("spec.nodeName=")[2]
    for line in (home / "pods").read_text().splitlines():
        if node in ("", line.split()[0]):
            print(line)
else:
    if not (home / "bound").exists():
        sys.exit("Error from server (NotFound): pods not found")
    print((home / "bound").read_text(), end="")
"""


class Laptop:
    """A PATH with that kubectl."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "bin").mkdir()
        kubectl = home / "bin" / "kubectl"
        kubectl.write_text(KUBECTL.format(python=sys.executable, home=str(home)))
        kubectl.chmod(0o755)
        (home / "namespace").write_text("")
        (home / "pods").write_text("n1 sgpud sgpud-a\nn2 sgpud sgpud-b\nn1 sgpud sgpud-c\n")

    def run(self, *words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(SCRIPT), *words],
            env={"PATH": path or f"{self.home / 'bin'}:/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    @property
    def asked(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.home / "notes").read_text().splitlines()]


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path)


def test_the_status_of_every_node_comes_from_its_serving_pod(laptop: Laptop) -> None:
    done = laptop.run("status")
    assert done.returncode == 0, done.stderr
    # sgpud-c is the standby of sgpud-a: younger, on the same node.
    assert done.stdout == "== n1\nsgpud-a sgpud status\n\n== n2\nsgpud-b sgpud status\n"
    (listed,) = [words for words in laptop.asked if words[:2] == ["get", "pods"]]
    assert "--sort-by=.metadata.creationTimestamp" in listed
    assert "--selector=app.kubernetes.io/name=sgpud" in listed


def test_one_node_has_no_heading_and_gets_the_words_after_the_dashes(laptop: Laptop) -> None:
    assert laptop.run("status", "n2", "--", "--json").stdout == "sgpud-b sgpud status --json\n"


def test_the_worst_node_gives_the_exit_status(laptop: Laptop) -> None:
    (laptop.home / "sgpud-a").write_text("4")
    (laptop.home / "sgpud-b").write_text("3")
    done = laptop.run("doctor")
    assert done.returncode == 4
    assert "== n2\nsgpud-b sgpud doctor" in done.stdout


def test_top_wants_one_node_and_reads_keys(laptop: Laptop) -> None:
    refused = laptop.run("top")
    assert refused.returncode == 64
    assert "name a node: n1, n2" in refused.stderr
    assert laptop.run("top", "--node=n2").stdout == "sgpud-b sgpud top\n"
    assert "--stdin" in laptop.asked[-1]


@pytest.mark.parametrize(
    ("words", "current", "namespace"),
    [
        (["chat"], "", "default"),
        (["chat"], "team", "team"),
        (["chat", "-n", "prod"], "team", "prod"),
        (["prod/chat"], "team", "prod"),
    ],
)
def test_a_pod_is_explained_by_its_own_node(
    laptop: Laptop, words: list[str], current: str, namespace: str
) -> None:
    (laptop.home / "namespace").write_text(current)
    (laptop.home / "bound").write_text("n2")
    done = laptop.run("explain", *words)
    assert done.stdout == f"sgpud-b sgpud explain {namespace}/chat\n", done.stderr


def test_a_pod_without_a_node_needs_one_to_be_named(laptop: Laptop) -> None:
    (laptop.home / "bound").write_text("")
    done = laptop.run("explain", "prod/chat")
    assert done.returncode == 69
    assert "kubectl describe pod --namespace=prod chat" in done.stderr
    named = laptop.run("explain", "prod/chat", "--node", "n1")
    assert named.stdout == "sgpud-a sgpud explain prod/chat\n"


def test_a_pod_that_is_gone_is_asked_for_by_its_node(laptop: Laptop) -> None:
    done = laptop.run("explain", "chat")
    assert done.returncode == 69
    assert "NotFound" in done.stderr
    assert "--node" in done.stderr


def test_a_node_without_a_pod_of_sgpud_is_reported(laptop: Laptop) -> None:
    done = laptop.run("status", "n9")
    assert done.returncode == 69
    assert "no sgpud pod runs on n9" in done.stderr


def test_where_the_cluster_is_reaches_every_call(laptop: Laptop) -> None:
    done = laptop.run("status", "n1", "--context", "a cluster", "--kubeconfig=/a b/config")
    assert done.returncode == 0, done.stderr
    for words in laptop.asked:
        assert words[1:3] == ["--context=a cluster", "--kubeconfig=/a b/config"]


@pytest.mark.parametrize("words", [(), ("explain",), ("cordon",), ("status", "--json"), ("-n",)])
def test_what_cannot_be_meant_is_a_sentence(laptop: Laptop, words: tuple[str, ...]) -> None:
    done = laptop.run(*words)
    assert done.returncode == 64
    assert done.stderr
    assert not (laptop.home / "notes").exists()


def test_without_kubectl_it_says_so(laptop: Laptop, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = laptop.run("status", path=str(empty))
    assert done.returncode == 69
    assert "kubectl is not in PATH" in done.stderr
