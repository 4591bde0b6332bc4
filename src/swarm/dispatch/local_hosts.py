"""The hosts of one home on one machine: who is alive, and how to reach them.

A host is a process that drives runs. It holds a lock file (see ``dispatch.leases``) and listens on
a Unix socket (see ``dispatch.messages``). A peer stays connected: end of file tells at once that
the host is gone, and a lock that can be taken tells that its sandboxes are gone too.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from swarm.dispatch.connection import HostConnection, HostStream
from swarm.dispatch.leases import (
    SOCKET_SUFFIX,
    LeaseFolder,
    is_host_id,
    wait_until_free,
)
from swarm.dispatch.messages import MAX_MESSAGE_BYTES
from swarm.dispatch.ports import HostInfo
from swarm.dispatch.server import Emit, Handler, Server, is_trusted, peer_uid
from swarm.kernel.errors import RefusedError, SwarmError, UnavailableError

BACKLOG = 128
"""Connections that wait to be accepted."""

__all__ = ["Emit", "Handler", "HostConnection", "HostInfo", "HostLease", "HostStream", "LocalHosts"]


class HostLease:
    """This process as a host; made by :meth:`LocalHosts.join`."""

    def __init__(self, info: HostInfo, descriptor: int, folder: LeaseFolder, server: Server):
        self.info = info
        self.id = info.id
        self.lock_descriptor = descriptor
        """Whoever inherits it keeps the lease alive until it is gone too."""
        self._folder = folder
        self._server = server
        self._left = False

    async def leave(self) -> None:
        """Stop serving and give the lease up; does nothing the second time.

        Should a process that inherited the lock still run, the lock file stays until a sweep.
        """
        if self._left:
            return
        self._left = True
        await self._server.close()
        # Only closed, not unlocked: unlocking would take the lock from those who inherited it.
        os.close(self.lock_descriptor)
        self._folder.sweep()


class LocalHosts:
    """The hosts whose files lie in one folder, ``run/hosts`` of the home."""

    def __init__(self, folder: Path) -> None:
        self._folder = LeaseFolder(folder)

    async def join(self, handler: Handler, role: str) -> HostLease:
        """Make this process a host that serves its peers with ``handler``.

        Args:
            role: what kind of process it is (``run``, ``worker``, ...), for its peers to see.

        Raises:
            UnavailableError: the folder or the socket cannot be made.
        """
        self._folder.create()
        server = Server(handler)
        try:
            host_id, descriptor = self._folder.prepare()
            try:
                info = HostInfo(host_id, role, os.getpid())
                with _short_path(self._folder.file(host_id, SOCKET_SUFFIX)) as address:
                    await server.start(_listen(address))
                self._folder.publish(info, descriptor)
            except BaseException:
                await server.close()
                os.close(descriptor)
                self._folder.sweep()
                raise
        except OSError as error:
            raise UnavailableError(
                f"this process cannot become a host: {error.strerror or error}",
                where=str(self._folder.path),
                remedy="check that you may write the folder and that its disk has space left",
            ) from None
        return HostLease(info, descriptor, self._folder, server)

    def is_alive(self, host_id: str) -> bool:
        """Whether the host, or a process that inherited its lock, still runs."""
        return self._folder.is_alive(host_id)

    async def wait_gone(self, host_id: str) -> None:
        """Return when neither the host nor a process that inherited its lock runs any more.

        Raises:
            RefusedError: it belongs to another user.
        """
        try:
            descriptor = self._folder.open_lock(host_id)
        except PermissionError:
            raise _foreign(host_id) from None
        if descriptor is None:
            return
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()

        def wait() -> None:
            wait_until_free(descriptor)
            with suppress(RuntimeError):  # The loop may be closed by now: nobody waits.
                loop.call_soon_threadsafe(gone.set)

        # A daemon thread: a process that ends must not wait for another host to end.
        threading.Thread(target=wait, name=f"swarm-wait-{host_id}", daemon=True).start()
        await gone.wait()

    def list(self) -> list[HostInfo]:
        """The hosts that are alive, oldest first."""
        return self._folder.list_alive()

    def sweep(self) -> None:
        """Remove the files of dead hosts. Any number of processes may sweep at once."""
        self._folder.sweep()

    async def connect(self, host_id: str) -> HostConnection:
        """Connect to a host of this home.

        Raises:
            UnavailableError: it is gone.
            RefusedError: it belongs to another user.
        """
        if not is_host_id(host_id):
            raise _unreachable(host_id)
        try:
            with _short_path(self._folder.file(host_id, SOCKET_SUFFIX)) as address:
                reader, writer = await asyncio.open_unix_connection(
                    address, limit=MAX_MESSAGE_BYTES
                )
        except PermissionError:
            raise _foreign(host_id) from None
        except OSError:
            raise _unreachable(host_id) from None
        if not is_trusted(peer_uid(writer.get_extra_info("socket"))):
            writer.close()
            raise _foreign(host_id)
        return HostConnection(host_id, reader, writer)


def _listen(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(address)
        Path(address).chmod(0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


@contextmanager
def _short_path(path: Path) -> Iterator[str]:
    """A path to the same file that fits into a socket address (107 bytes, unix(7))."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _unreachable(host_id: str) -> SwarmError:
    return UnavailableError(
        "the host cannot be reached: it has stopped or left",
        where=host_id,
        remedy="another host takes its runs up, or `swarm runs resume` does",
    )


def _foreign(host_id: str) -> SwarmError:
    return RefusedError(
        "the host belongs to another user",
        where=host_id,
        remedy="use the home as the user that owns it, or as root",
    )
