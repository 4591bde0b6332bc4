"""Make the environment of the engines that benchmarks compare with; print its Python.

They come from the package index into an environment of their own, as benchmarks/engines says with
its hashed lock: nothing of Swarm needs them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

import environment

FOLDER = environment.CACHE / "engines"
LOCK = environment.ROOT / "benchmarks" / "engines" / "requirements.txt"
STAMP = FOLDER / "lock-digest"


def main() -> int:
    python = FOLDER / "bin" / "python"
    digest = environment.file_digest(LOCK)
    if not STAMP.is_file() or STAMP.read_text() != digest:
        uv = str(environment.VENV / "bin" / "uv")
        environment.say(f"installing {LOCK.relative_to(environment.ROOT)}")
        shutil.rmtree(FOLDER, ignore_errors=True)
        try:
            environment.run_command(
                [uv, "venv", "--quiet", "--python", sys.executable, str(FOLDER)]
            )
            install = [uv, "pip", "sync", "--quiet", "--require-hashes", "--only-binary", ":all:"]
            environment.run_command([*install, "--python", str(python), str(LOCK)])
        except subprocess.CalledProcessError as error:
            environment.say(f"the engines to compare with cannot be had (exit {error.returncode})")
            return 5
        STAMP.write_text(digest)
    print(python)
    return 0


if __name__ == "__main__":
    sys.exit(main())
