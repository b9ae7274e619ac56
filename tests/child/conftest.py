"""User processes: the inside of one, and a real one with its supervisor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.supervised import Supervised


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    made: list[Supervised] = []

    def make(*args: Any, **changes: Any) -> Supervised:
        made.append(Supervised(tmp_path, *args, **changes))
        return made[-1]

    yield make
    for one in made:
        one.close()
