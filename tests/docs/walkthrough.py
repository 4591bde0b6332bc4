"""Follow a page of the documentation as its reader would, and notice where it goes wrong.

Three kinds of fenced blocks count:

- ``console``: lines that start with ``$ `` are typed into one shell for the whole page; a line that
  starts with ``> `` continues the command above it. Lines after a command are what it must print
  (standard output and error together), where ``...`` stands for any text within a line, and a line
  of its own for any lines. Times, durations, sizes and the ids of runs need not be the same. A
  command that shows no output may print anything. Its exit code must be 0, or N in a block marked
  ``console exit=N`` (the block's last command).
- any block marked ``file=PATH``: its text is written to that file, relative to where the shell is.
- everything else is only read.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>.*)$")
PAUSE = "\x01"
VARYING = (
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "DATE"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "TIME"),
    (re.compile(r"\b\d+(\.\d+)? (ms|s|min)\b"), "DURATION"),
    (re.compile(r"\b\d+(\.\d+)? (bytes|[KM]iB)(?= |$)", re.MULTILINE), "SIZE"),
    (re.compile(r"\b(run|inv|sbx)_[0-9a-f]{32}\b"), r"\1_ID"),
)
"""What differs from run to run, and what stands for it when outputs are compared."""


@dataclass(frozen=True)
class Step:
    """One command of a page, or one file that it writes."""

    line: int
    command: str
    expected: tuple[str, ...] = ()
    exit_code: int = 0


@dataclass(frozen=True)
class Done:
    """What a step did."""

    step: Step
    exit_code: int
    output: str

    def fault(self) -> str | None:
        """What differs from what the page says; None if nothing does."""
        if self.exit_code != self.step.exit_code:
            return (
                f"line {self.step.line}: `{self.step.command}` left with {self.exit_code}, "
                f"not {self.step.exit_code}:\n{self.output}"
            )
        expected = "\n".join(self.step.expected)
        if expected and not matches(expected, self.output):
            return (
                f"line {self.step.line}: `{self.step.command}` printed\n{self.output}\n"
                f"but the page says\n{expected}"
            )
        return None


def blocks(page: str) -> Iterator[tuple[int, list[str], list[str]]]:
    """The fenced blocks: line number of the first line inside, words of the info string, lines."""
    lines = iter(enumerate(page.splitlines(), start=1))
    for number, line in lines:
        opened = FENCE.match(line)
        if opened is None:
            continue
        body = []
        for _, inner in lines:
            closed = FENCE.match(inner)
            if closed and closed["fence"] == opened["fence"] and not closed["info"].strip():
                break
            body.append(inner.removeprefix(opened["indent"]))
        else:
            raise ValueError(f"line {number}: the block is never closed")
        yield number + 1, opened["info"].split(), body


def steps(page: str) -> list[Step]:
    """What a reader does, in order."""
    found: list[Step] = []
    for number, info, body in blocks(page):
        options = dict(word.split("=", 1) for word in info if "=" in word)
        if "file" in options:
            found.append(_write_file(number, options["file"], body))
        elif "console" in info:
            found += _commands(number, body, int(options.get("exit", "0")))
    return found


def _write_file(line: int, path: str, body: Sequence[str]) -> Step:
    text = "\n".join(body) + "\n"
    quoted = shlex.quote(path)
    command = f"mkdir -p $(dirname {quoted}) && printf %s {shlex.quote(text)} > {quoted}"
    return Step(line, command)


def _commands(number: int, body: Sequence[str], exit_code: int) -> list[Step]:
    found: list[tuple[int, list[str], list[str]]] = []
    for line, text in enumerate(body, start=number):
        if text.startswith("$ "):
            found.append((line, [text[2:]], []))
        elif not found:
            raise ValueError(f"line {line}: a console block starts with a command")
        elif text.startswith("> ") and not found[-1][2]:
            found[-1][1].append(text[2:])
        else:
            found[-1][2].append(text)
    return [
        Step(line, "\n".join(command), tuple(expected), exit_code if last else 0)
        for (line, command, expected), last in zip(
            found, [False] * (len(found) - 1) + [True], strict=True
        )
    ]


def follow(todo: Sequence[Step], folder: Path, environment: dict[str, str]) -> list[Done]:
    """Type the steps into one bash in ``folder``, going on after a failure."""
    script = "".join(f"{step.command}\nprintf '\\n{PAUSE}%d{PAUSE}\\n' $?\n" for step in todo)
    shell = subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", script],
        stdin=subprocess.DEVNULL,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=600,
    )
    parts = re.split(rf"\n{PAUSE}(\d+){PAUSE}\n", shell.stdout.decode())
    outputs, codes = parts[0::2], parts[1::2]
    if len(codes) != len(todo):
        raise AssertionError(f"the shell ended early, after: {outputs[-1]}")
    return [
        Done(step, int(code), output)
        for step, code, output in zip(todo, codes, outputs[: len(codes)], strict=True)
    ]


def matches(expected: str, output: str) -> bool:
    """Whether ``output`` reads like ``expected``; ``...`` is any text, alone on a line any lines.

    Trailing blanks and blank lines at either end do not count.
    """
    for varying, name in VARYING:
        expected, output = varying.sub(name, expected), varying.sub(name, output)
    pattern = ""
    for line in expected.strip().splitlines():
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(re.escape(part) for part in line.rstrip().split("...")) + "\n"
    lines = [line.rstrip() for line in output.strip().splitlines()]
    return re.fullmatch(pattern, "\n".join(lines) + "\n") is not None
