"""The pure parts of the catalog's handlers, on whatever Hypothesis thinks of."""

from __future__ import annotations

import json
import subprocess
import unicodedata
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from packaging.requirements import InvalidRequirement, Requirement

import swarm
from tests.integration.catalog.conftest import load_module

AGENTS = Path(swarm.__file__).parent / "catalog" / "agents"

display = load_module(AGENTS / "repo-files", "display")
counting = load_module(AGENTS / "repo-files", "counting")
languages = load_module(AGENTS / "repo-files", "languages")
repository = load_module(AGENTS / "repo-files", "repository")
markdown = load_module(AGENTS / "repo-markdown", "main")
licence = load_module(AGENTS / "repo-licence", "main")
python_manifests = load_module(AGENTS / "repo-dependencies", "python_manifests")
other_manifests = load_module(AGENTS / "repo-dependencies", "other_manifests")
fetch = load_module(AGENTS / "http-fetch", "main")
chat = load_module(AGENTS / "claude-chat", "main")

texts = st.text(st.characters(codec="utf-8"), max_size=60) | st.text(
    st.sampled_from("-=+*_`~[]()<>!|#&;:./\\ \n\t01a\u202e"), max_size=30
)


@given(st.binary(max_size=200) | st.text(st.sampled_from("a \n\t\r"), max_size=40).map(str.encode))
def test_lines_are_counted_as_one_would_by_hand(data: bytes) -> None:
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    blank = sum(not line.strip() for line in lines)
    assert counting.count_lines(data) == (len(lines), blank)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.sampled_from([16, 32]))
def test_wide_encodings_are_narrowed(text: str, width: int) -> None:
    for order in ("le", "be"):
        encoded = f"\ufeff{text}".encode(f"utf-{width}-{order}")
        # What begins with U+FFFE U+0000 reads as a 32-bit mark, as it does for everyone.
        if width == 32 or not text.startswith("\0"):
            assert counting.narrow(encoded) == text.encode()


@given(st.binary(max_size=400))
def test_a_path_can_always_be_shown(path: bytes) -> None:
    shown = display.shown(path)
    assert len(shown) <= display.LONGEST
    assert not {unicodedata.category(c) for c in shown} & display.INVISIBLE
    shown.encode("utf-8")


@given(st.text(max_size=100))
def test_plain_text_is_shown_as_it_is(text: str) -> None:
    if text.isprintable():
        assert display.clean(text) == text


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        (b"a/b.py", True),
        (b".gitignore", True),
        (b"a/..b", True),
        (b"../x", False),
        (b"/etc/passwd", False),
        (b"a/../../x", False),
        (b"a//b", False),
        (b"./a", False),
        (b"a/.GIT/config", False),
        (b"", False),
    ],
)
def test_forged_paths_are_refused(path: bytes, plain: bool) -> None:
    assert repository.is_plain(path) is plain


@given(st.lists(st.binary(min_size=1).filter(lambda b: b"\0" not in b)), st.integers(1, 7))
def test_records_survive_any_chunking(items: list[bytes], size: int) -> None:
    data = b"".join(item + b"\0" for item in items)

    class Chunks:
        at = 0

        def read(self, _: int) -> bytes:
            self.at += size
            return data[self.at - size : self.at]

    assert list(repository.records(Chunks())) == items


@pytest.mark.parametrize(
    ("first_line", "expected"),
    [
        ("#!/usr/bin/python3", "Python"),
        ("#!/usr/bin/env python3.11", "Python"),
        ("#!/usr/bin/env -S VAR=1 node --flag", "JavaScript"),
        ("#! /bin/sh -e", "Shell"),
        ("#!", "Other"),
        ("#!/usr/bin/env", "Other"),
        ("no", "Other"),
    ],
)
def test_first_lines(first_line: str, expected: str) -> None:
    assert languages.Languages().of(b"bin/tool", first_line.encode() + b"\nx").name == expected


def test_there_are_languages_enough() -> None:
    table = languages.Languages()
    names = {"Python", "Rust", "Go", "TypeScript", "COBOL", "Zig", "Dockerfile", "Makefile"}
    assert names <= set(table.by_name)
    assert len(table.by_name) > 150
    for path, expected in {
        b"a.PY": "Python",
        b"Makefile.linux": "Makefile",
        b"x/CMakeLists.txt": "CMake",
        b".gitignore": "Ignore list",
        b"a.unknown": "Other",
        b"noextension": "Other",
    }.items():
        assert table.of(path, b"").name == expected


def rendered_text(source: str) -> list[str]:
    """The text that a line of Markdown shows; empty when it is more than text."""
    tokens = MarkdownIt("gfm-like", {"html": True, "linkify": False}).parse(source)
    inline = [child for token in tokens for child in token.children or ()]
    kinds = {token.type for token in tokens} | {child.type for child in inline}
    allowed = ("text", "inline", "paragraph", "bullet_list", "list_item", "blockquote")
    assert all(kind.startswith(allowed) for kind in kinds), kinds
    return ["".join(child.content for child in inline)]


@settings(max_examples=300)
@given(texts)
@example("1. one")
@example("- x")
@example("---")
@example("===")
@example("https://a www.b <i> &amp; \\")
def test_escaped_markdown_shows_the_text_itself(text: str) -> None:
    expected = [markdown.plain(text) or "–"]
    escaped = markdown.escape(text)
    assert rendered_text(escaped) == expected
    assert rendered_text(f"- {escaped}") == expected
    assert rendered_text(f"> {escaped}") == expected
    cells = MarkdownIt().enable("table").parse(f"| h | i |\n|---|---|\n| {escaped} | end |")
    shown = [
        "".join(child.content for child in token.children or ())
        for token in cells
        if token.type == "inline"
    ]
    assert shown == ["h", "i", *expected, "end"]


@settings(max_examples=5, deadline=None)
@given(st.lists(st.text(), min_size=50, max_size=100))
def test_html_values_stay_text(values: list[str]) -> None:
    program = """
      const { html } = require("./html.js");
      const values = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
      const made = values.map((value) => html`<i title="${value}">${[value, html`<b>`]}</i>`.text);
      process.stdout.write(JSON.stringify(made));
    """
    done = subprocess.run(
        ["node", "-e", program],
        cwd=AGENTS / "repo-html",
        input=json.dumps(values).encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    for value, made in zip(values, json.loads(done.stdout), strict=True):
        title, _, content = made.removeprefix('<i title="').partition('">')
        assert content == title + "<b></i>"
        assert not set(title) & set("<>\"'")
        entities = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'", "&amp;": "&"}
        for entity, character in entities.items():
            title = title.replace(entity, character)
        assert len(title.encode("utf-16-le")) <= len(value.encode("utf-16-le", "surrogatepass"))


@given(st.from_regex(r"[A-Za-z0-9._-]{1,12}(\[[a-z,]{0,5}\])? ?(>=|==|~=|@ )?[0-9a-z.*]{0,6}"))
def test_requirements_are_read_as_packaging_reads_them(text: str) -> None:
    try:
        expected = Requirement(text.strip())
    except InvalidRequirement:
        return
    found = python_manifests.parse_requirement(text, "runtime")
    assert found is not None
    assert found.name == expected.name
    assert (found.constraint == "") == (not expected.specifier and not expected.url)


READERS = [
    (module, name)
    for module in (python_manifests, other_manifests)
    for name in vars(module)
    if name.startswith("read_") and name not in ("read_poetry", "read_requirement_line")
    and name != "read_setup_argument"
]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "name"), READERS, ids=lambda value: getattr(value, "__name__", value)
)
@settings(max_examples=60, deadline=None)
@given(
    text=st.text() | st.sampled_from(['"', "{", "[", "\n", " ", "(", "<a>"]).map(lambda c: c * 9000)
)
def test_any_text_is_a_manifest_or_a_known_error(module: ModuleType, name: str, text: str) -> None:
    main = load_module(AGENTS / "repo-dependencies", "main")
    try:
        for found in getattr(module, name)(text, "x.txt"):
            assert isinstance(found, tuple)
    except main.UNREADABLE:
        pass


@given(st.text())
def test_any_text_can_be_asked_for_its_licence(text: str) -> None:
    assert isinstance(licence.identifiers(text), list)
    for one in licence.identifiers(text):
        assert one.isascii()


@given(st.integers(0, 30), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_to_a_limit(attempt: int, draw: float) -> None:
    pause = chat.pause_before_retry(attempt, None, draw)
    assert 0 < pause <= chat.LONGEST_PAUSE_SECONDS
    assert pause <= chat.FIRST_PAUSE_SECONDS * 2**attempt
    assert chat.pause_before_retry(attempt, 7.0, draw) == 7.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("Wed, 21", None),
        (None, None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert chat.parse_retry_after(value) == seconds


@given(st.text(max_size=40))
def test_any_url_is_checked_or_refused(url: str) -> None:
    try:
        checked = fetch.check_url(url)
    except fetch.FetchError:
        return
    assert checked.isascii()
    assert checked.lower().startswith(("http://", "https://"))
