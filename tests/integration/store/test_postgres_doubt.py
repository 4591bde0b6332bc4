"""What a server tells of a transaction whose COMMIT nobody answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from swarm.kernel.settings import Settings
from swarm.store.postgres.connection import PostgresConnection, Raw, connect
from swarm.store.postgres.doubt import KEPT_SECONDS, Mark, Marks, forget_old_marks, was_committed


@pytest.fixture
def writer(migrated_url: str, settings: Settings) -> Iterator[Raw]:
    with closing(connect(migrated_url, settings, writes=True)) as raw:
        yield raw


@pytest.fixture
def asker(migrated_url: str, settings: Settings) -> Iterator[Raw]:
    with closing(connect(migrated_url, settings, writes=True)) as raw:
        yield raw
        raw.rollback()
        raw.execute("DELETE FROM writer_marks")
        raw.commit()


def begin(raw: Raw, marks: Marks) -> Mark:
    return marks.begin(PostgresConnection(raw), 1.0).read()


def test_a_transaction_was_committed_once_it_is_and_not_before(writer: Raw, asker: Raw) -> None:
    marks = Marks()
    mark = begin(writer, marks)
    assert was_committed(asker, mark) is None
    writer.commit()
    assert was_committed(asker, mark) is True
    undone = begin(writer, marks)
    writer.rollback()
    assert was_committed(asker, undone) is False
    assert was_committed(asker, mark) is True


def test_an_id_that_was_given_out_again_is_not_taken_for_the_first(writer: Raw, asker: Raw) -> None:
    """A server that was killed forgets the ids of those that had written nothing."""
    others = begin(writer, Marks())
    writer.commit()
    assert was_committed(asker, Mark(others.transaction, "of another connection", 1)) is False
    assert was_committed(asker, others._replace(number=2)) is False


def test_an_id_of_the_future_was_not_committed(writer: Raw, asker: Raw) -> None:
    mark = begin(writer, Marks())
    ahead = mark._replace(transaction=str(int(mark.transaction) + 1_000_000))
    assert was_committed(asker, ahead) is False
    assert was_committed(asker, mark) is None, "the connection can be used further"


def test_marks_of_connections_that_are_gone_are_deleted(writer: Raw, asker: Raw) -> None:
    old, new, held = Marks(), Marks(), Marks()
    for marks in (old, held, new):
        begin(writer, marks)
        writer.commit()
    writer.execute(
        "UPDATE writer_marks SET marked_at = marked_at - $1 * interval '1 second' "
        "WHERE writer <> $2",
        [KEPT_SECONDS + 1, new._writer],
    )
    writer.commit()
    under_way = begin(writer, held)
    forget_old_marks(asker)
    asker.commit()
    writer.commit()
    left = asker.execute("SELECT writer FROM writer_marks").fetchall()
    assert {name for (name,) in left} == {under_way.writer, new._writer}
