"""Looking up names for sandboxes, on threads that nothing else waits for.

Who runs the name servers of a granted domain may never answer. The C library then waits for long,
and cannot be stopped. So a sandbox has few lookups at once, all have a bound together, and none is
on the threads that the host does its own work on, or keeps the host from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import threading
from socket import SOCK_STREAM, getaddrinfo
from typing import Any, Final

from swarm.sandbox.egress.policy import Address

LOOKUPS_OF_A_SANDBOX: Final = 4
"""Names that one sandbox may have looked up at once; more of them wait."""
LOOKUPS_AT_ONCE: Final = 64
"""Threads of this process that may wait for name servers; beyond that, names are not found."""
_threads = threading.BoundedSemaphore(LOOKUPS_AT_ONCE)


class Names:
    """The lookups of one sandbox."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(LOOKUPS_OF_A_SANDBOX)

    async def addresses(self, host: str, port: int) -> list[Address]:
        """The addresses of a host, in the order in which they should be tried.

        Raises:
            OSError: it has none, or too many lookups wait already.
        """
        try:
            return [ipaddress.ip_address(host)]
        except ValueError:
            pass
        await self._places.acquire()
        try:
            found = _look_up(host, port)
        except OSError:
            self._places.release()
            raise
        # The thread goes on when the caller does not, and so does its place.
        found.add_done_callback(lambda _: self._places.release())
        entries = await asyncio.shield(found)
        texts = (str(entry[4][0]).partition("%")[0] for entry in entries)
        return list(dict.fromkeys(map(ipaddress.ip_address, texts)))


def _look_up(host: str, port: int) -> asyncio.Future[list[Any]]:
    threads = _threads
    if not threads.acquire(blocking=False):
        raise OSError(f"{LOOKUPS_AT_ONCE} names are being looked up already")
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[Any]] = loop.create_future()
    # Whoever asked may have gone: an error that nobody hears of is no news.
    found.add_done_callback(lambda future: future.cancelled() or future.exception())
    thread = threading.Thread(
        target=_work, args=(host, port, loop, found, threads), name="swarm-names", daemon=True
    )
    try:
        thread.start()
    except RuntimeError as error:
        threads.release()
        raise OSError(str(error)) from None
    return found


def _work(
    host: str,
    port: int,
    loop: asyncio.AbstractEventLoop,
    found: asyncio.Future[list[Any]],
    threads: threading.BoundedSemaphore,
) -> None:
    entries: list[Any] = []
    failure: OSError | None = None
    try:
        entries = getaddrinfo(host, port, type=SOCK_STREAM)
    except OSError as error:
        failure = error
    except UnicodeError:
        failure = OSError(f"{host!r} is not a host name")
    finally:
        threads.release()
    with contextlib.suppress(RuntimeError):  # The loop has been closed meanwhile: nobody waits.
        loop.call_soon_threadsafe(_settle, found, entries, failure)


def _settle(found: asyncio.Future[list[Any]], entries: list[Any], failure: OSError | None) -> None:
    if failure is None:
        found.set_result(entries)
    else:
        found.set_exception(failure)
