"""What the official conformance suite looks for in a server: each tool of it is a workflow, served by our own code."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import mcp_types as types
from mcp import MCPError
from pydantic import BaseModel

from flux import ExecutionContext, pause, task, workflow
from flux.tasks import parallel
from flux.tasks.progress import progress
from flux_mcp_server import prompt, resource

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA=="
BEAT = 0.05


def form(message: str, **properties: Any) -> types.ElicitRequest:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def sampling(text: str, tokens: int = 100) -> types.CreateMessageRequest:
    message = types.SamplingMessage(role="user", content=types.TextContent(text=text))
    return types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[message], max_tokens=tokens))


TEXT = {"type": "string"}

# -- content -----------------------------------------------------------------------------------------------------------


@workflow
async def test_simple_text() -> str:
    """Return a text."""
    return "This is a simple text response for testing."


@workflow
async def test_image_content() -> types.ImageContent:
    """Return an image."""
    return types.ImageContent(data=PNG, mime_type="image/png")


@workflow
async def test_audio_content() -> types.AudioContent:
    """Return a sound."""
    return types.AudioContent(data=WAV, mime_type="audio/wav")


def embedded(uri: str) -> types.EmbeddedResource:
    text = "This is an embedded resource content."
    return types.EmbeddedResource(resource=types.TextResourceContents(uri=uri, mime_type="text/plain", text=text))


@workflow
async def test_embedded_resource() -> types.EmbeddedResource:
    """Return a resource."""
    return embedded("test://embedded-resource")


@workflow
async def test_multiple_content_types() -> list[types.ContentBlock]:
    """Return a text, an image and a resource."""
    return [
        types.TextContent(text="Multiple content types test:"),
        types.ImageContent(data=PNG, mime_type="image/png"),
        embedded("test://mixed-content-resource"),
    ]


@workflow
async def test_tool_with_logging(ctx: ExecutionContext[None]) -> str:
    """Log three times."""
    for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        ctx.log.info(text)
        await wait(BEAT)
    return "Logged"


@workflow
async def test_logging_tool(ctx: ExecutionContext[None]) -> str:
    """Log once."""
    ctx.log.info("logged")
    return "Logged"


@task
async def wait(seconds: float) -> None:
    await asyncio.sleep(seconds)


@workflow
async def test_tool_with_progress() -> str:
    """Report progress three times."""
    for percent in (0, 50, 100):
        progress(f"{percent}/100")
        await wait(BEAT)
    return "Done"


@workflow
async def test_error_handling() -> str:
    """Fail."""
    raise ValueError("This tool intentionally returns an error for testing")


@workflow
async def test_reconnection() -> str:
    """Take a moment, in which the stream is closed."""
    await wait(0.3)
    return "Reconnection test completed successfully"


# -- schemas -----------------------------------------------------------------------------------------------------------

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": TEXT, "city": TEXT}}},
    "properties": {
        "name": TEXT,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": TEXT,
        "email": TEXT,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


@workflow.with_options(input_schema=SCHEMA)
async def json_schema_2020_12_tool(ctx: ExecutionContext[dict[str, Any]]) -> str:
    """Tool with JSON Schema 2020-12 features."""
    return json.dumps(ctx.input)


HEADERS = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}


@workflow.with_options(input_schema=HEADERS)
async def test_x_mcp_header(ctx: ExecutionContext[dict[str, Any]]) -> str:
    """Have an argument that is a header too."""
    return json.dumps(ctx.input)


# -- questions ---------------------------------------------------------------------------------------------------------


class Message(BaseModel):
    message: str


class Prompt(BaseModel):
    prompt: str


@workflow
async def test_sampling(ctx: ExecutionContext[Prompt]) -> str:
    """Ask the client's model."""
    answer = await pause("sampling", sampling(ctx.input.prompt))
    return f"LLM response: {text_in(answer)}"


def text_in(answer: Any) -> str:
    content: dict[str, Any] = answer["content"]
    return content.get("text", "")


@workflow
async def test_elicitation(ctx: ExecutionContext[Message]) -> str:
    """Ask for a name and an address."""
    answer = await pause("user", form(ctx.input.message, username=TEXT, email=TEXT))
    return f"User response: {json.dumps(answer)}"


@workflow
async def test_streaming_elicitation() -> str:
    """Ask, after some progress."""
    progress("about to ask")
    return json.dumps(await pause("user", form("Who?", name=TEXT)))


@workflow
async def test_elicitation_sep1034_defaults() -> str:
    """Ask with defaults."""
    asked = form(
        "Please review and update the form fields with defaults",
        name={"type": "string", "default": "John Doe"},
        age={"type": "integer", "default": 30},
        score={"type": "number", "default": 95.5},
        status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        verified={"type": "boolean", "default": True},
    )
    return f"Elicitation completed: action=accept, content={json.dumps(await pause('defaults', asked))}"


@workflow
async def test_elicitation_sep1330_enums() -> str:
    """Ask for choices of every kind."""
    options = ["option1", "option2", "option3"]
    titled = [{"const": f"value{n}", "title": f"{word} Option"} for n, word in enumerate(("First", "Second"), 1)]
    asked = form(
        "Choose",
        untitledSingle={"type": "string", "enum": options},
        titledSingle={"type": "string", "oneOf": titled},
        legacyEnum={"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
        untitledMulti={"type": "array", "items": {"type": "string", "enum": options}},
        titledMulti={"type": "array", "items": {"anyOf": titled}},
    )
    return f"Elicitation completed: action=accept, content={json.dumps(await pause('enums', asked))}"


@workflow
async def test_missing_capability() -> str:
    """Need a client that has a model."""
    return text_in(await pause("sampling", sampling("Are you there?")))


@workflow
async def test_input_required_result_elicitation() -> str:
    """Ask for a name."""
    answer = await pause("user_name", form("What is your name?", name=TEXT))
    return f"Hello, {answer['name']}!"


@workflow
async def test_input_required_result_sampling() -> str:
    """Ask the client's model for a capital."""
    return text_in(await pause("capital_question", sampling("What is the capital of France?")))


@workflow
async def test_input_required_result_list_roots() -> str:
    """Ask for the client's roots."""
    return json.dumps(await pause("client_roots", types.ListRootsRequest()))


CONFIRM = form("Please confirm", ok={"type": "boolean"})


@workflow
async def test_input_required_result_request_state() -> str:
    """Ask, and go by the state that comes back."""
    await pause("confirm", CONFIRM)
    return "state-ok"


@workflow
async def test_input_required_result_tampered_state() -> str:
    """Ask, and refuse a state that is not ours."""
    await pause("confirm", CONFIRM)
    return "confirmed"


@workflow
async def test_input_required_result_multiple_inputs() -> str:
    """Ask three things at once."""
    answers = await parallel(
        pause("user_name", form("What is your name?", name=TEXT)),
        pause("greeting", sampling("Generate a greeting", 50)),
        pause("client_roots", types.ListRootsRequest()),
    )
    return json.dumps(answers)


@workflow
async def test_input_required_result_multi_round() -> str:
    """Ask twice."""
    first = await pause("step1", form("Step 1: What is your name?", name=TEXT))
    second = await pause("step2", form("Step 2: What is your favorite color?", color=TEXT))
    return f"{first['name']} likes {second['color']}"


@workflow
async def test_input_required_result_capabilities() -> str:
    """Ask the user and the model."""
    return json.dumps(
        await parallel(pause("user", form("Who?", name=TEXT)), pause("model", sampling("Who?"))),
    )


# -- tasks -------------------------------------------------------------------------------------------------------------

LONGER_THAN_GRACE = 0.2


class Name(BaseModel):
    name: str


class Work(BaseModel):
    seconds: float = 0
    label: str = ""


class File(BaseModel):
    filename: str = "file.txt"


@workflow.with_options(task="never")
async def greet(ctx: ExecutionContext[Name]) -> str:
    """Greet at once."""
    return f"Hello, {ctx.input.name}!"


@workflow
async def slow_compute(ctx: ExecutionContext[Work]) -> str:
    """Take some seconds."""
    await wait(ctx.input.seconds)
    return f"{ctx.input.label} done"


@workflow.with_options(task="required")
async def failing_job() -> str:
    """Fail after a while."""
    await wait(1.0)
    raise ValueError("the job failed")


@workflow.with_options(task="required")
async def protocol_error_job() -> str:
    """End with an error of the protocol."""
    await wait(LONGER_THAN_GRACE)
    raise MCPError(types.INTERNAL_ERROR, "the job broke the protocol")


YES = {"type": "boolean"}


@workflow
async def confirm_delete(ctx: ExecutionContext[File]) -> str:
    """Ask before deleting."""
    await wait(LONGER_THAN_GRACE)
    answer = await pause("confirm", form(f"Delete {ctx.input.filename}?", confirm=YES))
    return f"deleted: {answer['confirm']}"


@workflow
async def multi_input() -> str:
    """Ask two things at once."""
    await wait(LONGER_THAN_GRACE)
    asked = (pause("name", form("Who?", name=TEXT)), pause("confirm", form("Sure?", confirm=YES)))
    return json.dumps(await parallel(*asked))


@workflow.with_options(task="required")
async def test_tool_with_task() -> str:
    """Ask first, then work."""
    answer = await pause("user_name", form("What is your name?", name=TEXT))
    await wait(LONGER_THAN_GRACE)
    return f"Worked for {answer['name']}"


# -- resources and prompts ---------------------------------------------------------------------------------------------


@resource("test://static-text", mime_type="text/plain")
def static_text() -> str:
    return "This is the content of the static text resource."


@resource("test://static-binary", mime_type="image/png")
def static_binary() -> bytes:
    return b"\x89PNG\r\n\x1a\n"


@resource("test://watched-resource", mime_type="text/plain")
def watched() -> str:
    return "watched"


@resource("test://template/{id}/data", mime_type="application/json")
def template_data(id: str) -> dict[str, Any]:
    return {"id": id, "templateTest": True, "data": f"Data for ID: {id}"}


@prompt()
def test_simple_prompt() -> str:
    """A simple prompt."""
    return "This is a simple prompt for testing."


@prompt(choices={"arg1": ["paris", "park", "party", "testing"]})
def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
    """A prompt with arguments."""
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@prompt()
def test_prompt_with_embedded_resource(resourceUri: str) -> list[Any]:
    """A prompt with a resource."""
    return [embedded(resourceUri), "Please process the embedded resource above."]


@prompt()
def test_prompt_with_image() -> list[Any]:
    """A prompt with an image."""
    return [types.ImageContent(data=PNG, mime_type="image/png"), "Please analyze the image above."]


@prompt()
def test_input_required_result_prompt(answers: dict[str, Any] | None) -> Any:
    """A prompt that asks."""
    given = (answers or {}).get("user_context")
    if given is None:
        asked: dict[str, Any] = {"user_context": form("What context should the prompt use?", context=TEXT)}
        return types.InputRequiredResult(input_requests=asked)
    return f"Use this context: {given.content}"
