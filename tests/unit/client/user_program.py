"""A user's program, for mypy alone: its types must be found, and be what the page says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import swarm


async def asynchronous() -> None:
    async with swarm.Client("/srv/swarm", settings={"idle_seconds": 1}, drive="worker") as client:
        assert_type(await client.run("w", {"path": Path()}), dict[str, Any])
        handle = await client.start("w", labels={"a": "b"}, isolation=swarm.Isolation.MICROVM)
        assert_type(handle, swarm.RunHandle)
        assert_type(await handle.result(timeout=3), dict[str, Any])
        async for event in handle.events():
            assert_type(event, swarm.RunEvent)
        async for run in client.runs(states=[swarm.RunState.FAILED, "cancelled"]):
            assert_type(run, swarm.RunRecord)
        assert_type(await handle.steps(), list[swarm.StepRecord])
        assert_type((await handle.logs())[0]["message"], str)
        assert_type((await client.invoke("a")).record, swarm.InvocationRecord)
        assert_type(await handle.fork(inputs={"x": 1}), swarm.RunHandle)


def synchronous() -> None:
    with swarm.SyncClient() as client:
        assert_type(client.run("w", {"path": Path()}), dict[str, Any])
        handle = client.start("w", priority=3)
        assert_type(handle, swarm.SyncRunHandle)
        assert_type(handle.result(timeout=3), dict[str, Any])
        assert_type(handle.events(), Iterator[swarm.RunEvent])
        assert_type(client.runs(limit=3), Iterator[swarm.RunRecord])
        assert_type(handle.retry(), swarm.SyncRunHandle)
        assert_type(client.send_event("paid", {"n": 1}, key="k").run_ids, tuple[str, ...])
        try:
            client.invoke("a", {"n": 1})
        except swarm.InvocationFailed as error:
            assert_type(error.code, str)
        except swarm.RunFailed as error:
            assert_type(error.step, str | None)
        client.start(1)  # type: ignore[arg-type]
        client.start("w", urgent=True)  # type: ignore[call-arg]
        client.result()  # type: ignore[attr-defined]
