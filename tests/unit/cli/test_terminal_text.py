"""Text that others wrote cannot drive a terminal, and is cut by columns."""

from __future__ import annotations

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.cli.terminal import Terminal, cell_width, clean, cut, encodable

TEXT = st.text(st.characters(exclude_categories=()), max_size=60)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain", "plain"),
        ("zeile\n\tzwei ü 漢 🎉", "zeile\n\tzwei ü 漢 🎉"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\rb\x07", "a\\rb\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("abc\u202etxt.exe", "abc\\u202etxt.exe"),
        ("name\udcff", "name\\udcff"),
    ],
)
def test_what_drives_a_terminal_becomes_visible(given: str, shown: str) -> None:
    assert clean(given) == shown


@given(TEXT)
def test_clean_text_holds_no_control_characters_and_can_be_encoded(text: str) -> None:
    shown = clean(text)
    shown.encode()
    assert all(
        character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs")
        for character in shown
    )
    assert clean(shown) == shown


@given(TEXT.map(clean), st.integers(0, 30))
def test_a_cut_text_fits(text: str, width: int) -> None:
    assert cell_width(cut(text, width)) <= max(width, 0)


def test_wide_characters_count_twice() -> None:
    assert cell_width("漢字") == 4
    assert cut("漢字漢字", 5) == "漢字…"
    assert cut("漢字漢字", 8) == "漢字漢字"


def test_undecodable_names_can_be_written_as_json() -> None:
    assert encodable({"a\udcff": ["\udcfe", 1, None]}) == {"a\\udcff": ["\\udcfe", 1, None]}


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("screen", "variables", "colored"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_colours_are_for_terminals_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, screen: bool, variables: dict[str, str], colored: bool
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal.of(_Screen() if screen else io.StringIO())
    assert terminal.color is colored
    assert (terminal.style("x", "red") != "x") is colored


@pytest.mark.parametrize(("encoding", "symbol"), [("utf-8", "●"), ("ascii", "o"), ("latin-1", "o")])
def test_symbols_fall_back_where_the_encoding_lacks_them(encoding: str, symbol: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    assert Terminal.of(stream).symbol("●", "o") == symbol
