"""Asking a worker how it is, and what answers that is no worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swarm.dispatch.health import Probe, ask, listen
from swarm.kernel.errors import UnavailableError


@contextmanager
def answering(path: Path, line: bytes | None) -> Iterator[list[bytes]]:
    """Somebody at ``path`` who answers the first question with ``line``, or not at all."""
    asked: list[bytes] = []
    done = threading.Event()
    listener = listen(path)

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            asked.append(client.recv(64))
            if line is None:
                done.wait()
            else:
                client.sendall(line)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        done.set()
        thread.join()
        listener.close()


def test_the_answer_comes_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "health.sock"
    with answering(path, b'{"ok": true}\n') as asked:
        assert ask(path, Probe.READY, 5) == {"ok": True}
    assert asked == [b"ready\n"]


@pytest.mark.parametrize("line", [b"", b"hello\n", b"[]\n"])
def test_what_is_no_worker_is_not_taken_for_one(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "health.sock"
    with answering(path, line), pytest.raises(UnavailableError, match="worker"):
        ask(path, Probe.LIVE, 5)


def test_one_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "health.sock"
    with answering(path, None), pytest.raises(UnavailableError, match=r"not answered for 0\.1 s"):
        ask(path, Probe.LIVE, 0.1)


def test_nobody_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no worker answers") as caught:
        ask(tmp_path / "health.sock", Probe.LIVE, 1)
    assert "SWARM_HEALTH_SOCKET" in str(caught.value.remedy)


def test_a_socket_left_behind_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = tmp_path / "run" / "health.sock"
    first = listen(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UnavailableError, match="in use"):
        listen(path)
    first.close()
    listen(path).close()


def test_another_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("mine")
    with pytest.raises(UnavailableError):
        listen(path)
    assert path.read_text() == "mine"


def test_a_path_too_long_for_a_socket_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        listen(tmp_path / ("x" * 120))
    assert "SWARM_HEALTH_SOCKET" in str(caught.value.remedy)
