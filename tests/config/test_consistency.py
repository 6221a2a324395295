"""Warnings: each for its cause and on its line, and none for a configuration that is fine."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sgpud.config.consistency import covers
from sgpud.config.load import parse
from sgpud.core.gpu.gpu import Gpu, matches


def warnings(text: str, *overrides: str) -> list[str]:
    """The warnings of a valid text."""
    return [str(problem) for problem in parse(text, "f", overrides).warnings]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[kubelet]\nnuma = true\n[sharing]\nmultiple = 'any'",
        "[kubelet]\nnuma = true\n[sharing]\nmultiple = 'refuse'",
        "[container]\nmethod = 'nvidia-runtime'",
        "[container]\nmethod = 'cdi'\ncdi_kind = 'a/b'\n",
        "[container]\nmethod = 'cdi'\n[[gpu]]\nmatch = '1'\nresource = 'a/b'",
        "[[gpu]]\nmatch = 'NVIDIA A100-*'\n[[gpu]]\nmatch = 'NVIDIA A1*'\n[[gpu]]\nmatch = '*'",
        "[gpus]\ndeny = ['GPU-1']",
        "[dra]\nkubeconfig = '/etc/sgpud.kubeconfig'\nnode_name = 'node-1'",
        "[[gpu]]\nmatch = '1'\nresource = 'example.com/shared-gpu'",
        *(
            f"[[gpu]]\nmatch = '{fine}'"
            for fine in (
                *("*MIG*", "*1g.5gb", "*mig 1G.10GB+me", "*A100* MIG 1g.*", "* MIG ?g.24gb*"),
                *("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "*MIG 1c.2g.24gb+gfx", "*+gfx"),
                *(
                    "*MIG 2g.48gb+me.all",
                    "*MIG 1g.24gb-me",
                    "?VIDIA H200 MIG 1g.*gb",
                    "*MIG 7g.999gb",
                ),
                "MIG-5c89852c-d268-c3f3-1b07-005d5ae1dc3f",
            )
        ),
        "[sharing]\nmultiple = 'same'\nplacement = 'packed'",
        "[sharing]\nmultiple = 'same'\nshare_memory = '1GiB'",
        "[sharing]\nmultiple = 'same'\nduplication_factor = 1",
        "[container]\nmethod = 'nvidia-runtime'\n[[gpu]]\nmatch = '1'\nduplication_factor = 1",
    ],
)
def test_nothing_to_warn_of(text: str) -> None:
    assert warnings(text) == []


@pytest.mark.parametrize(
    ("entry", "instead"),
    [
        ("*MIG 1g.24gb.gfx", "*MIG 1g.24gb+gfx"),
        ("*MIG 1g.24gb.me.all", "*MIG 1g.24gb+me.all"),
        ("*MIG 1g.24gb.*", "*MIG 1g.24gb"),
        ("mig-1g.5gb", "*MIG 1g.5gb"),
        ("*mig-1g.24gb-me", "*MIG 1g.24gb-me"),
        ("nvidia.com/mig-1g.10gb.me", "*MIG 1g.10gb+me"),
        ("MIG 2g.20gb", "*MIG 2g.20gb"),
        ("1g.5gb", "*MIG 1g.5gb"),
        ("1c.3g.20gb*", "*MIG 1c.3g.20gb"),
        ("MIG", "*MIG 1g.10gb"),
        ("*MIG1g.5gb", "*MIG 1g.5gb"),
    ],
)
def test_an_entry_that_can_match_no_instance_is_told_how_nvml_names_one(
    entry: str, instead: str
) -> None:
    for text in (f"[[gpu]]\nmatch = '{entry}'", f"[gpus]\nallow = ['{entry}', '0']"):
        (found,) = warnings(text)
        assert f'"{entry}" can match no GPU' in found
        assert f'"{instead}"' in found


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("[kubelet]\nnuma = true", "f:2: warning: kubelet.numa: ", "without asking sgpud"),
        (
            "[kubelet]\nfast_status = true",
            "f:2: warning: kubelet.fast_status: ",
            "is not used without share_memory",
        ),
        (
            "[sharing]\nshare_memory = '1GiB'\n[kubelet]\nfast_status = true\napi_server = 'never'",
            "f:4: warning: kubelet.fast_status: ",
            'while api_server is "never"',
        ),
        (
            "[kubelet]\napi = 'dra'\nfast_status = true",
            "f:3: warning: kubelet.fast_status: ",
            "where the Node shows no shares",
        ),
        (
            "[kubelet]\napi = 'dra'\napi_server = 'never'\n[dra]\nevict = 'unhealthy'",
            "f:5: warning: dra.evict: ",
            "pods with limits stay",
        ),
        ("[dra]\nnode_name = 'a'\norder = 'fixed'", "f:1: warning: dra: ", "remove the rest"),
        (
            "[sharing]\nmultiple = 'same'\nplacement = 'packed'\n[kubelet]\nnuma = true",
            "f:5: warning: kubelet.numa: ",
            'with sharing.multiple = "same"',
        ),
        (
            "[sharing]\nmultiple = 'same'",
            "f:2: warning: sharing.multiple: ",
            'placement = "packed" refuses fewer',
        ),
        (
            "[container]\nmethod = 'nvidia-runtime'\n[[gpu]]\nmatch = '1'\nresource = 'a/b'",
            "f:2: warning: container.method: ",
            "supports only one resource, but there are 2",
        ),
        (
            "[[gpu]]\nmatch = '*'\n[[gpu]]\nmatch = 'x'",
            "f:4: warning: gpu.match: ",
            '"x" never applies, since the earlier rule "*" matches all of it',
        ),
        (
            "[[gpu]]\nmatch = 'x'\n[[gpu]]\nmatch = 'X'",
            "f:4: warning: gpu.match: ",
            '"X" never applies',
        ),
        ("[gpus]\nallow = [\n'a',\n'a']", "f:4: warning: gpus.allow: ", '"a" is listed twice'),
        ("[gpus]\nallow = []", "f:2: warning: gpus.allow: ", "no GPU is shared"),
        ("[gpus]\ndeny = ['*']", "f:2: warning: gpus.deny: ", "denies every GPU"),
        (
            "[[gpu]]\nmatch = '*MIG 1g.24gb.gfx'",
            "f:2: warning: gpu.match: ",
            '"1g.24gb.gfx" is not a MIG profile',
        ),
        (
            "[gpus]\ndeny = ['GPU-one,two']",
            "f:2: warning: gpus.deny: ",
            "can match no GPU, since it is not a UUID",
        ),
        (
            "[gpus]\nallow = ['0']\ndeny = ['0']",
            "f:3: warning: gpus.deny: ",
            "is in allow as well, and deny wins",
        ),
        (
            "[sharing]\nresource = 'a-b/c'\n[[gpu]]\nmatch = '1'\nresource = 'a.b/C'",
            "f:5: warning: gpu.resource: ",
            "the same environment variables",
        ),
        (
            "[container]\nmethod = 'cdi'\nmounts = []",
            "f:3: warning: container.mounts: ",
            'not used by method = "cdi"',
        ),
        (
            "[container]\ncdi_kind = 'a/b'\nmethod = 'device-nodes'",
            "f:2: warning: container.cdi_kind: ",
            'not used by method = "device-nodes"',
        ),
    ],
)
def test_what_is_unwise_is_a_warning_on_its_line(text: str, place: str, says: str) -> None:
    (warning,) = warnings(text)
    assert warning.startswith(place)
    assert says in warning


def test_a_warning_stands_at_the_command_line_when_that_set_the_key() -> None:
    (warning,) = warnings("[kubelet]\nnuma = false", "kubelet.numa=true")
    assert warning.startswith("--set: warning: kubelet.numa: ")


def test_a_warning_stands_in_the_file_when_the_command_line_sets_other_keys() -> None:
    (warning,) = warnings("[kubelet]\nnuma = true", "log.level=warn", "kubelet.pod_resources=/x")
    assert warning.startswith("f:2: warning: kubelet.numa: ")


def test_no_number_of_warnings_is_an_error() -> None:
    assert len(warnings("[gpus]\ndeny = [" + 150 * "'1', " + "]")) == 149


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        ("*", "GPU-1", True),
        ("**", "[ab]", True),
        ("GPU-1", "GPU-1", True),
        ("GPU-1", "GPU-2", False),
        ("0", "00", True),
        ("0", "*", False),
        ("3b:00", "0000:3B:00.0", True),
        ("*-*", "GPU-1", False),
        ("NVIDIA*", "nvidia a?00*", True),
        ("A?00", "A*00", False),
        ("*a*", "[ab]", True),
        ("[ab]", "[ab]", True),
    ],
)
def test_one_entry_covers_another(earlier: str, later: str, *, expected: bool) -> None:
    assert covers(earlier, later) is expected


_globs = st.text("aB-*?[]!", min_size=1, max_size=6)


@given(_globs, _globs, st.text("aAbB-[]!", max_size=6))
@example("*a*", "[ab]", "b")
@example("a?", "a*", "a")
def test_a_covered_entry_matches_nothing_else(earlier: str, later: str, product: str) -> None:
    gpu = Gpu("GPU-1", 0, product, 1)
    if covers(earlier, later) and matches(later, gpu):
        assert matches(earlier, gpu)
