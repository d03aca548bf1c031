"""Holds a server on a leash: run as `python -I -S tether.py GRACE COMMAND ...`, with the server's pipes as its own.

It starts the command and waits with it. When whoever holds the other end of its input is gone - closed, or killed with no time
to say so - the server has GRACE seconds to go by itself, as it should. Then it is killed, and with it all that it has started in
its process group. Only the standard library, and little of it: there is one beside each server."""

from __future__ import annotations

import os
import select
import signal
import sys
import time


def main(grace: float, command: list[str]) -> None:
    if os.getpgrp() != os.getpid():
        os.setsid()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, _woken)
    server = os.posix_spawnp(command[0], command, os.environ)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the end of the server's output is to be seen
    poller = select.poll()
    poller.register(woken, select.POLLIN)
    poller.register(0, 0)  # only whether it has hung up: what comes is the server's
    deadline: float | None = None
    while os.waitpid(server, os.WNOHANG) == (0, 0):
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if left == 0.0:
            break
        for file, _ in poller.poll(None if left is None else left * 1000):
            if file == woken:
                os.read(woken, 4096)
            else:
                poller.unregister(0)
                deadline = time.monotonic() + grace
    os.killpg(0, signal.SIGKILL)  # whoever is left, this process too


def _woken(*_: object) -> None:
    """A signal without a handler would not wake anybody."""


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
