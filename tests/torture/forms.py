"""How much of it: a short form for every run of the tests, a long one for `make torture`."""

from __future__ import annotations

import os

IS_LONG = bool(os.environ.get("FLUX_TORTURE"))


def size(short: int, long: int) -> int:
    return long if IS_LONG else short
