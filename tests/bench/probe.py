"""Run by the Python that has the peers: has one create what it needs, uses it, and prints what it sent.

python probe.py PEER MESSAGES: the database is that of libpq's environment. It takes as many messages through
their lives, first one alone, then all at once, where the client can.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import sys
import uuid
from collections.abc import Callable, Coroutine
from datetime import timedelta
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Not imported by name: the type checkers run where these packages are not.
psycopg: Any = import_module("psycopg")

CONTENT = "x" * 86  # in JSON, with its key, 100 bytes
MARK = 987654321987
UUID_MARK = uuid.UUID(int=MARK)

Recorded = list[tuple[Any, Any, Any]]


def record(recorded: Recorded) -> None:
    """Have every cursor note what it executes."""
    for name in ("Cursor", "AsyncCursor"):
        cursor = getattr(psycopg, name)
        cursor.execute = noting(cursor.execute, recorded)


def noting(original: Callable[..., Any], recorded: Recorded) -> Callable[..., Any]:
    @functools.wraps(original)
    def execute(self: Any, query: Any, params: Any = None, **options: Any) -> Any:
        recorded.append((self, query, params))
        return original(self, query, params, **options)

    return execute


def literal(recorded: Recorded, ids: object) -> str:
    """The last statement with its values in it, and variables in the places of the ids."""
    cursor, query, params = recorded[-1]
    conn = cursor.connection
    params = marked(params, ids)
    if "Raw" in type(cursor).__name__:  # has $1, $2, ...
        text = re.sub(
            r"\$(\d+)", lambda match: psycopg.sql.Literal(params[int(match[1]) - 1]).as_string(conn), query
        )
    else:
        asynchronous = isinstance(conn, psycopg.AsyncConnection)
        client = psycopg.AsyncClientCursor if asynchronous else psycopg.ClientCursor
        text = client(conn).mogrify(query, params)
    for mark in (f"'{{{MARK}}}'", f"'{UUID_MARK.hex}'", str(MARK)):
        text = text.replace(mark, ":ids" if "{" in mark else ":id")
    return text


def kind_of(value: object) -> object:
    """Its type, in a way that type checkers do not follow: they complain of what is in it."""
    return type(value)


def marked(value: Any, ids: Any) -> Any:
    """The parameters with a mark for the id, or a list of one mark for the ids."""
    kind = kind_of(value)
    if ids is None:
        return value
    if kind is dict:
        return {key: marked(each, ids) for key, each in value.items()}
    if kind is tuple:
        return tuple(marked(each, ids) for each in value)
    if kind is not kind_of(ids) or value != ids:
        return value
    if kind is list:
        return [MARK]
    return UUID_MARK if kind is uuid.UUID else MARK


def pgmq(recorded: Recorded, messages: int) -> dict[str, str]:
    install: Any = import_module("pgmq.install")
    with psycopg.connect("", autocommit=True) as conn:
        conn.execute(install.get_embedded_install_sql())
        host, user, database = conn.info.host, conn.info.user, conn.info.dbname
    queue: Any = import_module("pgmq").PGMQueue(
        host=host,
        port="5432",
        username=user,
        password="none",  # noqa: S106 - it insists on one
        database=database,
        init_extension=False,
    )
    queue.create_queue("bench")
    said: dict[str, str] = {}
    message = {"content": CONTENT}
    queue.send("bench", message)
    said["create"] = literal(recorded, None)
    got = queue.read("bench", vt=30)
    said["dequeue"] = literal(recorded, None)
    queue.delete("bench", got.msg_id)
    said["delete"] = literal(recorded, got.msg_id)
    queue.send_batch("bench", [message] * messages)
    said["create_many"] = literal(recorded, None)
    ids = [each.msg_id for each in queue.read("bench", vt=30, qty=messages)]
    said["dequeue_many"] = literal(recorded, None)
    queue.delete_batch("bench", ids)
    said["delete_many"] = literal(recorded, ids)
    queue.close()
    return said


def absurd(recorded: Recorded, messages: int) -> dict[str, str]:  # noqa: ARG001 - it has no batches
    control: Any = import_module("absurdctl")
    with psycopg.connect("", autocommit=True) as conn:
        conn.execute(control.BUNDLED_SCHEMA_SQL)
    sdk: Any = import_module("absurd_sdk")
    client = sdk.Absurd(psycopg.connect("", autocommit=True), queue_name="bench")
    client.create_queue()
    done: list[Any] = []

    def work(params: Any, _: Any) -> None:
        done.append(params)

    client.register_task(name="bench")(work)
    said: dict[str, str] = {}
    client.spawn("bench", {"content": CONTENT})
    said["create"] = literal(recorded, None)
    before = len(recorded)
    client.work_batch(claim_timeout=30)
    said["dequeue"] = literal(recorded[: before + 1], None)
    run_id = recorded[-1][2][1]
    said["delete"] = literal(recorded, run_id)
    return said


def procrastinate(recorded: Recorded, messages: int) -> dict[str, str]:
    async def use() -> dict[str, str]:
        module: Any = import_module("procrastinate")
        app = module.App(connector=module.PsycopgConnector(conninfo=""))

        def work(content: str) -> None:
            print(content)

        task = app.task(work, name="bench", queue="bench")
        said: dict[str, str] = {}
        async with app.open_async():
            await app.schema_manager.apply_schema_async()
            worker = await app.job_manager.register_worker()
            await task.defer_async(content=CONTENT)
            said["create"] = literal(recorded, None)
            job = await app.job_manager.fetch_job(["bench"], worker_id=worker)
            said["dequeue"] = literal(recorded, None)
            succeeded = import_module("procrastinate.jobs").Status.SUCCEEDED
            await app.job_manager.finish_job(job, succeeded, delete_job=True)
            said["delete"] = literal(recorded, job.id)
            await task.batch_defer_async(*[{"content": CONTENT}] * messages)
            said["create_many"] = literal(recorded, None)
            for _ in range(messages):
                job = await app.job_manager.fetch_job(["bench"], worker_id=worker)
                await app.job_manager.finish_job(job, succeeded, delete_job=True)
        return said

    return run(use())


def pgqueuer(recorded: Recorded, messages: int) -> dict[str, str]:
    async def use() -> dict[str, str]:
        conn = await psycopg.AsyncConnection.connect("", autocommit=True)
        driver = import_module("pgqueuer.db").PsycopgDriver(conn)
        queries = import_module("pgqueuer.queries").Queries(driver)
        parameter: Any = import_module("pgqueuer.ports.repository").EntrypointExecutionParameter
        await queries.install()
        manager = uuid.uuid4()

        async def take(count: int) -> Any:
            return await queries.dequeue(
                batch_size=count,
                entrypoints={"bench": parameter(concurrency_limit=0)},
                queue_manager_id=manager,
                global_concurrency_limit=None,
                heartbeat_timeout=timedelta(seconds=30),
            )

        content = b"x" * 100
        said: dict[str, str] = {}
        await queries.enqueue("bench", content)
        said["create"] = literal(recorded, None)
        jobs = await take(1)
        said["dequeue"] = literal(recorded, None)
        await queries.log_jobs([(job, "successful", None) for job in jobs])
        said["delete"] = literal(recorded, [job.id for job in jobs])
        await queries.enqueue(["bench"] * messages, [content] * messages, [0] * messages)
        said["create_many"] = literal(recorded, None)
        jobs = await take(messages)
        said["dequeue_many"] = literal(recorded, None)
        await queries.log_jobs([(job, "successful", None) for job in jobs])
        said["delete_many"] = literal(recorded, [job.id for job in jobs])
        await conn.close()
        return said

    return run(use())


def run(coroutine: Coroutine[Any, Any, dict[str, str]]) -> dict[str, str]:
    return asyncio.run(coroutine)


PEERS = {"pgmq": pgmq, "absurd": absurd, "procrastinate": procrastinate, "pgqueuer": pgqueuer}
PACKAGES = {"absurd": "absurdctl"}


def main(peer: str, messages: int) -> None:
    recorded: Recorded = []
    record(recorded)
    said = PEERS[peer](recorded, messages)
    found = version(PACKAGES.get(peer, peer))
    if peer == "pgmq":  # the package's own version is not that of its SQL
        sql = import_module("pgmq.install").get_embedded_sql_version()
        found = f"{sql} (package {found})"
    Path("statements.json").write_text(json.dumps({"version": found, "statements": said}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
