"""The queue as an extension: the files that CREATE EXTENSION and ALTER EXTENSION UPDATE look for.

They run what an install runs, from the same templates. PostgreSQL puts the name of the schema in, quoted, for
@extschema@; it refuses names in which that would not be safe: those with a quote, a dollar or a backslash.
"""

from __future__ import annotations

from importlib.resources.abc import Traversable
from pathlib import Path

from pylonny import __version__
from pylonny.errors import InvalidNameError
from pylonny.templates import Template, Templates, check_notify_channel, quote_literal

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
# Instead of grants.sql, in an update. There a GRANT or REVOKE makes all the rights on its function, also what
# somebody has granted, the extension's own, which are in no dump. So it touches only what it has made.
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
    PERFORM {{ schema }}._roles_renew();
END
$do$;
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

    def file(self, template: Template) -> str:
        if template.path == "grants.sql" and self._from_version is not None:
            return self._render(_NEW_GRANTS)
        return super().file(template)

    def text(self) -> str:
        """All of it."""
        what = (
            f"CREATE EXTENSION {NAME}"
            if self._from_version is None
            else f"ALTER EXTENSION {NAME} UPDATE TO '{__version__}'"
        )
        header = self._render(_HEADER, version=__version__, statement=what)
        dumped = "".join(self._render(_DUMP, name=name) for name in DUMPED)
        return f"{header}{self._body(self._from_version)}\n{dumped}"


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
    found = {f"{NAME}.control": _CONTROL.replace("{{ version }}", __version__)}
    found[f"{NAME}--{__version__}.sql"] = _Script(event_channel, wake_channel, root).text()
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
