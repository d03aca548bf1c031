"""The two descriptors that belong to the protocol on stdio. Imports nothing heavy: the descriptors are taken before anything
else of ours is loaded."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import dataclass
from typing import cast


@dataclass(frozen=True, slots=True)
class Wire:
    input: int
    output: int


def claim_stdio() -> Wire:
    """Take descriptors 0 and 1 for the protocol alone.

    From here on, whoever writes to descriptor 1 - `print`, C code, child processes - writes to stderr, and whoever reads from
    descriptor 0 reads nothing."""
    _have_stderr()
    wire = Wire(_above_standard(0), _above_standard(1))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison] - None when started without one
        cast(io.TextIOWrapper, sys.stdout).reconfigure(
            line_buffering=True
        )  # what is printed is seen when it is printed
    return wire


def _have_stderr() -> None:
    try:
        os.fstat(2)
    except OSError:  # started without one
        nothing = os.open(os.devnull, os.O_WRONLY)
        if nothing != 2:
            os.dup2(nothing, 2)
            os.close(nothing)
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _above_standard(descriptor: int) -> int:
    """A copy that children do not inherit."""
    copies = [os.dup(descriptor)]
    while copies[-1] <= 2:
        copies.append(os.dup(descriptor))
    for copy in copies[:-1]:
        os.close(copy)
    return copies[-1]
