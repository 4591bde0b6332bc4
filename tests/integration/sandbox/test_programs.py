"""Ordinary programs work in a sandbox: what is refused is not what they need."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from swarm.kernel.settings import Settings
from swarm.sandbox.interpreters import find_node
from swarm.sandbox.ports import Outcome
from tests.contract.sandbox.calling import Caller


async def test_python_programs(call: Caller) -> None:
    code = """
        import asyncio, concurrent.futures, decimal, multiprocessing, os, sqlite3, ssl, subprocess
        import sys, tempfile, threading, time, uuid, zoneinfo

        def square(n): return n * n

        async def child():
            made = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "print(6 * 7)", stdout=asyncio.subprocess.PIPE)
            return (await made.communicate())[0].decode().strip()

        def handler(i):
            with multiprocessing.get_context("fork").Pool(2) as pool:
                forked = pool.map(square, range(4))
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                spawned = pool.map(square, range(4))
            with concurrent.futures.ThreadPoolExecutor(4) as threads:
                threaded = list(threads.map(square, range(4)))
            with sqlite3.connect("/tmp/a.db") as database:
                database.execute("create table t (x)")
                database.execute("insert into t values (1)")
            with tempfile.NamedTemporaryFile() as file:
                file.write(b"x")
            lock = multiprocessing.Lock()
            with lock: pass
            return {
                "forked": forked, "spawned": spawned, "threaded": threaded,
                "child": asyncio.run(child()),
                "executable": subprocess.check_output(
                    [sys.executable, "-c", "print(1)"], text=True),
                "shell": subprocess.check_output("echo $HOME | tr a-z A-Z", shell=True, text=True),
                "user": subprocess.check_output(["id", "-un"], text=True),
                "certificates": len(ssl.create_default_context().get_ca_certs()) > 10,
                "cpus": os.cpu_count(),
                "unix": os.path.exists("/bin/sh"),
                "encoding": sys.stdout.encoding,
            }
    """
    result = await call(code)
    assert result.outcome is Outcome.OK, (result.error, result.traceback)
    cpus = result.outputs.pop("cpus")
    assert cpus >= 1
    assert result.outputs == {
        "forked": [0, 1, 4, 9],
        "spawned": [0, 1, 4, 9],
        "threaded": [0, 1, 4, 9],
        "child": "42",
        "executable": "1\n",
        "shell": "/TMP\n",
        "user": "agent\n",
        "certificates": True,
        "unix": True,
        "encoding": "utf-8",
    }


async def test_node_programs(call: Caller) -> None:
    code = """
        import { execFileSync, fork } from "node:child_process";
        import { Worker } from "node:worker_threads";
        import crypto from "node:crypto";
        import fs from "node:fs/promises";
        import os from "node:os";
        import zlib from "node:zlib";
        import { unwatchFile, watchFile } from "node:fs";

        export async function handler() {
          await fs.writeFile("/tmp/a.txt", "x");
          const worker = new Worker("require('worker_threads').parentPort.postMessage(42)",
                                    { eval: true });
          const message = await new Promise((resolve) => worker.on("message", resolve));
          watchFile("/tmp", () => {}); unwatchFile("/tmp");
          await fs.writeFile("/tmp/child.mjs", "process.send('forked')");
          const child = fork("/tmp/child.mjs");
          const forked = await new Promise((resolve) => child.on("message", resolve));
          return {
            message, forked,
            shell: execFileSync("sh", ["-c", "echo hi"]).toString(),
            hash: crypto.createHash("sha256").update("x").digest("hex").slice(0, 8),
            zip: zlib.gunzipSync(zlib.gzipSync("z")).toString(),
            cpus: os.cpus().length > 0,
            home: os.homedir(),
            regular: new Intl.DateTimeFormat("de", { timeZone: "UTC" }).format(0),
          };
        }
    """
    result = await call(code, runtime="node")
    assert result.outputs == {
        "message": 42,
        "forked": "forked",
        "shell": "hi\n",
        "hash": "2d711642",
        "zip": "z",
        "cpus": True,
        "home": "/tmp",
        "regular": "1.1.1970",
    }, (result.error, result.traceback)


async def test_shell_programs(call: Caller) -> None:
    script = """#!/bin/bash
set -e
cd /tmp
git init -q repository && cd repository
git -c user.name=a -c user.email=a@b commit -q --allow-empty -m one
count=$(git log --oneline | wc -l)
seq 1000 | sort -R | sort -n | awk '{ s += $1 } END { print s }' > sum
tar czf /tmp/a.tgz sum && tar tzf /tmp/a.tgz > /dev/null
mkfifo pipe && (echo through > pipe &) && read line < pipe
exec 3<<< "here"; read here <&3
printf '{"count": %s, "sum": %s, "line": "%s", "here": "%s"}' "$count" "$(cat sum)" "$line" "$here"
"""
    result = await call(script, runtime="command")
    assert result.outputs == {"count": 1, "sum": 500500, "line": "through", "here": "here"}, (
        result.error,
        call.services.text,
    )


async def test_a_node_that_lies_where_a_sandbox_has_a_folder_of_its_own(
    call: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel's Node lies in the checkout, and a checkout may lie below ``/tmp``."""
    # Where /tmp itself is not open to everybody, this user's temporary folder may lie below it.
    own = Path(tempfile.gettempdir())
    below = own if own.is_relative_to("/tmp") else Path("/tmp")
    with tempfile.TemporaryDirectory(dir=below) as folder:
        Path(folder).chmod(0o755)
        node = find_node(Settings(home=tmp_path)).program
        shutil.copy2(node, Path(folder, "node"))
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        code = """
            import { execFileSync } from "node:child_process";
            export function handler() {
                return { path: process.execPath, child: execFileSync("node", ["-p", "6 * 7"], {
                    encoding: "utf8", env: { PATH: process.env.PATH.split(":").at(-1) } }) };
            }
        """
        result = await call(code, runtime="node")
    assert result.outcome is Outcome.OK, result.error
    assert result.outputs == {"path": "/runtime/node", "child": "42\n"}


async def test_what_was_rehearsed_before_the_fork_is_not_seen(call: Caller) -> None:
    code = """
        import asyncio, logging, os, sys

        def handler(i):
            loop = asyncio.get_event_loop()  # As in a fresh interpreter, one is made.
            known = [name for name in sys.modules if "rehearsed" in name]
            loop.close()
            return {"known": known, "path": sys.path[0], "outputs": os.environ["SWARM_OUTPUTS"],
                    "handlers": len(logging.getLogger().handlers)}
    """
    result = await call(code)
    assert result.outputs == {"known": [], "path": "/package", "outputs": "/outputs", "handlers": 1}
