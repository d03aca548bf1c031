"""Which process this is, and whether another one is still there. Nothing that `import flux` pulls in imports this."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import uuid
from functools import cache
from pathlib import Path

import psutil

from flux.engine.ports import Owner

_SAME_START = 1.5
"""Seconds. Far more than the noise of the reading, far less than it takes for a pid to come round again."""


def this_process() -> Owner:
    """A new owner of leases: each call makes another one."""
    pid = os.getpid()
    return Owner(host=_host(), pid=pid, started=_started(psutil.Process(pid)), token=secrets.token_hex(8))


def is_dead(owner: Owner) -> bool:
    """True only when it is certain: the owner's pid belongs to our own space of pids, and no process there has that pid
    and that start. A stopped process is alive; a zombie is dead; of other hosts nothing is known."""
    if owner.host != _host():
        return False
    try:
        process = psutil.Process(owner.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        return abs(_started(process) - owner.started) > _SAME_START
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _started(process: psutil.Process) -> float:
    """When the process began. On Linux since boot, as the kernel has it: setting the clock does not change that."""
    created = process.create_time()
    return created - psutil.boot_time() if sys.platform == "linux" else created


@cache
def _host() -> str:
    return f"{socket.gethostname()}/{_pid_space()}"


def _pid_space() -> str:
    """Names what a pid is unique in. Two containers may share a hostname and a volume, and still each have a process 1."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{uuid.getnode():012x}"
