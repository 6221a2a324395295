"""The CDI spec of memory caps: as a runtime needs it, whole at every moment, gone when unused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sgpud.core.allocation.injection import NodeHost
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.limits.caps import CAP_KIND
from sgpud.core.sharing.rules import InjectionSettings
from sgpud.gpus.cap_specs import SPEC, write_caps
from sgpud.gpus.cdi import read_specs
from sgpud.gpus.host import CHECK_EVERY, HostWatch, look
from tests.gpus.nvml.stub import GPU_A
from tests.surroundings import FakeReactor

A = Gpu(GPU_A, 0, "NVIDIA A100", 2**35, minor=1)


def names(root: Path) -> set[str]:
    specs = read_specs(root, CAP_KIND)
    assert specs.unreadable == ()
    return set(specs.devices)


def test_the_spec_has_a_device_for_each_cap_and_is_readable_by_every_runtime(
    tmp_path: Path,
) -> None:
    assert write_caps(tmp_path, [2048, 1024]) == ""
    assert names(tmp_path) == {"1024MiB", "2048MiB"}
    file = tmp_path / SPEC.lstrip("/")
    assert file.stat().st_mode & 0o777 == 0o644
    assert json.loads(file.read_text())["cdiVersion"] == "0.5.0"
    assert list(file.parent.iterdir()) == [file]
    assert look(tmp_path, [A], "nvidia.com/gpu", ()).caps == {1024, 2048}


def test_it_is_replaced_whole_and_left_alone_where_nothing_changed(tmp_path: Path) -> None:
    write_caps(tmp_path, [1024])
    file = tmp_path / SPEC.lstrip("/")
    before = file.stat().st_ino
    with file.open() as read:
        assert write_caps(tmp_path, [1024]) == ""
        assert file.stat().st_ino == before
        write_caps(tmp_path, [2048])
        assert "1024MiB" in read.read(), "a reader of the old one keeps it"
    assert names(tmp_path) == {"2048MiB"}


def test_files_left_by_a_crash_are_not_an_obstacle(tmp_path: Path) -> None:
    file = tmp_path / SPEC.lstrip("/")
    file.parent.mkdir(parents=True)
    file.with_name(f".{file.name}.tmp").symlink_to(tmp_path / "elsewhere")
    assert write_caps(tmp_path, [1024]) == ""
    assert names(tmp_path) == {"1024MiB"}
    assert not (tmp_path / "elsewhere").exists()


def test_without_a_cap_there_is_no_file(tmp_path: Path) -> None:
    assert write_caps(tmp_path, []) == ""
    assert not (tmp_path / "var").exists()
    write_caps(tmp_path, [1024])
    assert write_caps(tmp_path, []) == ""
    assert names(tmp_path) == set()


def test_the_reason_why_it_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").write_text("")
    assert write_caps(tmp_path, [1024]).startswith(f"cannot write {SPEC}: ")
    assert look(tmp_path, [A], "nvidia.com/gpu", ()).caps == frozenset()


class _Pool:
    """A pool of threads that works at once."""

    def callInThreadWithCallback(
        self, done: Callable[[bool, object], None], work: Callable[[], object]
    ) -> None:
        done(True, work())  # noqa: FBT003 - Twisted's interface


class _Working(FakeReactor):
    """A reactor whose threads have ended as soon as they are begun."""

    getThreadPool: Any = _Pool

    def callFromThread(self, function: Callable[..., Any], /, *args: object) -> None:
        function(*args)


def test_the_watch_writes_them_and_reports_those_on_the_disk(tmp_path: Path) -> None:
    reactor, seen = _Working(), list[NodeHost]()
    watch = HostWatch(reactor, tmp_path, seen.append)
    watch.look_for([A], InjectionSettings())
    assert seen[-1].caps == frozenset(), "a standby writes none"
    watch.offer_caps(frozenset({1024}))
    assert (set(seen[-1].caps), seen[-1].caps_problem) == ({1024}, "")
    (tmp_path / SPEC.lstrip("/")).unlink()
    reactor.advance(CHECK_EVERY)
    assert names(tmp_path) == {"1024MiB"}, "one that somebody removed comes back"
    watch.offer_caps(frozenset())
    assert not seen[-1].caps
    assert not names(tmp_path)
    watch.stop()


def test_a_folder_that_cannot_be_written_is_reported_and_tried_again(tmp_path: Path) -> None:
    reactor, seen = _Working(), list[NodeHost]()
    watch = HostWatch(reactor, tmp_path, seen.append)
    watch.look_for([A], InjectionSettings())
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").write_text("")
    watch.offer_caps(frozenset({1024}))
    assert seen[-1].caps_problem.startswith("cannot write")
    assert seen[-1].caps == frozenset()
    (tmp_path / "var/run").unlink()
    reactor.advance(CHECK_EVERY)
    assert (set(seen[-1].caps), seen[-1].caps_problem) == ({1024}, "")
    watch.stop()
