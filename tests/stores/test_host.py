"""Which processes are taken for dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest

from flux.engine.ports import Owner
from flux.host import is_dead, this_process

SCRIPT = """
from flux.host import this_process
o = this_process()
print(o.host, o.pid, repr(o.started), o.token, flush=True)
input()
"""


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen[str], Owner]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    host, pid, started, token = process.stdout.readline().split()
    yield process, Owner(host=host, pid=int(pid), started=float(started), token=token)
    process.kill()
    process.communicate()


def test_this_process_is_alive_and_each_owner_is_another_one() -> None:
    first, second = this_process(), this_process()
    assert not is_dead(first)
    assert first != second
    assert replace(first, token="") == replace(second, token="")


def test_another_process_on_this_host_is_alive_until_it_is_killed(child: tuple[subprocess.Popen[str], Owner]) -> None:
    process, owner = child
    assert owner.host == this_process().host
    assert not is_dead(owner)
    process.kill()
    process.wait(timeout=30)
    assert is_dead(owner)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_stopped_process_is_alive(child: tuple[subprocess.Popen[str], Owner]) -> None:
    process, owner = child
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    assert not is_dead(owner)


@pytest.mark.skipif(sys.platform == "win32", reason="zombies are of POSIX")
def test_a_zombie_is_dead(child: tuple[subprocess.Popen[str], Owner]) -> None:
    process, owner = child
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    assert is_dead(owner)


def test_a_pid_that_came_round_again_is_another_process() -> None:
    owner = this_process()
    assert is_dead(replace(owner, started=owner.started - 10))


def test_of_other_hosts_nothing_is_known() -> None:
    owner = this_process()
    assert not is_dead(replace(owner, host="elsewhere/1", pid=2**22 + 1))
    assert not is_dead(replace(owner, host=owner.host + "x", started=0.0))
