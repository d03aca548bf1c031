"""What can be asked of `flux`: its commands, their arguments and what they are for. The work is done elsewhere.

Each command imports its module when it is called, so that `flux --help` and a shell's completion answer at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer

from flux.errors import FluxError

USAGE, INTERRUPTED, BUG, PIPE_CLOSED = 2, 130, 70, 141
"""What the command exits with, apart from what becomes of an execution: see `flux.cli.following`."""

# typer brings its own click or uses the package, depending on its version: the base of all usage errors, either way
_ClickError: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="flux",
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
schedule = typer.Typer(help="See, pause and resume the schedules of workflows.")
secrets = typer.Typer(help="Keep the secrets that tasks ask for, encrypted beside the database.")
servers = typer.Typer(help="Sign in at the MCP servers that workflows call, and look at their tools.")
app.add_typer(schedule, name="schedule", rich_help_panel="Workflows")
app.add_typer(secrets, name="secrets", rich_help_panel="Housekeeping")
app.add_typer(servers, name="mcp", rich_help_panel="Housekeeping")

RUNNING, LOOKING, WORKFLOWS, KEEPING = "Run and steer", "Look", "Workflows", "Housekeeping"

Id = Annotated[str, typer.Argument(metavar="ID", help="An execution's id, or its beginning.")]
File = Annotated[str, typer.Argument(metavar="FILE[:NAME]", help="A Python file or module, and a name in it.")]
Places = Annotated[
    list[str] | None, typer.Argument(metavar="PATH", help="Files, folders and modules; else the current folder.")
]
Database = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="The SQLite file, or postgresql://... Else: FLUX_DATABASE, or the one in your data folder."
    ),
]
From = Annotated[
    list[str] | None,
    typer.Option(
        "--from", metavar="FILE", help="Where the workflow's code is. Else: where it was last run from, or here."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for programs. Nothing is asked.")]
Follow = Annotated[bool, typer.Option(help="Show progress, and ask what the workflow asks.")]


@app.callback(invoke_without_command=True)
def flux(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Durable workflows: run them, look at them, answer them, go on with them."""
    if show_version:
        sys.stdout.write(f"flux {version('flux-mcp-server')}\n")
        raise typer.Exit
    if context.invoked_subcommand is None:
        sys.stdout.write(f"{context.get_help()}\n")


# -- run and steer -------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=RUNNING)
def run(
    file: File,
    input: Annotated[
        str | None,
        typer.Argument(metavar="INPUT", help="JSON or plain text; `-` reads stdin, `@FILE` a file."),
    ] = None,
    id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="An id of your own. One that exists is gone on with, not begun anew."),
    ] = None,
    follow: Follow = True,
    detach: Annotated[bool, typer.Option("--detach", help="Leave it to a process in the background.")] = False,
    json: Json = False,
    database: Database = None,
) -> None:
    """Run a workflow and stay until it ends or asks. Ctrl-C lets go; `flux resume` goes on.

    Exits with 0 when it completed, 1 when it failed or was cancelled, 3 when it is paused, 130 after Ctrl-C."""
    from flux.cli import running  # noqa: PLC0415 - start-up time

    _exit(running.run(file, input, id=id, follow=follow, detach=detach, as_json=json, database=database))


@app.command(rich_help_panel=RUNNING)
def resume(
    id: Id,
    answer: Annotated[
        str | None,
        typer.Argument(metavar="ANSWER", help="For its pause: JSON or plain text; `-` reads stdin, `@FILE` a file."),
    ] = None,
    pause: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which pause is answered, when several are open.")
    ] = None,
    sources: From = None,
    follow: Follow = True,
    json: Json = False,
    database: Database = None,
) -> None:
    """Go on with an execution: answer its pause, or take up what was interrupted, suspended or asleep."""
    from flux.cli import running  # noqa: PLC0415 - start-up time

    places = sources or []
    _exit(running.resume(id, answer, pause=pause, sources=places, follow=follow, as_json=json, database=database))


@app.command(rich_help_panel=RUNNING)
def cancel(
    id: Id,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Is kept with the execution.")] = None,
    sources: From = None,
    json: Json = False,
    database: Database = None,
) -> None:
    """End an execution as cancelled, wherever it runs; rollbacks are made."""
    from flux.cli import running  # noqa: PLC0415 - start-up time

    _exit(running.cancel(id, reason=reason, sources=sources or [], as_json=json, database=database))


@app.command(rich_help_panel=RUNNING)
def suspend(id: Id, json: Json = False, database: Database = None) -> None:
    """Stop an execution at its next call, until it is resumed."""
    from flux.cli import running  # noqa: PLC0415 - start-up time

    _exit(running.suspend(id, as_json=json, database=database))


@app.command(rich_help_panel=RUNNING)
def retry(id: Id, sources: From = None, follow: Follow = True, json: Json = False, database: Database = None) -> None:
    """Let a failed execution go on from its failure: finished work stays."""
    from flux.cli import running  # noqa: PLC0415 - start-up time

    _exit(running.retry(id, sources=sources or [], follow=follow, as_json=json, database=database))


@app.command(rich_help_panel=RUNNING)
def fork(
    id: Id,
    at: Annotated[
        int | None, typer.Option(metavar="SEQ", help="Its first SEQ events are kept (see `flux show ID --events`).")
    ] = None,
    new_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="An id of your own for the new one.")] = None,
    sources: From = None,
    follow: Follow = True,
    json: Json = False,
    database: Database = None,
) -> None:
    """Begin a new execution from another's history, by default from all but its end."""
    from flux.cli import running  # noqa: PLC0415 - start-up time

    places = sources or []
    _exit(running.fork(id, at=at, new_id=new_id, sources=places, follow=follow, as_json=json, database=database))


@app.command(rich_help_panel=RUNNING)
def worker(
    paths: Places = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many executions at once, at most. Else: no limit.")
    ] = None,
    tags: Annotated[
        str | None, typer.Option(metavar="A,B", help="What this machine has that workflows may need: see `needs`.")
    ] = None,
    drain: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long what runs may go on after a signal to stop.")
    ] = 10,
    database: Database = None,
) -> None:
    """Run executions that servers, schedules and other processes have begun, until it is told to stop.

    What it runs when it stops or dies, others go on with."""
    from flux.cli import working  # noqa: PLC0415 - start-up time

    working.work(paths or ["."], concurrency=concurrency, tags=tags, drain=drain, database=database)


# -- look ----------------------------------------------------------------------------------------------------------------


@app.command("list", rich_help_panel=LOOKING)
def list_(
    workflow: Annotated[str | None, typer.Option(metavar="NAME", help="Only this workflow's.")] = None,
    status: Annotated[
        list[str] | None,
        typer.Option(metavar="STATUS", help="Only those: running, queued, interrupted, paused, ... May be repeated."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, at most.")] = 20,
    json: Json = False,
    database: Database = None,
) -> None:
    """List executions, newest first."""
    from flux.cli import looking  # noqa: PLC0415 - start-up time

    looking.list_executions(workflow=workflow, statuses=status or [], limit=limit, as_json=json, database=database)


@app.command(rich_help_panel=LOOKING)
def show(
    id: Id,
    events: Annotated[bool, typer.Option("--events", help="Everything that happened.")] = False,
    timeline: Annotated[bool, typer.Option("--timeline", help="Each call: when, how long, how often.")] = False,
    graph: Annotated[bool, typer.Option("--graph", help="The workflow's graphs, with the state of each node.")] = False,
    sources: From = None,
    json: Json = False,
    database: Database = None,
) -> None:
    """Show one execution: how it stands, what went in, what came out, what it asks."""
    from flux.cli import looking  # noqa: PLC0415 - start-up time

    parts = looking.Parts(events=events, timeline=timeline, graph=graph)
    looking.show(id, parts, sources=sources or [], as_json=json, database=database)


@app.command(rich_help_panel=LOOKING)
def queues(json: Json = False, database: Database = None) -> None:
    """List the queues in which executions run or wait, and how many."""
    from flux.cli import looking  # noqa: PLC0415 - start-up time

    looking.list_queues(as_json=json, database=database)


# -- workflows -----------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=WORKFLOWS)
def workflows(paths: Places = None, json: Json = False) -> None:
    """List the workflows in files, folders and modules, and what could not be read."""
    from flux.cli import code  # noqa: PLC0415 - start-up time

    code.list_workflows(paths or ["."], as_json=json)


@app.command(rich_help_panel=WORKFLOWS)
def graph(
    file: File,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="As Mermaid, for documents.")] = False,
    json: Json = False,
) -> None:
    """Draw the graphs of a file."""
    from flux.cli import code  # noqa: PLC0415 - start-up time

    code.draw_graphs(file, mermaid=mermaid, as_json=json)


@schedule.command("list")
def schedule_list(paths: Places = None, json: Json = False, database: Database = None) -> None:
    """List the workflows that start by themselves, and when they do next."""
    from flux.cli import schedules  # noqa: PLC0415 - start-up time

    schedules.list_schedules(paths or ["."], as_json=json, database=database)


Scheduled = Annotated[str, typer.Argument(metavar="WORKFLOW", help="The name of a workflow that has a schedule.")]


@schedule.command("pause")
def schedule_pause(workflow: Scheduled, sources: From = None, database: Database = None) -> None:
    """Start a workflow no more by its schedule."""
    from flux.cli import schedules  # noqa: PLC0415 - start-up time

    schedules.pause(workflow, sources=sources or ["."], database=database)


@schedule.command("resume")
def schedule_resume(workflow: Scheduled, sources: From = None, database: Database = None) -> None:
    """Let a paused schedule go on from now."""
    from flux.cli import schedules  # noqa: PLC0415 - start-up time

    schedules.resume(workflow, sources=sources or ["."], database=database)


# -- housekeeping --------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=KEEPING)
def migrate(
    source: Annotated[str, typer.Argument(metavar="OLD", help="A SQLite file, or postgresql://...")],
    target: Annotated[str, typer.Argument(metavar="NEW", help="Where everything goes. It need not be empty.")],
    json: Json = False,
) -> None:
    """Move all executions to another database: postgresql://... when one machine is not enough."""
    from flux.cli import moving  # noqa: PLC0415 - start-up time

    moving.migrate(source, target, as_json=json)


SecretName = Annotated[str, typer.Argument(metavar="NAME", help="What tasks ask for it by.")]


@secrets.command("set")
def secrets_set(name: SecretName, database: Database = None) -> None:
    """Keep a secret. Its value is asked for, or read from stdin: a command line would be seen and remembered."""
    from flux.cli import secrets  # noqa: PLC0415 - start-up time

    secrets.set_secret(name, database=database)


@secrets.command("list")
def secrets_list(json: Json = False, database: Database = None) -> None:
    """List the names of the secrets, never their values."""
    from flux.cli import secrets  # noqa: PLC0415 - start-up time

    secrets.list_secrets(as_json=json, database=database)


@secrets.command("remove")
def secrets_remove(name: SecretName, database: Database = None) -> None:
    """Forget a secret."""
    from flux.cli import secrets  # noqa: PLC0415 - start-up time

    secrets.remove_secret(name, database=database)


Url = Annotated[str, typer.Argument(metavar="URL", help="The server's address, as `mcp()` is given it.")]


@servers.command("login")
def servers_login(
    url: Url,
    browser: Annotated[bool, typer.Option(help="Open a browser. Without it the address is only shown.")] = True,
    scope: Annotated[
        str | None, typer.Option(metavar="SCOPE", help="Wanted besides what the server asks for; several with spaces.")
    ] = None,
    client_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Where Flux cannot register: your app's id, or the https address of its document."
        ),
    ] = None,
    client_secret: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The kept secret (`flux secrets set`) of that app, if it has one."),
    ] = None,
    port: Annotated[
        int, typer.Option(metavar="PORT", help="Of this machine, for the answer: where the app has registered one.")
    ] = 0,
    database: Database = None,
) -> None:
    """Sign in at an MCP server by OAuth. Workflows that call it are then signed in as well; the login is kept as a secret."""
    from flux.cli import servers  # noqa: PLC0415 - start-up time

    servers.login(
        url,
        browser=browser,
        scope=scope,
        client_id=client_id,
        client_secret=client_secret,
        port=port,
        database=database,
    )


@servers.command("logout")
def servers_logout(url: Url, database: Database = None) -> None:
    """Forget a login, and tell the server that it is over."""
    from flux.cli import servers  # noqa: PLC0415 - start-up time

    servers.logout(url, database=database)


@servers.command("tools")
def servers_tools(
    server: Annotated[str, typer.Argument(metavar="SERVER", help="An address or a command, as `mcp()` is given it.")],
    json: Json = False,
    database: Database = None,
) -> None:
    """List the tools of an MCP server."""
    from flux.cli import servers  # noqa: PLC0415 - start-up time

    servers.list_tools(server, as_json=json, database=database)


@app.command(rich_help_panel=KEEPING)
def prune(
    older_than: Annotated[str, typer.Option(metavar="TIME", help="Such as 30d, 12h, 90min: since they ended.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
    database: Database = None,
) -> None:
    """Delete executions that ended long ago, with their histories."""
    from flux.cli import keeping  # noqa: PLC0415 - start-up time

    keeping.prune(older_than, yes=yes, as_json=json, database=database)


@app.command(rich_help_panel=KEEPING)
def doctor(json: Json = False, database: Database = None) -> None:
    """Check versions, the database, executions left behind, and which MCP clients are set up.

    Exits with 1 when something is broken."""
    from flux.cli import doctor as checks  # noqa: PLC0415 - start-up time

    _exit(checks.doctor(as_json=json, database=database))


# -- the way in ----------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")  # a terminal without the character shows another one
    sys.exit(status_of(arguments))


def status_of(arguments: Sequence[str] | None) -> int:
    """Do what the arguments say; whatever goes wrong is a sentence on stderr. Returns what to exit with."""
    try:
        returned: Any = app(args=arguments, prog_name="flux", standalone_mode=False)
        sys.stdout.flush()
    except _ClickError as exc:
        return _refuse(_usage(exc))
    except FluxError as exc:
        return _refuse(str(exc))
    except typer.Exit as exc:
        return exc.exit_code
    except (KeyboardInterrupt, EOFError, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except Exception as exc:  # a fault of ours: told as such, never as a traceback
        if os.environ.get("FLUX_DEBUG"):
            raise
        sys.stderr.write(f"flux: this is a fault of Flux: {type(exc).__name__}: {exc}\n")
        sys.stderr.write("Please report it, with what FLUX_DEBUG=1 shows.\n")
        return BUG
    return returned if isinstance(returned, int) else 0


def _exit(code: int) -> NoReturn:
    raise typer.Exit(code)


def _usage(exc: Any) -> str:
    context = exc.ctx
    path = context.command_path if context is not None else "flux"
    return f"{exc.format_message().rstrip('.')}. `{path} --help` shows what it takes."


def _refuse(sentence: str) -> int:
    sys.stderr.write(f"flux: {sentence}\n")
    return USAGE
