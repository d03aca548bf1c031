"""What `mcp()` is given as a server, and how a connection to it is opened."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TextIO, cast
from urllib.parse import urlsplit

from mcp import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import Server
from mcp.server.mcpserver import MCPServer

from flux.errors import DefinitionError
from flux.tasks.mcp import tether
from flux.tasks.mcp.auth import Auth
from flux.tasks.mcp.endpoint import Endpoint
from flux.tasks.mcp.login import StoredLogin
from flux.tasks.mcp.streams import Streams, watched

InMemory = Server[Any] | MCPServer
Given = str | os.PathLike[str] | list[str] | tuple[str, ...] | StdioServerParameters | Mapping[str, Any] | InMemory

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
GRACE = 10.0
"""Seconds that a server may take to end by itself once this process is gone: one of ours parks its executions meanwhile."""

_RUNNERS = {"npx", "uvx", "pipx", "python", "python3", "node", "uv", "bunx", "deno"}
"""Commands that say nothing about the server that they run."""


@dataclass(frozen=True, slots=True)
class Url:
    address: str
    headers: Mapping[str, str]

    @property
    def name(self) -> str:
        """The address without what most have alike, so that servers beside each other have names of their own."""
        parts = urlsplit(self.address)
        host = (parts.hostname or "server") + (f":{parts.port}" if parts.port else "")
        path = [each for each in parts.path.split("/") if each]
        return "/".join([host, *(path[:-1] if path[-1:] in (["mcp"], ["sse"]) else path)])

    @property
    def identity(self) -> str:
        return self.address

    @property
    def login(self) -> Auth | None:
        """Whoever has signed in here, unless it is said already who we are."""
        return None if "authorization" in map(str.lower, self.headers) else StoredLogin(self.address)

    def endpoint(self, auth: Auth | None, *, connect_timeout: float, most: int) -> Endpoint:
        return Endpoint(self.address, self.headers, auth, connect_timeout=connect_timeout, most=most)

    def transport(self, endpoint: Endpoint, most: int) -> AbstractAsyncContextManager[Any]:
        return streamable_http_client(self.address, http_client=endpoint, max_sse_event_size=2 * most)


@dataclass(frozen=True, slots=True)
class Command:
    parameters: StdioServerParameters

    @property
    def name(self) -> str:
        words = [self.parameters.command, *self.parameters.args]
        meant = [word for word in words if not word.startswith("-") and PurePath(word).stem not in _RUNNERS]
        last = (meant or words)[0].rstrip("/").rpartition("/")[2].partition("@")[0]
        return PurePath(last).stem or "server"

    @property
    def identity(self) -> str:
        return shlex.join([self.parameters.command, *self.parameters.args])

    def transport(self, streams: Streams) -> AbstractAsyncContextManager[Any]:
        """Raises FileNotFoundError."""
        return watched(stdio_client(_tethered(self.parameters), errlog=_stderr()), streams)


def _tethered(given: StdioServerParameters) -> StdioServerParameters:
    """So that it ends with this process, however that ends. On Windows the SDK sees to that."""
    if os.name == "nt" or getattr(sys, "frozen", False):
        return given
    is_path = os.sep in given.command
    if shutil.which(Path(given.cwd or ".") / given.command if is_path else given.command) is None:
        raise FileNotFoundError(errno.ENOENT, "There is no such program", given.command)
    words = ["-I", "-S", tether.__file__, str(GRACE), given.command, *given.args]
    return given.model_copy(update={"command": sys.executable, "args": words})


@dataclass(frozen=True, slots=True)
class Local:
    """A server object in this process."""

    server: InMemory

    @property
    def name(self) -> str:
        return self.server.name or "server"

    @property
    def identity(self) -> str:
        return f"{self.name} in this process"


Target = Url | Command | Local


def target_of(given: Given, name: str | None) -> Target:
    """Raises DefinitionError for what is no server."""
    match given:
        case Server() | MCPServer():
            return Local(given)
        case StdioServerParameters():
            return Command(given)
        case list() | tuple():
            return _command(list(given))
        case Mapping():
            return _entry(given, name)
        case str() if re.match(r"https?://", given):
            return _url(given, {})
        case str() | os.PathLike():
            return _text(os.fspath(given), name)
        case _:
            raise DefinitionError(
                f"mcp() takes a URL, a command, a list of its words, StdioServerParameters, an entry of `mcpServers`, the path "
                f"of a configuration file or a server object, not {given!r}."
            )


def _text(given: str, name: str | None) -> Target:
    path = Path(given).expanduser()
    if path.suffix == ".json" and path.is_file():
        return _entry(cast("dict[str, Any]", json.loads(path.read_text("utf-8"))), name, str(path))
    if path.suffix == ".py" and path.is_file():
        return _command([sys.executable, given])
    if re.match(r"[a-z]+://", given):
        raise DefinitionError(f"mcp({given!r}): only http:// and https:// addresses are known.")
    return _command(shlex.split(given, posix=os.name != "nt"))


def _url(address: str, headers: Mapping[str, str]) -> Url:
    try:
        _ = urlsplit(address).port
    except ValueError as exc:
        raise DefinitionError(f"mcp({address!r}) is no address: {exc}.") from None
    return Url(address, headers)


def _command(words: list[str]) -> Command:
    if not words or not words[0]:
        raise DefinitionError("mcp() was given an empty command.")
    return Command(StdioServerParameters(command=words[0], args=words[1:]))


def _entry(given: Mapping[str, Any], name: str | None, whence: str = "the configuration") -> Target:
    """An entry, or a whole configuration of which `name` says the entry."""
    for key in ("mcpServers", "servers"):
        servers = given.get(key)
        if isinstance(servers, Mapping):
            return _entry_named(cast("Mapping[str, Any]", servers), name, whence)
    kind = given.get("type")
    if kind not in (None, "stdio", "http", "streamable-http", "streamableHttp"):
        raise DefinitionError(f"mcp(): the transport {kind!r} is not known; there are stdio and http.")
    if "url" in given:
        headers = {key: _expanded(value) for key, value in cast("dict[str, str]", given.get("headers") or {}).items()}
        return _url(_expanded(str(given["url"])), headers)
    if "command" not in given:
        raise DefinitionError(f"mcp(): {whence} says neither `command` nor `url`.")
    env = {key: _expanded(str(value)) for key, value in cast("dict[str, Any]", given.get("env") or {}).items()}
    args = [_expanded(str(word)) for word in cast("list[Any]", given.get("args") or [])]
    command = _expanded(str(given["command"]))
    return Command(StdioServerParameters(command=command, args=args, env=env or None, cwd=given.get("cwd")))


def _entry_named(servers: Mapping[str, Any], name: str | None, whence: str) -> Target:
    if name is None and len(servers) == 1:
        name = next(iter(servers))
    if name is None or name not in servers:
        raise DefinitionError(f"mcp(): give the name of a server in {whence}: {', '.join(servers) or 'there is none'}.")
    return _entry(cast("Mapping[str, Any]", servers[name]), None, f"{name!r} in {whence}")


def _expanded(text: str) -> str:
    """`${VARIABLE}` and `${VARIABLE:-default}` as clients of MCP read them."""

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], cast("str | None", match[2]))
        if found is None:
            raise DefinitionError(f"mcp(): the environment has no variable {match[1]}, which the configuration uses.")
        return found

    return _VARIABLE.sub(value, text)


def _stderr() -> TextIO:
    """Where the server's own messages go. A child needs a real file, which a captured stderr is not."""
    find: Callable[[], int] | None = getattr(sys.stderr, "fileno", None)
    try:
        if find is not None and find() >= 0:
            return sys.stderr
    except (OSError, ValueError):
        pass
    return cast(TextIO, sys.__stderr__)
