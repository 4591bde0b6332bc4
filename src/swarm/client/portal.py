"""A thread with an event loop, in which a client is open as long as the thread lives."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from swarm.client.session import closed
from swarm.kernel.errors import ConflictError

Result = TypeVar("Result")


class Portal:
    """Runs coroutines in the event loop of its thread, for callers in any other."""

    def __init__(self, resource: AbstractAsyncContextManager[object]) -> None:
        """Start the thread and wait until ``resource`` is open in it; raises what opening raises.

        The thread is a daemon: a program that forgets to close it can end.
        """
        self._resource = resource
        self._opened: Future[None] = Future()
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="swarm-client", daemon=True)
        self._thread.start()
        self._opened.result()

    def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run ``work`` there and wait for it.

        An exception that comes to the caller meanwhile, such as KeyboardInterrupt, cancels it.

        Raises:
            UnavailableError: the thread has ended.
            ConflictError: this is the thread itself, or a forked child.
        """
        future = self._submit(work)
        try:
            return future.result()
        finally:
            future.cancel()

    def iterate(self, items: AsyncGenerator[Result, None]) -> Iterator[Result]:
        """The items, waited for one by one; the errors of :meth:`call`."""
        try:
            while True:
                try:
                    item = self.call(_next(items))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            if self._thread.is_alive():
                self.call(items.aclose())

    def close(self) -> None:
        """Close what is open there and end the thread; calls under way are cancelled.

        Raises:
            ConflictError: this is the thread itself, or a forked child.
        """
        self._check_caller()
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _submit(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        try:
            self._check_caller()
            if self._loop is None or self._stopping.is_set() or not self._thread.is_alive():
                raise closed()
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except BaseException:
            work.close()
            raise

    def _check_caller(self) -> None:
        if threading.current_thread() is self._thread:
            raise ConflictError(
                "a synchronous client was called in its own thread, which would wait for itself",
                remedy="do it in another thread",
            )
        if os.getpid() != self._process:
            raise ConflictError(
                "the client was opened before the process was forked",
                remedy="open another one in the child",
            )

    def _work(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - it is raised again, in the caller's thread
            if self._opened.done():
                self._failure = error
            else:
                self._opened.set_exception(error)

    async def _serve(self) -> None:
        async with self._resource:
            self._loop = asyncio.get_running_loop()
            self._opened.set_result(None)
            await self._stopping.wait()


async def _next(items: AsyncGenerator[Result, None]) -> Result:
    return await anext(items)
