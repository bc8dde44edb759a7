"""`make bench`: pylonny beside other queues on PostgreSQL, each by the SQL that its own client sends."""

from __future__ import annotations
