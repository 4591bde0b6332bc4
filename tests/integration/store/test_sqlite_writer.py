"""Where a batch is applied: few rows on the event loop, all else on the writer's thread."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest

from swarm.store.sqlite import SqliteStore
from swarm.store.sqlite import writer as writer_module


def where(connection: sqlite3.Connection) -> str:
    """An operation that tells which thread runs it; it writes nothing."""
    assert connection.in_transaction
    return threading.current_thread().name


@pytest.mark.parametrize(
    ("rows", "is_on_loop"),
    [
        ([1, 2], True),
        ([writer_module.FEW_ROWS], True),
        ([1, writer_module.FEW_ROWS], False),
        ([1, None], False),
    ],
)
async def test_only_few_rows_are_written_on_the_event_loop(
    store: SqliteStore, rows: list[int | None], is_on_loop: bool
) -> None:
    submit = store._writer.submit
    threads = set(await asyncio.gather(*(submit(where, count) for count in rows)))
    assert threads == {threading.current_thread().name if is_on_loop else "swarm-store-writer"}, (
        "one batch, in one place"
    )


async def test_the_event_loop_does_not_wait_for_a_lock(
    store: SqliteStore, plain: sqlite3.Connection
) -> None:
    plain.execute("BEGIN IMMEDIATE")
    writing = asyncio.ensure_future(store._writer.submit(where, 1))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not writing.done()
    plain.execute("COMMIT")
    assert await writing == "swarm-store-writer"


async def test_what_was_submitted_before_closing_is_still_written(store: SqliteStore) -> None:
    def disable(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE workflows SET enabled = 0")

    writing = [asyncio.ensure_future(store._writer.submit(disable, 1)) for _ in range(3)]
    await asyncio.sleep(0)
    await store._writer.close()
    await asyncio.gather(*writing)
    (workflow,) = await store.list_workflows("echo-chain")
    assert not workflow.enabled
