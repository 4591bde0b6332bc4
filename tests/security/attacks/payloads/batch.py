"""Many attacks in one sandbox, each by a child: as a command, or for whoever imports this."""

import fcntl
import json
import os
import sys

import main


def run(many, targets):
    """What comes of each attack, by name.

    Args:
        many: pairs of an attack's name and targets of its own.
        targets: those of all.
    """
    return {name: _run_one({"attack": name, "targets": {**targets, **own}}) for name, own in many}


def _run_one(order):
    reader, pipe = os.pipe()
    # Out of the way of who looks for descriptors that were left open.
    writer = fcntl.fcntl(pipe, fcntl.F_DUPFD_CLOEXEC, 1000)
    os.close(pipe)
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            verdict = main.handler(order)
        except BaseException as error:
            verdict = {"gained": None, "refusal": type(error).__name__, "detail": repr(error)}
        os.write(writer, json.dumps(verdict).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    if not text:
        signal = os.WTERMSIG(status)
        return {"gained": None, "refusal": f"signal-{signal}", "detail": f"killed by {signal}"}
    return json.loads(text)


if __name__ == "__main__":
    inputs = json.load(sys.stdin)
    json.dump({"verdicts": run(inputs["many"], inputs["targets"])}, sys.stdout)
