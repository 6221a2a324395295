"""A diff names every key that differs, both values, and whether a restart is needed."""

from hypothesis import given

from sgpud.config.build import build
from sgpud.config.diff import KeyChange, diff
from sgpud.config.load import parse
from tests.config.documents import Document, documents


def changes(old: str, new: str) -> list[str]:
    return [str(change) for change in diff(parse(old, "f"), parse(new, "f"))]


@given(documents(), documents())
def test_a_diff_is_empty_only_between_equal_configurations(old: Document, new: Document) -> None:
    before, after = build(old), build(new)
    assert diff(before, before) == ()
    assert (diff(before, after) == ()) is (before == after)
    assert len(diff(before, after)) == len(diff(after, before))


def test_every_changed_key_is_named_with_both_values() -> None:
    old = "[sharing]\nduplication_factor = 10"
    new = "[gpus]\ndeny = ['0']\n[kubelet]\nnuma = true"
    assert changes(old, new) == [
        'gpus.deny: [] -> ["0"]',
        "sharing.duplication_factor: 10 -> 100",
        "kubelet.numa: false -> true",
    ]


def test_what_is_fixed_while_the_daemon_runs_asks_for_a_restart() -> None:
    new = "[kubelet]\nplugin_directory = '/x'\npod_resources = '/y'\n[log]\nformat = 'text'"
    assert [change.key for change in diff(parse("", "f"), parse(new, "f")) if change.restart] == [
        "kubelet.plugin_directory",
        "kubelet.pod_resources",
        "log.format",
    ]
    assert diff(parse("", "f"), parse("[log]\nlevel = 'warn'", "f")) == (
        KeyChange("log.level", '"info"', '"warn"', restart=False),
    )


def test_rules_are_identified_by_their_match() -> None:
    old = "[[gpu]]\nmatch = 'a'\n[[gpu]]\nmatch = 'b'\n[[gpu]]\nmatch = 'c'"
    new = "[[gpu]]\nmatch = 'c'\n[[gpu]]\nmatch = 'b'\nduplication_factor = 3\n[[gpu]]\nmatch = 'd'"
    assert changes(old, new) == [
        'gpu "a": {} -> none',
        'gpu "b": {} -> {duplication_factor = 3}',
        'gpu "d": none -> {}',
        'gpu order: ["b", "c"] -> ["c", "b"]',
    ]


def test_of_two_rules_with_one_match_the_first_counts() -> None:
    rule = "[[gpu]]\nmatch = 'a'\n"
    assert changes(rule, f"{rule}{rule}duplication_factor = 3\n") == []


def test_another_spelling_of_the_same_value_is_not_a_change() -> None:
    assert changes("health.hold_down = '60s'", "health.hold_down = '1m'") == []
