"""The stream between a guest and its host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.sandbox.microvm.agent.frames import (
    CONTROL,
    CONTROL_LIMIT,
    FRAME_LIMIT,
    HEAD,
    KINDS,
    FrameError,
    FrameReader,
    frames,
)

KIND = st.integers(0, KINDS - 1)


@given(st.lists(st.tuples(KIND, st.binary(max_size=300))), st.data())
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    sent: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(frames(kind, content) for kind, content in sent)
    reader, received = FrameReader(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        reader.feed(stream[:size])
        received += list(reader)
        stream = stream[size:]
    assert received == sent


def test_what_is_long_is_cut() -> None:
    reader = FrameReader()
    reader.feed(frames(1, bytes(FRAME_LIMIT * 2 + 5)))
    assert [len(data) for _, data in reader] == [FRAME_LIMIT, FRAME_LIMIT, 5]


@pytest.mark.parametrize(
    ("kind", "size"), [(KINDS, 0), (255, 1), (1, FRAME_LIMIT + 1), (CONTROL, CONTROL_LIMIT + 1)]
)
def test_what_cannot_be_a_frame_is_refused_before_it_is_kept(kind: int, size: int) -> None:
    reader = FrameReader()
    reader.feed(HEAD.pack(kind, size))
    with pytest.raises(FrameError):
        list(reader)
