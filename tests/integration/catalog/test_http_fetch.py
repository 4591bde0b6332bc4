"""http-fetch against a real HTTP server."""

from __future__ import annotations

import base64
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest


def answering(
    status: int = 200,
    body: bytes = b"",
    headers: tuple[tuple[str, str], ...] = (),
    length: int | None = None,
) -> Any:
    def answer(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return answer


def test_text_comes_back_with_status_and_headers(agents: Any, web: Any) -> None:
    web.answer = answering(
        418, "Grüße".encode(), (("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("X", "y"))
    )
    got = agents("http-fetch", url=web.url + "/pot?x=1#part")
    assert (got["status"], got["reason"], got["body"]) == (418, "I'm a Teapot", "Grüße")
    assert got["url"] == web.url + "/pot?x=1"
    assert got["headers"]["set-cookie"] == "a=1"
    assert (got["redirects"], got["truncated"], got["bytes"]) == (0, False, 7)


def test_post_sends_body_and_headers(agents: Any, web: Any) -> None:
    web.answer = answering(201)
    agents(
        "http-fetch",
        url=web.url + "/in",
        method="POST",
        body='{"ä": 1}',
        headers={"Content-Type": "a/b"},
    )
    method, path, headers, body = web.requests[0]
    assert (method, path, body) == ("POST", "/in", '{"ä": 1}'.encode())
    assert headers["content-type"] == "a/b"


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"\xff\xfe\x00", "application/octet-stream", None),
        (b"nul\x00", "text/plain", None),
        (b"\x01" * 5000, "text/plain", None),
        ("é".encode("latin-1"), "text/plain; charset=ISO-8859-1", "é"),
        ("é".encode("latin-1"), "text/plain", None),
        (b"x", "text/plain; charset=no-such-charset", None),
    ],
)
def test_bytes_that_are_not_text_come_in_base64(
    agents: Any, web: Any, body: bytes, content_type: str, expected: str | None
) -> None:
    web.answer = answering(200, body, (("Content-Type", content_type),))
    got = agents("http-fetch", url=web.url)
    if expected is None:
        assert base64.b64decode(got["body_base64"]) == body
        assert got["body"] is None
    else:
        assert got["body"] == expected


def test_a_long_body_is_cut_between_characters(agents: Any, web: Any) -> None:
    web.answer = answering(200, "ää".encode())
    got = agents("http-fetch", url=web.url, max_bytes=3)
    assert (got["body"], got["bytes"], got["truncated"]) == ("ä", 3, True)
    got = agents("http-fetch", url=web.url, max_bytes=4)
    assert (got["body"], got["truncated"]) == ("ää", False)


def redirecting(target: str, status: int) -> Any:
    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        where = () if handler.path == "/end" else (("Location", target),)
        answering(200 if handler.path == "/end" else status, b"here", where)(handler, body)

    return answer


def test_redirects_are_followed_and_counted(agents: Any, web: Any) -> None:
    web.answer = redirecting("/end", 302)
    got = agents("http-fetch", url=web.url + "/start")
    assert (got["redirects"], got["status"], got["url"]) == (1, 200, web.url + "/end")
    got = agents("http-fetch", url=web.url + "/start", max_redirects=0)
    assert (got["redirects"], got["status"]) == (0, 302)


def test_a_redirect_loop_ends(agents: Any, web: Any) -> None:
    web.answer = redirecting("/again", 307)
    with pytest.raises(Exception, match="more than 3 redirects"):
        agents("http-fetch", url=web.url, max_redirects=3)
    assert len(web.requests) == 4


@pytest.mark.parametrize(
    ("status", "method", "body"), [(303, "GET", b""), (302, "GET", b""), (307, "POST", b"b")]
)
def test_method_after_a_redirect(
    agents: Any, web: Any, status: int, method: str, body: bytes
) -> None:
    web.answer = redirecting("/end", status)
    agents("http-fetch", url=web.url + "/start", method="POST", body="b")
    assert web.requests[1][0] == method
    assert web.requests[1][3] == body


def test_credentials_stay_at_their_origin(agents: Any, web: Any, other_web: Any) -> None:
    secret = {"Authorization": "Bearer abc", "Cookie": "c=1", "X-Plain": "kept"}
    web.answer = redirecting(other_web.url + "/end", 302)
    other_web.answer = answering()
    agents("http-fetch", url=web.url, headers=secret)
    seen = other_web.requests[0][2]
    assert "authorization" not in seen
    assert "cookie" not in seen
    assert seen["x-plain"] == "kept"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file:///etc/passwd", "only http and https"),
        ("ftp://example.com/", "only http and https"),
        ("example.com", "only http and https"),
        ("http://", "names no host"),
        ("http://a b/", "percent-encode"),
        ("http://example.com/\r\nX: y", "percent-encode"),
        ("http://user:pass@example.com/", "Authorization header"),
        ("http://example.com:99999/", "malformed"),
        ("http://[::1/", "malformed"),
    ],
)
def test_urls_that_cannot_be_fetched(agents: Any, url: str, says: str) -> None:
    with pytest.raises(Exception, match=says):
        agents("http-fetch", url=url)


def test_a_redirect_cannot_leave_http(agents: Any, web: Any) -> None:
    web.answer = redirecting("file:///etc/passwd", 302)
    with pytest.raises(Exception, match="only http and https"):
        agents("http-fetch", url=web.url)


@pytest.mark.parametrize(
    "headers", [{"X": "a\r\nY: b"}, {"Content-Length": "1"}, {"a b": "c"}, {"X": "€"}]
)
def test_headers_that_would_break_the_request(agents: Any, web: Any, headers: Any) -> None:
    with pytest.raises(Exception, match="header"):
        agents("http-fetch", url=web.url, headers=headers)
    assert web.requests == []


def test_a_body_that_ends_early_is_an_error(agents: Any, web: Any) -> None:
    web.answer = answering(200, b"half", length=8)
    with pytest.raises(Exception, match=r"no answer from 127\.0\.0\.1"):
        agents("http-fetch", url=web.url)


def test_a_silent_server_is_given_up(agents: Any, web: Any) -> None:
    released = threading.Event()
    web.answer = lambda *_: released.wait(30)
    try:
        with pytest.raises(Exception, match=r"did not answer within 0\.2 s"):
            agents("http-fetch", url=web.url, timeout_seconds=0.2)
    finally:
        released.set()


def test_a_refused_connection_names_the_host(agents: Any) -> None:
    with pytest.raises(Exception, match=r"no connection to 127\.0\.0\.1:1: .*refused"):
        agents("http-fetch", url="http://127.0.0.1:1/")


def test_the_proxy_variable_is_used(agents: Any, web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    web.answer = answering(200, b"by proxy")
    monkeypatch.setenv("http_proxy", web.url)
    monkeypatch.delenv("no_proxy", raising=False)
    got = agents("http-fetch", url="http://somewhere.example/page")
    assert got["body"] == "by proxy"
    assert web.requests[0][1] == "http://somewhere.example/page"
