"""Containers for tests: crun, a real OCI runtime, over this machine's own /usr.

No image and no registry is needed. The options are those that decide about sandboxes: the seccomp
profile, the covered paths of /proc, the user and its capabilities. What Docker, Podman and the
kubelet do with theirs ends in the same ``config.json``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

USER = 10001
SECONDS = 120

HIDDEN = ("asound", "acpi", "kcore", "keys", "latency_stats", "timer_list", "sched_debug", "scsi")
READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
"""What container engines cover of /proc, unless told otherwise."""
SHOWN = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ssl", "/etc/alternatives")

WITHOUT_CGROUPS = (
    *("unshare", "--mount", "sh", "-c"),
    'mount -t tmpfs none /sys/fs/cgroup && exec "$@"',
    "sh",
)
"""crun refuses machines that have both versions of cgroups mounted, even if it is to use none."""


@dataclass(frozen=True)
class Container:
    """How a container is to be started; as engines do it where nothing else is said."""

    seccomp: dict[str, Any] | None
    covers_proc: bool = True
    user: int = USER
    is_read_only: bool = True

    def run(self, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
        """Run ``python -P -m swarm`` with the arguments ``command`` in it.

        Args:
            folder: an empty one, for the container's root and its home.
        """
        (folder / "rootfs").mkdir(parents=True)
        home = folder / "home"
        home.mkdir()
        os.chown(home, self.user, self.user)
        document = self._config(folder, [sys_python(), "-P", *command])
        (folder / "config.json").write_text(json.dumps(document))
        return subprocess.run(
            [
                *WITHOUT_CGROUPS,
                "crun",
                f"--root={folder}/state",
                "--cgroup-manager=disabled",
                "run",
                f"--bundle={folder}",
                f"swarm-test-{uuid.uuid4().hex}",
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def _config(self, folder: Path, arguments: list[str]) -> dict[str, Any]:
        paths = [path for path in sys.path if path and Path(path).is_dir()]
        binds = {place: place for place in SHOWN if Path(place).exists()}
        binds |= {sys.base_prefix: sys.base_prefix}
        binds |= {path: f"/opt/path/{number}" for number, path in enumerate(paths)}
        linux: dict[str, Any] = {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "network", "ipc", "uts")],
        }
        if self.covers_proc:
            linux["maskedPaths"] = [f"/proc/{name}" for name in HIDDEN]
            linux["readonlyPaths"] = [f"/proc/{name}" for name in READ_ONLY]
        if self.seccomp is not None:
            linux["seccomp"] = self.seccomp
        return {
            "ociVersion": "1.0.2",
            "root": {"path": str(folder / "rootfs"), "readonly": self.is_read_only},
            "process": {
                "user": {"uid": self.user, "gid": self.user},
                "cwd": "/",
                "args": arguments,
                "env": [
                    "PATH=/usr/local/bin:/usr/bin:/bin",
                    "HOME=/home/swarm",
                    "SWARM_HOME=/home/swarm",
                    "PYTHONDONTWRITEBYTECODE=1",
                    # No time is spent on trying out virtual machines.
                    "SWARM_MICROVM_MONITOR=firecracker",
                    "PYTHONPATH=" + ":".join(f"/opt/path/{n}" for n in range(len(paths))),
                ],
                "noNewPrivileges": True,
                "capabilities": {},
            },
            "mounts": [
                _mount("proc", "/proc", "proc"),
                _mount("tmpfs", "/dev", "tmpfs", "nosuid", "mode=755"),
                _mount("tmpfs", "/tmp", "tmpfs", "nosuid", "nodev", "mode=1777"),
                _mount("bind", "/home/swarm", str(folder / "home"), "bind", "rw"),
                *(
                    _mount("bind", place, str(Path(source).resolve()), "bind", "ro")
                    for source, place in binds.items()
                ),
            ],
            "linux": linux,
        }


def sys_python() -> str:
    """The interpreter itself, not that of a virtual environment."""
    return str(Path(sys.executable).resolve())


def is_possible() -> bool:
    """Whether containers can be started here."""
    return os.geteuid() == 0 and shutil.which("crun") is not None


def _mount(kind: str, place: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": place, "type": kind, "source": source, "options": list(options)}
