"""`flux mcp`: signing in at the MCP servers that workflows call, and looking at what they have."""

from __future__ import annotations

import asyncio
import logging
import re
import webbrowser
from collections.abc import Coroutine
from typing import Any, TypeVar

from rich.table import Table

from flux.cli import screen
from flux.cli.loading import Refused
from flux.cli.secrets import store_of
from flux.provisions import Beside
from flux.settings import Settings
from flux.tasks.mcp.login import keep_login, kept_login, revoke, secret_of
from flux.tasks.mcp.looking import tools_of
from flux.tasks.mcp.signing_in import Wish, sign_in

T = TypeVar("T")


def login(
    url: str,
    *,
    browser: bool,
    scope: str | None,
    client_id: str | None,
    client_secret: str | None,
    port: int,
    database: str | None,
) -> None:
    _check_address(url)
    store = store_of(database)

    async def signed_in() -> None:
        secret = None if client_secret is None else await store.get(client_secret)
        if client_secret is not None and secret is None:
            raise Refused(f"There is no secret {client_secret!r}. `flux secrets set {client_secret}` keeps one.")
        wish = Wish(scope=scope, client_id=client_id, client_secret=secret, port=port)
        found = await sign_in(url, _show(browser=browser), wish, before=await kept_login(url, store))
        if found is None:
            screen.say(f"{url} asks for no login.")
            return
        keep_login(url, found, store)
        tools = await tools_of(url, store)
        screen.say(f"Signed in at {url}, which has {len(tools)} tools. mcp({url!r}) is signed in from now on.")

    _run(signed_in())


def _show(*, browser: bool) -> Any:
    async def show(address: str) -> None:
        opened = browser and await asyncio.to_thread(webbrowser.open, address)
        screen.say("Sign in in the browser that was opened, or here:" if opened else "Open this address to sign in:")
        screen.say(address)

    return show


def logout(url: str, *, database: str | None) -> None:
    _check_address(url)
    store = store_of(database)

    async def signed_out() -> None:
        found = await kept_login(url, store)
        if not store.remove(secret_of(url)):
            raise Refused(f"There is no login at {url}. `flux secrets list` shows them, as mcp:...")
        is_told = found is not None and await revoke(found)
        screen.say(f"Signed out at {url}." if is_told else f"The login at {url} is forgotten here.")

    _run(signed_out())


def list_tools(server: str, *, as_json: bool, database: str | None) -> None:
    secrets = Beside.of(Settings.load(database=database).database).provisions().secrets
    tools = _run(tools_of(server, secrets))
    if as_json:
        return screen.print_json(tools)
    table = Table("Tool", "What it does", box=None, header_style="bold")
    for tool in tools:
        table.add_row(screen.printable(tool["name"]), screen.printable(_first_line(tool)))
    return screen.out().print(table)


def _first_line(tool: dict[str, Any]) -> str:
    return str(tool.get("description") or tool.get("title") or "").strip().partition("\n")[0]


def _check_address(url: str) -> None:
    if not re.match(r"https?://", url):
        raise Refused(f"{url!r} is no address: one signs in at http:// and https:// servers.")


def _run(work: Coroutine[Any, Any, T]) -> T:
    logging.getLogger("mcp").setLevel(logging.CRITICAL)  # what goes wrong is told once, and by us
    return asyncio.run(work)
