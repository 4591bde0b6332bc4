"""Make the checkout's ``.venv`` and keep it in step with the locks and the sources.

usage: python scripts/environment.py run|test|check

``run`` installs the runtime lock, ``test`` the development lock too; both install Swarm itself as
a wheel built from this checkout, so that what runs is what is shipped. ``check`` only looks at the
machine. What was installed is noted in ``.venv/swarm-setup.json``; a call that finds everything in
place takes a few milliseconds. Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import configparser
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STATE = VENV / "swarm-setup.json"
CACHE = ROOT / ".cache"
LOCKS = {
    "run": "requirements.txt",
    "test": "requirements-dev.txt",
    "node": "requirements-node.txt",
    "build": "requirements-build.txt",
}
SYSTEM_CERTIFICATES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
)
OLDEST_UV = (0, 8)
OLDEST_NODE = 20
NEEDS_PIP = (
    "this Python can make no environment of its own: it has neither ensurepip, nor pip, nor is "
    "there a uv; install one (Debian, Ubuntu: apt-get install python3-venv)"
)


class SetupError(Exception):
    """The environment cannot be made; the message says why and what to do."""


@dataclass
class State:
    """What the environment holds, as noted by the call that made it so."""

    python: str = ""
    locks: dict[str, str] = field(default_factory=dict)
    """Digest of each lock installed, by its name in LOCKS."""
    wheel: str = ""
    """Digest of the sources that the installed wheel was built from."""

    @classmethod
    def read(cls) -> State:
        try:
            document = json.loads(STATE.read_text())
            return cls(**document)
        except (OSError, ValueError, TypeError):
            return cls()

    def write(self) -> None:
        scratch = STATE.with_suffix(".new")
        scratch.write_text(json.dumps(asdict(self), indent=1))
        scratch.replace(STATE)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in ("run", "test", "check"):
        print(__doc__, file=sys.stderr)
        return 2
    if arguments[0] == "check":
        return 0
    try:
        with _one_at_a_time():
            ensure(arguments[0])
    except SetupError as error:
        print(f"swarm: {error}", file=sys.stderr)
        return 5
    except subprocess.CalledProcessError as error:
        command = " ".join(str(word) for word in error.cmd)
        print(f"swarm: setting up failed (exit {error.returncode}): {command}", file=sys.stderr)
        return 5
    return 0


def ensure(profile: str) -> None:
    """Bring ``.venv`` up to what ``profile`` (``run`` or ``test``) needs."""
    identity = f"{sys.version} {sys.base_prefix}"
    state = State.read()
    # Another python3 on the path is no reason to start over; one that was asked for by name is.
    changed = bool(os.environ.get("PYTHON")) and state.python != identity
    if state.python and (changed or not _works(VENV / "bin" / "python")):
        say("the Python of .venv has changed or gone: making it anew")
        shutil.rmtree(VENV)
        state = State()
    # A lock that was ever wanted stays wanted: `make run` after `make test` removes nothing.
    wanted = ({"run", "build", profile} | set(state.locks)) & set(LOCKS)
    if "node" not in wanted and not host_has_node():
        wanted.add("node")
    digests = {name: file_digest(ROOT / LOCKS[name]) for name in sorted(wanted)}
    if state.locks != digests or not state.python:
        uv = find_uv() or fetch_uv()
        install_locks(uv, digests)
        state = State(state.python or identity, digests)
        state.write()
    sources = sources_digest()
    if state.wheel != sources:
        install_wheel(str(VENV / "bin" / "uv"))
        state.wheel = sources
        state.write()


def host_has_node() -> bool:
    """Whether the host's own node is new enough to run agents, and npm is there too."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    version = re.match(r"v(\d+)\.", answer.stdout)
    return version is not None and int(version[1]) >= OLDEST_NODE


def find_uv() -> str | None:
    """The environment's own uv, else one of the host that is new enough."""
    own = VENV / "bin" / "uv"
    for candidate in (str(own) if own.exists() else None, shutil.which("uv")):
        if candidate is None:
            continue
        answer = subprocess.run(
            [candidate, "--version"], capture_output=True, text=True, check=False
        )
        version = re.match(r"uv (\d+)\.(\d+)\.", answer.stdout)
        if version is not None and (int(version[1]), int(version[2])) >= OLDEST_UV:
            return candidate
    return None


def fetch_uv() -> str:
    """Install the locked uv into ``.venv`` with whatever pip there is; return its path."""
    say("fetching uv with pip")
    pip = [str(VENV / "bin" / "python"), "-m", "pip"]
    base = [sys.executable, "-m", "pip"]
    _make_venv()
    with tempfile.TemporaryDirectory() as scratch:
        if (
            not _works(pip[0], "import ensurepip.__main__")
            or _quietly([pip[0], "-m", "ensurepip"]) != 0
        ):
            pip = [*base, "--python", pip[0]]
            if not _works(sys.executable, "import pip.__main__"):
                wheel = _distribution_pip(Path(scratch))
                if wheel is None:
                    raise SetupError(NEEDS_PIP)
                pip = [sys.executable, str(wheel / "pip"), "--python", str(VENV / "bin" / "python")]
        requirement = Path(scratch) / "uv.txt"
        requirement.write_text(_locked("uv"))
        run_command(
            [*pip, "install", "--quiet", "--require-hashes", "--no-deps", "-r", str(requirement)]
        )
    return str(VENV / "bin" / "uv")


def install_locks(uv: str, digests: Mapping[str, str]) -> None:
    """Make the environment hold exactly what the locks named by ``digests`` say."""
    if not _works(VENV / "bin" / "python"):
        _make_venv()
    names = [name for name in digests if name != "run" or "test" not in digests]
    files = [str(ROOT / LOCKS[name]) for name in names]
    say(f"installing {', '.join(LOCKS[name] for name in names)}")
    options = ["--quiet", "--require-hashes"]
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        # Else every process would compile all that it imports, and drop the bytecode again.
        options.append("--compile-bytecode")
    run_command([uv, "pip", "sync", *options, *_into_venv(), *files])


def install_wheel(uv: str) -> None:
    """Build the checkout's wheel with the environment's build tools and install it."""
    say("building and installing the swarm wheel")
    with tempfile.TemporaryDirectory() as folder:
        build = ["build", "--quiet", "--wheel", "--out-dir", folder, *_into_venv()]
        # The build tools are in the environment, so that an edited source needs no network.
        run_command([uv, *build, "--no-build-isolation", str(ROOT)])
        (wheel,) = Path(folder).glob("*.whl")
        options = ["--quiet", "--no-deps", "--reinstall", "--no-index"]
        run_command([uv, "pip", "install", *options, *_into_venv(), str(wheel)])
    python = str(VENV / "bin" / "python")
    find = "import importlib.util as u; print(*u.find_spec('swarm').submodule_search_locations)"
    (place,) = subprocess.check_output([python, "-I", "-c", find], text=True).splitlines()
    run_command([python, "-m", "compileall", "-q", "-j", "0", place])


def sources_digest() -> str:
    """One digest over everything that goes into the wheel: names, modes and bytes."""
    digest = hashlib.sha256()
    files = [ROOT / "pyproject.toml", ROOT / "README.md", ROOT / "LICENSE"]
    files += sorted(path for path in (ROOT / "src").rglob("*") if path.is_file())
    for path in files:
        if "__pycache__" in path.parts:
            continue
        mode = path.stat().st_mode & 0o111
        digest.update(f"{path.relative_to(ROOT)}\0{mode}\0{file_digest(path)}\n".encode())
    return digest.hexdigest()


def fetch_settings(environment: Mapping[str, str], configuration: str = "") -> dict[str, str]:
    """uv's environment, with what pip was told about mirror and certificates.

    uv does not read pip's configuration, so a machine whose pip is set up for a mirror could fetch
    uv and nothing else. What is set for uv itself stands.

    Args:
        environment: the variables of this process.
        configuration: the text of pip's configuration files, the most specific last.
    """
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(configuration)
    except configparser.Error:
        parser.clear()
    settings = dict(environment)
    for variable, pip_variable, key in (
        ("UV_DEFAULT_INDEX", "PIP_INDEX_URL", "index-url"),
        ("SSL_CERT_FILE", "PIP_CERT", "cert"),
    ):
        value = environment.get(pip_variable) or parser.get("global", key, fallback=None)
        if value and variable not in settings:
            settings[variable] = value
    if "UV_INDEX_URL" in environment:
        settings.pop("UV_DEFAULT_INDEX", None)
    return settings


def _pip_configuration() -> str:
    home = Path("~").expanduser()
    named = os.environ.get("PIP_CONFIG_FILE")
    files = [
        Path("/etc/pip.conf"),
        home / ".pip" / "pip.conf",
        Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf",
    ]
    if named:
        files = [] if named == os.devnull else [*files, Path(named)]
    return "\n".join(path.read_text() for path in files if path.is_file())


def _make_venv() -> None:
    if VENV.exists():
        shutil.rmtree(VENV)
    say(f"making .venv with Python {sys.version.split()[0]}")
    run_command([sys.executable, "-m", "venv", "--without-pip", str(VENV)])


def _distribution_pip(scratch: Path) -> Path | None:
    """pip's wheel out of Debian's own package, which anybody may download; None elsewhere."""
    wheels = list(Path("/usr/share/python-wheels").glob("pip-*.whl"))
    if not wheels and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        fetched = subprocess.run(
            ["apt-get", "download", "python3-pip-whl"],
            cwd=scratch,
            capture_output=True,
            check=False,
        )
        for archive in scratch.glob("*.deb"):
            if fetched.returncode == 0:
                run_command(["dpkg-deb", "-x", str(archive), str(scratch)])
        wheels = list(scratch.glob("usr/share/python-wheels/pip-*.whl"))
    return wheels[0] if wheels else None


def _locked(name: str) -> str:
    """The lines of one package in the runtime lock, with its hashes."""
    lines: list[str] = []
    for line in (ROOT / LOCKS["run"]).read_text().splitlines():
        if lines and not line.startswith(" "):
            break
        if lines or line.startswith(f"{name}=="):
            lines.append(line)
    if not lines:
        raise SetupError(f"{LOCKS['run']} does not hold {name}; run make lock")
    return "\n".join(line for line in lines if not line.lstrip().startswith("#")) + "\n"


def _into_venv() -> list[str]:
    return ["--python", str(VENV / "bin" / "python")]


def _works(python: str | Path, program: str = "") -> bool:
    if not Path(python).exists():
        return False
    command = [str(python), "-I", "-c", program]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _quietly(command: list[str]) -> int:
    return subprocess.run(command, capture_output=True, check=False).returncode


def run_command(command: list[str]) -> None:
    """Run a command, its output going where ours goes."""
    environment = fetch_settings(os.environ, _pip_configuration())
    environment.pop("VIRTUAL_ENV", None)
    if any(bundle.is_file() for bundle in SYSTEM_CERTIFICATES):
        # pip trusts what the system trusts; uv by itself has a list of its own.
        environment.setdefault("UV_SYSTEM_CERTS", "true")
    subprocess.run(command, check=True, env=environment, stdin=subprocess.DEVNULL, cwd=ROOT)


def file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Two makes in one checkout take turns."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(text: str) -> None:
    print(f"swarm: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
