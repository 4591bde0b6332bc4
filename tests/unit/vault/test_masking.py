"""Whatever common form a secret comes back in, it does not come back."""

from __future__ import annotations

import base64
import html
import json
import shlex
import urllib.parse
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.vault.masking import MASK, SHORTEST_ENCODED, Masks

FORMS: dict[str, Callable[[str], str]] = {
    "plain": lambda value: value,
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 without padding": lambda value: base64.b64encode(value.encode()).decode().rstrip("="),
    "base64 for URLs": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
    "json": lambda value: json.dumps(value)[1:-1],
    "json in unicode": lambda value: json.dumps(value, ensure_ascii=False)[1:-1],
    "json with slashes": lambda value: json.dumps(value)[1:-1].replace("/", "\\/"),
    "json in json": lambda value: json.dumps(json.dumps(value)[1:-1])[1:-1],
    "url": lambda value: urllib.parse.quote(value, safe=""),
    "path": urllib.parse.quote,
    "form": urllib.parse.quote_plus,
    "url twice": lambda value: urllib.parse.quote(urllib.parse.quote(value, safe=""), safe=""),
    "hex": lambda value: value.encode().hex(),
    "HEX": lambda value: value.encode().hex().upper(),
    "hex with colons": lambda value: value.encode().hex(":"),
    "repr": lambda value: repr(value)[1:-1],
    "repr beside a quote": lambda value: repr(f"{value} '")[1:-1].rsplit(" ", 1)[0],
    "json in repr": lambda value: repr(json.dumps({"k": value}))[8:-3],
    "repr in json": lambda value: json.dumps(repr(value)[1:-1])[1:-1],
    "url in json": lambda value: json.dumps(urllib.parse.quote(value))[1:-1],
    "html in json": lambda value: json.dumps(html.escape(value))[1:-1],
    "bytes": lambda value: repr(value.encode())[2:-1],
    "html": html.escape,
    "shell": shlex.quote,
}

secrets = st.text(st.characters(codec="utf-8"), min_size=8, max_size=60).filter(
    lambda text: not text.isspace() and text.strip() == text and len(text.splitlines()) == 1
)


@given(secrets, st.sampled_from(sorted(FORMS)), st.text(max_size=10), st.text(max_size=10))
def test_every_form_is_found(value: str, form: str, before: str, after: str) -> None:
    masks = Masks()
    masks.add(value)
    shown = FORMS[form](value)
    masked = masks.text(f"{before}{shown}{after}")
    assert MASK in masked
    assert shown not in masked.replace(MASK, "\0")


@given(st.binary(max_size=9), secrets, st.binary(max_size=9), st.booleans())
def test_base64_of_something_longer_is_found(
    before: bytes, value: str, after: bytes, for_urls: bool
) -> None:
    """Such as ``Authorization: Basic`` with a user's name in front."""
    masks = Masks()
    masks.add(value)
    encode = base64.urlsafe_b64encode if for_urls else base64.b64encode
    masked = masks.text(encode(before + value.encode() + after).decode())
    rest = masked.replace(MASK, "").rstrip("=")
    assert MASK in masked
    assert len(rest) <= len(encode(before)) + len(encode(after))


def test_a_piece_of_a_form_that_is_found_does_not_save_the_rest() -> None:
    """76 characters of base64 are a form of their own, as programs break lines there."""
    value = "".join(chr(number) for number in range(0x100, 0x150))
    masks = Masks()
    masks.add(value)
    left = masks.text(base64.b64encode(value.encode() + b"\x10").decode()).replace(MASK, "")
    assert len(left) <= 4


def test_values_that_follow_each_other_or_overlap_are_found() -> None:
    masks = Masks()
    masks.add("abcabcabc")
    assert masks.text("abcabcabcabc-") == f"{MASK}-"
    assert MASK in masks.text(base64.b64encode(b"abcabcabc" * 4).decode())
    left = masks.text(base64.b64encode(b"x" + b"abcabcabc" * 4).decode()).replace(MASK, "")
    assert len(left) <= 4


def test_a_value_of_many_lines_is_found_line_by_line() -> None:
    value = "-----BEGIN KEY-----\nAbCdEfGhIj\nKlMnOpQrSt\n-----END KEY-----\n"
    masks = Masks()
    masks.add(value)
    assert masks.text("log: KlMnOpQrSt!") == f"log: {MASK}!"
    encoded = base64.encodebytes((value * 3).encode()).decode()
    masks.add(value * 3)
    assert all(masks.text(line) in (MASK, f"{MASK}\n") for line in encoded.splitlines()[:-1])


def test_a_long_run_of_letters_and_digits_is_found_however_it_was_quoted() -> None:
    masks = Masks()
    masks.add("user=0123456789abcdef\\")
    assert masks.text(repr(repr(repr(repr("user=0123456789abcdef\\"))))).count(MASK) == 1
    assert masks.text("<0123456789abcdef>") == f"<{MASK}>"
    assert masks.text("user") == "user"


def test_the_longer_of_two_secrets_is_masked_first() -> None:
    masks = Masks()
    masks.add("password")
    masks.add("password-of-the-other")
    assert masks.text("password-of-the-other password") == f"{MASK} {MASK}"


def test_keys_numbers_and_nested_values_are_masked() -> None:
    masks = Masks()
    masks.add("12345678")
    value = {"a 12345678": [12345678, {"x": "12345678"}, True, None, 1.5, 999]}
    assert masks.value(value) == {f"a {MASK}": [MASK, {"x": MASK}, True, None, 1.5, 999]}


@given(secrets, st.sampled_from(sorted(FORMS)), st.data())
def test_text_that_was_cut_within_a_form_shows_no_part_of_it(
    value: str, form: str, data: st.DataObject
) -> None:
    masks = Masks()
    masks.add(value)
    shown = FORMS[form](value)
    inner = shown[1:-1] if form == "shell" and shown != value else shown
    at = data.draw(st.integers(SHORTEST_ENCODED, max(len(inner) - 1, SHORTEST_ENCODED)))
    start, end = inner[:at], inner[-at:]
    assert masks.text(f"\n{start}", cut_end=True) in (f"\n{MASK}", f"\n{MASK}=")
    assert masks.text(f"{end}\n", cut_start=True) == f"{MASK}\n"


def test_text_that_was_not_cut_may_end_like_the_beginning_of_a_secret() -> None:
    masks = Masks()
    masks.add("postgres://user:password@host")
    assert masks.text("connecting to postgres") == "connecting to postgres"
    assert masks.text("connecting to postgres", cut_end=True) == f"connecting to {MASK}"


@pytest.mark.parametrize("short", ["", "a", "abc"])
def test_short_values_are_left(short: str) -> None:
    masks = Masks()
    masks.add(short)
    assert masks.text("abc abc") == "abc abc"


@given(st.text(max_size=200))
def test_other_text_is_left_as_it_is(text: str) -> None:
    masks = Masks()
    masks.add("gk8#Lq/2!vTz0wXp")
    assert masks.text(text) == text
