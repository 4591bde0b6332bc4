"""Summarise ``git log``: inputs as JSON on stdin, outputs as JSON on stdout.

Dates are author dates in UTC. Contributors are told apart by their e-mail address after
``.mailmap``, case ignored; the address itself is not handed out.

A command runs on whatever ``python3`` the host has, so this file keeps to Python 3.8.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from typing import Any, Dict, NamedTuple  # noqa: UP035

from display import clean, shown
from repository import GitError, Repository, RepositoryError, open_repository, records

MAX_COMMITS = 500_000
MAX_SECONDS = 120.0
MAX_CONTRIBUTORS = 20
MONTHS = 24
DAY_SECONDS = 86_400
EARLIEST = 0
LATEST = 253_402_300_799
"""The last second of the year 9999; commits may claim any date."""

UTC = timezone.utc  # noqa: UP017 - a command runs on the host's python3, which may be older.

Json = Dict[str, Any]  # noqa: UP006


class Commit(NamedTuple):
    """``time`` is the author's clock in Unix seconds, None when it makes no sense."""

    time: int | None
    parents: int
    name: bytes
    address: bytes


@dataclass
class Contributor:
    """What one e-mail address did."""

    commits: int = 0
    first: int | None = None
    last: int | None = None
    names: Counter[bytes] = field(default_factory=Counter)

    def add(self, commit: Commit) -> None:
        self.commits += 1
        self.names[commit.name] += 1
        if commit.time is not None:
            self.first = commit.time if self.first is None else min(self.first, commit.time)
            self.last = commit.time if self.last is None else max(self.last, commit.time)

    @property
    def name(self) -> bytes:
        """The name most often used; the first in the alphabet of equals."""
        return min(self.names, key=lambda name: (-self.names[name], name))

    @property
    def is_bot(self) -> bool:
        return self.name.lower().endswith((b"[bot]", b"-bot")) or self.name == b"dependabot"


@dataclass
class History:
    """Adds up commits, in whatever order they come."""

    until: int
    commits: int = 0
    merges: int = 0
    last_90_days: int = 0
    last_365_days: int = 0
    first: int | None = None
    last: int | None = None
    months: Counter[str] = field(default_factory=Counter)
    contributors: dict[bytes, Contributor] = field(default_factory=dict)

    def add(self, commit: Commit) -> None:
        self.commits += 1
        self.merges += commit.parents > 1
        who = commit.address.lower() or commit.name.lower()
        self.contributors.setdefault(who, Contributor()).add(commit)
        if commit.time is None:
            return
        self.first = commit.time if self.first is None else min(self.first, commit.time)
        self.last = commit.time if self.last is None else max(self.last, commit.time)
        age = self.until - commit.time
        self.last_90_days += 0 <= age < 90 * DAY_SECONDS
        self.last_365_days += 0 <= age < 365 * DAY_SECONDS
        self.months[utc(commit.time).strftime("%Y-%m")] += 1


def main() -> int:
    """Read the inputs, print the outputs; a message on stderr and 1 when it cannot be done."""
    inputs = json.load(sys.stdin)
    try:
        outputs = summarise(inputs["path"], inputs["as_of"])
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    json.dump(outputs, sys.stdout)
    return 0


def summarise(path: str, as_of: str) -> Json:
    """The outputs for the repository at ``path``.

    What is not a repository has no history, and that is all there is to say of it here.

    Raises:
        ValueError: ``as_of`` is no day of the calendar.
    """
    day = date.fromisoformat(as_of) if as_of else datetime.now(UTC).date()
    until = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
    history = History(until + DAY_SECONDS)
    reason, truncated, shallow = "", False, False
    head: Json = {"commit": "", "branch": "", "detached": False}
    try:
        repository = open_repository(path)
        reason = repository.problem
    except RepositoryError as error:
        reason = str(error)
    if not reason:
        head = describe_head(repository)
        shallow = repository.run("rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
        if head["commit"]:
            reason, truncated = read_history(repository, history)
    if reason:
        history = History(until)
    return {
        "available": not reason,
        "reason": clean(reason, 1000),
        "as_of": day.isoformat(),
        "head": head,
        "shallow": shallow,
        "truncated": truncated,
        **describe(history, day),
    }


def describe_head(repository: Repository) -> Json:
    """The commit that HEAD names ("" before the first commit) and its branch."""
    done = repository.run("rev-parse", "--quiet", "--verify", "HEAD^{commit}")
    commit = done.stdout.strip().decode("ascii", "replace") if done.returncode == 0 else ""
    branch = repository.run("symbolic-ref", "--quiet", "--short", "HEAD")
    detached = branch.returncode != 0 and bool(commit)
    return {"commit": commit, "branch": shown(branch.stdout.strip()), "detached": detached}


def read_history(repository: Repository, history: History) -> tuple[str, bool]:
    """Add the commits reachable from HEAD.

    Returns:
        Why that failed ("" if it did not), and whether it stopped at a limit.
    """
    deadline = time.monotonic() + MAX_SECONDS
    arguments = (
        *("log", "-z", "--no-show-signature", "--format=tformat:%at%x00%P%x00%aN%x00%aE"),
        *(f"--max-count={MAX_COMMITS + 1}", "HEAD", "--"),
    )
    try:
        with repository.stream(*arguments) as output:
            for commit in commits(records(output)):
                if history.commits >= MAX_COMMITS or time.monotonic() > deadline:
                    return "", True
                history.add(commit)
    except GitError as error:
        return f"git could not read the history: {error}", False
    return "", False


def commits(fields: Iterator[bytes]) -> Iterator[Commit]:
    """Commits from the fields of the log's format, four each."""
    for moment, parents, name, address in zip(fields, fields, fields, fields):  # noqa: B905
        yield Commit(parse_time(moment), len(parents.split()), name, address)


def parse_time(text: bytes) -> int | None:
    """Unix seconds, or None for what is not in the years 1970 to 9999."""
    digits = text.strip()
    if not digits.isdigit() or len(digits) > 12 or not EARLIEST <= int(digits) <= LATEST:
        return None
    return int(digits)


def describe(history: History, day: date) -> Json:
    """The outputs that are counted from the commits."""
    described: Json = {
        "commits": history.commits,
        "merges": history.merges,
        "first_commit": iso(history.first),
        "last_commit": iso(history.last),
        "commits_last_90_days": history.last_90_days,
        "commits_last_365_days": history.last_365_days,
        "contributors": describe_contributors(history),
        "half_of_commits_by": half_of_commits_by(history),
        "months": [{"month": m, "commits": history.months[m]} for m in months_until(day)],
    }
    if history.last is not None:
        described["days_since_last_commit"] = max(0, (day - utc(history.last).date()).days)
    return described


def describe_contributors(history: History) -> Json:
    everyone = sorted(history.contributors.values(), key=lambda who: (-who.commits, who.name))
    items = [
        {
            "name": clean(who.name.decode("utf-8", "replace"), 100) or "(no name)",
            "commits": who.commits,
            "share": round(who.commits / history.commits, 4),
            "first": iso(who.first)[:10],
            "last": iso(who.last)[:10],
            "bot": who.is_bot,
        }
        for who in everyone[:MAX_CONTRIBUTORS]
    ]
    total = len(everyone)
    return {"items": items, "total": total, "truncated": total > len(items)}


def half_of_commits_by(history: History) -> int:
    """How many people, the busiest first, it takes for half of the people's commits."""
    people = sorted(
        (w.commits for w in history.contributors.values() if not w.is_bot), reverse=True
    )
    reached, needed = 0, sum(people)
    for number, count in enumerate(people, 1):
        reached += count
        if 2 * reached >= needed:
            return number
    return 0


def months_until(day: date) -> list[str]:
    """The last months up to that of ``day``, oldest first, as ``2026-01``."""
    months: list[str] = []
    while len(months) < MONTHS:
        months.append(day.strftime("%Y-%m"))
        if (day.year, day.month) == (1, 1):
            break
        day = day.replace(day=1) - timedelta(days=1)
    return months[::-1]


def utc(moment: int) -> datetime:
    return datetime.fromtimestamp(moment, UTC)


def iso(moment: int | None) -> str:
    """``2026-01-31T12:00:00Z``, or "" for no moment."""
    return "" if moment is None else utc(moment).strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    sys.exit(main())
