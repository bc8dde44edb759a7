"""What pylonny itself raises; errors of the database are psycopg's."""

from __future__ import annotations


class PylonnyError(Exception):
    """The base of pylonny's errors: what is wrong, and what to do about it.

    `message` is one sentence; `hint`, which may be empty, says what to do.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class InvalidNameError(PylonnyError, ValueError):
    """A schema or an event channel was given a name that PostgreSQL cannot have."""


class InstallError(PylonnyError):
    """An install or uninstall was refused, or failed; nothing was changed.

    Where the database said so, `__cause__` is psycopg's error.
    """
