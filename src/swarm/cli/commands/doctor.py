"""``swarm doctor``"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import click
from msgspec import structs

from swarm import __version__
from swarm.cli.context import asynchronous, read_settings, reading
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import print_json, print_lines
from swarm.cli.render.tables import Cell, table
from swarm.cli.render.values import plural, size
from swarm.cli.terminal import Terminal, clean, stdout
from swarm.kernel.errors import DependencyError, ExitCode, SwarmError
from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.packages.installers import find_uv
from swarm.sandbox.ports import LayerReport
from swarm.sandbox.probe import probe_layers

Status = Literal["ok", "limited", "missing"]

LITTLE_SPACE_BYTES = 1024**3
"""Below this much free disk space the home is called limited."""
PROGRAM_SECONDS = 10
"""How long a program may take to tell its version."""
STATUS_WIDTH = len("limited")
COLORS = {"ok": "green", "limited": "yellow", "missing": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Status
    detail: str
    remedy: str | None = None


@click.command("doctor", cls=SwarmCommand)
@pass_globals
@asynchronous
async def doctor(options: Globals) -> int:
    """Say what this machine can and cannot do, and what to do about it.

    Exits with 5 if agents cannot be sandboxed here, or the home cannot be used.
    """
    settings = read_settings(options)
    layers = await asyncio.to_thread(probe_layers, settings)
    machine = await asyncio.to_thread(_machine)
    home = await _home(options, settings)
    blocked = [layer.name for layer in layers if layer.required and not layer.available]
    usable = not any(finding.status == "missing" for finding in home)
    if options.json:
        print_json(
            {
                "can_sandbox": not blocked,
                "home_usable": usable,
                "machine": [asdict(finding) for finding in machine],
                "layers": [structs.asdict(layer) for layer in layers],
                "home": [asdict(finding) for finding in home],
            }
        )
    else:
        _print(machine, layers, home, blocked)
    return ExitCode.OK if usable and not blocked else ExitCode.ENVIRONMENT


def _print(
    machine: Sequence[Finding],
    layers: Sequence[LayerReport],
    home: Sequence[Finding],
    blocked: Sequence[str],
) -> None:
    terminal = stdout()
    _section(terminal, "Machine", machine)
    _section(terminal, "Sandbox", [_layer(layer) for layer in layers])
    _section(terminal, "Home", home)
    if blocked:
        print_lines([terminal.style("Agents cannot be sandboxed here.", "red", bold=True)])
    else:
        print_lines([terminal.style("Agents can be sandboxed here.", "green", bold=True)])


def _layer(layer: LayerReport) -> Finding:
    status: Status = "ok" if layer.available else "missing" if layer.required else "limited"
    return Finding(layer.name, status, layer.detail, layer.remedy)


def _section(terminal: Terminal, title: str, findings: Sequence[Finding]) -> None:
    print_lines([terminal.style(title, bold=True)])
    rows: list[list[Cell | str]] = [
        [Cell(f.status.ljust(STATUS_WIDTH), COLORS[f.status]), f.name, f.detail] for f in findings
    ]
    for finding, line in zip(findings, table(terminal, ["", "", ""], rows), strict=True):
        print_lines([f"  {line}"])
        if finding.remedy and finding.status != "ok":
            print_lines([f"      {terminal.style('remedy:', 'cyan')} {clean(finding.remedy)}"])
    print_lines([""])


def _machine() -> list[Finding]:
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    is_supported = platform.system() == "Linux" and platform.machine() == "x86_64"
    return [
        Finding("swarm", "ok", __version__),
        Finding("system", "ok", system)
        if is_supported
        else Finding("system", "missing", system, "use Linux on x86-64"),
        Finding("cores", "ok", str(os.cpu_count() or 1)),
        _git(),
        _uv(),
    ]


def _git() -> Finding:
    path = shutil.which("git")
    if path is None:
        remedy = "agents that read repositories need it; install git"
        return Finding("git", "limited", "not found", remedy)
    return _version("git", (path,))


def _uv() -> Finding:
    try:
        return _version("uv", find_uv())
    except DependencyError as error:
        return Finding("uv", "limited", error.message, error.remedy)


def _version(name: str, command: Sequence[str]) -> Finding:
    """What the program says of its version; that it can be started at all."""
    try:
        done = subprocess.run(
            [*command, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROGRAM_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        remedy = f"install {name} anew"
        return Finding(name, "limited", f"{command[0]} does not work: {error}", remedy)
    version = (done.stdout or done.stderr).strip().splitlines()
    place = " ".join(command)
    return Finding(name, "ok", f"{version[0] if version else 'unknown version'} at {place}")


async def _home(options: Globals, settings: Settings) -> list[Finding]:
    home = Home(settings.home)
    try:
        async with reading(options) as records:
            agents = await records.store.list_agents()
            workflows = await records.store.list_workflows()
            orphans = await records.orphans()
            hosts = await records.peers.living()
    except SwarmError as error:
        where = f"{error.where}: " if error.where else ""
        return [Finding("database", "missing", f"{where}{error.message}", error.remedy)]
    contents = f"{plural(len(agents), 'agent')}, {plural(len(workflows), 'workflow')}"
    findings = [
        Finding("folder", "ok", str(home.root)),
        Finding("database", "ok", f"{home.database} ({contents})"),
        _space(home),
    ]
    if hosts:
        findings.append(
            Finding("hosts", "ok", ", ".join(f"{host.role} (pid {host.pid})" for host in hosts))
        )
    if orphans:
        interrupted = f"{plural(len(orphans), 'run')} interrupted"
        findings.append(Finding("runs", "limited", interrupted, "swarm runs resume"))
    return findings


def _space(home: Home) -> Finding:
    free = shutil.disk_usage(home.root).free
    if free < LITTLE_SPACE_BYTES:
        remedy = "free space, or delete old runs: swarm runs purge --older-than 7d"
        return Finding("disk", "limited", f"{size(free)} free", remedy)
    return Finding("disk", "ok", f"{size(free)} free")
