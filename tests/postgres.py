"""A real PostgreSQL on a socket in a temporary folder, started from the machine's own binaries, ended with the test."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

DEBIAN = Path("/usr/lib/postgresql")
UNSAFE_BUT_QUICK = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=50")


class Postgres:
    """A server that makes databases; a schema of its own is as good as one, and costs nothing.

    Args:
        command: what runs it, as the user and with the options of ``settings``.
    """

    def __init__(self, folder: Path, command: list[str], settings: dict[str, Any]) -> None:
        self._folder = folder
        self._command = command
        self._settings = settings
        self.start()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=self._folder, **self._settings)
        until = time.monotonic() + 30
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"PostgreSQL does not start: {(self._folder / 'log').read_text()}")
            time.sleep(0.02)

    def stop(self, sent: signal.Signals = signal.SIGQUIT) -> None:
        """End it, at once by default, as a crash does."""
        self._process.send_signal(sent)
        self._process.wait(20)

    def database(self) -> str:
        """SQLAlchemy's URL of a new database."""
        name = f"tureen_{uuid.uuid4().hex}"
        with psycopg.connect(host=str(self._folder), user="tureen", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"postgresql+psycopg://tureen@/postgres?host={self._folder}&options=-csearch_path%3D{name}"

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            psycopg.connect(host=str(self._folder), user="tureen", dbname="postgres").close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server that only this machine's processes reach; it refuses to run as root, so root runs it as another user."""
    binaries = _binaries()
    user = _other_user()
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        if user:
            shutil.chown(folder, **user)
        as_user: dict[str, Any] = {**user, "extra_groups": []} if user else {}
        data = folder / "data"
        setup = [
            str(binaries / "initdb"),
            "--no-sync",
            "--auth=trust",
            "--username=tureen",
            "--encoding=UTF8",
            "--locale=C",
        ]
        subprocess.run([*setup, str(data)], check=True, stdout=subprocess.DEVNULL, cwd=folder, **as_user)
        options = [part for option in UNSAFE_BUT_QUICK for part in ("-c", option)]
        command = [str(binaries / "postgres"), "-D", str(data), "-k", made, "-h", "", *options]
        found = Postgres(folder, command, as_user)
        try:
            yield found
        finally:
            found.stop()  # nothing of it is kept


def _binaries() -> Path:
    initdb = shutil.which("initdb")
    folders = [Path(initdb).parent] if initdb else sorted(DEBIAN.glob("*/bin"), reverse=True)
    found = next((folder for folder in folders if (folder / "postgres").exists()), None)
    if found is None:
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent("there is no PostgreSQL on this machine: `make postgres` installs Debian's")
    return found


def _other_user() -> dict[str, str]:
    return {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
