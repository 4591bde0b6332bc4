"""From a command's options to open services."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from swarm.bootstrap.records import Records, open_records
from swarm.cli.options import Globals
from swarm.kernel.configuration import load_settings
from swarm.kernel.settings import Settings

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def asynchronous(
    function: Callable[Parameters, Coroutine[Any, Any, Result]],
) -> Callable[Parameters, Result]:
    """A command's coroutine as the plain function that click calls."""

    @wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return asyncio.run(function(*args, **kwargs))

    return call


def read_settings(options: Globals) -> Settings:
    """The settings of the home that the command line names."""
    return load_settings(options.environment())


def reading(options: Globals) -> AbstractAsyncContextManager[Records]:
    """Open the home that the command line names, to look at its records."""
    return open_records(read_settings(options))
