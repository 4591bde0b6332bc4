"""claude-chat against a server that answers like the Messages API."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

KEY = "sk-ant-test-0123456789"


def reply(
    handler: BaseHTTPRequestHandler, status: int, body: Any, headers: dict[str, str] | None = None
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def message(text: str = "Hello!") -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test-1",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": text[:2]},
            {"type": "text", "text": text[2:]},
        ],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 12, "output_tokens": 3},
    }


def refusal(kind: str, text: str, **more: Any) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": text, **more}, "request_id": "r"}


@pytest.fixture
def chat(agents: Any, web: Any) -> Any:
    agents.secrets["ANTHROPIC_API_KEY"] = KEY

    def call(**inputs: Any) -> dict[str, Any]:
        outputs: dict[str, Any] = agents("claude-chat", base_url=web.url + "/", **inputs)
        return outputs

    return call


def test_prompt_and_answer(chat: Any, web: Any) -> None:
    web.answer = lambda handler, _: reply(handler, 200, message("Grüezi"))
    got = chat(prompt="Hi", system="Be kind.", model="m", max_tokens=7, temperature=0)
    assert got == {
        "text": "Grüezi",
        "model": "claude-test-1",
        "stop_reason": "end_turn",
        "input_tokens": 12,
        "output_tokens": 3,
    }
    method, path, headers, body = web.requests[0]
    assert (method, path) == ("POST", "/v1/messages")
    assert headers["x-api-key"] == KEY
    assert headers["anthropic-version"] == "2023-06-01"
    assert json.loads(body) == {
        "model": "m",
        "max_tokens": 7,
        "temperature": 0,
        "system": "Be kind.",
        "messages": [{"role": "user", "content": "Hi"}],
    }


def test_what_was_not_given_is_not_sent(chat: Any, web: Any) -> None:
    web.answer = lambda handler, _: reply(handler, 200, message())
    before = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    chat(messages=before, prompt="c")
    body = json.loads(web.requests[0][3])
    assert body["messages"] == [*before, {"role": "user", "content": "c"}]
    assert set(body) == {"model", "max_tokens", "messages"}


def test_nothing_to_ask(chat: Any, web: Any) -> None:
    with pytest.raises(Exception, match="give `prompt`"):
        chat(system="only this")
    assert web.requests == []


@pytest.mark.parametrize("status", [429, 500, 503, 529])
def test_passing_errors_are_retried(chat: Any, web: Any, agents: Any, status: int) -> None:
    def answer(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        if len(web.requests) < 3:
            reply(handler, status, refusal("overloaded_error", "busy"), {"Retry-After": "0"})
        else:
            reply(handler, 200, message())

    web.answer = answer
    assert chat(prompt="x")["text"] == "Hello!"
    assert len(web.requests) == 3
    assert "overloaded_error" in agents.context.lines[0]
    assert not any(KEY in line for line in agents.context.lines)


def test_retries_end(chat: Any, web: Any) -> None:
    web.answer = lambda handler, _: reply(
        handler, 529, refusal("overloaded_error", "Overloaded"), {"Retry-After": "0"}
    )
    says = r"HTTP 529 overloaded_error: Overloaded \(tried 3 times\)"
    with pytest.raises(Exception, match=says):
        chat(prompt="x", max_retries=2)
    assert len(web.requests) == 3


def test_a_wait_beyond_the_time_limit_is_not_begun(chat: Any, web: Any) -> None:
    web.answer = lambda handler, _: reply(
        handler, 429, refusal("rate_limit_error", "slow down"), {"Retry-After": "3600"}
    )
    with pytest.raises(Exception, match=r"rate_limit_error: slow down .*timeout_seconds"):
        chat(prompt="x", timeout_seconds=10)
    assert len(web.requests) == 1


def test_a_spend_limit_is_not_retried(chat: Any, web: Any) -> None:
    details = {"error_code": "enforced_spend_limit_reached"}
    web.answer = lambda handler, _: reply(
        handler, 429, refusal("rate_limit_error", "spent", details=details)
    )
    with pytest.raises(Exception, match="spend limit"):
        chat(prompt="x")
    assert len(web.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (401, "authentication_error")]
)
def test_refusals_name_the_error_type_and_not_the_key(
    chat: Any, web: Any, status: int, kind: str
) -> None:
    web.answer = lambda handler, _: reply(handler, status, refusal(kind, "no good"))
    with pytest.raises(Exception, match=f"HTTP {status} {kind}: no good") as caught:
        chat(prompt="x")
    assert len(web.requests) == 1
    assert KEY not in str(caught.value)


def test_a_redirect_does_not_carry_the_key_away(chat: Any, web: Any, other_web: Any) -> None:
    web.answer = lambda handler, _: reply(handler, 302, b"", {"Location": other_web.url})
    with pytest.raises(Exception, match="redirects are not followed"):
        chat(prompt="x")
    assert other_web.requests == []


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"content": 1}', b'{"content": []}', b"null"])
def test_an_answer_of_another_service(chat: Any, web: Any, body: bytes) -> None:
    web.answer = lambda handler, _: reply(handler, 200, body)
    with pytest.raises(Exception, match="check base_url"):
        chat(prompt="x")


@pytest.mark.parametrize("body", [b"<h1>Bad gateway</h1>", b"[1]", b"null", b'{"error": "x"}'])
def test_an_error_page_that_is_not_the_apis(chat: Any, web: Any, body: bytes) -> None:
    web.answer = lambda handler, _: reply(handler, 404, body)
    with pytest.raises(Exception, match="HTTP 404 unknown_error"):
        chat(prompt="x")


@pytest.mark.parametrize("key", ["", "  ", "sk-ant\nX-Other: 1", "sk-änt"])
def test_a_bad_key_is_not_printed(chat: Any, agents: Any, web: Any, key: str) -> None:
    agents.secrets["ANTHROPIC_API_KEY"] = key
    with pytest.raises(Exception, match="the secret ANTHROPIC_API_KEY") as caught:
        chat(prompt="x")
    assert web.requests == []
    assert not key.strip() or key not in str(caught.value)


@pytest.mark.parametrize("base", ["api.anthropic.com", "ftp://x", "https://h/?q=1", "https://"])
def test_a_base_url_that_is_none(agents: Any, base: str) -> None:
    agents.secrets["ANTHROPIC_API_KEY"] = KEY
    with pytest.raises(Exception, match="base_url"):
        agents("claude-chat", prompt="x", base_url=base)
