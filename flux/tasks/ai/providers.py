"""From a model string to a model: which provider, where it is, and with which key."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, cast

from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model, infer_model

from flux.errors import ModelNotReady

Secret = Callable[[str], Awaitable[str | None]]
"""Looks a key up by the name of its environment variable: there, or in the secret store."""

OLLAMA = "http://localhost:11434"
EXTRA = "install it with `pip install 'flux-mcp-server[ai]'`"


async def model_of(
    model: Any, secret: Secret, *, base_url: str | None = None, api_key: str | None = None
) -> Model[Any]:
    """The model that `provider/name` stands for; a model of pydantic-ai is taken as it is. Raises ModelNotReady."""
    if isinstance(model, Model):
        return cast("Model[Any]", model)
    text = str(model)
    provider, slash, name = text.partition("/")
    if ":" in provider or not slash:  # as pydantic-ai writes it
        provider, slash, name = text.partition(":")
    if not (provider and name):
        raise ModelNotReady(f"The model {text!r} is not written as `provider/name`, such as `ollama/llama3`.")
    try:
        return await _made(provider.lower(), name, secret, base_url, api_key)
    except ImportError as exc:
        raise ModelNotReady(
            f"The model {text!r} needs a package that is not there ({exc.name or exc}); {EXTRA}."
        ) from exc
    except (UserError, ValueError) as exc:
        raise ModelNotReady(f"The model {text!r} cannot be used: {' '.join(str(exc).split())}") from exc


async def _made(provider: str, name: str, secret: Secret, base_url: str | None, api_key: str | None) -> Model[Any]:
    match provider:
        case "ollama":
            return _ollama(name, base_url or ollama_url(), api_key or await secret("OLLAMA_API_KEY"))
        case "openai":
            url = base_url or os.environ.get("OPENAI_BASE_URL")
            key = api_key or await secret("OPENAI_API_KEY")
            return _openai(name, url, _needed(key, "OPENAI_API_KEY", provider) if url is None else key)
        case "anthropic":
            key = _needed(api_key or await secret("ANTHROPIC_API_KEY"), "ANTHROPIC_API_KEY", provider)
            return _anthropic(name, base_url or os.environ.get("ANTHROPIC_BASE_URL"), key)
        case "google" | "gemini":
            key = api_key or await secret("GOOGLE_API_KEY") or await secret("GEMINI_API_KEY")
            return _google(name, base_url, _needed(key, "GOOGLE_API_KEY", "google"))
        case _ if base_url is not None:
            return _openai(name, base_url, api_key)
        case _:
            return infer_model(f"{provider}:{name}")


def _needed(key: str | None, variable: str, provider: str) -> str:
    if not key:
        raise ModelNotReady(
            f"Models of {provider} need a key: set {variable} in the environment, or keep it with "
            f"`flux secrets set {variable}`."
        )
    return key


def ollama_url() -> str:
    """Where Ollama listens: OLLAMA_BASE_URL, or OLLAMA_HOST as Ollama itself reads it, or the usual port of this machine."""
    url = os.environ.get("OLLAMA_BASE_URL")
    if not url:
        host = os.environ.get("OLLAMA_HOST", "").strip().rstrip("/")
        url = OLLAMA if not host else host if "://" in host else f"http://{host}"
        if url.rpartition(":")[2].startswith("//"):
            url = f"{url}:11434"
        url = url.replace("//0.0.0.0:", "//127.0.0.1:")
    url = url.rstrip("/")
    return url if url.endswith("/v1") else f"{url}/v1"


def _ollama(name: str, base_url: str, api_key: str | None) -> Model[Any]:
    from pydantic_ai.models.ollama import OllamaModel  # noqa: PLC0415 - each provider's own package is optional
    from pydantic_ai.providers.ollama import OllamaProvider  # noqa: PLC0415 - the same

    return OllamaModel(name, provider=OllamaProvider(base_url=base_url, api_key=api_key))


def _openai(name: str, base_url: str | None, api_key: str | None) -> Model[Any]:
    from pydantic_ai.models.openai import OpenAIChatModel  # noqa: PLC0415 - each provider's own package is optional
    from pydantic_ai.providers.openai import OpenAIProvider  # noqa: PLC0415 - the same

    # servers of one's own often take any key, but the client insists on one
    return OpenAIChatModel(name, provider=OpenAIProvider(base_url=base_url, api_key=api_key or "none"))


def _anthropic(name: str, base_url: str | None, api_key: str) -> Model[Any]:
    from pydantic_ai.models.anthropic import AnthropicModel  # noqa: PLC0415 - each provider's own package is optional
    from pydantic_ai.providers.anthropic import AnthropicProvider  # noqa: PLC0415 - the same

    return AnthropicModel(name, provider=AnthropicProvider(api_key=api_key, base_url=base_url))


def _google(name: str, base_url: str | None, api_key: str) -> Model[Any]:
    from pydantic_ai.models.google import GoogleModel  # noqa: PLC0415 - each provider's own package is optional
    from pydantic_ai.providers.google import GoogleProvider  # noqa: PLC0415 - the same

    return GoogleModel(name, provider=GoogleProvider(api_key=api_key, base_url=base_url))
