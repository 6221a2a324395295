"""What is printed: each number beside its floors, its target, and whether that was reached."""

from collections.abc import Iterable, Sequence

from attrs import asdict, frozen


class NotMeasuredError(Exception):
    """A number that could not be had; says why."""


@frozen
class Target:
    """What is to be reached, in the number's own unit."""

    limit: float
    rule: str
    """How the limit comes about, as a person would say it."""


@frozen
class Number:
    """One number that was measured."""

    name: str
    unit: str
    value: float
    floor: float | None = None
    """The same of the bare plugin, measured in between."""
    skeleton: float | None = None
    """The same of the bare skeleton."""
    target: Target | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the floor, or else the skeleton, it is."""
        base = self.floor if self.floor is not None else self.skeleton
        return self.value / base if base else None

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without one."""
        return self.value <= self.target.limit if self.target else None


def percentile(samples: Sequence[float], part: float) -> float:
    """The smallest sample that is not below `part` (0 to 1) of them."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def median(samples: Sequence[float]) -> float:
    """The sample in the middle."""
    return percentile(samples, 0.5)


HEAD = f"{'':44} {'sgpud':>10} {'floor':>10} {'skeleton':>10} {'ratio':>6}  target"


def line(number: Number) -> str:
    """A number as a line of the table."""
    ratio = number.ratio
    text = (
        f"{number.name:44} {_amount(number.value, number.unit)}"
        f" {_amount(number.floor, number.unit)} {_amount(number.skeleton, number.unit)}"
        f" {'' if ratio is None else format(ratio, '.2f'):>6}"
    )
    if number.target is None:
        return text.rstrip()
    verdict = "reached" if number.reached else "NOT REACHED"
    limit = _amount(number.target.limit, number.unit).strip()
    return f"{text}  {verdict}: {number.target.rule} = {limit}"


def documents(numbers: Iterable[Number]) -> list[dict[str, object]]:
    """The numbers for JSON."""
    return [
        {**asdict(number), "ratio": number.ratio, "reached": number.reached} for number in numbers
    ]


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return " " * 10
    digits = 3 if unit == "%" or (unit == "ms" and abs(value) < 10) else 1  # noqa: PLR2004
    return f"{value:.{digits}f} {unit}".rjust(10)
