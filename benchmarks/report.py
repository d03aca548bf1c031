"""Runs every benchmark and writes what it found into docs/benchmarks.md, between the marks there: `make bench-report`.

`report.py [--rounds N] NAME ...` runs only these, and leaves the other tables as they are.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from measure import as_markdown, from_json

HERE = Path(__file__).resolve().parent
REPORT = HERE.parent / "docs" / "benchmarks.md"


def table(name: str, rounds: int) -> str:
    command = [sys.executable, HERE / f"{name}.py", "--json", "--rounds", str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return f"{rounds} round{'s' if rounds > 1 else ''} {machine()}.\n\n{as_markdown(from_json(done.stdout))}"


def machine() -> str:
    versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    return f"on {datetime.now(UTC):%d %B %Y}, {os.cpu_count()} cores, {platform.system()}, {versions}"


def put(text: str, name: str, content: str) -> str:
    between = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", re.DOTALL)
    if not between.search(text):
        raise SystemExit(
            f"{REPORT.name} has no place for {name}: it needs <!-- {name} --> and <!-- end -->, a line each."
        )
    return between.sub(lambda _: f"{content}\n", text, count=1)


def main() -> None:
    options = argparse.ArgumentParser(description="Write the benchmarks' figures down.")
    options.add_argument("names", nargs="*", help="which, of all")
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()
    text = REPORT.read_text("utf-8")
    for name in asked.names or re.findall(r"^<!-- (\w+) -->$", text, re.MULTILINE):
        if name != "end":
            print(f"{name} ...", flush=True)
            text = put(text, name, table(name, asked.rounds))
            REPORT.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
