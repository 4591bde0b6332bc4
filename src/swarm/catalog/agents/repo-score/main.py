"""Turn findings into a score. Each area has a most, and says why it got what it got.

An area that cannot be judged (no history to read, nothing that could have dependencies) is left
out of the reckoning instead of counting as bad: the score is the share of the points in reach.
"""

from __future__ import annotations

from typing import Any, NamedTuple

GRADES = ((90, "A"), (75, "B"), (60, "C"), (45, "D"), (30, "E"), (0, "F"))
DEBT_POINTS = ((0.5, 15), (2, 12), (5, 8), (10, 4))
"""Up to so many markers per 1,000 lines, so many points."""
RATIO_FOR_ALL_POINTS = 0.5
"""Lines of tests per line of code from which more does not count."""

Json = dict[str, Any]


class Reason(NamedTuple):
    """One line of the reckoning; ``points`` None where nothing could be judged."""

    area: str
    points: int | None
    max_points: int
    reason: str


def handler(inputs: Json) -> Json:
    """Judge every area and put the report together."""
    reasons = [
        judge_licence(inputs["licence"]),
        judge_tests(inputs["tests"]),
        judge_ci(inputs["tests"]),
        judge_documentation(inputs["files"]["documentation"]),
        judge_activity(inputs["activity"]),
        judge_people(inputs["activity"]),
        judge_dependencies(inputs["dependencies"], inputs["tests"]),
        judge_debt(inputs["debt"]),
    ]
    score = total(reasons)
    outputs = {
        "score": score,
        "grade": next(grade for least, grade in GRADES if score >= least),
        "reasons": [reason._asdict() for reason in reasons],
        "summary": summarise(inputs),
    }
    findings = ("files", "activity", "dependencies", "licence", "debt", "tests")
    report = {name: inputs[name] for name in findings}
    name = inputs["name"].strip() or "repository"
    return {**outputs, "report": {"name": name, **outputs, **report}}


def total(reasons: list[Reason]) -> int:
    """The points reached of those in reach, rounded to a whole number out of 100."""
    judged = [reason for reason in reasons if reason.points is not None]
    in_reach = sum(reason.max_points for reason in judged)
    reached = sum(reason.points or 0 for reason in judged)
    return round(100 * reached / in_reach) if in_reach else 0


def judge_licence(licence: Json) -> Reason:
    most = 15
    ids = ", ".join(licence["ids"])
    if licence["licences"]["items"] and licence["ids"]:
        if licence["open_source"]:
            return Reason("Licence", most, most, f"{ids}, an approved open-source licence")
        return Reason("Licence", 10, most, f"{ids}, not approved as open source")
    if licence["declared"]["items"]:
        value = ids or licence["declared"]["items"][0]["value"]
        return Reason("Licence", 8, most, f"{value} is declared, but its text is missing")
    if licence["unrecognised"]["items"]:
        path = licence["unrecognised"]["items"][0]
        return Reason("Licence", 5, most, f"{path} is none of the licences known")
    return Reason("Licence", 0, most, "no licence: nobody else may use it")


def judge_tests(tests: Json) -> Reason:
    most = 25
    if tests["source_files"] + tests["test_files"] == 0:
        return Reason("Tests", None, most, "there is no code to test")
    names = ", ".join(row["name"] for row in tests["frameworks"]["items"][:3])
    if tests["test_files"] == 0:
        points = 8 if names else 0
        return Reason(
            "Tests", points, most, f"tests inside the sources ({names})" if names else "no tests"
        )
    share = min(1.0, tests["ratio"] / RATIO_FOR_ALL_POINTS) if tests["source_lines"] else 1.0
    points = 8 + round(12 * share) + (5 if names else 0)
    with_names = f" with {names}" if names else "; no framework recognised"
    if not tests["source_lines"]:
        return Reason("Tests", points, most, f"{counted(tests['test_files'], 'file')}{with_names}")
    return Reason(
        "Tests",
        points,
        most,
        f"{tests['ratio']:.2f} lines of tests per line of code{with_names}",
    )


def judge_ci(tests: Json) -> Reason:
    most = 10
    found = tests["ci"]["items"]
    if found:
        return Reason("CI", most, most, f"{found[0]['name']} ({found[0]['evidence']})")
    return Reason("CI", 0, most, "no continuous integration is configured")


def judge_documentation(documentation: Json) -> Reason:
    most = 10
    readme = documentation.get("readme")
    points, parts = 0, []
    if readme is None:
        parts.append("no readme")
    else:
        enough = readme["lines"] >= 10
        points += 6 if enough else 3
        parts.append("a readme" if enough else "a very short readme")
    for role, worth in (("changelog", 2), ("contributing", 2)):
        if role in documentation:
            points += worth
            parts.append(f"a {role}" if role == "changelog" else "a guide for contributors")
    return Reason("Documentation", points, most, join(parts))


def judge_activity(activity: Json) -> Reason:
    most = 10
    if not activity["available"]:
        return Reason("Activity", None, most, "its history is not available")
    days = activity.get("days_since_last_commit")
    if days is None:
        return Reason("Activity", None, most, "there are no commits yet")
    recent = activity["commits_last_90_days"]
    if days <= 90:
        return Reason("Activity", most, most, f"{counted(recent, 'commit')} in the last 90 days")
    if days <= 365:
        return Reason("Activity", 6, most, f"the latest commit is {days} days old")
    return Reason("Activity", 2, most, f"no commit for {days / 365.25:.1f} years")


def judge_people(activity: Json) -> Reason:
    most = 5
    if not activity["available"] or not activity["commits"]:
        return Reason("People", None, most, "its history is not available or empty")
    if activity["shallow"]:
        return Reason("People", None, most, "the clone is shallow: it does not show who took part")
    people = activity["half_of_commits_by"]
    if people >= 2:
        return Reason("People", most, most, f"it takes {people} people for half of the commits")
    if activity["contributors"]["total"] > 1:
        return Reason("People", 2, most, "one person made half of the commits or more")
    return Reason("People", 1, most, "all commits come from one contributor")


def judge_dependencies(dependencies: Json, tests: Json) -> Reason:
    most = 10
    total_declared = dependencies["total"]
    if not dependencies["manifests"]["total"]:
        if tests["source_files"] == 0:
            return Reason("Dependencies", None, most, "there is no code that could have any")
        return Reason("Dependencies", 5, most, "no manifest says what it needs")
    if total_declared == 0:
        return Reason("Dependencies", most, most, "none are declared")
    constrained = (total_declared - dependencies["unconstrained"]) / total_declared
    points, locked = 3 + round(4 * constrained), bool(dependencies["lockfiles"]["total"])
    points += 3 if locked else 0
    reason = f"{total_declared} declared, {round(100 * constrained)}% with a version; "
    reason += "locked" if locked else "no lock file"
    if dependencies["problems"]["total"]:
        points = max(0, points - 1)
        reason += f"; {counted(dependencies['problems']['total'], 'problem')} in manifests"
    return Reason("Dependencies", points, most, reason)


def judge_debt(debt: Json) -> Reason:
    most = 15
    if not debt["lines"]:
        return Reason("Debt", None, most, "there is no code that could have any")
    rate = debt["per_thousand_lines"]
    points = next(
        p for limit, p in ((0.5, 15), (2, 12), (5, 8), (10, 4), (1e9, 0)) if rate <= limit
    )
    markers = counted(debt["total"], "marker")
    return Reason("Debt", points, most, f"{markers}, {rate:g} per 1,000 lines of code")


def summarise(inputs: Json) -> str:
    """One paragraph for people."""
    totals, languages = inputs["files"]["totals"], inputs["files"]["languages"]["items"]
    code = [row for row in languages if row["type"] in ("programming", "markup")] or languages
    parts = [f"{counted(totals['files'], 'file')}, {counted(totals['lines'], 'line')}"]
    if code:
        parts[0] += f", most of the code in {code[0]['name']}"
    activity = inputs["activity"]
    if not activity["available"]:
        parts.append("history not available")
    else:
        authors = counted(activity["contributors"]["total"], "contributor")
        by = f" by {authors}" if activity["commits"] else ""
        parts.append(f"{counted(activity['commits'], 'commit')}{by}")
    parts.append(f"licence {', '.join(inputs['licence']['ids']) or 'unknown'}")
    parts.append(counted(inputs["dependencies"]["total"], "dependency", "dependencies"))
    parts.append(counted(inputs["tests"]["test_files"], "test file"))
    parts.append(counted(inputs["debt"]["total"], "open marker"))
    return "; ".join(parts) + "."


def counted(number: int, one: str, many: str = "") -> str:
    """``1 file``, ``1,234 files``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def join(parts: list[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
