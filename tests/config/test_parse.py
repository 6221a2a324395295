"""Every mistake in a text is a problem on its line, all of them in one run, and nothing else."""

import pytest
from hypothesis import given

from sgpud.config.build import build
from sgpud.config.load import parse
from sgpud.config.problems import ConfigError, Problem
from sgpud.config.schema.check import faults
from sgpud.config.schema.kinds import Boolean, Key, Table
from sgpud.config.schema.sections import ROOT
from sgpud.config.values import LogFormat, LogLevel
from sgpud.core.sharing.rules import GpuRule, HostMount, InjectionMethod, Multiple, Placement
from tests.config.documents import VALID, Document, documents, write

FACTOR = "sharing.duplication_factor"
WHOLE = "expected integer from 1 to 10000"
SECTIONS = "gpus, sharing, gpu, container, limits, health, kubelet, dra, http, log"
EVERY_PROBLEM = f"""\
f:2: sharing.placment: is an unknown key; did you mean placement?
f:3: sharing.duplication_factor: is the float 1.0; expected integer from 1 to 10000
f:8: gpus.allow: is the number 7; expected string, e.g. "NVIDIA A100*"
f:10: storage: is an unknown section; sections: {SECTIONS}
f:11: gpu.match: is missing; expected string, e.g. "NVIDIA A100*"
f:12: gpu.resource: "shared" has no domain, use e.g. "example.com/shared-gpu"
f:14: container.mounts.host: "a" is not an absolute path: it must begin with /
f:15: container.mounts.mode: is an unknown key; known keys: host, container, read_only
f:15: container.mounts.container: "/b" is listed twice; remove one
f:16: sharing.multiple: is a table; expected "distinct", "same", "any" or "refuse"
f:18: kubelet.numa: is the string "true"; expected true or false, without quotes
f:7: warning: gpus.allow: "T4" is listed twice; remove one
"""


def errors(text: str | bytes) -> list[Problem]:
    """The errors of a text, without its warnings."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    return [problem for problem in caught.value.problems if not problem.warning]


def test_the_examples_of_a_valid_configuration_know_every_key() -> None:
    assert {name: list(keys) for name, keys in VALID.items()} == {
        section.name: [key.name for key in section.kind.keys]
        for section in ROOT.keys
        if isinstance(section.kind, Table)
    }


@given(documents())
def test_a_configuration_survives_being_written_and_read(document: Document) -> None:
    config = parse(write(document)[0], "f")
    assert config == build(document)
    assert parse(write(dict(config.document))[0], "f") == config
    assert all(warning.warning for warning in config.warnings)


def test_every_key_arrives_where_it_belongs() -> None:
    text = """
        gpus.allow = ["0"]
        gpus.deny = ["1"]
        [sharing]
        resource = "a.com/b"
        duplication_factor = 2
        placement = "packed"
        multiple = "refuse"
        [[gpu]]
        match = "T4"
        resource = "a.com/c"
        [[gpu]]
        match = "*"
        duplication_factor = 3
        [container]
        method = "device-nodes"
        cdi_kind = "nvidia.com/gpu"
        [[container.mounts]]
        host = "/a"
        container = "/b"
        read_only = false
        [kubelet]
        numa = true
        plugin_directory = "/c"
        pod_resources = "/d"
        [http]
        listen = "tcp:9449:interface=127.0.0.1"
        [log]
        level = "debug"
        format = "json"
    """
    config = parse(text, "f")
    sharing = config.sharing
    assert (sharing.allow, sharing.deny) == (("0",), ("1",))
    assert (sharing.default.resource, sharing.default.factor) == ("a.com/b", 2)
    assert (sharing.placement, sharing.multiple) == (Placement.PACKED, Multiple.REFUSE)
    assert sharing.rules == (GpuRule("T4", "a.com/c", None), GpuRule("*", None, 3))
    assert sharing.injection.method is InjectionMethod.DEVICE_NODES
    assert sharing.injection.mounts == (HostMount("/a", "/b", read_only=False),)
    assert sharing.numa
    assert (config.kubelet.plugin_directory, config.kubelet.pod_resources) == ("/c", "/d")
    assert config.http.listen == "tcp:9449:interface=127.0.0.1"
    assert (config.log.level, config.log.format) == (LogLevel.DEBUG, LogFormat.JSON)
    assert config.warnings == ()


def test_all_problems_are_reported_in_one_run_in_the_order_of_their_lines() -> None:
    text = """\
[sharing]
placment = "spread"
duplication_factor = 1.0
[gpus]
allow = [
  "T4", # fine
  "T4",
  7,
]
[storage]
[[gpu]]
resource = "shared"
[container]
mounts = [{host = "a", container = "/b"},
          {host = "/a", container = "/b", mode = "rw"}]
[sharing.multiple]
[kubelet]
numa = "true"
"""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    assert str(caught.value) == EVERY_PROBLEM.rstrip()


@pytest.mark.parametrize(
    ("text", "key", "wrong"),
    [
        *(
            (
                f"[http]\nlisten = '{endpoint}'",
                "http.listen",
                (
                    f'"{endpoint}" is not an endpoint, e.g. "127.0.0.1:9449", or '
                    '"tcp:9449" for all addresses'
                ),
            )
            for endpoint in ("9449", "tcp:70000", "tcp:1:interface=a b")
        ),
        ("resource = 'a/b'", "resource", "is an unknown key here; it belongs in [sharing]"),
        (
            "[gpus]\nplacement = 1",
            "gpus.placement",
            "is an unknown key here; it belongs in [sharing]",
        ),
        (
            "[gpu]\nmatch = '*'",
            "gpu",
            "is a table; expected [[gpu]] tables, with two brackets",
        ),
        ("[log]\nmatch = '*'", "log.match", "is an unknown key here; it belongs in [[gpu]]"),
        (
            f"{'k' * 50} = 1",
            '"' + "k" * 39 + '…"',
            f"is an unknown key; sections: {SECTIONS}",
        ),
        ("[[log]]", "log", "is a list; expected keys of table [log]"),
        ("log = 1", "log", "is the number 1; expected keys of table [log]"),
        (
            "[log]\nlevel = 'INFO'",
            "log.level",
            'is "INFO"; expected "debug", "info", "warn" or "error"',
        ),
        ("[kubelet]\nnuma = 1", "kubelet.numa", "is the number 1; expected true or false"),
        ("[sharing]\nduplication_factor = true", FACTOR, f"is true; {WHOLE}"),
        ("[sharing]\nduplication_factor = 10001", FACTOR, f"10001 is out of range; {WHOLE}"),
        (
            "[sharing]\nduplication_factor = '5'",
            FACTOR,
            f'is the string "5"; {WHOLE}, without quotes',
        ),
        (
            "[sharing]\nplacement = 2026-01-01",
            "sharing.placement",
            'is the date or time 2026-01-01; expected "spread" or "packed"',
        ),
        (
            "[log]\n'a\\nb' = 1",
            'log."a\\\\nb"',
            "is an unknown key; known keys: level, format",
        ),
    ],
)
def test_each_mistake_is_reported_with_its_remedy(text: str, key: str, wrong: str) -> None:
    line = text.count("\n") + 1 if key != "gpu" else 1
    assert errors(text) == [Problem("f", line, key, wrong)]


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ("a = 1\n\n[log]\nlevel = info", 4, "", "strings need quotes"),
        ("[log]\nlevel = 'info'\n\nlevel = 'warn'\n", 4, "log.level", "first on line 2"),
        ("[log]\nlevel = 'info'\nlevel = [\n1,\n2\n]\n", 3, "log.level", "first on line 2"),
        ("[log]\n[gpus]\n[log]\n", 3, "log", "is set twice, first on line 1"),
        ("[gpu]\n[[gpu]]", 2, "gpu", "is set twice, first on line 1"),
        ("log.level = 'info'\nlog.level.x = 1", 2, "log.level.x", "first on line 1"),
        ("log = {level = 'info'}\nlog.format = 'text'", 2, "log.format", "first on line 1"),
        ("x = {a = 1, a = 2}", 1, "", "'a'"),
        ("[gpus]\nallow = [\n'a',\n\n[log]\nlevel = 1", 5, "", "this statement begins on line 2"),
        ("[gpus]\nallow = [\n'a',\n\n", 2, "", "before the file ends"),
        ("[log]\nlevel = '''\n\n\n", 2, "", "before the file ends"),
        ("[log]\n\n'level", 3, "", "is not TOML"),
        ("\n\n[log", 3, "", "is not TOML"),
        ("[log]\nlevel 'info'\n", 2, "", "is not TOML"),
        ("[log]\r\nlevel = 'a'\r\nlevel = 'b'\r\n", 3, "log.level", "first on line 2"),
        ("[log]\nx = " + "[" * 200_000, 2, "", "nested more than 16 deep"),
        ("[log]\nx = " + "{a=" * 60_000, 2, "", "nested more than 16 deep"),
        ("[log]\n" + "a." * 100_000 + "b = 1", 2, "", "nested more than 16 deep"),
        ("[log]\nx = " + "1" * 200_000, 2, "", "a number of 200000 characters"),
        ("[" * 200_000, 1, "", "is not TOML"),
    ],
)
def test_invalid_toml_is_reported_on_its_line(text: str, line: int, key: str, says: str) -> None:
    (problem,) = errors(text)
    assert (problem.line, problem.key) == (line, key)
    assert says in problem.text


def test_a_key_of_another_file_is_not_sent_to_a_section_of_this_one() -> None:
    table = Table((Key("memory", Boolean()),), "a table")
    (fault,) = faults({"gpu": {"resource": 1}}, Table((Key("gpu", table),), "a table"))
    assert fault.text == "is an unknown key; known keys: memory"


def test_a_flood_of_problems_is_truncated() -> None:
    problems = errors("[log]\n" + "".join(f"x{number} = 1\n" for number in range(5_000)))
    assert len(problems) == 101
    assert problems[-1].text == "has more than 100 problems"


def test_a_list_that_is_too_long_is_refused() -> None:
    (problem,) = errors("[[gpu]]\nmatch = '*'\n" * 257)
    assert problem.text == "has 257 elements, at most 256 are allowed"


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("0.0.0.0:9449", "tcp:9449:interface=0.0.0.0"),
        (":9449", "tcp:9449"),
        ("[::1]:9449", r"tcp:9449:interface=\:\:1"),
        ("tcp:9449", "tcp:9449"),
        ("", ""),
    ],
)
def test_an_address_and_a_port_are_an_endpoint(text: str, endpoint: str) -> None:
    assert parse(f'[http]\nlisten = "{text}"\n', "f.toml").http.listen == endpoint


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[sharing]\nshare_memory = = 3\n", "sgpud.toml:2:16: is not TOML"),
        ("[log]\r\nlevel = debug\r\n", "sgpud.toml:2:9: is not TOML"),
        ("[log]\n# \u00e9\u00e8\n\u00e9 = 1\n", "sgpud.toml:3:1: is not TOML"),
        ("[log]\nlevel = [\n", "sgpud.toml:2: is not TOML"),
        ("[log]\nlevel = 3\n", "sgpud.toml:2: log.level: "),
    ],
)
def test_a_syntax_error_has_its_column(text: str, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "sgpud.toml")
    assert str(caught.value).startswith(place)


def test_no_problem_is_reported_twice() -> None:
    found = errors("[gpus]\nallow = [1, 1, 2]\n")
    assert len(found) == len({str(problem) for problem in found})
    with pytest.raises(ConfigError) as caught:
        parse("[gpus]\nallow = [{}, {}]\n", "sgpud.toml")
    lines = str(caught.value).splitlines()
    assert len(lines) == len(set(lines)) == 1
