"""What pylonny raises, all of it under Error.

An error of the database that has an SQLSTATE becomes a DatabaseError, whatever the driver; the driver's own
error is its `__cause__`. Others, such as those of a connection that cannot be made, stay the driver's.
"""

from __future__ import annotations

from collections.abc import Iterator


class Error(Exception):
    """The base of pylonny's errors: what is wrong, and what to do about it.

    `message` is one sentence; `hint`, which may be empty, says what to do.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class InvalidNameError(Error, ValueError):
    """A schema or an event channel was given a name that PostgreSQL cannot have."""


class InstallError(Error):
    """An install or uninstall was refused, or failed; nothing was changed.

    Where the database said so, `__cause__` is psycopg's error.
    """


class ListenError(Error):
    """One cannot listen here: there is no event channel, or the connection is not one to listen with."""


class WaitTimeoutError(Error, TimeoutError):
    """What was waited for has not come to pass in that time."""


class DatabaseError(Error):
    """The database refused a call; its transaction, if it was in one, is aborted.

    `message` and `hint` are the server's; `sqlstate` is its code, of five characters, or empty if pylonny
    found out by itself.
    """

    def __init__(self, message: str, hint: str = "", sqlstate: str = "") -> None:
        super().__init__(message, hint)
        self.args = (message, hint, sqlstate)
        self.sqlstate = sqlstate


class InvalidArgumentError(DatabaseError, ValueError):
    """An argument cannot be meant as it was given; `message` names it and its value."""


class TransactionError(DatabaseError):
    """The transaction cannot do this: it is not READ COMMITTED, is read-only, or was aborted before."""


class ConflictError(DatabaseError):
    """Another transaction was in the way, as in a deadlock: roll back, and do the transaction again."""


class ConnectionLostError(DatabaseError):
    """The connection is lost, or cannot be made. What was not committed is rolled back."""


class PermissionDeniedError(DatabaseError):
    """The role may not do this."""


class NotInstalledError(DatabaseError):
    """There is no queue of pylonny in this schema, or not one that this pylonny can use."""


class VersionMismatchError(NotInstalledError):
    """The queue in this schema is older or newer than this pylonny."""


# By SQLSTATE, or by its first characters.
_CLASSES: dict[str, type[DatabaseError]] = {
    "08": ConnectionLostError,
    "22003": InvalidArgumentError,
    "22004": InvalidArgumentError,
    "22021": InvalidArgumentError,
    "22023": InvalidArgumentError,
    "25": TransactionError,
    "40": ConflictError,
    "42501": PermissionDeniedError,
    "55P03": ConflictError,
    "57P": ConnectionLostError,
}


def translate(error: BaseException) -> DatabaseError | None:
    """The DatabaseError for an error of any driver, or of what wraps it; None if it has no SQLSTATE."""
    for found in reversed(list(_chain(error))):
        sqlstate = getattr(found, "sqlstate", None) or getattr(found, "pgcode", None)
        if isinstance(sqlstate, str):
            diag = getattr(found, "diag", None)  # psycopg
            message = getattr(diag, "message_primary", None) or getattr(found, "message", None) or str(found)
            hint = getattr(diag, "message_hint", None) or getattr(found, "hint", None) or ""
            kinds = (_CLASSES[sqlstate[:size]] for size in (5, 3, 2) if sqlstate[:size] in _CLASSES)
            return next(kinds, DatabaseError)(message, hint, sqlstate)
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it was made from: SQLAlchemy's `orig`, anybody's `__cause__`."""
    while error is not None:
        yield error
        error = getattr(error, "orig", None) or error.__cause__
