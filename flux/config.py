"""Configuration values that tasks ask for by name: not secret, but not in the code either."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from flux.errors import FluxError

FILE_VARIABLE = "FLUX_CONFIG"


class EnvironmentConfig:
    """The value `billing.url` is the variable FLUX_CONFIG_BILLING_URL, as text; or else `url` in the table `[billing]` of the
    TOML file that FLUX_CONFIG names, which is read each time: it may change while a server runs."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ

    async def get(self, name: str) -> Any:
        variable = f"{FILE_VARIABLE}_{re.sub('[^A-Z0-9]', '_', name.upper())}"
        found = self._environ.get(variable)
        return found if found is not None else self._in_file(name)

    def _in_file(self, name: str) -> Any:
        path = self._environ.get(FILE_VARIABLE)
        if not path:
            return None
        import tomllib  # noqa: PLC0415 - start-up time: most have no file

        try:
            value: Any = tomllib.loads(Path(path).expanduser().read_text("utf-8"))
        except (OSError, ValueError) as exc:
            raise FluxError(f"The configuration file {path} ({FILE_VARIABLE}) cannot be read: {exc}") from exc
        for part in name.split("."):
            value = cast("dict[str, Any]", value).get(part) if isinstance(value, dict) else None
        return value
