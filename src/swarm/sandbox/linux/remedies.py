"""What to do when the kernel refuses a layer."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from swarm.kernel.errors import SandboxUnavailable

_CONTAINER = (
    "inside a container, start it with `--security-opt seccomp=deploy/seccomp.json --security-opt "
    "apparmor=unconfined --security-opt systempaths=unconfined` (the profile is Swarm's; "
    "`seccomp=unconfined` does too), a pod with what the Helm chart in deploy/ sets"
)
_TOO_OLD = "Linux 5.12 or newer is needed"
_FILES = {
    "idmapped-mount": "make it readable by others (`chmod -R o+rX`), or run Swarm as its owner",
    "package": "check that its folder is still there and readable, or register the agent again",
    "inputs": "check that the input is still there and that you may read it",
}
_NAMESPACES = frozenset({"pid-namespace", "mount-namespace", "namespaces"})
_NONE = "or pass `--isolation none` for code that you trust"


def unavailable(layer: str, code: int, detail: str) -> SandboxUnavailable:
    """The error for a layer that could not be built.

    Args:
        layer: as the zygote names it, such as ``user-namespace``.
        code: the errno, or 0.
        detail: what the kernel said.
    """
    return SandboxUnavailable(
        f"the sandbox cannot be built: {detail}",
        where=layer,
        remedy=remedy(layer, code),
    )


def remedy(layer: str, code: int, read: Callable[[str], str | None] | None = None) -> str:
    """What the operator can do about a refusal of ``layer`` with errno ``code``.

    Args:
        layer: as the zygote names it.
        code: the errno, or 0.
        read: reads a value below ``/proc/sys``, None where there is no such file.
    """
    read = read or _sysctl
    if layer == "user-namespace":
        return f"{_user_namespace_remedy(code, read)}, {_NONE}"
    if code == errno.ENOSYS:
        return f"{_TOO_OLD}, {_NONE}"
    if code == errno.ENOSPC and layer in _NAMESPACES:
        # clone(2): the limit on the number of namespaces is told as "No space left on device".
        return f"no more namespaces may be made here: {_raise_limits(read)}, {_NONE}"
    if layer in _FILES:
        return _FILES[layer]
    specific = {
        "mount-namespace": _CONTAINER,
        "namespaces": _CONTAINER,
        "pid-namespace": _CONTAINER,
        "proc": f"/proc is partly covered, as in most containers: {_CONTAINER}",
        "root": f"make what is named readable by everyone; {_CONTAINER}",
        "pivot-root": "the root file system must not be an initramfs: switch_root to another",
        "network": _CONTAINER,
        "cgroup": "check that the cgroup of this process may be written, or set "
        "SWARM_REQUIRE_CGROUP=false",
        "seccomp": "the kernel needs CONFIG_SECCOMP_FILTER",
        "landlock": "report this kernel's version",
    }
    return f"{specific.get(layer, 'run `swarm doctor`')}, {_NONE}"


def _raise_limits(read: Callable[[str], str | None]) -> str:
    """The command that raises the limits on namespaces that stand at zero, or else all of them."""
    names = [f"user/max_{kind}_namespaces" for kind in ("user", "pid", "mnt", "net", "ipc", "uts")]
    closed = [name for name in names if read(name) == "0"] or names
    return "`sudo sysctl " + " ".join(f"{name.replace('/', '.')}=15000" for name in closed) + "`"


def _user_namespace_remedy(code: int, read: Callable[[str], str | None]) -> str:
    if read("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor restricts user namespaces: "
            "`sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
        )
    if read("kernel/unprivileged_userns_clone") == "0":
        return "`sudo sysctl kernel.unprivileged_userns_clone=1`"
    if code in (errno.ENOSPC, errno.EUSERS) or read("user/max_user_namespaces") == "0":
        return "`sudo sysctl user.max_user_namespaces=15000`"
    return _CONTAINER


def _sysctl(name: str) -> str | None:
    try:
        return (Path("/proc/sys") / name).read_text().strip()
    except OSError:
        return None
