"""Azure's preview protocol of streaming entry scripts, served by ``async def run``.

A script of this kind takes a mini-batch by ``enqueue(mini_batch, context)``, which does not wait, and is asked again
and again what has become of all of them::

    enqueue() ──► the script's own threads or tasks ──► get_finished_batch_result() ──► minibatch_index → result

It is asked for with ``--amlbi_async_mode True`` among the arguments. Nothing that was enqueued can be taken back; so at
its timeout a mini-batch is waited for on, and in the end its process is replaced, as for a task that does not end.

Standard library only; imported only for such a script.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from typing import Any

from mpi_prs.child.script import complete_here

_PAUSE = 0.02  # seconds between two questions


class Enqueued:
    """The functions of a streaming script as those of one with ``async def run``.

    Args:
        enqueue, finished: the script's ``enqueue`` and ``get_finished_batch_result``.
        processing: its ``get_processing_batch_number``, or ``None``.
        all_processed: its ``check_all_tasks_processed``, or ``None``.
        shutdown: its own, or one that does nothing.
        most: mini-batches that it may work on.
    """

    def __init__(
        self,
        enqueue: Callable[[Any, Any], Any],
        finished: Callable[[], Any],
        processing: Callable[[], int] | None,
        all_processed: Callable[[], bool] | None,
        shutdown: Callable[[], Any],
        most: int,
    ) -> None:
        self._enqueue = enqueue
        self._finished = finished
        self._processing = processing
        self._all_processed = all_processed
        self._shutdown = shutdown
        self._most = most
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def run(self, mini_batch: Any, context: Any) -> Any:
        """What the script gives out for this mini-batch."""
        key = str(context.minibatch_index)
        while key in self._waiting or (self._processing is not None and self._processing() >= self._most):
            # two parts of a mini-batch have one name
            await asyncio.sleep(_PAUSE)
        answer = self._waiting[key] = asyncio.get_event_loop().create_future()
        try:
            self._enqueue(mini_batch, context)
            if self._asking is None or self._asking.done():
                # in a context of its own: it works for all of them
                self._asking = contextvars.Context().run(asyncio.get_event_loop().create_task, self._ask())
            while not answer.done():
                try:
                    await asyncio.wait({answer})
                except asyncio.CancelledError:  # its answer would be taken for that of the next try
                    continue
            return answer.result()
        finally:
            del self._waiting[key]
            if not self._waiting and self._asking is not None:
                self._asking.cancel()

    async def _ask(self) -> None:
        """For as long as anybody waits."""
        while self._waiting:
            try:
                found = self._finished()
                if not isinstance(found, Mapping):
                    raise TypeError(
                        f"get_finished_batch_result() returned {type(found).__name__}, expected a dict: "
                        "minibatch_index → result"
                    )
            except BaseException as error:
                for answer in self._waiting.values():
                    if not answer.done():
                        answer.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
            else:
                for key, result in found.items():
                    answer = self._waiting.get(str(key))  # type: ignore[assignment]
                    if answer is not None and not answer.done():
                        _settle(answer, result)
            await asyncio.sleep(_PAUSE)

    async def shutdown(self) -> None:
        """When the script says that all is processed, its own ``shutdown()``."""
        while self._all_processed is not None and not self._all_processed():
            await asyncio.sleep(_PAUSE)
        await complete_here(self._shutdown())


def _settle(answer: asyncio.Future[Any], result: Any) -> None:
    """A result is what ``run()`` would return, or an exception; or a dict with one of them as ``result`` or
    ``exception``."""
    if isinstance(result, Mapping) and (result.keys() & {"result", "exception"}):
        error = result.get("exception")
        result = result.get("result") if error is None else error
        if error is not None and not isinstance(error, BaseException):
            result = RuntimeError(str(error))
    if isinstance(result, BaseException):
        answer.set_exception(result if isinstance(result, Exception) else RuntimeError(repr(result)))
    else:
        answer.set_result(result)
