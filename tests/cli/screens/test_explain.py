"""An explanation as a person reads it."""

from attrs import asdict

from sgpud.cli.screens.explain import explained
from sgpud.core.explain.explain import Explanation
from sgpud.core.status.decisions import DecisionView, GpuDecisionView

A, B = "GPU-aaaaaaaa", "GPU-bbbbbbbb"
POOL = "example.com/gpu"
CHOICE = DecisionView(
    1000.25,
    "preference",
    POOL,
    1,
    "distinct, spread",
    "each share on another GPU; first the GPU with the smallest fraction held",
    (
        GpuDecisionView(A, 0, 7, 10, 3, 0.5, 60, "available", ""),
        GpuDecisionView(B, 1, 10, 10, 0, 0.0, None, "withheld", "cordoned"),
    ),
)
REFUSAL = DecisionView(
    1001.0,
    "refusal",
    POOL,
    2,
    "multiple",
    "2 shares are on 1 of the 2 GPUs",
    (GpuDecisionView(A, 2, None, 10, 3, 0.0, None, "available", ""),),
)
EMPTY = DecisionView(1002.0, "refusal", POOL, 1, "unknown", "example.com/gpu is not served", ())


def shown(*decisions: DecisionView, left_out: int = 0, kept: int = 3) -> str:
    found = Explanation("chat", "pod", ("It is so.",), (), decisions, left_out, kept, 1000, 1000.25)
    return explained(asdict(found))


def test_decisions_are_tables_under_the_answer() -> None:
    assert shown(CHOICE, REFUSAL, EMPTY).splitlines() == [
        "It is so.",
        "",
        "1970-01-01 00:16:40.250Z preferred 1 share of example.com/gpu",
        "  each share on another GPU; first the GPU with the smallest fraction held",
        "  GPU           HELD OF  ELSEWHERE  MEASURED FREE  OFFERED  PREFERRED  STATE",
        "  GPU-aaaaaaaa  3 of 10  50%        60 %           7        -          available",
        "  GPU-bbbbbbbb  0 of 10  -          -              10       1          withheld: cordoned",
        "",
        "1970-01-01 00:16:41.000Z refused 2 shares of example.com/gpu: rule `multiple`",
        "  2 shares are on 1 of the 2 GPUs",
        "  GPU           HELD OF  ELSEWHERE  REQUESTED  STATE",
        "  GPU-aaaaaaaa  3 of 10  -          2          available",
        "",
        "1970-01-01 00:16:42.000Z refused 1 share of example.com/gpu: rule `unknown`",
        "  example.com/gpu is not served",
        "",
        "3 decisions recorded since 1970-01-01 00:16:40.250Z (at most 1000 are kept).",
    ]


def test_omitted_and_forgotten_decisions_are_mentioned() -> None:
    assert "5 earlier decisions are not shown." in shown(REFUSAL, left_out=5)
    assert shown(kept=0).endswith("No decisions since sgpud started.")


def test_long_sentences_are_wrapped() -> None:
    found = Explanation("chat", "pod", ("word " * 100,), (), (), 0, 0, 1000, 0.0)
    assert max(map(len, explained(asdict(found)).splitlines())) <= 100
