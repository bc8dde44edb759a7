"""plpgsql_check over every function: it checks each statement against the catalogue, whether a test runs it or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from pylonny import migrate
from tests.support.databases import SCHEMAS, private_server
