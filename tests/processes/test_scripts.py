"""Wherever a workflow is written and run from, it just works, and the user's module is executed once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flux import ExecutionContext, pause, task, workflow
from flux.errors import DefinitionError

SCRIPT = """
import flux
print("imported")

@flux.task
async def greet(name: str) -> str:
    return f"Hello, {name}"

@flux.workflow
async def hello(ctx: flux.ExecutionContext[str]) -> str:
    return await greet(ctx.input)

print(hello.run("World").output)
"""


def python(*arguments: str, folder: Path, text: str | None = None) -> str:
    """What a new user's Python prints, in a folder and with a home of its own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("FLUX_", "XDG_"))}
    environment |= {"HOME": str(folder / "home"), "LOCALAPPDATA": str(folder / "home")}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_script_without_a_main_guard_runs_once_in_an_empty_folder_with_default_settings(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    assert python("script.py", folder=tmp_path).splitlines() == ["imported", "Hello, World"]
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["script.py"]
    assert list((tmp_path / "home").rglob("flux.db"))


def test_python_c_and_standard_input_are_as_good_as_a_file(tmp_path: Path) -> None:
    assert python("-c", SCRIPT, folder=tmp_path).splitlines()[-1] == "Hello, World"
    assert python("-", folder=tmp_path, text=SCRIPT).splitlines()[-1] == "Hello, World"


def test_a_module_run_with_m_and_a_class_of_its_own_come_back_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "orders.py").write_text(
        """
import sys
from pydantic import BaseModel
from flux import ExecutionContext, pause, task, workflow

class Order(BaseModel):
    number: int

@task
async def raised(order: Order) -> Order:
    return Order(number=order.number + 1)

@workflow
async def orders(ctx: ExecutionContext[Order]) -> list[Order]:
    return [await raised(ctx.input), await pause("next", response=Order)]

if __name__ == "__main__":
    print(orders.run({"number": 1}, execution_id="one").status if sys.argv[1:] else orders.resume("one", {"number": 9}).output)
"""
    )
    assert python("-m", "orders", "start", folder=tmp_path).strip() == "paused"
    again = python("-c", "import orders; print(orders.orders.run(execution_id='one').status)", folder=tmp_path)
    assert again.strip() == "paused"
    assert python("-m", "orders", folder=tmp_path).strip() == "[Order(number=2), Order(number=9)]"
    later = python("-c", "import orders; print(orders.orders.resume('one').output)", folder=tmp_path)
    assert later.strip() == "[Order(number=2), Order(number=9)]"


def test_run_works_inside_a_running_loop_as_in_a_notebook() -> None:
    @task
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return n * 2

    @workflow
    async def doubled(ctx: ExecutionContext[int]) -> int:
        return await double(ctx.input)

    async def cell() -> Any:
        return doubled.run(21).output

    assert asyncio.run(cell()) == 42


def test_an_id_is_a_key_by_which_a_run_goes_on() -> None:
    runs: list[int] = []

    @task
    async def counted() -> int:
        runs.append(1)
        return len(runs)

    @workflow
    async def once(ctx: ExecutionContext[Any]) -> int:
        return await counted()

    assert once.run(execution_id="mine").output == 1
    assert once.run(execution_id="mine").output == 1
    assert once.resume("mine").events[-1].type == "WORKFLOW_COMPLETED"


def test_run_with_an_id_and_nothing_else_goes_past_a_pause_that_takes_any_answer() -> None:
    @workflow
    async def asks(ctx: ExecutionContext[Any]) -> list[Any]:
        return [ctx.input, await pause("go on")]

    assert asks.run("x", execution_id="mine").is_paused
    assert asks.run("x", execution_id="mine").is_paused  # the same call again begins nothing and answers nothing
    assert asks.run(execution_id="mine").output == ["x", None]


def test_an_option_that_a_workflow_does_not_have_is_named() -> None:
    with pytest.raises(DefinitionError, match="no option naem"):
        workflow.with_options(naem="x")(SCRIPT.__len__)  # pyright: ignore[reportCallIssue] - what the test is about


def test_another_workflows_execution_is_not_run_by_mistake() -> None:
    @workflow
    async def one(ctx: ExecutionContext[Any]) -> None: ...

    @workflow
    async def other(ctx: ExecutionContext[Any]) -> None: ...

    one.run(execution_id="ones")
    with pytest.raises(Exception, match="belongs to workflow 'one'"):
        other.resume("ones")
