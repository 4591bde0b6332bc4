"""The host's end of the wire: frames, JSON-RPC 2.0, and bounds on everything a guest may send.

A frame is 4 bytes of big-endian length and one message in UTF-8. The guest is not trusted: what is
malformed, too large or too much ends the call, it never harms the host.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from swarm.kernel.errors import InvalidError, SwarmError
from swarm.kernel.json import JsonObject, JsonValue, dump_bytes, loads
from swarm.sandbox.log_lines import LogBudget, line_text
from swarm.sandbox.ports import GuestServices, Limits

PROTOCOL: Final = 1
_CALL: Final = 1
"""The id of the host's one request."""
_ENVELOPE_BYTES: Final = 64 * 1024
"""Room for what surrounds an output in its message."""
_REQUESTS_AT_ONCE: Final = 64
_MESSAGES_PER_SLICE: Final = 256
_LEAST_CHARGE: Final = 256
"""What an event counts at least, so that empty ones come to an end too."""
_REFUSED: Final = -32001
_ID_LENGTH: Final = 64
_METHOD_LENGTH: Final = 64
_REFUSAL_LENGTH: Final = 2_000
"""Characters of a refusal, which may repeat what was asked for."""
_UNREAD_BYTES: Final = 4 * 1024 * 1024
"""Answers that may wait for a guest that does not read them."""
_MESSAGE_LENGTH: Final = 16_000
_TRACEBACK_LENGTH: Final = 64_000
"""Characters of a failure that are kept."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a guest answered the call."""

    outputs: JsonValue = None
    kind: str | None = None
    """None when it succeeded; else ``error``, ``bad_output``, ``output_too_large``, ``oom``,
    ``load``, ``protocol``, or ``closed`` when the guest closed the wire without an answer."""
    message: str = ""
    traceback: str | None = None
    size: int = 0


class HostWire(asyncio.Protocol):
    """One connection to one guest, for one call."""

    def __init__(self, limits: Limits, budget: LogBudget) -> None:
        self._limits = limits
        self._budget = budget
        self._services: GuestServices | None = None
        self._buffer = bytearray()
        self._streamed = 0
        self._call_bytes = 0
        self._requests: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def call(
        self,
        entry: tuple[str, ...],
        inputs: JsonObject,
        context: JsonObject,
        services: GuestServices,
    ) -> None:
        """Send the one request; :attr:`answer` is its answer.

        Raises:
            InvalidError: the inputs are not JSON.
        """
        self._services = services
        params = {
            "protocol": PROTOCOL,
            "entry": list(entry),
            "inputs": inputs,
            "context": context,
        }
        message = {"jsonrpc": "2.0", "id": _CALL, "method": "call", "params": params}
        self._call_bytes = self._send(message)
        self._take_frames()

    @property
    def descriptor(self) -> int:
        """The host's end; -1 when it is closed."""
        if self._transport is None or self._transport.is_closing():
            return -1
        descriptor: int = self._transport.get_extra_info("socket").fileno()
        return descriptor

    def close(self) -> None:
        for task in self._requests:
            task.cancel()
        if self._transport is not None:
            self._transport.abort()
        if not self.answer.done():
            self.answer.cancel()

    def data_received(self, data: bytes) -> None:
        if self.answer.done():
            return
        self._buffer += data
        if self._services is not None:
            self._take_frames()
        elif len(self._buffer) > _ENVELOPE_BYTES and self._transport is not None:
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._end(Answer(kind="closed", message="the handler closed its wire without an answer"))

    def _take_frames(self) -> None:
        """Handle the complete frames that are here; yields to the loop now and then."""
        assert self._transport is not None
        for _ in range(_MESSAGES_PER_SLICE):
            if self.answer.done() or len(self._buffer) < 4:
                break
            size = int.from_bytes(self._buffer[:4], "big")
            if size > self._limits.output_bytes + _ENVELOPE_BYTES:
                limit = self._limits.output_bytes
                text = f"the handler sent a message of {size} bytes, the limit is {limit}"
                self._end(Answer(kind="output_too_large", message=text, size=size))
                return
            if len(self._buffer) < 4 + size:
                break
            frame = bytes(self._buffer[4 : 4 + size])
            del self._buffer[: 4 + size]
            self._take_message(frame)
            if len(self._requests) >= _REQUESTS_AT_ONCE:
                self._transport.pause_reading()
                return
        else:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._take_frames)
            return
        if self.answer.done():
            self._transport.pause_reading()
        elif not self._transport.is_closing():
            self._transport.resume_reading()

    def _take_message(self, frame: bytes) -> None:
        try:
            message = loads(frame)
        except InvalidError as error:
            self._end(Answer(kind="bad_output", message=f"the handler's message is {error}"))
            return
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            self._break_protocol("a message is not JSON-RPC 2.0")
        elif "method" in message:
            self._take_request(message, len(frame))
        elif message.get("id") == _CALL:
            self._take_answer(message, len(frame))
        else:
            self._break_protocol("an answer to a question that was not asked")

    def _take_answer(self, message: JsonObject, size: int) -> None:
        result, error = message.get("result"), message.get("error")
        if isinstance(result, dict) and "outputs" in result:
            self._end(Answer(outputs=result["outputs"], size=size))
        elif isinstance(error, dict):
            data = error.get("data")
            data = data if isinstance(data, dict) else {}
            kind, trace = data.get("kind"), _text(data.get("traceback"))
            text = _text(error.get("message")) or "the handler failed"
            self._end(
                Answer(
                    kind=kind if isinstance(kind, str) else "error",
                    message=_shortened(text, _MESSAGE_LENGTH),
                    traceback=_shortened(trace, _TRACEBACK_LENGTH) if trace else None,
                    size=size,
                )
            )
        else:
            self._break_protocol("the answer has neither outputs nor an error")

    def _take_request(self, message: JsonObject, size: int) -> None:
        method, params = message["method"], message.get("params")
        if not isinstance(method, str) or not isinstance(params, dict):
            self._break_protocol("a request without a method's name or its parameters")
        elif len(method) > _METHOD_LENGTH:
            self._break_protocol("a method's name without end")
        elif "id" in message and not _is_id(message["id"]):
            self._break_protocol("a request's id is neither a number nor a short text")
        elif "id" in message:
            task = asyncio.get_running_loop().create_task(
                self._serve(message["id"], method, params)
            )
            self._requests.add(task)
            task.add_done_callback(self._request_done)
        elif method == "log":
            self._log(params)
        elif method == "progress":
            self._progress(params, size)
        elif method == "event":
            if self._may_stream(size):
                self._require_services().event(params.get("value"))
        else:
            self._break_protocol(f"an unknown notification {method!r}")

    def _log(self, params: JsonObject) -> None:
        level, text = params.get("level"), params.get("message")
        if not isinstance(level, str) or not isinstance(text, str):
            self._break_protocol("a log line without level or message")
            return
        data, limit = text.encode(), self._limits.log_line_bytes
        self._budget.cut(max(len(data) - limit, 0))
        if self._budget.take(min(len(data), limit)):
            known = level if level in ("debug", "info", "warning", "error") else "info"
            shown = text if len(data) <= limit else line_text(data[:limit], len(data) - limit)
            self._require_services().log("log", known, shown)

    def _progress(self, params: JsonObject, size: int) -> None:
        fraction, text = params.get("fraction"), params.get("message")
        is_number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
        if (fraction is not None and not is_number) or not isinstance(text, str):
            self._break_protocol("progress without a fraction or message")
        elif self._may_stream(size):
            bounded = None if fraction is None else min(max(float(fraction), 0.0), 1.0)
            message = _shortened(text, self._limits.log_line_bytes)
            self._require_services().progress(bounded, message)

    def _may_stream(self, size: int) -> bool:
        self._streamed += max(size, _LEAST_CHARGE)
        if self._streamed <= self._limits.stream_bytes:
            return True
        limit = self._limits.stream_bytes
        text = f"the handler streamed more than {limit} bytes of events and progress"
        self._end(Answer(kind="output_too_large", message=text, size=self._streamed))
        return False

    async def _serve(self, number: JsonValue, method: str, params: JsonObject) -> None:
        reply: JsonObject = {"jsonrpc": "2.0", "id": number}
        try:
            reply["result"] = await self._require_services().request(method, params)
        except SwarmError as error:
            data = {"code": error.code}
            text = _shortened(str(error), _REFUSAL_LENGTH)
            reply["error"] = {"code": _REFUSED, "message": text, "data": data}
        self._send(reply)
        unread = 0 if self._transport is None else self._transport.get_write_buffer_size()
        if unread > self._call_bytes + _UNREAD_BYTES:
            self._break_protocol("it asks, and does not read the answers")

    def _request_done(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            self._break_protocol(f"the host failed to answer: {error}")
        elif not self.answer.done():
            self._take_frames()

    def _send(self, message: JsonObject) -> int:
        """Write a message, or leave it to the transport to; returns its size in bytes."""
        data = dump_bytes(message)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(len(data).to_bytes(4, "big") + data)
        return len(data)

    def _require_services(self) -> GuestServices:
        assert self._services is not None
        return self._services

    def _break_protocol(self, what: str) -> None:
        self._end(Answer(kind="protocol", message=f"the handler broke the wire protocol: {what}"))

    def _end(self, answer: Answer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)
            self._buffer.clear()


def _is_id(value: JsonValue) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and len(value) <= _ID_LENGTH)


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else ""


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} … [{len(text) - limit} characters cut]"
