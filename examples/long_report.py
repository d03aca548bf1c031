"""A report that takes its time, section by section, and says how far it is.

python examples/long_report.py 2.5     takes two and a half seconds for each section
"""

from __future__ import annotations

import asyncio
import sys

from pydantic import BaseModel, Field

from flux import ExecutionContext, task, workflow
from flux.tasks import parallel, progress


class ReportRequest(BaseModel):
    topic: str = "Durable execution"
    sections: int = Field(default=6, ge=1, le=100)
    seconds_per_section: float = Field(default=10.0, ge=0, description="How long the work on one section takes")


class Section(BaseModel):
    title: str
    text: str
    sources: list[str]


class Report(BaseModel):
    topic: str
    sections: list[Section]
    words: int


@task
async def find_sources(topic: str, number: int) -> list[str]:
    return [f"{topic}, volume {number}, page {page}" for page in (3, 14, 15)]


@task
async def write_section(topic: str, number: int, of: int, sources: list[str], seconds: float) -> Section:
    """The slow part. What is reported reaches whoever waits, now; it is not recorded."""
    for quarter in range(4):
        progress(f"section {number} of {of}: {quarter * 25} %")
        await asyncio.sleep(seconds / 4)
    return Section(title=f"{topic}, part {number}", text=f"What {len(sources)} sources say about it.", sources=sources)


@task
async def count_words(sections: list[Section]) -> int:
    return sum(len(section.text.split()) for section in sections)


@workflow
async def long_report(ctx: ExecutionContext[ReportRequest]) -> Report:
    """Write a long report. Takes a minute by default; whoever waits for less finds it again by its execution id."""
    request = ctx.input
    numbers = range(1, request.sections + 1)
    sources = await parallel(*(find_sources(request.topic, number) for number in numbers))
    sections = [
        await write_section(request.topic, number, request.sections, sources[number - 1], request.seconds_per_section)
        for number in numbers
    ]
    return Report(topic=request.topic, sections=sections, words=await count_words(sections))


if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.5
    execution = long_report.run(ReportRequest(seconds_per_section=seconds))
    print(execution.output.model_dump_json(indent=2))
