"""Which questions a workflow may ask, told from its code."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

import flux
import flux.tasks
from flux import ExecutionContext, pause, task, workflow
from flux.engine.approval import Approval
from flux.tasks import parallel
from flux.tasks import pause as ask_somebody
from flux_mcp_server.pauses import UNKNOWN, Question, questions_of


class Consent(BaseModel):
    approved: bool


class Types:
    answer = Consent


@workflow
async def quiet(ctx: ExecutionContext[str]) -> str:
    return ctx.input


@workflow
async def plain(ctx: ExecutionContext[str]) -> Consent:
    await pause("anything")
    return await pause("typed", response=Consent)


@workflow
async def renamed(ctx: ExecutionContext[str]) -> None:
    await ask_somebody("alias", response=bool)
    await flux.pause("top", response=Types.answer)
    await flux.tasks.pause(name="module", response=Literal["a", "b"])


async def helper() -> None:
    await pause("in a helper", response=int)


@task
async def step() -> None:
    await pause("in a task", response=float)


@workflow
async def child() -> None:
    await pause("in a child", response=bool | None)


class Desk:
    @staticmethod
    async def ask() -> None:
        await pause("in a method", response=list[str])


async def first(n: int) -> None:
    await (helper() if n == 0 else second(n - 1))


async def second(n: int) -> None:
    await first(n)


@workflow
async def deep() -> None:
    await step()
    await first(3)
    await Desk.ask()
    await parallel(*(child.func() for _ in range(2)))


def test_a_workflow_that_asks_nothing_has_no_questions() -> None:
    assert questions_of(quiet) == []


def test_the_type_of_an_answer_is_read_from_the_call() -> None:
    assert questions_of(plain) == [Question("anything", Any), Question("typed", Consent)]


def test_pause_is_found_under_every_name_it_is_imported_by() -> None:
    assert questions_of(renamed) == [
        Question("alias", bool),
        Question("top", Consent),
        Question("module", Literal["a", "b"]),
    ]


def test_tasks_helpers_methods_and_other_workflows_are_looked_into_and_circles_end() -> None:
    found = {question.name: question.response for question in questions_of(deep)}
    assert found == {
        "in a task": float,
        "in a helper": int,
        "in a method": list[str],
        "in a child": bool | None,
    }


@task.with_options(requires_approval=True)
async def pay() -> None:
    pass


STEPS = [step, pay]


@workflow
async def by_table() -> None:
    for each in STEPS:
        await each()


def test_steps_in_a_table_are_looked_into_and_a_task_that_needs_approval_asks() -> None:
    assert questions_of(by_table) == [Question("in a task", float), Question("approval:pay", Approval)]


def test_approval_that_is_asked_for_at_the_call_is_a_question() -> None:
    @workflow
    async def careful() -> None:
        await step_without_question.with_options(requires_approval=True)()

    assert questions_of(careful) == [Question(None, Approval)]


@task
async def step_without_question() -> None:
    pass


def test_a_question_in_a_branch_or_a_nested_function_is_found_with_its_closure() -> None:
    local_type = Literal["yes", "no"]

    @workflow
    async def branches(ctx: ExecutionContext[list[str]]) -> list[Any]:
        async def one(name: str) -> Any:
            return await pause(name, response=local_type)

        return await parallel(*(one(name) for name in ctx.input))

    assert questions_of(branches) == [Question(None, local_type)]


def test_an_import_inside_the_function_is_followed() -> None:
    @workflow
    async def late() -> None:
        from flux.tasks import pause as late_pause  # noqa: PLC0415 - this is what the test is about

        await late_pause("late", response=bool)

    assert questions_of(late) == [Question("late", bool)]


def test_what_only_running_the_code_would_tell_is_unknown_and_nothing_is_run() -> None:
    def boom() -> type:
        raise AssertionError("the code was run")

    options: Any = {"response": bool}

    @workflow
    async def computed() -> None:
        await pause("computed", response=boom())
        await pause("spread", **options)

    assert questions_of(computed) == [Question("computed", UNKNOWN), Question("spread", UNKNOWN)]


def test_code_without_a_source_may_ask_something_unknown() -> None:
    names: dict[str, Any] = {"pause": pause, "workflow": workflow, "__name__": "typed_in"}
    exec("@workflow\nasync def typed_in():\n    return await pause('x', response=bool)", names)
    assert questions_of(names["typed_in"]) == [Question(None, UNKNOWN)]
