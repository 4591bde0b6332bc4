"""The package's modules, compiled before the snapshot; none of their code is run."""

from __future__ import annotations

import os
from importlib.machinery import SourceFileLoader
from types import CodeType

FOLDER = "/package"
_SOURCE_BYTES = 8 * 1024 * 1024


def compile_package() -> dict[str, CodeType]:
    """Code by path; of what is found first, when the sources are many."""
    found: dict[str, CodeType] = {}
    left = _SOURCE_BYTES
    for folder, _, names in os.walk(FOLDER):
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not name.endswith(".py") or os.path.islink(path):
                continue
            left -= os.path.getsize(path)
            if left < 0:
                return found
            try:
                with open(path, "rb") as file:
                    found[path] = compile(file.read(), path, "exec", dont_inherit=True)
            except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
                continue  # The handler meets it again, and says so.
    return found


def use(found: dict[str, CodeType]) -> None:
    """Have imports take this code instead of reading and compiling files."""
    read = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, fullname: str) -> CodeType | None:
        return found.get(loader.path) or read(loader, fullname)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]
