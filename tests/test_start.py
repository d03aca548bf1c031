"""What is loaded when: a command's help and a server's first answer do not wait for what they do not need."""

from __future__ import annotations

import subprocess
import sys

import flux


def test_importing_flux_loads_neither_the_engine_nor_a_library() -> None:
    code = "import flux, sys; print({'asyncio', 'pydantic', 'sqlite3', 'flux.service'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert said.stdout.strip() == "set()"


def test_a_script_that_asks_for_workflow_alone_can_run_it() -> None:
    code = "from flux import workflow\n@workflow\nasync def hello(): return 'hello'\nprint(hello.run().output)"
    said = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, timeout=30, check=False)
    assert said.stdout.strip() == "hello", said.stderr


def test_every_public_name_of_flux_is_there_when_it_is_asked_for() -> None:
    assert [name for name in flux.__all__ if not hasattr(flux, name)] == []
    assert set(flux.__all__) <= set(dir(flux))
    assert not hasattr(flux, "no_such_name")
