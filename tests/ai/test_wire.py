"""Each provider's wire form, whole and streamed, through its own client. There was no key to record with: the files in `wire/` are
written after the providers' documentation, and hold only what the types of their own SDKs know."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from google.genai.types import GenerateContentResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, TypeAdapter
from pydantic_ai.models import override_allow_model_requests

from flux import ExecutionContext, Flux, Workflow, task, workflow
from flux.engine.body import Progress
from flux.errors import ModelError, ModelRefused
from flux.tasks.ai import agent
from flux.testing import crash_at_every_fact
from tests.ai.recorded import WIRE, Recorded, replaying

pytestmark = pytest.mark.anyio

MODELS = {
    "openai": "openai/gpt-4o",
    "ollama": "ollama/llama3.2",
    "anthropic": "anthropic/claude-sonnet-4-20250514",
    "google": "google/gemini-2.5-flash",
}
KEY = "sk-proj-not-a-real-key-0123456789"
SIGNATURES = {
    "anthropic": "ErUBCkYIBxgCIkDq0wexampleofasignaturethatisonlyhandedbackAAEgw=",
    "google": "CiQB0e2Kb3hhbXBsZW9mYXNpZ25hdHVyZXRoYXRpc2hhbmRlZGJhY2s=",
}
numbers = count()


class Weather(BaseModel):
    city: str
    degrees: float


@task
async def get_weather(city: str, unit: Literal["C", "F"] = "C") -> str:
    """Get the weather."""
    return f"20 {unit} in {city}"


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for provider in ("OPENAI", "ANTHROPIC", "GOOGLE"):
        monkeypatch.setenv(f"{provider}_API_KEY", KEY)
    with override_allow_model_requests(True):
        yield


@pytest.fixture(params=list(MODELS))
def provider(request: pytest.FixtureRequest) -> str:
    return request.param


def answering(recorded: Recorded, provider: str, **options: Any) -> Workflow[Any, Any]:
    url = recorded.url + ("/v1" if provider in ("openai", "ollama") else "")
    options = {"model": MODELS[provider], "response_format": Weather, **options}
    reporter = agent("Report the weather.", name="reporter", base_url=url, **options)
    reporter = reporter.with_options(retry_delay=0.0)

    @workflow.with_options(name=f"reports {next(numbers)}")
    async def reports(ctx: ExecutionContext[Any]) -> Any:
        return await reporter("How is Ulm?")

    return reports


async def replies(flux: Flux, execution_id: str) -> list[dict[str, Any]]:
    """What is recorded of the requests to the model."""
    events = (await flux.get(execution_id, events=True)).events
    return [event.value for event in events if event.name == "reporter:llm" and event.type == "TASK_COMPLETED"]


# -- a whole conversation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_at_once_a_wrong_one_and_a_wrong_answer_come_to_a_typed_one(
    flux: Flux, provider: str, stream: bool
) -> None:
    with replaying(provider) as recorded:
        reports = answering(recorded, provider, tools=[get_weather], stream=stream)
        done = await flux.run(reports)
    assert done.output == Weather(city="Ulm", degrees=20.5), done.error
    assert len(recorded.requests) == 4
    looked, mended, corrected = (json.dumps(request, ensure_ascii=False) for request in recorded.requests[1:])
    assert "20 C in Ulm" in looked
    assert "20 F in Rome" in looked
    assert "The call of tool 'get_weather'" in mended
    assert "degrees: is required" in corrected
    assert SIGNATURES.get(provider, "") in looked  # of its thoughts, which it wants to have back


async def test_a_stream_comes_to_the_same_record_and_is_told_as_it_comes(flux: Flux, provider: str) -> None:
    said: list[Progress] = []
    made: list[Any] = []
    for stream in (False, True):
        with replaying(provider) as recorded:
            reports = answering(recorded, provider, tools=[get_weather], stream=stream)
            with flux.observed(f"{stream}", said.append):
                await flux.run(reports, execution_id=f"{stream}")
        made.append([essence(reply) for reply in await replies(flux, f"{stream}")])
    assert made[0][0] == made[1][0]
    assert made[0][2:] == made[1][2:]
    told: list[dict[str, str]] = [progress.value for progress in said if progress.value is not None]
    tokens = "".join(value.get("token", "") for value in told)
    assert tokens.startswith("I will look at both cities.")
    assert len([value for value in told if "token" in value]) > 2
    assert [value["tool"] for value in told if value.get("type") == "tool_done"] == ["get_weather"] * 2


def essence(reply: dict[str, Any]) -> Any:
    """What a reply says and costs, without what the clients make up for it."""
    parts = [
        (part["part_kind"], part.get("content"), part.get("tool_name"), arguments(part))
        for part in reply["message"]["parts"]
    ]
    return parts, reply["tokens"], reply["usd"]


def arguments(part: dict[str, Any]) -> Any:
    args = part.get("args")
    return json.loads(args) if isinstance(args, str) and args.endswith("}") else args


@pytest.mark.parametrize(
    ("provider", "tokens"),
    [
        ("openai", [203, 265, 319, 396]),
        ("ollama", [234, 288, 349, 417]),
        ("anthropic", [576, 682, 790, 896]),
        ("google", [198, 224, 272, 347]),
    ],
)
async def test_tokens_and_their_price_stand_in_the_history(flux: Flux, provider: str, tokens: list[int]) -> None:
    with replaying(provider) as recorded:
        done = await flux.run(answering(recorded, provider, tools=[get_weather]))
    recorded_replies = await replies(flux, done.execution_id)
    assert [reply["tokens"] for reply in recorded_replies] == tokens
    prices = [reply["usd"] for reply in recorded_replies]
    assert prices == [0.0] * 4 if provider == "ollama" else all(0 < price < 0.01 for price in prices)


async def test_no_crash_makes_a_provider_refuse_the_history(provider: str) -> None:
    """The server answers as long as it is asked; it refuses a history that the provider would refuse."""
    with replaying(provider) as recorded:
        reports = answering(recorded, provider, tools=[get_weather])
        done = await crash_at_every_fact(reports)
    assert done.output == Weather(city="Ulm", degrees=20.5), done.error


# -- natively -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("provider", "model", "name", "asked"),
    [
        ("openai", MODELS["openai"], "4", "response_format"),
        ("ollama", MODELS["ollama"], "4", "response_format"),
        ("anthropic", "anthropic/claude-sonnet-4-6", "native", "output_config"),
        ("google", MODELS["google"], "native", "responseJsonSchema"),
    ],
)
async def test_where_a_provider_knows_forms_it_is_asked_for_one(
    flux: Flux, provider: str, model: str, name: str, asked: str, stream: bool
) -> None:
    with replaying(provider, name) as recorded:
        done = await flux.run(answering(recorded, provider, model=model, stream=stream, max_tokens=500))
    assert done.output == Weather(city="Ulm", degrees=20.5), done.error
    assert asked in json.dumps(recorded.requests[0])


# -- errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("provider", "status"), [("openai", "429"), ("anthropic", "529"), ("google", "503")])
async def test_a_provider_that_is_busy_is_asked_again(flux: Flux, provider: str, status: str) -> None:
    with replaying(provider, status) as recorded:
        done = await flux.run(answering(recorded, provider, tools=[get_weather]))
    assert done.output == Weather(city="Ulm", degrees=20.5), done.error
    assert len(recorded.requests) == 5


@pytest.mark.parametrize(
    ("provider", "status"), [("openai", "401"), ("anthropic", "401"), ("google", "400"), ("ollama", "404")]
)
async def test_a_provider_that_refuses_is_asked_once_and_no_key_is_kept(flux: Flux, provider: str, status: str) -> None:
    with replaying(provider, status) as recorded:
        refused = await flux.run(answering(recorded, provider))
    assert isinstance(refused.error, ModelRefused)
    assert KEY not in str(refused.error)
    assert KEY not in repr(await flux.history(refused.execution_id))


async def test_a_stream_that_breaks_off_is_asked_for_again(flux: Flux) -> None:
    said: list[Progress] = []
    with replaying("anthropic", "broken") as recorded, flux.observed("x", said.append):
        done = await flux.run(answering(recorded, "anthropic", tools=[get_weather], stream=True), execution_id="x")
    assert done.output == Weather(city="Ulm", degrees=20.5), done.error
    told = [progress.value for progress in said]
    end = told.index({"type": "broken_off"})
    assert "".join(value["token"] for value in told[:end]) == "I will look at"
    assert "I will look at both cities." in "".join(value.get("token", "") for value in told[end:] if value is not None)
    assert len(recorded.requests) == 5
    with replaying("anthropic", *["broken"] * 3) as recorded:
        failed = await flux.run(answering(recorded, "anthropic", stream=True))
    assert isinstance(failed.error, ModelError)


# -- the files ------------------------------------------------------------------------------------------------------------

FORMS: dict[tuple[str, str], Any] = {
    ("openai", ".json"): ChatCompletion,
    ("openai", ".sse"): ChatCompletionChunk,
    ("ollama", ".json"): ChatCompletion,
    ("ollama", ".sse"): ChatCompletionChunk,
    ("anthropic", ".json"): Message,
    ("anthropic", ".sse"): RawMessageStreamEvent,
    ("google", ".json"): GenerateContentResponse,
    ("google", ".sse"): GenerateContentResponse,
}
SERVERS_OWN = {".choices.message.tool_calls.index"}
"""What Ollama says beyond OpenAI's form."""
BESIDES = {"ping", "error"}
"""Events of a stream that Anthropic's client handles itself."""


def said_in(file: Path) -> list[Any]:
    text = file.read_text("utf-8")
    if file.suffix == ".json":
        return [json.loads(text)]
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    events = [json.loads(line) for line in lines]
    return [event for event in events if event.get("type") not in BESIDES]


REPLIES = [path for path in sorted(WIRE.glob("*/*")) if path.stem in ("1", "2", "3", "4", "native", "broken")]


@pytest.mark.parametrize("file", REPLIES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_file_says_what_the_types_of_the_providers_sdk_know(file: Path) -> None:
    form = TypeAdapter[Any](FORMS[file.parent.name, file.suffix])
    for said in said_in(file):
        read = form.validate_python(said)
        assert set(unknown(read)) <= SERVERS_OWN


def unknown(value: Any, path: str = "") -> list[str]:
    """The fields that a model of the SDK did not know."""
    if isinstance(value, list):
        return [name for item in cast("list[Any]", value) for name in unknown(item, path)]
    if not isinstance(value, BaseModel):
        return []
    extra = [f"{path}.{name}" for name in value.model_extra or {}]
    return extra + [
        name for field in type(value).model_fields for name in unknown(getattr(value, field), f"{path}.{field}")
    ]
