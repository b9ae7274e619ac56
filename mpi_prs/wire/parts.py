"""The numbers of parts: some of the items of a mini-batch that failed as a whole, run on their own.

A mini-batch is halved, a half again, down to single items. So a part is known by its mini-batch and the way to it, and
one number holds both; it takes the place of the mini-batch's number wherever that travels, in ranges, records, slots::

    bits 0–29   the mini-batch
    bits 30–62  the way, with a 1 before it: 1 the whole, 2 and 3 its halves, 4 to 7 theirs …; 0: no part

Standard library only: the user process imports this module.
"""

from __future__ import annotations

_BITS = 30
FIRST_PART = 1 << _BITS
"""Every number below it is that of a mini-batch."""


def is_part(number: int) -> bool:
    """Whether it is the number of a part, and not that of a mini-batch."""
    return number >= FIRST_PART


def mini_batch_of(number: int) -> int:
    """The mini-batch that a part is of; of a mini-batch it is itself."""
    return number & (FIRST_PART - 1)


def as_part(number: int) -> int:
    """A whole mini-batch as a part of itself; a part as it is."""
    return number if number >= FIRST_PART else number | FIRST_PART


def halves(number: int) -> tuple[int, int]:
    """The two parts of a mini-batch or part; the first one has the item in the middle, if there is one."""
    mini_batch, way = mini_batch_of(number), max(1, number >> _BITS)
    return mini_batch | 2 * way << _BITS, mini_batch | 2 * way + 1 << _BITS


def bounds(number: int, items: int) -> tuple[int, int]:
    """First item of a part, and the one before which it stops, where its mini-batch has so many."""
    start, stop = 0, items
    for step in bin(max(1, number >> _BITS))[3:]:
        middle = (start + stop + 1) // 2
        start, stop = (start, middle) if step == "0" else (middle, stop)
    return start, stop


def part_of_one(mini_batch: int, item: int, items: int) -> int:
    """The part that is this item alone."""
    way, start, stop = 1, 0, items
    while stop - start > 1:
        middle = (start + stop + 1) // 2
        way *= 2
        if item < middle:
            stop = middle
        else:
            way += 1
            start = middle
    return mini_batch | way << _BITS
