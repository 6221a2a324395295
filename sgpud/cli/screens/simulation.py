"""The document of `sgpud simulate` as text for a person. Pure: documents in, text out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sgpud.cli.screens.output import table
from sgpud.core.units import format_size

Document = Mapping[str, Any]

MOST_ROWS = 40
"""Pods that are listed; of more, those that waited or failed come first."""
MOST_GPUS = 64
WAITS = {
    "full": "too few shares were free on all nodes together",
    "split": "enough were free on all nodes together, but nowhere as the pod needs them",
    "unseen": "a node had the room, but the scheduler did not know it yet",
}
_SIGNS = ".123456789#"
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def simulated(found: Document) -> str:
    """The answer of simulate."""
    lines: list[str] = []
    for run in found["runs"]:
        lines += [*_run(run), ""]
    if len(found["runs"]) > 1:
        lines += ["Side by side", *_compared(found["runs"]), ""]
    return "\n".join(lines[:-1])


def _run(run: Document) -> Iterator[str]:
    settings, gpus = run["settings"], run["gpus"]
    yield (
        f"{run['configuration']}: {_count(run['nodes'], 'node')}, {_count(len(gpus), 'GPU')}, "
        f"placement {settings['placement']}, {_how(settings)}"
    )
    for resource in dict.fromkeys(gpu["resource"] for gpu in gpus):
        mine = [gpu for gpu in gpus if gpu["resource"] == resource]
        yield (
            f"{resource}: {_count(sum(gpu['shares'] for gpu in mine), 'share')} of "
            f"{_count(len(mine), 'GPU')}, multiple {mine[0]['multiple']}"
        )
    yield from (f"Note: {note}" for note in run["notes"])
    yield ""
    yield from _pods(run["pods"])
    yield ""
    yield from _gpus(run)
    yield ""
    yield from _summary(run)


def _how(settings: Document) -> str:
    """What beside the placement decides which GPU a pod gets."""
    if settings["api"] == "dra":
        return f"DRA, reordered every {clock(settings['reorder_every'])} at most"
    if settings["api"] == "device-plugin":
        return f"advertise {settings['advertise']}"
    return "by a scheduler that sees every GPU"


def _pods(pods: Sequence[Document]) -> Iterator[str]:
    shown = pods
    if len(pods) > MOST_ROWS:
        eventful = [pod for pod in pods if pod["waits"] or pod["failures"]]
        shown = (eventful or pods)[:MOST_ROWS]
    rows = [("ARRIVES", "POD", "SHARES", "OUTCOME")]
    rows += [
        (clock(pod["arrived"]), pod["name"], str(pod["shares"]), "; ".join(_story(pod)))
        for pod in shown
    ]
    yield from table(rows)
    rest = len(pods) - len(shown)
    if rest:
        yield f"and {rest} more: --json has every one"


def _story(pod: Document) -> Iterator[str]:
    if pod["failures"]:
        last = pod["failures"][-1]
        yield (
            f"failed {_count(len(pod['failures']), 'time')}, last on node {last['node']} at "
            f"{clock(last['at'])} ({_rule(last)})"
        )
    if pod["waits"]:
        reasons = ", and ".join(WAITS[wait] for wait in pod["waits"])
        yield f"waited {clock(pod['waited'])}: {reasons}"
    if pod["end"] == "placed":
        gpus = ", ".join(
            f"GPU {gpu}" + (f" x {count}" if count > 1 else "")
            for gpu, count in pod["gpus"].items()
        )
        until = f" until {clock(pod['ended'])}" if pod["ended"] is not None else ""
        yield f"node {pod['node']}, {gpus}, from {clock(pod['placed'])}{until}"
    elif pod["end"] == "waiting":
        yield "still waiting at the end"
    else:
        yield "given up"


def _rule(failure: Document) -> str:
    """Why a pod failed, without the ids that the message ends with."""
    why: str = failure["why"]
    for end in (": GPU ", ". Free now"):
        why = why.partition(end)[0]
    return why


def _gpus(run: Document) -> Iterator[str]:
    start, end = run["start"], run["end"]
    parts = len(run["gpus"][0]["picture"]) if run["gpus"] else 0
    if not parts:
        yield "No GPU is shared."
        return
    yield (
        f"GPUs over time, from {clock(start)} to {clock(end)}; each sign is "
        f"{clock((end - start) / parts)}: . nothing held, 1 to 9 tenths of the shares, # all"
    )
    rows = [("NODE", "GPU", "OVER TIME", "SHARES", "PEAK", "MEAN", "MEMORY PEAK", "MEAN")]
    for gpu in run["gpus"][:MOST_GPUS]:
        over = gpu["seconds_over_memory"]
        rows.append(
            (
                str(gpu["node"]),
                str(gpu["gpu"]),
                "".join(map(_sign, gpu["picture"])),
                str(gpu["shares"]),
                str(gpu["peak_shares"]),
                f"{gpu['mean_shares']:.1f}",
                f"{format_size(gpu['peak_memory'])} of {format_size(gpu['memory'])}"
                + (f", too much for {clock(over)}" if over else ""),
                format_size(round(gpu["mean_memory"])),
            )
        )
    yield from table(rows)
    if len(run["gpus"]) > MOST_GPUS:
        yield f"and {len(run['gpus']) - MOST_GPUS} more: --json has every one"


def _summary(run: Document) -> Iterator[str]:
    found = run["summary"]
    yield (
        f"Of {_count(found['requests'], 'pod')}: {found['placed']} placed, "
        f"{found['failed']} given up, {found['waiting']} still waiting at the end."
    )
    rules = ", ".join(f"{rule} {count}" for rule, count in found["failures_by_rule"].items())
    yield (
        f"Failures on a node: {found['failures']}, of {_count(found['pods_with_failures'], 'pod')}"
        + (f" ({rules})" if rules else "")
    )
    yield (
        f"Waited: {found['waited']}, {clock(found['mean_wait'])} on average over all pods, "
        f"{clock(found['longest_wait'])} at most (a given-up pod waits to the end)"
    )
    yield (
        "Waited or failed although the total free shares were enough (fragmentation): "
        f"{found['fragmentation']}"
    )
    declared = [gpu["mean_declared"] for gpu in run["gpus"]]
    if declared:
        peak = max(gpu["peak_declared"] for gpu in run["gpus"])
        yield (
            f"Declared memory per GPU: {_mean(declared)} on average, {format_size(peak)} at most"
        )
    for wait, text in WAITS.items():
        if found["waits"][wait]:
            yield f"  {found['waits'][wait]} while {text}"


def _compared(runs: Sequence[Document]) -> list[str]:
    rows = [("", *(run["configuration"] for run in runs))]
    for name, better, value, shown in _LINES:
        values = [value(run) for run in runs]
        best = better(values)
        differ = len(set(values)) > 1
        rows.append(
            (name, *(shown(each) + (" *" if differ and each == best else "") for each in values))
        )
    return [*table(rows), "* the best of its line"]


def _mean(sizes: Sequence[float]) -> str:
    return format_size(round(sum(sizes) / max(1, len(sizes))))


def _of(key: str) -> Callable[[Document], float]:
    return lambda run: float(run["summary"][key])


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _size(value: float) -> str:
    return format_size(round(value))


def _sign(part: float) -> str:
    """One sign for a fraction: full and empty only where it is."""
    if part <= 0:
        return _SIGNS[0]
    return _SIGNS[min(max(1, int(part * 10 + 1e-9)), 10)]


def clock(seconds: float) -> str:
    """A time as people read it: `0s`, `12.5s`, `3m20s`, `2h05m`, `3d04h`."""
    if seconds < _MINUTE:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    whole = round(seconds)
    for factor, unit, small, smaller in ((_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "m")):
        if whole >= factor:
            return f"{whole // factor}{unit}{whole % factor // small:02d}{smaller}"
    return f"{whole // _MINUTE}m{whole % _MINUTE:02d}s"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


_LINES: tuple[
    tuple[
        str,
        Callable[[Sequence[float]], float],
        Callable[[Document], float],
        Callable[[float], str],
    ],
    ...,
] = (
    ("placed", max, _of("placed"), _whole),
    ("given up", min, _of("failed"), _whole),
    ("failures on a node", min, _of("failures"), _whole),
    ("pods with failures", min, _of("pods_with_failures"), _whole),
    ("waiting at the end", min, _of("waiting"), _whole),
    ("mean wait, all pods", min, _of("mean_wait"), clock),
    ("longest wait", min, _of("longest_wait"), clock),
    ("fragmentation", min, _of("fragmentation"), _whole),
    (
        "mean declared per GPU",
        max,
        lambda run: sum(gpu["mean_declared"] for gpu in run["gpus"]) / max(1, len(run["gpus"])),
        _size,
    ),
    (
        "peak declared per GPU",
        max,
        lambda run: max((gpu["peak_declared"] for gpu in run["gpus"]), default=0),
        _size,
    ),
)
"""What is compared: the line, what is better, the value of a run, and how it is written."""
