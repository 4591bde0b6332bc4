"""Write the seccomp profile in deploy/ anew: which system calls a worker's container may make.

usage: python scripts/generate_deployment.py

The list is the one that sandboxes have, from the code, since a container's filter holds for them
too, and what a worker needs beside: making the sandboxes, and its own files, sockets and children.
Everything else is refused. Source of the format: ``config-linux.md#seccomp`` of the OCI runtime
specification, as Docker, Podman, containerd and CRI-O read it.
"""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

from swarm.sandbox.linux import calls

DEPLOY = Path(__file__).parent.parent / "deploy"
PROFILE = DEPLOY / "seccomp.json"
IN_THE_CHART = DEPLOY / "helm" / "swarm" / "files" / "seccomp.json"
"""A chart reads only files of its own."""

TO_MAKE_SANDBOXES = (
    "capget",
    "capset",
    "landlock_add_rule",
    "landlock_create_ruleset",
    "landlock_restrict_self",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pivot_root",
    "seccomp",
    "setgroups",
    "sethostname",
    "setns",
    "setresgid",
    "setresuid",
    "umount2",
    "unshare",
)
"""What a container engine's own profile refuses, or ties to CAP_SYS_ADMIN, and a sandbox is made
of. They give power over the caller's own user namespace only."""

TO_RUN_A_WORKER = (
    "execve",
    "execveat",
    "inotify_add_watch",
    "inotify_init1",
    "inotify_rm_watch",
    "mlock",
    "munlock",
    "pidfd_open",
    "pidfd_send_signal",
    "setfsgid",
    "setfsuid",
    "setgid",
    "setpriority",
    "setregid",
    "setreuid",
    "setuid",
    "sync",
    "syncfs",
)
"""The worker itself, its installers, and the engine's own start of the container."""


def profile() -> dict[str, object]:
    """The profile as Docker and the OCI runtimes read it."""
    allowed = {*calls.ALLOWED, *calls.CONDITIONAL, *TO_MAKE_SANDBOXES, *TO_RUN_A_WORKER}
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": sorted(allowed - {"clone3"}), "action": "SCMP_ACT_ALLOW"},
            {
                # Its flags cannot be looked at. Without it, libc falls back to clone.
                "names": ["clone3"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": errno.ENOSYS,
            },
        ],
    }


def main() -> int:
    for path in (PROFILE, IN_THE_CHART):
        path.write_text(json.dumps(profile(), indent=2) + "\n")
        print(f"wrote {path.relative_to(DEPLOY.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
