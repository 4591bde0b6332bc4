"""The error boundary: whatever ends a command becomes a clear message and an exit code.

    ==============================  =====================================================
    what ended it                   what the user gets
    ==============================  =====================================================
    SwarmError                      ``error: where: message`` and ``remedy: ...``; its code
    a usage error of click          the same form, with a pointer to ``--help``; 2
    Ctrl-C                          ``interrupted``; 130
    a closed pipe (``| head``)      nothing; 0
    anything else                   one line and the file that holds the traceback; 1
    ==============================  =====================================================

With ``--json`` an error is also an object on standard output: ``{"error": {...}}``.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import click
from click.shell_completion import shell_complete

from swarm import __version__
from swarm.cli.options import Globals
from swarm.cli.terminal import (
    Terminal,
    clean,
    encodable,
    prepare_streams,
    silence_closed_pipe,
    stderr,
    stdout,
)
from swarm.kernel.errors import DefinitionError, ExitCode, InvalidError, SwarmError
from swarm.kernel.json import dumps
from swarm.kernel.redaction import redacted

MAX_CRASH_FILES = 20


def execute(command: click.Command, program: str, arguments: Sequence[str]) -> int:
    """Run ``command`` as a process would and return the exit code."""
    prepare_streams()
    completion_variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    if instruction := os.environ.get(completion_variable):
        return shell_complete(command, {}, program, completion_variable, instruction)
    options = Globals()
    try:
        code = _invoke(command, program, arguments, options)
        sys.stdout.flush()
    except BrokenPipeError:
        code = ExitCode.OK
    except (KeyboardInterrupt, click.Abort):
        stderr().line("interrupted")
        code = ExitCode.INTERRUPTED
    except click.ClickException as error:
        code = _report(_usage_error(error), options.json or "--json" in arguments)
    except SwarmError as error:
        code = _report(error, options.json)
    except Exception as error:  # noqa: BLE001 - the last boundary: nothing may pass it untold
        code = _report(_crash(error, options), options.json)
    silence_closed_pipe()
    # All is done and said: a late Ctrl-C must not spoil the exit code while Python shuts down.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


def _invoke(
    command: click.Command, program: str, arguments: Sequence[str], options: Globals
) -> int:
    try:
        with command.make_context(program, list(arguments), obj=options) as context:
            result = command.invoke(context)
            return result if isinstance(result, int) else ExitCode.OK
    except click.exceptions.Exit as exit_request:
        return exit_request.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        stderr().line(error.format_message())
        return ExitCode.INVALID


def _usage_error(error: click.ClickException) -> SwarmError:
    message = error.format_message().rstrip(".")
    remedy = None
    if isinstance(error, click.UsageError) and error.ctx is not None:
        remedy = f"see {error.ctx.command_path} --help"
    return InvalidError(message[:1].lower() + message[1:], remedy=remedy)


def _report(error: SwarmError, as_json: bool) -> int:
    show_error(error, stderr())
    if as_json:
        try:
            stdout().line(error_document(error))
            sys.stdout.flush()
        except BrokenPipeError:
            silence_closed_pipe()
    return error.exit_code


def error_document(error: SwarmError) -> str:
    """The JSON text of ``{"error": {code, message, where, remedy, exit_code}}``."""
    document = {**error.as_json(), "exit_code": int(error.exit_code)}
    return dumps({"error": encodable(document)})


def show_error(error: SwarmError, terminal: Terminal) -> None:
    """Write an error for people, each of its problems in the same form."""
    if not isinstance(error, DefinitionError):
        _show(terminal, error.where, error.message, error.remedy)
        return
    for problem in error.problems:
        _show(terminal, problem.where, problem.message, problem.remedy)
    if len(error.problems) > 1:
        terminal.line(f"{len(error.problems)} problems found")


def _show(terminal: Terminal, where: str | None, message: str, remedy: str | None) -> None:
    head = terminal.style("error:", "red", bold=True)
    place = terminal.style(clean(where) + ": ", bold=True) if where else ""
    terminal.line(f"{head} {place}{clean(message)}")
    if remedy:
        terminal.line(f"  {terminal.style('remedy:', 'cyan')} {clean(remedy)}")


def _crash(error: Exception, options: Globals) -> SwarmError:
    """Keep the traceback of an unexpected exception and tell where."""
    text = redacted("".join(traceback.format_exception(error)))
    if os.environ.get("SWARM_DEBUG") == "1":
        stderr().line(text)
    summary = redacted(f"{type(error).__name__}: {error}").splitlines()[0]
    return SwarmError(
        f"something unexpected happened in Swarm itself: {summary}",
        remedy=f"report it with {_keep(text, options.home_folder())}, which has the details",
    )


def _keep(text: str, home: Path) -> Path:
    """Write a crash report below the home, else to the temporary folder; keep the newest only."""
    moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    name = f"crash-{moment}-{os.getpid()}-{os.urandom(3).hex()}.txt"
    typed = redacted(clean(" ".join(sys.argv)))
    text = f"swarm {__version__}, python {sys.version}\n{typed}\n\n{text}"
    for folder in (home / "registry" / "logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # In the temporary folder there are others' too.
            own = [
                path for path in folder.glob("crash-*.txt") if path.lstat().st_uid == os.geteuid()
            ]
            for old in sorted(own)[: 1 - MAX_CRASH_FILES]:
                old.unlink(missing_ok=True)
            # What was typed may hold secrets: for nobody else to read, and through nobody's link.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(folder / name, flags, 0o600), "wb") as file:
                file.write(text.encode(errors="backslashreplace"))
        except OSError:
            continue
        return folder / name
    return Path("(no folder could be written)")
