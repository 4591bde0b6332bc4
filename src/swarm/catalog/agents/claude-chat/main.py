"""Call Anthropic's Messages API (``POST /v1/messages``) with the standard library.

Requests, answers and errors as in Anthropic's API reference, "Messages" and "Errors". The key is
sent to ``base_url`` alone: redirects are not followed, and no message holds it.
"""

from __future__ import annotations

import http.client
import json
import random
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

API_VERSION = "2023-06-01"
SECRET = "ANTHROPIC_API_KEY"
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024
MAX_ERROR_CHARACTERS = 500


class ApiError(Exception):
    """The API refused, failed or could not be reached; names the API's error type."""


class RetryableError(ApiError):
    """An error that may pass; ``pause_seconds`` is what the API asked us to wait, if it did."""

    def __init__(self, message: str, pause_seconds: float | None = None) -> None:
        super().__init__(message)
        self.pause_seconds = pause_seconds


def handler(inputs: dict[str, Any], context: Any) -> dict[str, Any]:
    """Send the conversation and return the answer's text and its usage.

    Raises:
        ApiError: nothing to ask, an unusable key or base URL, or the API's last refusal.
    """
    request = build_request(inputs, read_key(context))
    deadline = time.monotonic() + inputs["timeout_seconds"]
    attempt = 0
    while True:
        try:
            answer = read_answer(send(request, deadline))
        except RetryableError as error:
            if attempt == inputs["max_retries"]:
                raise ApiError(f"{error} (tried {attempt + 1} times)") from None
            pause = pause_before_retry(attempt, error.pause_seconds, random.random())
            if time.monotonic() + pause >= deadline:
                raise ApiError(
                    f"{error} (gave up: waiting {pause:.1f} s more would pass timeout_seconds)"
                ) from None
            attempt += 1
            context.log(f"{error}; retry {attempt} of {inputs['max_retries']} in {pause:.1f} s")
            time.sleep(pause)
        else:
            context.usage(tokens=answer["input_tokens"] + answer["output_tokens"])
            return answer


def read_key(context: Any) -> str:
    """The API key, checked here because urllib's own error would print it."""
    key = (context.secret(SECRET) or "").strip()
    if not key:
        raise ApiError(f"the secret {SECRET} is empty; set it to a key of the Anthropic console")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ApiError(f"the secret {SECRET} has spaces or odd characters in it; copy it again")
    return str(key)


def build_request(inputs: dict[str, Any], key: str) -> urllib.request.Request:
    """The HTTP request for ``inputs``.

    Raises:
        ApiError: there is nothing to ask, or ``base_url`` is not an http(s) URL.
    """
    base = inputs["base_url"].rstrip("/")
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ApiError(
            f"base_url {base!r} is not usable; give it as https://host or https://host/path"
        )
    body = json.dumps(request_body(inputs), ensure_ascii=False, allow_nan=False).encode()
    headers = {
        "x-api-key": key,
        "anthropic-version": API_VERSION,
        "content-type": "application/json",
        "accept": "application/json",
        "user-agent": "swarm-claude-chat/1.0",
    }
    return urllib.request.Request(f"{base}/v1/messages", body, headers, method="POST")


def request_body(inputs: dict[str, Any]) -> dict[str, Any]:
    """The JSON body: optional parameters stand in it only when they were given."""
    messages = list(inputs.get("messages") or [])
    if inputs.get("prompt"):
        messages.append({"role": "user", "content": inputs["prompt"]})
    if not messages:
        raise ApiError("there is nothing to ask: give `prompt`, `messages` or both")
    body = {"model": inputs["model"], "max_tokens": inputs["max_tokens"], "messages": messages}
    if inputs.get("system"):
        body["system"] = inputs["system"]
    if inputs.get("temperature") is not None:
        body["temperature"] = inputs["temperature"]
    return body


def make_opener() -> urllib.request.OpenerDirector:
    """An opener that follows no redirect, so that the key goes nowhere else."""
    opener = urllib.request.OpenerDirector()
    for part in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
    ):
        opener.add_handler(part)
    return opener


def send(request: urllib.request.Request, deadline: float) -> bytes:
    """One attempt; returns the body of a 200 answer.

    Raises:
        RetryableError: 429, 5xx (529 among them), or the connection failed.
        ApiError: any other answer.
    """
    host = urlsplit(request.full_url).netloc
    try:
        remaining = max(0.001, deadline - time.monotonic())
        with make_opener().open(request, timeout=remaining) as response:
            body = response.read(MAX_ANSWER_BYTES)
            if response.status == 200:
                return bytes(body)
            raise failure(response.status, body, response.headers.get("retry-after"))
    except TimeoutError:
        raise ApiError(f"{host} did not answer in time; raise timeout_seconds") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise ApiError(f"{host} did not answer in time; raise timeout_seconds") from None
        raise RetryableError(f"no connection to {host}: {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        if "Tunnel connection failed: 403" in str(error):
            raise ApiError(f"the egress proxy refused the connection: {error}") from None
        raise RetryableError(
            f"the connection to {host} broke: {error or type(error).__name__}"
        ) from None


def failure(status: int, body: bytes, retry_after: str | None) -> ApiError:
    """The error for an answer that is not 200.

    A spend limit is reported as 429 like a rate limit but does not pass by waiting: it carries
    ``error.details.error_code`` and no Retry-After.
    """
    kind, message, code = "unknown_error", body.decode("utf-8", "replace").strip(), None
    try:
        error = json.loads(body)["error"]
        kind, message = str(error["type"]), str(error["message"])
        code = (error.get("details") or {}).get("error_code")
    except (ValueError, LookupError, TypeError, AttributeError):
        pass  # A proxy's or gateway's own error page: its text is the message.
    text = f"HTTP {status} {kind}: {message[:MAX_ERROR_CHARACTERS] or 'no explanation given'}"
    if 300 <= status < 400:
        return ApiError(f"{text}; redirects are not followed, check base_url")
    if code == "enforced_spend_limit_reached":
        return ApiError(f"{text}; the account's spend limit is reached")
    if status == 429 or status >= 500:
        return RetryableError(text, parse_retry_after(retry_after))
    return ApiError(text)


def parse_retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header; None when absent or not a number of seconds."""
    try:
        seconds = float(value) if value is not None else -1.0
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def pause_before_retry(attempt: int, asked: float | None, draw: float) -> float:
    """Seconds to wait before retry ``attempt + 1``.

    What the API asked for counts; otherwise the pause doubles, and up to a quarter is drawn off
    it at random (``draw`` in [0, 1)) so that many clients do not come back at once.
    """
    if asked is not None:
        return asked
    pause = min(FIRST_PAUSE_SECONDS * 2.0**attempt, LONGEST_PAUSE_SECONDS)
    return pause * (1 - draw / 4)


def read_answer(body: bytes) -> dict[str, Any]:
    """The outputs from a 200 answer.

    Raises:
        ApiError: it is not a message, as when ``base_url`` is some other service.
    """
    try:
        message = json.loads(body)
        blocks = message["content"]
        usage = message["usage"]
        return {
            "text": "".join(block["text"] for block in blocks if block["type"] == "text"),
            "model": message["model"],
            "stop_reason": message.get("stop_reason") or "",
            "input_tokens": usage["input_tokens"],
            "output_tokens": usage["output_tokens"],
        }
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ApiError(
            f"the answer is not one of the Messages API ({type(error).__name__}: {error}); "
            "check base_url"
        ) from None
