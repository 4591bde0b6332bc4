"""Entry: ``python3 -I -S /swarm/agent``, as process 1 of the guest."""

import ctypes
import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

POWER_OFF = 0x4321FEDC


def load() -> Callable[[], None]:
    """The agent's ``main``; its parent, which holds ``guest`` too, is put on the path."""
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    main: Callable[[], None] = importlib.import_module("agent.serving").main
    del sys.path[0]
    return main


try:
    load()()
except BaseException:  # noqa: BLE001  said on the console, before the machine ends
    traceback.print_exc()
    sys.stderr.flush()
finally:
    ctypes.CDLL(None).reboot(POWER_OFF)
