"""What others wait for is done again while the database fails."""

from __future__ import annotations

import pytest

from swarm.engine.patience import patiently
from swarm.kernel.errors import ConflictError, DatabaseError


class Work:
    """Fails as often as it is told."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.begun = 0

    async def __call__(self) -> None:
        self.begun += 1
        if self.begun <= self.failures:
            raise DatabaseError("it is away")


async def test_it_is_done_once_the_database_is_back() -> None:
    work = Work(failures=2)
    await patiently(work, lambda: False)
    assert work.begun == 3


async def test_it_is_tried_once_by_a_process_that_ends() -> None:
    work = Work(failures=2)
    await patiently(work, lambda: True)
    assert work.begun == 1


async def test_other_errors_are_told() -> None:
    async def work() -> None:
        raise ConflictError("somebody else has it")

    with pytest.raises(ConflictError):
        await patiently(work, lambda: False)
