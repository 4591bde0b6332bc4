"""What calls say when the disk is full: ``full_disk.py <folder> <count>``.

The folder is on a small file system that nothing else uses. Every call is made by the real command,
which keeps its files there; the agent hands out a file that it returns the digest of.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

CALL_SECONDS = 60
CHUNK = b"x" * 4096

MANIFEST = """\
name: big
version: 1.0.0
runtime: {type: python, entry: main.py, timeout_seconds: 30}
inputs: [{name: seed, type: integer}]
outputs: [{name: digest, type: string}, {name: data, type: file}]
"""
HANDLER = """\
import hashlib, os, random

def handler(inputs, context):
    data = random.Random(inputs["seed"]).randbytes(1_000_000)
    with open(os.path.join(os.environ["SWARM_OUTPUTS"], "data"), "wb") as file:
        file.write(data)
    return {"digest": hashlib.sha256(data).hexdigest(), "data": {"$file": "data"}}
"""


def swarm(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swarm", *arguments],
        env={**os.environ, "SWARM_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=CALL_SECONDS,
        check=False,
    )


def call(home: Path, seed: int) -> str:
    """``done`` when the file that the command tells of is there as the agent wrote it."""
    done = swarm(home, "agent", "run", "big", json.dumps({"seed": seed}), "--json")
    told = json.loads(done.stdout)
    if done.returncode != 0 or told["status"] != "ok":
        return "refused"
    data = Path(told["files"][0]["path"]).read_bytes()
    is_whole = hashlib.sha256(data).hexdigest() == told["outputs"]["digest"]
    return "done" if is_whole else f"lied: {told}"


def fill(folder: Path, spare: int) -> None:
    """Leave no more than so many bytes free."""
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(CHUNK):
                pass
        except OSError:
            file.truncate(max(file.tell() - spare, 0))


def main(folder: Path, count: int) -> None:
    package, home = folder / "package", folder / "home"
    package.mkdir()
    (package / "agent.yaml").write_text(MANIFEST)
    (package / "main.py").write_text(HANDLER)
    registered = swarm(home, "agent", "register", str(package))
    assert registered.returncode == 0, registered.stderr
    found = [call(home, seed=0)]
    for number in range(1, count):
        # From room for the journal but not for the file, to no room at all.
        fill(folder, spare=(count - 1 - number) * 900_000 // count)
        found.append(call(home, seed=number))
    (folder / "filler").unlink()
    found.append(call(home, seed=count))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
