"""How an ordinary user's zygote gets power over what it makes: by namespaces of its own.

In a user namespace, as its root, it may make all others. It is the first process of a pid namespace
too, for after a fork into a sandbox's it returns to its own, which takes power over that. It is
executed again inside, because power over a process that is not dumpable is counted in the user
namespace in which its program was executed: only so may it join the namespaces of its inits.
"""

from __future__ import annotations

import os
import select
import signal
from typing import NoReturn

from . import syscalls, template
from .steps import layer


def enter(user: str, command: list[str]) -> NoReturn:
    """Execute ``command`` in the new namespaces; this process only waits for its end.

    Args:
        user: ``uid:gid``: own ids.

    Raises:
        LayerError: the kernel refuses the namespaces.
    """
    uid, gid = map(int, user.split(":"))
    with layer("user-namespace"):
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        template.write_own_mapping("/proc/self", 0, uid, gid)
    alive, ours = os.pipe()
    with layer("pid-namespace"):
        syscalls.unshare(syscalls.CLONE_NEWPID)
        child = os.fork()
    if child:
        syscalls.close_all_but([2, ours])
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0x7F)
    os.close(ours)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if select.select([alive], [], [], 0)[0]:
        os._exit(1)  # Its parent died before it could be told.
    os.execv(command[0], command)
