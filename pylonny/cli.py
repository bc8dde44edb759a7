"""The command: install, uninstall, status, grant, revoke, check, render, extension, bench.

A failure is one line on stderr that says what to do. Exit status: 0 done, 1 failed or refused (or check found
something), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, LiteralString, NoReturn

from pylonny import __version__
from pylonny.errors import Error, InvalidNameError

if TYPE_CHECKING:
    import psycopg

    from pylonny.migrate import Installation, Installed, Plan

PROG = "python -m pylonny"
CANCEL_TIMEOUT = 5  # seconds
CONNECT_TIMEOUT = 10  # seconds, where the connection string and PGCONNECT_TIMEOUT say nothing

_DATABASE = """\
The database is that of --dsn, else of DATABASE_URL, else that of libpq's environment (PGHOST, PGDATABASE,
PGUSER, PGSERVICE, ...). Passwords may come from there too, or from ~/.pgpass."""

_DESCRIPTION = """\
A multi-tenant message queue that is nothing but PostgreSQL: put it into a database, take it out,
see what is there, measure it."""

_EPILOG = f"""\
examples:
  {PROG} install --dsn postgresql://localhost/app
  {PROG} install --schema jobs --event-channel jobs_events
  {PROG} status
  {PROG} grant worker --as consumer
  {PROG} check
  {PROG} render --schema jobs > jobs.sql
  {PROG} extension --out extension
  {PROG} uninstall --schema jobs --yes
  {PROG} bench

{_DATABASE}

Exit status: 0 done, 1 failed (one line on stderr says why) or check found something, 2 wrong usage,
130 interrupted."""

_INSTALL = f"""\
Install the queue into a schema, or bring the one that is there up to date. It is one transaction; doing it
again does no harm, and messages stay. An empty schema that is there already is used; any other that is not
a queue is refused.

Others may go on using the queue. Where tables are to be changed they are kept out for a moment, and the
install gives up, and tries again later, rather than have them wait for long. A queue of a newer pylonny is
left as it is.

{_DATABASE}"""

_INSTALL_EPILOG = f"""\
examples:
  {PROG} install                                into schema lonny of libpq's default database
  {PROG} install --event-channel lonny_events   with a NOTIFY there for every event
  {PROG} install --no-event-channel             without events again
  {PROG} install --wake-channel lonny_wake      with a NOTIFY there for workers that sleep
  {PROG} install --dry-run --to 1               what would be done, if that leads to version 1"""

_UNINSTALL = f"""\
Drop a queue and every message in it. Asks first. What is not the queue's stays: other objects in its schema
keep the schema, and if something depends on the queue, as a view of its tables, nothing is dropped.

{_DATABASE}"""

_UNINSTALL_EPILOG = f"""\
examples:
  {PROG} uninstall --schema jobs
  {PROG} uninstall --schema jobs --yes          does not ask, for scripts"""

_STATUS = f"""\
Show every queue of a database: its schema, the number of its last migration, the pylonny that installed it
last, where its events go, the role that it belongs to; below that, which migrations this pylonny would run,
and what somebody has changed since the install.

{_DATABASE}"""

_STATUS_EPILOG = f"""\
examples:
  {PROG} status
  {PROG} status --schema jobs                   fails if there is none"""

_GRANT = f"""\
Make a role a producer, a consumer or an operator of a queue: let it call what these need, and nothing else.
Nobody needs rights on the queue's tables. Whoever has installed the queue may use all of it.

  producer   creates messages
  consumer   dequeues them, and deletes, defers and keeps what it has
  operator   sets policies, cancels, looks at what there is, checks and repairs

A role may be several of these: grant each. Every install keeps what was granted. With --channel-prefix a
producer may create messages only in channels whose names begin so; the last grant says. That is looked up
by the role that has logged in: bind that one, or one that it inherits from.

{_DATABASE}"""

_GRANT_EPILOG = f"""\
examples:
  {PROG} grant shop --as producer
  {PROG} grant worker --as consumer
  {PROG} grant tenant_1 --as producer --channel-prefix tenant-1/"""

_REVOKE = f"""\
Take back from a role what grant has given: it is no producer, consumer or operator any more. Do it for all
that it is before you drop the role.

{_DATABASE}"""

_REVOKE_EPILOG = f"""\
examples:
  {PROG} revoke worker --as consumer
  {PROG} revoke tenant_1 --as producer --schema jobs"""

_CHECK = f"""\
Look whether anything is wrong with a queue: messages that nothing will deliver, limits that are exceeded,
what contradicts itself, transactions left open, indexes that are missing. It reads the queue a few times
(about a second for a million messages), and nobody has to wait for it. Prints each fault with what to do
about it, and exits with 1 if there is one (with --repair: one that is left).

{_DATABASE}"""

_CHECK_EPILOG = f"""\
examples:
  {PROG} check
  {PROG} check --repair                         mends it, and says what it did"""

_RENDER = """\
Print the SQL of an install, as one transaction: to read, to review, or to run with psql or a migration
tool. It needs no database, and leaves the same state as install. It is for a schema without a queue, or,
with --from, for one whose last migration has that number (see status); in any other it fails and does
nothing. An upgrade sets the event channel and the wake channel anew, so say which."""

_RENDER_EPILOG = f"""\
examples:
  {PROG} render | less
  {PROG} render --schema jobs --event-channel jobs_events | psql --set ON_ERROR_STOP=1 app
  {PROG} render --from 1 --no-event-channel --no-wake-channel     an upgrade"""

_EXTENSION = """\
Write the files of an extension, with which CREATE EXTENSION does what install does: a control file, the SQL
to create it, and the SQL to update it from each earlier release. They have to be where the server looks for
extensions: from PostgreSQL 18 on in a folder named `extension` below one of extension_control_path, before
that in the server's own, below `pg_config --sharedir`. Managed services mostly do not let you: use install.

A database has the extension once, in a schema that you choose. The channels to NOTIFY on are in the files, so
they are the same for all databases of the server, and an update sets them anew."""

_EXTENSION_EPILOG = f"""\
examples:
  {PROG} extension --out /srv/queue/extension       extension_control_path = '/srv/queue:$system'
  {PROG} extension --out $SHAREDIR/extension        what `pg_config --sharedir` says, before 18
  {PROG} extension --out extension --wake-channel lonny_wake
then, as whoever is to own the queue:
  CREATE SCHEMA lonny; CREATE EXTENSION pylonny SCHEMA lonny;
  ALTER EXTENSION pylonny UPDATE;"""

_BENCH = f"""\
Measure how fast the queue is on your server, beside a bare table there that does no more than hand out rows.
It works in schemas of its own, pylonny_bench_..., and drops them at the end, also when it is interrupted; no
queue that is there is touched. But it is work for the server, and others' work makes the figures worse.

{_DATABASE}"""

_BENCH_EPILOG = f"""\
examples:
  {PROG} bench                                  about five minutes
  {PROG} bench --duration 1 --repetitions 1     a first impression
  {PROG} bench --workload W1,W5 --begin --json figures.json --plot figures.svg"""


class UsageError(Error):
    """The command cannot be meant as it was given."""


class _Parser(argparse.ArgumentParser):
    """A parser that needs one line for an error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {_one_line(message)}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments`, those of the process if None, and return its exit status.

    Like argparse it raises SystemExit for wrong usage and --help.
    """
    _prepare_streams()
    options = parser().parse_args(arguments)
    prog = f"{PROG} {options.command}"
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        status = run(options)
        sys.stdout.flush()
    except Error as error:
        print(f"{prog}: {_one_line(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        _discard_output()
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _discard_output()  # the reader has had enough, as in `render | head`
        return 1
    except OSError as error:
        _discard_output()
        print(f"{prog}: {_one_line(str(error))}", file=sys.stderr)
        return 1
    return status


def _prepare_streams() -> None:
    """Make it safe to read from and write to the standard streams, whatever they are."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the caller closed it, as in `status >&-`
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - until the end
    reconfigure = getattr(sys.stdout, "reconfigure", None)  # what stands in for it may not have that
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")  # a name may have letters that a terminal has not


def _discard_output() -> None:
    """Keep what is not written yet from being written at exit, where it would fail or block."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser() -> _Parser:
    """The parser of the command line."""
    database = _Parser(add_help=False)
    database.add_argument(
        "--dsn", help="connection string, postgresql://user@host/database or key=value pairs"
    )
    schema = _Parser(add_help=False)
    schema.add_argument(
        "--schema",
        default="lonny",
        type=_name("schema"),
        help="schema of the queue (default: %(default)s)",
    )

    def notify(default: str) -> _Parser:
        notify = _Parser(add_help=False)
        for what, told, without in (
            ("event", "of events", "no events"),
            ("wake", "sleeping workers, seldom and without a payload", "wake nobody"),
        ):
            choice = notify.add_mutually_exclusive_group()
            choice.add_argument(
                f"--{what}-channel",
                metavar="CHANNEL",
                type=_name("notify channel"),
                help=f"channel to NOTIFY {told} (default: {default})",
            )
            choice.add_argument(f"--no-{what}-channel", action="store_true", help=without)
        return notify

    parser = _Parser(
        prog=PROG,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pylonny {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")

    def command(
        run: Callable[[argparse.Namespace], int],
        summary: str,
        description: str,
        epilog: str,
        *parents: _Parser,
    ) -> _Parser:
        parser = commands.add_parser(
            run.__name__.lstrip("_"),
            help=summary,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            parents=parents,
        )
        parser.set_defaults(run=run)
        return parser

    install = command(
        _install,
        "install the queue, or bring it up to date",
        _INSTALL,
        _INSTALL_EPILOG,
        database,
        schema,
        notify("the one that is installed, else none"),
    )
    install.add_argument("--dry-run", action="store_true", help="only print what would be done")
    install.add_argument(
        "--to",
        type=at_least(1),
        metavar="VERSION",
        help="the migration that the schema is to have afterwards, else nothing is done",
    )
    install.add_argument(
        "--lock-timeout",
        type=_seconds,
        default=2.0,
        metavar="SECONDS",
        help="how long to wait, and have others wait, to change tables (default: %(default)g)",
    )
    install.add_argument(
        "--attempts", type=at_least(1), default=10, metavar="N", help="how often (default: %(default)s)"
    )
    uninstall = command(
        _uninstall, "drop the queue with its messages", _UNINSTALL, _UNINSTALL_EPILOG, database, schema
    )
    uninstall.add_argument("--yes", action="store_true", help="do not ask")
    status = command(_status, "show what is installed", _STATUS, _STATUS_EPILOG, database)
    status.add_argument("--schema", type=_name("schema"), help="only the queue in this schema")
    role = _Parser(add_help=False)
    role.add_argument("role", metavar="ROLE", help="a role of the server, as in CREATE ROLE")
    role.add_argument(
        "--as", dest="kind", required=True, choices=["producer", "consumer", "operator"], help="what it is"
    )
    grant = command(_grant, "let a role use the queue", _GRANT, _GRANT_EPILOG, role, database, schema)
    grant.add_argument(
        "--channel-prefix",
        metavar="PREFIX",
        help="what the channels begin with that a producer is bound to (default: it is not bound)",
    )
    command(_revoke, "let it no more", _REVOKE, _REVOKE_EPILOG, role, database, schema)
    check = command(_check, "look whether all is well", _CHECK, _CHECK_EPILOG, database, schema)
    check.add_argument("--repair", action="store_true", help="mend what is found")
    render = command(_render, "print the SQL of an install", _RENDER, _RENDER_EPILOG, schema, notify("none"))
    render.add_argument(
        "--from",
        dest="from_version",
        type=at_least(1),
        metavar="VERSION",
        help="number of the last migration that is there (default: none, a first install)",
    )
    extension = command(
        _extension, "write the files of an extension", _EXTENSION, _EXTENSION_EPILOG, notify("none")
    )
    extension.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write them into, made if need be"
    )
    _add_bench_options(
        command(_bench, "measure the queue's speed on a server", _BENCH, _bench_epilog(), database)
    )
    return parser


def _bench_epilog() -> str:
    from pylonny.bench.workloads import DEFAULT, WORKLOADS

    lines = [
        f"  {workload.name:<5} {workload.title}{'' if workload.name in DEFAULT else '  *'}"
        for workload in WORKLOADS.values()
    ]
    return "\n".join([_BENCH_EPILOG, "", "workloads (* only if asked for):", *lines])


def _add_bench_options(parser: _Parser) -> None:
    parser.add_argument(
        "--workload",
        action="append",
        metavar="W1,W5,...",
        help="measure these (default: those without * below; may be given again)",
    )
    parser.add_argument(
        "--duration",
        type=at_least(1),
        default=3,
        metavar="SECONDS",
        help="length of a run (default: %(default)s)",
    )
    parser.add_argument(
        "--snapshot-duration",
        type=at_least(2),
        default=120,
        metavar="SECONDS",
        help="length of a run beside a held snapshot, as those of W6 (default: %(default)s)",
    )
    parser.add_argument(
        "--repetitions",
        type=at_least(1),
        default=3,
        metavar="N",
        help="how often each is run; the median counts (default: %(default)s)",
    )
    parser.add_argument(
        "--clients", type=at_least(1), metavar="N", help="sessions at a time (default: 8, with batches 4)"
    )
    parser.add_argument(
        "--synchronous-commit",
        choices=["on", "off", "both"],
        default="both",
        help="PostgreSQL's setting of that name, in the sessions (default: %(default)s)",
    )
    parser.add_argument(
        "--begin",
        action="store_true",
        help="send BEGIN and COMMIT around every call, as drivers do that are not in autocommit mode",
    )
    parser.add_argument(
        "--driver",
        choices=["auto", "pgbench", "psycopg"],
        default="auto",
        help="who sends the statements (default: pgbench if it is found, else psycopg)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw them (.svg, .png or .pdf; takes matplotlib)"
    )


def _install(options: argparse.Namespace) -> int:
    from pylonny import migrate

    event_channel = None if options.no_event_channel else options.event_channel or migrate.KEEP
    wake_channel = None if options.no_wake_channel else options.wake_channel or migrate.KEEP
    with _connected(options.dsn) as conn:
        if options.dry_run:
            plan = migrate.plan(conn, options.schema, event_channel, to=options.to, wake_channel=wake_channel)
            _print_plan(plan, conn.info.dbname)
            return 0
        done = migrate.install(
            conn,
            options.schema,
            event_channel,
            wake_channel=wake_channel,
            to=options.to,
            lock_timeout_ms=round(options.lock_timeout * 1000),
            attempts=options.attempts,
        )
        place = _place(done.schema, conn.info.dbname)
    if done.newer is not None:
        print(_left(place, done.newer), file=sys.stderr)
        return 0
    what = "Installed" if done.applied else "Up to date"
    print(f"{what}: {place}, version {done.version}, {_notified(done)}.")
    return 0


def _print_plan(plan: Plan, database: str) -> None:
    place = _place(plan.schema, database)
    if plan.newer is not None:
        print(_left(place, plan.newer))
        return
    before = "no queue yet" if plan.version is None else f"version {plan.version}"
    print(f"{place}: {before}, {_notified(plan)} afterwards.")
    for path in plan.pending:
        print(f"  run      {path}")
    for path in plan.replaced:
        print(f"  replace  {path}")
    if plan.pending and plan.version is not None:
        print("The queue would be locked meanwhile.")
    elif not plan.pending and not plan.replaced:
        print("Nothing is new: functions and rights would be made anew.")


def _place(schema: str, database: str) -> str:
    return f'schema "{schema}" of database "{database}"'


def _notified(of: Installed | Plan) -> str:
    events = "no events" if of.event_channel is None else f'events on channel "{of.event_channel}"'
    return events if of.wake_channel is None else f'{events}, wake-ups on channel "{of.wake_channel}"'


def _left(place: str, newer: str) -> str:
    return f"Left as it is: {place} has a queue of pylonny {newer}; this is {__version__}; upgrade pylonny."


def _uninstall(options: argparse.Namespace) -> int:
    from pylonny import migrate

    with _connected(options.dsn) as conn:
        if not options.yes:
            migrate.check_installed(conn, options.schema)
            place = _place(options.schema, conn.info.dbname)
            _confirm(f"Drop the queue in {place}, with all its messages?")
        done = migrate.uninstall(conn, options.schema)
    if done.dropped_schema:
        print(f'Uninstalled: schema "{done.schema}" is gone.')
    elif done.remaining:
        print(f'Uninstalled: schema "{done.schema}" stays, others live in it: {", ".join(done.remaining)}.')
    else:
        print(f'Uninstalled: schema "{done.schema}" stays, install did not create it. It is empty.')
    return 0


def _status(options: argparse.Namespace) -> int:
    from pylonny import migrate

    with _connected(options.dsn) as conn:
        found = [one for one in migrate.status(conn) if options.schema in (None, one.schema)]
        if options.schema is not None and not found:
            raise migrate.not_installed(options.schema)
        if not found:
            print(f'No queue of pylonny in database "{conn.info.dbname}".')
            return 0
    print(
        _table(
            [("SCHEMA", "VERSION", "PYLONNY", "EVENT CHANNEL", "WAKE CHANNEL", "OWNER"), *map(_cells, found)]
        )
    )
    for one in found:
        for path in one.pending:
            print(f"{_one_line(one.schema)}: pending: {path}")
        for what in one.drift:
            print(f"{_one_line(one.schema)}: {_one_line(what)}")
    return 0


def _grant(options: argparse.Namespace) -> int:
    from pylonny import migrate

    if options.channel_prefix is not None and options.kind != "producer":
        raise UsageError("--channel-prefix is for producers", "leave it out, or give --as producer")
    with _connected(options.dsn) as conn:
        migrate.grant(conn, options.role, options.kind, options.schema, options.channel_prefix)
        place = _place(options.schema, conn.info.dbname)
    bound = f', in channels that begin with "{options.channel_prefix}"' if options.channel_prefix else ""
    print(f'Granted: role "{options.role}" is {_a(options.kind)} of the queue in {place}{bound}.')
    return 0


def _revoke(options: argparse.Namespace) -> int:
    from pylonny import migrate

    with _connected(options.dsn) as conn:
        migrate.revoke(conn, options.role, options.kind, options.schema)
        place = _place(options.schema, conn.info.dbname)
    print(f'Revoked: role "{options.role}" is not {_a(options.kind)} of the queue in {place}.')
    return 0


def _a(kind: str) -> str:
    return f"an {kind}" if kind == "operator" else f"a {kind}"


def _check(options: argparse.Namespace) -> int:
    from psycopg import sql

    from pylonny import migrate

    def call(function: LiteralString) -> list[tuple[str, ...]]:
        query = sql.SQL("SELECT kind, channel, message_id::text, found, remedy FROM {}.{}()")
        rows = conn.execute(query.format(sql.Identifier(options.schema), sql.SQL(function))).fetchall()
        return [tuple(value or "" for value in row) for row in rows]

    with _connected(options.dsn) as conn:
        migrate.check_installed(conn, options.schema)
        faults = call("repair" if options.repair else "check")
        left = call("check") if faults and options.repair else faults
    if faults:
        print(
            _table([("FAULT", "CHANNEL", "MESSAGE", "FOUND", "DONE" if options.repair else "TO DO"), *faults])
        )
    else:
        print(f'Nothing is wrong with the queue in schema "{options.schema}".')
    return 1 if left else 0


def _render(options: argparse.Namespace) -> int:
    from pylonny.templates import render_install

    for what in ("event", "wake"):
        given = getattr(options, f"{what}_channel") is not None or getattr(options, f"no_{what}_channel")
        if options.from_version and not given:
            raise UsageError(
                f"an upgrade sets the {what} channel anew",
                f"give --{what}-channel CHANNEL or --no-{what}-channel",
            )
    script = render_install(
        options.schema,
        options.event_channel,
        from_version=options.from_version,
        wake_channel=options.wake_channel,
    )
    # UTF-8, whatever the terminal's encoding: the script says that it is.
    sys.stdout.buffer.write(script.encode())
    return 0


def _extension(options: argparse.Namespace) -> int:
    from pylonny.extension import write_extension

    for path in write_extension(options.out, options.event_channel, options.wake_channel):
        print(path)
    return 0


def _bench(options: argparse.Namespace) -> int:
    from pylonny.bench import workloads

    names = [
        name.strip() for text in options.workload or [",".join(workloads.DEFAULT)] for name in text.split(",")
    ]
    chosen = workloads.chosen(names)
    with _connected(options.dsn) as conn:
        from pylonny.bench import command, run

        commits = (options.synchronous_commit,) if options.synchronous_commit != "both" else ("on", "off")
        how = run.Options(
            workloads=tuple(chosen),
            seconds=options.duration,
            snapshot_seconds=options.snapshot_duration,
            repetitions=options.repetitions,
            clients=options.clients,
            begin=options.begin,
            synchronous_commit=commits,
        )
        command.run(conn, how, options.driver, options.json, options.plot)
    return 0


@contextmanager
def _connected(dsn: str | None) -> Generator[psycopg.Connection[Any]]:
    """A connection to the database that was asked for; errors of the database become Error."""
    try:
        import psycopg
    except ImportError as error:
        raise Error(
            f"psycopg does not start: {error}", "bring it its libpq with  pip install 'pylonny[binary]'"
        ) from error
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    # Interrupted, psycopg logs that it cannot roll back; closing the connection does.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())

    source = "DATABASE_URL" if dsn is None else "--dsn"
    conninfo = os.environ.get("DATABASE_URL", "") if dsn is None else dsn
    try:
        parameters = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        # Without libpq's reason, which repeats what was given, passwords included: this may go to a log.
        raise UsageError(
            f"{source} is no connection string that libpq understands",
            "give it as  postgresql://user@host/database  or  host=... dbname=...",
        ) from None
    if "connect_timeout" not in parameters and "PGCONNECT_TIMEOUT" not in os.environ:
        parameters["connect_timeout"] = CONNECT_TIMEOUT
    parameters.setdefault("fallback_application_name", "pylonny")
    parameters["client_encoding"] = "utf8"
    try:
        conn = psycopg.connect(make_conninfo("", **parameters), autocommit=True)
    except psycopg.Error as error:
        # libpq goes on, in indented lines, with guesses.
        lines = [line for line in str(error).splitlines() if not line.startswith("\t")]
        raise Error(
            "cannot connect: "
            + " ".join(lines).removeprefix("connection is bad: ").removeprefix("connection failed: "),
            "check that the server runs, and --dsn, DATABASE_URL or PGHOST, PGDATABASE and PGUSER",
        ) from error
    try:
        conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # whatever the role's default is
        yield conn
    except psycopg.Error as error:
        raise Error(str(error)) from error
    except KeyboardInterrupt:
        with suppress(psycopg.Error):
            _cancel(conn)
        raise
    finally:
        conn.close()


def _cancel(conn: psycopg.Connection) -> None:
    """End what the server is doing, else it would go on, or wait, for as long as that takes.

    A request that is there before the statement does nothing, so it is repeated.
    """
    end = monotonic() + CANCEL_TIMEOUT
    while conn.info.transaction_status.name == "ACTIVE" and monotonic() < end:
        conn.cancel_safe(timeout=CANCEL_TIMEOUT)
        select([conn], [], [], 0.2)
        conn.pgconn.consume_input()
        while not conn.pgconn.is_busy() and conn.pgconn.get_result() is not None:
            pass


def _confirm(question: str) -> None:
    print(f"{_one_line(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        print(file=sys.stderr)
    if answer.strip().lower() not in ("y", "yes"):
        raise Error("nothing was dropped", "answer y, or give --yes")


def _cells(found: Installation) -> tuple[str, ...]:
    if not found.readable:
        return found.schema, "?", "?", "? (this role may not read it)", "?", found.owner
    return (
        found.schema,
        str(found.version),
        str(found.package_version) + ("" if found.extension is None else " (extension)"),
        "none" if found.event_channel is None else found.event_channel,
        "none" if found.wake_channel is None else found.wake_channel,
        found.owner,
    )


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    lines = [[_one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _name(what: Literal["schema", "notify channel"]) -> Callable[[str], str]:
    """What argparse converts the name of a schema or of a channel to NOTIFY on with."""

    def convert(text: str) -> str:
        from pylonny import templates

        checks = {"schema": templates.check_schema, "notify channel": templates.check_notify_channel}
        try:
            return checks[what](text)
        except InvalidNameError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def at_least(least: int) -> Callable[[str], int]:
    """What argparse converts a whole number with that is not below the least."""

    def convert(text: str) -> int:
        with suppress(ValueError):
            if int(text) >= least:
                return int(text)
        raise argparse.ArgumentTypeError(f"must be a whole number, {least} or more, not {text!r}")

    return convert


def _seconds(text: str) -> float:
    """What argparse converts a time with that is not 0: for PostgreSQL that would be for ever."""
    with suppress(ValueError):
        if 0.001 <= float(text) <= 3600:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be seconds, from 0.001 to 3600, not {text!r}")


def _one_line(text: str) -> str:
    return " ".join(text.split())
