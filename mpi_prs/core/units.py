"""Numbers as people like to read them: ``12 400``, ``1.2 ms``, ``3 min 20 s``, ``812 items/s``."""

from __future__ import annotations


def count(number: int) -> str:
    """``12400`` → ``12 400``."""
    return f"{number:,}".replace(",", " ")


def many(number: int, noun: str) -> str:
    """``1 mini-batch``, ``12 400 mini-batches``."""
    ending = "" if number == 1 else "es" if noun.endswith("ch") or noun.endswith("ss") else "s"
    return f"{count(number)} {noun}{ending}"


def many_are(number: int, noun: str) -> str:
    """``1 mini-batch is``, ``12 400 mini-batches are``."""
    return f"{many(number, noun)} {'is' if number == 1 else 'are'}"


def duration(seconds: float) -> str:
    """Seconds, at least 0, in the unit that fits: ``40 µs``, ``1.2 ms``, ``7.5 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 0.9995e-3:
        return f"{_short(seconds * 1e6)} µs" if seconds else "0 s"
    if seconds < 0.9995:
        return f"{_short(seconds * 1e3)} ms"
    if seconds < 59.5:
        return f"{_short(seconds)} s"
    if seconds < 3599.5:
        return _two_units(round(seconds), 60, "min", "s")
    if seconds < 86370:
        return _two_units(round(seconds / 60), 60, "h", "min")
    return _two_units(round(seconds / 3600), 24, "d", "h")


def _two_units(number: int, size: int, large: str, small: str) -> str:
    whole, rest = divmod(number, size)
    return f"{count(whole)} {large} {rest} {small}" if rest else f"{count(whole)} {large}"


def rate(per_second: float, noun: str = "item") -> str:
    """A rate, at least 0, over the span of time that fits: ``12 400 items/s``, ``7.6 items/h``."""
    unit, seconds = ("s", 1) if per_second >= 1 else ("min", 60) if per_second * 60 >= 1 else ("h", 3600)
    return f"{_short(per_second * seconds)} {noun}s/{unit}"


def size(number: int) -> str:
    """Bytes: ``812 bytes``, ``1.2 MB``."""
    if number < 1000:
        return many(number, "byte")
    units = ["PB", "TB", "GB", "MB", "kB"]
    value = number / 1000
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop()
    return f"{_short(value)} {units[-1]}"


def percent(part: int, whole: int) -> int:
    """Rounded down, so that 100 means all; nothing of nothing is all."""
    return min(100, 100 * part // whole) if whole > 0 else 100


def printable(text: str, keep: str = "") -> str:
    """Text that any terminal shows and any file takes: lone surrogates and control characters are escaped."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") if _is_of_bytes(text) else text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode("ascii") for char in text
    )


def _is_of_bytes(text: str) -> bool:
    """Whether the surrogates in a text, if there are any, all stand for bytes of a file name."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _short(value: float) -> str:
    """Two digits, or all digits before the point."""
    return f"{value:.2g}" if value < 9.95 else count(round(value))
