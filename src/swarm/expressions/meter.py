"""How much one evaluation may make.

MiniJinja's fuel counts instructions, not what they make; one ``map`` or ``replace`` can make a
thousand copies of a long text. So what filters make and what results hold is counted too.
"""

from __future__ import annotations

import threading

MAX_MADE = 32 * 1024 * 1024
"""Characters that one template may make in all; an entry counts as :data:`ENTRY_COST`."""

ENTRY_COST = 16
"""What an entry of an array or object counts beside what it holds."""


class FilterError(Exception):
    """A filter was given what it cannot take; told to the user by the expression around it."""


class _Left(threading.local):
    amount = MAX_MADE


_left = _Left()


def start() -> None:
    """Begin to count anew; an evaluation does not leave its thread."""
    _left.amount = MAX_MADE


def spend(amount: int) -> None:
    """Count what is about to be made.

    Raises:
        FilterError: it would be too much.
    """
    _left.amount -= amount
    if _left.amount < 0:
        raise FilterError(
            f"the result would be larger than {MAX_MADE // 1024**2} MiB; hand such data on as files"
        )
