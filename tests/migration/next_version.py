"""A next version, made up: a message has a label, which message_create takes and message_dequeue returns.

It shows how a release changes what programs call, as sql/README.md says: the old functions and the old type
get private names, and pass the call on.
"""

from __future__ import annotations

from pathlib import Path

_MIGRATION = """\
-- Messages have a label.
--
-- Upgrading at noon: keeps everybody out for a moment, to add a column without rewriting the table. Programs
-- of the release before go on working.
ALTER TABLE {{ schema }}.message ADD COLUMN label text;
COMMENT ON COLUMN {{ schema }}.message.label IS 'Its label.';

-- In a first install there are no functions yet.
DO $do$
BEGIN
  IF EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
              WHERE n.nspname = {{ schema_literal }} AND p.proname = 'message_create') THEN
    ALTER FUNCTION {{ schema }}.message_create(text, bytea, bigint, bigint) RENAME TO _message_create_1;
    ALTER FUNCTION {{ schema }}.message_dequeue(integer, bigint) RENAME TO _message_dequeue_1;
    DROP FUNCTION {{ schema }}._take_one(bigint, bigint, bigint, bigint);
    DROP FUNCTION {{ schema }}._take_many(bigint, integer, bigint, boolean, bigint[]);
    DROP FUNCTION {{ schema }}._take_in_generations(integer, bigint, boolean);
  END IF;
END
$do$;

ALTER TYPE {{ schema }}.dequeued RENAME TO _dequeued_1;
CREATE TYPE {{ schema }}.dequeued AS (
<columns>
);
CREATE TYPE {{ schema }}._taken_2 AS (
<columns>
);
""".replace(
    "<columns>",
    """\
  result       {{ schema }}.dequeue_result,
  id           bigint,
  channel      text,
  content      bytea,
  state        bytea,
  num_attempts integer,
  is_unlocked  boolean,
  unlock_at    timestamptz,
  retry_ms     bigint,
  label        text""",
)

_CREATE_1 = """\
CREATE OR REPLACE FUNCTION {{ schema }}._message_create_1(
  channel text, content bytea, lock_ms bigint, delay_ms bigint DEFAULT 0)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $function$
BEGIN
  RETURN {{ schema }}.message_create($1, $2, $3, $4);
END
$function$;
COMMENT ON FUNCTION {{ schema }}._message_create_1 IS 'The message_create of the release before.';
"""

_DEQUEUE_1 = """\
CREATE OR REPLACE FUNCTION {{ schema }}._message_dequeue_1(
  max_messages integer DEFAULT 1, lock_ms bigint DEFAULT NULL)
RETURNS SETOF {{ schema }}._dequeued_1
LANGUAGE plpgsql VOLATILE ROWS 10
AS $function$
BEGIN
  RETURN QUERY SELECT d.result, d.id, d.channel, d.content, d.state, d.num_attempts, d.is_unlocked,
                      d.unlock_at, d.retry_ms
                 FROM {{ schema }}.message_dequeue($1, $2) d;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._message_dequeue_1 IS 'The message_dequeue of the release before.';
"""

_LABEL = "(SELECT x.label FROM {{ schema }}.message x WHERE x.id = %s)"


def change(root: Path) -> None:
    """Make a copy of the templates those of the next version."""
    create = "functions/message_create.sql"
    _replace(
        root, create, "delay_ms bigint DEFAULT 0)", "delay_ms bigint DEFAULT 0, label text DEFAULT NULL)"
    )
    _replace(root, create, "(text, bytea, bigint, bigint)", "(text, bytea, bigint, bigint, text)")
    _replace(root, create, "status, channel, content)", "status, channel, content, label)")
    _replace(
        root,
        create,
        "channel, message_create.content)",
        "channel, message_create.content, message_create.label)",
    )
    _replace(
        root,
        "grants.sql",
        "message_create(text, bytea, bigint, bigint)",
        "message_create(text, bytea, bigint, bigint, text)",
    )
    # All places where a row of the type is made end with the empty retry_ms.
    _replace(
        root, "functions/_take_one.sql", "unlock_at, NULL::bigint\n", "unlock_at, NULL::bigint, m.label\n"
    )
    _replace(root, "functions/_take_many.sql", ", NULL::bigint\n", f", NULL::bigint, {_LABEL % 'l.id'}\n")
    _replace(root, "functions/message_dequeue.sql", "NULL::bigint\n", f"NULL::bigint, {_LABEL % 't.id'}\n")
    _replace(
        root,
        "functions/message_dequeue.sql",
        "m.unlock_at, NULL::bigint;",
        "m.unlock_at, NULL::bigint, m.label;",
    )
    _replace(
        root,
        "functions/message_dequeue.sql",
        "t.unlock_at, t.retry_ms\n",
        "t.unlock_at, t.retry_ms, t.label\n",
    )
    for name in ("_take_one", "_take_many", "_take_in_turn", "_take_in_generations", "message_dequeue"):
        _replace(root, f"functions/{name}.sql", "{{ schema }}._taken", "{{ schema }}._taken_2")
    revoked = "{{ schema }}.message_status(bigint[]),\n"
    for forwarder in ("_message_create_1", "_message_dequeue_1"):
        _replace(root, "grants.sql", revoked, f"{revoked}  {{{{ schema }}}}.{forwarder},\n")
    files = {
        "migrations/0002_label.sql": _MIGRATION,
        "functions/_message_create_1.sql": _CREATE_1,
        "functions/_message_dequeue_1.sql": _DEQUEUE_1,
    }
    for path, text in files.items():
        (root / path).write_text(text)
    for before, path in [
        ("migrations/0001_initial.sql", "migrations/0002_label.sql"),
        (create, "functions/_message_create_1.sql"),
        ("functions/message_dequeue.sql", "functions/_message_dequeue_1.sql"),
    ]:
        line = f'{{% include "{before}" %}}\n'
        _replace(root, "install.sql", line, f'{line}{{% include "{path}" %}}\n')


def _replace(root: Path, path: str, old: str, new: str) -> None:
    text = (root / path).read_text()
    assert old in text, f"{path} has changed: {old!r} is not in it any more"
    (root / path).write_text(text.replace(old, new))
