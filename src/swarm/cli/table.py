"""Every command, its one-line help, and where its code is."""

from __future__ import annotations

from swarm.cli.lazy import Entry

_DEFINE = "Build"
_RUN = "Run"
_MACHINE = "This machine"


def _command(target: str, text: str, section: str = "Commands") -> Entry:
    return Entry(text, f"swarm.cli.commands.{target}", section=section)


AGENT = {
    "new": _command("agent_packages:new", "Make a new agent from a template."),
    "list": _command("agent:list_", "List the registered agents."),
    "info": _command("agent:info", "Show what an agent takes, gives and may do."),
    "register": _command("agent_registry:register", "Register agents and grant what they request."),
    "unregister": _command("agent_registry:unregister", "Take an agent out of the registry."),
    "validate": _command("agent_packages:validate", "Check packages without registering them."),
    "run": _command("agent_run:run", "Call one agent, outside any workflow."),
    "pack": _command("agent_packages:pack", "Write a reproducible .apkg archive of a package."),
    "inspect": _command("agent_packages:inspect", "Show what an archive holds, unopened."),
}

WORKFLOW = {
    "new": _command("workflow_registry:new", "Make a new workflow from a template."),
    "list": _command("workflow:list_", "List the registered workflows."),
    "info": _command("workflow_info:info", "Show a workflow's inputs, steps and outputs."),
    "register": _command("workflow_registry:register", "Register workflows."),
    "enable": _command("workflow_registry:enable", "Let a workflow be run again."),
    "disable": _command("workflow_registry:disable", "Keep a workflow from being run."),
    "runs": _command("workflow:runs", "Show a workflow's run history."),
    "validate": _command("workflow_registry:validate", "Check workflows without registering them."),
    "import": _command("workflow_import:import_", "Make a workflow from a WfCommons instance."),
    "graph": _command("graph:graph", "Draw a workflow's steps and what they wait for."),
}

RUNS = {
    "list": _command("runs:list_", "List runs, newest first."),
    "show": _command("run_show:show", "Show a run's steps, outputs and files."),
    "children": _command("runs:children", "List the runs that a run called."),
    "timeline": _command("timeline:timeline", "Draw when each step of a run ran and waited."),
    "logs": _command("logs:logs", "Print what a run's agents logged."),
    "resume": _command("steer:resume", "Carry on interrupted, failed or cancelled runs."),
    "waiting": _command("waiting:waiting", "List what runs wait for."),
    "approve": _command("answers:approve", "Approve what a step waits for."),
    "reject": _command("answers:reject", "Reject what a step waits for."),
    "cancel": _command("steer:cancel", "Stop runs, with clean-up."),
    "retry": _command("repeat:retry", "Start a new run with the inputs of another."),
    "fork": _command("repeat:fork", "Start a run that repeats another with something changed."),
    "replay": _command("repeat:replay", "Start a run in which some steps are not run."),
    "export": _command("transfer:export", "Write runs as JSON Lines."),
    "import": _command("transfer:import_", "Record the runs of an export."),
    "purge": _command("purge:purge", "Delete old runs, and what nothing refers to."),
}

SANDBOX = {
    "build-image": _command("sandbox:build", "Build the image of virtual machines."),
}

SECRET = {
    "set": _command("secret:set_", "Store a secret, read from standard input or a prompt."),
    "get": _command("secret:get", "Print a secret's value."),
    "list": _command("secret_list:list_", "List the secrets, without their values."),
    "delete": _command("secret:delete", "Delete a secret."),
    "rotate": _command("secret_rotate:rotate", "Encrypt every secret's key anew."),
    "import": _command("secret_transfer:import_", "Store the secrets of a JSON document."),
    "export": _command("secret_transfer:export", "Write secrets, readable, as a JSON document."),
}

DATABASE = {
    "backup": _command("database:backup", "Copy the database while it is in use."),
    "check": _command("database:check", "Check that the database is sound."),
    "copy": _command("database_files:copy", "Copy a home between SQLite and PostgreSQL."),
    "fetch": _command("database_files:fetch", "Bring all files that other machines have."),
    "migrate": _command("database:migrate", "Make the tables, or bring them up to date."),
    "publish": _command("database_files:publish", "Have other machines find this home's files."),
    "status": _command("database:status", "Show which database it is, and its version."),
}

EVENTS = {
    "send": _command("events:send", "Send an event to the runs that wait for it."),
}

RUN = _command("run:run", "Run a workflow and show its progress.", _RUN)

ROOT = {
    "agent": Entry("Make, check, register and call agents.", commands=AGENT, section=_DEFINE),
    "workflow": Entry(
        "Make, check, register and draw workflows.", commands=WORKFLOW, section=_DEFINE
    ),
    "secret": Entry(
        "Store, list and rotate the secrets of agents.", commands=SECRET, section=_DEFINE
    ),
    "run": RUN,
    "runs": Entry("List, inspect and steer runs.", commands=RUNS, section=_RUN),
    "events": Entry("Send events to runs that wait.", commands=EVENTS, section=_RUN),
    "worker": _command("worker:worker", "Drive runs until stopped.", _RUN),
    "status": _command("status:status", "Show the workers, and the runs that wait.", _RUN),
    "health": _command("health:health", "Ask the worker whether it is ready.", _RUN),
    "db": Entry("Back up, check and move the database.", commands=DATABASE, section=_MACHINE),
    "sandbox": Entry("Prepare virtual machines for agents.", commands=SANDBOX, section=_MACHINE),
    "doctor": _command("doctor:doctor", "Say what this machine can and cannot do.", _MACHINE),
    "settings": _command(
        "settings:settings", "Show every setting, its value and its origin.", _MACHINE
    ),
    "completion": _command("completion:completion", "Print a shell's completion script.", _MACHINE),
    "version": _command("version:version", "Print the version.", _MACHINE),
}
