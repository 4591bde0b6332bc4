"""Files in and out: live inputs, the package, the environment, and what is handed out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import pytest

from swarm.kernel.errors import SandboxUnavailable
from swarm.sandbox.linux.backend import NamespaceBackend
from swarm.sandbox.ports import InputMount, Outcome
from tests.contract.sandbox.calling import CONTEXT, Caller

LIST = """
    import os
    def handler(i):
        found = {}
        for folder, _, names in os.walk("/inputs"):
            for name in names:
                path = os.path.join(folder, name)
                try: found[path] = open(path).read()
                except OSError as error: found[path] = error.errno
        return found
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


async def test_inputs_are_readable_and_read_only(call: Caller, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.txt").write_text("A")
    private = tmp_path / "private.txt"
    private.write_text("P")
    private.chmod(0o600)
    code = """
        import os
        def attempt(action):
            try: action()
            except OSError as error: return error.errno
        def handler(i):
            return {
                "a": open("/inputs/folder/deep/a.txt").read(),
                "p": open(i["file"]).read(),
                "write": attempt(lambda: open("/inputs/folder/new", "w")),
                "change": attempt(lambda: open("/inputs/file", "a")),
                "unlink": attempt(lambda: os.unlink("/inputs/folder/deep/a.txt")),
                "chmod": attempt(lambda: os.chmod("/inputs/file", 0o777)),
                "top": attempt(lambda: os.mkdir("/inputs/more")),
            }
    """
    mounts = (InputMount("folder", folder), InputMount("file", private))
    result = await call(code, {"file": "/inputs/file"}, inputs=mounts)
    outputs = result.outputs
    assert (outputs.pop("a"), outputs.pop("p")) == ("A", "P"), result.error
    assert set(outputs.values()) <= {1, 13, 30}, outputs
    assert (folder / "deep" / "a.txt").read_text() == "A"


async def test_links_in_an_input_lead_nowhere_else(call: Caller, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "absolute").symlink_to(secret)
    (folder / "relative").symlink_to("../secret.txt")
    result = await call(LIST, inputs=(InputMount("data", folder),))
    assert result.outputs == {"/inputs/data/absolute": 2, "/inputs/data/relative": 2}


async def test_a_socket_in_an_input_cannot_be_reached(call: Caller, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        with contextlib.chdir(folder):  # A path of at most 107 bytes.
            server.bind("door")
            server.listen()
            client.connect("door")  # It is open to those outside.
        (folder / "door").chmod(0o777)
        code = """
            import socket
            def handler(i):
                errors = []
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    try: socket.socket(socket.AF_UNIX, kind).connect("/inputs/data/door")
                    except OSError as error: errors.append(error.errno)
                try: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
                except OSError as error: errors.append(error.errno)
                socket.socketpair()
                return {"errors": errors}
        """
        result = await call(code, inputs=(InputMount("data", folder),))
        assert result.outputs == {"errors": [13, 13, 13]}, result.error


async def test_a_fifo_in_an_input_cannot_be_written(call: Caller, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    os.mkfifo(folder / "pipe", 0o666)
    reader = os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    os.close(os.open(folder / "pipe", os.O_WRONLY | os.O_NONBLOCK))  # It can be, outside.
    code = """
        import os
        def handler(i):
            try: os.open("/inputs/data/pipe", os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error: return {"errno": error.errno}
    """
    sandbox = await call.backend.prepare(call.request(code, inputs=(InputMount("data", folder),)))
    if "landlock" not in sandbox.layers:
        pytest.skip("only Landlock stops this")
    result = await sandbox.call({}, CONTEXT, call.services)
    await sandbox.destroy()
    os.close(reader)
    assert result.outputs == {"errno": 13}


@as_root
async def test_inputs_are_readable_whatever_their_owner(call: Caller, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.txt").write_text("A")
    for path in (folder / "deep" / "a.txt", folder / "deep", folder):
        path.chmod(0o700)
        os.chown(path, 4321, 4321)
    result = await call(LIST, inputs=(InputMount("data", folder),))
    assert result.outputs == {"/inputs/data/deep/a.txt": "A"}
    assert (folder / "deep").stat().st_uid == 4321


@as_root
async def test_a_private_package_can_run(call: Caller) -> None:
    request = call.request({"main.py": "import b\ndef handler(i): return b.x", "b.py": "x = {}"})
    for path in (request.program.package, *request.program.package.iterdir()):
        path.chmod(0o700)
    assert (await call.run(request, {})).outcome is Outcome.OK


async def test_git_reads_a_repository_of_anyone(call: Caller, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    for command in (
        ["init", "-q", str(folder)],
        ["-C", str(folder), "-c", "user.name=a", "-c", "user.email=b@c", "commit", "-q",
         "--allow-empty", "-m", "first"],
    ):  # fmt: skip
        git = await asyncio.create_subprocess_exec("git", *command, env=environment)
        assert await git.wait() == 0
    code = """
        import subprocess
        def handler(i):
            log = subprocess.run(["git", "-C", "/inputs/r", "log", "--format=%s"],
                                 capture_output=True, text=True)
            return {"out": log.stdout, "err": log.stderr}
    """
    result = await call(code, inputs=(InputMount("r", folder),))
    assert result.outputs == {"out": "first\n", "err": ""}


async def test_outputs_are_handed_out(call: Caller) -> None:
    code = """
        import os
        def handler(i, context):
            folder = os.environ["SWARM_OUTPUTS"]
            os.mkdir(folder + "/deep")
            with open(folder + "/deep/report.md", "w") as file: file.write("# Report")
            open(context.files.folder + "/b", "w").close()
            return {"a": context.files.output("deep/report.md", "text/markdown"),
                    "b": context.files.output(folder + "/b")}
    """
    sandbox = await call.backend.prepare(call.request(code))
    result = await sandbox.call({}, CONTEXT, call.services)
    assert result.outputs == {
        "a": {"$file": "deep/report.md", "media_type": "text/markdown"},
        "b": {"$file": "b"},
    }, result.error
    folder = await sandbox.outputs_descriptor()
    assert sorted(entry.name for entry in os.scandir(folder)) == ["b", "deep"]
    report = os.open("deep/report.md", os.O_RDONLY, dir_fd=folder)
    assert os.read(report, 100) == b"# Report"
    os.close(report)
    await sandbox.destroy()


async def test_nothing_runs_any_more_that_could_change_what_is_handed_out(
    call: Caller, backend: NamespaceBackend
) -> None:
    code = """
        import os
        def handler(i):
            if os.fork() == 0:
                os.setsid()
                while True:
                    with open("/outputs/a", "a") as file: file.write("x")
            print("said before the answer")
            return {}
    """
    sandbox = await backend.prepare(call.request(code))
    result = await sandbox.call({}, CONTEXT, call.services)
    assert result.outcome is Outcome.OK
    assert call.services.text == "said before the answer"
    await sandbox.outputs_descriptor()
    assert not any(Path(f"/proc/{pid}").exists() for pid in sandbox.processes())
    assert not Path(f"/proc/{sandbox.init_pid}").exists()
    await sandbox.destroy()


@pytest.mark.parametrize("path", ["../tmp/x", "/etc/passwd", "missing"])
async def test_what_is_no_output_is_refused(call: Caller, path: str) -> None:
    result = await call(f"def handler(i, context): context.files.output({path!r})")
    assert result.error is not None
    assert "$SWARM_OUTPUTS" in result.error


async def test_an_environment_is_on_the_path(call: Caller) -> None:
    environment = call.package(
        {"site-packages/wonder.py": "NAME = 'wonder'", "bin/tool": "#!/bin/sh\necho tooled\n"}
    )
    code = """
        import subprocess, wonder
        def handler(i):
            return {"n": wonder.NAME, "t": subprocess.check_output(["tool"], text=True)}
    """
    request = call.with_environment(call.request(code), environment)
    result = await call.run(request, {})
    assert result.outputs == {"n": "wonder", "t": "tooled\n"}, result.error


async def test_an_input_that_is_gone_is_an_error_of_its_own(call: Caller, tmp_path: Path) -> None:
    request = call.request("def handler(i): pass", inputs=(InputMount("x", tmp_path / "gone"),))
    with pytest.raises(SandboxUnavailable, match="gone"):
        await call.backend.prepare(request)


async def test_a_package_that_is_gone_is_an_error_of_its_own(call: Caller) -> None:
    request = call.request("def handler(i): pass")
    (request.program.package / "main.py").unlink()
    request.program.package.rmdir()
    with pytest.raises(SandboxUnavailable, match="No such file"):
        await call.backend.prepare(request)
