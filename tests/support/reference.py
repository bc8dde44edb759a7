"""The reference in the README: what the COMMENTs in the database say of functions and types.

`make docs` writes it.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from pylonny.migrate import install
from tests.support.databases import private_server

if TYPE_CHECKING:
    from tests.support.sessions import Connection

README = Path(__file__).parents[2] / "README.md"
WIDTH = 150
_SECTION = re.compile(r"(?<=<!-- reference: make docs -->\n).*?(?=<!-- /reference -->)", re.DOTALL)

# What belongs together, in the order in which one meets it: the beginnings of names.
_GROUPS = ("message_", "channel_", "check", "repair", "role_", "version_")

_FUNCTIONS = """
SELECT p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
       obj_description(p.oid, 'pg_proc')
FROM pg_proc p
WHERE p.pronamespace = 'lonny'::regnamespace AND p.proname NOT LIKE '\\_%'
ORDER BY p.proname
"""
_TYPES = """
SELECT c.relname, obj_description(c.reltype, 'pg_type'),
       array_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum),
       array_agg(col_description(c.oid, a.attnum) ORDER BY a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'lonny'::regnamespace AND c.relkind = 'c' AND c.relname NOT LIKE '\\_%'
GROUP BY c.oid, c.relname ORDER BY c.relname
"""
_ENUMS = """
SELECT t.typname, obj_description(t.oid, 'pg_type'), array_agg(e.enumlabel::text ORDER BY e.enumsortorder)
FROM pg_type t JOIN pg_enum e ON e.enumtypid = t.oid
WHERE t.typnamespace = 'lonny'::regnamespace AND t.typname NOT LIKE '\\_%'
GROUP BY t.oid, t.typname ORDER BY t.typname
"""


def render(conn: Connection) -> str:
    """The reference of the queue in the schema `lonny`, in Markdown."""
    conn.execute("SET search_path = lonny, pg_catalog")
    parts = ["### Functions\n"]
    functions = conn.execute(_FUNCTIONS).fetchall()
    for name, arguments, result, comment in sorted(functions, key=lambda row: (_group(row[0]), row[0])):
        parts.append(f"**`{name}({_plain(arguments)})`** → `{_plain(result)}`\n\n{_text(comment)}\n")
    parts.append("### Types\nThey may grow at the end: name the columns that you read.\n")
    for name, comment, columns, comments in conn.execute(_TYPES).fetchall():
        rows = "\n".join(
            f"| `{column}` | {_cell(text)} |" for column, text in zip(columns, comments, strict=True)
        )
        lead = comment.replace(" It may grow at the end: name the columns that you read.", "")
        parts.append(f"**`{name}`**: {lead}\n\n| column | |\n|---|---|\n{rows}\n")
    enums = "\n".join(
        f"| `{name}` | {_cell(comment)} | {', '.join(f'`{label}`' for label in labels)} |"
        for name, comment, labels in conn.execute(_ENUMS).fetchall()
    )
    parts.append(f"| enum | | labels |\n|---|---|---|\n{enums}\n")
    conn.execute("RESET search_path")
    return "\n".join(parts)


def written() -> str:
    """The reference in the README."""
    found = _SECTION.search(README.read_text(encoding="utf-8"))
    assert found is not None
    return found[0]


def main() -> None:
    """Write it there."""
    with private_server() as server, psycopg.connect(server.dsn(), autocommit=True) as conn:
        install(conn)
        reference = render(conn)
    text = README.read_text(encoding="utf-8")
    README.write_text(_SECTION.sub(lambda _: reference, text), encoding="utf-8")


def _group(name: str) -> int:
    return next(number for number, start in enumerate(_GROUPS) if name.startswith(start))


def _plain(signature: str) -> str:
    """Without the casts that PostgreSQL adds to defaults."""
    return re.sub(r"::\w+(\[\])?", "", signature)


def _text(comment: str) -> str:
    """Wrapped as the README is; names of arguments and such stay as they are."""
    return "\n".join(
        textwrap.fill(_escape(line), WIDTH, break_long_words=False) for line in comment.splitlines()
    )


def _cell(text: str) -> str:
    return _escape(text).replace("|", "\\|")


def _escape(text: str) -> str:
    """What Markdown would take for emphasis or HTML."""
    return re.sub(r"([*<])", r"\\\1", text)


if __name__ == "__main__":
    main()
