"""Secrets and configuration: where they come from, and that secrets never stay anywhere."""

from __future__ import annotations

import stat
import sys
import types
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux import ExecutionContext, Flux, pause, task, workflow
from flux.codec import JsonCodec
from flux.config import EnvironmentConfig
from flux.engine.masking import Pieces, masked, without
from flux.errors import ConfigNotFound, FluxError, KeyUnusable, NotStorable, SecretNotFound
from flux.secrets import EncryptedFileSecrets, EnvironmentSecrets, FileVault, FirstOf, KeyringSecrets
from flux.stores.memory import MemoryStore
from flux.tasks import parallel, progress
from flux.tasks.config import get_config

pytestmark = pytest.mark.anyio

SECRET = 's3cr"t/ü key'


class Given:
    """A store of secrets that says which were asked for."""

    def __init__(self, **secrets: str) -> None:
        self.secrets = secrets
        self.asked: list[str] = []

    async def get(self, name: str) -> str | None:
        self.asked.append(name)
        return self.secrets.get(name)


@pytest.fixture
async def secret_flux() -> AsyncIterator[Flux]:
    async with Flux(store=MemoryStore(), recover=False, secrets=Given(TOKEN=SECRET)) as flux:
        yield flux


async def everything_of(flux: Flux, execution_id: str) -> str:
    """All that is stored of an execution, as text, with the escapes of JSON undone."""
    history = await flux.history(execution_id)
    execution = await flux.get(execution_id, events=True)
    text = repr(history) + repr(execution.events) + repr(execution.output)
    return text + text.replace("\\\\", "\\").replace('\\"', '"') + text.encode().decode("unicode_escape", "replace")


async def test_a_task_gets_the_secrets_it_asks_for_and_its_caller_does_not_see_them(secret_flux: Flux) -> None:
    @task.with_options(secret_requests=["TOKEN"])
    async def length(x: int, *, secrets: dict[str, str] | None = None) -> int:
        assert secrets is not None
        return x + len(secrets["TOKEN"])

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> int:
        return await length(1)

    done = await secret_flux.run(calls)
    assert done.output == 1 + len(SECRET)
    assert SECRET not in await everything_of(secret_flux, done.execution_id)


async def test_a_missing_secret_fails_the_task_before_anything_runs_and_says_what_to_do(flux: Flux) -> None:
    ran: list[int] = []

    def undo(**injected: Any) -> None:
        ran.append(2)

    @task.with_options(secret_requests=["NO_SUCH_TOKEN"], retry_max_attempts=5, rollback=undo)
    async def calls_out(secrets: dict[str, str] | None = None) -> None:
        ran.append(1)

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> None:
        await calls_out()

    failed = await flux.run(calls)
    assert isinstance(failed.error, SecretNotFound)
    assert all(word in str(failed.error) for word in ("NO_SUCH_TOKEN", "'calls_out'", "FLUX_SECRET_NO_SUCH_TOKEN"))
    assert ran == []


async def test_a_secret_in_an_error_is_masked_wherever_it_stands(secret_flux: Flux, caplog: Any) -> None:
    def fails_too(secrets: dict[str, str]) -> None:
        raise RuntimeError(secrets["TOKEN"])

    @task.with_options(secret_requests=["TOKEN"], retry_max_attempts=1, retry_delay=0, rollback=fails_too)
    async def leaks(secrets: dict[str, str] | None = None) -> None:
        assert secrets is not None
        try:
            raise KeyError(secrets["TOKEN"])
        except KeyError as exc:
            raise ValueError(f"401 for {secrets['TOKEN']}", {"Authorization": [secrets["TOKEN"]]}) from exc

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> None:
        await leaks()

    failed = await secret_flux.run(calls)
    assert isinstance(failed.error, ValueError)
    assert "401 for ***" in str(failed.error)
    assert SECRET not in await everything_of(secret_flux, failed.execution_id)
    assert SECRET not in caplog.text
    assert "the rollback of" in caplog.text


async def test_a_value_with_a_secret_in_it_is_refused_and_never_changed(secret_flux: Flux) -> None:
    @task.with_options(secret_requests=["TOKEN"], retry_max_attempts=3)
    async def returns(secrets: dict[str, str] | None = None) -> Any:
        assert secrets is not None
        return {"headers": [f"Bearer {secrets['TOKEN']}"]}

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> Any:
        return await returns()

    failed = await secret_flux.run(calls)
    assert isinstance(failed.error, NotStorable)
    assert "'TOKEN'" in str(failed.error)
    assert SECRET not in await everything_of(secret_flux, failed.execution_id)


async def test_a_secret_that_is_handed_on_is_masked_in_arguments_and_refused_in_questions(secret_flux: Flux) -> None:
    seen: list[str] = []

    @task
    async def uses(token: str) -> None:
        seen.append(token)

    @task.with_options(secret_requests=["TOKEN"])
    async def hands_on(secrets: dict[str, str] | None = None) -> None:
        assert secrets is not None
        await uses(secrets["TOKEN"])
        await pause("well?", output=secrets["TOKEN"])

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> None:
        await hands_on()

    failed = await secret_flux.run(calls)
    assert (seen, type(failed.error)) == ([SECRET], NotStorable)
    assert SECRET not in await everything_of(secret_flux, failed.execution_id)


async def test_each_attempt_has_a_dict_of_its_own(secret_flux: Flux) -> None:
    @task.with_options(secret_requests=["TOKEN"], retry_max_attempts=1, retry_delay=0)
    async def pops(secrets: dict[str, str] | None = None) -> int:
        assert secrets is not None
        secrets.pop("TOKEN")
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError
        return len(attempts)

    attempts: list[int] = []

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> int:
        return await pops()

    assert (await secret_flux.run(calls)).output == 2


async def test_a_workflow_may_ask_for_secrets_too_and_they_may_change_while_it_waits() -> None:
    given = Given(TOKEN="first-token")
    seen: list[str] = []

    @task
    async def uses(token: str) -> None:
        seen.append(token)

    @workflow.with_options(secret_requests=["TOKEN"])
    async def calls(ctx: ExecutionContext[int], *, secrets: dict[str, str]) -> int:
        await uses(secrets["TOKEN"])
        await pause("go on?")
        await uses(secrets["TOKEN"])
        return ctx.input

    async with Flux(store=MemoryStore(), recover=False, secrets=given) as flux:
        paused = await flux.run(calls, 1)
        given.secrets["TOKEN"] = "second-token"
        done = await flux.resume(paused.execution_id)
        text = await everything_of(flux, done.execution_id)
        del given.secrets["TOKEN"]
        failed = await flux.run(calls, 2)
    assert (done.output, seen) == (1, ["first-token", "second-token"])
    assert "first-token" not in text
    assert "second-token" not in text
    assert isinstance(failed.error, SecretNotFound)
    assert "Workflow 'calls'" in str(failed.error)


# -- stores of secrets ------------------------------------------------------------------------------------------------------


async def test_the_environment_is_asked_with_the_prefix_first() -> None:
    store = EnvironmentSecrets({"FLUX_SECRET_A": "1", "A": "2", "B": "3"})
    assert [await store.get(name) for name in ("A", "B", "C")] == ["1", "3", None]


async def test_the_encrypted_file_holds_no_secret_in_clear_and_belongs_to_its_owner(tmp_path: Path) -> None:
    vault = FileVault(tmp_path / "f.key", environ={})
    store = EncryptedFileSecrets(tmp_path / "f.secrets", vault)
    store.set("A", SECRET)
    store.set("B", "other")
    assert store.remove("B")
    assert not store.remove("B")

    again = EncryptedFileSecrets(tmp_path / "f.secrets", FileVault(tmp_path / "f.key", environ={}))
    assert (await again.get("A"), await again.get("B"), again.names()) == (SECRET, None, ["A"])
    for file in tmp_path.iterdir():
        assert SECRET.encode() not in file.read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_file_of_another_key_is_a_clear_error(tmp_path: Path) -> None:
    EncryptedFileSecrets(tmp_path / "s", FileVault(tmp_path / "one.key", environ={})).set("A", SECRET)
    other = EncryptedFileSecrets(tmp_path / "s", FileVault(tmp_path / "two.key", environ={}))
    with pytest.raises(KeyUnusable, match="another key"):
        await other.get("A")


def test_a_key_that_is_none_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable, match="FLUX_SECRETS_KEY"):
        FileVault(None, environ={"FLUX_SECRETS_KEY": "my dog's name"}).check()
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyUnusable, match=r"f\.key"):
        FileVault(tmp_path / "file" / "f.key", environ={}).check()


async def test_the_first_store_that_has_it_counts() -> None:
    first, second = Given(A="1"), Given(A="2", B="3")
    store = FirstOf(first, second)
    assert [await store.get(name) for name in ("A", "B", "C")] == ["1", "3", None]
    assert second.asked == ["B", "C"]


async def test_a_flux_on_a_file_finds_the_secrets_that_were_stored_beside_it(tmp_path: Path) -> None:
    EncryptedFileSecrets(tmp_path / "f.db.secrets", FileVault(tmp_path / "f.db.key")).set("STORED", "value")

    @task.with_options(secret_requests=("STORED",))
    def reads(secrets: dict[str, str] | None = None) -> int:
        return len((secrets or {})["STORED"])

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> int:
        return await reads()

    async with Flux(tmp_path / "f.db", recover=False) as flux:
        assert (await flux.run(calls)).output == 5


async def test_the_keyring_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(FluxError, match=r"\[keyring\]"):
        await KeyringSecrets().get("A")

    kept: dict[tuple[str, str], str] = {}
    ring = types.ModuleType("keyring")
    ring.__dict__.update(
        get_password=lambda service, name: kept.get((service, name)),  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
        set_password=lambda service, name, value: kept.update({(service, name): value}),  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
        delete_password=lambda service, name: kept.pop((service, name)),  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    )
    monkeypatch.setitem(sys.modules, "keyring", ring)
    store = KeyringSecrets()
    store.set("A", "1")
    assert (await store.get("A"), store.remove("A"), await store.get("A")) == ("1", True, None)


# -- configuration ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def configure(toml: str) -> None:
        (tmp_path / "config.toml").write_text(toml, "utf-8")
        monkeypatch.setenv("FLUX_CONFIG", str(tmp_path / "config.toml"))

    return configure


async def test_configuration_comes_from_the_environment_or_a_toml_file(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[billing]\nurl = "https://file"\nlimit = 5\n')
    source = EnvironmentConfig({"FLUX_CONFIG": str(tmp_path / "c.toml"), "FLUX_CONFIG_BILLING_URL": "https://env"})
    values = [await source.get(name) for name in ("billing.url", "billing.limit", "billing.none", "billing.url.x")]
    assert values == ["https://env", 5, None, None]


async def test_a_config_name_may_use_the_arguments(flux: Flux, configured: Callable[[str], None]) -> None:
    configured("[rates]\nch = 0.081\nde = 0.19\n[empty]\n")

    @task.with_options(config_requests=["rates.{country}"])
    async def rate(country: str = "ch", *, config: dict[str, Any] | None = None) -> float:
        assert config is not None
        return config[f"rates.{country}"]

    @workflow
    async def rates(ctx: ExecutionContext[Any]) -> list[Any]:
        return await parallel(rate(), rate(country="de"), rate("fr"), raise_on_error=False)

    swiss, german, french = (await flux.run(rates)).output
    assert (swiss, german, type(french)) == (0.081, 0.19, ConfigNotFound)
    assert "'rates.fr'" in str(french)


async def test_get_config_records_what_it_read(flux: Flux, configured: Callable[[str], None]) -> None:
    configured("limit = 1")

    @workflow
    async def limits(ctx: ExecutionContext[Any]) -> int:
        limit = await get_config("limit")
        await pause("go on?")
        return limit

    paused = await flux.run(limits)
    configured("limit = 2")
    assert (await flux.resume(paused.execution_id)).output == 1


async def test_a_configuration_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FluxError, match="nowhere"):
        await EnvironmentConfig({"FLUX_CONFIG": str(tmp_path / "nowhere.toml")}).get("a")


# -- sensitive tasks --------------------------------------------------------------------------------------------------------


async def test_what_a_sensitive_task_takes_and_gives_is_read_by_nobody_but_the_workflow(tmp_path: Path) -> None:
    ran: list[str] = []

    @task.with_options(sensitive=True)
    async def look_up(ssn: str) -> dict[str, str]:
        ran.append(ssn)
        return {"diagnosis": "measles"}

    @workflow
    async def treats(ctx: ExecutionContext[Any]) -> int:
        found = await look_up("078-05-1120")
        await pause("go on?")
        return len(found["diagnosis"])

    async with Flux(tmp_path / "f.db", recover=False) as flux:
        paused = await flux.run(treats)
    async with Flux(tmp_path / "f.db", recover=False, workflows=[treats]) as flux:
        done = await flux.resume(paused.execution_id)
        shown = [event.value for event in (await flux.get(done.execution_id, events=True)).events]
        stored = await everything_of(flux, done.execution_id)
    assert (done.output, ran) == (7, ["078-05-1120"])  # the value came from the record, the body ran once
    assert shown.count("[redacted]") == 2
    on_disk = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    for word in ("078-05-1120", "measles"):
        assert word not in stored
        assert word.encode() not in on_disk


async def test_a_sensitive_tasks_error_keeps_its_class_and_loses_its_text(flux: Flux) -> None:
    @task.with_options(sensitive=True, retry_max_attempts=1, retry_delay=0)
    async def fails(ssn: str) -> None:
        raise ValueError(f"{ssn} is unknown")

    @workflow
    async def catches(ctx: ExecutionContext[Any]) -> str:
        try:
            await fails("078-05-1120")
        except ValueError as exc:
            return str(exc)
        return "not reached"

    done = await flux.run(catches)
    assert done.output == "[redacted]"
    assert "078-05-1120" not in await everything_of(flux, done.execution_id)


async def test_a_sensitive_task_without_a_key_does_not_begin(flux: Flux, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUX_SECRETS_KEY", "no key")
    ran: list[int] = []

    @task.with_options(sensitive=True)
    async def look_up() -> None:
        ran.append(1)

    @workflow
    async def treats(ctx: ExecutionContext[Any]) -> None:
        await look_up()

    failed = await flux.run(treats)
    assert (type(failed.error), ran) == (KeyUnusable, [])


class Card:
    def __init__(self, number: str) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"Card({self.number})"


@dataclass
class Login:
    user: str
    password: str


async def test_progress_is_told_without_secrets_whatever_form_it_has(secret_flux: Flux) -> None:
    @task.with_options(secret_requests=["TOKEN"])
    async def tells(*, secrets: dict[str, str] | None = None) -> None:
        assert secrets is not None
        token = secrets["TOKEN"]
        progress(f"log in as {token}")
        progress({"to": [quote(token, safe=""), 3], token: None})
        progress(Login("ada", token))
        progress(Login("ada", "other"))
        progress(Card(token))
        progress(0.5)

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> None:
        await tells()

    told: list[Any] = []
    with secret_flux.observed("x", lambda heard: told.append(heard.value)):
        await secret_flux.run(calls, execution_id="x")
    assert told == ["log in as ***", {"to": ["***", 3], "***": None}, "***", Login("ada", "other"), "***", 0.5, None]


@given(text=st.text(alphabet="s3cret t"), cuts=st.lists(st.integers(0, 40)))
def test_a_secret_that_is_told_in_pieces_is_told_in_none(text: str, cuts: list[int]) -> None:
    codec = without({"TOKEN": "s3cret"}, JsonCodec())
    said = f"{text}s3cret{text}"
    ends = sorted({min(cut, len(said)) for cut in cuts})
    pieces = Pieces()
    told = [pieces.add(said[a:b], codec) for a, b in zip([0, *ends], [*ends, len(said)], strict=True)]
    assert "".join([*told, pieces.rest()]) == masked(said, codec)
