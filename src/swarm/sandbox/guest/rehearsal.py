"""Calls of nobody's in the process that guests are forked from, so that each fork finds them made.

The first times that code runs, CPython writes into what it has of it: counts, versions of types and
dictionaries, caches of attributes. Written before the fork that is shared; after it, each fork
would do the work again and copy each page for it. No package is there yet, and what a rehearsal
leaves for others to see is undone.
"""

from __future__ import annotations

import asyncio
import os
import sys

from . import serving
from .handlers import prepare_logging
from .protocol import Failure

_TIMES = 20
"""CPython 3.11 specializes a function's code after some ten calls."""
_FOLDER = os.path.dirname(__file__)
_ENTRY = "rehearsed.py"
_ENVIRONMENT = {
    "SWARM_PACKAGE": _FOLDER,
    "SWARM_OUTPUTS": _FOLDER,
    "SWARM_MAX_OUTPUT_BYTES": "1000",
}


def rehearse() -> None:
    """Import a package and answer calls, as guests do.

    Raises:
        Failure: the handler that is rehearsed with cannot be loaded.
    """
    environment, path = dict(os.environ), list(sys.path)
    os.environ.update(_ENVIRONMENT)
    prepare_logging()
    for _ in range(_TIMES):
        handler = serving.load(_ENTRY)
        if isinstance(handler, Failure):
            raise handler
        del sys.modules[handler.__module__]
        sys.path[:] = path
        serving.rehearse(is_async=False)
        serving.rehearse(is_async=True)
    os.environ.clear()
    os.environ.update(environment)
    if sys.version_info < (3, 14):
        # So that it makes a loop where there is none, as before. Newer ones never do.
        asyncio.set_event_loop_policy(None)
