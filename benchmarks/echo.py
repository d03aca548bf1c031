"""What our server serves to be compared with a bare echo."""

WORKFLOW = """
from flux import ExecutionContext, task, workflow

@task
async def step(number: int) -> int:
    return number

@workflow
async def echo(ctx: ExecutionContext[int]) -> int:
    return await step(ctx.input)
"""
