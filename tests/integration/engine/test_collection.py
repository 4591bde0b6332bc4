"""What nothing refers to goes; what anything refers to stays."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from msgspec.structs import replace

from swarm.bootstrap.assembly import Swarm
from swarm.bootstrap.collection import Collected, collect_unused, is_due
from swarm.engine.api import RunRequest
from swarm.engine.trees import Collector, materialise_tree
from swarm.kernel.errors import NotFoundError
from swarm.kernel.settings import Settings
from swarm.packages.collecting import remove_unused
from swarm.sandbox.ports import Isolation
from swarm.store.records import RunRecord
from swarm.store.shared.cache import CachedArtifacts

LONG_AGO = 1_000_000
Finish = Callable[..., Awaitable[RunRecord]]


def age(*roots: Path) -> None:
    """Make everything below look as if nobody had touched it for years."""
    for root in roots:
        for path in [root, *root.rglob("*")]:
            os.utime(path, (LONG_AGO, LONG_AGO))


def age_artifacts(swarm: Swarm) -> None:
    """Make all artifacts look as if nobody had touched them for years: on PostgreSQL they are
    shared, and it is the database that says how old they are."""
    url = swarm.settings.database_url
    if url is None:
        age(swarm.home.artifacts)
        return
    with closing(psycopg.connect(url.get_secret_value(), autocommit=True)) as connection:
        connection.execute("UPDATE blobs SET touched_at = 'epoch'")


def drop_copies(swarm: Swarm) -> None:
    """Where artifacts are shared, the home has copies, which outlive what was collected."""
    if isinstance(swarm.artifacts, CachedArtifacts):
        swarm.artifacts.evict(0)


async def forget_agent(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take ``actor`` out of the registry, years ago."""
    monkeypatch.setattr("swarm.store.sql.store.now_text", lambda: "2001-01-01T00:00:00.000000Z")
    await swarm.agents.unregister("actor")
    monkeypatch.undo()


async def collect(swarm: Swarm) -> Collected:
    collected = await collect_unused(swarm.store, swarm.home, swarm.settings, swarm.shared)
    assert collected is not None
    return collected


async def test_a_package_goes_when_its_agent_is_gone_and_no_run_needs_it(
    swarm: Swarm, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await swarm.agents.resolve("actor")
    run = await finish("steps: [{id: a, agent: actor}]\n")
    age(swarm.home.packages)
    assert await collect(swarm) == Collected()
    await forget_agent(swarm, monkeypatch)
    assert await collect(swarm) == Collected()  # the run may be resumed
    assert Path(record.path).is_dir()
    await swarm.store.purge_runs("2100-01-01T00:00:00.000000Z")
    assert (await collect(swarm)).packages == 1
    assert not Path(record.path).exists()
    assert await swarm.store.get_agent(record.id) is None
    with pytest.raises(NotFoundError):
        await swarm.runs.get(run.id)


async def test_what_is_registered_again_meanwhile_stays(
    swarm: Swarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await swarm.agents.resolve("actor")
    await forget_agent(swarm, monkeypatch)
    age(swarm.home.packages)
    await swarm.agents.register(tmp_path / "actor")
    # As if the marks had been read just before: the copy is young, because somebody wants it.
    assert await remove_unused(swarm.home.packages, (), LONG_AGO + 1) == 0
    assert await collect(swarm) == Collected()
    assert Path(record.path).is_dir()


async def test_leftovers_of_killed_processes_go(swarm: Swarm) -> None:
    for name in (".partial-", ".damaged-", ".removed-"):
        (swarm.home.packages / f"{name}{'a' * 64}").mkdir()
    age(swarm.home.packages)
    await collect(swarm)
    left = {path.name for path in swarm.home.packages.iterdir()}
    assert left == {".locks", (await swarm.agents.resolve("actor")).digest}


async def test_environments_and_their_locks_go(swarm: Swarm) -> None:
    environments = swarm.home.environments
    (environments / ("e" * 64) / "site-packages").mkdir(parents=True)
    (environments / "locks").mkdir()
    digest = (await swarm.agents.resolve("actor")).digest
    for package in (digest, "f" * 64):
        (environments / "locks" / f"{package}-key").write_text("six==1.17.0")
    age(environments)
    assert (await collect(swarm)).environments == 1
    assert [path.name for path in (environments / "locks").iterdir()] == [f"{digest}-key"]


async def test_artifacts_stay_as_long_as_a_run_names_them(swarm: Swarm, tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "file").write_text("in a directory")
    descriptor = os.open(tmp_path / "tree", os.O_RDONLY)
    try:
        tree = await Collector(swarm.artifacts, 10, 1_000_000).put_tree(descriptor)
    finally:
        os.close(descriptor)
    plain = await swarm.artifacts.put_bytes(b"plain")
    unused = await swarm.artifacts.put_bytes(b"unused")
    flow = tmp_path / "flow.yaml"
    flow.write_text(
        "name: flow\nversion: 1.0.0\ninputs: [{name: x, type: array}]\n"
        "steps: [{id: a, agent: actor}]\n"
    )
    await swarm.workflows.register(flow)
    given = [{"$artifact": plain}, {"$artifact": tree, "media_type": "inode/directory"}]
    run = await swarm.runs.create(RunRequest("flow", {"x": given}, isolation=Isolation.NONE))
    cached = materialise_tree(swarm.artifacts, swarm.home.cache, tree)
    age(swarm.home.cache)
    age_artifacts(swarm)

    collected = await collect(swarm)
    assert (collected.artifacts, collected.artifact_bytes) == (1, len(b"unused"))
    drop_copies(swarm)
    with pytest.raises(NotFoundError):
        swarm.artifacts.path(unused)
    assert swarm.artifacts.path(plain).read_bytes() == b"plain"
    assert not cached.exists()
    again = materialise_tree(swarm.artifacts, swarm.home.cache, tree)
    assert (again / "sub" / "file").read_text() == "in a directory"

    await swarm.runs.cancel(run.id)
    await swarm.store.purge_runs("2100-01-01T00:00:00.000000Z")
    age_artifacts(swarm)
    assert (await collect(swarm)).artifacts == 3


async def test_what_is_young_stays_though_nothing_names_it(swarm: Swarm) -> None:
    reference = await swarm.artifacts.put_bytes(b"just put")
    assert await collect(swarm) == Collected()
    assert swarm.artifacts.path(reference).exists()


async def test_it_is_switched_off_done_once_a_day_and_by_one_process(
    swarm: Swarm, settings: Settings
) -> None:
    off = replace(settings, unused_days=0.0)
    assert await collect_unused(swarm.store, swarm.home, off) is None
    assert is_due(swarm.home, settings)
    await collect(swarm)
    assert not is_due(swarm.home, settings)
    os.utime(swarm.home.hosts.parent / "collected", (LONG_AGO, LONG_AGO))
    assert is_due(swarm.home, settings)


async def test_values_that_are_kept_as_artifacts_stay_with_their_run(
    swarm: Swarm, finish: Finish
) -> None:
    run = await finish(
        """
inputs: [{name: text, type: string}, {name: part, type: string}, {name: numbers, type: array}]
steps:
  - {id: a, agent: actor, inputs: {say: "${inputs.text}"}}
  - {id: each, agent: actor, for_each: "${inputs.numbers}", inputs: {say: "${inputs.part}"}}
outputs: {said: "${steps.a.outputs.said}"}
""",
        {"text": "x" * 100_000, "part": "y" * 2_000, "numbers": list(range(40))},
    )
    assert run.outputs is not None, run.error
    step = (await swarm.store.list_steps(run.id))[0]
    kept = [run.inputs, run.outputs, run.step_results, step.inputs, step.outputs]
    age_artifacts(swarm)
    await collect(swarm)
    drop_copies(swarm)
    for value in kept:
        assert value is not None and "$artifact" in value
        await swarm.runs.value(value)
    await swarm.store.purge_runs("2100-01-01T00:00:00.000000Z")
    age_artifacts(swarm)
    assert (await collect(swarm)).artifacts > 0
    drop_copies(swarm)
    for value in kept:
        with pytest.raises(NotFoundError):
            await swarm.runs.value(value)
