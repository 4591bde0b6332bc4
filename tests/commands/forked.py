"""``swarm`` commands without Python's start and the imports; see ``forking``."""

from __future__ import annotations

import functools
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.commands import forking

CHUNK_BYTES = 65_536


class Forker:
    """The process that commands are forked from; it ends with this one."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", forking.__file__, str(theirs.fileno())],
                # Pipes, as the commands get: what Python knows of its streams stays true.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
            )

    def run(
        self,
        arguments: Sequence[str],
        stdin: bytes,
        folder: Path | None,
        environment: Mapping[str, str],
        timeout: float,
    ) -> subprocess.CompletedProcess[bytes]:
        """As ``subprocess.run`` of ``swarm``.

        Raises:
            subprocess.TimeoutExpired: after ``timeout`` seconds; the command was killed.
        """
        request = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "folder": str(folder or Path.cwd()),
        }
        pipes = [os.pipe() for _ in range(forking.DESCRIPTORS)]
        (their_in, our_in), (our_out, their_out), (our_err, their_err), (our_end, their_end) = pipes
        theirs = [their_in, their_out, their_err, their_end]
        body = json.dumps(request).encode()
        head = len(body).to_bytes(forking.LENGTH_BYTES)
        socket.send_fds(self._control, [head], theirs)
        self._control.sendall(body)
        for descriptor in theirs:
            os.close(descriptor)
        exchange = Exchange(our_in, stdin, [our_out, our_err, our_end])
        if not exchange.finish(timeout):
            pid, _ = exchange.read[our_end].split(b"\n")
            os.kill(int(pid), signal.SIGKILL)
            exchange.finish(timeout, our_end)
            exchange.close()
            raise subprocess.TimeoutExpired(list(arguments), timeout)
        _, code, _ = exchange.read[our_end].split(b"\n")
        return subprocess.CompletedProcess(
            arguments, int(code), bytes(exchange.read[our_out]), bytes(exchange.read[our_err])
        )


class Exchange:
    """Writes to one pipe and reads from others, as each is ready."""

    def __init__(self, sink: int, given: bytes, sources: Sequence[int]) -> None:
        self.read = {source: bytearray() for source in sources}
        self._given = memoryview(given)
        self._selector = selectors.PollSelector()
        self._selector.register(sink, selectors.EVENT_WRITE)
        os.set_blocking(sink, False)
        for source in sources:
            self._selector.register(source, selectors.EVENT_READ)

    def finish(self, timeout: float, source: int | None = None) -> bool:
        """Go on to the end of all, or of one source; False if it did not come in time."""
        deadline = time.monotonic() + timeout
        while (left := self._selector.get_map()) and (source is None or source in left):
            ready = self._selector.select(max(0, deadline - time.monotonic()))
            if not ready and time.monotonic() >= deadline:
                return False
            for key, _ in ready:
                if key.fd in self.read:
                    self._receive(key.fd)
                else:
                    self._send(key.fd)
        return True

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            self._drop(key.fd)

    def _receive(self, source: int) -> None:
        chunk = os.read(source, CHUNK_BYTES)
        self.read[source] += chunk
        if not chunk:
            self._drop(source)

    def _send(self, sink: int) -> None:
        try:
            self._given = self._given[os.write(sink, self._given) :]
        except BrokenPipeError:  # it ended, or closed its input, without reading all
            self._given = self._given[:0]
        if not self._given:
            self._drop(sink)

    def _drop(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)
        os.close(descriptor)


@functools.cache
def forker() -> Forker:
    """The one of this process."""
    return Forker()
