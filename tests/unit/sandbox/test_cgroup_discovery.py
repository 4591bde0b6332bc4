"""Where cgroups can be made, on machines of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.sandbox.linux import cgroups
from swarm.sandbox.linux.cgroups import find_hierarchies
from swarm.sandbox.ports import Limits

V1 = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
V1_MEMBERSHIP = """\
8:pids:/
4:memory:/outer/inner
3:cpu,cpuacct:/x
1:name=systemd:/
0::/
"""


def test_version_1_with_an_empty_version_2() -> None:
    found = {str(h.folder): h.version for h in find_hierarchies(V1, V1_MEMBERSHIP)}
    assert found == {
        "/sys/fs/cgroup/memory/outer/inner": 1,
        "/sys/fs/cgroup/cpu,cpuacct/x": 1,
        "/sys/fs/cgroup/pids": 1,
        "/sys/fs/cgroup/unified": 2,
    }


def test_a_container_sees_its_own_part() -> None:
    mounts = "35 31 0:32 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw,nsdelegate\n"
    (found,) = find_hierarchies(mounts, "0::/docker/abc/work\n")
    assert (found.folder, found.version) == (Path("/sys/fs/cgroup/work"), 2)


def test_a_group_outside_the_mount_is_no_place() -> None:
    mounts = "35 31 0:32 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
    assert find_hierarchies(mounts, "0::/elsewhere\n") == []


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    """Files like those of a delegated version 2 group; they hold what is written."""
    parent = tmp_path / "app.slice"
    (parent / "me.scope").mkdir(parents=True)
    (parent / "cgroup.subtree_control").write_text("cpu memory pids\n")
    (parent / "me.scope" / "cgroup.subtree_control").write_text("\n")
    return parent


def test_version_2_beside_the_hosts_own_group(v2: Path) -> None:
    hierarchy = cgroups.MountedHierarchy(2, frozenset(), v2 / "me.scope")
    tree = cgroups._find_v2([hierarchy], "swarm-1-x")
    assert tree is not None
    assert tree.layer == "cgroup-v2"
    own = v2 / "swarm-1-x"
    assert (own / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert tree.zygote_files == ()
    group = tree.create("sbx", Limits(memory_bytes=1000, timeout_seconds=1, processes=7))
    folder = own / "sbx"
    written = {path.name: path.read_text() for path in folder.iterdir()}
    assert written == {
        "memory.max": "1000",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "7",
    }
    assert group.process_files == (folder / "cgroup.procs",)
    (folder / "memory.peak").write_text("4096\n")
    (folder / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    assert (group.peak_memory(), group.oom_kills(), group.oom_descriptor) == (4096, 1, -1)


def test_without_controllers_there_is_none(v2: Path) -> None:
    (v2 / "cgroup.subtree_control").write_text("cpu\n")
    hierarchy = cgroups.MountedHierarchy(2, frozenset(), v2 / "me.scope")
    assert cgroups._find_v2([hierarchy], "swarm-1-x") is None


def test_groups_of_dead_hosts_are_swept(v2: Path) -> None:
    dead, alive = v2 / "swarm-4194305-x" / "sbx", v2 / "swarm-1-y"
    dead.mkdir(parents=True)
    alive.mkdir()
    cgroups._sweep(v2)
    assert not dead.parent.exists()
    assert alive.exists()
