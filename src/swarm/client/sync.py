"""The synchronous face: the same client, on an event loop of its own in a thread of its own.

Nothing is written twice. A method here is the asynchronous one of the same name, called through
:class:`Portal`; the functions that make it keep its signature for type checkers and editors.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from functools import wraps
from os import PathLike
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from swarm.client.client import Client
from swarm.client.handle import RunHandle
from swarm.client.portal import Portal
from swarm.client.session import Drive, closed
from swarm.kernel.errors import ConflictError
from swarm.kernel.settings import Settings

Core = TypeVar("Core")
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


class Face(Generic[Core]):
    """Something asynchronous, and the thread in which it lives."""

    def __init__(self, core: Core, portal: Portal | None) -> None:
        self._core = core
        self._portal = portal

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._core!r}>"

    @property
    def _running(self) -> Portal:
        if self._portal is None:
            raise closed()
        return self._portal


def blocking(
    method: Callable[Concatenate[Core, Parameters], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[Face[Core], Parameters], Result]:
    """The method of the core, waited for."""

    @wraps(method)
    def call(self: Face[Core], /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return self._running.call(method(self._core, *args, **kwargs))

    return call


def iterating(
    method: Callable[Concatenate[Core, Parameters], AsyncGenerator[Result, None]],
) -> Callable[Concatenate[Face[Core], Parameters], Iterator[Result]]:
    """The method of the core, its items waited for one by one."""

    @wraps(method)
    def call(
        self: Face[Core], /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Iterator[Result]:
        return self._running.iterate(method(self._core, *args, **kwargs))

    return _returning(call, method, "Iterator")


def handling(
    method: Callable[Concatenate[Core, Parameters], Coroutine[Any, Any, RunHandle]],
) -> Callable[Concatenate[Face[Core], Parameters], SyncRunHandle]:
    """The method of the core, waited for, and the run that it gives."""

    @wraps(method)
    def call(
        self: Face[Core], /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> SyncRunHandle:
        portal = self._running
        return SyncRunHandle(portal.call(method(self._core, *args, **kwargs)), portal)

    return _returning(call, method, "SyncRunHandle")


Made = TypeVar("Made", bound=Callable[..., object])


def _returning(made: Made, method: Callable[..., object], returned: str) -> Made:
    """``made``, with the signature of the method in ``help``, but for what it returns."""
    signature = inspect.signature(method)
    if returned == "Iterator":
        item = str(signature.return_annotation).removeprefix("AsyncGenerator[").split(",")[0]
        returned = f"Iterator[{item}]"
    made.__dict__["__signature__"] = signature.replace(return_annotation=returned)
    return made


class SyncRunHandle(Face[RunHandle]):
    """A run, for programs without an event loop; see :class:`RunHandle`."""

    @property
    def id(self) -> str:
        """The run's id."""
        return self._core.id

    status = blocking(RunHandle.status)
    record = blocking(RunHandle.record)
    steps = blocking(RunHandle.steps)
    logs = blocking(RunHandle.logs)
    events = iterating(RunHandle.events)
    wait = blocking(RunHandle.wait)
    result = blocking(RunHandle.result)
    cancel = blocking(RunHandle.cancel)
    approve = blocking(RunHandle.approve)
    reject = blocking(RunHandle.reject)
    resume = handling(RunHandle.resume)
    retry = handling(RunHandle.retry)
    fork = handling(RunHandle.fork)


class SyncClient(Face[Client]):
    """An open home of Swarm, for programs without an event loop.

    ::

        with swarm.SyncClient() as client:
            outputs = client.run("echo-chain", {"message": "Hello"})

    It has every method of :class:`Client`, which returns when the other can be awaited. It may be
    called from any thread, also from one with a running event loop, such as a notebook's (which it
    holds up meanwhile). Ctrl-C ends the call, not the run. It does not survive ``os.fork``: open
    another one in the child.

    A client that is never closed leaves what it drives as a process does that was killed: to be
    resumed.
    """

    def __init__(
        self,
        home: str | PathLike[str] | None = None,
        *,
        settings: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
        drive: Drive = "here",
    ) -> None:
        """The arguments and errors are those of :class:`Client`."""
        core = Client(home, settings=settings, environment=environment, drive=drive)
        super().__init__(core, None)

    def open(self) -> SyncClient:
        """Open the home, made if it is not there, and return the client itself.

        Raises:
            UnavailableError: the home or its database cannot be used.
            ConflictError: the client is open already.
        """
        if self._portal is not None:
            raise ConflictError("the client is open already", remedy="make another one")
        self._portal = Portal(self._core)
        return self

    def close(self) -> None:
        """Stop driving runs, destroy every sandbox, close the home and end the thread."""
        portal, self._portal = self._portal, None
        if portal is not None:
            portal.close()

    def __enter__(self) -> SyncClient:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._core.settings

    register_agent = blocking(Client.register_agent)
    register_workflow = blocking(Client.register_workflow)
    agents = blocking(Client.agents)
    workflows = blocking(Client.workflows)
    agent = blocking(Client.agent)
    workflow = blocking(Client.workflow)
    invoke = blocking(Client.invoke)
    run = blocking(Client.run)
    start = handling(Client.start)
    get_run = handling(Client.get_run)
    runs = iterating(Client.runs)
    waiting = blocking(Client.waiting)
    send_event = blocking(Client.send_event)

    def resume_interrupted(self) -> list[SyncRunHandle]:
        """See :meth:`Client.resume_interrupted`."""
        portal = self._running
        taken = portal.call(self._core.resume_interrupted())
        return [SyncRunHandle(handle, portal) for handle in taken]
