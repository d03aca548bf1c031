"""What agents remember within an execution."""

from __future__ import annotations

from typing import Any

import pytest

from flux import ExecutionContext, Flux, pause, task, workflow
from flux.errors import DefinitionError
from flux.tasks import parallel
from flux.tasks.ai import agent
from flux.tasks.ai.memory import working_memory
from flux.testing import ScriptedModel, ScriptedRequest, crash_at_every_fact, tool_call

pytestmark = pytest.mark.anyio


@task
async def look(where: str) -> str:
    return f"nothing in {where}"


def everything(request: ScriptedRequest) -> str:
    return " | ".join(request.said)


def length(request: ScriptedRequest) -> str:
    return str(len(request.messages))


def results(request: ScriptedRequest) -> str:
    return " ".join(request.results)


async def test_an_agent_knows_what_was_said_before(flux: Flux) -> None:
    model = ScriptedModel([tool_call("look", where="box"), "Empty.", "It still is."])
    chatbot = agent("Chat.", model=model, name="chatbot", tools=[look], working_memory=working_memory())

    @workflow
    async def conversation(ctx: ExecutionContext[Any]) -> str:
        await chatbot("What is in the box?")
        return await chatbot("And now?")

    assert (await flux.run(conversation)).output == "It still is."
    assert model.requests[-1].said == [
        "user-prompt: What is in the box?",
        "tool-call: look",
        "tool-return: nothing in box",
        "text: Empty.",
        "user-prompt: And now?",
    ]


async def test_what_was_said_is_known_after_a_crash_and_a_pause() -> None:
    model = ScriptedModel(["one", everything, "three"])
    chatbot = agent("Chat.", model=model, name="chatbot", working_memory=working_memory())

    @task
    async def inside(text: str) -> str:
        return await chatbot(text)

    @workflow
    async def conversation(ctx: ExecutionContext[Any]) -> list[str]:
        first = await inside("a")
        await pause("wait")
        return [first, await chatbot("b"), await chatbot("c")]

    done = await crash_at_every_fact(conversation, answers={"wait": None})
    assert done.output == ["one", "user-prompt: a | text: one | user-prompt: b", "three"]


async def test_two_memories_never_see_each_other_and_one_can_be_shared(flux: Flux) -> None:
    model = ScriptedModel([str(n) for n in range(9)])
    first = agent("A.", model=model, working_memory=working_memory())
    second = agent("B.", model=model, working_memory=working_memory())
    both = working_memory()
    left = agent("C.", model=model, name="left", working_memory=both)
    right = agent("D.", model=model, name="right", working_memory=both)

    @workflow
    async def conversations(ctx: ExecutionContext[Any]) -> None:
        await first("secret")
        await second("hello")
        await left("l")
        await right("r")

    await flux.run(conversations)
    assert model.requests[1].said == ["user-prompt: hello"]
    assert model.requests[3].said == ["user-prompt: l", "text: 2", "user-prompt: r"]


async def test_executions_do_not_share_a_memory(flux: Flux) -> None:
    model = ScriptedModel(["1", "2"])
    chatbot = agent("Chat.", model=model, working_memory=working_memory())

    @workflow
    async def conversation(ctx: ExecutionContext[str]) -> str:
        return await chatbot(ctx.input)

    await flux.run(conversation, "a")
    await flux.run(conversation, "b")
    assert model.requests[1].said == ["user-prompt: b"]


async def test_a_window_begins_with_the_user_and_splits_no_pair(flux: Flux) -> None:
    model = ScriptedModel([tool_call("look", where="box"), "Empty.", "Hi.", "Bye."])
    chatbot = agent("Chat.", model=model, tools=[look], working_memory=working_memory(window=3))

    @workflow
    async def conversation(ctx: ExecutionContext[Any]) -> None:
        await chatbot("What is in the box?")
        await chatbot("Hello")
        await chatbot("Good bye")

    await flux.run(conversation)
    second, third = model.requests[2], model.requests[3]
    assert second.said == ["user-prompt: Hello"]
    assert third.said == ["user-prompt: Hello", "text: Hi.", "user-prompt: Good bye"]


async def test_only_so_many_tokens_of_it_are_shown_the_last_ones(flux: Flux) -> None:
    model = ScriptedModel(["a" * 400, "short", everything])
    chatbot = agent("Chat.", model=model, working_memory=working_memory(max_tokens=60))

    @workflow
    async def conversation(ctx: ExecutionContext[Any]) -> str:
        await chatbot("long")
        await chatbot("brief")
        return await chatbot("now")

    assert (await flux.run(conversation)).output == "user-prompt: brief | text: short | user-prompt: now"


async def test_a_memory_can_be_written_read_and_thinned_by_hand() -> None:
    memory = working_memory(name="notes")
    model = ScriptedModel([everything])
    chatbot = agent("Chat.", model=model, working_memory=memory)

    @workflow
    async def notes(ctx: ExecutionContext[Any]) -> list[Any]:
        await memory.memorize("user", "I am Ada.")
        key = await memory.memorize("assistant", "Hello Bob.")
        await memory.forget(key)
        await memory.memorize("assistant", "Hello Ada.")
        told = [(m.role, m.content) for m in await memory.recall()]
        return [told, len(await memory.keys()), await chatbot("Who am I?")]

    done = await crash_at_every_fact(notes)
    assert done.output == [
        [("user", "I am Ada."), ("assistant", "Hello Ada.")],
        2,
        "user-prompt: I am Ada. | text: Hello Ada. | user-prompt: Who am I?",
    ]


async def test_a_memory_that_is_full_is_summed_up_once() -> None:
    summing = ScriptedModel(["They counted."])
    model = ScriptedModel(["a" * 80, "b" * 80, "c" * 80, everything])
    memory = working_memory(max_tokens=100, compact_model=summing, compact_preserve=2)
    chatbot = agent("Chat.", model=model, name="chatbot", working_memory=memory)

    @workflow
    async def counting(ctx: ExecutionContext[Any]) -> str:
        for n in range(3):
            await chatbot(f"count {n}")
        return await chatbot("go on")

    done = await crash_at_every_fact(counting)
    assert done.output.startswith("user-prompt: What was said before, summed up:\nThey counted. | user-prompt: count 2")
    assert len({request.place for request in summing.requests}) == 1


async def test_concurrent_calls_of_one_memory_replay_alike() -> None:
    model = ScriptedModel([length] * 5)
    chatbot = agent("Chat.", model=model, name="chatbot", working_memory=working_memory())

    @workflow
    async def crowd(ctx: ExecutionContext[Any]) -> list[str]:
        answers = await parallel(chatbot("a"), chatbot("b"))
        return [*answers, await chatbot("c")]

    assert (await crash_at_every_fact(crowd)).output == ["1", "1", "5"]


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(DefinitionError):
        working_memory(window=0)
    with pytest.raises(DefinitionError):
        working_memory(compact_model="ollama/llama3")
