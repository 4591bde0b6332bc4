"""An agent that is registered on one machine runs on another, with all that it needs."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from swarm.bootstrap.assembly import Swarm, open_swarm
from swarm.bootstrap.collection import Collected, collect_unused
from swarm.bootstrap.sharing import bring_home, publish_home
from swarm.client.local_files import take_path
from swarm.engine.api import RunRequest
from swarm.kernel.configuration import checked_settings
from swarm.kernel.errors import DamagedError, InputError, NotFoundError
from swarm.kernel.settings import MIB
from swarm.sandbox.ports import Isolation
from swarm.store.records import RunRecord, RunState
from tests.bucket.machines import Machines

AGENT = """\
name: counter
version: 1.0.0
runtime: {type: python, entry: main.py, timeout_seconds: 60}
dependencies: ["six>=1.16"]
inputs:
  - {name: text, type: string}
  - {name: file, type: file}
  - {name: folder, type: directory}
outputs:
  - {name: length, type: integer}
  - {name: names, type: array}
  - {name: long, type: string}
  - {name: copy, type: file}
"""
CODE = """\
import hashlib
import os
from pathlib import Path

import six


def handler(inputs):
    content = Path(inputs["file"]).read_bytes()
    copy = Path(os.environ["SWARM_OUTPUTS"]) / "copy.bin"
    copy.write_bytes(content[::-1])
    names = sorted(path.name for path in Path(inputs["folder"]).rglob("*") if path.is_file())
    return {
        "length": len(six.ensure_text(inputs["text"])),
        "names": names,
        "long": hashlib.sha256(content).hexdigest() * 4000,
        "copy": {"$file": "copy.bin"},
    }
"""
FLOW = """\
name: flow
version: 1.0.0
inputs:
  - {name: text, type: string}
  - {name: file, type: file}
  - {name: folder, type: directory}
steps:
  - id: count
    agent: counter
    inputs: {text: "${inputs.text}", file: "${inputs.file}", folder: "${inputs.folder}"}
  - id: again
    agent: counter
    inputs:
      text: ${steps.count.outputs.long}
      file: ${steps.count.outputs.copy}
      folder: ${inputs.folder}
outputs:
  length: ${steps.again.outputs.length}
  long: ${steps.again.outputs.long}
  copy: ${steps.again.outputs.copy}
"""
OpenSwarm = Callable[..., Awaitable[Swarm]]


@pytest.fixture(params=["database", "bucket"])
async def machine(
    request: pytest.FixtureRequest, open_machine: Machines, tmp_path: Path
) -> AsyncIterator[OpenSwarm]:
    """``await machine("a")`` opens Swarm on a machine of this name: a home of its own."""
    async with AsyncExitStack() as closing:

        async def open_one(name: str, **settings: Any) -> Swarm:
            given = open_machine.given(bucket=request.param == "bucket")
            chosen = checked_settings({**given, "home": tmp_path / name, **settings})
            return await closing.enter_async_context(open_swarm(chosen, role="test"))

        yield open_one


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The package, on the machine that registers it."""
    folder = tmp_path / "counter"
    folder.mkdir()
    (folder / "agent.yaml").write_text(AGENT)
    (folder / "main.py").write_text(CODE)
    return folder


async def created_run(swarm: Swarm, tmp_path: Path) -> RunRecord:
    """A run of files, a folder and a large value of the machine that creates it."""
    given = tmp_path / "given"
    (given / "folder" / "deep").mkdir(parents=True)
    (given / "folder" / "one").write_text("1")
    (given / "folder" / "deep" / "two").write_text("2")
    (given / "file.bin").write_bytes(os.urandom(2 * MIB))
    flow = tmp_path / "flow.yaml"
    flow.write_text(FLOW)
    await swarm.workflows.register(flow)
    taken = {
        kind: await take_path(str(given / name), swarm.artifacts, kind=kind, where=kind)
        for kind, name in (("file", "file.bin"), ("directory", "folder"))
    }
    assert all(one.mount is None for one in taken.values())
    inputs = {
        "text": "long " * 50_000,
        "file": taken["file"].value.as_json(),
        "folder": taken["directory"].value.as_json(),
    }
    request = RunRequest("flow", inputs, isolation=Isolation.SANDBOX)
    return await swarm.runs.create(request)


async def test_a_run_goes_on_elsewhere_with_all_that_it_needs(
    machine: OpenSwarm, source: Path, tmp_path: Path
) -> None:
    registering = await machine("a")
    await registering.agents.register(source)
    run = await created_run(registering, tmp_path)
    content = (tmp_path / "given" / "file.bin").read_bytes()
    for gone in (source, tmp_path / "given", tmp_path / "a" / "packages"):
        shutil.rmtree(gone)

    working = await machine("b")
    assert await working.runs.start(run.id)
    ended = await working.runs.wait(run.id)
    assert ended.status is RunState.SUCCEEDED, ended.error

    # A third one, which has driven nothing, reads what came of it.
    reading = await machine("c")
    outputs = await reading.runs.value((await reading.runs.get(run.id)).outputs)
    assert outputs["length"] == 64 * 4000
    assert outputs["long"] == hashlib.sha256(content[::-1]).hexdigest() * 4000
    copy = await reading.artifacts.fetch(outputs["copy"]["$artifact"])
    assert copy.read_bytes() == content
    # What was installed on both has the very same versions, from one lock.
    locks = {
        (tmp_path / name / "environments" / "locks").glob("*").__next__().read_text()
        for name in ("a", "b")
    }
    assert len(locks) == 1


async def test_runs_at_once_fetch_and_install_once(
    machine: OpenSwarm, source: Path, tmp_path: Path
) -> None:
    registering = await machine("a")
    record = (await registering.agents.register(source)).record
    working = [await machine("b") for _ in range(2)]
    programs = await asyncio.gather(
        *(swarm.agents.prepare(record) for swarm in working for _ in range(3))
    )
    assert len(set(programs)) == 1
    assert [
        path.name for path in (tmp_path / "b" / "packages").iterdir() if path.name[0] != "."
    ] == [record.digest]


async def test_a_package_that_was_tampered_with_fails_its_steps(
    machine: OpenSwarm, open_machine: Machines, source: Path, tmp_path: Path
) -> None:
    registering = await machine("a", artifact_inline_bytes=MIB)
    record = (await registering.agents.register(source)).record
    run = await created_run(registering, tmp_path)
    open_machine.execute(
        "UPDATE blob_chunks SET data = overlay(data PLACING 'evil' FROM 200) "
        "WHERE location LIKE 'package/%'"
    )
    working = await machine("b")
    with pytest.raises(DamagedError, match=record.digest):
        await working.agents.prepare(record)
    assert [path for path in (tmp_path / "b" / "packages").iterdir() if path.name != ".locks"] == []
    assert await working.runs.start(run.id)
    ended = await working.runs.wait(run.id)
    assert ended.status is RunState.FAILED
    (step, _) = await working.store.list_steps(run.id)
    assert step.error_code == "damaged"
    # Published anew, as the error says, it runs.
    open_machine.execute("DELETE FROM blob_chunks WHERE location LIKE 'package/%'")
    await registering.agents.register(source)
    assert (await working.agents.prepare(record)).digest == record.digest


async def test_a_package_that_nobody_published_is_told(
    machine: OpenSwarm, open_machine: Machines, source: Path
) -> None:
    record = (await (await machine("a")).agents.register(source)).record
    open_machine.execute("DELETE FROM blobs WHERE kind = 'package'")
    working = await machine("b")
    with pytest.raises(NotFoundError, match="shared store") as caught:
        await working.agents.prepare(record)
    assert "swarm agent register" in (caught.value.remedy or "")


async def test_a_directory_with_links_is_refused_where_it_must_be_copied(
    machine: OpenSwarm, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to("/etc/passwd")
    swarm = await machine("a")
    with pytest.raises(InputError, match="copied") as caught:
        await take_path(str(folder), swarm.artifacts, kind="directory", where="input folder")
    assert "symbolic links" in (caught.value.remedy or "")


# -- collecting ------------------------------------------------------------------------------------


async def collect(swarm: Swarm, **options: bool) -> Collected:
    collected = await collect_unused(
        swarm.store, swarm.home, swarm.settings, swarm.shared, **options
    )
    assert collected is not None
    return collected


async def test_what_any_run_refers_to_is_kept_and_all_else_goes(
    machine: OpenSwarm, open_machine: Machines, source: Path, tmp_path: Path
) -> None:
    one, two = await machine("a"), await machine("b")
    await one.agents.register(source)
    run = await created_run(one, tmp_path)
    assert await one.runs.start(run.id)
    await one.runs.wait(run.id)
    unused = await one.artifacts.put_bytes(b"nobody refers to it")
    assert await collect(two) == Collected()  # all is young
    open_machine.age(100 * 86_400)
    assert await collect(two) == Collected(artifacts=1, artifact_bytes=19)

    reading = await machine("c")
    with pytest.raises(NotFoundError):
        await reading.artifacts.fetch(unused)
    assert await reading.runs.start((await reading.runs.create(RunRequest(
        "flow", await reading.runs.value(run.inputs), isolation=Isolation.SANDBOX
    ))).id)  # fmt: skip
    await reading.runs.idle()
    outputs = await reading.runs.value((await reading.runs.get(run.id)).outputs)
    assert (await reading.artifacts.fetch(outputs["copy"]["$artifact"])).is_file()

    await two.store.purge_runs("2100-01-01T00:00:00.000000Z")
    open_machine.age(100 * 86_400)
    assert (await collect(two)).artifacts > 5
    assert open_machine.execute("SELECT DISTINCT kind, state FROM blobs ORDER BY kind") == [
        ("lock", "present"),
        ("package", "present"),
    ]
    if one.settings.artifact_url is not None:
        kinds = {key.split("/")[2] for key in open_machine.server.keys(open_machine.bucket)}
        assert kinds == {"package", "lock"}


async def test_one_machine_a_day_collects_what_is_shared(
    machine: OpenSwarm, open_machine: Machines
) -> None:
    one, two = await machine("a"), await machine("b")
    await one.artifacts.put_bytes(b"unused")
    open_machine.age(100 * 86_400)
    assert two.shared is not None
    with two.shared.index.alone() as is_alone:
        assert is_alone
        assert (await collect(one)).artifacts == 0
    assert (await collect(one, if_due=True)).artifacts == 1
    await one.artifacts.put_bytes(b"unused too")
    open_machine.age(100 * 86_400)
    assert (await collect(two, if_due=True)).artifacts == 0
    assert (await collect(two)).artifacts == 1


async def test_putting_while_others_collect_loses_nothing(
    machine: OpenSwarm, open_machine: Machines
) -> None:
    """Whoever has put something finds it, however old the copy was that was there before."""
    one, two = await machine("a"), await machine("b")
    done = asyncio.Event()

    async def keep_collecting() -> int:
        count = 0
        while not done.is_set():
            count += (await collect(two)).artifacts
        return count

    collecting = asyncio.create_task(keep_collecting())
    other = await machine("c", artifact_cache_mb=1)
    for number in range(30):
        data = b"contended" * (1 + number % 3)
        reference = await one.artifacts.put_bytes(data)
        other.artifacts.evict(0)
        assert (await other.artifacts.fetch(reference)).read_bytes() == data
        await asyncio.to_thread(open_machine.age, 100 * 86_400)
    done.set()
    assert await collecting > 0


# -- moving ----------------------------------------------------------------------------------------


async def test_the_files_of_a_home_are_published_and_brought(
    machine: OpenSwarm, open_machine: Machines, source: Path, tmp_path: Path
) -> None:
    """As after `swarm db copy`: the records are there, and the files only where they came from."""
    one = await machine("a")
    await one.agents.register(source)
    run = await created_run(one, tmp_path)
    open_machine.execute("TRUNCATE blobs, blob_chunks")
    two = await machine("b")
    lost = await bring_home(two)
    assert (lost.packages, lost.artifacts, len(lost.missing)) == (0, 0, 4)

    published = await publish_home(one)
    assert (published.packages, published.missing) == (1, ())
    assert published.artifacts == 5  # a value, a file, a listing and two files of it
    assert await publish_home(one) == published

    shutil.rmtree(tmp_path / "b" / "artifacts")
    assert await bring_home(two) == published
    open_machine.execute("TRUNCATE blobs, blob_chunks")
    assert await two.runs.start(run.id)
    ended = await two.runs.wait(run.id)
    assert ended.status is RunState.SUCCEEDED, ended.error
