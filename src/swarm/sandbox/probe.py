"""What this machine can do for sandboxes, as ``swarm doctor`` tells it."""

from __future__ import annotations

import asyncio
import platform
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.settings import Settings
from swarm.sandbox.interpreters import Interpreter, find_node, python_program
from swarm.sandbox.linux.backend import REQUIRED_LAYERS, NamespaceBackend
from swarm.sandbox.linux.cgroups import find_tree
from swarm.sandbox.microvm.probing import probe_microvm
from swarm.sandbox.ports import LayerReport, Limits, Program, SandboxRequest

_MEBIBYTE: Final = 1024 * 1024
_PROBE_LIMITS: Final = Limits(memory_bytes=256 * _MEBIBYTE, timeout_seconds=20)


def probe_layers(settings: Settings) -> list[LayerReport]:
    """Try every layer by building a real sandbox, and say what holds and what is missing.

    Blocks for some tenths of a second, the first time with KVM for some seconds. May be called with
    or without a running event loop.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        layers = thread.submit(asyncio.run, _try_sandbox(settings)).result()
    return [
        *layers,
        _report_cgroup(settings),
        _report_program("python", python_program, required=True),
        _report_program("node", lambda: find_node(settings), required=False),
        *probe_microvm(settings),
    ]


async def _try_sandbox(settings: Settings) -> list[LayerReport]:
    """One report for each required layer and for Landlock."""
    machine = platform.machine()
    if platform.system() != "Linux" or machine != "x86_64":
        text = f"sandboxes need Linux on x86-64; this is {platform.system()} on {machine}"
        return [LayerReport(name, True, False, text) for name in REQUIRED_LAYERS]
    backend = NamespaceBackend(replace(settings, require_cgroup=False))
    with tempfile.TemporaryDirectory(prefix="swarm-probe-") as folder:
        package = Path(folder)
        package.chmod(0o755)
        program = Program("command", ("true",), package, "probe")
        try:
            sandbox = await backend.prepare(SandboxRequest(program, _PROBE_LIMITS))
            await sandbox.destroy()
        except SandboxUnavailable as error:
            return _refused(error)
        finally:
            await backend.close()
    reports = [LayerReport(name, True, True, "holds") for name in REQUIRED_LAYERS]
    has_landlock = "landlock" in sandbox.layers
    return [*reports, _report_landlock(is_there=has_landlock)]


def _refused(error: SandboxUnavailable) -> list[LayerReport]:
    """The layer that failed, and those that could not be tried because of it."""
    failed = error.where or "sandbox"
    reports = [LayerReport(failed, True, False, error.message, error.remedy)]
    untried = [name for name in REQUIRED_LAYERS if name != failed]
    reports += [
        LayerReport(name, True, False, f"not tried, since {failed} failed") for name in untried
    ]
    return reports


def _report_landlock(*, is_there: bool) -> LayerReport:
    if is_there:
        return LayerReport("landlock", False, True, "holds")
    return LayerReport(
        "landlock",
        False,
        False,
        "this kernel has no Landlock: a FIFO in a live input could be written",
        "boot with `lsm=landlock,...` on Linux 5.13 or newer",
    )


def _report_cgroup(settings: Settings) -> LayerReport:
    tree = find_tree()
    if tree is not None:
        tree.close()
        return LayerReport(tree.layer, settings.require_cgroup, True, "memory and processes")
    return LayerReport(
        "cgroup",
        settings.require_cgroup,
        False,
        "no cgroup can be made here: a watchdog bounds memory, and may miss a short burst",
        "start Swarm with `systemd-run --user --scope -p Delegate=yes`, or as root",
    )


def _report_program(name: str, find: Callable[[], Interpreter], *, required: bool) -> LayerReport:
    try:
        found = find()
    except SandboxUnavailable as error:
        return LayerReport(name, required, False, error.message, error.remedy)
    return LayerReport(name, required, True, f"{found.version} at {found.program}")
