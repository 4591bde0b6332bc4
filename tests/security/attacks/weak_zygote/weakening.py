"""Takes layers out of the product's zygote, one replacement for each."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import sys
import termios
from collections.abc import Callable
from typing import Any

_NEWUSER = 0x10000000
_NAMESPACES = {
    "ipc-namespace": 0x08000000,
    "network-namespace": 0x40000000,
    "uts-namespace": 0x04000000,
    "cgroup-namespace": 0x02000000,
}
_DROPS = {24, 28, 47}  # PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_CAP_AMBIENT
_NANOSLEEP, _PRCTL = 35, 157
_DUMPABLE, _NO_NEW_PRIVILEGES = 4, 38
_READ_ONLY, _NO_SUID, _NO_DEV = 1, 2, 4


class _Altered:
    """A module in which some names mean something else."""

    def __init__(self, original: Any, **changes: Any) -> None:
        self._original = original
        self.__dict__.update(changes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


class _EqualToAll:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


class _KeptEnvironment:
    """``os.environ`` that is not cleared."""

    def clear(self) -> None:
        pass

    def update(self, values: dict[str, str]) -> None:
        os.environ.update(values)


def _nothing(*arguments: object, **named: object) -> None:
    pass


def apply(without: frozenset[str], stage: dict[str, Any]) -> None:
    """Weaken the zygote that is imported as the package ``zygote``.

    Layers of :data:`SHARED` are those of the zygote itself. The others are taken out in the process
    that becomes the sandbox, when it reads its plan, so that one zygote serves many weaknesses.
    """
    parts = {
        name: sys.modules[f"zygote.{name}"]
        for name in (
            *("building", "channel", "confinement", "identities", "init", "process", "server"),
            "template",
        )
    }
    channel = parts["channel"]
    for name in without & SHARED & _CHANGES.keys():
        _CHANGES[name](stage=stage, **parts)
    original, run, jobs = channel.read_plan, parts["process"].run, []

    def run_known(template: Any, job: Any) -> None:
        jobs.append(job)
        run(template, job)

    def read_plan(host: Any) -> dict[str, Any]:
        plan: dict[str, Any] = original(host)
        if "pid-namespace" in without:
            plan["environment"]["PID_OF_INIT"] = str(_pid_of(jobs[-1].init))
        own = frozenset(plan["environment"].pop(VARIABLE, "").split())
        for name in own & _CHANGES.keys() - SHARED:
            _CHANGES[name](stage=stage, plan=plan, without=own | without, **parts)
        _weaken_calls(own | without, parts["building"])
        return plan

    channel.read_plan = read_plan
    parts["process"].run = run_known


def apply_to_entering(without: frozenset[str]) -> None:
    """Weaken how an ordinary user's zygote enters namespaces."""
    if "pid-namespace" in without:
        entering = sys.modules["zygote.entering"]
        original = entering.syscalls

        def unshare(flags: int) -> None:
            original.unshare(flags & ~original.CLONE_NEWPID)

        entering.syscalls = _Altered(original, unshare=unshare)


def _pid_of(pidfd: int) -> int:
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))


def _weaken_calls(without: frozenset[str], building: Any) -> None:
    building.syscalls = _weak_calls(without, building.syscalls)
    if "uts-namespace" in without:
        building.socket = _Altered(building.socket, sethostname=_nothing)


def _weak_calls(without: frozenset[str], original: Any) -> _Altered:
    kept = sum(flag for name, flag in _NAMESPACES.items() if name in without)
    if "user-namespace" in without:
        kept |= _NEWUSER
    options: set[int] = set()
    if "capabilities" in without or without >= {"user-namespace", "user-of-init"}:
        options |= _DROPS
    if "no-new-privileges" in without:
        options.add(_NO_NEW_PRIVILEGES)

    def unshare(flags: int) -> None:
        original.unshare(flags & ~kept)

    def join_namespaces(descriptor: int, kinds: int) -> None:
        if kinds & ~kept:
            original.join_namespaces(descriptor, kinds & ~kept)

    def prctl(option: int, *arguments: Any) -> None:
        if option not in options:
            original.prctl(option, *arguments)

    def drop_bounding_set(last_capability: int) -> None:
        if not options & _DROPS:
            original.drop_bounding_set(last_capability)

    def set_capabilities(mask: int) -> None:
        if mask or "capabilities" not in without:
            original.set_capabilities(mask)

    changes: dict[str, Any] = {
        "unshare": unshare,
        "join_namespaces": join_namespaces,
        "prctl": prctl,
        "drop_bounding_set": drop_bounding_set,
        "set_capabilities": set_capabilities,
    }
    if "read-only" in without:
        changes["MS_RDONLY"] = 0
    return _Altered(original, **changes)


def _seccomp(confinement: Any, **_: Any) -> None:
    confinement.filter_calls = _nothing


def _landlock(confinement: Any, **_: Any) -> None:
    confinement.restrict_files = _nothing


def _resource_limits(confinement: Any, **_: Any) -> None:
    confinement.limit_resources = _nothing


def _hard_limits(confinement: Any, **_: Any) -> None:
    def soft_only(limits: dict[str, int]) -> None:
        for name, value in limits.items():
            kind = getattr(resource, f"RLIMIT_{name}")
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (min(value, hard) if hard >= 0 else value, hard))

    confinement.limit_resources = soft_only


def _user_namespace(building: Any, without: frozenset[str], **_: Any) -> None:
    """It stays the zygote's user (root itself as root, but on the stage), or becomes init's."""
    if "user-of-init" not in without:
        building.os = _Altered(building.os, getuid=_EqualToAll)
    building.template = _Altered(building.template, write_own_mapping=_nothing)


def _pid_namespace(server: Any, init: Any, building: Any, **_: Any) -> None:
    original = server.syscalls
    init._NAMESPACES &= ~original.CLONE_NEWPID
    server.syscalls = _Altered(original, join_namespaces=_nothing)

    def kill(sandbox: Any) -> None:
        """The end of init is not the handler's."""
        sandbox.is_killed = True
        os.kill(sandbox.init.pid, signal.SIGKILL)
        if not sandbox.is_handler_over:
            os.kill(sandbox.handler, signal.SIGKILL)

    server.Zygote._kill = staticmethod(kill)

    def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
        """The stage's own /proc: a new one would need power over its pid namespace."""
        if kind != "proc":
            original.mount(source, target, kind, flags, options)
            return
        descriptor = original.clone_tree("/proc", recursive=True)
        original.attach(descriptor, target)
        os.close(descriptor)

    building.syscalls = _Altered(building.syscalls, mount=mount)


def _read_only(building: Any, template: Any, **_: Any) -> None:
    building._INERT &= ~_READ_ONLY
    template._INERT &= ~_READ_ONLY


def _no_suid(building: Any, template: Any, **_: Any) -> None:
    building._INERT &= ~_NO_SUID
    building._VOLATILE &= ~_NO_SUID
    template._INERT &= ~_NO_SUID


def _no_dev(building: Any, template: Any, **_: Any) -> None:
    building._INERT &= ~_NO_DEV
    building._VOLATILE &= ~_NO_DEV
    template._INERT &= ~_NO_DEV


def _masks(plan: dict[str, Any], **_: Any) -> None:
    plan["masked"] = []


def _undumpable(server: Any, init: Any, **_: Any) -> None:
    original = server.syscalls

    def prctl(option: int, *arguments: Any) -> None:
        if option != _DUMPABLE:
            original.prctl(option, *arguments)

    server.syscalls = _Altered(original, prctl=prctl)
    # The kernel does it too, when init changes its user.
    _insert_call(init, 0, lambda _: init.Call("prctl", _PRCTL, (_DUMPABLE, 1, 0, 0, 0)))


def _prompt_init(init: Any, **_: Any) -> None:
    """Init is kept waiting by the scheduler once it has given up its user and power, no more."""

    def sleep(program: Any) -> Any:
        pause = (ctypes.c_long * 2)(0, 200_000_000)
        return init.Call("nanosleep", _NANOSLEEP, (program._keep(pause), 0))

    _insert_call(init, 1, sleep)


def _insert_call(init: Any, after: int, make: Callable[[Any], Any]) -> None:
    """Have init do one thing more, before or after it gives up its power."""
    original = init.InitProgram._list_calls

    def list_calls(program: Any, *arguments: Any) -> list[Any]:
        calls = original(program, *arguments)
        place = after + [call.name for call in calls].index("capset")
        return [*calls[:place], make(program), *calls[place:]]

    init.InitProgram._list_calls = list_calls


def _user_of_init(identities: Any, **_: Any) -> None:
    identities.Identities.take = lambda self: self.of_inits
    identities.Identities.give_back = _nothing


def _closed_descriptors(process: Any, stage: dict[str, Any], **_: Any) -> None:
    process.syscalls = _Altered(process.syscalls, close_all_but=_nothing)
    os.set_inheritable(os.open(stage["folder"], os.O_RDONLY | os.O_DIRECTORY), True)


def _clean_environment(process: Any, **_: Any) -> None:
    process.os = _Altered(process.os, environ=_KeptEnvironment())


def _reseeding(server: Any, **_: Any) -> None:
    """A fork without what Python does after one."""
    calls = server.syscalls
    server.os = _Altered(server.os, fork=lambda: calls.clone(0))


def _private_folders(building: Any, stage: dict[str, Any], **_: Any) -> None:
    def shared(target: str, limits: object, mode: str, uid: int) -> None:
        folder = f"{stage['folder']}/shared-{target}"
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o1777)
        descriptor = building.syscalls.clone_tree(folder, recursive=True)
        building.syscalls.attach(descriptor, target)
        os.close(descriptor)

    building._mount_volatile = shared


def _no_terminal(process: Any, stage: dict[str, Any], **_: Any) -> None:
    """The handler has a terminal, as it would if it inherited the user's."""
    slave = os.open(stage["terminal"], os.O_RDWR | os.O_NOCTTY)
    os.dup2(slave, 0)
    original = process._arrange_descriptors

    def arrange(job: Any, host: Any) -> Any:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        return original(job, host)

    process._arrange_descriptors = arrange


def _private_root(building: Any, stage: dict[str, Any], **_: Any) -> None:
    """A folder of the host is to be seen in the sandbox, where it is on the host."""
    original = building._mount_volatile

    def mount_and_show(target: str, limits: object, mode: str, uid: int) -> None:
        original(target, limits, mode, uid)
        shown: str = stage["shown"]
        if shown.startswith(f"/{target}/"):
            os.makedirs(shown[1:])
            descriptor = building.syscalls.clone_tree(shown, recursive=True)
            building.syscalls.attach(descriptor, shown[1:])
            os.close(descriptor)

    building._mount_volatile = mount_and_show


_CHANGES: dict[str, Callable[..., None]] = {
    "seccomp": _seccomp,
    "landlock": _landlock,
    "resource-limits": _resource_limits,
    "hard-limits": _hard_limits,
    "user-namespace": _user_namespace,
    "pid-namespace": _pid_namespace,
    "read-only": _read_only,
    "no-suid": _no_suid,
    "no-dev": _no_dev,
    "masks": _masks,
    "undumpable": _undumpable,
    "prompt-init": _prompt_init,
    "user-of-init": _user_of_init,
    "closed-descriptors": _closed_descriptors,
    "clean-environment": _clean_environment,
    "reseeding": _reseeding,
    "private-folders": _private_folders,
    "no-terminal": _no_terminal,
    "private-root": _private_root,
}

SHARED = frozenset(
    {
        "pid-namespace",
        "undumpable",
        "prompt-init",
        "user-of-init",
        "reseeding",
        "read-only",
        "no-suid",
        "no-dev",
        "private-root",
        "chosen-devices",
        "closed-descriptors",
        "empty-start",
        "cgroup",
    }
)
"""Layers that are missing for all sandboxes of a zygote."""
VARIABLE = "WITHOUT_LAYERS"
"""Names the other missing layers, in the environment of a sandbox's plan."""
