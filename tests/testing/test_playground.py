"""The playground: what it plans fits the fake GPUs, and it plays until Ctrl-C."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sgpud.config.problems import ConfigError
from sgpud.gpus.fake.file import parse_fake_gpus
from sgpud.gpus.fake.script import MOST_EVENTS
from sgpud.gpus.process_locator import ProcessLocator
from sgpud.testing.playground import (
    TURN,
    TURNS,
    Life,
    fake_gpus,
    lives,
    steps,
    write_proc,
)
from tests.daemon.web import free_port

WHOLE = TURN * TURNS


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_whole_script_is_one_that_fake_gpus_accept(seed: int, tmp_path: Path) -> None:
    pods = lives(seed, WHOLE)
    node = parse_fake_gpus(fake_gpus(tmp_path, pods), "gpus.toml")
    assert len(node.script) <= MOST_EVENTS
    assert node.proc == str(tmp_path)
    assert {event.action for event in node.script} == {"process", "ended", "lost", "back"}


def test_a_seed_gives_the_same_pods_again() -> None:
    assert lives(7, 300.0) == lives(7, 300.0)
    assert lives(7, 300.0) != lives(8, 300.0)


def test_pods_come_grow_and_go_and_some_use_more_than_they_asked_for() -> None:
    pods = lives(1, WHOLE)
    over = 0
    for pod in pods:
        times = [at for at, _ in pod.memory]
        sizes = [gib for _, gib in pod.memory]
        assert pod.begins < times[0] <= times[-1] < pod.ends
        assert sizes == sorted(sizes)
        over += pod.gpu < 2 and sizes[-1] > pod.shares
    assert len({pod.uid for pod in pods}) == len(pods)
    assert 0 < over < len(pods) / 2
    there: set[Life] = set()
    for _, comes, pod in steps(pods):
        assert comes == (pod not in there)
        there ^= {pod}


def test_its_processes_are_found_in_their_pods(tmp_path: Path) -> None:
    pods = lives(1, 60.0)
    write_proc(tmp_path, pods)
    found = ProcessLocator(tmp_path, ours=True).look([pod.pid for pod in pods])
    assert found.problem == ""
    for pod in pods:
        place = found.places[pod.pid]
        assert (place.pods, place.container) == ((pod.uid,), "main")


def test_a_file_of_fake_gpus_names_an_absolute_folder() -> None:
    with pytest.raises(ConfigError, match="is not an absolute path"):
        parse_fake_gpus('proc = "here"\n[[gpu]]\nproduct = "a"\nmemory = "1GiB"\n', "gpus.toml")


@pytest.mark.slow
def test_it_plays_until_it_is_interrupted() -> None:
    playing = subprocess.Popen(
        [sys.executable, "-m", "sgpud.testing.playground", "--port", str(free_port())],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert playing.stdout is not None
        said = ""
        for line in playing.stdout:
            said += line
            if " got " in line:
                break
        assert " got " in said, playing.communicate()
        folder = re.search(r"--run-dir (\S+)/run\b", said)
        assert folder is not None
        playing.send_signal(signal.SIGINT)
        rest = playing.communicate(timeout=60)
    finally:
        playing.kill()
        playing.wait()
    assert playing.returncode == 0, rest
    assert not Path(folder[1]).exists()
