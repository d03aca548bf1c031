"""Model strings reach their providers, over real HTTP and in each provider's wire form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field
from pydantic_ai.models import override_allow_model_requests
from starlette.exceptions import HTTPException

from flux import ExecutionContext, Flux, task, workflow
from flux.errors import ModelError, ModelNotReady
from flux.tasks.ai import agent
from flux.tasks.ai.providers import ollama_url
from flux.testing import crash_at_every_fact, no_model_requests
from tests.ai.fake_openai import Call, FakeProvider, Reply, serving

pytestmark = pytest.mark.anyio


MODELS = [
    "openai/gpt-4o",
    "ollama/llama3.2",
    "anthropic/claude-sonnet-4-20250514",
    "anthropic/claude-sonnet-4-6",
    "google/gemini-2.5-flash",
]
WIRE = Path(__file__).parent / "wire"


class Shape(BaseModel):
    kind: Literal["round", "square"]
    sides: Annotated[int, Field(ge=0)] | None = None


@task
async def grow(factor: Annotated[float, Field(gt=0)], shape: Shape, tags: dict[str, int] | None = None) -> float:
    """Grow a shape."""
    return factor


class Weather(BaseModel):
    city: str
    degrees: float


@task
async def get_weather(city: str, unit: Literal["C", "F"] = "C", days: int | None = None) -> str:
    """Get the weather.

    Args:
        city: Where.
    """
    return f"20 {unit} in {city}"


def plain(body: dict[str, Any]) -> Reply:
    """Calls the tool first, then answers: in JSON, or by the output tool, where a form is asked for."""
    text = json.dumps(body)
    if "20 C in Ulm" not in text:
        return [Call("get_weather", {"city": "Ulm"})]
    if "final_result" in text and "output_config" not in body and "response_format" not in body:
        return [Call("final_result", {"city": "Ulm", "degrees": 20})]
    return '{"city": "Ulm", "degrees": 20}'


@pytest.fixture(autouse=True)
def only_this_machine() -> Iterator[None]:
    with override_allow_model_requests(True):
        yield


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeProvider]:
    with serving(plain) as provider:
        monkeypatch.setenv("OLLAMA_BASE_URL", f"{provider.url}/v1")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{provider.url}/v1")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", provider.url)
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", provider.url)
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "key-a")
        monkeypatch.setenv("GOOGLE_API_KEY", "key-g")
        yield provider


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("ollama/llama3.2", "/v1/chat/completions"),
        ("openai/gpt-4o", "/v1/chat/completions"),
        ("anthropic/claude-sonnet-4-20250514", "/v1/messages"),
        ("google/gemini-2.5-flash", "/v1beta/models/gemini-2.5-flash:generateContent"),
    ],
)
async def test_a_tool_call_and_a_typed_answer_by_each_provider(
    flux: Flux, provider: FakeProvider, model: str, path: str
) -> None:
    reporter = agent("Report the weather.", model=model, tools=[get_weather], response_format=Weather)

    @workflow
    async def reports(ctx: ExecutionContext[Any]) -> Weather:
        return await reporter("How is Ulm?")

    done = await flux.run(reports)
    assert done.output == Weather(city="Ulm", degrees=20), done.error
    assert [request["path"] for request in provider.requests] == [path, path]
    sent = json.dumps(provider.requests[0])
    assert "Report the weather." in sent
    assert "How is Ulm?" in sent
    assert "Where." in sent
    assert '["C", "F"]' in sent


@dataclass
class Storm:
    name: str
    winds: list[int]


FORMS: list[tuple[Any, Any, Any]] = [
    (Weather, {"city": "Ulm", "degrees": 20}, Weather(city="Ulm", degrees=20)),
    (Storm, {"name": "Ada", "winds": [9]}, Storm("Ada", [9])),
    (Weather | Storm, {"response": {"name": "Ada", "winds": []}}, Storm("Ada", [])),
    (list[Storm], {"response": [{"name": "Ada", "winds": [9]}]}, [Storm("Ada", [9])]),
]


def asking(teller: Any) -> Any:
    @workflow
    async def asks(ctx: ExecutionContext[Any]) -> Any:
        return await teller("Go.")

    return asks


@pytest.mark.parametrize(("form", "said", "answer"), FORMS)
@pytest.mark.parametrize("model", MODELS)
async def test_each_form_by_each_provider_has_its_type_live_and_on_replay(
    provider: FakeProvider, model: str, form: Any, said: Any, answer: Any
) -> None:
    """What does not fit is mended once; the tool keeps Google's older models from being asked natively."""

    def reply(body: dict[str, Any]) -> Reply:
        is_native = any(key in body for key in ("response_format", "output_config")) or "responseJsonSchema" in str(
            body
        )
        given = said if "Answer again" in json.dumps(body) else {"nothing": 1}
        return json.dumps(given) if is_native else [Call("final_result", given)]

    provider.reply = reply
    for tools in ([], [get_weather]):
        teller = agent("Tell.", model=model, name="teller", tools=tools, response_format=form, max_tokens=500)

        done = await crash_at_every_fact(asking(teller))
        assert done.output == answer, done.error
        assert type(done.output) is type(answer)


def knowing_no_forms(*, status: int, knows_tools: bool) -> Any:
    """Servers that speak as OpenAI does do not all know what OpenAI knows; some say so with a status of 500."""

    def reply(body: dict[str, Any]) -> Reply:
        if body.get("response_format", {}).get("type") == "json_schema":
            raise HTTPException(status, "response_format: Input should be 'text' or 'json_object'")
        if "tools" not in body:
            return '{"city": "Ulm", "degrees": 20}'
        if not knows_tools:
            raise HTTPException(status, "llama3 does not support tools")
        return [Call("final_result", {"city": "Ulm", "degrees": 20})]

    return reply


@pytest.mark.parametrize(("knows_tools", "requests"), [(True, 2), (False, 3)])
async def test_a_server_that_knows_no_forms_is_asked_in_another_way(
    provider: FakeProvider, knows_tools: bool, requests: int
) -> None:
    provider.reply = knowing_no_forms(status=422, knows_tools=knows_tools)
    reporter = agent("Report.", model="mine/small", base_url=f"{provider.url}/v1", response_format=Weather)
    done = await crash_at_every_fact(asking(reporter))
    assert done.output == Weather(city="Ulm", degrees=20), done.error
    asked = [event for event in done.events if event.type == "TASK_STARTED" and event.name.endswith(":llm")]
    assert len(asked) == requests


async def test_so_is_one_that_calls_it_a_fault_of_its_own(flux: Flux, provider: FakeProvider) -> None:
    provider.reply = knowing_no_forms(status=500, knows_tools=True)
    reporter = agent("Report.", model="mine/small", base_url=f"{provider.url}/v1", response_format=Weather)
    assert (await flux.run(asking(reporter))).output == Weather(city="Ulm", degrees=20)


@pytest.mark.parametrize(
    ("model", "golden"),
    [
        ("openai/gpt-4o", "openai"),
        ("ollama/llama3.2", "ollama"),
        ("anthropic/claude-sonnet-4-20250514", "anthropic"),
        ("google/gemini-2.5-flash", "google"),
    ],
)
async def test_each_provider_gets_schemas_that_it_takes(
    flux: Flux, provider: FakeProvider, model: str, golden: str
) -> None:
    """The files hold what is sent for one tool and one form; write them anew by deleting them."""
    provider.reply = lambda body: [Call("grow", {"factor": 2, "shape": {"kind": "round"}})]
    grower = agent("Grow.", model=model, tools=[grow], response_format=Weather, max_tool_calls=1, max_schema_retries=0)

    @workflow
    async def grows(ctx: ExecutionContext[Any]) -> Any:
        return await grower("Go.")

    await flux.run(grows)
    described = ("tools", "response_format", "output_config", "generationConfig")
    sent = {key: provider.requests[0][key] for key in described if key in provider.requests[0]}
    file = WIRE / golden / "schemas.json"
    if not file.exists():
        file.write_text(json.dumps(sent, indent=2) + "\n", "utf-8")
    assert sent == json.loads(file.read_text("utf-8"))


async def test_a_server_of_ones_own_needs_no_key_and_may_have_any_name(flux: Flux, provider: FakeProvider) -> None:
    mine = agent("Help.", model="mine/small", base_url=f"{provider.url}/v1", tools=[get_weather], api_key="k")

    @workflow
    async def helps(ctx: ExecutionContext[Any]) -> str:
        return await mine("How is Ulm?")

    assert "Ulm" in (await flux.run(helps)).output
    assert provider.requests[0]["model"] == "small"
    assert provider.requests[0]["headers"]["authorization"] == "Bearer k"


async def test_keys_come_from_the_secret_store_and_settings_reach_the_model(
    flux: Flux, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUX_SECRET_OPENAI_API_KEY", "kept")
    provider.reply = lambda body: "ok"
    thinker = agent("Think.", model="openai/gpt-5-mini", reasoning_effort="low", max_tokens=50)

    @workflow
    async def thinks(ctx: ExecutionContext[Any]) -> str:
        return await thinker("Go.")

    assert (await flux.run(thinks)).output == "ok"
    (request,) = provider.requests
    assert request["headers"]["authorization"] == "Bearer kept"
    assert (request["reasoning_effort"], request["max_completion_tokens"]) == ("low", 50)


async def test_a_streamed_answer_over_http(flux: Flux, provider: FakeProvider) -> None:
    provider.reply = lambda body: "It is a fine day."
    streamer = agent("Help.", model="ollama/llama3", stream=True)

    @workflow
    async def helps(ctx: ExecutionContext[Any]) -> str:
        return await streamer("How is it?")

    done = await flux.run(helps)
    assert done.output == "It is a fine day. "
    assert provider.requests[0]["stream"] is True
    events = (await flux.get(done.execution_id, events=True)).events
    (recorded,) = [event.value for event in events if event.name.endswith(":llm") and event.type == "TASK_COMPLETED"]
    assert (recorded["tokens"], recorded["usd"]) == (15, 0.0)


async def test_a_provider_that_is_not_there_is_a_clear_error(flux: Flux, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.delenv("OLLAMA_BASE_URL", raising=False)
    lost = agent("Help.", model="ollama/llama3").with_options(retry_max_attempts=0)

    @workflow
    async def helps(ctx: ExecutionContext[Any]) -> str:
        return await lost("Hello?")

    error = (await flux.run(helps)).error
    assert isinstance(error, ModelError)
    assert "'llama3' of ollama" in str(error)


async def test_real_requests_can_be_forbidden(flux: Flux, provider: FakeProvider) -> None:
    real = agent("Help.", model="ollama/llama3")

    @workflow
    async def helps(ctx: ExecutionContext[Any]) -> str:
        return await real("Hello?")

    with no_model_requests():
        error = (await flux.run(helps)).error
    assert isinstance(error, ModelNotReady)
    assert provider.requests == []


@pytest.mark.parametrize(
    ("host", "url"),
    [
        (None, "http://localhost:11434/v1"),
        ("0.0.0.0:9999", "http://127.0.0.1:9999/v1"),
        ("gpu", "http://gpu:11434/v1"),
        ("https://gpu.example/", "https://gpu.example:11434/v1"),
    ],
)
def test_ollama_is_where_its_own_variables_say(monkeypatch: pytest.MonkeyPatch, host: str | None, url: str) -> None:
    monkeypatch.delenv("OLLAMA_BASE_URL", raising=False)
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    if host is not None:
        monkeypatch.setenv("OLLAMA_HOST", host)
    assert ollama_url() == url
