"""The hostile agent: does the one attack that it is asked for, and tells what it gained.

An attack is a function of the targets (paths, ports, pids of things that stand for the host's) that
returns what it gained, or raises what stopped it. Only the standard library is used, and no attack
harms what it reaches: to open, to look and to count is proof enough.
"""

import contextlib
import errno
import importlib
import os

from system import Stopped


def handler(inputs):
    module, _, name = inputs["attack"].partition("-")
    attack = getattr(importlib.import_module(module), name.replace("-", "_"))
    try:
        gained = attack(inputs["targets"])
    except Stopped as stop:
        return {"gained": None, "refusal": stop.refusal, "detail": str(stop)}
    except OSError as error:
        code = errno.errorcode.get(error.errno, type(error).__name__)
        return {"gained": None, "refusal": code, "detail": str(error)}
    if not gained:
        return {"gained": None, "refusal": "nothing", "detail": "nothing was found"}
    # What is left of an attack must not keep its answer from being seen.
    with contextlib.suppress(OSError):  # It is not there for commands.
        os.set_inheritable(3, False)
    return {"gained": str(gained)[:300], "refusal": None, "detail": ""}
