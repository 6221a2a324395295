"""TOML texts of every shape, whose writer knows the line of every key."""

from collections.abc import Callable

from hypothesis import strategies as st

from sgpud.config.lines import Path

SCALARS = (
    "1",
    "0x1f",
    "1_000",
    "1.5e3",
    "true",
    "1979-05-27 07:32:00",
    '"a # b = [1, 2]"',
    r'"\" \\ \u00e9 ]"',
    "'C:\\'",
    "''",
    '""',
    "'''x'y''z'''",
    "'''''x'''''",
    '"""\\"""\\" = """',
    '""""quoted"""""',
)
LONG_SCALARS = (
    '"""\none = 1\n[two]\n# three\n"""',
    "'''\n[[four]]\n'''",
    '"""a \\\n   b"""',
)
GAPS = ("", " ", "\n", "  # ] , x = 1\n", "\n\n\t")
KEY_FORMS: tuple[Callable[[str], str], ...] = (
    str,
    lambda name: f'"{name}"',
    lambda name: f"'{name} # ]'",
    lambda name: f'"{name}\\u0041\\t"',
)
KEY_MEANINGS: tuple[Callable[[str], str], ...] = (
    str,
    str,
    lambda name: f"{name} # ]",
    lambda name: f"{name}A\t",
)


class Writer:
    """Writes a text piece by piece and notes on which line each path begins."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.text = ""
        self.lines: dict[Path, int] = {}
        self.names = 0

    def line(self) -> int:
        return self.text.count("\n") + 1

    def note(self, path: Path) -> None:
        self.lines.setdefault(path, self.line())

    def name(self) -> tuple[str, str]:
        """A name that no other has: as it is written, and as it is meant."""
        self.names += 1
        form = self.draw(st.integers(0, len(KEY_FORMS) - 1))
        name = f"k{self.names}"
        return KEY_FORMS[form](name), KEY_MEANINGS[form](name)

    def key(self, above: Path) -> Path:
        """Write a key of one to three parts; its path."""
        path = above
        for number in range(self.draw(st.integers(1, 3))):
            written, meant = self.name()
            self.text += (self.draw(st.sampled_from([".", " . "])) if number else "") + written
            path = (*path, meant)
            self.note(path)
        return path

    def gap(self, count: int) -> None:
        """Write what may stand between the elements of a list, or nothing."""
        self.text += count * self.draw(
            st.sampled_from(["", " ", "\n", "  # ] , x = 1\n", "\n\n\t"])
        )

    def value(self, path: Path, depth: int = 0, *, single: bool = False) -> None:
        """Write a value; `single` keeps it on one line."""
        kind = self.draw(st.sampled_from(["scalar", "list", "table"] if depth < 3 else ["scalar"]))
        if kind == "scalar":
            self.text += self.draw(st.sampled_from(SCALARS if single else SCALARS + LONG_SCALARS))
        elif kind == "list":
            self.list(path, depth, single=single)
        else:
            self.table(path, depth)

    def list(self, path: Path, depth: int, *, single: bool) -> None:
        gaps = 0 if single else 1
        count = self.draw(st.integers(0, 3))
        self.text += "["
        for number in range(count):
            self.gap(gaps)
            self.note((*path, number))
            self.value((*path, number), depth + 1, single=single)
            self.gap(gaps)
            self.text += "," if number < count - 1 or self.draw(st.booleans()) else ""
        self.gap(gaps)
        self.text += "]"

    def table(self, path: Path, depth: int) -> None:
        self.text += "{"
        for number in range(self.draw(st.integers(0, 3))):
            self.text += ", " if number else ""
            inner = self.key(path)
            self.text += "="
            self.value(inner, depth + 1, single=True)
        self.text += " }"

    def blanks(self) -> None:
        self.text += self.draw(st.sampled_from(["", "\n", "# [x]\n", "\t# y = '''\n", " \n \n"]))

    def pairs(self, table: Path) -> None:
        for _ in range(self.draw(st.integers(0, 3))):
            self.blanks()
            path = self.key(table)
            self.text += self.draw(st.sampled_from([" = ", "=", "\t=  "]))
            self.value(path)
            self.text += self.draw(st.sampled_from(["\n", " # c\n", "\n\n"]))

    def header(self) -> None:
        """Write a table, or an array of tables with a table inside, and what is in them."""
        repeated = self.draw(st.booleans())
        written, meant = self.name()
        if not repeated:
            self.note((meant,))
            self.text += f"[ {written} ]\n"
            self.pairs((meant,))
            return
        for number in range(self.draw(st.integers(1, 3))):
            self.note((meant,))
            self.note((meant, number))
            self.text += f"[[{written}]] # x\n"
            self.pairs((meant, number))
            self.blanks()
            self.note((meant, number, "sub"))
            self.text += f"[{written}.sub]\n"
            self.pairs((meant, number, "sub"))


@st.composite
def written_documents(draw: st.DrawFn) -> tuple[str, dict[Path, int]]:
    """A valid TOML text, and the line of every path in it."""
    writer = Writer(draw)
    writer.pairs(())
    for _ in range(draw(st.integers(0, 3))):
        writer.blanks()
        writer.header()
    return writer.text, writer.lines
