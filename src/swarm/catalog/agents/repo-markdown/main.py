"""Write the report as Markdown (CommonMark with tables).

Everything that comes from the repository is escaped: a file name or an author cannot add a
heading, a link, an image or HTML.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

SPECIAL = re.compile(r"[$&*<\[\\\]`|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""Punctuation that means something inside a line; an underscore only at a word's edge."""
LINE_START = re.compile(r"^(\d{1,9}(?=[.)](?:\s|$))|(?=[-+=#>]))")
"""What would begin a list, a heading or a quotation, where foreign text begins a line."""
MAX_ROWS = 15

Json = dict[str, Any]


def handler(inputs: Json, context: Any) -> Json:
    """Write ``report.md`` and return it with its beginning."""
    report = inputs["report"]
    path = Path(os.environ["SWARM_OUTPUTS"]) / "report.md"
    path.write_text("\n".join(document(report)) + "\n", "utf-8")
    return {
        "report": context.files.output("report.md", media_type="text/markdown"),
        "summary": "\n".join(brief(report)),
    }


def document(report: Json) -> Iterator[str]:
    """The lines of the whole report."""
    yield from beginning(report)
    yield from languages(report["files"])
    yield from files(report["files"])
    yield from activity(report["activity"])
    yield from tests(report["tests"])
    yield from dependencies(report["dependencies"])
    yield from licence(report["licence"])
    yield from debt(report["debt"])
    yield "\n---\n"
    yield f"Made by Swarm's workflow repo-report, as of {escape(report['activity']['as_of'])}."


def beginning(report: Json) -> Iterator[str]:
    """Title, score, summary and reasons."""
    yield f"# Repository report: {escape(report['name'])}\n"
    score = f"{report['score']} of 100 points, grade {report['grade']}."
    yield f"**{score}** {escape(report['summary'])}"
    rows = [[escape(row["area"]), points(row), escape(row["reason"])] for row in report["reasons"]]
    yield from table(("Area", "Points", "Reason"), ("", "r", ""), rows)


def brief(report: Json) -> Iterator[str]:
    """The same for a terminal, without Markdown."""
    yield f"{plain(report['name'])}: {report['score']} of 100 points, grade {report['grade']}"
    yield plain(report["summary"])
    for row in report["reasons"]:
        yield f"{plain(row['area']):<14} {points(row):>7}  {plain(row['reason'])}"


def points(row: Json) -> str:
    return "–" if row["points"] is None else f"{row['points']} / {row['max_points']}"


def languages(found: Json) -> Iterator[str]:
    rows = [
        [escape(row["name"]), row["type"], number(row["files"]), number(row["lines"]),
         number(row["blank_lines"]), f"{100 * row['share']:.1f}%"]
        for row in found["languages"]["items"][:MAX_ROWS]
    ]  # fmt: skip
    yield "\n## Languages"
    if not rows:
        yield "\nThere are no text files."
        return
    heads = ("Language", "Kind", "Files", "Lines", "Blank", "Share of lines")
    yield from table(heads, ("", "", "r", "r", "r", "r"), rows)
    yield from more(found["languages"], MAX_ROWS, "languages")


def files(found: Json) -> Iterator[str]:
    totals = found["totals"]
    yield "\n## Files"
    yield from table(
        ("", "Count"),
        ("", "r"),
        [[label, number(totals[key])] for key, label in FILE_LABELS if totals[key] or key in KEPT],
    )
    for note in found["notes"]:
        yield f"\n> {escape(note)}"
    if found["submodules"]["items"]:
        yield "\nSubmodules (not entered):\n"
        yield from (f"- {escape(path)}" for path in found["submodules"]["items"])
        yield from more(found["submodules"], len(found["submodules"]["items"]), "submodules")
    if found["largest_files"]:
        rows = [[escape(row["path"]), size(row["bytes"])] for row in found["largest_files"]]
        yield from table(("Largest files", "Size"), ("", "r"), rows)


KEPT = frozenset({"files", "text_files", "lines"})
FILE_LABELS = (
    ("files", "Files"),
    ("text_files", "of them text"),
    ("binary_files", "of them binary"),
    ("oversized_files", "of them too large to read"),
    ("vendored_files", "of them vendored"),
    ("generated_files", "of them generated"),
    ("missing_files", "Tracked but missing"),
    ("symlinks", "Symbolic links"),
    ("submodules", "Submodules"),
    ("lines", "Lines"),
    ("blank_lines", "of them blank"),
    ("vendored_lines", "of them vendored"),
    ("generated_lines", "of them generated"),
)


def activity(found: Json) -> Iterator[str]:
    yield "\n## Activity\n"
    if not found["available"]:
        yield f"History not available: {escape(found['reason'])}"
        return
    if not found["commits"]:
        yield "There are no commits yet."
        return
    yield (
        f"{number(found['commits'])} commits ({number(found['merges'])} merges) from "
        f"{escape(found['first_commit'][:10])} to {escape(found['last_commit'][:10])}; "
        f"{number(found['commits_last_90_days'])} in the last 90 days, "
        f"{number(found['commits_last_365_days'])} in the last 365."
    )
    if found["shallow"]:
        yield "\n> The clone is shallow: older commits are not in these figures."
    if found["truncated"]:
        yield "\n> Counting stopped at its limit: there are more commits."
    months = [[row["month"], number(row["commits"])] for row in found["months"] if row["commits"]]
    if months:
        yield from table(("Month", "Commits"), ("", "r"), months[-12:])
    rows = [
        [escape(row["name"]) + (" (bot)" if row["bot"] else ""), number(row["commits"]),
         f"{100 * row['share']:.1f}%", row["first"], row["last"]]
        for row in found["contributors"]["items"][:MAX_ROWS]
    ]  # fmt: skip
    heads = ("Contributor", "Commits", "Share", "First", "Last")
    yield from table(heads, ("", "r", "r", "", ""), rows)
    yield from more(found["contributors"], MAX_ROWS, "contributors")


def tests(found: Json) -> Iterator[str]:
    yield "\n## Tests\n"
    yield (
        f"{number(found['test_files'])} test files with {number(found['test_lines'])} lines, "
        f"beside {number(found['source_files'])} other code files with "
        f"{number(found['source_lines'])} lines: {found['ratio']:.2f} lines of tests per line."
    )
    rows = [
        [kind, escape(row["name"]), escape(row["evidence"])]
        for kind, key in (("Framework", "frameworks"), ("CI", "ci"))
        for row in found[key]["items"][:MAX_ROWS]
    ]
    if rows:
        yield from table(("", "Name", "Recognised by"), ("", "", ""), rows)


def dependencies(found: Json) -> Iterator[str]:
    yield "\n## Dependencies\n"
    if not found["manifests"]["total"]:
        yield "No manifest declares any."
        return
    yield f"{number(found['total'])} declared, {number(found['unconstrained'])} without a version."
    rows = [
        [escape(row["name"]), number(row["manifests"]), number(row["dependencies"]),
         ", ".join(f"{scope} {number(count)}" for scope, count in row["scopes"].items())]
        for row in found["ecosystems"]
    ]  # fmt: skip
    heads = ("Ecosystem", "Manifests", "Dependencies", "By scope")
    yield from table(heads, ("", "r", "r", ""), rows)
    rows = [
        [escape(row["name"]), escape(row["constraint"]), row["scope"], escape(row["manifest"])]
        for row in found["dependencies"]["items"][: 2 * MAX_ROWS]
    ]
    if rows:
        yield from table(("Dependency", "Version", "Scope", "Declared in"), ("",) * 4, rows)
        yield from more(found["dependencies"], 2 * MAX_ROWS, "dependencies")
    if found["lockfiles"]["items"]:
        locks = ", ".join(escape(row["path"]) for row in found["lockfiles"]["items"][:MAX_ROWS])
        yield f"\nLocked by: {locks}"
    for row in found["problems"]["items"]:
        yield f"\n> {escape(row['path'])}: {escape(row['reason'])}"


def licence(found: Json) -> Iterator[str]:
    yield "\n## Licence\n"
    yield f"Licence of the project: {escape(', '.join(found['ids']) or 'unknown')}."
    rows = [
        [escape(row["id"]), escape(row["name"]), escape(row["path"])]
        for row in found["licences"]["items"][:MAX_ROWS]
    ]
    rows += [
        [escape(row["value"]), "declared", escape(row["path"])]
        for row in found["declared"]["items"][:MAX_ROWS]
    ]
    rows += [
        ["unknown", "not recognised", escape(path)]
        for path in found["unrecognised"]["items"][:MAX_ROWS]
    ]
    if rows:
        yield from table(("Licence", "Name", "Found in"), ("", "", ""), rows)


def debt(found: Json) -> Iterator[str]:
    yield "\n## Work left in the code\n"
    kinds = ", ".join(f"{kind} {number(count)}" for kind, count in found["kinds"].items())
    yield (
        f"{number(found['total'])} markers ({kinds}), {found['per_thousand_lines']:g} per 1,000 "
        f"lines; {number(found['in_prose'])} more in documents and data."
    )
    rows = [
        [escape(row["path"]), number(row["count"]), number(sample["line"]), escape(sample["text"])]
        for row, sample in zip(
            found["files"]["items"][:MAX_ROWS], found["samples"]["items"], strict=False
        )
    ]
    if rows:
        heads = ("File", "Markers", "First at line", "There it says")
        yield from table(heads, ("", "r", "r", ""), rows)
        yield from more(found["files"], MAX_ROWS, "files")


def table(
    heads: Iterable[str], sides: Iterable[str], rows: Iterable[Iterable[str]]
) -> Iterator[str]:
    """A table; ``sides`` has "r" for columns that stand right. Cells are Markdown already."""
    yield "\n| " + " | ".join(heads) + " |"
    yield "|" + "|".join("---:" if side else "---" for side in sides) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def more(listed: Json, given: int, what: str) -> Iterator[str]:
    """A line that says how many were left out, if any were."""
    if listed["total"] > given:
        yield f"\n… and {number(listed['total'] - given)} more {what}."


def escape(text: str) -> str:
    """Text that means itself in a line of Markdown or a table's cell."""
    escaped = SPECIAL.sub(r"\\\g<0>", plain(text))
    escaped = LINE_START.sub(r"\1\\", escaped)
    # Autolinks of the GitHub kind need no brackets; a broken scheme does not start one.
    return escaped.replace("://", "&#58;//").replace("www.", "www&#46;") or "–"


def plain(text: str) -> str:
    """Text on one line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def number(value: int) -> str:
    return f"{value:,}"


def size(count: float) -> str:
    """``1.5 MiB``."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
