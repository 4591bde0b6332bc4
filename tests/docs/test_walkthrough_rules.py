"""The reader of the pages notices what is wrong with a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.walkthrough import follow, matches, steps

PAGE = """
Write `a/greeting.txt`:

```text file=a/greeting.txt
it's "here"
```

```console
$ cat a/greeting.txt
it's "here"
$ cd a
$ printf '%s\\n' one \\
>   two three
one
...
```

Only read:

```sh
$ false
```

```console exit=3
$ ls
greeting.txt
$ (exit 3)
```
"""


def faults(page: str, folder: Path) -> list[str]:
    done = follow(steps(page), folder, {})
    return [fault for fault in (step.fault() for step in done) if fault]


def test_a_page_that_is_right_has_no_fault(tmp_path: Path) -> None:
    assert len(steps(PAGE)) == 6
    assert faults(PAGE, tmp_path) == []


@pytest.mark.parametrize(
    ("right", "wrong", "line"),
    [
        ("$ cat a/greeting.txt", "$ cat a/greetings.txt", 9),
        ('it\'s "here"\n$ cd', "it is here\n$ cd", 9),
        ("exit=3", "exit=4", 27),
        ("$ ls\ngreeting.txt", "$ ls\ngreeting.txt\nmore.txt", 25),
    ],
)
def test_a_page_that_is_wrong_has_one_fault(
    tmp_path: Path, right: str, wrong: str, line: int
) -> None:
    assert right in PAGE
    (fault,) = faults(PAGE.replace(right, wrong), tmp_path)
    assert fault.startswith(f"line {line}: ")


def test_a_shell_that_ends_early_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="ended early"):
        faults("```console\n$ exit 0\n$ true\n```\n", tmp_path)


@pytest.mark.parametrize(
    ("expected", "output", "same"),
    [
        ("a", "a\n", True),
        ("a", "a\nb\n", False),
        ("a...c", "abc\n", True),
        ("a...c", "ab\nc\n", False),
        ("a\n...\nd", "a\nb\nc\nd\n", True),
        ("a\n...\nd", "a\nd\n", True),
        ("a\n...", "a\n", True),
        ("...\nb", "a\nc\n", False),
        ("1.5 (x)", "1.5 (x)  \n\n", True),
        ("1.5", "125", False),
        ("12:00:01 took 4 ms", "23:59:59 took 1.2 s", True),
        ("run_" + "0" * 32 + " ok", "run_" + "f" * 32 + " ok", True),
        ("took 4 ms", "took long", False),
    ],
)
def test_output_is_compared_as_text_with_gaps(expected: str, output: str, same: bool) -> None:
    assert matches(expected, output) is same


def test_a_block_must_start_with_a_command_and_be_closed() -> None:
    with pytest.raises(ValueError, match="starts with a command"):
        steps("```console\nhello\n```\n")
    with pytest.raises(ValueError, match="never closed"):
        steps("```console\n$ true\n")
