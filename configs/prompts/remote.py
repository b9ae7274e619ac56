"""Entry script: answers to prompts, by a model behind HTTP. See remote_model.yaml.

What passes by itself is asked for again, later and later: a server that is busy or away. How long to wait the server
says by Retry-After, else it doubles, with some chance in it so that not all come back at once. What does not pass (a
wrong prompt, no permission) fails the mini-batch at once.
"""

import argparse
import asyncio
import os
import time

import httpx
import tenacity

LONGEST = 50  # seconds for all tries of a prompt: less than run_invocation_timeout


async def init():
    global client, pace  # noqa: PLW0603
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--rate", type=float, default=50, help="requests a second, of each process")
    parser.add_argument("--at-once", type=int, default=16, help="requests under way, of each process")
    arguments, _ = parser.parse_known_args()
    key = os.environ.get("MODEL_API_KEY", "")  # from the environment: arguments are seen by all users of the machine
    client = httpx.AsyncClient(
        base_url=arguments.url,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        limits=httpx.Limits(max_connections=arguments.at_once),
        timeout=httpx.Timeout(30, pool=None),
    )
    pace = Pace(arguments.rate)


class Pace:
    """Lets so many through a second."""

    def __init__(self, rate):
        self._pause = 1 / rate
        self._next = 0.0

    async def turn(self):
        now = time.monotonic()
        at = self._next = max(now, self._next + self._pause)
        await asyncio.sleep(at - now)


def passes(error):
    """Whether the same request may succeed later."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (408, 425, 429) or error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)


later = tenacity.wait_random_exponential(multiplier=0.2, max=10)


def pause(state):
    """Seconds before the next try."""
    response = getattr(state.outcome.exception(), "response", None)
    told = response.headers.get("Retry-After", "") if response is not None else ""
    return float(told) if told.replace(".", "", 1).isdigit() else later(state)


@tenacity.retry(
    retry=tenacity.retry_if_exception(passes), wait=pause, stop=tenacity.stop_after_delay(LONGEST), reraise=True
)
async def ask(prompt):
    await pace.turn()
    response = await client.post("generate", json={"prompt": prompt})
    response.raise_for_status()
    return response.json()["text"]


async def run(prompts):  # the lines of the file, as a DataFrame
    answers = await asyncio.gather(*map(ask, prompts["prompt"]))
    return prompts.assign(answer=answers)


async def shutdown():
    await client.aclose()
