"""Tables, durations, sizes and times."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.cli.render.runs import run_table
from swarm.cli.render.tables import Cell, facts, table
from swarm.cli.render.values import duration, elapsed_ms, local_clock, plural, size
from swarm.cli.terminal import Terminal, cell_width
from swarm.store.records import RunRecord

PIPE = Terminal(io.StringIO(), is_terminal=False, color=False, unicode=True, width=40)
SCREEN = replace(PIPE, is_terminal=True, color=True)


def test_columns_are_aligned() -> None:
    rows = [["a", "1", "first"], ["longer", "22", "second"]]
    assert table(PIPE, ["NAME", "N", "TEXT"], rows) == [
        "NAME    N   TEXT",
        "a       1   first",
        "longer  22  second",
    ]


def test_a_screen_cuts_the_last_column_and_a_pipe_does_not() -> None:
    rows = [["name", "x" * 100]]
    (line,) = table(SCREEN, ["", ""], rows)
    assert cell_width(line) == 40
    assert line.endswith("…")
    (line,) = table(PIPE, ["", ""], rows)
    assert "x" * 100 in line


def test_a_last_column_without_room_goes_below() -> None:
    rows = [["n" * 35, "because of this"], ["short", ""]]
    assert table(replace(SCREEN, color=False), ["NAME", ""], rows) == [
        "NAME",
        "n" * 35,
        "    because of this",
        "short",
    ]
    (_, first, second) = table(replace(SCREEN, color=False), ["NAME", "WHY"], rows)
    assert first == "n" * 35 + "  because of …"
    assert second == "short"


def test_a_colour_does_not_disturb_the_columns() -> None:
    rows: list[list[Cell | str]] = [[Cell("ok", "green"), "end"], ["longer", "end"]]
    lines = table(SCREEN, ["", ""], rows)
    assert lines[0] == "\x1b[32mok\x1b[0m      end"
    assert lines[1] == "longer  end"


def test_cells_are_cleaned_and_stay_on_one_line() -> None:
    assert table(PIPE, [""], [["a\nb\x1b[2J"]]) == ["a b\\x1b[2J"]


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=5))
def test_any_text_gives_one_line_for_each_row(rows: list[tuple[str, str]]) -> None:
    lines = table(PIPE, ["A", "B"], rows)
    assert len(lines) == len(rows) + 1
    assert not any("\n" in line or "\x1b" in line for line in lines)


def test_facts_without_a_value_are_left_out() -> None:
    assert facts(PIPE, [("name", "x"), ("nothing", ""), ("n", "y")]) == ["name  x", "n     y"]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, ""),
        (0, "0 ms"),
        (999, "999 ms"),
        (1_234, "1.2 s"),
        (59_940, "59.9 s"),
        (59_960, "1 min 00 s"),
        (184_000, "3 min 04 s"),
        (7_500_000, "2 h 05 min"),
    ],
)
def test_durations(milliseconds: float | None, text: str) -> None:
    assert duration(milliseconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, ""),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**4, "5.0 TiB"),
    ],
)
def test_sizes(count: int | None, text: str) -> None:
    assert size(count) == text


def test_times_are_told_in_the_zone_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_clock("") == "--:--:--"
    assert len(local_clock("2026-01-31T12:00:01.000000Z")) == 8
    assert elapsed_ms("2026-01-31T12:00:01.000000Z", "2026-01-31T12:00:02.500000Z") == 1500
    assert elapsed_ms("2026-01-31T12:00:01.000000Z", None) is None


def test_plurals() -> None:
    assert [plural(n, "run") for n in (0, 1, 2, 1234)] == [
        "0 runs",
        "1 run",
        "2 runs",
        "1,234 runs",
    ]


def test_ids_of_runs_are_shortened_on_a_narrow_screen() -> None:
    def shown(width: int, *ids: str) -> list[str]:
        runs = [
            RunRecord(id=run_id, workflow_id="w", workflow_name="f", workflow_version="1.0.0")
            for run_id in ids
        ]
        screen = replace(SCREEN, color=False, width=width)
        return [line.split()[0] for line in run_table(screen, runs)[1:]]

    one, other = "run_01a1ff06a9b47dd5b34577d7bfae94d1", "run_01a1ff06a9b47dd5ffffffffffffffff"
    assert shown(80, one) == [one[:20]]
    assert shown(100, one) == [one]
    assert shown(80, one, other) == [one, other]
