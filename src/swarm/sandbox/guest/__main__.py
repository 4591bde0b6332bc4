"""Entry: ``python -I <this folder>``, for a guest that is executed rather than forked."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path


def load() -> Callable[[], None]:
    """The guest's ``main``.

    Running a folder puts it first on the path. Its parent is needed instead, and only now.
    """
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    main: Callable[[], None] = importlib.import_module("guest.serving").main
    del sys.path[0]
    return main


load()()
os._exit(0)
