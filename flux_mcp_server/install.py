"""`flux-mcp-server install`: the server's entry in a client's own configuration file."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from flux.errors import FluxError


class CannotInstall(FluxError):
    """The client's file is not as it should be: it is left as it is."""


@dataclass(frozen=True, slots=True)
class Server:
    command: str
    args: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, targets: Sequence[str], *, database: str | None, variables: Sequence[str]) -> Server:
        """Raises CannotInstall."""
        args = [_from_anywhere(each) for each in targets or ["."]]
        env: dict[str, str] = {}
        for variable in variables:
            name, sign, value = variable.partition("=")
            if not sign or not name:
                raise CannotInstall(f"--env {variable}: should be NAME=VALUE.")
            env[name] = value
        if database is not None:
            args += ["--database", str(Path(database).resolve()) if "://" not in database else database]
        return cls(*_command(args), env)

    def as_json(self) -> dict[str, Any]:
        return {"command": self.command, "args": list(self.args), **({"env": dict(self.env)} if self.env else {})}


def _from_anywhere(target: str) -> str:
    """Clients start their servers in folders of their own."""
    path = Path(target).expanduser()
    if path.exists():
        return str(path.resolve())
    try:
        known = importlib.util.find_spec(target) is not None
    except (ImportError, ValueError):  # a parent is missing, or it is no name of a module
        known = False
    if not known:
        raise CannotInstall(
            f"There is no {target} (looked in {Path.cwd()}), nor an installed module of that name. Nothing was changed."
        )
    return target


def _command(args: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The script beside this Python, by its full path: clients know nothing of our PATH."""
    script = Path(sys.executable).with_name("flux-mcp-server.exe" if os.name == "nt" else "flux-mcp-server")
    return (str(script), args) if script.exists() else (sys.executable, ["-m", "flux_mcp_server", *args])


@dataclass(frozen=True, slots=True)
class Client:
    """Where the client keeps its servers. `kind` is the value that some want with each: VS Code's `type`."""

    title: str
    path: Callable[[], Path]
    key: str = "mcpServers"
    form: Literal["json", "toml"] = "json"
    kind: Mapping[str, str] = field(default_factory=dict[str, str])


def _claude_desktop() -> Path:
    name = "claude_desktop_config.json"
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/Claude" / name
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", Path.home() / "AppData/Roaming")) / "Claude" / name
    return Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "Claude" / name


CLIENTS: Mapping[str, Client] = {
    "claude-desktop": Client("Claude Desktop", _claude_desktop),
    "claude-code": Client("Claude Code, for this folder", lambda: Path.cwd() / ".mcp.json"),
    "cursor": Client("Cursor", lambda: Path.home() / ".cursor/mcp.json"),
    "vscode": Client(
        "VS Code, for this folder", lambda: Path.cwd() / ".vscode/mcp.json", key="servers", kind={"type": "stdio"}
    ),
    "codex": Client("Codex", lambda: Path.home() / ".codex/config.toml", key="mcp_servers", form="toml"),
    "gemini": Client("Gemini CLI", lambda: Path.home() / ".gemini/settings.json"),
}


def into(client: Client, name: str, server: Server, *, config: Path | None = None) -> str:
    """Merge the server into the client's file, and say what was done. Raises CannotInstall, and then nothing was."""
    path = config or client.path()
    before = path.read_text("utf-8") if path.exists() else ""
    after, was_there = (_toml if client.form == "toml" else _json)(client, path, before, name, server)
    if after == before:
        return f"{client.title}: {name!r} stands in {path} just so; nothing was changed."
    backup = _backup(path) if path.exists() else None
    _write(path, after)
    done = "was changed in" if was_there else "was added to"
    kept = f" What it was before is in {backup}." if backup is not None else ""
    return f"{client.title}: {name!r} {done} {path}.{kept} Restart the client to see it."


def _json(client: Client, path: Path, before: str, name: str, server: Server) -> tuple[str, bool]:
    try:
        config: Any = json.loads(before) if before.strip() else {}
    except ValueError as exc:
        raise CannotInstall(
            f"{path} is not plain JSON ({exc}): add the server by hand, `install json` shows it."
        ) from exc
    servers: Any = config.setdefault(client.key, {}) if isinstance(config, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(servers, dict):
        raise CannotInstall(f"{path} has no object {client.key!r}: add the server by hand, `install json` shows it.")
    known = cast("dict[str, Any]", servers)
    old: Any = known.get(name)
    kept = cast("dict[str, Any]", old) if isinstance(old, dict) else {}
    known[name] = _merged(kept, {**client.kind, **server.as_json()})
    if old == known[name]:
        return before, True
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n", old is not None


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Ours, with what else the user has written there: variables, a time limit, ..."""
    merged = {**old, **new}
    if "env" in old:
        merged["env"] = {**old["env"], **new.get("env", {})}
    return merged


def _toml(client: Client, path: Path, before: str, name: str, server: Server) -> tuple[str, bool]:
    """A table is added at the end. One that is there already is the user's to change: TOML cannot be written back as it was."""
    try:
        config = tomllib.loads(before)
    except tomllib.TOMLDecodeError as exc:
        raise CannotInstall(f"{path} is not TOML ({exc}): it is left as it is.") from exc
    known = config.get(client.key, {}).get(name)
    if known is not None:
        same = all(known.get(key) == value for key, value in server.as_json().items())
        if same:
            return before, True
        raise CannotInstall(f"{path} has a [{client.key}.{name}] already: change it by hand, or choose another --name.")
    key = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
    lines = [
        f"[{client.key}.{key}]",
        f"command = {json.dumps(server.command)}",
        f"args = {json.dumps(list(server.args))}",
    ]
    if server.env:
        pairs = ", ".join(f"{json.dumps(variable)} = {json.dumps(value)}" for variable, value in server.env.items())
        lines.append(f"env = {{ {pairs} }}")
    gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
    return before + gap + "\n".join(lines) + "\n", False


def _backup(path: Path) -> Path:
    backup = path.with_name(f"{path.name}.{time.strftime('%Y%m%d-%H%M%S')}.bak")
    shutil.copy2(path, backup)
    return backup


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    real = path.resolve()  # a link to a file stays one
    new = real.with_name(f".{real.name}.new")
    new.write_text(text, "utf-8")
    if real.exists():
        shutil.copymode(real, new)
    os.replace(new, real)
