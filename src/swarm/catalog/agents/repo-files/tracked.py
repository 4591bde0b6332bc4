"""Which files belong to a repository."""

from __future__ import annotations

import os
from collections.abc import Iterator

from repository import Entry, Repository, explain, is_plain, records

KINDS = {b"120": "symlink", b"160": "submodule"}
"""Git's file modes by their first three octal digits; all others are files."""

UNTRACKED_FOLDERS = frozenset(
    {
        *(b".git", b".hg", b".svn", b".venv", b"venv", b"node_modules", b"__pycache__", b".tox"),
        *(b".nox", b".mypy_cache", b".pytest_cache", b".ruff_cache", b".gradle", b".terraform"),
    }
)
"""Folders that are as good as never tracked; left out when git cannot tell what is."""


def listable(repository: Repository) -> Repository:
    """The repository, or its folder alone when git cannot read its index."""
    if repository.source != "git-index":
        return repository
    # Reads the whole index and prints nothing: no tracked path ends in a slash.
    done = repository.run("ls-files", "-z", "--", "no-such-path/")
    if done.returncode == 0:
        return repository
    return Repository(repository.path, "folder", explain(done.stderr))


def entries(repository: Repository) -> Iterator[Entry]:
    """Everything tracked, once each; forged paths that lead elsewhere are left out."""
    if repository.source == "folder":
        yield from walk(repository.path)
        return
    if repository.source == "git-tree" and not repository.has_commits():
        return
    arguments: tuple[str, ...] = ("ls-files", "-z", "--stage")
    if repository.source == "git-tree":
        arguments = ("ls-tree", "-z", "-r", "--full-tree", "HEAD")
    previous = b""
    with repository.stream(*arguments) as output:
        for record in records(output):
            head, tab, path = record.partition(b"\t")
            fields = head.split(b" ")
            # A conflict puts up to three stages of one path in a row.
            if not tab or path == previous or not is_plain(path):
                continue
            previous = path
            object_id = fields[1 if repository.source == "git-index" else 2].decode()
            yield Entry(path, KINDS.get(fields[0][:3], "file"), object_id)


def walk(top: bytes) -> Iterator[Entry]:
    """The files below ``top``, for a folder whose git data cannot be read; in sorted order."""
    pending = [b""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(os.path.join(top, folder)) as found:
                items = sorted(found, key=lambda item: item.name)
        except OSError:
            continue
        for item in reversed(items):
            path = os.path.join(folder, item.name)
            if not item.is_symlink() and item.is_dir(follow_symlinks=False):
                if item.name in UNTRACKED_FOLDERS:
                    continue
                if os.path.lexists(os.path.join(top, path, b".git")):
                    yield Entry(path, "submodule", "")
                else:
                    pending.append(path)
            elif item.name != b".git":
                yield Entry(path, "symlink" if item.is_symlink() else "file", "")
