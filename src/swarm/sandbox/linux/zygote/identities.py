"""The users that sandboxes run as when the zygote is root, and how files are shown to them.

Each sandbox has a uid of its own. A zygote holds one block of the range that the host chose; an
abstract socket named after the block keeps other zygotes off it.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import socket

from . import syscalls, template

_TRIES = 1000


class Identities:
    """Hands out uids; a uid is used again only after its sandbox is gone.

    Args:
        first: the lowest uid of the range.
        blocks: how many blocks it has.
        size: uids in a block.
    """

    def __init__(self, first: int, blocks: int, size: int) -> None:
        self._claim, block = _claim_block(blocks)
        lowest = first + block * size
        self.of_inits = lowest
        """The user of all inits: none of the sandboxes' own."""
        self._free = list(range(lowest + size - 1, lowest, -1))
        self._maps: dict[tuple[int, str], int] = {}

    def take(self) -> int:
        if not self._free:
            raise OSError(errno.EAGAIN, "too many sandboxes at once")
        return self._free.pop()

    def give_back(self, uid: int) -> None:
        self._free.append(uid)

    def map_of(self, uid: int, owner: str) -> int:
        """A user namespace that shows files of ``owner`` (``uid:gid``) as ``uid``'s own.

        It has no process in it; it is kept for the next sandbox with the same uid.
        """
        key = (uid, owner)
        if key not in self._maps:
            owner_uid, owner_gid = owner.split(":")
            self._maps[key] = _make_map(f"{owner_uid} {uid} 1", f"{owner_gid} {uid} 1")
        return self._maps[key]


def _claim_block(blocks: int) -> tuple[socket.socket, int]:
    order = random.SystemRandom()
    for block in order.sample(range(blocks), min(blocks, _TRIES)):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0swarm-uid-block-{block}")
        except OSError:
            claim.close()
        else:
            return claim, block
    raise OSError(errno.EAGAIN, "all uids for sandboxes are taken by other processes")


def _make_map(uid_map: str, gid_map: str) -> int:
    zygote = os.getpid()
    child = syscalls.clone(syscalls.CLONE_NEWUSER)
    if child == 0:
        # It holds all that the zygote does: left over, it would hide from the host that it died.
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        while os.getppid() == zygote:
            signal.pause()
        os._exit(0)
    try:
        template.write_text(f"/proc/{child}/uid_map", uid_map)
        template.write_text(f"/proc/{child}/gid_map", gid_map)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
