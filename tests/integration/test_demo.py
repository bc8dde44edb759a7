"""The demo: it does its job, shows it, leaves nothing behind, and fails if anything is not as promised."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest

from pylonny.demo import __main__ as command
from pylonny.demo import run
from pylonny.demo.check import Killed, Rules, check
from pylonny.demo.files import File, channel_name, find_files, shown
from pylonny.demo.processes import Child, DemoError
from pylonny.demo.producer import largest_first
from pylonny.demo.screen import Screen, busiest
from pylonny.demo.tables import TABLES, Look, Tenant
from pylonny.demo.worker import Worker
from pylonny.queue import Message, Queue
from pylonny.server import PrivateServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.conftest import Connect
    from tests.support.sessions import Connection

MINUTE = 60.0  # far more than a demo of this size takes
SIZES = {"alpha": 60, "beta": 36, "gamma": 5, "delta": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small installation: packages, modules, what pip wrote, and things that are not to be hashed."""
    root = tmp_path_factory.mktemp("installation")
    for name, size in SIZES.items():
        (root / name / "below").mkdir(parents=True)
        for number in range(size):
            (root / name / ("below" if number % 2 else ".") / f"{number}.py").write_bytes(b"x" * number)
    (root / "alpha" / "large").write_bytes(os.urandom(3_000_000))
    (root / "module.py").write_bytes(b"a module")
    (root / "delta-1.0.dist-info").mkdir()
    (root / "delta-1.0.dist-info" / "RECORD").write_bytes(b"what pip wrote")
    if sys.platform == "linux":  # other file systems refuse such a name
        (root / os.fsdecode(b"odd\xff.py")).write_bytes(b"a name that is not UTF-8")
    (root / "alpha" / "__pycache__").mkdir()
    (root / "alpha" / "__pycache__" / "0.pyc").write_bytes(b"changes meanwhile")
    (root / "alpha" / "broken").symlink_to("missing")
    (root / "alpha" / "circle").symlink_to(root)
    os.mkfifo(root / "alpha" / "pipe")
    return root


def expected(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file that is to be hashed."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    return {
        shown(str(path)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if "circle" not in path.parts
    }


def demo(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "pylonny.demo", "--root", str(folder), *arguments]


def server_folder(output: str) -> Path:
    found = re.search(r"PostgreSQL \S+ runs in (\S+),", output)
    assert found, output
    return Path(found[1])


def is_stopped(server: Path) -> bool:
    try:
        psycopg.connect(host=str(server), user="postgres").close()
    except psycopg.OperationalError:
        return True
    return False


# The whole of it


def test_it_does_its_job_and_keeps_the_server_when_asked(folder: Path) -> None:
    done = subprocess.run(
        demo(folder, "--keep", "--lock-ms", "1000"),
        capture_output=True,
        text=True,
        timeout=MINUTE,
        check=False,
    )
    output = done.stdout
    server = server_folder(output)
    try:
        assert (done.returncode, done.stderr) == (0, ""), output
        hashes = expected(folder)
        size = sum(path.stat().st_size for path in folder.rglob("*") if shown(str(path)) in hashes)
        assert (
            f"files        {len(hashes)} in {6 if sys.platform == 'linux' else 5} channels, {size:,} bytes"
            in output
        )
        assert re.search(r"speed        \d+\.\d seconds, \d+ messages a second", output)
        assert re.search(
            r"^ +\d+\.\d s  \d+ of \d+ done, \d+ waiting, \d+ ready, \d+ locked$", output, re.MULTILINE
        )
        assert "The workers: 4 processes." in output
        assert re.search(r"Killed worker 1 \(SIGKILL\) while it held [1-9]\d* messages", output)
        assert re.search(r"All [1-9]\d* came back and went to other workers", output)
        assert re.search(
            r"redelivered  ([1-9]\d*) in all, \1 of them held by worker 1 when it was killed", output
        )
        # The killed worker may have held one of these, which is then delivered twice.
        assert re.search(r"limit        beta: (36|37) deliveries, never more than 1 at a time", output)
        assert re.search(r"interval     gamma: (5|6) deliveries, at least 200 ms apart", output)
        assert "shares" not in output  # no second channel is large enough to tell
        assert "waiting      a file of the smallest channels, with 1 each, found " in output
        assert "\nAll is as promised.\n" in output

        psql, stop, remove = re.findall(r"^  (\S+/psql .*|kill .*|rm -r .*)$", output, re.MULTILINE)
        query = "SELECT path, encode(sha256, 'hex') FROM demo.result JOIN demo.file USING (message_id)"
        look = f"{psql} --no-psqlrc --tuples-only --no-align --command {shlex.quote(query)}"
        rows = subprocess.check_output(["/bin/sh", "-c", look], text=True)
        assert dict(row.rsplit("|", 1) for row in rows.splitlines()) == hashes
        assert not is_stopped(server)
        subprocess.check_call(["/bin/sh", "-c", stop])
        subprocess.check_call(["/bin/sh", "-c", remove])  # at once, as somebody who pastes both lines
        assert not server.exists()
    finally:
        PrivateServer(server, temporary=True).destroy()


def test_it_shows_a_table_on_a_terminal_and_leaves_nothing_behind(folder: Path) -> None:
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 14, 80, 0, 0))
    # The terminal says how large it is, not the variables that a runner of tests in several processes sets.
    environment = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
    environment["TERM"] = "xterm"
    with subprocess.Popen(
        demo(folder, "--lock-ms", "500"), stdin=inside, stdout=inside, stderr=inside, env=environment
    ) as process:
        os.close(inside)
        output = ""
        with suppress(OSError):  # the end of a terminal is an error on Linux
            while read := os.read(terminal, 4096):
                output += read.decode()
    os.close(terminal)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output).replace("\r", "")
    assert process.returncode == 0, plain
    assert re.search(r"channel +rule +waiting +ready +locked +done", plain)
    assert re.search(r"^ *beta +1 at a time ", plain, re.MULTILINE)
    assert re.search(r"^ *gamma +every 200 ms ", plain, re.MULTILINE)
    assert re.search(r"^ *alpha +\d", plain, re.MULTILINE)
    assert re.search(r"^ *\d others ", plain, re.MULTILINE)  # 14 lines are too few for all
    assert re.search(r"━ +[1-9]\d* of \d+ files, \d s, \d+ a second", plain)
    assert plain.endswith("All is as promised.\n")
    assert not server_folder(plain).exists()


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_everything(folder: Path, signum: signal.Signals, status: int) -> None:
    with subprocess.Popen(
        demo(
            folder, "--keep", "--lock-ms", "60000"
        ),  # it would wait a minute for the killed worker's messages
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        output = ""
        for line in process.stdout:
            output += line
            if "Killed worker 1" in line:
                break
        server = server_folder(output)
        assert not is_stopped(server)
        os.killpg(process.pid, signum)  # as a terminal does: to all that are in the foreground
        process.stdout.read()
        assert process.stderr.read() == "\nStopped, and so is everything that was started.\n"
    assert process.returncode == status
    assert is_stopped(server)
    assert not server.exists()


def test_no_process_is_left_however_it_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Screen):
        def show(self, look: Look) -> None:
            raise KeyboardInterrupt(look)

    started: list[Noted] = []

    class Noted(Child):
        def __init__(self, name: str, module: str, arguments: Sequence[str]) -> None:
            super().__init__(name, module, arguments)
            started.append(self)

        def status(self) -> int | None:
            return self._process.returncode

    monkeypatch.setattr(run, "Child", Noted)
    with pytest.raises(KeyboardInterrupt):
        run.run(run.Options(root=folder, workers=2), Interrupted())
    assert [(child.name, child.status()) for child in started] == [
        ("producer", -signal.SIGKILL),
        ("worker 1", -signal.SIGKILL),
        ("worker 2", -signal.SIGKILL),
    ]


# When it cannot be run


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--workers", "1"], "argument --workers: must be a whole number, 2 or more, not '1'"),
        (["--batch", "many"], "argument --batch: must be a whole number, 1 or more, not 'many'"),
        (["--root", "/nowhere"], "argument --root: there is no folder /nowhere"),
    ],
)
def test_wrong_usage(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.demo(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {sentence}\n")


def test_without_server_binaries_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYLONNY_PG_BIN", str(tmp_path))
    assert command.demo([]) == 1
    assert re.fullmatch(r"The demo failed: PYLONNY_PG_BIN=.*\n", capsys.readouterr().err)


def test_too_few_packages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "alone.py").touch()
    assert command.demo(["--root", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "The demo failed: 1 top-level packages are too few, it takes 3: choose another --root\n"
    )


@pytest.mark.parametrize(("good", "status"), [(True, 0), (False, 1)])
def test_the_exit_status_tells_the_verdict(good: bool, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def verdict(options: run.Options, _: Screen) -> bool:
        return good and options == run.Options()

    monkeypatch.setattr(run, "run", verdict)
    assert command.demo([]) == status


def test_a_worker_that_fails_is_quoted(tmp_path: Path) -> None:
    arguments = ["--schema", "lonny", "--lock-ms", "1", "--number", "7", "--batch", "1"]
    child = Child("worker 7", "pylonny.demo.worker", ["--dsn", f"host={tmp_path}", *arguments])
    try:
        with pytest.raises(DemoError, match=r"the worker 7 did not start: .*No such file or directory"):
            child.expect_ready()
    finally:
        child.kill()


# The files


def test_which_files_there_are(folder: Path) -> None:
    found = find_files(folder, without=folder / "beta")
    assert {shown(file.path) for file in found} == {
        path for path in expected(folder) if not path.startswith(f"{folder}/beta/")
    }
    assert all(file.size == Path(file.path).stat().st_size for file in found)


def test_the_running_python_is_the_standard_library_and_site_packages(tmp_path: Path) -> None:
    found = find_files(None, without=tmp_path)
    channels = {file.path: file.channel for file in found}
    assert channels[os.__file__] == "os"
    assert channels[psycopg.__file__] == "psycopg"
    assert channels[str(Path(os.__file__).parent / "json" / "tool.py")] == "json"
    assert not {"site-packages", "dist-packages", "__pycache__"} & set(channels.values())
    assert len(channels) == len(found)


@pytest.mark.parametrize(
    ("path", "channel"),
    [
        ("json/tool.py", "json"),
        ("abc.py", "abc"),
        ("_bz2.cpython-311.so", "_bz2"),
        (".hidden", ".hidden"),
        ("rich-15.0.0.dist-info/RECORD", "rich"),
        ("old-1.egg-info/PKG-INFO", "old"),
        ("numpy.libs/x.so", "numpy.libs"),
        (os.fsdecode(b"odd\xff.py"), "odd\\xff"),
    ],
)
def test_the_channel_is_the_top_level_package(path: str, channel: str) -> None:
    assert channel_name(Path(path)) == channel


def test_producers_begin_with_the_largest_channel() -> None:
    files = [File("small", "s", 1), *(File("large", str(number), 1) for number in range(250))]
    chunks = largest_first(files)
    assert [(chunk[0].channel, len(chunk)) for chunk in chunks] == [
        ("large", 100), ("large", 100), ("large", 50), ("small", 1),
    ]  # fmt: skip
    assert sorted(file for chunk in chunks for file in chunk) == sorted(files)


def test_the_table_shows_rules_first_then_the_largest_then_the_rest_as_one() -> None:
    tenants = [
        Tenant("a", 1, ready=1), Tenant("b", 2, done=2), Tenant("c", 9, locked=4), Tenant("d", 1, "rule"),
        Tenant("e", 3, waiting=3),
    ]  # fmt: skip
    assert busiest(tenants, 5) == [tenants[3], tenants[2], tenants[4], tenants[1], tenants[0]]
    assert busiest(tenants, 3) == [
        tenants[3], tenants[2], Tenant("3 others", total=6, ready=1, done=2, waiting=3),
    ]  # fmt: skip


# The worker


@pytest.fixture
def conn(connect: Connect) -> Connection:
    conn = connect()
    conn.execute(TABLES)
    return conn


def dequeue(conn: Connection, lock_ms: int) -> Message:
    message = Queue("lonny").dequeue(conn, lock_ms)
    assert isinstance(message, Message)
    return message


def results(conn: Connection) -> list[tuple[object, ...]]:
    return conn.execute("SELECT message_id, num_attempts, worker, sha256, error FROM demo.result").fetchall()


def test_the_result_of_a_worker_that_lost_its_lock_is_rolled_back(conn: Connection) -> None:
    queue = Queue("lonny")
    message_id = queue.channel("a").message.create(conn, content=b"/path", lock_ms=0)
    late, other = Worker(conn, queue, 1, 0), Worker(conn, queue, 2, 0)
    first, second = dequeue(conn, 0), dequeue(conn, 60_000)
    assert (first.is_unlocked, second.is_unlocked) == (False, True)
    late.finish(first, b"late")
    assert results(conn) == []
    other.finish(second, b"good")
    late.finish(first, b"late")
    assert results(conn) == [(message_id, 2, 2, b"good", None)]


def test_a_file_that_cannot_be_read_is_a_result_too(conn: Connection, tmp_path: Path) -> None:
    queue = Queue("lonny")
    message_id = queue.message.create(conn, content=os.fsencode(tmp_path / "gone"), lock_ms=60_000)
    message = dequeue(conn, 60_000)
    Worker(conn, queue, 3, 60_000).process(message, [message])
    assert results(conn) == [
        (message_id, 1, 3, None, f"[Errno 2] No such file or directory: '{tmp_path}/gone'")
    ]


def test_a_worker_keeps_what_it_holds_locked(
    conn: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = [0.0]
    monkeypatch.setattr("pylonny.demo.worker.time.monotonic", lambda: now[0])
    queue = Queue("lonny")
    for _ in range(2):
        queue.channel("a").message.create(conn, content=os.fsencode(tmp_path), lock_ms=30_000)
    held = [dequeue(conn, 30_000), dequeue(conn, 30_000)]
    locked = Worker(conn, queue, 1, 30_000)

    def extended() -> list[bool]:
        rows = conn.execute("SELECT unlock_at FROM lonny.message ORDER BY id").fetchall()
        return [unlock_at > message.unlock_at for (unlock_at,), message in zip(rows, held, strict=True)]

    now[0] = 9.9
    locked.keep(held)
    assert extended() == [False, False]
    now[0] = 10.1
    locked.keep(held)
    assert extended() == [True, True]


# The check at the end: what would be wrong is found


RULES = Rules(limited="limited", max_concurrency=1, spaced="spaced", interval_ms=200)
KILLED = Killed(worker=1, held={1: 1})
CHANNELS = {"large": 60, "even": 20, "limited": 3, "spaced": 3, "single": 1}


@pytest.fixture
def history(conn: Connection, tmp_path: Path) -> list[File]:
    """Files, and the tables as they are after a run in which all was well."""
    files: list[File] = []
    for channel, count in CHANNELS.items():
        for number in range(count):
            path = tmp_path / f"{channel}{number}"
            path.write_text(path.name)
            files.append(File(channel, str(path), path.stat().st_size))
            message_id = len(files)
            # One after the other, 10 ms each, the spaced ones 200 ms: all channels are served side by side.
            locked_ms = (number + 1) * (200 if channel == "spaced" else 10)
            conn.execute(
                "INSERT INTO demo.file VALUES (%s, %s, %s, 1, '2030-01-01')", (message_id, channel, str(path))
            )
            deliver(conn, message_id, 1, channel, 1 if message_id in KILLED.held else 2, locked_ms)
            if message_id in KILLED.held:
                deliver(conn, message_id, 2, channel, 3, locked_ms + 1000)
            conn.execute(
                """
                INSERT INTO demo.result
                SELECT message_id, num_attempts, worker, %s, NULL, locked_at + interval '5 ms'
                FROM demo.delivery WHERE message_id = %s ORDER BY num_attempts DESC LIMIT 1
                """,
                (hashlib.sha256(path.name.encode()).digest(), message_id),
            )
    return files


def deliver(
    conn: Connection, message_id: int, attempt: int, channel: str, number: int, locked_ms: int
) -> None:
    conn.execute(
        """
        INSERT INTO demo.delivery
        SELECT %s, %s, %s, %s, %s, at, at + interval '1 s'
        FROM (SELECT '2030-01-01'::timestamptz + %s * interval '1 ms') AS locked (at)
        """,
        (message_id, attempt, channel, number, attempt > 1, locked_ms),
    )


def test_a_good_run_has_no_problems(conn: Connection, history: list[File]) -> None:
    report = check(conn, "lonny", history, RULES, KILLED)
    assert report.problems == []
    assert dict(report.claims) == {
        "files": f"87 in 5 channels, {sum(file.size for file in history)} bytes",
        "speed": "1.0 seconds, 87 messages a second",
        "messages": "every file was done exactly once, none lost, none twice; the queue is empty",
        "hashes": "all 87 are those of a direct computation",
        "redelivered": "1 in all, 1 of them held by worker 1 when it was killed",
        "limit": "limited: 3 deliveries, never more than 1 at a time",
        "interval": "spaced: 3 deliveries, at least 200 ms apart (the least: 200.0 ms)",
        "shares": "while both had work, large (60 files) was served 20 times and even (20 files) 20 times",
        "waiting": "a file of the smallest channels, with 1 each, found 60 of large in line"
        " and waited for 1 of them (medians)",
    }


# Message 1 is the first of large, 61 of even, 81 of limited, 84 of spaced, 87 the single one.
@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (
            "UPDATE demo.result SET sha256 = '' WHERE message_id = 5",
            "hash is not that of the file .*/large4$",
        ),
        (
            "UPDATE demo.result SET error = 'denied' WHERE message_id = 5",
            "file could not be read: .*large4: den",
        ),
        ("DELETE FROM demo.result WHERE message_id = 5", "file was lost: .*/large4$"),
        ("DELETE FROM demo.result", "file was lost: .*/large0, .*/large1, .*/large2 and 84 more$"),
        ("INSERT INTO demo.result TABLE demo.result OFFSET 86", "file was done more than once: .*/single0$"),
        ("DELETE FROM demo.file WHERE message_id = 5", "file never had a message: .*/large4$"),
        ("DELETE FROM demo.file WHERE message_id = 5", "result belongs to no file: None$"),
        (
            "UPDATE demo.result SET message_id = 5 WHERE message_id = 6",
            "file was done more than once: .*/large4$",
        ),
        ("INSERT INTO demo.file TABLE demo.file LIMIT 1", "file had more than one message: .*/large0$"),
        ("SELECT lonny.message_create('a', '', 1)", "message is still in the queue: 1$"),
        ("DELETE FROM demo.delivery WHERE num_attempts = 2", "of the killed worker did not come back: 1$"),
        ("UPDATE demo.delivery SET worker = 1", "of the killed worker did not come back: 1$"),
        ("UPDATE demo.delivery SET is_unlocked = false", "of the killed worker did not come back: 1$"),
        ("UPDATE demo.delivery SET is_unlocked = true WHERE message_id = 9", "not delivered as 1st, .*: 9$"),
        ("UPDATE demo.delivery SET num_attempts = 2 WHERE message_id = 9", "not delivered as 1st, .*: 9$"),
        ("INSERT INTO demo.delivery TABLE demo.delivery LIMIT 1", "not delivered as 1st, .*: 1$"),
        (
            "UPDATE demo.result SET done_at = done_at + interval '10 ms' WHERE message_id = 81",
            "limited had 2 messages out at once, it may have 1$",
        ),
        (
            "DELETE FROM demo.result WHERE message_id = 81",  # still locked, for all that is known
            "limited had 2 messages out at once, it may have 1$",
        ),
        (
            "UPDATE demo.delivery SET locked_at = locked_at - interval '1 us' WHERE message_id = 85",
            r"spaced had two deliveries 199\.999 ms apart, 200 ms is the least$",
        ),
        (
            "UPDATE demo.delivery SET locked_at = locked_at + interval '400 ms' WHERE message_id = 80",
            r"large \(60 files\) was served 60 times and even \(20 files\) 20 times$",
        ),
    ],
)
def test_a_bad_run_has_problems(
    conn: Connection, history: list[File], damage: LiteralString, problem: str
) -> None:
    conn.execute(damage)
    assert any(re.search(problem, found) for found in check(conn, "lonny", history, RULES, KILLED).problems)


@pytest.mark.parametrize("killed", [None, Killed(worker=1, held={})])
def test_a_run_without_a_killed_worker_is_bad(
    conn: Connection, history: list[File], killed: Killed | None
) -> None:
    report = check(conn, "lonny", history, RULES, killed)
    assert report.problems == ["no worker was killed while it held messages"]
