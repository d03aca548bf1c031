"""What the documents say is so: their Python runs, their JSON parses, and what they name exists."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from flux.config import FILE_VARIABLE
from flux.secrets import KEY_VARIABLE
from flux.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"])
WITH_PYTHON = [path for path in DOCUMENTS if "```python" in path.read_text("utf-8")]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", WITH_PYTHON, ids=ids)
def test_the_python_of_a_document_runs_and_prints_what_its_comments_say(document: Path, tmp_path: Path) -> None:
    code = "\n".join(blocks(document.read_text("utf-8"), "python"))
    script = tmp_path / "document.py"
    script.write_text(code, "utf-8")
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == re.findall(r"^ *print\(.*\)  # (.*)$", code, re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_the_json_of_a_document_parses_and_starts_our_server(document: Path) -> None:
    for block in blocks(document.read_text("utf-8"), "json"):
        config = json.loads(block)
        servers = config.get("mcpServers") or config["servers"]
        assert servers["flux"]["command"] == "flux-mcp-server"


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_file_that_a_document_links_exists(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text("utf-8"))
    assert [link for link in links if "://" not in link and not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_path_in_backticks_exists(document: Path) -> None:
    named = re.findall(
        r"`((?:flux|flux_mcp_server|tests|docs|examples|benchmarks)/[\w./]*)`", document.read_text("utf-8")
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_make_target_that_a_document_names_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", document.read_text("utf-8"), re.MULTILINE))
    assert named <= targets


def test_every_setting_that_a_document_names_exists() -> None:
    server = (ROOT / "flux_mcp_server" / "__main__.py").read_text("utf-8")
    known = {f"FLUX_{field.name.upper()}" for field in fields(Settings)} | set(re.findall(r"FLUX_MCP_[A-Z_]+", server))
    known |= {KEY_VARIABLE, FILE_VARIABLE}
    named = {name for path in DOCUMENTS for name in re.findall(r"FLUX_[A-Z_]*[A-Z](?!_)\b", path.read_text("utf-8"))}
    assert named <= known


def test_the_readme_opens_with_one_sentence_and_an_install_line() -> None:
    title, sentence, install = README.split("\n\n")[:3]
    assert title == "# Flux"
    assert sentence.startswith("**Flux turns")
    assert sentence.endswith(".**")
    assert install == "```sh\npip install flux-mcp-server\n```"
    assert len(README.splitlines()) <= 150


def test_the_readme_shows_what_the_crash_example_prints() -> None:
    def output(*arguments: str) -> str:
        command = [sys.executable, "examples/crash_and_resume.py", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False).stdout

    shown = blocks(README, "console")[0]
    shown_id, started = id_in(shown), output()
    resumed = output(id_in(started))
    command = "$ python examples/crash_and_resume.py"
    transcript = f"{command}\n{started}{command} {id_in(started)}\n{resumed}"
    assert transcript.replace(id_in(started), shown_id) == shown


def id_in(text: str) -> str:
    found = re.search(r"collect-\w+", text)
    assert found, text
    return found[0]
