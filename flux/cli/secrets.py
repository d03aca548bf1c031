"""`flux secrets`: what tasks may ask for, in an encrypted file beside the database."""

from __future__ import annotations

import sys

from flux.cli import screen
from flux.cli.loading import Refused
from flux.provisions import Beside
from flux.secrets import EncryptedFileSecrets
from flux.settings import Settings


def set_secret(name: str, *, database: str | None) -> None:
    store = store_of(database)
    if not name.replace("_", "").isalnum():
        raise Refused(f"{name!r} is no name for a secret: use letters, digits and underscores.")
    value = _value(name)
    if not value:
        raise Refused("An empty secret is not kept.")
    store.set(name, value)
    screen.say(f"{name} is kept. Tasks with secret_requests=[{name!r}] are given it.")


def list_secrets(*, as_json: bool, database: str | None) -> None:
    names = store_of(database).names()
    if as_json:
        screen.print_json(names)
    elif names:
        sys.stdout.writelines(f"{name}\n" for name in names)
    else:
        screen.say("There are no secrets kept. Variables FLUX_SECRET_<NAME> count as well.")


def remove_secret(name: str, *, database: str | None) -> None:
    if not store_of(database).remove(name):
        raise Refused(f"There is no secret {name!r}. `flux secrets list` shows the names.")
    screen.say(f"{name} is forgotten.")


def _value(name: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.read().rstrip("\r\n")
    return screen.err().input(f"Value of {screen.printable(name)} (not shown): ", password=True)


def store_of(database: str | None) -> EncryptedFileSecrets:
    """Raises Refused for a database without a file."""
    store = Beside.of(Settings.load(database=database).database).stored_secrets()
    if store is None:
        raise Refused("Secrets are kept beside a database file, and this database is none. Name one by --database.")
    return store
