"""An agent that knows what was said before, for as long as the execution lives.

python conversation.py
"""

from flux import ExecutionContext, workflow
from flux.tasks.ai import agent
from flux.tasks.ai.memory import working_memory

chatbot = agent(
    "You are a helpful assistant.",
    model="ollama/llama3",
    name="chatbot",
    working_memory=working_memory(),
)


@workflow
async def conversation(ctx: ExecutionContext[None]) -> str:
    await chatbot("What is Python?")  # standalone message
    return await chatbot("What about asyncio?")  # knows about the Python context


if __name__ == "__main__":
    print(conversation.run(None).output)
