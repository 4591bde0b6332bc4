"""Calls of an agent outside any run are recorded however they end."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from swarm.bootstrap.assembly import Swarm
from swarm.engine.invocations import GuestListener
from swarm.kernel.errors import InputError
from swarm.sandbox.ports import Isolation, Outcome

pytestmark = pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
"""No store lists calls outside runs; the file is looked into."""


def recorded(swarm: Swarm) -> list[tuple[str, str | None]]:
    with sqlite3.connect(swarm.home.database) as connection:
        rows = connection.execute("SELECT status, error_code FROM invocations ORDER BY id")
        return list(rows)


async def test_a_call_gives_its_outputs_and_is_recorded(swarm: Swarm) -> None:
    record, result = await swarm.invoker.invoke(
        "actor", {"say": "hello"}, listener=GuestListener(), isolation=Isolation.NONE
    )
    assert (result.outcome, result.outputs["said"]) == (Outcome.OK, "hello")
    assert record.run_id is None
    assert recorded(swarm) == [("ok", None)]


async def test_inputs_that_do_not_fit_call_nothing(swarm: Swarm) -> None:
    with pytest.raises(InputError, match="`number`"):
        await swarm.invoker.invoke("actor", {"number": "x"}, listener=GuestListener())
    assert recorded(swarm) == []


async def test_a_call_that_is_given_up_is_recorded_as_killed(swarm: Swarm, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    inputs = {"touch": str(begun), "wait_for": str(tmp_path / "never")}
    call = asyncio.create_task(
        swarm.invoker.invoke("actor", inputs, listener=GuestListener(), isolation=Isolation.NONE)
    )
    while not begun.exists():  # noqa: ASYNC110 - another task's file has no event to wait for
        await asyncio.sleep(0.005)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert recorded(swarm) == [("killed", "cancelled")]
