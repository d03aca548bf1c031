"""`flux workflows` and `flux graph`: what is in the user's files. Nothing is run, no database is opened."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.text import Text

from flux.cli import screen
from flux.cli.loading import AnyWorkflow, Refused, split
from flux.cli.views import fields_words
from flux.discovery import Discovery, Problem, discover
from flux.errors import DuplicateWorkflow
from flux.registry import Registry
from flux.schema import input_schema, json_schema
from flux.tasks import Graph

# -- workflows -----------------------------------------------------------------------------------------------------------


def list_workflows(paths: Sequence[str], *, as_json: bool) -> None:
    found = discover(paths)
    workflows, problems = _distinct(found)
    if as_json:
        screen.print_json(
            {
                "workflows": [_workflow_view(workflow) for workflow in workflows],
                "problems": [{"path": str(problem.path), "summary": problem.summary} for problem in problems],
            }
        )
        return
    if workflows:
        rows = [
            (workflow.name, _input_words(workflow), _first_line(workflow), _here(workflow)) for workflow in workflows
        ]
        screen.print_table(("workflow", "input", "description", "source"), rows, flexible="description")
    elif not problems:
        screen.say(f"There are no workflows in {', '.join(paths)}.")
    for problem in problems:
        screen.say(
            Text.assemble(("✗ ", "red"), (_near(problem.path), "bold"), f": {screen.printable(problem.summary)}")
        )


def _distinct(found: Discovery) -> tuple[Sequence[AnyWorkflow], Sequence[Problem]]:
    """Of two workflows with one name only the first can be used: the second is a problem."""
    registry = Registry[AnyWorkflow]()
    problems = list(found.problems)
    for workflow in found.workflows:
        try:
            registry.add(workflow)
        except DuplicateWorkflow as exc:
            problems.append(Problem(path=Path(workflow.source.rpartition(":")[0]), summary=str(exc)))
    return list(registry), problems


def _workflow_view(workflow: AnyWorkflow) -> dict[str, Any]:
    return {
        "name": workflow.name,
        "title": workflow.title,
        "description": workflow.description,
        "version": workflow.version,
        "tags": sorted(workflow.tags),
        "source": workflow.source,
        "has_schedule": workflow.schedule is not None,
        "input_schema": json_schema(workflow.input),
        "output_schema": json_schema(workflow.output, "serialization"),
    }


def _input_words(workflow: AnyWorkflow) -> str:
    schema = input_schema(workflow.input)
    if not schema.names:
        return ""
    words = fields_words(schema.schema)
    return words[0].partition(": ")[2] if schema.wrapped else ", ".join(words)


def _first_line(workflow: AnyWorkflow) -> str:
    return (workflow.description or "").strip().partition("\n")[0]


def _here(workflow: AnyWorkflow) -> str:
    path, _, line = workflow.source.rpartition(":")
    return f"{_near(Path(path))}:{line}"


def _near(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


# -- graphs --------------------------------------------------------------------------------------------------------------


def draw_graphs(given: str, *, mermaid: bool, as_json: bool) -> None:
    target, name = split(given)
    graphs = {key: graph for key, graph in _graphs_in(target).items() if name in (None, key, graph.name)}
    if not graphs:
        raise Refused(f"{target} has no graph {name!r} at its top level." if name else _no_graph(target))
    if as_json:
        screen.print_json(
            [{"name": graph.name, "text": graph.to_text(), "mermaid": graph.to_mermaid()} for graph in graphs.values()]
        )
        return
    width = min(screen.out().width, 200) if sys.stdout.isatty() else 100
    pictures = [graph.to_mermaid() if mermaid else graph.to_text(width=width) for graph in graphs.values()]
    sys.stdout.write("\n".join(pictures))


def _no_graph(target: str) -> str:
    return f"{target} has no graph at its top level: `my_graph = Graph(...)` outside of functions can be drawn."


def _graphs_in(target: str) -> dict[str, Graph]:
    found = discover([target])
    sources = set(found.sources)
    members: dict[str, Graph] = {}
    for module in list(sys.modules.values()):
        if _file_of(module) in sources:
            members |= {name: graph for name, graph in vars(module).items() if isinstance(graph, Graph)}
    broken = [problem for problem in found.problems if problem.traceback]
    if not members and broken:
        raise Refused(f"{target} cannot be read: {broken[0].summary}")
    return members


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if isinstance(file, str) else None


def graphs_of(members: Mapping[str, Any]) -> list[Graph]:
    """The graphs of a module, each once."""
    return list({id(value): value for value in members.values() if isinstance(value, Graph)}.values())
