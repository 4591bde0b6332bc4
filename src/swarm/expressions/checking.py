"""Checks a workflow as a whole: its expressions, its DAG, and how its steps fit what they call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from swarm.definitions.agent import AgentDefinition
from swarm.definitions.faults import shown_location
from swarm.definitions.rules import workflow_problems
from swarm.definitions.source import MAX_PROBLEMS, Location, Source
from swarm.definitions.workflow import ACTION_LISTS, PlacedStep, StepDefinition, WorkflowDefinition
from swarm.expressions.cycles import find_cycles, shown_cycle
from swarm.expressions.dependencies import named
from swarm.expressions.fitting import (
    Called,
    called_agent,
    called_workflow,
    input_findings,
    misfit,
)
from swarm.expressions.names import BEFORE_STEPS, WITH_STEPS, Names, Place
from swarm.expressions.parts import SCALARS, Part, step_parts
from swarm.expressions.reach import StepFacts, unreachable_steps
from swarm.expressions.shapes import UNKNOWN, Shape, value_shape
from swarm.expressions.template import Template, compile_template, evaluate_condition
from swarm.kernel.errors import ExpressionError, Problem
from swarm.kernel.json import JsonValue


def check_workflow(
    workflow: WorkflowDefinition,
    source: Source | None,
    file: str,
    agents: Mapping[str, AgentDefinition] | None,
    workflows: Mapping[str, WorkflowDefinition] | None = None,
) -> list[Problem]:
    """Every problem of a workflow whose structure is right, in the order of the lines.

    At most :data:`~swarm.definitions.source.MAX_PROBLEMS`, then one that says that there are more.

    Args:
        workflow: what to check.
        source: where it came from; without it, problems have no line.
        file: how problems call the file.
        agents: the agents of the steps, by the reference as written in the step; steps whose agent
            is not among them are not compared with it. None compares none.
        workflows: the workflows that steps call, in the same way.
    """
    checker = _Checker(workflow, source, file, agents or {}, workflows or {})
    more: list[Problem] = []
    try:
        checker.check()
    except _EnoughProblemsError:
        remedy = "mend these, then check it again"
        more = [Problem("there are more problems than these", file, remedy=remedy)]
    problems = dict.fromkeys(checker.problems)
    return [*sorted(problems, key=lambda each: (each.line or 0, each.column or 0)), *more]


class _EnoughProblemsError(Exception):
    """So many problems were found that the others can wait."""


class _Checker:
    def __init__(
        self,
        workflow: WorkflowDefinition,
        source: Source | None,
        file: str,
        agents: Mapping[str, AgentDefinition],
        workflows: Mapping[str, WorkflowDefinition],
    ) -> None:
        self.workflow = workflow
        self.source = source
        self.file = file
        self.called = {
            **{("agent", name): called_agent(agent) for name, agent in agents.items()},
            **{("workflow", name): called_workflow(each) for name, each in workflows.items()},
        }
        self.names = Names(workflow, agents, workflows)
        self.problems: list[Problem] = []
        self.facts: dict[str, StepFacts] = {}

    def check(self) -> None:
        rules = workflow_problems(self.workflow, self.source or Source(None, self.file))
        for problem in rules:
            self._add_unplaced(problem)
        self._check_before_steps()
        for placed in self.workflow.placed_steps():
            self._check_step(placed)
        if not self._check_cycles():
            for location, message, remedy in unreachable_steps(self.facts):
                self._problem(location, message, remedy)
        self._check_outputs()
        self._check_messages()

    def _problem(self, location: Location, message: str, remedy: str | None) -> None:
        if self.source is None:
            self._add(Problem(message, self.file, remedy=remedy))
        else:
            self._add(self.source.problem(location, message, remedy))

    def _add_unplaced(self, problem: Problem) -> None:
        known = self.source is not None
        self._add(problem if known else Problem(problem.message, self.file, remedy=problem.remedy))

    def _add(self, problem: Problem) -> None:
        if len(self.problems) >= MAX_PROBLEMS:
            raise _EnoughProblemsError
        self.problems.append(problem)

    def _check_before_steps(self) -> None:
        """What is evaluated when the run is created."""
        place = Place(BEFORE_STEPS)
        self._check_variables(place)
        for name, value in self.workflow.labels.items():
            self._check_part(Part((), value, accepts=SCALARS), ("labels", name), place)
        if self.workflow.concurrency is not None:
            part = Part((), self.workflow.concurrency.key, accepts=SCALARS)
            self._check_part(part, ("concurrency", "key"), place)

    def _check_variables(self, place: Place) -> None:
        """A variable may use those above it.

        That is asked of a source only: a stored document may have lost the order.
        """
        uses: dict[str, set[str]] = {}
        for name, value in self.workflow.variables.items():
            uses[name] = named(self._check_value(value, ("variables", name), place), "variables")
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

    def _check_step(self, placed: PlacedStep) -> None:
        step, at = placed.step, placed.location
        place = _place_of(placed)
        for index, need in enumerate(step.needs):
            self._check_need(need, place, (*at, "needs", index))
        per_item = place
        if step.for_each is not None:
            per_item = place.with_items(self._item_shape(step, place))
        templates: list[Template] = []
        is_false = False
        for part in step_parts(step):
            seen = per_item if part.per_item else place
            if part.location[0] == "inputs" and step.agent is not None:
                templates += self._check_input(step, part, at, seen)
                continue
            compiled = self._check_part(part, (*at, *part.location), seen)
            templates += compiled
            if part.is_condition:
                is_false = self._check_constant_condition(compiled, (*at, "when"))
        self._check_fit(step, at, per_item)
        needs = frozenset(named(templates, "steps") | set(step.needs)) - {step.id}
        is_constant = all(template.is_constant for template in templates)
        self.facts.setdefault(step.id, StepFacts(placed, needs, is_false, is_constant))

    def _item_shape(self, step: StepDefinition, place: Place) -> Shape:
        items = step.for_each if isinstance(step.for_each, str) else list(step.for_each or ())
        return value_shape(items, lambda path: self.names.shape(path, place)).items or UNKNOWN

    def _check_input(
        self, step: StepDefinition, part: Part, at: Location, place: Place
    ) -> list[Template]:
        """An agent's input, which may be a secret that the agent requests."""
        location = (*at, *part.location)
        with_secrets = Place(
            place.roots | {"secrets"}, place.step, place.actions, place.position, place.item
        )
        templates = self._check_value(part.value, location, with_secrets)
        called = self.called.get(("agent", step.agent or ""))
        if called is not None:
            for secret in sorted(named(templates, "secrets") - called.secrets):
                self._problem(
                    location,
                    f"{called.title} does not request the secret `{secret}`",
                    f"add it to `permissions: {{secrets: [{secret}]}}` of the agent, or leave it "
                    "out",
                )
        return templates

    def _check_fit(self, step: StepDefinition, at: Location, place: Place) -> None:
        called = self._called_by(step)
        if called is None:
            return
        for location, message, remedy in input_findings(
            step, called, lambda path: self.names.shape(path, place)
        ):
            self._problem((*at, *location), message, remedy)

    def _called_by(self, step: StepDefinition) -> Called | None:
        if step.agent is not None:
            return self.called.get(("agent", step.agent))
        return self.called.get(("workflow", step.workflow or ""))

    def _check_need(self, need: str, place: Place, location: Location) -> None:
        if need == place.step:
            self._problem(location, f"the step `{need}` needs itself", "remove it")
            return
        fault = self.names.need_fault(need, place)
        if fault is not None:
            self._problem(location, *fault)

    def _check_constant_condition(self, compiled: Sequence[Template], location: Location) -> bool:
        """Whether a ``when`` is false whatever happens."""
        if not compiled or compiled[0].references:
            return False
        try:
            return not evaluate_condition(compiled[0], {})
        except ExpressionError as error:
            self._problem(location, error.message, error.remedy)
            return False

    def _check_part(self, part: Part, location: Location, place: Place) -> list[Template]:
        """Check one part of a step, and the type that it gives where that is known."""
        if not part.is_condition and not isinstance(part.value, str):
            return self._check_value(part.value, location, place)
        try:
            template = part.compile("")
        except ExpressionError as error:
            self._problem(location, error.message, error.remedy)
            return []
        has_fault = self._check_names(template, location, place)
        if part.is_array and not template.is_whole:
            self._problem(
                location,
                f"{shown_location(part.location)} must be a list, or one ${{...}} that gives one",
                "write it as in for_each: ${inputs.files}",
            )
        elif part.accepts is not None and not template.is_constant and not has_fault:
            self._check_kind(part, part.accepts, location, place)
        return [template]

    def _check_kind(
        self, part: Part, accepts: frozenset[str], location: Location, place: Place
    ) -> None:
        kind = value_shape(part.value, lambda path: self.names.shape(path, place)).kind
        if kind is None or kind in accepts:
            return
        shown = shown_location(part.location) or shown_location(location)
        remedies = {
            frozenset({"boolean"}): "compare it, as in ${steps.a.outputs.count > 0}",
            frozenset({"array"}): "give an array, such as ${inputs.files}",
        }
        wanted = " or ".join(each for each in _ORDER if each in accepts)
        self._problem(
            location,
            f"{shown} must be of type {wanted}, but this gives {kind}",
            remedies.get(accepts, "give a value that fits"),
        )

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

    def _check_names(self, template: Template, location: Location, place: Place) -> bool:
        """Tell what is wrong with the names of a template; return whether something is."""
        found = False
        for reference in sorted(template.references):
            if (fault := self.names.fault(reference, place)) is not None:
                self._problem(location, f"${{{'.'.join(reference)}}}: {fault[0]}", fault[1])
                found = True
        return found

    def _check_cycles(self) -> bool:
        graph = {
            step: set(fact.needs) | ({fact.placed.guard} if fact.placed.guard else set())
            for step, fact in self.facts.items()
        }
        cycles = find_cycles(graph)
        for cycle in cycles:
            self._problem(
                self.facts[cycle[0]].placed.location,
                f"cycle: {shown_cycle(cycle)} (each waits for the next)",
                "let one of them not use or need the next",
            )
        return bool(cycles)

    def _check_outputs(self) -> None:
        place = Place(WITH_STEPS)
        outputs = self.workflow.outputs
        if isinstance(outputs, dict):
            self._check_value(outputs, ("outputs",), place)
            return
        for index, output in enumerate(outputs):
            location = ("outputs", index, "value")
            self._check_value(output.value, location, place)
            fault = misfit(output.value, output, lambda path: self.names.shape(path, place))
            if fault is not None:
                inner, said = fault
                message = f"output `{output.name}` of the workflow {said}"
                self._problem((*location, *inner), message, "give a value that fits")

    def _check_messages(self) -> None:
        for name in ACTION_LISTS:
            roots = WITH_STEPS if name == "on_success" else WITH_STEPS | {"error"}
            for index, action in enumerate(getattr(self.workflow, name)):
                if action.notify is not None:
                    location = (name, index, "notify", "message")
                    place = Place(roots, actions=name, position=index)
                    self._check_value(action.notify.message, location, place)


_ORDER = ("string", "integer", "number", "boolean", "array")


def _place_of(placed: PlacedStep) -> Place:
    sees_error = placed.guard is not None or placed.actions in ("on_error", "on_cancel")
    return Place(
        WITH_STEPS | {"error"} if sees_error else WITH_STEPS,
        placed.step.id,
        placed.actions,
        int(placed.location[1]),
    )
