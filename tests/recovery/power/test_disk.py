"""The model of a disk itself: what it may lose, what it must keep, and that nothing escapes it."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recovery.power.disk import SECTOR, Disk, Event, Tree
from tests.recovery.power.recording import COMPILER, Recording

ROOT, FILE, OTHER = 1, 2, 3
EMPTY = Tree(ROOT, "root", None, ())


def states(disk: Disk, folder: Path, count: int = 300) -> list[dict[str, bytes]]:
    """Files and their contents in many states after a loss of power."""
    chance = random.Random(5)
    folder.mkdir(exist_ok=True)
    found = []
    for number in range(count):
        target = folder / str(number)
        disk.lose_power(target, chance)
        found.append({path.name: path.read_bytes() for path in target.iterdir()})
    return found


def disk_after(*events: Event, start: Tree = EMPTY, forgets: tuple[str, ...] = ()) -> Disk:
    disk = Disk(start, forgets)
    for event in events:
        disk.apply(event)
    return disk


MADE = (Event("C", ROOT, FILE, first=b"file"), Event("S", ROOT, 1), Event("E", ROOT, 1))
HELD_EMPTY = Tree(ROOT, "root", None, (Tree(FILE, "file", b""),))
HELD = Tree(ROOT, "root", None, (Tree(FILE, "file", b"-" * 3 * SECTOR),))


def test_a_file_whose_folder_was_not_synced_may_be_missing(tmp_path: Path) -> None:
    found = states(disk_after(MADE[0]), tmp_path)
    assert {tuple(state) for state in found} == {(), ("file",)}
    assert {tuple(state) for state in states(disk_after(*MADE), tmp_path / "x")} == {("file",)}


def test_what_was_not_synced_is_there_absent_or_torn_between_sectors(tmp_path: Path) -> None:
    written = Event("W", FILE, 0, first=b"a" * 2 * SECTOR)
    found = {state["file"] for state in states(disk_after(written, start=HELD), tmp_path)}
    sectors = {content[::SECTOR] for content in found}
    assert sectors == {b"---", b"a--", b"-a-", b"aa-"}
    assert all(len(content) == 3 * SECTOR for content in found)
    for content in found:  # a sector is old or new
        parts = [content[start : start + SECTOR] for start in range(0, len(content), SECTOR)]
        assert all(len(set(part)) == 1 for part in parts)


def test_later_writes_may_be_there_without_earlier_ones(tmp_path: Path) -> None:
    events = [Event("W", FILE, number * SECTOR, first=b"a" * SECTOR) for number in (0, 1)]
    found = {s["file"][::SECTOR] for s in states(disk_after(*events, start=HELD), tmp_path)}
    assert found == {b"---", b"a--", b"-a-", b"aa-"}


def test_a_sync_keeps_what_was_written_before_it_began(tmp_path: Path) -> None:
    events = [
        Event("W", FILE, 0, first=b"a" * SECTOR),
        Event("S", FILE, 1),
        Event("W", FILE, SECTOR, first=b"b" * SECTOR),
        Event("E", FILE, 1),
    ]
    found = {s["file"][::SECTOR] for s in states(disk_after(*events, start=HELD), tmp_path)}
    assert found == {b"a--", b"ab-"}
    unended = {s["file"][:1] for s in states(disk_after(*events[:3], start=HELD), tmp_path / "x")}
    assert unended == {b"-", b"a"}, "a sync that has not ended promises nothing"


def test_a_disk_that_forgets_loses_what_was_synced(tmp_path: Path) -> None:
    written = [Event("W", FILE, 0, first=b"a"), Event("S", FILE, 1), Event("E", FILE, 1)]
    disk = disk_after(*written, start=HELD, forgets=("file",))
    assert {state["file"][:1] for state in states(disk, tmp_path)} == {b"-", b"a"}


def test_a_rename_is_whole(tmp_path: Path) -> None:
    start = Tree(ROOT, "root", None, (Tree(FILE, "old", b"1"), Tree(OTHER, "new", b"2")))
    disk = disk_after(Event("R", ROOT, ROOT, FILE, b"old", b"new"), start=start)
    found = [tuple(sorted(state.items())) for state in states(disk, tmp_path)]
    assert set(found) == {(("new", b"1"),), (("new", b"2"), ("old", b"1"))}


def test_a_file_that_has_grown_may_be_short_or_hold_what_was_never_written(tmp_path: Path) -> None:
    disk = disk_after(Event("W", FILE, 0, first=b"a" * 2 * SECTOR), start=HELD_EMPTY)
    found = {state["file"] for state in states(disk, tmp_path)}
    assert {len(content) for content in found} >= {0, 2 * SECTOR}
    assert bytes(2 * SECTOR) in found
    assert any(set(content) - {0, ord("a")} for content in found), "rubbish"


def test_an_inode_number_that_is_used_again_is_another_file(tmp_path: Path) -> None:
    events = [Event("U", ROOT, first=b"file"), Event("C", ROOT, FILE, first=b"second")]
    found = states(disk_after(*events, start=HELD), tmp_path)
    assert {state["file"] for state in found if "file" in state} == {b"-" * 3 * SECTOR}


CHANGES = """
import os, shutil, sys
os.chdir(sys.argv[1])
os.mkdir("folder")
with open("folder/file", "w") as file:
    file.write("x" * 10_000)
    file.seek(5)
    file.write("yy")
    file.flush()
    os.pwrite(file.fileno(), b"zz", 20_000)
    os.ftruncate(file.fileno(), 20_001)
    os.writev(file.fileno(), [b"one", b"two"])
with open("folder/file", "a") as file:
    file.write("appended")
shutil.copyfile("folder/file", "copy")
with open("copy", "rb") as source, open("more", "wb") as target:
    os.copy_file_range(source.fileno(), target.fileno(), 700, 100, 50)
os.link("copy", "second")
os.rename("copy", "folder/moved")
descriptor = os.open(".", os.O_TMPFILE | os.O_WRONLY)
os.write(descriptor, b"unnamed")
place = os.open("folder", os.O_RDONLY)
os.link(f"/proc/self/fd/{descriptor}", "named", src_dir_fd=place, dst_dir_fd=place)
os.unlink("second")
os.mkdir("gone")
os.rmdir("gone")
open("folder/moved", "w").close()
if os.fork() == 0:
    with open("child", "w") as file:
        file.write("of a child")
    os._exit(0)
os.wait()
"""


@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
def test_the_recorder_misses_no_way_of_changing_files(tmp_path: Path, recorder: Path) -> None:
    """What is recorded, done again, gives what the program left."""
    recording = Recording(tmp_path / "recording", recorder)
    recording.run([sys.executable, "-c", CHANGES, recording.root])
    recording.end()
    left, again = tmp_path / "recording" / "recorded", recording.root
    subprocess.run(["diff", "-r", left, again], check=True)
    assert len(list(again.rglob("*"))) == 6
