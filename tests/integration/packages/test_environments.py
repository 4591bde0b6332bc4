"""Dependencies installed for real, by uv and npm, from the registries."""

from __future__ import annotations

import asyncio
import json
import os
import select
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from swarm.kernel.errors import DefinitionError, DependencyError, UnavailableError
from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.packages.environments import MARKER, EnvironmentInstaller
from swarm.packages.installers import find_npm, find_uv
from swarm.packages.package import Package
from swarm.packages.processes import installer_environment
from swarm.packages.reading import read_package
from swarm.packages.registration import AgentCatalog
from swarm.sandbox.interpreters import find_node

WritePackage = Any
NODE_MANIFEST = "name: {name}\nversion: {version}\nruntime:\n  type: node\n  entry: main.js\n"


@pytest.fixture
def installer(home: Home, settings: Settings) -> EnvironmentInstaller:
    return EnvironmentInstaller(home, settings)


@pytest.fixture
def python_package(write_package: WritePackage, settings: Settings) -> Package:
    return read_package(write_package(more="dependencies: ['six>=1.16']\n"), settings)


def node_files(**groups: Any) -> dict[str, str]:
    return {"main.js": "", "package.json": json.dumps({"name": "x", "version": "1.0.0", **groups})}


async def output_of(*command: str, folder: Path | None = None) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        env=installer_environment(os.environ),
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


def ended(process: int) -> bool:
    """Whether a process has ended, or does within 10 seconds."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 10)[0])
    finally:
        os.close(descriptor)


def folders(home: Home) -> set[str]:
    return {path.name for path in home.environments.iterdir()} - {".locks", "locks"}


async def test_a_package_without_dependencies_gets_no_environment(
    installer: EnvironmentInstaller, write_package: WritePackage, settings: Settings, home: Home
) -> None:
    assert await installer.install(read_package(write_package(), settings)) is None
    assert folders(home) == set()


async def test_python_dependencies_are_locked_installed_and_importable(
    agents: AgentCatalog, write_package: WritePackage, home: Home
) -> None:
    source = write_package(more="dependencies: ['six>=1.16']\n")
    told: list[str] = []
    result = await agents.register(source, on_progress=told.append)
    digest = result.record.environment_digest
    environment = (await agents.prepare(result.record)).environment
    assert digest is not None
    assert environment == home.environments / digest
    assert folders(home) == {digest}
    assert "locking the dependencies of echo@1.0.0" in told
    assert "installing the dependencies of echo@1.0.0" in told
    assert any("six" in line for line in told)

    site = environment / "site-packages"
    code = f"import sys; sys.path.insert(0, {str(site)!r}); import six; print(six.__file__)"
    assert (await output_of(sys.executable, "-I", "-c", code)).startswith(str(site))
    assert list(site.glob("__pycache__/six.*.pyc")), "a sandbox could not write them"
    (lock,) = (home.environments / "locks").iterdir()
    assert "--hash=sha256:" in lock.read_text()
    assert "://" not in lock.read_text()

    told.clear()
    again = await agents.register(source, on_progress=told.append)
    assert again.record.environment_digest == digest
    assert told == [], "neither locked nor installed again"


async def test_what_is_installed_is_readable_by_everyone(
    installer: EnvironmentInstaller, python_package: Package
) -> None:
    before = os.umask(0o077)
    try:
        installed = await installer.install(python_package)
    finally:
        os.umask(before)
    assert installed is not None
    for path in [installed[1], *installed[1].rglob("*")]:
        wanted = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) & wanted == wanted
        assert path.stat().st_nlink == 1 or path.is_dir(), "never a link to the installer's cache"


async def test_an_incomplete_environment_is_built_anew(
    installer: EnvironmentInstaller, python_package: Package, home: Home
) -> None:
    installed = await installer.install(python_package)
    assert installed is not None
    digest, folder = installed
    (folder / MARKER).unlink()
    shutil.rmtree(folder / "site-packages")
    (home.environments / f".partial-{digest}").mkdir()
    assert not installer.is_complete(digest)
    assert await installer.install(python_package) == installed
    assert installer.is_complete(digest)
    assert (folder / "site-packages/six.py").is_file()
    assert folders(home) == {digest}


async def test_an_environment_gone_is_told_and_comes_back(
    agents: AgentCatalog, write_package: WritePackage
) -> None:
    source = write_package(more="dependencies: [six]\n")
    record = (await agents.register(source)).record
    environment = (await agents.prepare(record)).environment
    assert environment is not None
    (environment / MARKER).unlink()
    with pytest.raises(UnavailableError, match="dependencies are gone"):
        await agents.prepare(record)
    again = (await agents.register(source)).record
    assert (await agents.prepare(again)).environment == environment


async def test_registrations_at_once_install_once(
    home: Home, settings: Settings, python_package: Package
) -> None:
    told: list[str] = []
    installers = [EnvironmentInstaller(home, settings) for _ in range(4)]
    found = await asyncio.gather(
        *(installer.install(python_package, told.append) for installer in installers)
    )
    assert len(set(found)) == 1
    assert [line for line in told if line.startswith("installing")] == [
        "installing the dependencies of echo@1.0.0"
    ]


async def test_a_lock_in_the_package_is_obeyed(
    installer: EnvironmentInstaller,
    write_package: WritePackage,
    settings: Settings,
    tmp_path: Path,
) -> None:
    (tmp_path / "in").write_text("six==1.16.0\n")
    compile_lock = [*find_uv(), "pip", "compile", "-q", "--no-header", "--generate-hashes"]
    lock = await output_of(*compile_lock, str(tmp_path / "in"))
    source = write_package(more="dependencies: [six]\n", files={"requirements.lock": lock})
    told: list[str] = []
    installed = await installer.install(read_package(source, settings), told.append)
    assert installed is not None
    assert (installed[1] / "site-packages/six-1.16.0.dist-info").is_dir()
    assert not any(line.startswith("locking") for line in told)

    bad = "six==1.16.0 --hash=sha256:" + "0" * 64 + "\n"
    other = write_package("other", files={"requirements.lock": bad})
    with pytest.raises(DependencyError) as caught:
        await installer.install(read_package(other, settings))
    assert "hash" in caught.value.message.lower()


async def test_a_lock_that_lacks_something_needed_installs_nothing_else(
    installer: EnvironmentInstaller, write_package: WritePackage, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "in").write_text("python-dateutil==2.9.0.post0\n")
    options = ["-q", "--no-header", "--generate-hashes", "--no-deps"]
    lock = await output_of(*find_uv(), "pip", "compile", *options, str(tmp_path / "in"))
    source = write_package(files={"requirements.lock": lock})
    with pytest.raises(DependencyError, match="six"):
        await installer.install(read_package(source, settings))


async def test_what_no_registry_has_is_told_with_the_installers_words(
    agents: AgentCatalog, write_package: WritePackage, home: Home
) -> None:
    source = write_package(more="dependencies: ['six==0.0.0.1']\n")
    with pytest.raises(DependencyError) as caught:
        await agents.register(source)
    assert "echo@1.0.0" in caught.value.message
    assert "\n  | " in caught.value.message
    assert "six==0.0.0.1" in caught.value.message
    assert caught.value.remedy
    assert folders(home) == set()
    assert await agents.list() == []
    assert list(home.packages.iterdir()) == []


async def test_the_time_limit_kills_the_installer(
    home: Home,
    settings: Settings,
    python_package: Package,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a real process in uv's place: one that never ends and says who it is."""
    program = tmp_path / "bin" / "uv"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nsleep 1000 &\necho $! > "$0.pid"\nwait\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    hasty = EnvironmentInstaller(home, replace(settings, install_timeout_seconds=0.5))
    with pytest.raises(DependencyError, match="time limit") as caught:
        await hasty.install(python_package)
    assert "install_timeout_seconds" in (caught.value.remedy or "")
    assert ended(int(program.with_name("uv.pid").read_text()))
    assert folders(home) == set()


async def test_node_dependencies_are_locked_and_installed(
    agents: AgentCatalog, write_package: WritePackage, settings: Settings
) -> None:
    source = write_package(
        manifest=NODE_MANIFEST, files=node_files(dependencies={"is-number": "^7.0.0"})
    )
    result = await agents.register(source)
    environment = (await agents.prepare(result.record)).environment
    assert environment is not None
    modules = environment / "node_modules"
    code = f"console.log(require({str(modules / 'is-number')!r})(7))"
    node = str(find_node(settings).program)
    assert await output_of(node, "-e", code) == "true\n"
    assert not (Path(result.record.path) / "node_modules").exists()


async def test_a_lock_of_npm_in_the_package_is_obeyed(
    installer: EnvironmentInstaller, write_package: WritePackage, settings: Settings, tmp_path: Path
) -> None:
    files = node_files(dependencies={"is-number": "^7.0.0"}, devDependencies={"is-odd": "3.0.1"})
    (tmp_path / "package.json").write_text(files["package.json"])
    await output_of(
        *find_npm(find_node(settings).program),
        *("install", "--package-lock-only", "--ignore-scripts", "--no-audit"),
        folder=tmp_path,
    )
    files["package-lock.json"] = (tmp_path / "package-lock.json").read_text()
    source = write_package(manifest=NODE_MANIFEST, files=files)
    told: list[str] = []
    installed = await installer.install(read_package(source, settings), told.append)
    assert installed is not None
    names = {path.name for path in (installed[1] / "node_modules").iterdir()}
    assert names - {".package-lock.json"} == {"is-number"}, "and none for development"
    assert not any(line.startswith("locking") for line in told)


async def test_install_scripts_never_run(
    installer: EnvironmentInstaller, write_package: WritePackage, settings: Settings, tmp_path: Path
) -> None:
    files = node_files(
        dependencies={"is-number": "7.0.0"}, scripts={"preinstall": f"touch {tmp_path}/ran"}
    )
    files[".npmrc"] = "ignore-scripts=false\n"
    source = write_package(manifest=NODE_MANIFEST, files=files)
    assert await installer.install(read_package(source, settings)) is not None
    assert not (tmp_path / "ran").exists()


async def test_a_dependency_on_something_local_is_refused(
    agents: AgentCatalog, write_package: WritePackage
) -> None:
    files = node_files(dependencies={"x": "file:/etc"})
    with pytest.raises(DefinitionError, match="not a version range"):
        await agents.register(write_package(manifest=NODE_MANIFEST, files=files))


def test_installers_get_the_users_settings_and_no_secret() -> None:
    given = {
        "PATH": "/bin",
        "PIP_INDEX_URL": "https://example.com/simple",
        "PIP_EXTRA_INDEX_URL": "https://example.com/more",
        "UV_EXTRA_INDEX_URL": "https://example.com/uv",
        "npm_config_registry": "https://example.com/npm",
        "SWARM_SECRET_KEY": "x",
        "PYTHONPATH": "/swarm",
        "VIRTUAL_ENV": "/swarm",
    }
    got = installer_environment(given)
    assert got["UV_DEFAULT_INDEX"] == given["PIP_INDEX_URL"]
    assert got["npm_config_registry"] == given["npm_config_registry"]
    assert "UV_INDEX" not in got, "uv has its own"
    assert installer_environment({"UV_SYSTEM_CERTS": "false"})["UV_SYSTEM_CERTS"] == "false"
    assert not {"SWARM_SECRET_KEY", "PYTHONPATH", "VIRTUAL_ENV"} & set(got)


def test_a_missing_installer_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match="npm"):
        find_npm(tmp_path / "bin" / "node")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="uv") as caught:
        find_uv()
    assert caught.value.remedy


def test_npm_is_the_one_that_came_with_the_node(tmp_path: Path) -> None:
    node = tmp_path / "wheel/bin/node"
    node.parent.mkdir(parents=True)
    (node.parent / "npm").write_text("#!/usr/bin/env node\n")
    script = tmp_path / "wheel/lib/node_modules/npm/bin/npm-cli.js"
    script.parent.mkdir(parents=True)
    script.write_text("")
    assert find_npm(node) == (str(node), str(script))
    (node.parent / "npm").unlink()
    (node.parent / "npm").symlink_to(script)
    assert find_npm(node) == (str(node), str(script.resolve()))
