"""Dependencies locked before a package is packed, by uv and npm, from the registries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swarm.kernel.errors import ConflictError, DependencyError
from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.packages.archive import pack
from swarm.packages.environments import EnvironmentInstaller
from swarm.packages.locking import lock_package
from swarm.packages.reading import read_package
from swarm.packages.registration import AgentCatalog

WritePackage = Any
SIX = "dependencies: ['six>=1.16']\n"


async def test_a_lock_is_written_into_the_folder_once(
    write_package: WritePackage, settings: Settings, tmp_path: Path, agents: AgentCatalog
) -> None:
    folder = write_package(more=SIX)
    unlocked = read_package(folder, settings)
    told: list[str] = []
    package, file = await lock_package(unlocked, settings, told.append)
    assert file == folder / "requirements.lock"
    assert "locking the dependencies of echo@1.0.0" in told
    assert "six==" in file.read_text()
    assert "--hash=sha256:" in file.read_text()
    assert package.digest != unlocked.digest
    assert package.has("requirements.lock")

    first = pack(package, tmp_path / "first.apkg").read_bytes()
    again, nothing = await lock_package(read_package(folder, settings), settings)
    assert nothing is None
    assert pack(again, tmp_path / "second.apkg").read_bytes() == first
    told.clear()
    registered = await agents.register(tmp_path / "first.apkg", on_progress=told.append)
    assert registered.record.environment_digest
    assert not any(line.startswith("locking") for line in told)


async def test_what_needs_no_lock_gets_none(
    write_package: WritePackage, settings: Settings, tmp_path: Path
) -> None:
    plain = read_package(write_package(), settings)
    assert await lock_package(plain, settings) == (plain, None)
    archive = pack(read_package(write_package("other", more=SIX), settings), tmp_path)
    packed = read_package(archive, settings)
    assert await lock_package(packed, settings) == (packed, None)


async def test_a_lock_is_for_other_machines_too(
    write_package: WritePackage, settings: Settings, home: Home
) -> None:
    """Requirements for elsewhere are locked with their marker, and left out here."""
    folder = write_package(more="dependencies: [six, \"colorama; sys_platform == 'win32'\"]\n")
    package, file = await lock_package(read_package(folder, settings), settings)
    assert file is not None
    assert "colorama" in file.read_text()
    installed = await EnvironmentInstaller(home, settings).install(package)
    assert installed is not None
    names = {path.name for path in (installed[1] / "site-packages").iterdir()}
    assert "six.py" in names
    assert "colorama" not in names


async def test_node_packages_are_locked(write_package: WritePackage, settings: Settings) -> None:
    manifest = "name: {name}\nversion: {version}\nruntime:\n  type: node\n  entry: main.js\n"
    declared = {"name": "x", "version": "1.0.0", "dependencies": {"is-number": "^7.0.0"}}
    folder = write_package(
        manifest=manifest, files={"main.js": "", "package.json": json.dumps(declared)}
    )
    package, file = await lock_package(read_package(folder, settings), settings)
    assert file == folder / "package-lock.json"
    lock = json.loads(file.read_text())
    assert lock["packages"]["node_modules/is-number"]["integrity"].startswith("sha512-")
    assert package.has("package-lock.json")


async def test_nothing_is_written_when_it_cannot_be_locked(
    write_package: WritePackage, settings: Settings
) -> None:
    folder = write_package(more="dependencies: ['six>=99']\n")
    before = sorted(folder.iterdir())
    with pytest.raises(DependencyError, match="six"):
        await lock_package(read_package(folder, settings), settings)
    assert sorted(folder.iterdir()) == before


async def test_a_package_that_leaves_its_lock_out_is_told(
    write_package: WritePackage, settings: Settings
) -> None:
    folder = write_package(more=SIX, files={".swarmignore": "*.lock\n"})
    with pytest.raises(ConflictError, match=r"leaves its lock `requirements\.lock` out"):
        await lock_package(read_package(folder, settings), settings)
