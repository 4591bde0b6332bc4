"""A zygote with layers taken out, inside a throw-away copy of a host.

The product has no setting that weakens it, so this program does: it loads the product's zygote,
replaces the parts that build the layers named in ``configuration["without"]``, and goes on as the
zygote. What an attack reaches then is not this machine but the stage: see ``stage.py``.

Like the product's, an ordinary user's is executed once more, in namespaces of its own; its last
argument is then the stage's terminal.
"""

import importlib
import json
import os
import socket
import sys
from pathlib import Path

SECRET = "the-hosts-secret"


def main(descriptor: str, user: str | None = None, terminal: str | None = None) -> None:
    control = socket.socket(fileno=int(descriptor))
    control.set_inheritable(True)
    configuration = json.loads(control.recv(1 << 20, socket.MSG_PEEK))
    without = frozenset(configuration["without"])
    command = [sys.executable, "-I", "-S", str(Path(__file__).parent), descriptor]
    command += [user] if user else []
    if "empty-start" in without and SECRET not in os.environ.values():
        os.execve(sys.executable, command, {"DECOY_OF_THE_HOST": SECRET})
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    stage = importlib.import_module("weak_zygote.stage")
    weakening = importlib.import_module("weak_zygote.weakening")
    sys.path[0] = str(Path(configuration["guest"]) / "linux")
    importlib.import_module("zygote.server")
    plan = configuration["stage"]
    if terminal is None:
        stage.enter(plan, control)
        if user:
            weakening.apply_to_entering(without)
            sys.modules["zygote.entering"].enter(user, [*command, plan["terminal"]])
    else:
        plan["terminal"] = terminal
    weakening.apply(without, plan)
    del sys.path[0]
    control.set_inheritable(False)
    sys.modules["zygote.server"].serve(control)


main(*sys.argv[1:])
os._exit(0)
