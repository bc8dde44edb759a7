"""The other queues: fetched into a cache, installed by their own clients, and asked by what these send."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pylonny.bench.scripts import Step
from pylonny.bench.systems import Connection, Left, count_left, execute, life
from pylonny.bench.workloads import Workload
from pylonny.errors import Error
from pylonny.server import PrivateServer

CACHE = Path(__file__).parents[2] / ".bench"
BATCH = 100

_PROBE = Path(__file__).with_name("probe")


@dataclass(frozen=True, slots=True)
class Peer:
    """What has to be known of one, besides what its client sends."""

    name: str
    language: Literal["python", "node"]
    packages: tuple[str, ...]
    id: str
    """The column of what it dequeues that it is deleted by."""
    id_type: str
    found: tuple[str, str]
    """How its dequeue begins to list columns, and the same with an `n` that is above 0."""
    final: str
    """How the last statement begins of its dequeue, which may have others before it."""
    left: str
    """A query that says of each of its messages that is not finished whether it is taken."""
    batches: bool = True
    narrowed: tuple[str, str] = ("", "")
    """What to change of a dequeue of many so that it has only one column of that name."""


PEERS = [
    Peer(
        "pgmq",
        "python",
        ("pgmq",),
        id="msg_id",
        id_type="bigint",
        found=("SELECT msg_id,", "SELECT 1 AS n, msg_id,"),
        final="SELECT msg_id",
        left="SELECT read_ct > 0 FROM pgmq.q_bench",
    ),
    Peer(
        "procrastinate",
        "python",
        ("procrastinate",),
        id="id",
        id_type="bigint",
        found=("SELECT id, status", "SELECT (id IS NOT NULL)::integer AS n, id, status"),
        final="",
        left="SELECT status = 'doing' FROM procrastinate_jobs WHERE status IN ('todo', 'doing')",
        batches=False,
    ),
    Peer(
        "pgqueuer",
        "python",
        ("pgqueuer", "psycopg[binary]"),
        id="id",
        id_type="bigint",
        found=("SELECT * FROM claimed", "SELECT 1 AS n, * FROM claimed"),
        final="SELECT * FROM claimed",
        left="SELECT status = 'picked' FROM pgqueuer WHERE status IN ('queued', 'picked')",
    ),
    Peer(
        "absurd",
        "python",
        ("absurdctl", "absurd-sdk", "psycopg[binary]"),
        id="run_id",
        id_type="uuid",
        found=("SELECT run_id,", "SELECT 1 AS n, run_id,"),
        final="",
        left="SELECT state = 'running' FROM absurd.r_bench WHERE state IN ('pending', 'sleeping', 'running')",
        batches=False,
    ),
    Peer(
        "graphile-worker",
        "node",
        ("graphile-worker",),
        id="id",
        id_type="bigint",
        found=("returning *", "returning *, 1 as n"),
        final='update "graphile_worker"._private_jobs as jobs',
        left="SELECT locked_at IS NOT NULL FROM graphile_worker._private_jobs",
        narrowed=("returning *", "returning jobs.*"),
    ),
    Peer(
        "pg-boss",
        "node",
        ("pg-boss",),
        id="id",
        id_type="uuid",
        found=("RETURNING j.id,", "RETURNING 1 AS n, j.id,"),
        final="UPDATE pgboss.job",
        left="SELECT state = 'active' FROM pgboss.job WHERE name = 'bench' AND state <= 'active'",
    ),
]


class PeerSystem:
    """A peer whose database is there: `said` is what its client sent, by the names of the steps."""

    def __init__(self, peer: Peer, version: str, said: dict[str, str]) -> None:
        self.name = peer.name
        self.version = version
        self._peer = peer
        self._said = said

    def supports(self, workload: Workload) -> bool:
        """None has channels as pylonny has them."""
        known = not workload.channels and not workload.notify
        return known and (workload.batch == 1 or (self._peer.batches and workload.batch == BATCH))

    def install(self, conn: Connection, workload: Workload) -> str | None:  # noqa: ARG002 - it is installed
        return None

    def load(self, conn: Connection, workload: Workload, count: int) -> None:  # noqa: ARG002
        many = self._said.get("create_many")
        create, size = (many, BATCH) if many else (self._said["create"], 1)
        for _ in range(max(1, count // 10_000)):
            loops = min(count, 10_000) // size
            text = create.strip().rstrip(";")
            execute(
                conn,
                f"DO $do$ BEGIN FOR i IN 1 .. {loops} LOOP EXECUTE $sql${text}$sql$; END LOOP; END $do$",
            )
        execute(conn, "VACUUM (ANALYZE)")

    def steps(self, workload: Workload) -> tuple[Step, Step, Step]:
        peer, said = self._peer, self._said
        if workload.batch > 1:
            return life(
                *(for_pgbench(said["create_many"]), for_pgbench(collected(said["dequeue_many"], peer))),
                for_pgbench(said["delete_many"]).replace(":ids", f":ids::{peer.id_type}[]"),
            )
        one = f":{peer.id}::{peer.id_type}"
        delete = re.sub(
            r":ids?\b", lambda match: f"ARRAY[{one}]" if match[0] == ":ids" else one, said["delete"]
        )
        dequeue = replaced(said["dequeue"], *peer.found)
        return life(for_pgbench(said["create"]), for_pgbench(dequeue), for_pgbench(delete))

    def left(self, conn: Connection) -> Left:
        return count_left(conn, self._peer.left)


def for_pgbench(text: str) -> str:
    """A statement without the semicolon, and without what pgbench would take for a variable: `"a":null`."""
    return re.sub(r'":(?=[A-Za-z_])', '": ', text.strip().rstrip(";"))


def replaced(text: str, old: str, new: str) -> str:
    """The text with the one place changed; if there is not one, the client is not the one that is known."""
    if text.count(old) != 1:
        raise Error(f"{old!r} is not once in what the client sends: {text}")
    return text.replace(old, new)


def collected(text: str, peer: Peer) -> str:
    """A dequeue of many whose one row has all their ids."""
    text = replaced(text, *peer.narrowed) if peer.narrowed[0] else text
    before, found, after = text.strip().rstrip(";").rpartition(peer.final)
    if not found:
        raise Error(f"{peer.final!r} is not in what {peer.name} sends: {text}")
    head = f"{before.rstrip()}, taken" if before.strip() else "WITH taken"
    return f"{head} AS ({found}{after}) SELECT count(*) AS n, array_agg({peer.id}) AS ids FROM taken"


def fetch(peers: Sequence[Peer]) -> None:
    """Get the newest packages with the registries' ordinary clients, unless the cache has them."""
    CACHE.mkdir(exist_ok=True)
    wanted = {
        language: [peer for peer in peers if peer.language == language] for language in ("python", "node")
    }
    if wanted["python"] and not _python().exists():
        _run([sys.executable, "-m", "venv", str(CACHE / "venv")])
    if wanted["node"] and not shutil.which("npm"):
        names = ", ".join(peer.name for peer in wanted["node"])
        raise Error(f"{names} take Node.js and npm", "install them, or name other peers with --peers")
    for language, found in wanted.items():
        for peer in found:
            stamp = CACHE / f"{language}.{peer.name}"
            if stamp.exists():
                continue
            if language == "python":
                pip = [str(_python()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
                _run([*pip, *peer.packages])
            else:
                npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(CACHE)]
                # Or npm would choose what suits the Node.js that is here.
                _run([*npm, *(f"{package}@latest" for package in peer.packages)])
            stamp.touch()


def install(server: PrivateServer, peer: Peer, database: str) -> PeerSystem:
    """Have the peer's client install itself in a new database, and listen to what it sends."""
    server.run("createdb", database)
    with tempfile.TemporaryDirectory(prefix="pylonny-bench-") as folder:
        command = (
            [str(_python()), str(_PROBE.with_suffix(".py"))]
            if peer.language == "python"
            else ["node", str(_PROBE.with_suffix(".cjs")), str(CACHE / "node_modules")]
        )
        environment = {**server.environment(), "PGDATABASE": database, "PATH": os.environ["PATH"]}
        environment.pop("LD_LIBRARY_PATH", None)  # the packages bring their own libpq
        _run([*command, peer.name, str(BATCH)], cwd=folder, env=environment)
        told = json.loads(Path(folder, "statements.json").read_text())
    return PeerSystem(peer, told["version"], told["statements"])


def _python() -> Path:
    return CACHE / "venv" / "bin" / "python"


def _run(command: list[str], cwd: str | None = None, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        words = " ".join(done.stdout.split())[-500:]
        raise Error(f"{Path(command[0]).name} failed: {words or done.returncode}")
