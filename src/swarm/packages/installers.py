"""How uv and npm are called: to lock what a package declares, and to install what is locked."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from swarm.definitions.source import Source
from swarm.kernel.errors import DefinitionError, DependencyError
from swarm.kernel.json import JsonObject
from swarm.kernel.settings import Settings
from swarm.packages.dependencies import (
    NODE_LOCK,
    NODE_MANIFEST,
    REQUIREMENTS_LOCK,
    NodeDependencies,
    PythonDependencies,
    clean_node_lock,
    read_dependencies,
)
from swarm.packages.package import MANIFEST, Package
from swarm.packages.processes import InstallerRun, installer_environment
from swarm.sandbox.interpreters import find_node, python_program

SITE_PACKAGES = "site-packages"
NODE_MODULES = "node_modules"

_PYTHON_IDENTITY = (
    "import json, platform, sys, sysconfig; print(json.dumps({"
    "'runtime': 'python', 'implementation': sys.implementation.cache_tag,"
    "'version': platform.python_version(), 'abi': sysconfig.get_config_var('SOABI'),"
    "'platform': sysconfig.get_platform(), 'libc': '-'.join(platform.libc_ver())}))"
)
_NODE_IDENTITY = (
    "console.log(JSON.stringify({runtime: 'node', version: process.version,"
    " abi: process.versions.modules, platform: process.platform + '-' + process.arch}))"
)


class Installer(Protocol):
    """Installs the dependencies of one package."""

    @property
    def locked(self) -> str | None:
        """The lock that came with the package, if one did."""
        ...

    @property
    def lock_file(self) -> str:
        """The name of the file in a package that holds its lock."""
        ...

    async def identity(self) -> JsonObject:
        """What an environment fits: the runtime, its version and the platform."""
        ...

    async def lock(self, folder: Path, *, portable: bool = False) -> str:
        """Resolve what is declared to exact versions with hashes, in the empty ``folder``.

        Args:
            folder: for the installer's files.
            portable: whether the lock is for other machines too, rather than for this one.
        """
        ...

    async def install(self, lock: str, folder: Path) -> None:
        """Install exactly what ``lock`` says into the empty ``folder``."""
        ...


@dataclass(frozen=True, slots=True)
class PythonInstaller:
    """Installs wheels with uv, for the interpreter that sandboxes use."""

    dependencies: PythonDependencies
    python: Path
    run: InstallerRun

    @property
    def locked(self) -> str | None:
        return self.dependencies.text if self.dependencies.locked else None

    @property
    def lock_file(self) -> str:
        return REQUIREMENTS_LOCK

    async def identity(self) -> JsonObject:
        return await _ask([str(self.python), "-I", "-S", "-c", _PYTHON_IDENTITY])

    async def lock(self, folder: Path, *, portable: bool = False) -> str:
        declared, locked = folder / "requirements.in", folder / REQUIREMENTS_LOCK
        declared.write_text(self.dependencies.text, "utf-8")
        options = ["--generate-hashes", "--no-emit-index-url", "--no-header", "--no-annotate"]
        if portable:
            options.append("--universal")
        await self.run(
            [
                *find_uv(),
                *("pip", "compile", "--quiet", *options),
                # Wheels only here too: metadata of a source distribution comes from running it.
                *("--only-binary", ":all:"),
                *("--python", str(self.python)),
                *("--output-file", str(locked), str(declared)),
            ],
            folder,
        )
        return locked.read_text("utf-8")

    async def install(self, lock: str, folder: Path) -> None:
        file = folder / REQUIREMENTS_LOCK
        file.write_text(lock, "utf-8")
        await self.run(
            [
                *find_uv(),
                *("pip", "install", "--require-hashes", "--only-binary", ":all:"),
                *("--target", str(folder / SITE_PACKAGES)),
                *("--python", str(self.python)),
                # Copies: what a sandbox sees must not be uv's cache. Compiled: it cannot write.
                *("--link-mode", "copy", "--compile-bytecode"),
                *("--requirements", str(file)),
            ],
            folder,
        )
        (folder / SITE_PACKAGES).mkdir(exist_ok=True)


@dataclass(frozen=True, slots=True)
class NodeInstaller:
    """Installs packages with npm, for the Node that sandboxes use."""

    dependencies: NodeDependencies
    node: Path
    run: InstallerRun

    @property
    def locked(self) -> str | None:
        lock = self.dependencies.lock
        return None if lock is None else json.dumps(lock)

    @property
    def lock_file(self) -> str:
        return NODE_LOCK

    async def identity(self) -> JsonObject:
        return await _ask([str(self.node), "-e", _NODE_IDENTITY])

    async def lock(self, folder: Path, *, portable: bool = False) -> str:
        del portable  # npm's locks always are
        self._write_manifest(folder)
        await self._npm(["install", "--package-lock-only"], folder)
        file = folder / NODE_LOCK
        subject = f"{NODE_LOCK} of {self.run.subject}"
        try:
            lock = clean_node_lock(json.loads(file.read_bytes()), subject)
        except DefinitionError as error:
            # A package of the registry may itself depend on what no registry holds.
            raise DependencyError(error.message, where=subject, remedy=error.remedy) from None
        return json.dumps(lock, indent=2) + "\n"

    async def install(self, lock: str, folder: Path) -> None:
        self._write_manifest(folder)
        (folder / NODE_LOCK).write_text(lock, "utf-8")
        await self._npm(["ci", "--omit=dev", "--no-bin-links"], folder)
        (folder / NODE_MODULES).mkdir(exist_ok=True)

    def _write_manifest(self, folder: Path) -> None:
        # Not the package's own file, nor its .npmrc: only what was checked.
        text = json.dumps(self.dependencies.manifest)
        (folder / NODE_MANIFEST).write_text(text, "utf-8")

    async def _npm(self, arguments: Sequence[str], folder: Path) -> None:
        quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--no-progress"]
        await self.run(
            [*find_npm(self.node), *arguments, "--ignore-scripts", "--workspaces=false", *quiet],
            folder,
        )


def installer_run(
    package: Package, settings: Settings, on_progress: Callable[[str], None] | None
) -> InstallerRun:
    """The commands of one installation, within the settings' time from now on."""
    definition = package.definition
    return InstallerRun(
        subject=f"the dependencies of {definition.name}@{definition.version}",
        deadline=asyncio.get_running_loop().time() + settings.install_timeout_seconds,
        on_progress=on_progress,
    )


def installer_for(package: Package, settings: Settings, run: InstallerRun) -> Installer | None:
    """What installs the dependencies of a package, or None if it has none.

    Raises:
        DefinitionError: it declares what no registry can give.
        UnavailableError: there is no Node.
    """
    source = Source(None, f"{package.root}/{MANIFEST}")
    dependencies = read_dependencies(package.definition, package.contents, source)
    if dependencies is None:
        return None
    if isinstance(dependencies, PythonDependencies):
        return PythonInstaller(dependencies, python_program().program, run)
    return NodeInstaller(dependencies, find_node(settings).program, run)


def find_uv() -> tuple[str, ...]:
    """The command that starts uv.

    Raises:
        DependencyError: there is none.
    """
    beside = Path(sys.executable).with_name("uv")
    if (found := shutil.which("uv")) is not None:
        return (found,)
    if os.access(beside, os.X_OK):
        return (str(beside),)
    if importlib.util.find_spec("uv") is not None:
        return (sys.executable, "-m", "uv")
    raise DependencyError(
        "Python dependencies are installed with uv, which this machine lacks",
        remedy="install it: `pip install uv`",
    )


def find_npm(node: Path) -> tuple[str, ...]:
    """The command that starts npm with ``node``, whichever way both were installed.

    Raises:
        DependencyError: there is none.
    """
    on_path = shutil.which("npm")
    prefix = node.parent.parent
    scripts = [
        # Debian's and nodejs.org's layout; then that of a wheel, where links became files.
        node.with_name("npm").resolve(),
        prefix / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js",
        *([Path(on_path).resolve()] if on_path else []),
    ]
    for script in scripts:
        if script.suffix == ".js" and script.is_file():
            return (str(node), str(script))
    if on_path is not None:
        return (on_path,)
    raise DependencyError(
        "Node dependencies are installed with npm, which this machine lacks",
        remedy="install npm (it comes with Node.js 20 or later)",
    )


async def _ask(command: Sequence[str]) -> JsonObject:
    """What an interpreter says of itself, along with the machine it is on."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=installer_environment(os.environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        output, _ = await process.communicate()
        answer = json.loads(output)
    except (OSError, ValueError):
        raise DependencyError(
            f"the interpreter {command[0]} does not work", remedy="mend or reinstall it"
        ) from None
    return {**answer, "machine": platform.machine()}
