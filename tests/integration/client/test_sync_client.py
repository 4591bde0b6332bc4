"""The synchronous face: from plain code, from inside a running loop, from many threads."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pytest

import swarm


@pytest.fixture
def client(home: Path) -> swarm.SyncClient:
    return swarm.SyncClient(home)


def public(kind: type) -> dict[str, object]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


@pytest.mark.parametrize(
    ("core", "face"), [(swarm.Client, swarm.SyncClient), (swarm.RunHandle, swarm.SyncRunHandle)]
)
def test_the_face_has_all_that_the_core_has(core: type, face: type) -> None:
    assert public(core).keys() == public(face).keys()
    for name, method in public(core).items():
        shown = public(face)[name]
        assert inspect.getdoc(shown), name
        if callable(method) and name not in ("open", "close"):
            assert callable(shown)
            assert not inspect.iscoroutinefunction(shown)
            asked = inspect.signature(method).parameters
            assert inspect.signature(shown).parameters.keys() == asked.keys(), name
    assert (
        inspect.signature(swarm.Client).parameters == inspect.signature(swarm.SyncClient).parameters
    )


async def test_plain_code(home: Path) -> None:
    def plain() -> None:
        with swarm.SyncClient(home) as client:
            assert client.run("one", {"say": "hi"})["said"] == "hi"
            handle = client.start("one", {"say": "x"})
            kinds = [event.kind for event in handle.events()]
            assert kinds[0] in ("run.started", "step.started")  # it goes on in another thread
            assert kinds[-1] == "run.finished"
            assert handle.result()["files"]["reports"][0].read_text() == "report: x"
            assert handle.status() is swarm.RunState.SUCCEEDED
            assert [run.id for run in client.runs(limit=1)] == [handle.id]
            assert isinstance(handle.retry(), swarm.SyncRunHandle)
            with pytest.raises(swarm.RunFailed, match="no luck"):
                client.run("one", {"fail": "no luck"})
            # Events that nobody wants any more.
            assert len(list(islice(client.start("one").events(), 1))) == 1
            with pytest.raises(swarm.ConflictError, match="open already"):
                client.open()

    # A thread without an event loop, as plain code has none.
    await asyncio.to_thread(plain)


async def test_inside_a_running_loop_as_in_a_notebook(client: swarm.SyncClient) -> None:
    client.open()
    assert client.run("one", {"say": "cell"})["said"] == "cell"
    client.close()
    client.close()
    with pytest.raises(swarm.UnavailableError, match="not open"):
        client.agents()


async def test_threads_share_one_client(client: swarm.SyncClient) -> None:
    with client, ThreadPoolExecutor(4) as threads:
        said = threads.map(lambda number: client.run("one", {"say": str(number)})["said"], range(8))
        assert list(said) == [str(number) for number in range(8)]


async def test_closing_ends_what_other_threads_wait_for(
    client: swarm.SyncClient, tmp_path: Path
) -> None:
    client.open()
    handle = client.start("two", {"wait_for": str(tmp_path / "never")}, isolation="none")
    began = threading.Event()
    ended: list[BaseException] = []

    def follow() -> None:
        try:
            for event in handle.events():
                if event.step_id == "second":
                    began.set()
            handle.result()
        except BaseException as error:
            ended.append(error)
            raise

    with ThreadPoolExecutor(1) as threads:
        following = threads.submit(follow)
        assert began.wait(30)
        client.close()
        with pytest.raises((swarm.UnavailableError, swarm.RunInterrupted)):
            following.result(30)
    assert len(ended) == 1


async def test_a_call_from_its_own_thread_is_refused(client: swarm.SyncClient) -> None:
    refused: list[BaseException] = []

    class Listener(swarm.GuestListener):
        def logged(self, stream: str, level: str, message: str) -> None:
            with pytest.raises(swarm.ConflictError, match="its own thread") as error:
                client.agents()
            refused.append(error.value)

    with client:
        client.invoke("actor", {"say": "x"}, listener=Listener())
    assert refused


async def test_a_forked_child_is_told_to_open_its_own(client: swarm.SyncClient) -> None:
    with client:
        child = os.fork()
        if child == 0:
            try:
                client.agents()
            except swarm.ConflictError:
                os._exit(7)
            os._exit(1)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 7


def test_what_opening_raises_comes_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(swarm.UnavailableError):
        swarm.SyncClient(tmp_path / "file" / "home").open()


async def test_a_program_that_forgets_to_close_can_end(home: Path) -> None:
    program = "import sys, swarm; print(swarm.SyncClient(sys.argv[1]).open().run('one')['said'])"
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, str(home)],
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
