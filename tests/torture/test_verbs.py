"""The engine's verbs in any order, beside a model of what must come of them that fits on a page."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from flux import ExecutionContext, Flux, pause, task, workflow
from flux.errors import ExecutionFinished, NotFailed, NotPaused, PauseNotFound
from flux.testing import FailingStore
from tests.torture.forms import size

T = TypeVar("T")

QUESTIONS = 3
EFFECTS: Counter[str] = Counter()
BROKEN: set[str] = set()


@task
async def effect(execution: str, number: int) -> int:
    EFFECTS[f"{execution}/{number}"] += 1
    return number


@task
async def fragile(execution: str) -> None:
    if execution in BROKEN:
        raise ValueError("broken")


@workflow
async def asks(ctx: ExecutionContext[str]) -> list[int]:
    answers: list[int] = []
    for number in range(QUESTIONS):
        await effect(ctx.input, number)
        answers.append(int(await pause(f"q{number}")))
    await fragile(ctx.input)
    return answers


@dataclass(frozen=True)
class Model:
    """What an execution must look like; `name` is what its effects are counted by."""

    name: str
    answers: tuple[int, ...] = ()
    status: str = "paused"
    suspend_requested: bool = False

    def going_on(self) -> Model:
        """After it ran until something stopped it."""
        if len(self.answers) < QUESTIONS:
            return replace(self, status="paused")
        return replace(self, status="failed" if self.name in BROKEN else "completed")


class Verbs(RuleBasedStateMachine):
    executions: Bundle[str] = Bundle("executions")

    def __init__(self) -> None:
        super().__init__()
        EFFECTS.clear()
        BROKEN.clear()
        self.runner = asyncio.Runner()
        self.store = FailingStore()
        self.models: dict[str, Model] = {}
        self.count = 0
        self.flux = self.run(self.opened())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(asyncio.wait_for(work, 30))

    async def opened(self) -> Flux:
        return await Flux(store=self.store, workflows=[asks], recover=False).__aenter__()

    def teardown(self) -> None:
        self.run(self.flux.__aexit__())
        self.runner.close()

    def settled(self, id: str) -> None:
        execution = self.run(self.flux.wait(id, timeout=20))
        model = self.models[id]
        assert execution.status.value == model.status, (model, execution)
        if model.status == "completed":
            assert execution.output == list(model.answers)

    # -- the verbs

    @rule(target=executions)
    def start(self) -> str:
        self.count += 1
        id = f"e{self.count}"
        self.run(self.flux.start(asks, id, execution_id=id))
        self.models[id] = Model(name=id)
        self.settled(id)
        return id

    @rule(id=executions, answer=st.integers(0, 9))
    def answer(self, id: str, answer: int) -> None:
        model = self.models[id]
        if model.status != "paused":
            with pytest.raises((ExecutionFinished, NotPaused)):
                self.run(self.flux.answer(id, answer))
            return
        self.run(self.flux.answer(id, answer))
        model = replace(model, answers=(*model.answers, answer), suspend_requested=False)
        self.models[id] = replace(model, status="suspended") if self.models[id].suspend_requested else model.going_on()
        self.settled(id)

    @rule(id=executions)
    def suspend(self, id: str) -> None:
        model = self.models[id]
        if model.status in ("completed", "failed", "cancelled"):
            with pytest.raises(ExecutionFinished):
                self.run(self.flux.suspend(id))
            return
        self.run(self.flux.suspend(id))
        if model.status == "paused":  # it stops at its next call, which an answer leads to
            self.models[id] = replace(model, suspend_requested=True)
        self.settled(id)

    @rule(id=executions)
    def go_on(self, id: str) -> None:
        model = self.models[id]
        if model.status == "paused":
            with pytest.raises(PauseNotFound):
                self.run(self.flux.go_on(id))
            return
        self.run(self.flux.go_on(id))
        if model.status == "suspended":
            self.models[id] = model.going_on()
        self.settled(id)

    @rule(id=executions)
    def cancel(self, id: str) -> None:
        self.run(self.flux.cancel(id))
        if self.models[id].status not in ("completed", "failed"):
            self.models[id] = replace(self.models[id], status="cancelled")
        self.settled(id)

    @rule(id=executions)
    def break_it(self, id: str) -> None:
        BROKEN.add(self.models[id].name)

    @rule(id=executions)
    def retry(self, id: str) -> None:
        model = self.models[id]
        if model.status != "failed":
            with pytest.raises(NotFailed):
                self.run(self.flux.retry(id))
            return
        BROKEN.discard(model.name)
        self.run(self.flux.retry(id))
        self.models[id] = replace(model, status="completed")
        self.settled(id)

    @rule()
    def restart(self) -> None:
        self.run(self.flux.__aexit__())
        self.flux = self.run(self.opened())

    @rule()
    def crash(self) -> None:
        """The process dies and writes nothing more."""
        self.store.fails = True
        self.run(self.flux.__aexit__())
        self.store.fails = False
        self.flux = self.run(self.opened())

    # -- what always holds

    @invariant()
    def every_effect_happened_once(self) -> None:
        assert set(EFFECTS.values()) <= {1}, EFFECTS

    @invariant()
    def every_execution_is_as_the_model_has_it(self) -> None:
        listed = {row.id: row.status.value for row in self.run(self.flux.list(limit=1000))}
        assert listed == {id: model.status for id, model in self.models.items()}


def test_the_verbs_of_the_engine_in_any_order_do_what_they_say() -> None:
    run_state_machine_as_test(
        Verbs,
        settings=settings(
            max_examples=size(15, 400),
            stateful_step_count=size(20, 40),
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
