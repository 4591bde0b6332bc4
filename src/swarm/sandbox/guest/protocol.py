"""The wire protocol, version 1, as the guest speaks it.

4 bytes of big-endian length, then one JSON-RPC 2.0 message in UTF-8, over a stream socket.
"""

from __future__ import annotations

import json
import math
import os
import re
import select
import socket
import threading
from typing import Any, Protocol

VERSION = 1
_CALL_FAILED = -32000
_LONG_NUMBER = re.compile(r"\d{19}")


class Refused(RuntimeError):
    """The host refused a request: a permission that was not granted, an unknown name, ..."""


class Failure(Exception):
    """The call failed. ``kind``: ``error``, ``bad_output``, ``output_too_large``, ``oom``, ``load``."""  # noqa: E501

    def __init__(self, kind: str, message: str, trace: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.trace = trace


class Transport(Protocol):
    """How a context reaches the host."""

    def notify(self, method: str, params: dict[str, Any]) -> None: ...

    def request(self, method: str, params: dict[str, Any]) -> Any: ...


def printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def encode(value: Any, subject: str) -> str:
    """Strict JSON text of ``value``.

    Raises:
        Failure: (``bad_output``) names the first place that JSON cannot carry.
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        fault = find_fault(value, subject) or f"{subject} cannot be written as JSON: {error}"
        raise Failure("bad_output", fault) from None
    if _LONG_NUMBER.search(text) and (too_long := find_fault(value, subject)):
        raise Failure("bad_output", too_long)
    return text


def find_fault(value: Any, where: str, depth: int = 0) -> str | None:
    """Where and why ``value`` is not JSON, or None."""
    if depth > 200:
        return f"{where} is nested too deeply, or holds itself"
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"{where} is text with a lone surrogate, which UTF-8 cannot carry"
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{where} is {value}, which JSON cannot carry"
    if isinstance(value, int):
        is_small = -(2**63) <= value < 2**64
        return None if is_small else f"{where} is an integer beyond 64 bits; give it as a string"
    if isinstance(value, dict):
        return _first_fault(
            ((f"{where}.{key}", item) for key, item in value.items()), depth
        ) or _key_fault(value, where)
    if isinstance(value, list | tuple):
        return _first_fault(((f"{where}[{n}]", item) for n, item in enumerate(value)), depth)
    return f"{where} is a {type(value).__name__}, which JSON cannot carry"


def _first_fault(places: Any, depth: int) -> str | None:
    return next(
        (fault for where, item in places if (fault := find_fault(item, where, depth + 1))), None
    )


def _key_fault(value: dict[Any, Any], where: str) -> str | None:
    for key in value:
        if not isinstance(key, str | int | float | bool | None):
            return f"{where} has a key of type {type(key).__name__}; JSON has text keys only"
        if isinstance(key, str) and (fault := find_fault(key, f"a key of {where}")):
            return fault
    return None


class Wire:
    """The guest's end of the wire; any thread may use it."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(True)
        self._send_lock = threading.Lock()
        self._request_lock = threading.Lock()
        self._requests = 0
        self._process = os.getpid()

    def is_readable(self, seconds: float) -> bool:
        """Whether something arrives, or the host goes, within that time."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def receive(self) -> dict[str, Any]:
        """The next message; raises EOFError when the host is gone."""
        text = self._read(int.from_bytes(self._read(4), "big")).decode()
        message: dict[str, Any] = json.loads(text)
        return message

    def send_text(self, text: str) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("the context is only usable in the process that was called")
        data = text.encode()
        with self._send_lock:
            self._socket.sendall(len(data).to_bytes(4, "big") + data)

    def notify(self, method: str, params: dict[str, Any]) -> None:
        body = encode(params, method)
        self.send_text(f'{{"jsonrpc":"2.0","method":"{method}","params":{body}}}')

    def request(self, method: str, params: dict[str, Any]) -> Any:
        with self._request_lock:
            self._requests += 1
            number = self._requests
            message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            self.send_text(encode(message, method))
            while True:
                answer = self.receive()
                if answer.get("id") == number:
                    break
        if "error" in answer:
            raise Refused(answer["error"]["message"])
        return answer["result"]

    def answer(self, number: Any, output_text: str) -> None:
        self.send_text(
            f'{{"jsonrpc":"2.0","id":{json.dumps(number)},"result":{{"outputs":{output_text}}}}}'
        )

    def answer_failure(self, number: Any, failure: Failure) -> None:
        data = {"kind": failure.kind, "traceback": failure.trace}
        error = {"code": _CALL_FAILED, "message": failure.message, "data": data}
        self.send_text(json.dumps({"jsonrpc": "2.0", "id": number, "error": error}))

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            chunk = self._socket.recv(min(size - len(data), 1024 * 1024))
            if not chunk:
                raise EOFError("the host closed the wire")
            data += chunk
        return bytes(data)
