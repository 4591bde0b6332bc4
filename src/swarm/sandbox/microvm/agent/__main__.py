"""Entry: ``python3 -I -S /swarm/agent``, as process 1 of the guest."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path


def load() -> Callable[[], None]:
    """The agent's ``main``; its parent, which holds ``guest`` too, is put on the path."""
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    main: Callable[[], None] = importlib.import_module("agent.serving").main
    del sys.path[0]
    return main


try:
    load()()
finally:
    # A panic: the machine has no other way to end, and the host sees it end.
    os._exit(1)
