"""Whether a process that was made to stand back can be set forward again."""

from __future__ import annotations

import os
import threading


def can_raise_priority() -> bool:
    """Whether this process may lower a niceness: with CAP_SYS_NICE on the host.

    Tried out on a thread made for it: in Linux, each thread has a niceness of its own.
    """
    found = []

    def attempt() -> None:
        before = os.getpriority(os.PRIO_PROCESS, 0)
        try:
            os.setpriority(os.PRIO_PROCESS, 0, before + 1)
            os.setpriority(os.PRIO_PROCESS, 0, before)
        except PermissionError:
            return
        found.append(True)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return bool(found)
