"""The queue as an extension: the files that CREATE EXTENSION and ALTER EXTENSION UPDATE look for.

They run what an install runs, from the same templates. PostgreSQL puts the name of the schema in, quoted, for
@extschema@; it refuses names in which that would not be safe: those with a quote, a dollar or a backslash.
"""

from __future__ import annotations

from importlib.resources.abc import Traversable
from pathlib import Path

from pylonny import __version__
from pylonny.errors import InvalidNameError
from pylonny.templates import (
    READ_COMMITTED,
    SETTINGS,
    Template,
    Templates,
    check_notify_channel,
    quote_literal,
)

NAME = "pylonny"
# The last migration of each release: what an update starts from.
RELEASES = {"0.1.0": 1}

# What CREATE EXTENSION does not make anew, and so has to be in a dump. It makes the ledger, perhaps that of a
# newer release. The other sequences are hints, which a crash resets too, and with them the wake-ups.
DUMPED = ("message", "message_id_seq", "channel_policy", "channel_policy_id_seq", "wake", "producer")

_CONTROL = """\
# Made by: python -m pylonny extension
comment = 'A multi-tenant message queue in the schema that it is created in'
default_version = '{{ version }}'
encoding = 'UTF8'
# The functions name their schema.
relocatable = false
# It needs the rights on the schema and no others, so whoever creates it owns the queue. (If it were trusted,
# a superuser would, with whose rights the functions would run.)
superuser = false
"""
_HEADER = """\
-- A queue of pylonny {{ version }}, made by: python -m pylonny extension
\\echo Use "{{ statement }}" to load this file. \\quit

"""
# The queue is the schema's owner's (in public, the database's), with whose rights its functions run, also
# if a superuser creates it, or restores it: a dump does not say whose an extension is. Unlike an install it
# does not mind what else is in the schema: a dump may restore other extensions there first, and PostgreSQL
# replaces nothing for it.
_OWNER = """\
SELECT set_config('role', pg_get_userbyid(coalesce(c.relowner, d.datdba, n.nspowner)), true)
FROM pg_namespace n
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'migration'
LEFT JOIN pg_database d ON d.datname = current_database() AND n.nspowner = 'pg_database_owner'::regrole
WHERE n.nspname = {{ schema_literal }}
  AND (c.oid IS NOT NULL OR (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user));
"""
# Instead of grants.sql, in an update. There a GRANT or REVOKE makes all the rights on its function, also what
# somebody has granted, the extension's own, which are in no dump. So it touches only what it has made, and
# the roles get what they lack when the script is over.
_NEW_GRANTS = """\
DO $do$
DECLARE
    v_function regprocedure;
BEGIN
    FOR v_function IN
        SELECT d.objid
        FROM pg_depend d JOIN pg_extension x ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = x.oid
        WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e' AND x.extname = {{ extension }}
          AND has_function_privilege('public', d.objid, 'EXECUTE')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', v_function);
    END LOOP;
END
$do$;
"""
_RENEW = """\
CREATE OR REPLACE FUNCTION {{ schema }}._roles_renew_later()
RETURNS trigger
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  PERFORM {{ schema }}._roles_renew();
  RETURN NULL;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._roles_renew_later() IS
'Grants producers, consumers and operators what they lack when an update of the extension commits.';
REVOKE ALL ON FUNCTION {{ schema }}._roles_renew_later() FROM PUBLIC;
"""
# Every update begins its ledger with a DELETE; the creation has nothing to delete.
_RENEW_TRIGGER = """\
CREATE CONSTRAINT TRIGGER roles_renew AFTER DELETE ON {{ schema }}.template DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (old.path = 'grants.sql') EXECUTE FUNCTION {{ schema }}._roles_renew_later();
"""
_DUMP = """\
SELECT pg_extension_config_dump($regclass${{ schema }}.{{ name }}$regclass$, '');
"""


class _Script(Templates):
    """The script that creates the extension, or that updates it from the release with that migration."""

    def __init__(
        self,
        event_channel: str | None,
        wake_channel: str | None,
        root: Traversable | None,
        from_version: int | None = None,
    ) -> None:
        super().__init__("@extschema@", event_channel, root, wake_channel=wake_channel)
        self._from_version = from_version
        self._values |= {
            "schema": "@extschema@",
            "schema_literal": "(pg_catalog.parse_ident('@extschema@'))[1]",
            "extension": quote_literal(NAME),
        }

    def control(self) -> str:
        """The control file."""
        return self._render(_CONTROL, version=__version__)

    def opening(self) -> str:
        level = "" if self._from_version is None else self._render(READ_COMMITTED)
        return f"{self.lock()}\n{level}{self._render(_OWNER)}"

    def file(self, template: Template) -> str:
        if template.path == "grants.sql" and self._from_version is not None:
            return self._render(_NEW_GRANTS)
        return super().file(template)

    def record(self) -> str:
        trigger = _RENEW_TRIGGER if self._from_version is None else ""
        dumped = "".join(self._render(_DUMP, name=name) for name in DUMPED)
        return f"{self._render(_RENEW + trigger)}\n{super().record()}\n{dumped}"

    def text(self) -> str:
        """All of it."""
        what = (
            f"CREATE EXTENSION {NAME}"
            if self._from_version is None
            else f"ALTER EXTENSION {NAME} UPDATE TO '{__version__}'"
        )
        header = self._render(_HEADER, version=__version__, statement=what)
        return header + self._between_settings(self._body(self._from_version), [*SETTINGS, "role"])


def render_extension(
    event_channel: str | None = None, wake_channel: str | None = None, *, root: Traversable | None = None
) -> dict[str, str]:
    """The extension's files by name: the control file, a script to create it, one to update each release.

    `event_channel` is where to NOTIFY of events, `wake_channel` where to NOTIFY sleeping workers; None: not
    at all. They are those of every database of the server, also after an update. `root` is another folder of
    templates. The same arguments give the same text.

    Raises InvalidNameError.
    """
    for channel in (event_channel, wake_channel):
        if channel is not None and "@ext" in check_notify_channel(channel):
            raise InvalidNameError(
                f'"{channel}" cannot be the name of a channel in an extension',
                "PostgreSQL takes what begins with @ext for a placeholder",
            )
    creation = _Script(event_channel, wake_channel, root)
    found = {f"{NAME}.control": creation.control(), f"{NAME}--{__version__}.sql": creation.text()}
    for release, version in RELEASES.items():
        if release != __version__:
            update = _Script(event_channel, wake_channel, root, version)
            found[f"{NAME}--{release}--{__version__}.sql"] = update.text()
    return found


def write_extension(
    folder: Path,
    event_channel: str | None = None,
    wake_channel: str | None = None,
    *,
    root: Traversable | None = None,
) -> list[Path]:
    """Write the files of render_extension into `folder`, which is made if need be, and return their paths.

    Raises InvalidNameError, and OSError if they cannot be written.
    """
    files = render_extension(event_channel, wake_channel, root=root)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in files]
