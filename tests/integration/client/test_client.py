"""What a program does with an asynchronous client, in real sandboxes."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import swarm
from swarm.client.session import Session


async def until_step_runs(handle: swarm.RunHandle, step: str) -> None:
    async with aclosing(handle.events()) as events:
        async for event in events:
            if (event.kind, event.step_id) == ("step.started", step):
                return


async def test_registering_gives_the_records_that_are_listed(tmp_path: Path, sources: Path) -> None:
    async with swarm.Client(tmp_path / "home") as client:
        agent = await client.register_agent(sources / "actor")
        workflow = await client.register_workflow(sources / "one.yaml")
        assert await client.agents() == [agent]
        assert await client.workflows() == [workflow]
        assert await client.agent("actor") == agent
        assert await client.workflow("one@1.0.0") == workflow
        with pytest.raises(swarm.NotFoundError, match="did you mean actor"):
            await client.agent("acto")
        with pytest.raises(swarm.DefinitionError):
            (sources / "broken.yaml").write_text("name: broken\nversion: 1.0.0\nsteps: []\n")
            await client.register_workflow(sources / "broken.yaml")


async def test_a_call_takes_files_and_gives_files(home: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear all")
    heard: list[str] = []

    class Listener(swarm.GuestListener):
        def logged(self, stream: str, level: str, message: str) -> None:
            heard.append(message)

    async with swarm.Client(home) as client:
        letter = tmp_path / "letter.txt"
        reply = await client.invoke("actor", {"document": letter}, listener=Listener())
        assert reply.outputs["said"] == "dear all"
        report = reply.outputs["report"]
        assert isinstance(report, swarm.File)
        assert report.read_text() == "report: dear all"
        assert (report.name, report.size, report.media_type) == ("report.txt", 16, "text/plain")
        assert reply.record.status == "ok"
        assert heard == ["saying "]
        # What came out goes in again, and so do bytes.
        again = await client.invoke("actor", {"document": report})
        assert again.outputs["said"] == "report: dear all"
        assert (await client.invoke("actor", {"document": b"raw"})).outputs["said"] == "raw"


async def test_a_failed_call_says_why(home: Path) -> None:
    async with swarm.Client(home) as client:
        with pytest.raises(swarm.InvocationFailed, match="no luck") as failed:
            await client.invoke("actor", {"fail": "no luck"})
        assert failed.value.code == "error"
        assert 'raise ValueError(inputs["fail"])' in (failed.value.traceback or "")
        assert failed.value.invocation_id.startswith("inv_")
        with pytest.raises(swarm.InputError):
            await client.invoke("actor", {"repeat": "often"})


async def test_a_run_gives_its_outputs_with_files_that_outlive_the_client(
    home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").touch()
    async with swarm.Client(home) as client:
        outputs = await client.run("one", {"say": "seen: ", "folder": folder})
    assert outputs["said"] == "seen: a.txt"
    (report,) = outputs["files"]["reports"]
    assert report.read_bytes() == b"report: seen: a.txt"
    assert report.save(tmp_path) == tmp_path / "report.txt"
    assert report.save(tmp_path / "new" / "copy.txt").read_text() == "report: seen: a.txt"


async def test_text_is_never_taken_for_a_path(home: Path) -> None:
    async with swarm.Client(home) as client:
        with pytest.raises(swarm.InputError, match=r"pathlib\.Path"):
            await client.run("one", {"document": "/etc/passwd"})
        with pytest.raises(swarm.InputError, match="is a directory"):
            await client.run("one", {"document": home})
        with pytest.raises(swarm.NotFoundError):
            await client.run("one", {"document": home / "missing"})
        assert [run async for run in client.runs()] == []


async def test_a_handle_tells_all_of_its_run(home: Path) -> None:
    async with swarm.Client(home) as client:
        handle = await client.start("one", {"say": "hi"}, labels={"team": "a"}, priority=3)
        events = [event async for event in handle.events()]
        assert [event.kind for event in events if event.kind != "log"] == [
            "run.started", "step.started", "step.finished", "run.finished",
        ]  # fmt: skip
        assert await handle.wait() is swarm.RunState.SUCCEEDED
        assert (await handle.result())["said"] == "hi"
        assert await handle.status() is swarm.RunState.SUCCEEDED
        (step,) = await handle.steps()
        assert (step.step_id, step.status) == ("act", swarm.StepState.SUCCEEDED)
        (line,) = await handle.logs()
        assert (line["step_id"], line["message"]) == ("act", "saying hi")
        record = await handle.record()
        assert (record.labels, record.priority) == ({"team": "a"}, 3)
        assert (await client.get_run(handle.id[:-2])).id == handle.id


async def test_values_over_the_inline_limit_come_whole(home: Path) -> None:
    async with swarm.Client(home, settings={"inline_value_bytes": 1024}) as client:
        handle = await client.start("one", {"say": "x" * 600, "repeat": 10})
        assert (await handle.result())["said"] == "x" * 6000
        (step,) = await handle.steps()
        assert step.outputs is not None
        assert step.outputs["said"] == "x" * 6000
        outputs = (await handle.record()).outputs
        assert outputs is not None
        assert outputs["said"] == "x" * 6000


async def test_a_failed_run_raises_with_step_code_and_remedy(home: Path) -> None:
    async with swarm.Client(home) as client:
        handle = await client.start("one", {"fail": "No module: ModuleNotFoundError"})
        with pytest.raises(swarm.RunFailed, match="ModuleNotFoundError") as failed:
            await handle.result()
        assert failed.value.run_id == handle.id
        assert failed.value.step == "act"
        assert failed.value.code == "error"
        assert "dependencies" in (failed.value.remedy or "")
        assert failed.value.as_json()["code"] == "error"


async def test_one_key_starts_one_run(home: Path) -> None:
    async with swarm.Client(home) as client:
        handles = await asyncio.gather(
            *(client.start("one", {"say": "once"}, idempotency_key="k") for _ in range(4))
        )
        assert len({handle.id for handle in handles}) == 1
        assert (await handles[3].result())["said"] == "once"
        with pytest.raises(swarm.ConflictError):
            await client.start("one", {"say": "other"}, idempotency_key="k")


async def test_cancelling_a_wait_leaves_the_run_and_cancel_ends_it(
    home: Path, tmp_path: Path
) -> None:
    async with swarm.Client(home) as client:
        inputs = {"wait_for": str(tmp_path / "never")}
        handle = await client.start("two", inputs, isolation="none")
        await until_step_runs(handle, "second")
        waiting = asyncio.create_task(handle.result())
        with pytest.raises(TimeoutError):
            await handle.wait(timeout=0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await handle.status() is swarm.RunState.RUNNING
        assert await handle.cancel() is swarm.RunState.CANCELLED
        with pytest.raises(swarm.RunFailed) as failed:
            await handle.result()
        assert failed.value.code == "cancelled"


async def test_a_start_that_is_cancelled_leaves_no_run_without_a_driver(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive, recorded, going_on = Session.drive, asyncio.Event(), asyncio.Event()

    async def pause_and_drive(session: Session, run: swarm.RunRecord) -> swarm.RunRecord:
        recorded.set()
        await going_on.wait()
        return await drive(session, run)

    monkeypatch.setattr(Session, "drive", pause_and_drive)
    async with swarm.Client(home) as client:
        starting = asyncio.create_task(client.start("one", {"say": "x"}))
        await recorded.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        going_on.set()
        await client.close()  # which waits for what it was starting
    async with swarm.Client(home) as client:
        (run,) = [run async for run in client.runs()]
        assert run.owner is not None


async def test_closing_leaves_runs_that_another_client_carries_on(
    home: Path, tmp_path: Path
) -> None:
    notes, go = tmp_path / "notes", tmp_path / "go"
    async with swarm.Client(home) as first:
        inputs = {"notes": str(notes), "wait_for": str(go)}
        handle = await first.start("two", inputs, isolation="none")
        await until_step_runs(handle, "second")
        waiting = asyncio.create_task(handle.result())
        await asyncio.sleep(0)
    with pytest.raises((swarm.RunInterrupted, swarm.UnavailableError)):
        await waiting
    with pytest.raises(swarm.UnavailableError, match="not open"):
        await handle.status()
    go.touch()
    async with swarm.Client(home) as second:
        (taken,) = await second.resume_interrupted()
        assert taken.id == handle.id
        assert (await taken.result())["said"] == "12"
    noted = notes.read_text().splitlines()
    assert [line for line in noted if line != "second 1"] == ["first 1", "second 2"]


async def test_retry_and_fork_start_new_runs(home: Path) -> None:
    async with swarm.Client(home) as client:
        failed = await client.start("one", {"fail": "broken", "say": "a"})
        await failed.wait()
        again = await failed.retry()
        assert await again.wait() is swarm.RunState.FAILED
        assert again.id != failed.id
        forked = await failed.fork(inputs={"fail": "", "document": b"bytes"})
        assert (await forked.result())["said"] == "abytes"
        pinned = await forked.fork(
            pinned={"act": {"said": "pinned", "report": None}}, from_steps=[]
        )
        assert (await pinned.result())["said"] == "pinned"
        with pytest.raises(swarm.NotFoundError):
            await forked.fork(from_steps=["nothing"])


async def test_a_mended_agent_carries_a_failed_run_on(home: Path, sources: Path) -> None:
    async with swarm.Client(home) as client:
        handle = await client.start("one", {"fail": "broken", "say": "a"})
        assert await handle.wait() is swarm.RunState.FAILED
        code = sources / "actor" / "main.py"
        code.write_text(code.read_text().replace('if inputs["fail"]:', "if False:"))
        await client.register_agent(sources / "actor")
        assert await (await handle.resume()).wait() is swarm.RunState.FAILED
        await handle.resume(latest=True)
        assert (await handle.result())["said"] == "a"


async def test_a_client_that_drives_runs_purges_those_that_have_expired(home: Path) -> None:
    async with swarm.Client(home) as client:
        await client.run("one")
    async with swarm.Client(home, settings={"retention_days": 1e-9}) as looking:
        assert len([run async for run in looking.runs()]) == 1
    async with swarm.Client(home) as client:
        assert len([run async for run in client.runs()]) == 1
    async with swarm.Client(home, settings={"retention_days": 1e-9}) as driving:
        await driving.start("asking")
    async with swarm.Client(home) as client:
        assert [run.workflow_name async for run in client.runs()] == ["asking"]


async def test_people_answer_and_events_come(home: Path) -> None:
    async with swarm.Client(home) as client:
        asking = await client.start("asking")
        listening = await client.start("listening")
        async for event in asking.events():
            if event.kind == "step.waiting":
                break
        (step,) = await client.waiting()
        assert (step.run_id, step.step_id) == (asking.id, "ask")
        with pytest.raises(swarm.InputError):
            await asking.approve(values={"version": 1})
        await asking.approve(values={"version": "2.0"}, by="ann")
        assert (await asking.result())["said"] == "2.0 by ann"
        with pytest.raises(swarm.NotFoundError):
            await asking.approve()

        sent = await client.send_event("paid", {"amount": 12}, key="order-7", event_id="e1")
        assert sent.id == "e1"
        assert (await listening.result())["amount"] == 12

        refused = await client.start("asking")
        async for event in refused.events():
            if event.kind == "step.waiting":
                break
        await refused.reject(comment="not today")
        with pytest.raises(swarm.RunFailed) as failed:
            await refused.result()
        assert failed.value.code == "rejected"


async def test_runs_are_listed_page_by_page(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.client.client.PAGE", 2)
    began = datetime.now(UTC)
    async with swarm.Client(home) as client:
        ids = []
        for number in range(5):
            handle = await client.start(
                "one", {"say": str(number % 2)}, labels={"odd": str(number % 2)}
            )
            ids.append(handle.id)
            await handle.wait()

        async def listed(**wanted: Any) -> list[str]:
            return [run.id async for run in client.runs(**wanted)]

        assert await listed() == ids[::-1]
        assert await listed(limit=3) == ids[:1:-1]
        assert await listed(labels={"odd": "1"}) == [ids[3], ids[1]]
        assert await listed(inputs={"say": "0"}) == [ids[4], ids[2], ids[0]]
        assert await listed(states=["failed"]) == []
        assert await listed(created_after=began, workflow="one") == ids[::-1]
        assert await listed(created_before=began - timedelta(days=1)) == []


async def test_many_clients_share_one_home(home: Path) -> None:
    async with swarm.Client(home) as first, swarm.Client(home) as second:
        handles = await asyncio.gather(first.start("one"), second.start("one"))
        seen = await (await second.get_run(handles[0].id)).result()
        assert seen["said"] == (await handles[1].result())["said"] == ""


async def test_what_a_client_refuses(home: Path) -> None:
    with pytest.raises(swarm.InvalidError, match="there is no setting max_run"):
        swarm.Client(home, settings={"max_run": 1})
    with pytest.raises(swarm.InvalidError, match="max_concurrent_runs"):
        swarm.Client(home, settings={"max_concurrent_runs": 0})
    with pytest.raises(swarm.InvalidError, match="drive='there' is unknown"):
        swarm.Client(home, drive="there")  # type: ignore[arg-type]
    client = swarm.Client(home)
    with pytest.raises(swarm.UnavailableError, match="not open"):
        await client.agents()
    await client.close()
    async with client:
        with pytest.raises(swarm.ConflictError, match="open already"):
            await client.open()
        with pytest.raises(swarm.InvalidError, match="no isolation level"):
            await client.start("one", isolation="chroot")
        with pytest.raises(swarm.ConflictError, match="another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(client.agents()))  # type: ignore[arg-type]
    with pytest.raises(swarm.UnavailableError, match="not open"):
        await client.agents()
    async with client:
        assert await client.agents()
    assert json.loads(json.dumps(repr(client))).endswith("closed>")
