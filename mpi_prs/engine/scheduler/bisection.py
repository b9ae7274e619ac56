"""What is left of mini-batches that have failed as a whole, and are done in parts; see :mod:`mpi_prs.wire.parts`.

::

    halve(mini-batch) ──► its halves ──┬── halve(part): two more in its place
                                       └── settle(part): done or failed; with the last one the mini-batch is done

All of this is empty without ``bisect_on_failure``, unless an earlier start has left parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mpi_prs.wire.parts import bounds, halves, is_part, mini_batch_of


@dataclass
class InParts:
    """A mini-batch of which some items are still to be done.

    Attributes:
        items: how many it has in all.
        left: the parts that are neither done nor failed.
    """

    items: int
    left: set[int]


class Bisection:
    """What is known for it.

    Attributes:
        in_parts: mini-batch → what is left of it.
        parts_more: parts that are left, beyond one for each of these mini-batches.
    """

    def __init__(self) -> None:
        self.in_parts: dict[int, InParts] = {}
        self.parts_more = 0

    def restore(self, mini_batch: int, items: int, parts: Iterable[int]) -> list[int]:
        """An earlier start has left these parts; returns them in a stable order."""
        found = self.in_parts[mini_batch] = InParts(items, set(parts))
        self.parts_more += len(found.left) - 1
        return sorted(found.left)

    def halve(self, number: int, items: int) -> tuple[int, int]:
        """A mini-batch, which has so many items, or a part of one is to be done in two parts; returns these."""
        if is_part(number):
            found = self.in_parts[mini_batch_of(number)]
            found.left.remove(number)
        else:
            found = self.in_parts[number] = InParts(items, set())
        found.left.update(halves(number))
        self.parts_more += 1
        return halves(number)

    def settle(self, part: int) -> bool:
        """This part is done or failed, for good; returns whether it was the last one of its mini-batch."""
        mini_batch = mini_batch_of(part)
        found = self.in_parts[mini_batch]
        found.left.remove(part)
        if found.left:
            self.parts_more -= 1
            return False
        del self.in_parts[mini_batch]
        return True

    def items_in_all(self, number: int) -> int:
        """How many items the mini-batch has that this is, or that it is a part of. Raises KeyError: nothing is left."""
        return self.in_parts[mini_batch_of(number)].items

    def bounds(self, part: int) -> tuple[int, int]:
        """Its first item, and the one before which it stops."""
        return bounds(part, self.items_in_all(part))

    def is_of_one(self, part: int) -> bool:
        """Whether it has one item."""
        start, stop = self.bounds(part)
        return stop - start == 1
