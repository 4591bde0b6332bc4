"""Checks a workflow as a whole: its expressions, its DAG, and how its steps fit their agents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from swarm.definitions.agent import AgentDefinition
from swarm.definitions.fields import FieldDefinition
from swarm.definitions.rules import workflow_problems
from swarm.definitions.source import Location, Source
from swarm.definitions.values import check_value, is_required
from swarm.definitions.workflow import StepDefinition, WorkflowDefinition
from swarm.expressions.cycles import find_cycles, shown_cycle
from swarm.expressions.names import BEFORE_STEPS, WITH_STEPS, Names, Place
from swarm.expressions.template import Template, compile_condition, compile_template
from swarm.kernel.errors import ExpressionError, Problem, nearest_names
from swarm.kernel.json import JsonValue

_WITH_SECRETS = WITH_STEPS | {"secrets"}
_WITH_ERROR = WITH_STEPS | {"error"}


def check_workflow(
    workflow: WorkflowDefinition,
    source: Source | None,
    file: str,
    agents: Mapping[str, AgentDefinition] | None,
) -> list[Problem]:
    """Every problem of a workflow whose structure is right, in the order of the lines.

    Args:
        workflow: what to check.
        source: where it came from; without it, problems have no line.
        file: how problems call the file.
        agents: the agents of the steps, by the reference as written in the step; steps whose agent
            is not among them are not compared with it. None compares none.
    """
    checker = _Checker(workflow, source, file, agents)
    checker.check()
    problems = dict.fromkeys(checker.problems)
    return sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0))


class _Checker:
    def __init__(
        self,
        workflow: WorkflowDefinition,
        source: Source | None,
        file: str,
        agents: Mapping[str, AgentDefinition] | None,
    ) -> None:
        self.workflow = workflow
        self.source = source
        self.file = file
        self.agents = agents or {}
        self.names = Names(workflow, agents)
        self.problems: list[Problem] = []

    def check(self) -> None:
        rules = workflow_problems(self.workflow, self.source or Source(None, self.file))
        for problem in rules:
            self._add_unplaced(problem)
        self._check_variables()
        waits = {step.id: set(step.needs) for step in self.workflow.steps}
        for index, step in enumerate(self.workflow.steps):
            waits[step.id] |= self._check_step(step, ("steps", index))
        self._check_cycles(waits)
        self._check_value(self.workflow.output_values, ("outputs",), Place(WITH_STEPS))
        for name, roots in (("on_error", _WITH_ERROR), ("on_success", WITH_STEPS)):
            for index, action in enumerate(getattr(self.workflow, name)):
                location = (name, index, "notify", "message")
                if action.notify is None:
                    continue
                self._check_value(action.notify.message, location, Place(roots))

    def _problem(self, location: Location, message: str, remedy: str | None) -> None:
        if self.source is None:
            self.problems.append(Problem(message, self.file, remedy=remedy))
        else:
            self.problems.append(self.source.problem(location, message, remedy))

    def _add_unplaced(self, problem: Problem) -> None:
        known = self.source is not None
        self.problems.append(
            problem if known else Problem(problem.message, self.file, remedy=problem.remedy)
        )

    def _check_variables(self) -> None:
        """A variable may use those above it.

        That is asked of a source only: a stored document may have lost the order.
        """
        uses: dict[str, set[str]] = {}
        for name, value in self.workflow.variables.items():
            templates = self._check_value(value, ("variables", name), Place(BEFORE_STEPS))
            uses[name] = _named(templates, "variables")
        cycles = find_cycles(uses)
        for cycle in cycles:
            self._problem(
                ("variables", cycle[0]),
                f"cycle of variables: {shown_cycle(cycle)}",
                "let one of them not use the next",
            )
        if self.source is not None:
            self._check_order(uses, {name for cycle in cycles for name in cycle})

    def _check_order(self, uses: Mapping[str, set[str]], in_cycles: set[str]) -> None:
        above: set[str] = set()
        for name, used in uses.items():
            for each in sorted((used & uses.keys()) - above - in_cycles):
                self._problem(
                    ("variables", name),
                    f"the variable `{name}` uses `{each}`, which is defined below it",
                    f"move `{each}` above it",
                )
            above.add(name)

    def _check_step(self, step: StepDefinition, at: Location) -> set[str]:
        """Check one step; return the steps that its expressions name."""
        for index, need in enumerate(step.needs):
            self._check_need(step, need, (*at, "needs", index))
        templates = self._check_condition(step, at)
        place = Place(_WITH_SECRETS, step.id)
        agent = self.agents.get(step.agent or "")
        fields = {field.name: field for field in agent.inputs} if agent is not None else {}
        for name, value in step.inputs.items():
            location = (*at, "inputs", name)
            compiled = self._check_value(value, location, place)
            templates += compiled
            if agent is None:
                continue
            self._check_secrets(compiled, agent, location)
            subject = f"input `{name}` of {agent.name}@{agent.version}"
            if name in fields:
                self._check_type(value, location, fields[name], subject)
            elif not agent.additional_inputs:
                self._undeclared(location, subject, name, fields)
        if agent is not None:
            self._check_missing(step, agent, at)
        return _named(templates, "steps") - {step.id}

    def _check_need(self, step: StepDefinition, need: str, location: Location) -> None:
        known = [each.id for each in self.workflow.steps]
        if need == step.id:
            self._problem(location, f"the step `{need}` needs itself", "remove it")
        elif need not in known:
            nearest = nearest_names(need, known)
            remedy = (
                f"did you mean {' or '.join(nearest)}?"
                if nearest
                else (f"there is: {', '.join(known)}")
            )
            self._problem(location, f"there is no step `{need}` to wait for", remedy)

    def _check_condition(self, step: StepDefinition, at: Location) -> list[Template]:
        if step.when is None:
            return []
        location = (*at, "when")
        try:
            template = compile_condition(step.when, where="")
        except ExpressionError as error:
            self._problem(location, error.message, error.remedy)
            return []
        self._check_names(template, location, Place(WITH_STEPS, step.id))
        return [template]

    def _check_value(self, value: JsonValue, location: Location, place: Place) -> list[Template]:
        """Check every text of a value; return its templates."""
        templates = []
        for leaf, text in self._texts(value, location):
            try:
                template = compile_template(text, where="")
            except ExpressionError as error:
                self._problem(leaf, error.message, error.remedy)
                continue
            self._check_names(template, leaf, place)
            templates.append(template)
        return templates

    def _texts(self, value: JsonValue, location: Location) -> Iterator[tuple[Location, str]]:
        if isinstance(value, str):
            yield location, value
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from self._texts(item, (*location, index))
        elif isinstance(value, dict):
            for key, item in value.items():
                if "${" in key:
                    self._problem(
                        (*location, key),
                        f"the name `{key}` holds an expression, which only values can",
                        "write the name out",
                    )
                yield from self._texts(item, (*location, key))

    def _check_names(self, template: Template, location: Location, place: Place) -> None:
        for reference in sorted(template.references):
            if (fault := self.names.fault(reference, place)) is not None:
                self._problem(location, f"${{{'.'.join(reference)}}}: {fault[0]}", fault[1])

    def _check_secrets(
        self, templates: list[Template], agent: AgentDefinition, location: Location
    ) -> None:
        for secret in sorted(_named(templates, "secrets").difference(agent.permissions.secrets)):
            self._problem(
                location,
                f"{agent.name}@{agent.version} does not request the secret `{secret}`",
                f"add it to `permissions: {{secrets: [{secret}]}}` of the agent, or leave it out",
            )

    def _undeclared(
        self,
        location: Location,
        subject: str,
        name: str,
        fields: Mapping[str, FieldDefinition],
    ) -> None:
        nearest = nearest_names(name, fields)
        remedy = (
            f"did you mean {' or '.join(nearest)}?"
            if nearest
            else (f"declared: {', '.join(fields) or 'nothing'}")
        )
        self._problem(location, f"{subject} is not declared", remedy)

    def _check_missing(self, step: StepDefinition, agent: AgentDefinition, at: Location) -> None:
        for field in agent.inputs:
            if is_required(field) and field.name not in step.inputs:
                self._problem(
                    (*at, "inputs"),
                    f"input `{field.name}` of {agent.name}@{agent.version} is missing in step "
                    f"`{step.id}`",
                    f"add `{field.name}: ...` ({field.type}) to its inputs",
                )

    def _check_type(
        self, value: JsonValue, location: Location, field: FieldDefinition, subject: str
    ) -> None:
        """Compare what is known of a value before the run with what the agent declares."""
        try:
            template = compile_template(value, where="")
        except ExpressionError:
            return  # told already
        if template.is_constant:
            constant = template.evaluate({})
            fault = (
                None
                if constant is None and not is_required(field)
                else (check_value(field, constant))
            )
            if fault is not None:
                self._problem(location, f"{subject} {fault}", "give a value that fits")
            return
        given = self._type_of(value, template)
        if (
            given is not None
            and given != field.type
            and (given, field.type)
            != (
                "integer",
                "number",
            )
        ):
            self._problem(
                location,
                f"{subject} must be of type {field.type}, but this gives {given}",
                "give a value that fits",
            )

    def _type_of(self, value: JsonValue, template: Template) -> str | None:
        """The type that a value with expressions will have, where that is known."""
        if isinstance(value, dict):
            return "object"
        if isinstance(value, list):
            return "array"
        if not template.is_whole:
            return "string"
        declared = self.names.field(template.path)
        return declared.type if declared is not None else None

    def _check_cycles(self, waits: Mapping[str, set[str]]) -> None:
        positions = {step.id: index for index, step in enumerate(self.workflow.steps)}
        graph = {step: named - {step} for step, named in waits.items()}
        for cycle in find_cycles(graph):
            self._problem(
                ("steps", positions[cycle[0]]),
                f"cycle: {shown_cycle(cycle)} (each waits for the next)",
                "let one of them not use or need the next",
            )


def _named(templates: list[Template], root: str) -> set[str]:
    return {name for template in templates for name in template.named(root)}
