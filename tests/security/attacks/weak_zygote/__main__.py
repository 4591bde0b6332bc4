"""A zygote with layers taken out, inside a throw-away copy of a host.

The product has no setting that weakens it, so this program does: it loads the product's zygote,
replaces the parts that build the layers named in ``configuration["without"]``, and goes on as the
zygote. What an attack reaches then is not this machine but the stage: see ``stage.py``.
"""

import importlib
import json
import os
import socket
import sys
from pathlib import Path

SECRET = "the-hosts-secret"


def main(descriptor: int) -> None:
    control = socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    configuration = json.loads(control.recv(1 << 20, socket.MSG_PEEK))
    if "empty-start" in configuration["without"] and SECRET not in os.environ.values():
        os.set_inheritable(descriptor, True)
        command = [sys.executable, "-I", "-S", str(Path(__file__).parent), str(descriptor)]
        os.execve(sys.executable, command, {"DECOY_OF_THE_HOST": SECRET})
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    stage = importlib.import_module("weak_zygote.stage")
    weakening = importlib.import_module("weak_zygote.weakening")
    stage.enter(configuration["stage"], control)
    sys.path[0] = str(Path(configuration["guest"]) / "linux")
    importlib.import_module("zygote.server")
    weakening.apply(frozenset(configuration["without"]), configuration["stage"])
    del sys.path[0]
    sys.modules["zygote.server"].main(control.detach())


main(int(sys.argv[1]))
os._exit(0)
