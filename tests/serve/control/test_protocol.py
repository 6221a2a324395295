"""What is a request, and what is none."""

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sgpud.serve.control.client import REQUEST_LIMIT
from sgpud.serve.control.protocol import ControlRequest, Peer, RequestError, parse


def test_a_request_names_a_verb_and_may_have_arguments() -> None:
    assert parse(b'{"verb": "plan"}') == ControlRequest("plan", {})
    assert parse(b'{"verb": "plan", "arguments": {"a": 1}}\r') == ControlRequest("plan", {"a": 1})


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"reload", "one line of JSON"),
        (b"", "one line of JSON"),
        (b"[" * 4000, "one line of JSON"),
        (b"\xff", "one line of JSON"),
        (b"[]", "a JSON object with"),
        (b'{"arguments": {}}', "a JSON object with"),
        (b'{"verb": "plan", "args": {}}', "a JSON object with"),
        (b'{"verb": 3}', '"verb" is a string'),
        (b'{"verb": "plan", "arguments": []}', '"arguments" is a JSON object'),
        (b'{"verb": "' + b"x" * REQUEST_LIMIT + b'"}', f"at most {REQUEST_LIMIT} bytes"),
    ],
)
def test_an_invalid_request_is_refused_with_the_expected_form(line: bytes, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        parse(line)


@given(st.binary(max_size=5000))
@example(b'{"verb": "\\ud800"}')
@example(b"9" * 4096)
def test_any_bytes_parse_or_raise_request_error(line: bytes) -> None:
    try:
        request = parse(line)
    except RequestError:
        return
    assert isinstance(request.verb, str)


def test_root_may_ask_everything_and_the_group_what_only_reads() -> None:
    me = os.geteuid()
    other = Peer(1, me + 1000)
    for verb in ("status", "explain", "plan"):
        assert other.may(verb)
    for verb in ("reload", "release", "acquire", "cordon", "uncordon", "heal"):
        assert Peer(1, 0).may(verb)
        assert Peer(1, me).may(verb)
        assert not other.may(verb)
