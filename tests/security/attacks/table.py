"""The attacks as data: what stops each, and how its refusal looks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

Wall: TypeAlias = frozenset[str]
"""Layers that together stop an attack, whatever becomes of the others."""


def _wall(*layers: str) -> Wall:
    return frozenset(layers)


SECCOMP: Final = _wall("seccomp")
LANDLOCK: Final = _wall("landlock")
READ_ONLY: Final = _wall("read-only")
ROOT: Final = _wall("private-root")
DEVICES: Final = _wall("chosen-devices")
MASKS: Final = _wall("masks")
PIDS: Final = _wall("pid-namespace")
NETWORK: Final = _wall("network-namespace")
UTS: Final = _wall("uts-namespace")
POWERLESS: Final = _wall("user-namespace", "capabilities")
"""No power over anything that is not the sandbox's own: another user, in a user namespace that owns
nothing, without capabilities. Either part alone leaves some power."""
OWN_USER: Final = _wall("user-namespace")
NO_CAPABILITIES: Final = _wall("capabilities")
UNDUMPABLE: Final = _wall("undumpable")

DENIED: Final = frozenset({"EPERM", "EACCES"})
NOT_THERE: Final = frozenset({"ENOENT", "ENOTDIR"})
NOT_WRITABLE: Final = frozenset({"EROFS", "EACCES"})
UNREACHABLE: Final = frozenset({"ENETUNREACH", "ECONNREFUSED", "EHOSTUNREACH", "EADDRNOTAVAIL"})
NOTHING: Final = frozenset({"nothing"})
BAD_SYSTEM_CALL: Final = frozenset({"signal-31"})

ONLY_ROOT: Final = "no ordinary user could do this, with or without a sandbox"
ZYGOTE_STOPS_IT: Final = "the user namespace of an ordinary user's zygote stops this too"


@dataclass(frozen=True)
class Attack:
    """One attack.

    ``walls`` are independent: each alone stops it. Its control is a sandbox without any of them.
    """

    name: str
    walls: tuple[Wall, ...]
    refusals: frozenset[str]
    root_only: str | None = None
    """Why an ordinary user's control cannot succeed."""
    absent: dict[str, str] = field(default_factory=dict)
    """Refusals of the control that mean that the kernel lacks the thing, and what that is."""
    adversity: Wall = frozenset()
    """What is no wall, but must not open one: it holds in the control and for each wall alone."""
    live_input: bool = False
    network: bool = False
    limits: dict[str, float] = field(default_factory=dict)
    weak_limits: dict[str, float] = field(default_factory=dict)
    """The limits of the control, where a limit is the wall."""
    targets: dict[str, Any] = field(default_factory=dict)

    @property
    def category(self) -> str:
        return self.name.partition("-")[0]

    @property
    def without(self) -> frozenset[str]:
        """The layers that its control lacks."""
        return self.adversity.union(*self.walls)


_FILES: Final = (
    *(
        Attack(f"files-{name}", (ROOT,), NOT_THERE)
        for name in (
            "host-secret",
            "host-home",
            "host-etc",
            "other-package",
            "dotdot",
            "symlink-to-secret",
            "symlink-in-package",
            "magic-links",
            "sysfs",
        )
    ),
    Attack("files-inherited-directory", (_wall("closed-descriptors"), LANDLOCK), NOT_THERE),
    Attack("files-dotdot-from-input", (ROOT,), NOT_THERE, live_input=True),
    Attack("files-write-root", (READ_ONLY | OWN_USER, LANDLOCK), NOT_WRITABLE),
    Attack("files-write-etc", (READ_ONLY | OWN_USER, LANDLOCK), NOT_WRITABLE),
    Attack("files-write-passwd", (READ_ONLY | OWN_USER, LANDLOCK), NOT_WRITABLE),
    Attack("files-write-usr", (READ_ONLY, LANDLOCK), NOT_WRITABLE),
    Attack("files-write-package", (READ_ONLY, LANDLOCK), NOT_WRITABLE),
    Attack("files-rewrite-package", (READ_ONLY, LANDLOCK), NOT_WRITABLE),
    Attack("files-write-environment", (READ_ONLY, LANDLOCK), NOT_WRITABLE),
    Attack("files-chmod-package", (READ_ONLY,), frozenset({"EROFS"})),
    Attack("files-touch-package", (READ_ONLY,), frozenset({"EROFS"})),
    Attack("files-touch-device", (READ_ONLY,), frozenset({"EROFS"})),
    Attack("files-attribute-on-package", (READ_ONLY,), frozenset({"EROFS"})),
    Attack("files-write-input", (READ_ONLY, LANDLOCK), NOT_WRITABLE, live_input=True),
    Attack("files-rename-input", (READ_ONLY, LANDLOCK), NOT_WRITABLE, live_input=True),
    Attack("files-input-fifo", (LANDLOCK,), frozenset({"EACCES"}), live_input=True),
    Attack("files-input-socket", (SECCOMP,), DENIED, live_input=True),
    Attack("files-input-socket-datagram", (SECCOMP,), DENIED, live_input=True),
    Attack(
        "files-device-of-disk",
        (DEVICES | POWERLESS,),
        NOT_THERE,
        absent={"EPERM": "disks that root may open", "ENOENT": "disks"},
        root_only=ONLY_ROOT,
    ),
)

_INIT_OUT_OF_REACH: Final = (UNDUMPABLE, LANDLOCK, OWN_USER)
_WEAK_INIT: Final = {"adversity": _wall("prompt-init", "user-of-init")}
"""Init closes at once what it has, and as root it is another user; neither must be needed."""
_PROCESS_OUT_OF_REACH: Final = (PIDS, POWERLESS, LANDLOCK)
_SIGNAL_OUT_OF_REACH: Final = (PIDS | OWN_USER, LANDLOCK)
"""As an ordinary user, the sandbox's user is the host's: only the pid namespace parts them."""
_UNSEEN: Final = frozenset({"ESRCH"})
_HIDDEN: Final = DENIED | NOT_THERE

_PROCESSES: Final = (
    Attack("processes-see-host", (PIDS,), _UNSEEN),
    # Landlock does not keep this from a root that may look at performance (CAP_PERFMON).
    Attack("processes-host-environment", (PIDS | LANDLOCK, POWERLESS), _UNSEEN, ZYGOTE_STOPS_IT),
    Attack("processes-host-memory", _PROCESS_OUT_OF_REACH, _UNSEEN, ZYGOTE_STOPS_IT),
    Attack("processes-host-root", _PROCESS_OUT_OF_REACH, _UNSEEN, ZYGOTE_STOPS_IT),
    Attack("processes-signal-host", _SIGNAL_OUT_OF_REACH, _UNSEEN),
    Attack("processes-signal-host-blindly", _SIGNAL_OUT_OF_REACH, _UNSEEN),
    Attack("processes-trace-host", (SECCOMP, *_PROCESS_OUT_OF_REACH), _UNSEEN, ZYGOTE_STOPS_IT),
    Attack(
        "processes-signal-init",
        (PIDS, LANDLOCK),
        frozenset({"unmoved", "EPERM", "ENOENT"}),
        **_WEAK_INIT,
    ),
    Attack("processes-trace-init", (SECCOMP, *_INIT_OUT_OF_REACH), _HIDDEN, **_WEAK_INIT),
    Attack("processes-trace-child", (SECCOMP,), DENIED),
    Attack("processes-init-memory", _INIT_OUT_OF_REACH, _HIDDEN, **_WEAK_INIT),
    Attack("processes-init-descriptors", _INIT_OUT_OF_REACH, _HIDDEN, **_WEAK_INIT),
    Attack("processes-init-environment", _INIT_OUT_OF_REACH, _HIDDEN, **_WEAK_INIT),
    Attack("processes-read-memory", (SECCOMP,), DENIED),
    Attack("processes-write-memory", (SECCOMP,), DENIED),
    Attack("processes-steal-descriptor", (SECCOMP,), DENIED),
    Attack("processes-steal-from-init", (SECCOMP, *_INIT_OUT_OF_REACH), _HIDDEN, **_WEAK_INIT),
    Attack("processes-compare", (SECCOMP,), DENIED),
    Attack("processes-advise-by-pidfd", (SECCOMP,), DENIED),
    Attack("processes-rewrite-interpreter", (READ_ONLY, LANDLOCK), NOT_WRITABLE),
    Attack("processes-replace-own-program", (SECCOMP,), DENIED),
)


def _call(name: str, *walls: Wall, **more: Any) -> Attack:
    return Attack(f"kernel-{name}", (SECCOMP, *walls), frozenset({"EPERM", "ENOSYS"}), **more)


_PRIVILEGED: Final = {"root_only": ONLY_ROOT}
_NO_FAMILY: Final = {"EAFNOSUPPORT": "such sockets", "EPROTONOSUPPORT": "such sockets"}
_NO_CALL: Final = {"ENOSYS": "such a call"}

_KERNEL: Final = (
    *(
        _call(name, absent=_NO_CALL)
        for name in (
            "unshare-user",
            "clone-user",
            "clone3-user",
            "add-key",
            "keyring",
            "request-key",
            "io-uring",
            "userfaultfd",
            "perf",
            "file-handle",
            "seccomp-filter",
            "modify-ldt",
            "readable-implies-executable",
            "no-random-addresses",
            "shared-memory",
            "semaphores",
            "message-queue",
            "fanotify",
            "move-pages",
            "migrate-pages",
            "secret-memory",
            "adjust-clock",
            "list-mounts",
            "socket-filter",
            "tls-in-kernel",
            "sync-file-system",
            "memory-policy",
            "lease",
        )
    ),
    Attack("kernel-odd-ioctl", (SECCOMP,), frozenset({"ENOTTY"})),
    _call("unshare-mounts", NO_CAPABILITIES),
    _call("unshare-network", NO_CAPABILITIES),
    _call("chroot", NO_CAPABILITIES),
    _call("mount-in-own-namespaces", LANDLOCK),
    *(_call(name, POWERLESS) for name in ("new-mount-api", "open-tree", "set-namespace")),
    *(
        _call(name, POWERLESS, LANDLOCK)
        for name in ("mount-root", "unmount", "pivot-root", "remount-writable")
    ),
    # A user namespace may mount a /proc only where it sees one that nothing
    # covers, and that can be written.
    _call("mount-proc", POWERLESS | MASKS | READ_ONLY, LANDLOCK),
    _call("mount-attributes", POWERLESS),
    _call("posix-queue", _wall("resource-limits"), LANDLOCK),
    _call("kernel-log", POWERLESS, **_PRIVILEGED),
    *(
        _call(name, POWERLESS, absent=_NO_CALL, **_PRIVILEGED)
        for name in (
            "bpf-map",
            "open-by-handle",
            "reboot",
            "load-module",
            "load-module-file",
            "swap-on",
            "account",
            "kexec",
            "io-ports",
        )
    ),
    _call("set-host-name", POWERLESS),
    *(
        Attack(
            f"kernel-{name}",
            (READ_ONLY, LANDLOCK, OWN_USER),
            NOT_WRITABLE | NOT_THERE,
            absent={"ENOENT": "this file"},
            **_PRIVILEGED,
        )
        for name in ("sysrq", "core-pattern", "module-path")
    ),
    Attack(
        "kernel-release-agent",
        (ROOT, READ_ONLY, LANDLOCK, OWN_USER),
        NOT_THERE,
        absent={"ENOENT": "control groups of version 1"},
        **_PRIVILEGED,
    ),
    Attack(
        "kernel-own-oom-score",
        (READ_ONLY, LANDLOCK, POWERLESS),
        NOT_WRITABLE,
        absent={"EACCES": "CAP_SYS_RESOURCE for root"},
        **_PRIVILEGED,
    ),
    *(
        Attack(
            f"kernel-{name}",
            (DEVICES | POWERLESS,),
            NOT_THERE,
            absent={
                "ENOENT": "this device",
                "ENODEV": "what is behind this device",
                "EACCES": "this device for everyone",
                "EPERM": "this device for everyone",
            },
        )
        for name in ("fuse", "tun", "vsock-device", "userfaultfd-device", "kmsg", "kvm")
    ),
    Attack("kernel-device-node", (POWERLESS, _wall("no-dev")), DENIED, **_PRIVILEGED),
    *(
        Attack(f"kernel-{name}", (SECCOMP,), frozenset({"EAFNOSUPPORT"}), absent=_NO_FAMILY)
        for name in ("vsock", "netlink", "netlink-filter", "crypto-socket", "odd-families")
    ),
    Attack("kernel-packet", (SECCOMP, POWERLESS), frozenset({"EAFNOSUPPORT"})),
    Attack("kernel-raw-socket", (SECCOMP, POWERLESS), DENIED),
    Attack(
        "kernel-odd-protocols",
        (SECCOMP,),
        frozenset({"EPERM", "EPROTONOSUPPORT"}),
        absent=_NO_FAMILY,
    ),
    Attack(
        "kernel-i386-call",
        (SECCOMP,),
        BAD_SYSTEM_CALL | {"signal-11"},
        absent={**_NO_CALL, "signal-11": "32-bit calls"},
    ),
    Attack("kernel-x32-call", (SECCOMP,), BAD_SYSTEM_CALL, absent=_NO_CALL),
    Attack("kernel-unknown-call", (SECCOMP,), frozenset({"ENOSYS"}), absent=_NO_CALL),
)

_NETWORK: Final = (
    *(
        Attack(f"network-{name}", (NETWORK,), UNREACHABLE)
        for name in (
            "loopback",
            "loopback-v6",
            "loopback-by-zero",
            "metadata",
            "private",
            "public",
            "public-v6",
            "mapped-v6",
            "udp",
            "dns",
            "fast-open",
        )
    ),
    Attack("network-sockets-of-host", (NETWORK,), NOTHING),
    Attack("network-unix-path", (ROOT,), NOT_THERE),
    Attack("network-unix-abstract", (NETWORK, LANDLOCK), DENIED | UNREACHABLE),
    Attack("network-unix-abstract-datagram", (NETWORK, LANDLOCK), DENIED | UNREACHABLE),
)

_PRIVILEGE: Final = (
    Attack(
        "privilege-set-uid-program",
        (_wall("no-suid"), _wall("no-new-privileges", "seccomp", "landlock"), POWERLESS),
        frozenset({"unmoved"}),
        **_PRIVILEGED,
    ),
    Attack("privilege-become-root", (OWN_USER,), frozenset({"EINVAL"}), **_PRIVILEGED),
    Attack("privilege-join-root-group", (POWERLESS,), DENIED, **_PRIVILEGED),
    Attack("privilege-other-user", (POWERLESS,), frozenset({"EINVAL", "EPERM"}), **_PRIVILEGED),
    Attack("privilege-raise-capabilities", (SECCOMP, NO_CAPABILITIES), DENIED),
    Attack("privilege-hold-capabilities", (NO_CAPABILITIES,), NOTHING),
    Attack(
        "privilege-keep-privilege-gain",
        (_wall("no-new-privileges", "seccomp", "landlock"),),
        NOTHING,
    ),
    Attack("privilege-give-away", (POWERLESS,), frozenset({"EINVAL", "EPERM"}), **_PRIVILEGED),
    Attack("privilege-raise-limit", (_wall("hard-limits"),), DENIED),
    Attack("privilege-core-dump", (_wall("resource-limits"),), DENIED),
    Attack("privilege-nice", (POWERLESS,), DENIED, **_PRIVILEGED),
    Attack(
        "privilege-real-time",
        (POWERLESS,),
        DENIED,
        # Where the kernel shares real-time out by cgroup (version 1), a new group has none of it.
        adversity=frozenset({"cgroup"}),
        **_PRIVILEGED,
    ),
    *(
        Attack(
            f"privilege-{name}-by-limit",
            (_wall("resource-limits"),),
            DENIED,
            adversity=frozenset({"cgroup"}),
            absent={"EPERM": "such limits", "EACCES": "such limits"},
        )
        for name in ("real-time", "nice")
    ),
    Attack("privilege-deadline", (POWERLESS,), DENIED, **_PRIVILEGED),
    Attack("privilege-disk-priority", (POWERLESS,), DENIED, **_PRIVILEGED),
    Attack("privilege-lock-memory", (_wall("resource-limits"),), frozenset({"ENOMEM", "EPERM"})),
    Attack(
        "privilege-terminal-input",
        (_wall("no-terminal"), SECCOMP),
        frozenset({"ENOTTY"}),
        absent={"EIO": "TIOCSTI"},
    ),
)

_LEAKS: Final = (
    Attack("leaks-environment", (_wall("clean-environment"),), NOTHING),
    Attack("leaks-first-environment", (_wall("empty-start"),), NOTHING),
    Attack("leaks-descriptors", (_wall("closed-descriptors"),), NOTHING),
    Attack("leaks-host-name", (UTS,), NOTHING),
    Attack("leaks-rename-host", (SECCOMP, POWERLESS), DENIED),
    Attack("leaks-machine-id", (ROOT,), NOT_THERE),
    Attack("leaks-interrupts", (MASKS,), DENIED),
    Attack("leaks-kernel-symbols", (MASKS,), DENIED),
    Attack("leaks-kernel-configuration", (MASKS,), DENIED | NOT_THERE, absent={"ENOENT": "it"}),
    Attack("leaks-partitions", (MASKS,), DENIED),
    Attack("leaks-boot-options", (MASKS,), DENIED),
    Attack("leaks-buses", (MASKS,), NOTHING),
    Attack(
        "leaks-modules",
        (MASKS,),
        DENIED | NOT_THERE,
        absent={"ENOENT": "modules", "nothing": "modules"},
    ),
    Attack("leaks-timers", (MASKS, OWN_USER), DENIED, **_PRIVILEGED),
    Attack(
        "leaks-kernel-memory",
        (MASKS, POWERLESS),
        DENIED | NOT_THERE,
        absent={"ENOENT": "this file"},
        **_PRIVILEGED,
    ),
    Attack("leaks-watch-files", (SECCOMP,), DENIED),
    Attack("leaks-control-group", (_wall("cgroup-namespace"),), NOTHING),
)

_WIRE: Final = (
    Attack(
        "wire-lingering-socket",
        (SECCOMP,),
        DENIED,
        # Not every kernel can do that.
        adversity=_wall("refused-descriptors"),
        network=True,
    ),
)

ATTACKS: Final = (*_FILES, *_PROCESSES, *_KERNEL, *_NETWORK, *_PRIVILEGE, *_LEAKS, *_WIRE)
