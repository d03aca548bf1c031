"""No test of agents may reach a real model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flux.testing import no_model_requests


@pytest.fixture(autouse=True)
def only_scripted_models() -> Iterator[None]:
    with no_model_requests():
        yield
