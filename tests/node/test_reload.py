"""The configuration in use: at start, on a reload, and what is saved of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from sgpud.config.load import parse
from sgpud.config.problems import ConfigError
from sgpud.config.values import Config
from sgpud.core.intset import IntSet
from sgpud.core.planning.plan import Plan
from sgpud.kubelet.deviceplugin.publisher import SnapshotPublisher
from sgpud.node.reconciler import Reconciler
from sgpud.node.reload import APPLIED, REFUSED, UNCHANGED, ConfigReloader
from sgpud.node.store import LAST_GOOD, StateDirectory
from tests.core.values import checkpoint, gpu, group_of, holder, uuid
from tests.surroundings import listening

GOOD = "[sharing]\nduplication_factor = {}\n"
BAD = "[sharing]\nduplication_facto = 3\n\n[gpus]\nallow = 7\n"


@define
class Bench:
    """A configuration and a reconciler, connected as in the daemon."""

    folder: Path
    overrides: tuple[str, ...] = ()
    clock: Clock = field(factory=Clock)
    plans: list[Plan] = field(factory=list)
    used: list[Config] = field(factory=list)
    reconciler: Reconciler = field(init=False)
    configuration: ConfigReloader = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.reconciler = Reconciler(
            self.clock, lambda: 1000.0, SnapshotPublisher(), self.plans.append, lambda _: None
        )
        self.configuration = ConfigReloader(
            self.file, self.overrides, self.reconciler, self.store, self.used.append
        )

    @property
    def file(self) -> Path:
        return self.folder / "sgpud.toml"

    @property
    def store(self) -> StateDirectory:
        return StateDirectory(self.folder / "state", Clock())

    @property
    def kept(self) -> bytes | None:
        return self.store.read(LAST_GOOD)

    def write(self, text: str) -> None:
        self.file.write_text(text)

    def start(self, text: str, *, strict: bool = False) -> None:
        """Start with a file of this text, every fact known."""
        self.write(text)
        self.configuration.start(strict=strict)
        gpus = (gpu(0, fake=True), gpu(1, fake=True))
        held = holder({uuid(0): IntSet.of([5])}, per_gpu=8)
        self.reconciler.update(gpus=gpus, checkpoint=checkpoint(held))
        self.reconciler.reconcile()

    @property
    def factor(self) -> int:
        return self.configuration.config.sharing.default.factor

    @property
    def listed(self) -> int:
        """Shares of GPU 1, none of them held, in the current plan."""
        assert self.reconciler.plan is not None
        return len(group_of(self.reconciler.plan, 1).active)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def started(folder: Path, text: str = GOOD.format(8)) -> Bench:
    bench = Bench(folder)
    bench.start(text)
    return bench


# The start. --------------------------------------------------------------------------------------


def test_a_good_file_is_in_use(bench: Bench) -> None:
    bench.start(GOOD.format(8))
    assert (bench.factor, bench.listed) == (8, 8)
    assert bench.configuration.view.in_use == "file"
    assert bench.configuration.view.file == str(bench.file)
    assert bench.configuration.view.problems == ()
    assert [config.sharing.default.factor for config in bench.used] == [8]


def test_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ("sharing.duplication_factor=3",))
    bench.start(GOOD.format(8))
    assert bench.factor == 3
    bench.write(GOOD.format(9))
    assert bench.configuration.reload().result == UNCHANGED
    assert bench.factor == 3


def test_a_bad_file_without_a_last_good_one_reports_every_problem(bench: Bench) -> None:
    with pytest.raises(ConfigError) as caught:
        bench.start(BAD)
    assert [problem.line for problem in caught.value.problems] == [2, 5]
    assert bench.used == []


def test_a_bad_file_starts_on_the_last_good_one_and_logs_it(bench: Bench) -> None:
    bench.store.write(LAST_GOOD, GOOD.format(8).encode())
    with listening() as logged:
        bench.start(BAD)
    assert bench.factor == 8
    assert bench.configuration.view.in_use == "last good"
    assert len(bench.configuration.view.problems) == 2
    assert logged.about("duplication_facto")
    assert logged.about("Running on the last good configuration")


def test_a_missing_file_starts_on_the_last_good_one(bench: Bench) -> None:
    bench.store.write(LAST_GOOD, GOOD.format(8).encode())
    bench.configuration.start(strict=False)
    assert bench.factor == 8
    assert "does not exist" in bench.configuration.view.problems[0]


def test_a_strict_start_accepts_only_the_file(bench: Bench) -> None:
    bench.store.write(LAST_GOOD, GOOD.format(8).encode())
    with pytest.raises(ConfigError):
        bench.start(BAD, strict=True)
    assert bench.used == []


def test_a_corrupt_last_good_file_is_ignored(bench: Bench) -> None:
    bench.store.write(LAST_GOOD, b"\xff")
    with listening() as logged, pytest.raises(ConfigError) as caught:
        bench.start(BAD)
    assert caught.value.problems[0].file == str(bench.file)
    assert logged.about("Cannot use the last good configuration")


def test_warnings_are_logged(bench: Bench) -> None:
    rules = '[[gpu]]\nmatch = "*"\n[[gpu]]\nmatch = "NVIDIA*"\n'
    with listening() as logged:
        bench.start(rules)
    assert bench.configuration.view.warnings
    assert logged.about(bench.configuration.view.warnings[0])


# The reload. -------------------------------------------------------------------------------------


def test_a_good_file_is_applied_at_once_and_its_changes_are_reported(tmp_path: Path) -> None:
    bench = started(tmp_path)
    bench.write(GOOD.format(3))
    with listening() as logged:
        outcome = bench.configuration.reload()
    assert outcome.result == APPLIED
    assert outcome.keys == ("sharing.duplication_factor: 8 -> 3",)
    kept, other = outcome.shares
    assert kept.endswith(f"{uuid(0)}: 8 -> 3 shares, 1 held and kept, 5 draining")
    assert other.endswith(f"{uuid(1)}: 8 -> 3 shares, 5 draining")
    assert (bench.factor, bench.listed) == (3, 3)
    assert len(bench.plans) == 2
    assert logged.about("Configuration applied: sharing.duplication_factor: 8 -> 3")


def test_the_same_file_changes_nothing(tmp_path: Path) -> None:
    bench = started(tmp_path)
    bench.write(f"# a remark\n{GOOD.format(8)}")
    outcome = bench.configuration.reload()
    assert (outcome.result, outcome.keys, outcome.shares) == (UNCHANGED, (), ())
    assert len(bench.plans) == 1


def test_a_bad_file_changes_nothing_and_every_problem_is_reported(tmp_path: Path) -> None:
    bench = started(tmp_path)
    bench.reconciler.reconcile()
    before = bench.reconciler.node
    bench.write(BAD)
    with listening() as logged:
        outcome = bench.configuration.reload()
    assert outcome.result == REFUSED
    assert [text.split(": ")[0] for text in outcome.problems] == [
        f"{bench.file}:2",
        f"{bench.file}:5",
    ]
    assert bench.configuration.view.problems == outcome.problems
    assert bench.configuration.view.in_use == "file"
    assert bench.reconciler.node == before
    assert (len(bench.plans), len(bench.used), bench.factor) == (1, 1, 8)
    assert logged.about("Keeping the current configuration")
    assert logged.about(outcome.problems[1])


def test_a_good_file_after_a_bad_one_has_no_problems_left(tmp_path: Path) -> None:
    bench = started(tmp_path)
    bench.write(BAD)
    bench.configuration.reload()
    bench.write(GOOD.format(8))
    assert bench.configuration.reload().result == UNCHANGED
    assert bench.configuration.view.problems == ()


def test_going_back_from_last_good_to_the_file_is_a_change(bench: Bench) -> None:
    bench.store.write(LAST_GOOD, GOOD.format(8).encode())
    bench.start(BAD)
    bench.write(GOOD.format(8))
    outcome = bench.configuration.reload()
    assert (outcome.result, outcome.keys) == (APPLIED, ())
    assert bench.configuration.view.in_use == "file"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("what", ["absent", "folder", "pipe", "large"])
def test_anything_but_a_regular_file_is_refused(tmp_path: Path, what: str) -> None:
    bench = started(tmp_path)
    bench.file.unlink()
    if what == "folder":
        bench.file.mkdir()
    elif what == "pipe":
        os.mkfifo(bench.file)
    elif what == "large":
        bench.file.write_bytes(b"#" * (256 * 1024 + 1))
    outcome = bench.configuration.reload()
    assert outcome.result == REFUSED
    assert len(outcome.problems) == 1
    assert bench.factor == 8
    bench.configuration.keep()
    assert bench.kept is None


def test_more_shares_than_fit_one_message_are_refused_with_the_arithmetic(
    tmp_path: Path,
) -> None:
    bench = started(tmp_path)
    bench.reconciler.update(gpus=tuple(gpu(number, fake=True) for number in range(8)))
    bench.write(GOOD.format(10_000))
    outcome = bench.configuration.reload()
    assert outcome.result == REFUSED
    assert "80000 shares on this node" in outcome.problems[0]
    assert "sharing.duplication_factor" in outcome.problems[0]
    assert bench.factor == 8


# The preview. ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [GOOD.format(3), GOOD.format(8), BAD])
def test_a_preview_is_what_the_reload_then_does_and_changes_nothing(
    tmp_path: Path, text: str
) -> None:
    bench = started(tmp_path)
    bench.configuration.keep()
    bench.write(text)
    state = (
        bench.reconciler.node,
        bench.configuration.config,
        bench.configuration.view,
        bench.kept,
    )
    with listening() as logged:
        seen = bench.configuration.preview()
    assert logged.lines == []
    assert state == (
        bench.reconciler.node,
        bench.configuration.config,
        bench.configuration.view,
        bench.kept,
    )
    assert (len(bench.plans), len(bench.used)) == (1, 1)
    assert bench.clock.getDelayedCalls() == []
    assert bench.configuration.reload() == seen


def test_a_preview_of_another_file_leaves_the_daemons_own_alone(tmp_path: Path) -> None:
    bench = started(tmp_path)
    other = "/home/me/other.toml"
    seen = bench.configuration.preview(other, GOOD.format(3))
    assert (seen.result, len(seen.keys)) == (APPLIED, 1)
    assert "8 -> 3" in seen.keys[0]
    assert "8 -> 3" in seen.shares[0]
    problems = bench.configuration.preview(other, BAD).problems
    assert all(problem.startswith(f"{other}:") for problem in problems)
    assert problems
    seen = bench.configuration.preview(overrides=("sharing.duplication_factor=2",))
    assert "8 -> 2" in seen.keys[0]
    assert bench.configuration.preview().result == UNCHANGED
    assert bench.factor == 8


def test_before_the_gpus_are_known_a_preview_lists_the_keys(bench: Bench) -> None:
    bench.write(GOOD.format(8))
    bench.configuration.start(strict=False)
    bench.write(GOOD.format(3))
    seen = bench.configuration.preview()
    assert seen.result == APPLIED
    assert seen.keys
    assert seen.shares == ()


# Last good. --------------------------------------------------------------------------------------


def test_nothing_is_saved_before_this_process_serves_the_node(tmp_path: Path) -> None:
    bench = started(tmp_path)
    bench.write(GOOD.format(3))
    bench.configuration.reload()
    assert bench.kept is None
    bench.configuration.keep()
    assert bench.kept == GOOD.format(3).encode()


def test_each_applied_reload_is_then_saved_and_a_refused_one_is_not(tmp_path: Path) -> None:
    bench = started(tmp_path)
    bench.configuration.keep()
    assert bench.kept == GOOD.format(8).encode()
    bench.write(GOOD.format(3))
    bench.configuration.reload()
    assert bench.kept == GOOD.format(3).encode()
    bench.write(BAD)
    bench.configuration.reload()
    assert bench.kept == GOOD.format(3).encode()


def test_the_next_start_on_a_bad_file_uses_what_was_saved(tmp_path: Path) -> None:
    first = started(tmp_path, GOOD.format(3))
    first.configuration.keep()
    second = Bench(tmp_path)
    second.start(BAD)
    assert second.factor == 3


def test_a_file_changed_since_it_was_read_is_not_saved(tmp_path: Path) -> None:
    bench = started(tmp_path)
    for text in (GOOD.format(3), BAD):
        bench.write(text)
        bench.configuration.keep()
        assert bench.kept is None


def test_a_last_good_configuration_in_use_is_not_written_again(bench: Bench) -> None:
    bench.store.write(LAST_GOOD, GOOD.format(8).encode())
    bench.start(BAD)
    written = bench.store.path(LAST_GOOD).stat().st_ino
    bench.configuration.keep()
    assert bench.store.path(LAST_GOOD).stat().st_ino == written


def test_the_same_content_is_written_once(tmp_path: Path) -> None:
    bench = started(tmp_path)
    bench.configuration.keep()
    written = bench.store.path(LAST_GOOD).stat().st_ino
    bench.configuration.reload()
    bench.configuration.keep()
    assert bench.store.path(LAST_GOOD).stat().st_ino == written


def test_reloads_work_with_a_read_only_state_directory(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    bench = started(tmp_path)
    with listening() as logged:
        bench.configuration.keep()
    assert logged.about("The state is not saved")
    bench.write(GOOD.format(3))
    assert bench.configuration.reload().result == APPLIED


# A standby. --------------------------------------------------------------------------------------


def test_a_standby_that_takes_over_rereads_the_file(tmp_path: Path) -> None:
    bench = started(tmp_path)
    bench.write(GOOD.format(3))
    with listening() as logged:
        bench.configuration.catch_up()
    assert bench.factor == 3
    assert logged.about("Configuration reread: sharing.duplication_factor: 8 -> 3")


def test_a_standby_ignores_an_unchanged_or_bad_file(tmp_path: Path) -> None:
    bench = started(tmp_path)
    before = bench.reconciler.node
    bench.configuration.catch_up()
    bench.write(BAD)
    bench.configuration.catch_up()
    assert bench.reconciler.node == before
    assert len(bench.used) == 1


def test_before_the_start_no_configuration_is_in_use(bench: Bench) -> None:
    assert bench.configuration.config == parse("", "none")
    assert bench.configuration.view.in_use == "nothing"
