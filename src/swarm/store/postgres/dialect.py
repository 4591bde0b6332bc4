"""Statements as PostgreSQL takes them.

They are written once, for SQLite too. Few words differ; each text is translated once.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import count

TRANSLATED_STATEMENTS = 1024
"""Statements that are kept translated."""
_HINT = re.compile(r" INDEXED BY \w+")
"""SQLite is told which index to read; PostgreSQL knows its tables' sizes."""
_SAME = re.compile(r"\bIS \?")
_MARK = re.compile(r"\?")


@lru_cache(TRANSLATED_STATEMENTS)
def translated(statement: str) -> bytes:
    """``statement`` with PostgreSQL's words, and its marks ``?`` numbered ``$1``, ``$2``, ..."""
    text = _SAME.sub("IS NOT DISTINCT FROM ?", _HINT.sub("", statement))
    numbers = count(1)
    return _MARK.sub(lambda _: f"${next(numbers)}", text).encode()
