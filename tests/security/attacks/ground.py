"""Where attacks are made: folders full of bait, and a worker that runs as root or as a user."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import swarm
from tests.security.attacks.table import Attack

SECRET: Final = "the-hosts-secret"
ORDINARY_USER: Final = 61_234
_SUITE: Final = Path(__file__).parent
_USR: Final = ("/usr/games", "/usr/src", "/usr/share/man", "/usr/share/doc", "/usr/share")
_NEEDED: Final = "import pydantic, orjson, h11, swarm.engine.files, swarm.sandbox.linux.backend"
_START_SECONDS: Final = 60


class CannotRun(Exception):
    """This machine does not offer what a level needs."""


@dataclass(frozen=True)
class Verdict:
    """What came of an attack."""

    facts: Mapping[str, Any]

    @property
    def gained(self) -> str | None:
        outputs = self.facts.get("outputs") or {}
        gained: str | None = outputs.get("gained")
        return gained

    @property
    def refusal(self) -> str:
        """The errno's name or another word; what the host saw, if there was no answer."""
        outputs = self.facts.get("outputs")
        if outputs:
            return str(outputs["refusal"])
        return str(self.facts.get("error_code") or self.facts.get("unavailable"))

    def __str__(self) -> str:
        return json.dumps(self.facts, indent=1)


class Ground:
    """One level's bait and worker. Use as a context manager."""

    def __init__(self, level: str) -> None:
        self.level = level
        self._uid = 0 if level == "root" else ORDINARY_USER
        if os.geteuid() != 0:
            self._uid = os.geteuid()
        self.folder = Path(tempfile.mkdtemp(prefix=f"swarm-attacks-{level}-"))
        self._verdicts: dict[str, Verdict] = {}
        self._worker: subprocess.Popen[str] | None = None
        self._decoys: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Ground:
        try:
            self._lay_bait()
            python, path = self._find_python()
            environment = {
                "PYTHONPATH": path,
                "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
                "HOME": str(self.folder),
                "LANG": "C.UTF-8",
                "DECOY_OF_THE_HOST": SECRET,
            }
            suite, real = self.folder / "suite", str(self.folder / "real")
            self._decoys = self._start(
                [python, str(suite / "weak_zygote/decoys.py"), real, "host", "swarm-decoy"],
                environment,
            )
            self._await_decoys()
            self._worker = self._start(
                [python, str(suite / "worker.py"), str(self.folder), self._usr()],
                environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            # Limits as users have them on many a machine; where the machine lets us give them.
            with contextlib.suppress(PermissionError):
                resource.prlimit(self._worker.pid, resource.RLIMIT_RTPRIO, (10, 10))
                resource.prlimit(self._worker.pid, resource.RLIMIT_NICE, (30, 30))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._worker is not None:
            assert self._worker.stdin is not None
            assert self._worker.stdout is not None
            self._worker.stdin.close()
            try:
                self._worker.wait(30)
            finally:
                self._worker.kill()
                self._worker.wait()
                self._worker.stdout.close()
        if self._decoys is not None:
            self._decoys.kill()
            self._decoys.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def attack(self, attack: Attack, without: frozenset[str] = frozenset()) -> Verdict:
        """Make an attack in a sandbox that lacks some layers; the same one is made once only."""
        limits = {**attack.limits, **(attack.weak_limits if without else {})}
        return self.order(
            attack.name,
            without,
            limits=limits,
            targets=attack.targets,
            live_input=attack.live_input,
            network=attack.network,
        )

    def attack_from(self, place: str, attacks: Sequence[Attack], calls: int = 1) -> Verdict:
        """Make many attacks in one sandbox: from a ``command``, ``node``, or the ``pool``."""
        many = [(attack.name, attack.targets) for attack in attacks]
        return self.fresh_order(json.dumps({"from": place, "many": many, "calls": calls}))

    def order(self, attack: str, without: frozenset[str] = frozenset(), **more: Any) -> Verdict:
        """Have the worker make an attack."""
        order = {"attack": attack, "without": sorted(without), "targets": {}, **more}
        line = json.dumps(order)
        if line not in self._verdicts:
            self._verdicts[line] = self.fresh_order(line)
        return self._verdicts[line]

    def fresh_order(self, line: str) -> Verdict:
        assert self._worker is not None
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        self._worker.stdin.write(line + "\n")
        self._worker.stdin.flush()
        answer = self._worker.stdout.readline()
        assert answer, "the worker died"
        return Verdict(json.loads(answer))

    def bait_is_untouched(self) -> bool:
        """Whether everything that must not be written is as it was laid."""
        return self._state() == self._laid and self._decoys_live()

    def _decoys_live(self) -> bool:
        return self._decoys is not None and self._decoys.poll() is None

    def _state(self) -> dict[str, tuple[int, int, int]]:
        found = {}
        for name in ("shown", "package", "environment"):
            for path in sorted((self.folder / "real" / name).rglob("*")):
                if not path.is_socket():
                    status = path.lstat()
                    found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns)
        return found

    def _usr(self) -> str:
        return next(path for path in _USR if Path(path).is_dir())

    def _lay_bait(self) -> None:
        folder = self.folder
        folder.chmod(0o755)
        ignored = shutil.ignore_patterns("__pycache__")
        for kind in ("real", "staged"):
            _lay_bait_for(folder / kind)
        shutil.copytree(_SUITE, folder / "suite", ignore=ignored)
        shutil.copytree(Path(str(swarm.__file__)).parent, folder / "site/swarm", ignore=ignored)
        (folder / "home").mkdir()
        if os.geteuid() == 0 and self._uid:
            for path in [folder, *folder.rglob("*")]:
                os.lchown(path, self._uid, self._uid)
        self._laid = self._state()

    def _find_python(self) -> tuple[str, str]:
        """An interpreter that the level's user can run, and the path for it."""
        libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        path = ":".join([str(self.folder / "site"), *sorted(libraries)])
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        tried = [sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"]
        for python in tried:
            if Path(python).exists() and self._can_run(python, path):
                return python, path
        copied = self._copy_interpreter(version)
        if self._can_run(copied, path):
            return copied, path
        raise CannotRun(f"user {self._uid} can read neither this Python nor its libraries")

    def _can_run(self, python: str, path: str) -> bool:
        try:
            trial = self._start([python, "-c", _NEEDED], {"PYTHONPATH": path})
        except PermissionError:
            return False
        return trial.wait() == 0

    def _copy_interpreter(self, version: str) -> str:
        prefix = self.folder / "python"
        source = Path(sys.base_prefix)
        ignored = shutil.ignore_patterns("__pycache__", "site-packages", "test", "idlelib")
        shutil.copytree(source / "lib" / version, prefix / "lib" / version, ignore=ignored)
        (prefix / "bin").mkdir()
        shutil.copy(source / "bin" / version, prefix / "bin" / version)
        return str(prefix / "bin" / version)

    def _start(
        self, command: list[str], environment: Mapping[str, str], **more: Any
    ) -> subprocess.Popen[Any]:
        """Start a program as the level's user, without further groups."""
        identity: dict[str, Any] = {}
        if os.geteuid() == 0 and self._uid:
            identity = {"user": self._uid, "group": self._uid, "extra_groups": []}
        return subprocess.Popen(command, env=environment, cwd=self.folder, **identity, **more)

    def _await_decoys(self) -> None:
        assert self._decoys is not None
        end = time.monotonic() + _START_SECONDS
        while not (self.folder / "real/host.json").exists():
            assert self._decoys_live(), "the decoys died"
            assert time.monotonic() < end, "the decoys did not start"
            time.sleep(0.01)  # There is nothing to wait on: the file appears when they serve.


def _lay_bait_for(folder: Path) -> None:
    """What sandboxes are given, and what they must not see; weakened ones have their own."""
    shown = folder / "shown"
    for name in (
        "secret.txt",
        "machine-id",
        "etc/shadow",
        "home/registry/secrets/key",
        "home/packages/other/main.py",
    ):
        path = shown / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{SECRET}: {name}\n")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(_SUITE / "payloads", folder / "package", ignore=ignored)
    compileall.compile_dir(folder / "package", quiet=1)
    (folder / "package/link-to-secret").symlink_to(shown / "secret.txt")
    (folder / "environment/site-packages").mkdir(parents=True)
    data = folder / "data"
    data.mkdir()
    (data / "file.txt").write_text("given\n")
    os.mkfifo(data / "fifo")
    for path in (data, data / "fifo"):
        path.chmod(0o777)
