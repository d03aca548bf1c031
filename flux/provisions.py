"""What tasks may ask for by their options, put together for one database: everything stands in files beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flux.cache import FileCache, MemoryCache
from flux.config import EnvironmentConfig
from flux.engine.ports import Provisions, SecretStore
from flux.secrets import EncryptedFileSecrets, EnvironmentSecrets, FileVault, FirstOf
from flux.settings import MEMORY
from flux.storage import SpilledValues


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """The files beside a database. There are none beside one in memory: then everything lasts as long as the process."""

    database: Path | None

    @classmethod
    def of(cls, database: str) -> Beside:
        return cls(database=None if database == MEMORY or "://" in database else Path(database))

    def path(self, ending: str) -> Path | None:
        return None if self.database is None else self.database.with_name(f"{self.database.name}.{ending}")

    @property
    def vault(self) -> FileVault:
        return FileVault(self.path("key"))

    def stored_secrets(self) -> EncryptedFileSecrets | None:
        """The encrypted file, for whoever sets secrets."""
        path = self.path("secrets")
        return None if path is None else EncryptedFileSecrets(path, self.vault)

    def values(self) -> SpilledValues | None:
        folder = self.path("values")
        return None if folder is None else SpilledValues(folder)

    def provisions(self, secrets: SecretStore | None = None) -> Provisions:
        cached = self.path("cache")
        stored = self.stored_secrets()
        return Provisions(
            secrets=secrets or (FirstOf(EnvironmentSecrets(), stored) if stored else EnvironmentSecrets()),
            config=EnvironmentConfig(),
            cache=MemoryCache() if cached is None else FileCache(cached),
            vault=self.vault,
        )
