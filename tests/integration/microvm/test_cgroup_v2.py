"""Version 2 of control groups, in a guest: machines that test may have version 1 only."""

from __future__ import annotations

import asyncio
import textwrap
from pathlib import Path

import swarm
from swarm.kernel.settings import Settings
from swarm.sandbox.microvm import tsc
from swarm.sandbox.microvm.accelerators import Accelerator
from swarm.sandbox.microvm.image import find_image
from swarm.sandbox.microvm.processes import start_process
from swarm.sandbox.microvm.qemu_command import program_command_line
from swarm.sandbox.microvm.squashfs import write_squashfs

PROGRAM = '''
import ctypes, os, subprocess, sys, traceback, types
from pathlib import Path

libc = ctypes.CDLL(None)
libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, b"")
libc.mount(b"cgroup2", b"/sys/fs/cgroup", b"cgroup2", 0, b"")
sys.path.insert(0, "/swarm/source")

def load_cgroups():
    """The module alone: the guest has none of the libraries that its siblings import."""
    ports = types.ModuleType("swarm.sandbox.ports")
    ports.Limits = object
    sys.modules["swarm.sandbox.ports"] = ports
    scope = {"__name__": "cgroups"}
    sys.modules["cgroups"] = module = types.ModuleType("cgroups")
    exec(compile(Path("/swarm/source/cgroups.py").read_text(), "cgroups.py", "exec"),
         module.__dict__)
    return module

def run_in(group, code):
    join = "".join(f"open({str(path)!r}, 'w').write('0');" for path in group.process_files)
    return subprocess.run([sys.executable, "-I", "-S", "-c", join + code], capture_output=True)

def check(cgroups):
    limits = types.SimpleNamespace(memory_bytes=32 << 20, processes=8)
    root = Path("/sys/fs/cgroup")
    (root / "cgroup.subtree_control").write_text("+memory +pids")
    own = root / "host"
    own.mkdir()
    (own / "cgroup.procs").write_text("0")
    tree = cgroups.find_tree()
    assert tree is not None and tree.layer == "cgroup-v2", tree
    group = tree.create("fits", limits)
    done = run_in(group, "kept = bytearray(8 << 20)")
    assert done.returncode == 0, done.stderr
    assert 8 << 20 < group.peak_memory() <= 32 << 20, group.peak_memory()
    assert group.oom_kills() == 0
    group.remove()
    group = tree.create("eats", limits)
    done = run_in(group, "kept = [bytearray(b'x' * (1 << 20)) for _ in range(64)]")
    assert done.returncode == -9, done
    assert group.oom_kills() > 0
    group.remove()
    group = tree.create("forks", limits)
    done = run_in(group, "import os\\nfor _ in range(9):\\n  if os.fork() == 0: os._exit(0)")
    assert done.returncode == 1 and b"Resource temporarily unavailable" in done.stderr, done
    group.remove()
    tree.close()
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == ["host"]

try:
    check(load_cgroups())
    print("RESULT passed", flush=True)
except BaseException:
    print("RESULT failed", traceback.format_exc(), flush=True)
libc.reboot(0x4321FEDC)
'''


async def test_limits_hold_and_are_counted(settings: Settings, tmp_path: Path) -> None:
    image = find_image(settings)
    program, source = tmp_path / "program", tmp_path / "source"
    program.mkdir()
    source.mkdir()
    (program / "__main__.py").write_text(textwrap.dedent(PROGRAM))
    original = Path(str(swarm.__file__)).parent / "sandbox" / "linux" / "cgroups.py"
    (source / "cgroups.py").write_text(original.read_text())
    disk = tmp_path / "package.squashfs"
    write_squashfs({"program": program, "source": source}, disk)
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
    assert "RESULT passed" in said, said
