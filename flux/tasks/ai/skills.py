"""Skills: bundles of instructions that an agent reads when it needs them, as the Agent Skills standard has them (SKILL.md)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from flux.decorators import Task
from flux.errors import SkillError

log = logging.getLogger("flux.ai")

SKILL_FILE = "SKILL.md"
FILE_LIMIT = 200_000  # characters of a file that a model is given

_NAME = re.compile(r"[^\W_A-Z]+(-[^\W_A-Z]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """`description` says when to use the skill and is always shown, `instructions` are read on demand, and so are the files in
    `directory`. `allowed_tools` are the tools that the skill was written for."""

    name: str
    description: str
    instructions: str
    allowed_tools: Sequence[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    license: str | None = None
    compatibility: str | None = None
    directory: Path | None = None

    def __post_init__(self) -> None:
        if len(self.name) > 64 or not _NAME.fullmatch(self.name):
            raise SkillError(
                f"The skill name {self.name!r} is not valid: lower-case letters, digits and single hyphens, 64 at most."
            )
        if not self.description.strip() or len(self.description) > 1024:
            raise SkillError(f"Skill {self.name!r} needs a description of 1 to 1024 characters.")
        if not self.instructions.strip():
            raise SkillError(f"Skill {self.name!r} has no instructions.")

    @classmethod
    def from_file(cls, path: str | Path) -> Skill:
        """Read a SKILL.md. Raises SkillError, which says what is wrong with it."""
        path = Path(path)
        try:
            text = path.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as exc:
            raise SkillError(f"{path} cannot be read: {exc}") from exc
        header, body = _parsed(path, text)
        skill = cls(
            name=_text(path, header, "name"),
            description=_text(path, header, "description"),
            instructions=body,
            allowed_tools=_tools(path, header.get("allowed-tools")),
            metadata=_mapping(path, header.get("metadata")),
            license=header.get("license"),
            compatibility=header.get("compatibility"),
            directory=path.parent.resolve(),
        )
        if path.parent.name != skill.name:
            log.warning("skill %r stands in the folder %r: the standard wants one name", skill.name, path.parent.name)
        return skill

    def files(self) -> list[str]:
        """The files beside SKILL.md, by their paths in the skill's folder."""
        if self.directory is None:
            return []
        found = (path for path in self.directory.rglob("*") if path.is_file() and self._holds(path))
        names = (path.relative_to(self.directory).as_posix() for path in found)
        return sorted(name for name in names if name != SKILL_FILE)

    def read(self, file: str) -> str:
        """A file of the skill. Raises SkillError when there is none, and for whatever is outside of the skill's folder."""
        if self.directory is None:
            raise SkillError(f"Skill {self.name!r} has no files.")
        path = self.directory / file
        if not self._holds(path) or not path.is_file():
            raise SkillError(f"Skill {self.name!r} has no file {file!r}; it has {', '.join(self.files()) or 'none'}.")
        text = path.read_text("utf-8", errors="replace")
        return text if len(text) <= FILE_LIMIT else f"{text[:FILE_LIMIT]}\n... ({len(text)} characters, cut here)"

    def _holds(self, path: Path) -> bool:
        return self.directory is not None and path.resolve().is_relative_to(self.directory)


class SkillCatalog:
    """The skills that an agent may use."""

    def __init__(self, skills: Iterable[Skill] = ()) -> None:
        self._skills: dict[str, Skill] = {}
        self.problems: list[str] = []
        for skill in skills:
            self.register(skill)

    @classmethod
    def from_directory(cls, path: str | Path) -> SkillCatalog:
        """The skills in the folders of `path`, one each. One that is wrong is left out: a warning says why, and `problems`."""
        catalog = cls()
        for file in _skill_files(Path(path)):
            try:
                catalog.register(Skill.from_file(file))
            except SkillError as exc:
                catalog.problems.append(str(exc))
        if catalog.problems:
            log.warning(
                "%d of the skills in %s are left out: %s", len(catalog.problems), path, " ".join(catalog.problems)
            )
        return catalog

    def register(self, skill: Skill) -> None:
        """Raises SkillError when there is one of that name."""
        if skill.name in self._skills:
            raise SkillError(f"There are two skills named {skill.name!r}.")
        self._skills[skill.name] = skill

    def get(self, name: str) -> Skill:
        """Raises SkillError when there is none of that name."""
        if name not in self._skills:
            raise SkillError(f"There is no skill {name!r}; there are {', '.join(self._skills) or 'none'}.")
        return self._skills[name]

    def find(self, query: str) -> list[Skill]:
        """The skills whose name or description has all words of `query`."""
        words = query.lower().split()
        return [skill for skill in self if all(word in f"{skill.name} {skill.description}".lower() for word in words)]

    def list(self) -> list[Skill]:
        return list(self._skills.values())

    def __iter__(self) -> Iterator[Skill]:
        return iter(self._skills.values())

    def __len__(self) -> int:
        return len(self._skills)

    def __contains__(self, name: object) -> bool:
        return name in self._skills

    # -- for agents -------------------------------------------------------------------------------------------------

    def prompt(self) -> str:
        """What the system prompt says about the skills."""
        lines = "\n".join(f"- {skill.name}: {' '.join(skill.description.split())}" for skill in self)
        return (
            "You have skills: instructions for particular kinds of work. When one of them fits what you are asked for, "
            f"call `use_skill` with its name before you begin, and do as it says.\n{lines}"
        )

    def tools(self) -> list[Task[..., Any]]:
        async def use_skill(name: str, file: str | None = None) -> str:
            """Read the instructions of a skill, or one of the files that they speak of.

            Args:
                name: The name of the skill.
                file: The path of a file of the skill; without one, its instructions.
            """
            skill = self.get(name)
            return _instructions(skill) if file is None else skill.read(file)

        return [Task(use_skill)]


def _instructions(skill: Skill) -> str:
    files, parts = skill.files(), [skill.instructions.strip()]
    if skill.allowed_tools:
        parts.append(f"This skill is meant to be used with these tools: {', '.join(skill.allowed_tools)}.")
    if files:
        parts.append("Files of this skill, for `use_skill` with `file`:\n" + "\n".join(f"- {file}" for file in files))
    return "\n\n".join(parts)


def _skill_files(path: Path) -> list[Path]:
    if not path.is_dir():
        raise SkillError(f"There is no folder {path}.")
    return sorted(folder / SKILL_FILE for folder in path.iterdir() if (folder / SKILL_FILE).is_file())


# -- SKILL.md -----------------------------------------------------------------------------------------------------------


def _parsed(path: Path, text: str) -> tuple[dict[str, Any], str]:
    import frontmatter  # noqa: PLC0415 - of the optional extra `ai`: skills made in Python need none of it
    import yaml  # noqa: PLC0415 - comes with it

    try:
        header, body = frontmatter.parse(text)
    except yaml.YAMLError as exc:
        raise SkillError(f"{path}: the YAML at its top cannot be read: {' '.join(str(exc).split())}") from exc
    if not isinstance(cast("Any", header), dict) or not header:
        raise SkillError(f"{path} does not begin with YAML between two lines of three hyphens.")
    return cast("dict[str, Any]", header), body


def _text(path: Path, header: dict[str, Any], key: str) -> str:
    value = header.get(key)
    if not isinstance(value, str) or not value.strip():
        raise SkillError(f"{path}: `{key}` has to be a text.")
    return value.strip()


def _tools(path: Path, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(part for part in re.split(r"[,\s]+(?![^(]*\))", value) if part)
    if isinstance(value, list):
        return tuple(str(part) for part in cast("list[Any]", value))
    raise SkillError(f"{path}: `allowed-tools` has to be a list or a text.")


def _mapping(path: Path, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SkillError(f"{path}: `metadata` has to be a mapping.")
    return {str(key): str(item) for key, item in cast("dict[Any, Any]", value).items()}
