"""What a hostile handler tries inside its machine. The same acts work for the machine's root, so
that it is the handler's lack of rights, and nothing else, that stops them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from swarm.kernel.settings import Settings
from swarm.sandbox.microvm import tsc
from swarm.sandbox.microvm.accelerators import Accelerator
from swarm.sandbox.microvm.backend import MicrovmBackend
from swarm.sandbox.microvm.image import find_image
from swarm.sandbox.microvm.processes import start_process
from swarm.sandbox.microvm.qemu_command import program_command_line
from swarm.sandbox.microvm.squashfs import write_squashfs
from swarm.sandbox.ports import Limits, Outcome, SandboxRequest
from tests.contract.sandbox.calling import CONTEXT, MEBIBYTE, RecordingServices
from tests.integration.microvm import machines

LIMITS = Limits(memory_bytes=128 * MEBIBYTE, timeout_seconds=120)
ATTACKS = '''
import ctypes, errno, os, socket, stat, time

libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))

def write(path):
    with open(path, "ab") as file:
        file.write(b"x")

def disk(name, flags):
    os.close(os.open(f"/dev/{name}", flags))

def port():
    names = [name for name in os.listdir("/dev") if name.startswith("vport")] or ["vport"]
    os.close(os.open(f"/dev/{names[0]}", os.O_RDWR))

def channel():
    """A port of another machine, as QEMU would show it."""
    os.mknod("/tmp/port", 0o600 | stat.S_IFCHR, os.makedev(245, 1))

def agent_memory():
    with open("/proc/1/mem", "rb") as file:
        file.seek(int(open("/proc/1/maps").readline().split("-")[0], 16))
        file.read(16)

def raw_packets():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()

def connect(address):
    socket.create_connection(address, 3).close()

STOPPED_BY_RIGHTS = {
    "mount": lambda: call("mount", b"tmpfs", b"/tmp", b"tmpfs", 0, b""),
    "make a device": channel,
    "open the agent's port": port,
    "read the agent's memory": agent_memory,
    "read a disk": lambda: disk("vda", os.O_RDONLY),
    "read the kernel's memory": lambda: disk("mem", os.O_RDONLY),
    "write to the kernel's log": lambda: write("/dev/kmsg"),
    "trace the agent": lambda: call("ptrace", 16, 1, 0, 0) if os.getpid() != 1 else None,
    "kill the agent": lambda: os.kill(1, 0),
    "become root": lambda: os.setresuid(0, 0, 0),
    "set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, 2_000_000_000),
    "name the machine": lambda: socket.sethostname("mine"),
    "raw packets": raw_packets,
    "kernel settings": lambda: os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY)),
    "magic keys": lambda: os.close(os.open("/proc/sysrq-trigger", os.O_WRONLY)),
    "leave its group": lambda: os.close(os.open("/sys/fs/cgroup/cgroup.procs", os.O_WRONLY)),
    "change root": lambda: os.chroot("/tmp"),  # Last: where it works, no path leads on.
}
STOPPED_FOR_ALL = {
    "write to the root": lambda: write("/etc/passwd"),
    "write to the programs": lambda: write("/usr/bin/python3"),
    "write to the package": lambda: write("/package/main.py"),
    "write to a disk": lambda: disk("vdc", os.O_RDWR),
    "the metadata address": lambda: connect(("169.254.169.254", 80)),
    "the host": lambda: connect(("10.0.2.2", 80)),
    "names": lambda: socket.getaddrinfo("example.com", 80),
}

def outcome(act):
    try:
        act()
    except OSError as error:
        return error.errno and errno.errorcode.get(error.errno, str(error.errno)) or "failed"
    return "done"

def results(attacks):
    return {name: outcome(act) for name, act in attacks.items()}
'''
HANDLER = f"""{ATTACKS}
def handler(inputs):
    return {{
        "rights": results(STOPPED_BY_RIGHTS),
        "all": results(STOPPED_FOR_ALL),
        "host": [path for path in inputs["paths"] if os.path.exists(path)],
        "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "interfaces": os.listdir("/sys/class/net"),
    }}
"""
ROOT = f"""{ATTACKS}
import json
call("mount", b"tmpfs", b"/tmp", b"tmpfs", 0, b"")
call("mount", b"cgroup2", b"/sys/fs/cgroup", b"cgroup2", 0, b"")
print("RESULT " + json.dumps(results(STOPPED_BY_RIGHTS)) + " END", flush=True)
libc.reboot(0x4321FEDC)
"""


@pytest.fixture
def host_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret-of-the-host"
    path.write_text("secret")
    return path


@pytest.mark.everyday
async def test_a_hostile_handler_gets_nowhere(
    backend: MicrovmBackend, tmp_path: Path, host_file: Path
) -> None:
    hostile = machines.program(tmp_path / "package", {"main.py": HANDLER}, "python", "main.py")
    sandbox = await backend.prepare(SandboxRequest(hostile, LIMITS))
    paths: list[Any] = [str(host_file), str(Path(__file__).parents[3]), "/etc/shadow"]
    result = await sandbox.call({"paths": paths}, CONTEXT, RecordingServices())
    await sandbox.destroy()
    assert result.outcome is Outcome.OK, result
    found: Any = result.outputs
    assert "done" not in found["rights"].values(), found["rights"]
    assert "done" not in found["all"].values(), found["all"]
    assert found["rights"]["open the agent's port"] in ("EACCES", "EPERM")
    assert found["host"] == []
    assert found["interfaces"] == ["lo"]
    assert host_file.read_text() == "secret"


async def test_the_attacks_work_for_who_has_the_rights(settings: Settings, tmp_path: Path) -> None:
    image = find_image(settings)
    program = tmp_path / "program"
    program.mkdir()
    (program / "__main__.py").write_text(ROOT)
    disk = tmp_path / "disk.squashfs"
    write_squashfs({"program": program}, disk)
    with (
        image.kernel.open("rb") as kernel,
        image.initramfs.open("rb") as initramfs,
        image.root.open("rb") as root,
        disk.open("rb") as package,
        (tmp_path / "console").open("w+b") as console,
    ):
        files = [file.fileno() for file in (kernel, initramfs, root, package)]
        command = program_command_line(
            Accelerator.TCG, *files, program="/swarm/program", tsc_khz=tsc.frequency_khz()
        )
        process = start_process(command, files, console)
        try:
            async with asyncio.timeout(120):
                await asyncio.shield(process.exited)
        finally:
            await process.kill()
    said = (tmp_path / "console").read_text(errors="replace")
    assert "\nRESULT {" in f"\n{said}", said
    results = json.loads(said.partition("RESULT ")[2].partition(" END")[0])
    # There is no port in a machine without its agent.
    without = {"open the agent's port"}
    failed = {name: what for name, what in results.items() if what != "done"}
    assert failed.keys() == without, failed
