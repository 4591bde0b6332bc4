"""The agents that the drawn steps call, and the recorder that they tell what they do.

``inside`` runs in the host's own process where runs are not isolated, ``outside`` in one of its
own (it has two modules); in a sandbox both are alike.
"""

from __future__ import annotations

from pathlib import Path

AGENTS = ("inside", "outside")

MANIFEST = """\
name: {name}
version: 1.0.0
runtime: {{type: python, entry: main.py, timeout_seconds: 60}}
inputs:
  - {{name: salt, type: integer}}
  - {{name: number, type: integer}}
  - {{name: ledger, type: string, default: ""}}
  - {{name: spends, type: integer, default: 0}}
  - {{name: pause_ms, type: integer, default: 0}}
  - {{name: failures, type: integer, default: 0}}
  - {{name: is_broken, type: boolean, default: false}}
  - {{name: gives_file, type: boolean, default: false}}
  - {{name: values, type: array, default: []}}
  - {{name: errors, type: array, default: []}}
  - {{name: document, type: file, required: false}}
outputs:
  - {{name: value, type: integer}}
  - {{name: document, type: file, required: false}}
"""

HANDLER = '''\
import json
import socket
import time
import zlib
{imports}

def tell(inputs, context, word):
    """A side effect: a line in a ledger outside, acknowledged before this returns."""
    line = f"ledger {word} {context.idempotency_key} {context.attempt} {inputs['number']}"
    if not inputs["ledger"]:
        context.log.info(line)
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ledger:
        ledger.connect(inputs["ledger"])
        ledger.send(line.encode())
        ledger.recv(16)


def handler(inputs, context):
    tell(inputs, context, "begin")
    if inputs["spends"]:
        context.usage(tokens=inputs["spends"])
    time.sleep(inputs["pause_ms"] / 1000)
    if inputs["is_broken"] or context.attempt <= inputs["failures"]:
        raise ValueError(f"told to fail in attempt {context.attempt}")
    text = read(inputs)
    told = [inputs["salt"], inputs["number"], inputs["values"], inputs["errors"], text]
    value = zlib.crc32(json.dumps(told, separators=(",", ":")).encode())
    outputs = {"value": value, **write(inputs, context, value)}
    tell(inputs, context, "end")
    return outputs
'''

FILES = """

def read(inputs):
    if inputs.get("document") is None:
        return ""
    with open(inputs["document"]) as file:
        return file.read()


def write(inputs, context, value):
    if not inputs["gives_file"]:
        return {}
    with open(f"{context.files.folder}/document.txt", "w") as file:
        file.write(f"{value}\\n" * 50)
    return {"document": context.files.output("document.txt")}
"""

NO_FILES = """

def read(inputs):
    return ""


def write(inputs, context, value):
    return {}
"""


def write_agents(folder: Path) -> list[Path]:
    """Write the packages below ``folder``; returns their folders."""
    packages = []
    for name in AGENTS:
        package = folder / name
        package.mkdir(parents=True)
        (package / "agent.yaml").write_text(MANIFEST.format(name=name))
        if name == "inside":
            (package / "main.py").write_text(HANDLER.replace("{imports}", "") + NO_FILES)
        else:
            imports = "from files import read, write\n"
            (package / "main.py").write_text(HANDLER.replace("{imports}", imports))
            (package / "files.py").write_text(FILES.lstrip())
        packages.append(package)
    return packages
