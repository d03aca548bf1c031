"""llama-index-workflows with the SQLite store of llama-agents-server: WAL, and synchronous=FULL is SQLite's default.

Alone it keeps nothing but the snapshots its user saves. With that store every transition is written down before the workflow goes
on; a write that fails is logged, and the workflow goes on. What the HTTP server wraps is used here without HTTP. Its other
durable runtime, llama-agents-dbos, is slower.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

from llama_agents.server import SqliteWorkflowStore
from llama_agents.server.runtime import _DurableWorkflowRuntime as DurableRuntime
from program import Stopwatch, main
from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent
from workflows.handler import WorkflowHandler


class Counted(StartEvent):
    count: int


class Step(Event):
    number: int
    count: int


class Done(Event):
    number: int


class InARow(Workflow):
    @step
    async def begin(self, ev: Counted) -> Step:
        return Step(number=0, count=ev.count)

    @step
    async def go_on(self, ev: Step) -> Step | StopEvent:
        if ev.number == ev.count:
            return StopEvent(result=ev.number)
        return Step(number=ev.number + 1, count=ev.count)


class InARowThenOpen(Workflow):
    reached_the_end = asyncio.Event()

    @step
    async def begin(self, ev: Counted) -> Step:
        return Step(number=0, count=ev.count)

    @step
    async def go_on(self, ev: Step) -> Step | StopEvent:
        if ev.number == ev.count:
            self.reached_the_end.set()
            await asyncio.sleep(3600)
            return StopEvent(result=ev.number)
        return Step(number=ev.number + 1, count=ev.count)


class FanOut(Workflow):
    @step
    async def begin(self, ctx: Context, ev: Counted) -> Step | None:
        await ctx.store.set("count", ev.count)
        for number in range(ev.count):
            ctx.send_event(Step(number=number, count=ev.count))

    @step(num_workers=64)
    async def each(self, ev: Step) -> Done:
        return Done(number=ev.number)

    @step
    async def gather(self, ctx: Context, ev: Done) -> StopEvent | None:
        count = await ctx.store.get("count")
        return StopEvent(result=count) if ctx.collect_events(ev, [Done] * count) else None


class OneStep(Workflow):
    @step
    async def only(self, ev: Counted) -> StopEvent:
        return StopEvent(result=ev.count)


class Workloads:
    def __init__(self, runtime: DurableRuntime) -> None:
        self.runtime = runtime
        self.watch = Stopwatch()
        self.started = 0

    async def start(self, workflow: str, count: int) -> WorkflowHandler:
        """As the HTTP server starts one."""
        service, self.started = self.runtime._service, self.started + 1
        event = Counted(count=count)
        data = await service.start_workflow(service.get_workflow(workflow), str(self.started), start_event=event)
        return self.runtime._build_workflow_handler(data)

    async def result(self, workflow: str, count: int) -> None:
        assert await (await self.start(workflow, count)) == count

    async def steps(self, count: int) -> None:
        with self.watch:
            await self.result("row", count)

    async def fan(self, count: int) -> None:
        with self.watch:
            await self.result("fan_out", count)

    async def at_once(self, count: int) -> None:
        with self.watch:
            await asyncio.gather(*[self.result("one_step", number) for number in range(count)])

    async def in_turn(self, count: int) -> None:
        for number in range(count):
            with self.watch:
                await self.result("one_step", number)

    async def record(self, count: int) -> None:
        with self.watch:
            await self.start("long", count)
            await InARowThenOpen.reached_the_end.wait()

    async def replay(self, count: int) -> None:
        with self.watch:
            await self.runtime.start()
            await InARowThenOpen.reached_the_end.wait()


def on_llama(workload: Callable[[Workloads, int], Coroutine[None, None, None]]) -> Callable[[int, str], Stopwatch]:
    async def run(count: int, place: str) -> Stopwatch:
        runtime = DurableRuntime(workflow_store=SqliteWorkflowStore(str(Path(place) / "llama.db")))
        for name, workflow in {"row": InARow, "long": InARowThenOpen, "fan_out": FanOut, "one_step": OneStep}.items():
            runtime.add_workflow(name, workflow(timeout=None))
        if workload is not Workloads.replay:
            await runtime.start()
        workloads = Workloads(runtime)
        await workload(workloads, count)
        return workloads.watch

    return lambda count, place: asyncio.run(run(count, place))


if __name__ == "__main__":
    names = ("steps", "fan", "at_once", "in_turn", "record", "replay")
    main({name: on_llama(getattr(Workloads, name)) for name in names})
