"""The README's reference is what the COMMENTs in the database say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support import reference

if TYPE_CHECKING:
    from tests.conftest import Connect


def test_the_reference_in_the_readme_is_that_of_the_comments(connect: Connect) -> None:
    assert reference.written() == reference.render(connect()), "make docs"


def test_it_has_every_public_function_type_and_column(connect: Connect) -> None:
    names = (
        connect()
        .execute(
            r"""
        SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'lonny'::regnamespace
        UNION
        SELECT t.typname FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
        WHERE t.typnamespace = 'lonny'::regnamespace AND (t.typtype = 'e' OR c.relkind = 'c')
        UNION
        SELECT a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'lonny'::regnamespace AND c.relkind = 'c' AND c.relname !~ '^_'
          AND a.attnum > 0
        """
        )
        .fetchall()
    )
    public = {name for (name,) in names if not name.startswith("_")}
    assert {"message_create", "dequeued", "retry_ms", "delete_result"} <= public
    missing = {name for name in public if name not in reference.written()}
    assert missing == set()
