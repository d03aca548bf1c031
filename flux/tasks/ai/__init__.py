"""Agents: language models at work, each request and each call of a tool a recorded step. Needs the extra `ai` to run one."""

from flux.tasks.ai.agents import Agent, agent
from flux.tasks.ai.budget import Budget, Usage
from flux.tasks.ai.longterm import in_memory, long_term_memory, sqlite
from flux.tasks.ai.memory import working_memory
from flux.tasks.ai.postgres import postgresql
from flux.tasks.ai.skills import Skill, SkillCatalog
from flux.tasks.ai.tools import ForeignTool, Tool

__all__ = [
    "Agent",
    "Budget",
    "ForeignTool",
    "Skill",
    "SkillCatalog",
    "Tool",
    "Usage",
    "agent",
    "in_memory",
    "long_term_memory",
    "postgresql",
    "sqlite",
    "working_memory",
]
