"""Secrets: where they are kept, and the key that they and the results of sensitive tasks are encrypted with.

They are looked for in the environment, then in an encrypted file beside the database; `KeyringSecrets` asks the operating
system's keyring instead."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flux.engine.ports import SecretKeeper, SecretStore
from flux.errors import FluxError, KeyUnusable

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

KEY_VARIABLE = "FLUX_SECRETS_KEY"
PREFIX = "FLUX_SECRET_"


class EnvironmentSecrets:
    """The secret `A` is the variable FLUX_SECRET_A, or else A."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ

    async def get(self, name: str) -> str | None:
        found = self._environ.get(f"{PREFIX}{name}")
        return found if found is not None else self._environ.get(name)


class FileVault:
    """Encrypts with the key in FLUX_SECRETS_KEY, or else with the one in `path`, which is made, for its owner alone, when it
    is first needed. Without a path the key lives as long as the process."""

    def __init__(self, path: Path | None, *, environ: Mapping[str, str] = os.environ) -> None:
        self._path = path
        self._environ = environ

    def check(self) -> None:
        _ = self._fernet

    def seal(self, text: str) -> str:
        return self._fernet.encrypt(text.encode()).decode("ascii")

    def unseal(self, token: str) -> str:
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - slow to import, and only secrets need it

        try:
            return self._fernet.decrypt(token).decode()
        except InvalidToken:
            raise KeyUnusable(
                f"What is encrypted here was encrypted with another key than {self._whence}. Put that key back."
            ) from None

    @property
    def _whence(self) -> str:
        if self._environ.get(KEY_VARIABLE):
            return f"the one in {KEY_VARIABLE}"
        return f"the one in {self._path}" if self._path else "the one of this process"

    @cached_property
    def _fernet(self) -> Fernet:
        from cryptography.fernet import Fernet  # noqa: PLC0415 - slow to import, and only secrets need it

        key = self._environ.get(KEY_VARIABLE) or self._key_of_file() or Fernet.generate_key()
        try:
            return Fernet(key)
        except ValueError:
            raise KeyUnusable(
                f"The key is not usable, {self._whence}: it has to be 32 bytes in URL-safe base64, as "
                "`python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'` makes one."
            ) from None

    def _key_of_file(self) -> bytes | None:
        if self._path is None:
            return None
        try:
            with contextlib.suppress(FileNotFoundError):
                return self._path.read_bytes().strip()
            return _made_once(self._path)
        except OSError as exc:
            raise KeyUnusable(
                f"There is no key to encrypt with: {self._path} can neither be read nor made ({exc.strerror}). "
                f"Set {KEY_VARIABLE}, or let this user write there."
            ) from exc


def _made_once(path: Path) -> bytes:
    """The key in `path`, whichever process was the first to put one there."""
    from cryptography.fernet import Fernet  # noqa: PLC0415 - slow to import, and only secrets need it

    path.parent.mkdir(parents=True, exist_ok=True)
    made = write_private(path.parent, Fernet.generate_key())
    try:
        os.link(made, path)  # unlike a rename, it fails when another process was quicker
    except FileExistsError:
        pass
    finally:
        made.unlink()
    return path.read_bytes().strip()


def write_private(folder: Path, content: bytes) -> Path:
    """A new file that only its owner may read, on disk when this returns."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")  # mode 0600 from the start
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return Path(name)


class EncryptedFileSecrets:
    """Secrets in one file, encrypted as a whole; every change replaces the file."""

    def __init__(self, path: Path, vault: FileVault) -> None:
        self._path = path
        self._vault = vault

    async def get(self, name: str) -> str | None:
        return self._read().get(name)

    def set(self, name: str, value: str) -> None:
        self._write({**self._read(), name: value})

    def remove(self, name: str) -> bool:
        """False when there was none of that name."""
        secrets = self._read()
        if name not in secrets:
            return False
        del secrets[name]
        self._write(secrets)
        return True

    def names(self) -> list[str]:
        return sorted(self._read())

    def _read(self) -> dict[str, str]:
        try:
            sealed = self._path.read_text("ascii")
        except FileNotFoundError:
            return {}
        return cast("dict[str, str]", json.loads(self._vault.unseal(sealed)))

    def _write(self, secrets: dict[str, str]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        written = write_private(self._path.parent, self._vault.seal(json.dumps(secrets)).encode("ascii"))
        os.replace(written, self._path)


class KeyringSecrets:
    """Secrets in the operating system's keyring, by the `keyring` library: the extra `keyring`."""

    def __init__(self, service: str = "flux") -> None:
        self._service = service

    async def get(self, name: str) -> str | None:
        return self._keyring.get_password(self._service, name)

    def set(self, name: str, value: str) -> None:
        self._keyring.set_password(self._service, name, value)

    def remove(self, name: str) -> bool:
        """False when there was none of that name."""
        if self._keyring.get_password(self._service, name) is None:
            return False
        self._keyring.delete_password(self._service, name)
        return True

    @cached_property
    def _keyring(self) -> Any:
        try:
            import keyring  # noqa: PLC0415 # pyright: ignore[reportMissingImports] - optional extra: not everybody has one
        except ImportError as exc:
            raise FluxError("KeyringSecrets needs the extra: pip install 'flux-mcp-server[keyring]'.") from exc
        return cast(Any, keyring)


class FirstOf:
    """Asks several stores in turn. What is set goes to the first that keeps anything."""

    def __init__(self, *stores: SecretStore) -> None:
        self._stores = stores

    async def get(self, name: str) -> str | None:
        for store in self._stores:
            found = await store.get(name)
            if found is not None:
                return found
        return None

    def set(self, name: str, value: str) -> None:
        keeper = next((store for store in self._stores if isinstance(store, SecretKeeper)), None)
        if keeper is None:
            raise FluxError("None of these stores of secrets can be given one.")
        keeper.set(name, value)
