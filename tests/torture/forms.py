"""How much of it: a short form for every run of the tests, a long one for `make torture`."""

from __future__ import annotations

import os
from typing import TypeVar

N = TypeVar("N", int, float)

IS_LONG = bool(os.environ.get("FLUX_TORTURE"))


def size(short: N, long: N) -> N:
    return long if IS_LONG else short
