"""The lines between hosts: written and read again they are the same; anything else is refused."""

from __future__ import annotations

import json
from inspect import signature
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.dispatch.messages import (
    Call,
    Cancel,
    Event,
    Failure,
    Result,
    decode_reply,
    decode_request,
    encode,
    error_from_json,
)
from swarm.kernel.errors import InvalidError, SwarmError

numbers = st.integers(min_value=0, max_value=2**53)
text = st.text(st.characters(codec="utf-8"))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(text, values, max_size=3)


@given(
    st.builds(Call, numbers, text, objects, st.booleans()) | st.builds(Cancel, numbers),
)
def test_requests_survive_the_wire(sent: Call | Cancel) -> None:
    line = encode(sent)
    assert line.count(b"\n") == 1
    assert decode_request(line) == sent


@given(st.builds(Event, numbers, objects) | st.builds(Result, numbers, values))
def test_replies_survive_the_wire(reply: Event | Result) -> None:
    line = encode(reply)
    assert line.count(b"\n") == 1
    assert decode_reply(line) == reply


def all_errors(base: type[SwarmError] = SwarmError) -> list[type[SwarmError]]:
    """The public tree; a room's own errors, if its module happens to be loaded, never travel.

    Nor do those that take more than a message, place and remedy: each process makes its own.
    """
    children = [child for child in base.__subclasses__() if child.__module__ == base.__module__]
    return [base, *(found for child in children for found in all_errors(child))]


@given(
    st.sampled_from([kind for kind in all_errors() if "where" in signature(kind).parameters]),
    text,
    st.none() | text,
    st.none() | text,
    st.none() | numbers,
)
def test_errors_survive_the_wire(
    kind: type[SwarmError], message: str, where: str | None, remedy: str | None, number: int | None
) -> None:
    error = kind(message, where=where, remedy=remedy)
    reply = decode_reply(encode(Failure(number, error)))
    assert isinstance(reply, Failure)
    assert reply.id == number
    assert type(reply.error) is kind
    assert reply.error.as_json() == error.as_json()


@given(values)
def test_other_json_is_refused(value: Any) -> None:
    for decode in (decode_request, decode_reply):
        with pytest.raises(InvalidError):
            decode(json.dumps(value).encode())


def test_an_unknown_error_keeps_its_message() -> None:
    error = error_from_json({"code": "from the future", "message": "what it said"})
    assert type(error) is SwarmError
    assert error.message == "what it said"
    assert error_from_json({"code": "invalid_definition", "message": "m"}).message == "m"


@pytest.mark.parametrize("value", [float("nan"), b"bytes", {1: 2}])
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(InvalidError):
        encode(Result(1, value))
