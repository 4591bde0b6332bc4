"""Entry: ``python -I -S <this folder> <control descriptor> [uid:gid]``.

The last argument is for an ordinary user: see :mod:`zygote.entering`.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path


def load() -> Callable[[list[str]], None]:
    """The zygote's ``main``.

    Running a folder puts it first on the path. Its parent is needed instead, for as long as it
    takes to import this program as a package; then nothing of the host's stays importable.
    """
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    main: Callable[[list[str]], None] = importlib.import_module("zygote.server").main
    del sys.path[0]
    return main


load()(sys.argv)
