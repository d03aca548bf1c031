"""Settings: what a user may move from outside."""

from pathlib import Path

import pytest

from flux.errors import InvalidInput
from flux.settings import Settings, default_database


def test_without_anything_the_database_is_in_the_users_data_folder():
    settings = Settings.load(environ={})
    assert settings.database == str(default_database())
    assert Path(settings.database).is_absolute()
    assert (settings.synchronous, settings.lease_seconds) == ("full", 15.0)


def test_the_environment_moves_every_setting():
    environ = {
        "FLUX_DATABASE": "/data/f.db",
        "FLUX_SYNCHRONOUS": "NORMAL",
        "FLUX_LEASE_SECONDS": "2.5",
        "FLUX_POLL_SECONDS": "0.2",
        "FLUX_MAX_RECOVERIES": "3",
        "FLUX_TASK_THREADS": "8",
        "FLUX_RETENTION_DAYS": "30",
    }
    assert Settings.load(environ=environ) == Settings(
        database="/data/f.db",
        synchronous="normal",
        lease_seconds=2.5,
        poll_seconds=0.2,
        max_recoveries=3,
        task_threads=8,
        retention_days=30,
    )


def test_an_override_beats_the_environment_and_none_does_not():
    environ = {"FLUX_DATABASE": "/data/f.db", "FLUX_LEASE_SECONDS": "7"}
    settings = Settings.load(environ=environ, database="/other.db", lease_seconds=None)
    assert (settings.database, settings.lease_seconds) == ("/other.db", 7.0)


def test_an_empty_variable_counts_as_not_set():
    assert Settings.load(environ={"FLUX_LEASE_SECONDS": "", "FLUX_DATABASE": ""}).database == str(default_database())


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("flows.db", "{cwd}/flows.db"),
        ("sqlite:///flows.db", "{cwd}/flows.db"),
        ("sqlite:////data/flows.db", "/data/flows.db"),
        ("~/flows.db", "{home}/flows.db"),
        (":memory:", ":memory:"),
        ("sqlite:///:memory:", ":memory:"),
        ("postgresql://flux@db/flux", "postgresql://flux@db/flux"),
    ],
)
def test_a_database_is_a_path_or_a_url(given: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    expected = meant.format(cwd=tmp_path, home="/home/somebody")
    assert Settings.load(environ={}, database=given).database == expected


def test_every_variable_that_does_not_fit_is_named():
    environ = {"FLUX_LEASE_SECONDS": "soon", "FLUX_MAX_RECOVERIES": "-1", "FLUX_SYNCHRONOUS": "off"}
    with pytest.raises(InvalidInput) as caught:
        Settings.load(environ=environ)
    assert caught.value.faults == [
        ("FLUX_SYNCHRONOUS", "should be 'full' or 'normal'; got 'off'"),
        ("FLUX_LEASE_SECONDS", "should be a number of seconds; got 'soon'"),
        ("FLUX_MAX_RECOVERIES", "should not be negative; got '-1'"),
    ]


@pytest.mark.parametrize("given", ["0", "nan", "inf", "-3"])
def test_a_lease_has_a_sensible_length(given: str):
    with pytest.raises(InvalidInput, match="FLUX_LEASE_SECONDS"):
        Settings.load(environ={"FLUX_LEASE_SECONDS": given})


def test_a_setting_that_does_not_exist_is_a_bug_of_the_caller():
    with pytest.raises(TypeError, match="leese_seconds"):
        Settings.load(environ={}, leese_seconds=3)
