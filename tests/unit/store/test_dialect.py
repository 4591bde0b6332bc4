"""SQLite's statements in PostgreSQL's words."""

from __future__ import annotations

import pytest

from swarm.store.postgres.dialect import translated
from swarm.store.sql import agents, creation, history, inbox, journal, pages, upkeep, waits
from swarm.store.sql.rows import STEPS, Upsert


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT 1", "SELECT 1"),
        ("INSERT INTO t VALUES (?, ?)", "INSERT INTO t VALUES ($1, $2)"),
        ("SELECT a FROM t AS x INDEXED BY idx_a WHERE b = ?", "SELECT a FROM t AS x WHERE b = $1"),
        (
            "UPDATE t SET a = ? WHERE b IS ? AND c IS NULL",
            "UPDATE t SET a = $1 WHERE b IS NOT DISTINCT FROM $2 AND c IS NULL",
        ),
        ("SELECT json_extract(a, '$.b') FROM t", "SELECT json_extract(a, '$.b') FROM t"),
    ],
)
def test_the_words_that_differ(statement: str, expected: str) -> None:
    assert translated(statement) == expected.encode()


def test_every_mark_is_numbered_once() -> None:
    many = Upsert(STEPS, key=("id",), sizes=(32, 1))
    modules = (agents, creation, history, inbox, journal, pages, upkeep, waits)
    statements = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, str) and value.startswith(("SELECT", "INSERT", "UPDATE", "DELETE"))
    ]
    statements += many._statements.values()
    assert len(statements) > 30
    for statement in statements:
        text = translated(statement).decode()
        assert "?" not in text
        assert "INDEXED" not in text
        marks = statement.count("?")
        assert [text.count(f"${n}") > 0 for n in range(1, marks + 1)] == [True] * marks
        assert f"${marks + 1}" not in text
