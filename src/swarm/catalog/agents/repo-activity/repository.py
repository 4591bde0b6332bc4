"""A git repository that nobody vouches for, read without letting it run anything.

A repository's own configuration can name programs: hooks, a file system monitor, filters, external
diffs, signature checkers, transports for objects that a partial clone lacks. Only commands that
need none of these are used here, and each is switched off besides. Paths are bytes throughout.

The same file lies in every repo-* package that opens a repository; packages share no code at run
time.
"""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, NamedTuple

SAFE_CONFIGURATION = (
    "safe.directory=*",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.sshCommand=false",
    "core.alternateRefsCommand=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.pager=cat",
    "diff.external=",
    "gpg.program=false",
    "gpg.ssh.program=false",
    "gpg.x509.program=false",
    "log.showSignature=false",
    "log.mailmap=true",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
)
SAFE_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_PAGER": "cat",
    "LC_ALL": "C",
    "HOME": "/nonexistent",
}
CHUNK_BYTES = 1 << 16


class RepositoryError(Exception):
    """What was given is not a repository; the message says what to pass."""


class GitError(Exception):
    """A git command failed; the message is git's own."""


class Entry(NamedTuple):
    """One tracked thing: ``kind`` is file, symlink or submodule."""

    path: bytes
    kind: str
    object_id: str


class Content(NamedTuple):
    """What a file holds, up to a limit; ``size`` is that of the whole file in bytes."""

    data: bytes
    size: int


@dataclass(frozen=True)
class Repository:
    """Where a repository lies and what of it can be read.

    ``source`` is ``git-index`` (a working tree), ``git-tree`` (a bare repository, read at HEAD) or
    ``folder`` (the files are there, git's own data is not, ``problem`` says why).
    """

    path: bytes
    source: str
    problem: str = ""

    def command(self, *arguments: str | bytes) -> list[str | bytes]:
        """The argument list of a git command that cannot run anything else."""
        where = [b"--git-dir=" + self.path]
        if self.source == "git-index":
            folder = os.path.join(self.path, b".git")
            where = [b"--git-dir=" + folder, b"--work-tree=" + self.path]
        settings = [part for item in SAFE_CONFIGURATION for part in ("-c", item)]
        return ["git", "--no-pager", "--literal-pathspecs", *settings, *where, *arguments]

    def run(
        self, *arguments: str | bytes, timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a short git command and keep its output."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    @contextmanager
    def stream(self, *arguments: str | bytes) -> Iterator[IO[bytes]]:
        """The output of a git command as it comes; leaving the block early ends the command.

        Raises:
            GitError: the command came to its end and failed.
        """
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                self.command(*arguments),
                cwd=self.path,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
            assert process.stdout is not None
            try:
                with process.stdout as output:
                    yield output
                    at_end = not output.read(1)
                if at_end and process.wait() != 0:
                    errors.seek(0)
                    raise GitError(explain(errors.read(CHUNK_BYTES)))
            finally:
                process.kill()
                process.wait()

    def has_commits(self) -> bool:
        """Whether HEAD names a commit."""
        return self.run("rev-parse", "--quiet", "--verify", "HEAD^{commit}").returncode == 0


def environment() -> dict[str, str]:
    """The variables for git: none of the caller's ``GIT_*``, every safe one."""
    return {"PATH": os.environ.get("PATH", os.defpath), **SAFE_ENVIRONMENT}


def open_repository(given: str) -> Repository:
    """Find out what lies at ``given``.

    Raises:
        RepositoryError: there is no folder, or it is not a repository.
    """
    path = os.fsencode(given)
    if not os.path.isdir(path):
        raise RepositoryError(f"{given!r} is not a folder; pass the path of a git repository")
    if os.path.lexists(os.path.join(path, b".git")):
        return _checked(Repository(path, "git-index"))
    marks = (os.path.isdir(os.path.join(path, name)) for name in (b"objects", b"refs"))
    if all(marks) and os.path.lexists(os.path.join(path, b"HEAD")):
        return _checked(Repository(path, "git-tree"))
    raise RepositoryError(
        "this folder is not a git repository: it has no .git; "
        "pass the top folder of a repository (`git rev-parse --show-toplevel` prints it)"
    )


def _checked(repository: Repository) -> Repository:
    """The repository itself, or its folder alone when git cannot read its data."""
    try:
        done = repository.run("rev-parse", "--git-dir")
    except FileNotFoundError:
        return Repository(repository.path, "folder", "git is not installed here")
    if done.returncode == 0:
        return repository
    said = explain(done.stderr)
    if os.path.isfile(os.path.join(repository.path, b".git")):
        said = (
            "its .git file points to a folder that cannot be seen from here, as in a linked "
            f"worktree or a submodule; pass a full clone for its history ({said})"
        )
    return Repository(repository.path, "folder", said)


def explain(errors: bytes) -> str:
    """The last thing that git said on stderr."""
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    said = (lines or ["git failed without saying why"])[-1]
    return said[len("fatal: ") :] if said.startswith("fatal: ") else said


def records(stream: IO[bytes]) -> Iterator[bytes]:
    """The NUL-terminated records of a stream, in bounded memory."""
    rest = b""
    while chunk := stream.read(CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(b"\0")
        yield from whole
    if rest:
        yield rest


def is_plain(path: bytes) -> bool:
    """Whether a tracked path stays inside the work tree; a forged index can hold others."""
    parts = path.split(b"/")
    return not any(part in (b"", b".", b"..") or part.lower() == b".git" for part in parts)


@dataclass
class Reader:
    """Reads the content of tracked files, from the work tree or from git's objects."""

    repository: Repository
    _folders: dict[bytes, bool] = field(default_factory=lambda: {b"": True})
    _objects: subprocess.Popen[bytes] | None = None

    def read(self, path: bytes, object_id: str, limit: int) -> Content | None:
        """At most ``limit`` bytes of a regular file; None when it is gone or something else."""
        if self.repository.source == "git-tree":
            return self._read_object(object_id, limit)
        if not self._is_folder(os.path.dirname(path)):
            return None
        try:
            # O_NONBLOCK: a named pipe put in the file's place must not hold us.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(os.path.join(self.repository.path, path), flags)
        except OSError:
            return None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return None
            return Content(_read_upto(descriptor, min(limit, status.st_size)), status.st_size)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def _is_folder(self, folder: bytes) -> bool:
        """Whether no part of ``folder`` is a link: what lies beyond one is not the repository's."""
        known = self._folders.get(folder)
        if known is None:
            at = -1
            known = True
            while known and at < len(folder):
                at = folder.find(b"/", at + 1)
                at = len(folder) if at < 0 else at
                known = self._is_real(folder[:at])
            self._folders[folder] = known
        return known

    def _is_real(self, folder: bytes) -> bool:
        try:
            return stat.S_ISDIR(os.lstat(os.path.join(self.repository.path, folder)).st_mode)
        except OSError:
            return False

    def _read_object(self, object_id: str, limit: int) -> Content | None:
        """A blob through one long-lived ``git cat-file --batch``."""
        if self._objects is None:
            self._objects = subprocess.Popen(
                self.repository.command("cat-file", "--batch"),
                cwd=self.repository.path,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        assert self._objects.stdin is not None
        assert self._objects.stdout is not None
        try:
            self._objects.stdin.write(object_id.encode() + b"\n")
            self._objects.stdin.flush()
        except BrokenPipeError:
            return None
        header = self._objects.stdout.readline().split()
        if len(header) != 3:
            return None
        size = int(header[2])
        data = self._objects.stdout.read(min(size, limit))
        left = size - len(data) + 1
        while left > 0 and (dropped := self._objects.stdout.read(min(left, CHUNK_BYTES))):
            left -= len(dropped)
        return Content(data, size)

    def close(self) -> None:
        """End the git process, if one was started."""
        if self._objects is not None:
            self._objects.kill()
            self._objects.communicate()
            self._objects = None


def _read_upto(descriptor: int, limit: int) -> bytes:
    data = os.read(descriptor, limit)
    if len(data) == limit:
        return data
    parts = [data]
    while data and (left := limit - sum(map(len, parts))):
        data = os.read(descriptor, left)
        parts.append(data)
    return b"".join(parts)
