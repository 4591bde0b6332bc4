"""A repository whose configuration would run programs, and texts that would be markup."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tests.integration.catalog.conftest import CATALOG
from tests.integration.catalog.repositories import ODD_NAMES, GitRepository, new_repository

COLOUR = re.compile(r"--(\w+): (#[0-9a-f]{6});")
ROOT_BLOCK = re.compile(r":root \{([^}]*)\}")
EVIL = "<script>alert(1)</script>"
EVIL_TEXTS = (
    EVIL,
    '"><img src=x onerror=alert(1)>',
    "[click](javascript:alert(1))",
    "![x](https://example.com/x.png)",
    "| a | b |",
    "`code` **bold** _it_ ~~no~~ $x$ &lt;",
    "https://example.com www.example.com @someone #1",
    "\u202eright to left\u2066",
    "</title></style></td></table><h1>big</h1>",
    "- [ ] 1. item",
    "\x1b[31mred\x07",
)


def arm(repository: GitRepository, trap: Path) -> None:
    """Make every hook and configured program of the repository touch ``trap``."""
    program = repository.path / ".git" / "trap.sh"
    program.write_text(f"#!/bin/sh\ntouch '{trap}'\ncat\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    settings = [
        "core.fsmonitor",
        "core.pager",
        "core.sshCommand",
        "core.askPass",
        "core.editor",
        "core.alternateRefsCommand",
        "core.gitProxy",
        "diff.external",
        "diff.x.textconv",
        "diff.x.command",
        "filter.x.clean",
        "filter.x.smudge",
        "filter.x.process",
        "gpg.program",
        "gpg.ssh.program",
        "pager.log",
        "pager.ls-files",
        "credential.helper",
        "uploadpack.packObjectsHook",
        "alias.log",
    ]
    for name in settings:
        shell = "!" if name.startswith("alias") else ""
        repository.git("config", name, shell + os.fspath(program))
    repository.git("config", "filter.x.required", "true")
    repository.git("config", "log.showSignature", "true")
    repository.git("config", "fetch.recurseSubmodules", "true")
    hooks = repository.path / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for hook in ("post-index-change", "fsmonitor-watchman", "reference-transaction", "pre-commit"):
        (hooks / hook).symlink_to(program)


def test_nothing_of_the_repository_is_run(report_on: Any, tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repo")
    repository.write(".gitattributes", "* filter=x diff=x\n")
    repository.write("a.py", "x = 1  # TODO y\n")
    repository.commit()
    tree = repository.git("rev-parse", "HEAD^{tree}").decode().strip()
    identity = "A <a@b> 1700000000 +0000"
    signed = (
        f"tree {tree}\nauthor {identity}\ncommitter {identity}\n"
        "gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n\nx\n"
    )
    (tmp_path / "raw").write_text(signed)
    name = repository.git("hash-object", "-t", "commit", "-w", os.fspath(tmp_path / "raw"))
    repository.git("update-ref", "HEAD", name.decode().strip())
    trap = tmp_path / "sprung"
    arm(repository, trap)

    report = report_on(repository.path)
    assert report["debt"]["total"] == 1
    assert report["activity"]["commits"] == 1
    assert not trap.exists()
    # The trap is a real one: plain git walks into it.
    repository.write("a.py", "changed\n")
    with suppress(AssertionError):
        repository.git("status")
    assert trap.exists()


def test_a_partial_clone_fetches_nothing(report_on: Any, tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repo")
    repository.write("a.py", "x = 1\n")
    repository.commit("one")
    repository.write("b.py", "x = 2\n")
    repository.commit("two")
    trap = tmp_path / "sprung"
    program = tmp_path / "trap.sh"
    program.write_text(f"#!/bin/sh\ntouch '{trap}'\nexit 1\n")
    program.chmod(0o755)
    repository.git("config", "core.repositoryformatversion", "1")
    repository.git("config", "extensions.partialClone", "origin")
    repository.git("config", "remote.origin.url", "ssh://somewhere.example/x")
    repository.git("config", "remote.origin.promisor", "true")
    repository.git("config", "core.sshCommand", os.fspath(program))
    repository.git("config", "protocol.ssh.allow", "always")
    first = repository.git("rev-parse", "HEAD~1").decode().strip()
    (repository.path / ".git" / "objects" / first[:2] / first[2:]).unlink()

    report = report_on(repository.path)
    assert report["activity"]["available"] is False
    assert not trap.exists()
    with pytest.raises(AssertionError):
        repository.git("log")
    assert trap.exists()


@pytest.fixture
def evil(tmp_path: Path) -> GitRepository:
    """A repository whose names, authors, comments and manifests are all attempts at markup."""
    repository = new_repository(tmp_path / "repo")
    for name in ODD_NAMES:
        repository.write(name, f"# TODO {EVIL} | `x`\n")
    for number, text in enumerate(EVIL_TEXTS):
        repository.write(f"t{number}.py", f"# FIXME {text}\n")
        author = repository.by(text.replace("<", "(").replace(">", ")"), f"a{number}@example.com")
        repository.commit(text, **author)
    names = ", ".join(f'"{text}": "{EVIL}"' for text in EVIL_TEXTS[2:6])
    repository.write("package.json", f'{{"license": "{EVIL}", "dependencies": {{{names}}}}}')
    repository.write("LICENSE", EVIL)
    repository.write(f"requirements-{EVIL.replace('/', '')}.txt", "???\n")
    repository.commit()
    return repository


class Tags(HTMLParser):
    """Collects tags, attributes and text, and checks that tags close in order."""

    VOID = frozenset({"meta", "br", "img", "input", "link", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.ids: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html_has_no_foreign_markup(report_on: Any, evil: GitRepository) -> None:
    name = '</title><svg onload="alert(1)">'
    page = report_on(evil.path, name=name).text("report.html")
    parser = Tags()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert not parser.tags & {"script", "img", "a", "iframe", "link", "form", "object", "base"}
    assert not any(attribute.startswith("on") for attribute in parser.attributes)
    assert not parser.attributes & {"href", "src", "style", "action", "xlink:href"}
    assert len(parser.ids) == len(set(parser.ids))
    text = "".join(parser.text)
    assert name in text
    assert EVIL in text
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "Content-Security-Policy" in page


def test_html_is_accessible(report_on: Any, evil: GitRepository) -> None:
    page = report_on(evil.path).text("report.html")
    assert page.count("<table>") == page.count("<caption>") > 5
    assert page.count("<h1>") == 1
    assert page.count('<th scope="row">') > 20
    assert 'lang="en"' in page
    assert page.count("<svg") == page.count('role="img"') + page.count('aria-hidden="true"')
    assert "prefers-color-scheme: dark" in page


def test_markdown_has_no_foreign_markup(report_on: Any, evil: GitRepository) -> None:
    report = report_on(evil.path, name="# [x](y) <b>")
    parser = MarkdownIt("gfm-like", {"html": True, "linkify": False}).enable("table")
    tokens = parser.parse(report.text("report.md"))
    inline = [child for token in tokens for child in token.children or ()]
    kinds = {token.type for token in (*tokens, *inline)}
    assert not kinds & {
        *("html_inline", "html_block", "link_open", "image", "code_inline", "em_open", "s_open"),
        *("fence", "code_block", "ordered_list_open"),
    }
    assert [token.content for token in inline if token.type == "strong_open"] == [""]
    headings = [
        tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"
    ]
    assert len(headings) == 8
    text = "\n".join(child.content for child in inline)
    assert EVIL in text
    assert "[click](javascript:alert(1))" in text
    assert not any(ord(c) < 32 and c != "\n" for c in report.text("report.md"))
    summary = report["markdown"]["summary"]
    assert not any(ord(c) < 32 and c != "\n" for c in summary)
    assert len(summary.splitlines()) == 10


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_html_has_contrast_in_both_schemes() -> None:
    style = (CATALOG / "agents" / "repo-html" / "page.css").read_text()
    schemes = [dict(COLOUR.findall(block)) for block in ROOT_BLOCK.findall(style)]
    assert len(schemes) == 2
    for colours in schemes:
        for text in ("ink", "quiet", "accent", "good", "fair", "poor"):
            for ground in ("paper", "raised"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        for number in range(8):
            assert contrast(colours[f"c{number}"], colours["paper"]) >= 3, number
