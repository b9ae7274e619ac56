"""Entry script: answers to prompts, by an engine that works on many at once. See generate.yaml."""

import asyncio

from engine import Engine  # beside this file, a stand-in


async def init():
    global engine  # noqa: PLW0603
    engine = Engine()


async def run(prompts):  # the lines of the file, as a DataFrame
    answers = await asyncio.gather(*(engine.generate(prompt) for prompt in prompts["prompt"]))
    return prompts.assign(answer=answers)


async def shutdown():
    print(f"at most {engine.most} prompts at once")
