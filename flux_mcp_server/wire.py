"""The two descriptors that belong to the protocol on stdio. Imports nothing heavy: the descriptors are taken before anything
else of ours is loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wire:
    input: int
    output: int


def claim_stdio() -> Wire:
    """Take descriptors 0 and 1 for the protocol alone.

    From here on, whoever writes to descriptor 1 - `print`, C code, child processes - writes to stderr, and whoever reads from
    descriptor 0 reads nothing."""
    wire = Wire(_above_standard(0), _above_standard(1))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # started without a stderr
        os.dup2(nothing, 1)
    if nothing > 2:
        os.close(nothing)
    return wire


def _above_standard(descriptor: int) -> int:
    """A copy that children do not inherit."""
    copies = [os.dup(descriptor)]
    while copies[-1] <= 2:
        copies.append(os.dup(descriptor))
    for copy in copies[:-1]:
        os.close(copy)
    return copies[-1]
