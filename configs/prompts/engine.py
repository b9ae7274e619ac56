"""A stand-in for an engine with continuous batching, as vLLM's or SGLang's: it says the words of a prompt in capitals.

All requests that are under way advance by one word in each step, and a new one joins at the next step. So a step costs
the same for one request or many, and the engine is busy only when it is asked for many at once.
"""

import asyncio

STEP = 0.005  # seconds


class Engine:
    """Generates for all requests at once; used in one event loop."""

    def __init__(self):
        self._requests = []  # words that are left to say, words said, future
        self._steps = None
        self.most = 0

    async def generate(self, prompt):
        """The answer to one prompt."""
        answer = asyncio.get_running_loop().create_future()
        self._requests.append((prompt.split(), [], answer))
        if self._steps is None or self._steps.done():
            self._steps = asyncio.ensure_future(self._run())
        return await answer

    async def _run(self):
        while self._requests:
            self.most = max(self.most, len(self._requests))
            await asyncio.sleep(STEP)
            for words, said, answer in self._requests:
                if words:
                    said.append(words.pop(0).upper())
                elif not answer.done():  # else it was cancelled
                    answer.set_result(" ".join(said))
            self._requests = [request for request in self._requests if not request[2].done()]
