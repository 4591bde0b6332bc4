"""What code inside a sandbox meets: each test looks, or tries, from inside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarm.kernel.json import JsonObject
from swarm.sandbox.linux import plan
from swarm.sandbox.linux.backend import NamespaceBackend
from tests.contract.sandbox.calling import CONTEXT, Caller

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLS = """
    import contextlib, ctypes, errno, os
    libc = ctypes.CDLL(None, use_errno=True)
    def syscall(number, *arguments):
        wrapped = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
        if libc.syscall(ctypes.c_long(number), *wrapped) >= 0: return "done"
        return errno.errorcode[ctypes.get_errno()]
    def attempt(action):
        try: return ["done", str(action())[:60]]
        except OSError as error: return errno.errorcode[error.errno]
"""


async def look(call: Caller, code: str, given: JsonObject | None = None) -> JsonObject:
    result = await call(CALLS + code, given)
    assert result.outputs is not None, (result.error, result.traceback)
    outputs: JsonObject = result.outputs
    return outputs


async def test_the_hosts_files_are_not_there(call: Caller, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    outputs = await look(
        call,
        """
    def handler(i):
        return {
            "root": sorted(os.listdir("/")),
            "secret": os.path.exists(i["secret"]),
            "etc": sorted(os.listdir("/etc")),
            "shadow": os.path.exists("/etc/shadow"),
            "up": os.path.exists("/proc/self/root" + "/.." * 9 + i["secret"]),
            "init": attempt(lambda: os.listdir("/proc/1/root")),
            "sys": os.path.exists("/sys"), "run": os.path.exists("/run"),
            "dev": sorted(os.listdir("/dev")),
        }
    """,
        {"secret": str(secret)},
    )
    assert set(outputs["root"]) <= {
        *("bin", "dev", "environment", "etc", "guest", "inputs", "lib", "lib32", "lib64"),
        *("libx32", "node_modules", "outputs", "package", "proc", "sbin", "tmp", "usr", "var"),
        *("root", "opt", "home"),  # where an interpreter lies there: its own folder, by itself
    }
    assert outputs["dev"] == sorted(
        ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"]
    )
    assert not any(outputs[name] for name in ("secret", "shadow", "up", "sys", "run"))
    assert outputs["init"] == "ENOENT"


async def test_only_the_work_folders_can_be_written(call: Caller) -> None:
    outputs = await look(
        call,
        """
    def handler(i):
        found = {}
        for folder, folders, names in os.walk("/"):
            if folder == "/":
                folders[:] = [name for name in folders if name != "proc"]
            if attempt(lambda: open(folder + "/probe", "w"))[0] == "done":
                found[folder] = "made"
        for path in ("/usr/bin/env", "/package/main.py", "/etc/passwd", "/proc/self/mem",
                     "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger",
                     "/proc/self/oom_score_adj",
                     "/proc/sys/kernel/hostname", "/dev/full"):
            if attempt(lambda: os.open(path, os.O_WRONLY))[0] == "done":
                found[path] = "opened"
        return found
    """,
    )
    assert outputs == {"/tmp": "made", "/outputs": "made", "/dev/full": "opened"}


async def test_there_is_no_power(call: Caller) -> None:
    outputs = await look(
        call,
        """
    def handler(i):
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        return {name: status[name].strip() for name in (
            "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Groups",
            "Uid", "Gid")} | {"setuid": attempt(lambda: os.setuid(0)),
            "nice": attempt(lambda: os.nice(-5)), "uts": os.uname().nodename}
    """,
    )
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(outputs[name], 16) == 0, name
    assert (outputs["NoNewPrivs"], outputs["Seccomp"]) == ("1", "2")
    assert outputs["Uid"].split() == outputs["Gid"].split() == ["1000"] * 4
    assert outputs["setuid"] in ("EPERM", "EINVAL")  # EINVAL: there is no uid 0 inside
    assert outputs["nice"] == "EPERM"
    assert outputs["uts"] == "sandbox"
    if os.geteuid() == 0:
        assert outputs["Groups"] == ""


async def test_only_its_own_processes_are_there(call: Caller) -> None:
    outputs = await look(
        call,
        """
    def handler(i):
        return {
            "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
            "self": os.getpid(),
            "memory": attempt(lambda: open("/proc/1/mem", "rb")),
            "descriptors": attempt(lambda: os.listdir("/proc/1/fd")),
            "environment": attempt(lambda: open("/proc/1/environ", "rb").read()),
            "own": len(os.listdir("/proc/self/fd")),
            "kill": attempt(lambda: os.kill(1, 9)),
            "kill_all": attempt(lambda: os.kill(-1, 0)),
        }
    """,
    )
    assert outputs["pids"] == [2]
    assert outputs["self"] == 2
    for name in ("memory", "descriptors", "environment"):
        assert outputs[name] == "ENOENT", name
    assert outputs["own"] == 5  # 0 to 3, and the folder itself
    assert outputs["kill"] in ("EPERM", ["done", "None"])


async def test_dangerous_calls_are_refused(call: Caller) -> None:
    numbers = {
        "mount": 165,
        "umount2": 166,
        "pivot_root": 155,
        "chroot": 161,
        "unshare": 272,
        "setns": 308,
        "open_tree": 428,
        "fsopen": 430,
        "mount_setattr": 442,
        "ptrace": 101,
        "process_vm_readv": 310,
        "pidfd_getfd": 438,
        "kcmp": 312,
        "keyctl": 250,
        "add_key": 248,
        "request_key": 249,
        "bpf": 321,
        "perf_event_open": 298,
        "userfaultfd": 323,
        "io_uring_setup": 425,
        "io_setup": 206,
        "open_by_handle_at": 304,
        "name_to_handle_at": 303,
        "init_module": 175,
        "kexec_load": 246,
        "reboot": 169,
        "swapon": 167,
        "sethostname": 170,
        "settimeofday": 164,
        "clock_settime": 227,
        "iopl": 172,
        "modify_ldt": 154,
        "syslog": 103,
        "quotactl": 179,
        "fanotify_init": 300,
        "seccomp": 317,
        "landlock_create_ruleset": 444,
        "memfd_secret": 447,
        "shmget": 29,
        "mq_open": 240,
        "vmsplice": 278,
    }
    outputs = await look(
        call,
        """
    def handler(i):
        return {name: syscall(number, 0, 0, 0, 0, 0) for name, number in i.items()}
    """,
        numbers,
    )
    assert {name: got for name, got in outputs.items() if got != "EPERM"} == {}


async def test_new_namespaces_are_refused(call: Caller) -> None:
    outputs = await look(
        call,
        """
    def handler(i):
        kinds = (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
        return {
            "clone": sorted({syscall(56, kind | 17, 0, 0, 0, 0) for kind in kinds}),
            "clone3": syscall(435, 0, 0),
            "unknown": syscall(999, 0),
        }
    """,
    )
    assert outputs == {"clone": ["EPERM"], "clone3": "ENOSYS", "unknown": "ENOSYS"}


async def test_odd_sockets_are_refused(call: Caller) -> None:
    outputs = await look(
        call,
        """
    import socket
    def handler(i):
        def make(*arguments): return attempt(lambda: socket.socket(*arguments))
        return {
            "netlink": make(16, socket.SOCK_RAW), "packet": make(17, socket.SOCK_RAW),
            "alg": make(38, socket.SOCK_SEQPACKET), "vsock": make(40, socket.SOCK_STREAM),
            "bluetooth": make(31, socket.SOCK_STREAM), "raw": make(2, socket.SOCK_RAW, 1),
            "sctp": make(2, socket.SOCK_STREAM, 132), "mptcp": make(2, socket.SOCK_STREAM, 262),
        }
    """,
    )
    assert set(outputs.values()) == {"EAFNOSUPPORT", "EPERM", "EPROTONOSUPPORT"}
    assert "done" not in str(outputs)


@pytest.mark.parametrize("number", [0x40000000 + 39, 0x40000000])
async def test_calls_of_another_architecture_kill(call: Caller, number: int) -> None:
    result = await call(CALLS + f"\n    def handler(i): return {{'got': syscall({number})}}")
    assert result.error == "the handler ended without an answer: it was killed by SIGSYS"


async def test_a_terminal_cannot_be_typed_into(call: Caller) -> None:
    outputs = await look(
        call,
        """
    import fcntl
    def handler(i):
        return {"tiocsti": attempt(lambda: fcntl.ioctl(0, 0x5412, b"x")),
                "tioclinux": attempt(lambda: fcntl.ioctl(0, 0x541C, b"x"))}
    """,
    )
    assert outputs == {"tiocsti": "ENOTTY", "tioclinux": "ENOTTY"}


async def test_limits_cannot_be_raised(call: Caller) -> None:
    outputs = await look(
        call,
        """
    import resource
    def handler(i):
        found = {}
        for name in ("CORE", "NOFILE", "MEMLOCK", "NPROC"):
            kind = getattr(resource, "RLIMIT_" + name)
            hard = resource.getrlimit(kind)[1]
            try: resource.setrlimit(kind, (hard + 1, hard + 1))
            except (ValueError, OSError): found[name] = hard
        return found
    """,
    )
    assert outputs == {"CORE": 0, "NOFILE": 4096, "MEMLOCK": 65536, "NPROC": 64}


async def test_the_host_sees_an_ordinary_user(call: Caller) -> None:
    sandbox = await call.backend.prepare(call.request("def handler(i): return {}"))
    backend = call.backend
    assert isinstance(backend, NamespaceBackend)
    zygote = backend.zygote_pid
    children = Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()
    for child in children:
        status = Path(f"/proc/{child}/status").read_text()
        uids = next(row for row in status.splitlines() if row.startswith("Uid:")).split()[1:]
        assert "0" not in uids
        if os.geteuid() == 0:
            assert all(0x70000000 <= int(uid) <= 0x7FFFFFFF for uid in uids)
    assert children
    await sandbox.destroy()


async def test_sandboxes_at_once_are_different_users_apart(call: Caller) -> None:
    """Two that run together share no network, no sockets, no files and, as root, no user."""
    code = """
        import os, socket
        def handler(i, context):
            server = socket.socket(socket.AF_UNIX)
            server.bind("\\0meeting")
            open("/tmp/mine", "x").close()
            open("/outputs/mine", "x").close()
            context.log.info("ready")
            context.secret("GO")
            return {"namespaces": {name: os.readlink("/proc/self/ns/" + name)
                for name in ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")},
                "map": open("/proc/self/uid_map").read()}
    """
    request = call.request(code)
    call.services.secrets = {"GO": "go"}
    pair = [await call.backend.prepare(request) for _ in range(2)]
    results = [await sandbox.call({}, CONTEXT, call.services) for sandbox in pair]
    for sandbox in pair:
        await sandbox.destroy()
    one, other = (result.outputs for result in results)
    host = {name: os.readlink(f"/proc/self/ns/{name}") for name in one["namespaces"]}  # noqa: PTH115
    for name, link in one["namespaces"].items():
        assert len({link, other["namespaces"][name], host[name]}) == 3, name


async def test_files_of_the_kernel_are_covered(call: Caller) -> None:
    masked = {name for name in plan.masked_files() if not name.endswith("/")}
    outputs = await look(
        call,
        """
    def handler(i):
        opened, listed = [], {}
        for line in open("/proc/self/mountinfo"):
            path, options = line.split()[4:6]
            if not path.startswith("/proc/"):
                continue
            if os.path.isdir(path):
                listed[path] = os.listdir(path)
                continue
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_RDONLY))
                opened.append(path)
            if not {"ro", "nosuid", "nodev", "noexec"} <= set(options.split(",")):
                opened.append(f"{path}: {options}")
            listed[path] = []
        return {"opened": opened, "listed": listed}
    """,
    )
    assert outputs["opened"] == []
    assert not any(outputs["listed"].values())
    assert {f"/proc/{name.rstrip('/')}" for name in plan.masked_files()} == set(outputs["listed"])
    assert masked


async def test_nothing_of_the_host_is_in_the_environment(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARM_SECRET_TOKEN", "a-secret-of-the-host")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-the-host")
    outputs = await look(
        call,
        """
    def handler(i):
        found = [path for path in ("/proc/self/environ", "/proc/self/cmdline", "/proc/self/maps")
                 if b"a-secret-of" in open(path, "rb").read()]
        return {"names": sorted(os.environ), "found": found}
    """,
    )
    assert outputs["found"] == []
    assert {name for name in outputs["names"] if not name.startswith("SWARM_")} <= {
        *("PATH", "HOME", "TMPDIR", "USER", "LANG", "TZ"),
    }
    assert "SWARM_SECRET_TOKEN" not in outputs["names"]


async def test_one_sandbox_holds_nothing_of_another(call: Caller) -> None:
    """What one is told never reaches the zygote, from which the next is forked."""
    marker = "marker-" + os.urandom(8).hex()
    first = call.request(
        f"def handler(i): return {{'seen': '{marker}' in str(i)}}", environment={"MARK": marker}
    )
    assert (await call.run(first, {"text": marker})).outputs == {"seen": True}
    scan = """
    def handler(i):
        needle = bytes(i["reversed"])[::-1]
        count = 0
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            for line in open("/proc/self/maps"):
                span, mode = line.split()[:2]
                if "r" not in mode or "[v" in line: continue
                first, last = (int(part, 16) for part in span.split("-"))
                try:
                    memory.seek(first)
                    count += memory.read(last - first).count(needle)
                except OSError: continue
        return {"count": count}
    """
    never_told = "marker-" + os.urandom(8).hex()
    counts = [
        (await look(call, scan, {"reversed": list(text.encode()[::-1])}))["count"]
        for text in (never_told, marker)
    ]
    assert counts[0] > 0  # It finds its own copies of what it looks for.
    assert counts[1] == counts[0]


async def test_random_state_is_its_own(call: Caller) -> None:
    code = (
        "import random, uuid\ndef handler(i): return {'r': random.random(), 'u': str(uuid.uuid4())}"
    )
    request = call.request(code)
    seen = [(await call.run(request, {})).outputs for _ in range(3)]
    assert len({found["r"] for found in seen}) == len({found["u"] for found in seen}) == 3


async def test_the_context_is_not_usable_by_children(call: Caller) -> None:
    code = """
        import os
        def handler(i, context):
            pid = os.fork()
            if pid == 0:
                try: context.log.info("forged")
                except RuntimeError: os._exit(5)
                os._exit(0)
            return {"code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}
    """
    sandbox = await call.backend.prepare(call.request(code))
    result = await sandbox.call({}, CONTEXT, call.services)
    await sandbox.destroy()
    assert result.outputs == {"code": 5}
