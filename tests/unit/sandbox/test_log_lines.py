"""Log lines: bounded, complete, and nothing lost that fits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.sandbox.log_lines import LineCutter, LogBudget, line_text


def cut(pieces: list[bytes], limit: int, budget: LogBudget) -> list[str]:
    lines: list[str] = []
    cutter = LineCutter(limit, budget, lines.append)
    for piece in pieces:
        cutter.feed(piece)
    cutter.close()
    return lines


@given(st.lists(st.binary(max_size=50)), st.integers(1, 100))
def test_lines_do_not_depend_on_how_they_arrive(pieces: list[bytes], limit: int) -> None:
    whole = b"".join(pieces)
    assert cut(pieces, limit, LogBudget(10**9)) == cut([whole], limit, LogBudget(10**9))


@given(st.binary(max_size=400), st.integers(1, 20), st.integers(0, 100))
def test_everything_is_counted_and_bounded(data: bytes, limit: int, room: int) -> None:
    budget = LogBudget(room)
    cut([data[:100], data[100:]], limit, budget)
    assert budget.received == len(data)
    assert 0 <= budget.dropped <= len(data)


@given(st.text(alphabet="ab\u00e4 ", max_size=60))
def test_text_arrives_unchanged(text: str) -> None:
    assert "\n".join(cut([text.encode()], 1000, LogBudget(10**6))) == text


def test_a_line_that_is_too_long_says_what_was_cut() -> None:
    assert cut([b"abcdef\nxy"], 4, LogBudget(1000)) == ["abcd … [2 bytes cut]", "xy"]


def test_memory_stays_bounded_without_line_ends() -> None:
    kept: list[str] = []
    budget = LogBudget(10)
    cutter = LineCutter(100, budget, kept.append)
    for _ in range(1000):
        cutter.feed(b"x" * 65_536)
    cutter.close()
    assert kept == []
    assert budget.received == 65_536_000


def test_empty_lines_come_to_an_end() -> None:
    budget = LogBudget(640)
    assert cut([b"\n" * 1000], 100, budget) == [""] * 10
    assert (budget.received, budget.dropped) == (1000, 990)


def test_odd_bytes_are_shown() -> None:
    assert line_text(b"a\xff\r") == "a\\xff"
