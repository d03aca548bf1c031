"""One task over many inputs, in several ways: `python mapping_workflow.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flux import ExecutionContext, task, workflow


@task
async def process_item(item: str) -> str:
    return item.upper()


@task
async def count(to: int) -> list[int]:
    return list(range(to + 1))


@task
async def store_results(results: list[str]) -> int:
    return len(results)


@workflow
async def mapping_workflow(ctx: ExecutionContext[list[str]]) -> list[str]:
    """Process several items in parallel."""
    return await process_item.map(ctx.input)


@workflow
async def task_map_workflow(ctx: ExecutionContext[int]) -> int:
    """Generate sequences in parallel."""
    results = await count.map(list(range(ctx.input)))
    return len(results)


@workflow
async def optimized_mapping(ctx: ExecutionContext[list[str]]) -> list[str]:
    """Process a large input in smaller batches."""
    batch_size = 1000
    results: list[str] = []
    for i in range(0, len(ctx.input), batch_size):
        batch = ctx.input[i : i + batch_size]
        batch_results = await process_item.map(batch)
        results.extend(batch_results)
    return results


def chunk_generator(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for i in range(0, len(items), size):
        yield items[i : i + size]


@workflow
async def memory_efficient_mapping(ctx: ExecutionContext[list[str]]) -> int:
    """Store the results of each batch before the next one begins."""
    stored = 0
    for batch in chunk_generator(ctx.input, size=1000):
        batch_results = await process_item.map(batch)
        stored += await store_results(batch_results)
    return stored


@workflow
async def streamed_mapping(ctx: ExecutionContext[list[str]]) -> int:
    """Take results as they come, without keeping them: for more items than fit into memory."""
    letters = 0
    async for result in process_item.map_stream(ctx.input, max_concurrent=50):
        letters += len(result)
    return letters


if __name__ == "__main__":
    words = ["durable", "execution"]
    print(mapping_workflow.run(words).output)
    print(task_map_workflow.run(4).output)
    print(len(optimized_mapping.run(words * 1000).output))
    print(memory_efficient_mapping.run(words * 1000).output)
    print(streamed_mapping.run(words * 100).output)
