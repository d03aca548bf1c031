"""Skills: read as the standard has them, shown in short, opened on demand."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from flux import ExecutionContext, Flux, workflow
from flux.errors import SkillError
from flux.tasks.ai import Skill, SkillCatalog, agent
from flux.testing import ScriptedModel, tool_call

pytestmark = pytest.mark.anyio


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).mkdir()
    file = folder / name / "SKILL.md"
    file.write_text(text, "utf-8")
    return file


GOOD = "---\nname: {name}\ndescription: Use for {name} --- always.\n---\n# How\n\nDo it.\n\n---\n\nWell.\n"


def test_a_skill_is_read_with_all_its_fields(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "brew-tea",
        "\ufeff---\nname: brew-tea\ndescription: >\n  Brew tea --- with care.\nlicense: MIT\n"
        "allowed-tools: Bash(git:*) Read\nmetadata:\n  version: 1.0\n---\nBoil.\n\n---\nPour.\n",
    )
    skill = Skill.from_file(file)
    assert (skill.name, skill.description, skill.license) == ("brew-tea", "Brew tea --- with care.", "MIT")
    assert skill.allowed_tools == ("Bash(git:*)", "Read")
    assert skill.metadata == {"version": "1.0"}
    assert skill.instructions == "Boil.\n\n---\nPour."


def test_allowed_tools_may_be_a_list(tmp_path: Path) -> None:
    file = write(tmp_path, "a", "---\nname: a\ndescription: d\nallowed-tools: [read, write]\n---\nx")
    assert Skill.from_file(file).allowed_tools == ("read", "write")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no header", "does not begin with YAML"),
        ("---\nname: [\n---\nx", "cannot be read"),
        ("---\nname: 12\ndescription: d\n---\nx", "`name` has to be a text"),
        ("---\nname: Bad_Name\ndescription: d\n---\nx", "not valid"),
        ("---\nname: bad--name\ndescription: d\n---\nx", "not valid"),
        ("---\nname: bad\n---\nx", "`description`"),
        ("---\nname: bad\ndescription: d\n---\n", "no instructions"),
        ("---\nname: bad\ndescription: d\nallowed-tools: 3\n---\nx", "allowed-tools"),
    ],
)
def test_one_bad_skill_takes_no_other_down(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, said: str
) -> None:
    write(tmp_path, "good", GOOD.format(name="good"))
    write(tmp_path, "bad", text)
    (tmp_path / "notes").mkdir()
    with caplog.at_level(logging.WARNING, "flux.ai"):
        catalog = SkillCatalog.from_directory(tmp_path)
    assert [skill.name for skill in catalog] == ["good"]
    assert said in catalog.problems[0]
    assert said in caplog.text


def test_files_are_read_inside_the_folder_only(tmp_path: Path) -> None:
    skill = Skill.from_file(write(tmp_path, "good", GOOD.format(name="good")))
    (tmp_path / "good" / "references").mkdir()
    (tmp_path / "good" / "references" / "tea.md").write_text("green", "utf-8")
    (tmp_path / "secret.txt").write_text("secret", "utf-8")
    (tmp_path / "good" / "link.txt").symlink_to(tmp_path / "secret.txt")
    assert skill.files() == ["references/tea.md"]
    assert skill.read("references/tea.md") == "green"
    for outside in ("../secret.txt", str(tmp_path / "secret.txt"), "link.txt", "nothing.md"):
        with pytest.raises(SkillError, match="has no file"):
            skill.read(outside)


def test_a_catalog_is_searched_and_holds_each_name_once() -> None:
    tea = Skill(name="tea", description="Brew green tea.", instructions="Boil.")
    catalog = SkillCatalog([tea, Skill(name="soup", description="Cook soup.", instructions="Boil.")])
    assert [skill.name for skill in catalog.find("green TEA")] == ["tea"]
    assert (len(catalog), "tea" in catalog, catalog.get("tea")) == (2, True, tea)
    with pytest.raises(SkillError, match="two skills"):
        catalog.register(tea)
    with pytest.raises(SkillError, match="there are tea, soup"):
        catalog.get("bread")


async def test_an_agent_sees_skills_in_short_and_opens_them(flux: Flux, tmp_path: Path) -> None:
    write(tmp_path, "tea", GOOD.format(name="tea"))
    (tmp_path / "tea" / "more.md").write_text("80 degrees", "utf-8")
    model = ScriptedModel(
        [
            [
                tool_call("use_skill", name="tea"),
                tool_call("use_skill", name="tea", file="more.md"),
                tool_call("use_skill", name="x"),
            ],
            "ok",
        ]
    )
    brewer = agent("Brew.", model=model, skills=SkillCatalog.from_directory(tmp_path))

    @workflow
    async def brews(ctx: ExecutionContext[Any]) -> str:
        return await brewer("Tea, please.")

    assert (await flux.run(brews)).output == "ok"
    assert "- tea: Use for tea --- always." in (model.requests[0].instructions or "")
    opened, more, unknown = model.requests[1].results
    assert opened.startswith("# How")
    assert "- more.md" in opened
    assert more == "80 degrees"
    assert "There is no skill 'x'" in unknown
