"""One HTTP request with the standard library, through the sandbox's egress proxy.

The proxy is found in the usual variables (``http_proxy``, ``https_proxy``), which the sandbox sets
when the network is granted. Redirects are followed here rather than by urllib, so that they are
counted, share one deadline, and cannot carry credentials to another origin.
"""

from __future__ import annotations

import base64
import codecs
import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

REDIRECTS = frozenset({301, 302, 303, 307, 308})
BODYLESS = frozenset({"GET", "HEAD"})
CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization"})
TUNNEL_REFUSED = "Tunnel connection failed: 403 "
"""How http.client begins the message when a proxy refuses a CONNECT."""
CHUNK_BYTES = 64 * 1024
TOKEN_CHARACTERS = frozenset(
    "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)


class FetchError(Exception):
    """The exchange did not come to an answer; the message says why and what to do."""


class Request(NamedTuple):
    """What is sent in one hop."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None


class Answer(NamedTuple):
    """What came back from one hop."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes
    truncated: bool


def handler(inputs: dict[str, Any]) -> dict[str, Any]:
    """Send the request, follow redirects, and return the last answer.

    Raises:
        FetchError: the URL or a header cannot be sent, there are too many redirects, the time is
            over, or no answer came.
    """
    request = first_request(inputs)
    deadline = time.monotonic() + inputs["timeout_seconds"]
    redirects = 0
    while True:
        answer = exchange(request, deadline, inputs["timeout_seconds"], inputs["max_bytes"])
        if not is_redirect(answer) or inputs["max_redirects"] == 0:
            break
        if redirects == inputs["max_redirects"]:
            raise FetchError(
                f"more than {redirects} redirects, the last to {answer.headers['location']!r}; "
                "raise max_redirects if that is right"
            )
        request = next_request(request, answer)
        redirects += 1
    return {
        "status": answer.status,
        "reason": answer.reason,
        "url": request.url,
        "redirects": redirects,
        "headers": answer.headers,
        **represent_body(answer.body, answer.headers.get("content-type", ""), answer.truncated),
        "bytes": len(answer.body),
        "truncated": answer.truncated,
    }


def first_request(inputs: dict[str, Any]) -> Request:
    """The request as the caller described it."""
    method = inputs["method"]
    headers = dict(inputs["headers"])
    for name, value in headers.items():
        check_header(name, value)
    given = {name.lower() for name in headers}
    if "user-agent" not in given:
        headers["User-Agent"] = "swarm-http-fetch/1.0"
    if "accept" not in given:
        headers["Accept"] = "*/*"
    body = inputs.get("body")
    if body is not None and method in BODYLESS:
        raise FetchError(f"a {method} request has no body; leave `body` out or use POST")
    if body is not None and "content-type" not in given:
        headers["Content-Type"] = "text/plain; charset=utf-8"
    return Request(
        method, check_url(inputs["url"]), headers, None if body is None else body.encode()
    )


def check_url(url: str) -> str:
    """Return ``url`` without its fragment when it can be fetched.

    Raises:
        FetchError: it is not an absolute http(s) URL of visible ASCII characters, or it holds a
            user name, which would end up in logs.
    """
    if not url.isascii() or any(character <= " " or character == "\x7f" for character in url):
        raise FetchError(
            f"the URL {url!r} has spaces, control or non-ASCII characters; percent-encode them"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise FetchError(f"the URL {url!r} is malformed: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise FetchError(
            f"only http and https URLs can be fetched, got {parts.scheme or 'no scheme'} in {url!r}"
        )
    if not parts.hostname or port == 0:
        raise FetchError(f"the URL {url!r} names no host to ask")
    if parts.username is not None:
        raise FetchError("put credentials into an Authorization header, not into the URL")
    return parts._replace(fragment="").geturl()


def check_header(name: str, value: str) -> None:
    """Refuse what would change the request's framing or smuggle a second header.

    Raises:
        FetchError: the header cannot be sent; its value is not repeated, it may be a secret.
    """
    if not name or not TOKEN_CHARACTERS.issuperset(name):
        raise FetchError(f"{name!r} is not a header name")
    if name.lower() in ("host", "content-length", "transfer-encoding", "connection"):
        raise FetchError(f"the header {name} is set from the URL and the body; leave it out")
    if any(c in value for c in "\r\n\0"):
        raise FetchError(f"the value of the header {name} has a line break or NUL in it")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise FetchError(f"the value of the header {name} has non-Latin-1 characters") from None


def is_redirect(answer: Answer) -> bool:
    """Whether the answer sends the client elsewhere."""
    return answer.status in REDIRECTS and "location" in answer.headers


def next_request(request: Request, answer: Answer) -> Request:
    """The request that follows a redirect (RFC 9110, section 15.4).

    303 turns every method but HEAD into GET, and so do 301 and 302 with POST, as browsers do.
    Credentials are only sent on to the same origin.
    """
    target = check_url(urljoin(request.url, answer.headers["location"].replace(" ", "%20")))
    method, body, headers = request.method, request.body, dict(request.headers)
    becomes_get = answer.status == 303 or (answer.status in (301, 302) and method == "POST")
    if becomes_get and method != "HEAD":
        method, body = "GET", None
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
    if origin(target) != origin(request.url):
        headers = {n: value for n, value in headers.items() if n.lower() not in CREDENTIALS}
    return Request(method, target, headers, body)


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port, with the default port filled in."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def make_opener() -> urllib.request.OpenerDirector:
    """An opener for http and https alone: no files, no FTP, no redirects, no errors by status."""
    opener = urllib.request.OpenerDirector()
    for part in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
    ):
        opener.add_handler(part)
    return opener


def exchange(request: Request, deadline: float, timeout: float, max_bytes: int) -> Answer:
    """Send one request and read its answer, all before ``deadline`` (monotonic seconds)."""
    host = urlsplit(request.url).netloc
    too_late = f"{host} did not answer within {timeout:g} s; raise timeout_seconds if it is slow"
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise FetchError(too_late)
    message = urllib.request.Request(request.url, request.body, request.headers)
    message.method = request.method
    try:
        with make_opener().open(message, timeout=remaining) as response:
            body, truncated = read_body(response, max_bytes, deadline, too_late)
            headers = join_headers(response)
            if headers.get("proxy-status", "").startswith("swarm;"):
                raise FetchError(f"refused by the egress proxy: {body.decode().strip()}")
            return Answer(response.status, response.reason or "", headers, body, truncated)
    except TimeoutError:
        raise FetchError(too_late) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise FetchError(too_late) from None
        raise FetchError(f"no connection to {host}: {explain(error.reason)}") from None
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(f"no answer from {host}: {explain(error)}") from None


def read_body(
    response: http.client.HTTPResponse, max_bytes: int, deadline: float, too_late: str
) -> tuple[bytes, bool]:
    """Read at most ``max_bytes``; the flag tells whether there was more.

    Raises:
        FetchError: the deadline passed; a server that sends byte after byte cannot hold us longer.
    """
    parts: list[bytes] = []
    length = 0
    while length <= max_bytes:
        part = response.read1(min(CHUNK_BYTES, max_bytes + 1 - length))
        if not part:
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
            break
        parts.append(part)
        length += len(part)
        if time.monotonic() > deadline:
            raise FetchError(too_late)
    body = b"".join(parts)
    return body[:max_bytes], len(body) > max_bytes


def join_headers(response: http.client.HTTPResponse) -> dict[str, str]:
    """Headers by lower-case name, repeated ones joined as RFC 9110, section 5.3, allows."""
    joined: dict[str, str] = {}
    for name, value in response.getheaders():
        name = name.lower()
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def represent_body(body: bytes, content_type: str, truncated: bool) -> dict[str, str]:
    """``body`` when the bytes are text in the declared charset (UTF-8 if none), else base64.

    Text that would grow more as escaped JSON than as base64 is sent as base64 too, so that
    ``max_bytes`` always keeps the output below the size limit.
    """
    charset = declared_charset(content_type)
    try:
        decoder = codecs.getincrementaldecoder(charset)("strict")
        text = decoder.decode(body, final=not truncated)
    except (LookupError, UnicodeError):
        text = None
    if text is None or "\0" in text or len(json.dumps(text)) > 2 * len(body) + 1024:
        return {"body_base64": base64.b64encode(body).decode()}
    return {"body": text}


def declared_charset(content_type: str) -> str:
    """The charset parameter of a Content-Type value, UTF-8 when there is none."""
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip("\"'") or "utf-8"
    return "utf-8"


def explain(reason: object) -> str:
    """What a network error means, with the remedy where one is known."""
    text = str(reason) or type(reason).__name__
    if text.startswith(TUNNEL_REFUSED):
        return f"refused by the egress proxy: {text[len(TUNNEL_REFUSED) :]}"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"its certificate is not trusted ({text})"
    if "Network is unreachable" in text or "Name or service not known" in text:
        return f"{text}; an agent without a network grant reaches nothing"
    return text
