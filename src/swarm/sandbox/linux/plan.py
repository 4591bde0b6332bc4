"""What the zygote and a sandbox are told: pure descriptions, made on the host."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm.kernel.json import JsonObject
from swarm.sandbox.guests import GUEST, NODE_GUEST, guest_variables, node_options
from swarm.sandbox.interpreters import Interpreter
from swarm.sandbox.linux import seccomp
from swarm.sandbox.linux.uid_range import BLOCK, UidRange
from swarm.sandbox.ports import SandboxRequest
from swarm.sandbox.programs import SYSTEM_PATH

INSIDE_ID: Final = 1000
"""The handler's uid and gid as it sees them."""
PROXY_PORT: Final = 3128
_WIRE_DESCRIPTOR: Final = 3
_NODE_GUEST: Final = f"/guest/{NODE_GUEST}"
_OWN_NODE: Final = "/runtime/node"
"""Where a Node is shown that is not the system's. Not at its own path, which may lie below ``/tmp``
or another folder that a sandbox has its own of. (Python stays where it is: its zygote knows paths.)
"""

_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
_MERGED: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_CERTIFICATES: Final = (
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/ca-certificates/extracted",
)
_MASKED: Final = (
    "acpi",
    "asound",
    "bus",
    "cmdline",
    "config.gz",
    "driver",
    "fs",
    "interrupts",
    "irq",
    "kallsyms",
    "kcore",
    "keys",
    "key-users",
    "kmsg",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "latency_stats",
    "modules",
    "partitions",
    "sched_debug",
    "scsi",
    "slabinfo",
    "sysrq-trigger",
    "timer_list",
    "timer_stats",
    "vmallocinfo",
)
PRELOAD: Final = (
    "asyncio",
    "base64",
    "collections.abc",
    "concurrent.futures",
    "contextlib",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "functools",
    "hashlib",
    "html",
    "http.client",
    "itertools",
    "math",
    "operator",
    "pathlib",
    "random",
    "re",
    "shutil",
    "statistics",
    "string",
    "subprocess",
    "tempfile",
    "textwrap",
    "time",
    "typing",
    "urllib.parse",
    "urllib.request",
    "uuid",
    "xml.etree.ElementTree",
)
_PASSWD: Final = (
    "root:x:0:0:root:/:/usr/sbin/nologin\n"
    f"agent:x:{INSIDE_ID}:{INSIDE_ID}:agent:/tmp:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
)
_GROUP: Final = f"root:x:0:\nagent:x:{INSIDE_ID}:\nnogroup:x:65534:\n"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the plans depend on."""

    python: Interpreter
    node: Interpreter | None
    uids: UidRange | None
    """None where sandboxes are made as an ordinary user makes them."""
    masked: tuple[str, ...]
    has_cgroup: bool
    counts_processes: bool
    """Whether RLIMIT_NPROC counts within a user namespace (Linux 5.14)."""
    raises_priority: bool = False
    """Whether a priority can be raised after it was lowered."""


def masked_files() -> tuple[str, ...]:
    """Files of ``/proc`` that this kernel has and a sandbox must not show; folders end in ``/``."""
    found = [name for name in _MASKED if os.path.lexists(f"/proc/{name}")]
    return tuple(f"{name}/" if Path("/proc", name).is_dir() else name for name in found)


def ordinary_user(facts: HostFacts) -> str | None:
    """Whom a zygote that is not root enters namespaces for; see ``zygote/entering.py``."""
    return None if facts.uids else f"{os.geteuid()}:{os.getegid()}"


def configuration(
    facts: HostFacts,
    staging: Path,
    locks: Sequence[int],
    cgroup_files: Sequence[str] = (),
    *,
    landlock: bool = True,
) -> JsonObject:
    """The message that makes a zygote ready; see ``zygote/template.py``.

    Args:
        facts: about this machine.
        staging: an empty folder on which the template is mounted, in a namespace of its own.
        locks: descriptors that the zygote inherits and keeps.
        cgroup_files: files by which the zygote, and so every sandbox, joins a cgroup.
        landlock: whether to use it where the kernel has it.
    """
    uids = facts.uids and {"first": facts.uids.first, "blocks": facts.uids.blocks, "size": BLOCK}
    counted = facts.has_cgroup
    filters = {
        "handler": seccomp.handler_filter(unix_sockets=True, memory_files=counted),
        "handler-live": seccomp.handler_filter(unix_sockets=False, memory_files=counted),
        "init": seccomp.init_filter(),
    }
    return {
        "staging": str(staging),
        "uids": uids,
        "cgroup": list(cgroup_files),
        "inside": INSIDE_ID,
        "locks": list(locks),
        "landlock": landlock,
        "directories": [
            *("/dev", "/etc", "/guest", "/inputs", "/outputs", "/package", "/environment"),
            *("/proc", "/tmp", "/var"),
        ],
        "links": _links(),
        "files": _made_up_files(),
        "copies": _copies(),
        "binds": _binds(facts),
        "devices": [f"/dev/{name}" for name in _DEVICES],
        "filters": {name: base64.b64encode(data).decode() for name, data in filters.items()},
        "guest": str(GUEST.parent),
        "preload": list(PRELOAD),
    }


def _links() -> list[list[str]]:
    links = [
        ["/dev/fd", "/proc/self/fd"],
        ["/dev/stdin", "/proc/self/fd/0"],
        ["/dev/stdout", "/proc/self/fd/1"],
        ["/dev/stderr", "/proc/self/fd/2"],
        ["/dev/shm", "/tmp"],
        ["/etc/mtab", "/proc/self/mounts"],
        ["/var/tmp", "/tmp"],
        # Node looks for modules in every folder above the importing one.
        ["/node_modules", "/environment/node_modules"],
    ]
    for name in _MERGED:
        folder = Path("/", name)
        if folder.is_symlink():
            links.append([str(folder), str(folder.readlink())])
    return links


def _made_up_files() -> dict[str, str]:
    return {
        "/etc/passwd": _PASSWD,
        "/etc/group": _GROUP,
        "/etc/hosts": "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n",
        "/etc/hostname": "sandbox\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "/etc/resolv.conf": "",
        # Inputs keep their owners, who are strangers inside; git would refuse to read them.
        "/etc/gitconfig": "[safe]\n\tdirectory = *\n",
    }


def _copies() -> list[list[str]]:
    copies = [[str(GUEST / NODE_GUEST), _NODE_GUEST]]
    for path in ("/etc/ld.so.cache", "/etc/localtime", "/etc/ssl/openssl.cnf"):
        if Path(path).is_file():
            copies.append([path, path])
    return copies


def _binds(facts: HostFacts) -> list[list[str]]:
    binds = [["/usr", "/usr"]]
    for name in _MERGED:
        folder = Path("/", name)
        if folder.is_dir() and not folder.is_symlink():
            binds.append([str(folder), str(folder)])
    for path in (*_CERTIFICATES, "/etc/alternatives"):
        if Path(path).is_dir():
            binds.append([os.path.realpath(path), path])
    if facts.python.prefix is not None:
        binds.append([str(facts.python.prefix), str(facts.python.prefix)])
    if facts.node is not None and facts.node.prefix is not None:
        binds.append([str(facts.node.prefix), _OWN_NODE])
    return binds


def _node_inside(node: Interpreter) -> str:
    """The path of Node in a sandbox."""
    return str(node.program) if node.prefix is None else _OWN_NODE


def sandbox_plan(
    request: SandboxRequest, facts: HostFacts, cgroup_files: Sequence[str], niceness: int = 0
) -> JsonObject:
    """What one sandbox is told; see ``zygote/building.py``.

    Args:
        request: what is to run in it.
        facts: about this machine.
        cgroup_files: files by which it joins its cgroup.
        niceness: by how much it stands back until it is called.
    """
    limits, program = request.limits, request.program
    environment_root = program.environment
    return {
        "package": str(program.package),
        "environment_root": None if environment_root is None else str(environment_root),
        "inputs": [[mount.name, str(mount.source)] for mount in request.inputs],
        "work": {"bytes": limits.work_bytes, "files": limits.work_files},
        "outputs": {"bytes": limits.output_files_bytes, "files": limits.output_files + 16},
        "masked": list(facts.masked),
        "cgroup": list(cgroup_files),
        "niceness": niceness,
        "proxy_port": PROXY_PORT if request.network else 0,
        "resource_limits": resource_limits(request, facts),
        "filter": "handler-live" if request.inputs else "handler",
        "program": _program(request, facts),
        "environment": environment(request, facts),
    }


def owners(request: SandboxRequest, facts: HostFacts) -> list[str]:
    """``uid:gid`` of what is mounted, for ID-mapped mounts, which only root can make.

    Raises:
        OSError: one of them is not there.
    """
    program = request.program
    paths = [program.package, *(mount.source for mount in request.inputs)]
    if program.environment is not None:
        paths.append(program.environment)
    found = {f"{status.st_uid}:{status.st_gid}" for status in (path.stat() for path in paths)}
    return sorted(found) if facts.uids else []


def resource_limits(request: SandboxRequest, facts: HostFacts) -> dict[str, int]:
    """``RLIMIT_*`` of the handler. Never RLIMIT_AS, which breaks V8."""
    limits = request.limits
    bounds = {
        "CORE": 0,
        "NOFILE": 4096,
        "FSIZE": max(limits.work_bytes, limits.output_files_bytes),
        "MEMLOCK": 64 * 1024,
        "MSGQUEUE": 0,
        # What the host's user may have been given for sound or games.
        "RTPRIO": 0,
        "NICE": 0,
        # Signals and timers that wait are counted for the host's user too.
        "SIGPENDING": 4096,
        "CPU": int(limits.timeout_seconds * (os.cpu_count() or 1)) + 10,
    }
    if facts.counts_processes:
        bounds["NPROC"] = limits.processes
    if not facts.has_cgroup and request.program.runtime != "node":
        bounds["DATA"] = limits.memory_bytes
    return bounds


def environment(request: SandboxRequest, facts: HostFacts) -> dict[str, str]:
    """The handler's environment: the package's own variables, then ours, which win."""
    program = request.program
    # A command may call `python3` or `node`. Where the host has them outside /usr only, those that
    # are shown anyway are found, after whatever the system has.
    elsewhere = []
    if facts.python.prefix is not None:
        elsewhere.append(str(facts.python.program.parent))
    if facts.node is not None and facts.node.prefix is not None:
        elsewhere.append(str(Path(_OWN_NODE).parent))
    values = {
        **request.environment,
        "PATH": ":".join([SYSTEM_PATH, *elsewhere]),
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "USER": "agent",
        "LANG": "C.UTF-8",
        **guest_variables(request, _WIRE_DESCRIPTOR),
        "SWARM_PACKAGE": "/package",
        "SWARM_OUTPUTS": "/outputs",
    }
    if zone := os.environ.get("TZ"):
        values["TZ"] = zone
    if program.environment is not None:
        values["SWARM_ENVIRONMENT"] = "/environment"
        values["PATH"] = f"/environment/bin:{values['PATH']}"
        if program.runtime == "node":
            values["NODE_PATH"] = "/environment/node_modules"
    if request.network:
        values |= proxy_variables(f"http://127.0.0.1:{PROXY_PORT}")
    return values


def proxy_variables(url: str) -> Mapping[str, str]:
    """The variables by which programs find a proxy, in both spellings."""
    values = {"HTTP_PROXY": url, "HTTPS_PROXY": url, "ALL_PROXY": url, "NO_PROXY": ""}
    lower = {name.lower(): value for name, value in values.items()}
    return {**values, **lower, "NODE_USE_ENV_PROXY": "1"}


def _program(request: SandboxRequest, facts: HostFacts) -> list[str] | None:
    """The program to execute, or None to go on as a fork of the zygote."""
    if request.program.runtime != "node":
        return None
    assert facts.node is not None
    return [_node_inside(facts.node), *node_options(request.limits), _NODE_GUEST]
