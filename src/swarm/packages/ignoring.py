"""What is left out of a package: build leavings always, and what its ``.swarmignore`` names."""

from __future__ import annotations

import re

from pathspec import GitIgnoreSpec

from swarm.kernel.errors import DefinitionError, Problem

IGNORE_FILE = ".swarmignore"
ALWAYS_IGNORED = (
    ".git",
    "__pycache__",
    "*.pyc",
    "node_modules",
    ".venv",
    ".DS_Store",
    # What `pack` writes beside a manifest must not end up in the next archive.
    "/*.apkg",
    # Its work is done once the files are chosen: an archive and the folder it is unpacked to
    # then hold the same files whatever the patterns say.
    f"/{IGNORE_FILE}",
)
MAX_IGNORE_BYTES = 64 * 1024


class Ignored:
    """Decides which paths are left out, by gitignore's rules.

    A folder that is left out takes everything below it along, whatever later patterns say; so
    walking a folder and filtering an archive's list give the same files.
    """

    def __init__(self, text: str = "", file: str = IGNORE_FILE) -> None:
        """Compile the always ignored names and ``text``, the content of an ignore file.

        Raises:
            DefinitionError: a malformed pattern; names its line.
        """
        self._always = GitIgnoreSpec.from_lines(ALWAYS_IGNORED)
        lines = text.splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                GitIgnoreSpec.from_lines([line])
            except (ValueError, re.error) as error:
                problem = Problem(
                    f"`{line.strip()}` is not a gitignore pattern: {error}",
                    file,
                    line=number,
                    remedy="mend or remove the line; patterns are those of a .gitignore file",
                )
                raise DefinitionError([problem]) from None
        self._own = GitIgnoreSpec.from_lines(lines)

    def folder(self, path: str) -> bool:
        """Whether the folder ``path`` itself is left out (not: one above it)."""
        return self._matches(path + "/")

    def file(self, path: str) -> bool:
        """Whether the file ``path`` itself is left out (not: a folder above it)."""
        return self._matches(path)

    def leaves_out(self, path: str) -> bool:
        """Whether the file ``path`` is left out, itself or by a folder above it."""
        names = path.split("/")
        above = ("/".join(names[:depth]) for depth in range(1, len(names)))
        return any(self.folder(folder) for folder in above) or self.file(path)

    def _matches(self, path: str) -> bool:
        return self._always.match_file(path) or self._own.match_file(path)
