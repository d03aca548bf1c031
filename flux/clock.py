"""The time, as the machine has it. `flux.testing.FakeClock` is its twin."""

from __future__ import annotations

import asyncio
import time

LONGEST = 60.0  # seconds slept at a stretch: a suspended laptop or a changed clock is noticed after this


class SystemClock:
    def now(self) -> float:
        return time.time()

    async def sleep_until(self, when: float) -> None:
        while (left := when - time.time()) > 0:  # noqa: ASYNC110 - no event tells that the machine's clock has jumped
            await asyncio.sleep(min(left, LONGEST))
