"""Agents registered in a real home, found again, replaced, refused and taken out."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from swarm.kernel.errors import (
    ArchiveError,
    DefinitionError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.packages.archive import pack
from swarm.packages.reading import read_package
from swarm.packages.registration import AgentCatalog, FailedRegistration, RegisteredAgent
from swarm.store.sqlite.store import SqliteStore, open_store

WritePackage = Any
ASKS = "permissions:\n  network: [api.example.com]\n  secrets: [KEY]\n"
ASKS_MORE = "permissions:\n  network: [api.example.com, other.example.com]\n  secrets: [KEY]\n"


async def test_a_folder_is_pinned_recorded_and_granted(
    agents: AgentCatalog, home: Home, write_package: WritePackage
) -> None:
    source = write_package(more=ASKS, files={"lib/tool.sh": "#!/bin/sh\n", "a.pyc": "x"})
    (source / "lib/tool.sh").chmod(0o700)
    result = await agents.register(source)

    record = result.record
    assert result.created
    assert result.replaced_digest is None
    assert result.requested == {"network": ("api.example.com",), "secrets": ("KEY",)}
    assert result.grants == result.requested == await agents.granted(record)
    assert (record.name, record.version, record.source) == ("echo", "1.0.0", str(source))
    assert record.inputs_schema["properties"]["message"]["type"] == "string"
    copy = home.packages / record.digest
    assert record.path == str(copy)
    modes = {
        path.relative_to(copy).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in copy.rglob("*")
    }
    assert modes == {"agent.yaml": 0o644, "main.py": 0o644, "lib": 0o755, "lib/tool.sh": 0o755}
    assert stat.S_IMODE(copy.stat().st_mode) == 0o755
    assert await agents.list() == [record]
    program = await agents.prepare(record)
    assert (program.runtime, program.entry) == ("python", ("main.py",))
    assert (program.package, program.digest, program.environment) == (copy, record.digest, None)


async def test_modes_do_not_depend_on_the_umask(
    agents: AgentCatalog, write_package: WritePackage
) -> None:
    source = write_package(files={"lib/x": "x"})
    before = os.umask(0o077)
    try:
        record = (await agents.register(source)).record
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path(record.path).stat().st_mode) == 0o755
    assert stat.S_IMODE((Path(record.path) / "lib").stat().st_mode) == 0o755
    assert stat.S_IMODE((Path(record.path) / "lib/x").stat().st_mode) == 0o644


async def test_editing_the_source_changes_nothing_until_it_is_registered_again(
    agents: AgentCatalog, write_package: WritePackage
) -> None:
    source = write_package()
    first = await agents.register(source)
    again = await agents.register(source)
    assert not again.created
    assert again.replaced_digest is None
    assert again.record.id == first.record.id

    (source / "main.py").write_text("def handler(inputs):\n    return {}\n")
    assert (await agents.resolve("echo")).digest == first.record.digest
    other = await agents.register(source)
    assert other.created
    assert other.replaced_digest == first.record.digest
    assert (await agents.resolve("echo@1.0.0")).digest == other.record.digest
    assert Path(first.record.path).is_dir(), "live runs may be pinned to it"
    back = await agents.register(write_package())
    assert not back.created
    assert back.replaced_digest == other.record.digest


async def test_a_damaged_copy_is_made_anew(
    agents: AgentCatalog, write_package: WritePackage, home: Home
) -> None:
    source = write_package()
    record = (await agents.register(source)).record
    (Path(record.path) / "main.py").write_text("tampered")
    (home.packages / f".partial-{record.digest}").mkdir()
    await agents.register(source)
    assert (Path(record.path) / "main.py").read_bytes() == (source / "main.py").read_bytes()
    assert {path.name for path in home.packages.iterdir()} == {".locks", record.digest}


async def test_an_archive_is_registered_only_when_its_wishes_are_granted(
    agents: AgentCatalog, write_package: WritePackage, settings: Settings, tmp_path: Path
) -> None:
    archive = pack(read_package(write_package(more=ASKS), settings), tmp_path / "echo.apkg")
    with pytest.raises(RefusedError, match=r"network: api\.example\.com; secrets: KEY") as caught:
        await agents.register(archive)
    assert "--grant" in (caught.value.remedy or "")
    assert await agents.list() == []
    result = await agents.register(archive, grant=True)
    assert result.grants == {"network": ("api.example.com",), "secrets": ("KEY",)}
    assert result.record.source == str(archive)
    assert (await agents.register(archive)).record.id == result.record.id, "granted before"


async def test_an_archive_that_asks_for_nothing_needs_no_grant(
    agents: AgentCatalog, write_package: WritePackage, settings: Settings, tmp_path: Path
) -> None:
    archive = pack(read_package(write_package(), settings), tmp_path / "echo.apkg")
    result = await agents.register(archive)
    assert result.grants == {}
    assert (Path(result.record.path) / "main.py").is_file()


async def test_an_upgrade_by_archive_may_not_ask_for_more(
    agents: AgentCatalog, write_package: WritePackage, settings: Settings, tmp_path: Path
) -> None:
    await agents.register(write_package(more=ASKS))
    same = pack(read_package(write_package(version="1.1.0", more=ASKS), settings), tmp_path)
    more = pack(read_package(write_package(version="1.2.0", more=ASKS_MORE), settings), tmp_path)
    assert (await agents.register(same)).grants["secrets"] == ("KEY",)
    with pytest.raises(RefusedError, match=r": network: other\.example\.com"):
        await agents.register(more)
    with pytest.raises(RefusedError):
        await agents.register(write_package(version="1.2.0", more=ASKS_MORE), grant=False)
    assert (await agents.resolve("echo")).version == "1.1.0"
    assert (await agents.register(more, grant=True)).record.version == "1.2.0"


@pytest.mark.parametrize(
    ("granted", "asked", "is_more"),
    [
        ("'*.example.com'", "api.example.com", False),
        ("'*.example.com'", "'api.example.com:443'", False),
        ("api.example.com", "'*.example.com'", True),
        ("'api.example.com:443'", "api.example.com", True),
        ("'*'", "'*:443'", False),
        # A name may lead to a private network that the operator allows; `*` never does.
        ("'*'", "api.example.com", True),
    ],
)
async def test_an_upgrade_may_ask_for_hosts_that_a_grant_includes(
    agents: AgentCatalog,
    write_package: WritePackage,
    settings: Settings,
    tmp_path: Path,
    granted: str,
    asked: str,
    is_more: bool,
) -> None:
    await agents.register(write_package(more=f"permissions:\n  network: [{granted}]\n"))
    upgrade = write_package(version="1.1.0", more=f"permissions:\n  network: [{asked}]\n")
    archive = pack(read_package(upgrade, settings), tmp_path)
    if is_more:
        with pytest.raises(RefusedError, match="permissions that it was not granted"):
            await agents.register(archive)
    else:
        assert (await agents.register(archive)).grants == {"network": (asked.strip("'"),)}


async def test_programs_that_the_host_lacks_are_all_named(
    agents: AgentCatalog, write_package: WritePackage, home: Home
) -> None:
    manifest = (
        "name: {name}\nversion: {version}\n"
        "runtime:\n  type: command\n  entry: [no-such-a]\n  requires: [sh, no-such-a, no-such-b]\n"
    )
    with pytest.raises(UnavailableError, match="`no-such-a`, `no-such-b`") as caught:
        await agents.register(write_package(manifest=manifest))
    assert caught.value.remedy
    assert await agents.list() == []
    assert list(home.packages.iterdir()) == []


async def test_a_program_that_sandboxes_do_not_see_is_told(
    agents: AgentCatalog,
    write_package: WritePackage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tool = tmp_path / "bin" / "own-tool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    manifest = (
        "name: {name}\nversion: {version}\n"
        "runtime:\n  type: command\n  entry: [sh]\n  requires: [sh, own-tool]\n"
    )
    with pytest.raises(UnavailableError, match=f"`own-tool`, which sandboxes .* {tool}") as caught:
        await agents.register(write_package(manifest=manifest))
    assert "/usr" in str(caught.value.remedy)
    entry = manifest.replace("entry: [sh]", "entry: [own-tool]").replace(", own-tool", "")
    with pytest.raises(DefinitionError, match="own-tool"):
        await agents.register(write_package(manifest=entry))


async def test_nothing_is_left_of_what_cannot_be_registered(
    agents: AgentCatalog, home: Home, tmp_path: Path, write_package: WritePackage
) -> None:
    broken = write_package(more="surprise: 1\n")
    with pytest.raises(DefinitionError, match="surprise"):
        await agents.register(broken)
    (tmp_path / "x.apkg").write_bytes(b"no archive")
    with pytest.raises(ArchiveError):
        await agents.register(tmp_path / "x.apkg", grant=True)
    with pytest.raises(NotFoundError):
        await agents.register(tmp_path / "none")
    assert await agents.list() == []
    assert list(home.packages.iterdir()) == []


async def test_all_of_a_folder_is_tried_and_each_failure_told(
    agents: AgentCatalog, write_package: WritePackage
) -> None:
    good = write_package("a")
    bad = write_package("b", files={"main.py": "x = ("})
    other = write_package("c")
    (good.parent / "notes").mkdir()
    results = await agents.register_all(good.parent)
    assert [type(result) for result in results] == [
        RegisteredAgent,
        FailedRegistration,
        RegisteredAgent,
    ]
    assert isinstance(results[1], FailedRegistration)
    assert results[1].path == bad
    assert isinstance(results[1].error, DefinitionError)
    assert [record.source for record in await agents.list()] == [str(good), str(other)]
    with pytest.raises(NotFoundError):
        await agents.register_all(good / "none")


async def test_references_mean_the_highest_or_the_exact_version(
    agents: AgentCatalog, write_package: WritePackage
) -> None:
    for version in ("1.9.0", "2.0.0-rc.1", "1.10.0"):
        await agents.register(write_package(version=version))
    assert (await agents.resolve("echo")).version == "2.0.0-rc.1"
    assert (await agents.resolve("echo@1.9.0")).version == "1.9.0"
    await agents.register(write_package(version="2.0.0"))
    assert (await agents.resolve("echo")).version == "2.0.0"
    with pytest.raises(NotFoundError) as caught:
        await agents.resolve("echo@3.0.0")
    assert "1.9.0, 1.10.0, 2.0.0-rc.1, 2.0.0" in (caught.value.remedy or "")
    with pytest.raises(NotFoundError) as caught:
        await agents.resolve("ecko")
    assert "did you mean echo?" in (caught.value.remedy or "")


async def test_unregistering(agents: AgentCatalog, write_package: WritePackage) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        await agents.register(write_package(version=version))
    record = await agents.resolve("echo@1.1.0")
    assert await agents.unregister("echo@1.1.0") == 1
    assert [one.version for one in await agents.list()] == ["1.0.0", "1.2.0"]
    assert Path(record.path).is_dir()
    with pytest.raises(NotFoundError):
        await agents.unregister("echo@1.1.0")
    assert await agents.unregister("echo") == 2
    with pytest.raises(NotFoundError):
        await agents.unregister("echo")
    assert (await agents.register(write_package(version="1.1.0"))).record.id == record.id


async def test_a_package_gone_from_the_home_is_told_with_its_remedy(
    agents: AgentCatalog, write_package: WritePackage
) -> None:
    record = (await agents.register(write_package())).record
    Path(record.path).rename(Path(record.path).with_name("away"))
    with pytest.raises(UnavailableError, match="gone") as caught:
        await agents.prepare(record)
    assert f"swarm agent register {record.source}" in (caught.value.remedy or "")


async def test_registering_the_same_package_at_once_gives_one_record(
    home: Home, settings: Settings, write_package: WritePackage
) -> None:
    source = write_package(more=ASKS, files={f"data/{n}": "x" * n for n in range(40)})
    stores: list[SqliteStore] = [await open_store(home.database, settings) for _ in range(3)]
    try:
        catalogs = [AgentCatalog(store, home, settings) for store in stores]
        results = await asyncio.gather(*(catalog.register(source) for catalog in catalogs))
        assert len({result.record.id for result in results}) == 1
        assert sum(result.created for result in results) == 1
        assert len(await catalogs[0].list()) == 1
    finally:
        for store in stores:
            await store.close()
