"""Who sends the statements: pgbench, or processes with psycopg where there is none."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pylonny.bench.scripts import Json, Script
from pylonny.bench.statistics import Rounds
from pylonny.errors import Error
from pylonny.server import ServerError, find_binaries

_TICK = 0.1  # seconds between two looks at the processes
_GRACE = 60  # seconds that the last round may take
_OLDEST = 13  # the first pgbench that has \aset
_LATENCY = re.compile(r"^ +(\d+\.\d+) ")

Tick = Callable[[float], None]


class Driver(Protocol):
    """Runs a script in many sessions at once."""

    @property
    def name(self) -> str:
        """What it is, with its version."""
        ...

    def run(self, dsn: str, script: Script, clients: int, seconds: int, tick: Tick) -> Rounds:
        """Run it for so long; `tick` is told, now and then, how many seconds that has been.

        Raises Error with the first thing that a session complained about.
        """
        ...


def open_driver(name: str) -> Driver:
    """The driver "pgbench" or "psycopg"; "auto": pgbench if there is one.

    Raises Error if there is none.
    """
    if name != "psycopg":
        for path, libraries in _pgbenches():
            version = _version(path, libraries)
            if version and int(re.split(r"\D", version)[0]) >= _OLDEST:
                return Pgbench(path, libraries, version)
        if name == "pgbench":
            raise Error(
                f"no pgbench of version {_OLDEST} or newer found",
                "install PostgreSQL's client programs, or take --driver psycopg",
            )
    return Psycopg()


class Pgbench:
    """pgbench, with prepared statements."""

    def __init__(self, path: Path, libraries: Path | None, version: str) -> None:
        self.name = f"pgbench {version}"
        self._path = path
        self._libraries = libraries

    def run(self, dsn: str, script: Script, clients: int, seconds: int, tick: Tick) -> Rounds:
        """As Driver.run."""
        commands = pgbench_commands(script)
        with tempfile.TemporaryDirectory(prefix="pylonny-bench-") as name:
            folder = Path(name)
            (folder / "script").write_text("\n".join(text for _, text in commands) + "\n")
            arguments = [
                *(str(self._path), "--no-vacuum", "--report-per-command", "--log"),
                *(f"--client={clients}", f"--jobs={min(clients, os.cpu_count() or 1)}", f"--time={seconds}"),
                *("--protocol=prepared", f"--file={folder / 'script'}", f"--log-prefix={folder / 'log'}"),
            ]
            # The password not among the arguments, which everybody on the machine may see.
            parameters = conninfo_to_dict(dsn)
            environment = _environment(self._libraries)
            if password := parameters.pop("password", None):
                environment["PGPASSWORD"] = str(password)
            # The default, which psycopg gives as if somebody had, and which no pgbench before 16 knows.
            if parameters.get("sslcertmode") == "allow":
                del parameters["sslcertmode"]
            with (
                (folder / "out").open("w+") as out,
                (folder / "err").open("w+") as err,
                _started([*arguments, make_conninfo("", **parameters)], environment, out, err) as process,
            ):
                _wait([process], seconds, tick)
                out.seek(0)
                err.seek(0)
                # Status 2: some session was given up.
                if process.returncode != 0:
                    reason = _first_complaint(err) or "it failed and does not say why"
                    raise Error(f"pgbench: {reason}")
                steps = _step_means(out, [step for step, _ in commands])
            return _read_logs(folder.glob("log.*"), steps)


def pgbench_commands(script: Script) -> list[tuple[str, str]]:
    """The lines of a pgbench script, each with the name of the step that it belongs to."""
    commands: list[tuple[str, str]] = []
    if script.channels:
        commands.append(("", f"\\set channel random(1, {script.channels})"))
    for step in script.steps:
        texts = [f"{step.sql} \\aset" if step.returns else f"{step.sql};"]
        if script.begin:
            texts = ["BEGIN;", *texts, "COMMIT;"]
        if step.returns:
            texts = ["\\set n 0", *texts]
        if step.needs:
            texts = ["\\if :n > 0", *texts, "\\endif"]
        commands += [("" if text.startswith("\\") else step.name, text) for text in texts]
    return commands


def _step_means(lines: Iterable[str], steps: Sequence[str]) -> dict[str, float]:
    """What pgbench prints last: the mean time of each command, in milliseconds."""
    times = [float(match[1]) for line in lines if (match := _LATENCY.match(line))]
    means: dict[str, float] = {}
    for step, milliseconds in zip(steps, times, strict=False):
        if step:
            means[step] = round(means.get(step, 0) + milliseconds, 3)
    return means


def _read_logs(paths: Iterable[Path], steps_ms: dict[str, float]) -> Rounds:
    """The logs' lines are: client, number, duration in us, script, seconds and us of the end."""
    ends, durations = array("d"), array("d")
    for path in paths:
        with path.open() as file:
            for line in file:
                fields = line.split()
                durations.append(int(fields[2]) / 1e6)
                ends.append(int(fields[4]) + int(fields[5]) / 1e6)
    if not ends:
        raise Error("not a single round was done in time", "give more time: --duration")
    return Rounds(ends, durations, steps_ms)


def _first_complaint(lines: Iterable[str]) -> str:
    for line in lines:
        if (at := line.find("error:")) >= 0:
            return line[at + len("error:") :].strip()
    return ""


def _pgbenches() -> Generator[tuple[Path, Path | None]]:
    """Where one may be, and the folder of its libraries if they are not the system's."""
    with suppress(ServerError):
        folder = find_binaries()
        if (folder / "pgbench").exists():
            library = folder.parent / "lib"
            yield folder / "pgbench", library if (library / "libpq.so.5").exists() else None
    if found := shutil.which("pgbench"):
        yield Path(found), None


def _version(path: Path, libraries: Path | None) -> str:
    with suppress(OSError):
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, env=_environment(libraries), check=False
        )
        if match := re.search(r"\) (\d+\S*)", done.stdout):
            return match[1]
    return ""


def _environment(libraries: Path | None) -> dict[str, str]:
    """All parameters are in the connection string; the messages are to be read by a program."""
    environment = {**os.environ, "LC_ALL": "C"}
    return environment if libraries is None else {**environment, "LD_LIBRARY_PATH": str(libraries)}


class Psycopg:
    """One process with one connection for each session: slower than pgbench, and on its own CPU time."""

    @property
    def name(self) -> str:
        """The package."""
        import psycopg

        return f"psycopg {psycopg.__version__}"

    def run(self, dsn: str, script: Script, clients: int, seconds: int, tick: Tick) -> Rounds:
        """As Driver.run."""
        with tempfile.TemporaryDirectory(prefix="pylonny-bench-") as name:
            task = Path(name, "task")
            task.touch(mode=0o600)
            task.write_text(json.dumps({"dsn": dsn, "script": script.to_json(), "seconds": seconds}))
            with _sessions(task, clients) as processes:
                for process in processes:
                    _line(process)  # connected
                for process in processes:
                    print("go", file=process.stdin, flush=True)
                _until(seconds, tick, lambda: any(process.poll() for process in processes))
                return _together([json.loads(_line(process)) for process in processes])


@contextmanager
def _sessions(task: Path, clients: int) -> Generator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    try:
        for _ in range(clients):
            processes.append(  # noqa: PERF401 - those that were started are to be stopped
                subprocess.Popen(
                    [sys.executable, "-m", "pylonny.bench.session", str(task)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


def _line(process: subprocess.Popen[str]) -> str:
    if process.stdout is not None and (line := process.stdout.readline()):
        return line
    _, said = process.communicate()
    raise Error(f"psycopg: {said.strip() or 'a session ended and does not say why'}")


def _together(parts: Sequence[Json]) -> Rounds:
    ends, durations = array("d"), array("d")
    sums: dict[str, float] = {}
    for part in parts:
        ends.extend(part["ends"])
        durations.extend(part["durations"])
        for step, seconds in part["steps"].items():
            sums[step] = sums.get(step, 0) + seconds
    if not ends:
        raise Error("not a single round was done in time", "give more time: --duration")
    return Rounds(ends, durations, {step: round(1000 * total / len(ends), 3) for step, total in sums.items()})


@contextmanager
def _started(
    arguments: Sequence[str], environment: dict[str, str], out: IO[str], err: IO[str]
) -> Generator[subprocess.Popen[bytes]]:
    """A process that does not outlive the block, out of reach of the terminal's Ctrl-C."""
    process = subprocess.Popen(
        arguments, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait(processes: Sequence[subprocess.Popen[bytes]], seconds: float, tick: Tick) -> None:
    _until(seconds + _GRACE, tick, lambda: all(process.poll() is not None for process in processes))
    if any(process.poll() is None for process in processes):
        raise Error(f"a round did not end within {_GRACE} seconds", "see what its sessions wait for")


def _until(seconds: float, tick: Tick, done: Callable[[], bool]) -> None:
    """Tick until it is done, or that time is over."""
    begin = time.monotonic()
    while not done() and (passed := time.monotonic() - begin) < seconds:
        tick(passed)
        time.sleep(_TICK)
