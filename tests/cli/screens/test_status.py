"""The status on a screen: what it says, and how wide."""

from __future__ import annotations

import re
from typing import Any

from attrs import asdict, evolve

from sgpud.cli.screens import output
from sgpud.cli.screens.status import Order, StatusStyle, status
from sgpud.cli.screens.top import fitted
from sgpud.cli.tables import Cell, CellStyle, table, truncate, width, wrapped
from sgpud.core.status.gpus import UsageView
from sgpud.core.status.view import ConfigurationView, NodeView, document
from tests.node_view import CONTAINER, GIB, GPU, POOL, PROCESS, STATE, UID, VIEW

ESCAPE = re.compile(r"\x1b\[[0-9]*m")
GOLDEN = """\
sgpud 1.2.3: serving, driver 550.54, 2026-09-21 14:13:20Z
example.com/gpu: registered, 3 held, 97 withheld, 2 draining (3 allocatable)

GPU, HOLDER MEMORY OF BUSY SHARES
0 NVIDIA A100 7GiB 8% 80GiB 55% 3 held, 97 withheld, 2 draining
  GPU-1: healthy
  memory limits: watch (driver 550.54 cannot limit memory)
  withheld: cordoned
  1 more held than configured
  team/train/main 6GiB 4GiB 40% 4, over by 2GiB
  python3 12 1GiB n/a not in a pod
  python3 13 in pod 0a1b2c3d-1111-2222-3333-444455556666/side n/a n/a holds no share
"""


def lines(view: NodeView, style: StatusStyle | None = None) -> list[str]:
    return status(output.clean(document(view)), style)


def state(**changes: Any) -> NodeView:
    return evolve(VIEW, at=1_790_000_000.0, gpus=(evolve(STATE, product="NVIDIA A100", **changes),))


def test_a_gpu_is_shown_with_its_containers_and_other_processes() -> None:
    outside = evolve(
        PROCESS, pid=12, used=GIB, utilisation=None, owner="outside", uid="", pod="", namespace=""
    )
    side = evolve(
        PROCESS, pid=13, used=None, utilisation=None, owner="shareless", pod="", container="side"
    )
    shown = lines(state(processes=(PROCESS, outside, side)))
    words = [" ".join(line.split()) for line in shown]
    assert words == [" ".join(line.split()) for line in GOLDEN.splitlines()]
    assert UID in words[-1]


def test_columns_are_aligned() -> None:
    shown = lines(state())
    (head,) = (line for line in shown if line.startswith("GPU, HOLDER"))
    (gpu,) = (line for line in shown if line.startswith("0 NVIDIA"))
    (train,) = (line for line in shown if "team/train/main" in line)
    at = head.index("SHARES")
    assert gpu[at:].startswith("3 held")
    assert train[at:].startswith("4, ")
    for line, word in ((head, "MEMORY"), (gpu, "8%"), (train, "6GiB")):
        assert line.index(word) + len(word) == head.index("MEMORY") + len("MEMORY")


def test_sixteen_gpus_with_wide_names_fit_every_width() -> None:
    names = (
        "NVIDIA GB300 Grace Blackwell Ultra Superchip 288GB HBM3e",
        "英伟达加速计算卡一百",
        "é" * 40,
    )
    gpus = tuple(
        evolve(
            STATE,
            uuid=f"GPU-{number:08x}-0000-4000-8000-000000000000",
            index=number,
            product=names[number % 3],
            containers=(CONTAINER,) * 3,
            reason="XID 79: the GPU has fallen off the bus" if number == 3 else "",
            health="unhealthy" if number == 3 else "healthy",
        )
        for number in range(16)
    )
    view = evolve(VIEW, gpus=gpus)
    for columns in (20, 40, 79, 80, 120, 200, 400):
        shown = lines(view, StatusStyle(columns))
        assert max(map(width, shown)) <= columns
        assert sum(line.lstrip().startswith("team/t") for line in shown) == 48
    wide = lines(view, StatusStyle(200))
    heads = [line for line in wide if re.match(r"\d+ ", line)]
    assert len(heads) == 16
    places = {width(line[: line.index("55%")]) for line in heads}
    assert len(places) == 1


def test_nothing_is_truncated_at_80_columns() -> None:
    reason = "XID 79: the GPU has fallen off the bus, after XID 31 and XID 43 on the same GPU"
    advice = "drain the node, run `sgpud release`, reset the GPU with nvidia-smi, `sgpud acquire`"
    long = "/etc/sgpud.toml:14: sharing.duplication_factor: must be an integer from 1 to 10000"
    gpu = evolve(STATE, uuid=f"GPU-{'a' * 36}", product="NVIDIA L4", health="unhealthy")
    view = evolve(
        VIEW,
        configuration=ConfigurationView("/etc/sgpud.toml", "last good", (long,)),
        notes=(reason,),
        gpus=(evolve(gpu, reason=reason, advice=advice, cordoned=True),),
        pools=(evolve(POOL, gpus=(evolve(GPU, uuid=gpu.uuid, reason=reason),)),),
    )
    shown = lines(view, StatusStyle(80))
    assert max(map(width, shown)) <= 80
    assert "…" not in "".join(shown)
    text = " ".join(" ".join(shown).split())
    for whole in (long, f"Note: {reason}", f"to do: {advice}", f"withheld: {reason}"):
        assert whole in text
    assert f"{gpu.uuid}: unhealthy, cordoned: {reason}" in text


def test_a_gpu_of_two_pools_shows_the_shares_of_each() -> None:
    other = evolve(POOL, resource="example.com/b", gpus=(evolve(GPU, held=1, withheld=9),))
    text = "\n".join(lines(evolve(VIEW, pools=(POOL, other))))
    assert "4 held, 106 withheld, 4 draining" in text
    assert "example.com/b: 1 held, 9 withheld, 2 draining" in text


def test_colours_are_used_only_on_terminals() -> None:
    view = evolve(VIEW, gpus=(evolve(STATE, health="unhealthy", reason="XID 79"),))
    plain, coloured = lines(view), lines(view, StatusStyle(colour=True))
    assert not any("\x1b" in line for line in plain)
    assert [ESCAPE.sub("", line) for line in coloured] == plain
    assert any("\x1b[31m  GPU-1: unhealthy: XID 79\x1b[0m" in line for line in coloured)


def test_sorting_by_memory_puts_the_largest_first() -> None:
    small = evolve(STATE, uuid="GPU-0", index=0, used=GIB)
    large = evolve(STATE, uuid="GPU-9", index=9, used=9 * GIB)
    light = evolve(CONTAINER, pod="light", used=GIB)
    view = evolve(VIEW, gpus=(small, evolve(large, containers=(light, CONTAINER))))
    shown = lines(view, StatusStyle(order=Order.MEMORY))
    order = [line.split()[0] for line in shown if line.startswith(("0 ", "9 "))]
    assert order == ["9", "0"]
    text = "\n".join(shown)
    assert text.index("team/train/main") < text.index("team/light/main")


def test_holders_are_sorted_filtered_and_folded() -> None:
    first = evolve(CONTAINER, pod="a", used=GIB, utilisation=90)
    second = evolve(CONTAINER, pod="b", used=3 * GIB, utilisation=5)
    gpu = evolve(STATE, containers=(second, first), processes=())
    other = evolve(STATE, uuid="GPU-2", index=1, containers=(), processes=(), utilisation=99)
    view = evolve(VIEW, gpus=(gpu, other))

    def pods(**style: Any) -> list[tuple[str, str]]:
        text = "\n".join(lines(view, StatusStyle(**style)))
        return re.findall(r"team/(\w)/main|^(\d) NVIDIA", text, re.MULTILINE)

    def names(**style: Any) -> str:
        return "".join(pod or index for pod, index in pods(**style))

    assert names() == "0ba1"
    assert names(order=Order.MEMORY) == "0ba1"
    assert names(order=Order.BUSY) == "10ab"
    assert names(order=Order.POD) == "0ab1"
    assert names(only="team/a") == "0a"
    assert names(folded=True) == "01"


def test_problems_are_shown_first() -> None:
    view = evolve(
        VIEW,
        configuration=ConfigurationView("/etc/sgpud.toml", "last good", ("f:1: bad",)),
        probe="no driver",
        holders="no checkpoint",
        usage=UsageView(3.0, fresh=True, problem="needs hostPID: true"),
        unknown=("holders",),
        notes=("a note",),
        dead=("reconciler",),
        pools=(evolve(POOL, registration="waiting to retry", problem="refused"),),
        gpus=(evolve(STATE, fresh=False, used=GIB, measured_ago=99.0, use_problem="why"),),
    )
    text = "\n".join(lines(view))
    for words in (
        "Failed: reconciler. Restart sgpud",
        "/etc/sgpud.toml is invalid; the last good configuration is in use:",
        "  f:1: bad",
        "GPUs: no driver",
        "Holders may be stale: no checkpoint",
        "Usage: needs hostPID: true",
        "Not known yet: holders",
        "Note: a note",
        "example.com/gpu: waiting to retry (refused)",
        "memory as of 99 s ago",
        "use per container is unknown: why",
    ):
        assert words in text


def test_unknown_values_are_not_shown_as_zero() -> None:
    nothing = evolve(CONTAINER, granted=None, used=None, over=None, utilisation=None)
    view = evolve(VIEW, gpus=(evolve(STATE, used=None, utilisation=None, containers=(nothing,)),))
    (train,) = (line for line in lines(view) if "team/train" in line)
    assert train.split() == ["team/train/main", "n/a", "n/a", "4"]


def test_an_unnamed_pod_and_a_starting_one() -> None:
    unnamed = evolve(CONTAINER, namespace="", pod="")
    starting = evolve(CONTAINER, namespace="", pod="", uid="", container="")
    shown = "\n".join(lines(evolve(VIEW, gpus=(evolve(STATE, containers=(unnamed, starting)),))))
    assert f"{UID}/main" in shown
    assert "a pod that is starting" in shown


def test_a_name_on_a_screen_cannot_control_the_terminal() -> None:
    evil = evolve(STATE, product="A\x1b[2J\u202e")
    shown = "\n".join(lines(evolve(VIEW, gpus=(evil,))))
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_a_gpu_that_no_pool_lists_is_not_shared() -> None:
    shown = lines(evolve(VIEW, pools=(), gpus=(STATE,)))
    assert any("not shared" in line for line in shown)
    assert lines(evolve(VIEW, pools=(), gpus=()))[0].startswith("sgpud 1.2.3")


def test_every_availability_is_shown() -> None:
    for availability, word in (
        ("available", "free"),
        ("withheld", "withheld"),
        ("unhealthy", "unhealthy"),
    ):
        counts: dict[str, Any] = {"free": 0, "withheld": 0, "unhealthy": 0, word: 97}
        gpu = evolve(GPU, availability=availability, reason="it is so", **counts)
        pool = evolve(POOL, gpus=(gpu,))
        text = "\n".join(lines(evolve(VIEW, pools=(pool,))))
        assert f"97 {word}" in text


def test_width_counts_what_a_terminal_shows() -> None:
    assert [width(text) for text in ("abc", "英伟", "e\u0301", "🙂", "")] == [3, 4, 1, 2, 0]
    assert truncate("英伟达", 6) == "英伟达"
    assert truncate("英伟达", 5) == "英伟…"
    assert truncate("英伟达", 4) == "英…"
    assert truncate("abcdef", 3) == "ab…"
    assert truncate("abc", 0) == ""


def test_a_long_text_wraps_between_words() -> None:
    assert wrapped("  one two three", 12) == ["  one two", "    three"]
    assert wrapped("one " + "x" * 12, 8) == ["one", "  xxxxxx", "  xxxxxx"]
    assert wrapped("英伟 达加速", 6) == ["英伟", "  达加", "  速"]
    assert wrapped("one two", 0) == wrapped("one two", 7) == ["one two"]


def test_a_table_narrows_its_first_column_first() -> None:
    rows = [
        (Cell("a" * 30), Cell("1", right=True)),
        (Cell("b", CellStyle.BAD), Cell("23", right=True)),
    ]
    assert table(rows, columns=20) == ["a" * 15 + "…   1", "b" + " " * 17 + "23"]
    assert table(rows)[0] == "a" * 30 + "   1"


def test_top_fills_the_terminal_and_no_more() -> None:
    shown = [str(number) for number in range(30)]
    assert fitted(shown, 31) == shown
    assert len(fitted(shown, 10)) == 9
    assert fitted(shown, 10)[-1] == "... and 22 more lines"


def test_the_document_is_what_is_shown() -> None:
    assert document(VIEW) == asdict(VIEW)


def test_overuse_is_shown_with_how_long_it_has_lasted() -> None:
    one = evolve(CONTAINER, over_for=45.0)
    view = evolve(VIEW, gpus=(evolve(STATE, containers=(one,)),))
    assert any(line.rstrip().endswith("4, over by 2GiB for 45 s") for line in lines(view))
