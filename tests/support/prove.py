"""Run pgTAP files under pg_prove, on a private server, once for every schema name: `make prove`."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support import pgtap
from tests.support.databases import SCHEMAS, create_template, options, private_server


def main(files: list[str]) -> int:
    """Run the files, all of pgtap/ if none are given; the exit status is 0 if every test passed."""
    status = 0
    with private_server() as server:
        database = create_template(server)
        for schema in SCHEMAS:
            sys.stdout.write(f"schema {schema}\n")
            sys.stdout.flush()
            status |= subprocess.run(
                ["pg_prove", "--psql-bin", str(server.bin / "psql"), "--dbname", database, *files],
                env=server.environment() | {"PGOPTIONS": options(schema)},
                check=False,
            ).returncode
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or [os.path.relpath(file) for file in pgtap.FILES]))
