"""The grammar of the SQL templates, and their rendering: no database is needed."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import jinja2
import pytest
from jinja2 import nodes

from pylonny import __version__
from pylonny.errors import Error, InvalidNameError
from pylonny.templates import (
    Template,
    Templates,
    check_notify_channel,
    check_schema,
    find,
    quote_identifier,
    quote_literal,
    render_install,
)
from tests.support.databases import SQL

ROOT = SQL
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.sql"))
INCLUDED = [path for path in FILES if path != "install.sql"]

LONG = "ä" * 31 + "x"  # 63 bytes
HOSTILE = [
    'My "Q"',
    "it's",
    "a$function$b",
    "$do$$do_$",
    "back\\slash",
    "{{ schema }}",
    "new\nline",
    "%s %",
    LONG,
]


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_there_are_templates() -> None:
    assert find() == ROOT
    assert {"install.sql", "grants.sql", "migrations/0001_initial.sql"} <= set(FILES)


@pytest.mark.parametrize("path", INCLUDED)
def test_a_template_prints_the_three_names_and_does_nothing_else(path: str) -> None:
    tree = jinja2.Environment().parse(read(path))
    names = {"schema", "schema_literal"}
    if path == "functions/_event_channel.sql":
        names.add("event_channel")
    if path == "functions/_wake_channel.sql":
        names.add("wake_channel")
    for node in tree.find_all(nodes.Node):
        match node:
            case nodes.Output(nodes=parts):
                assert all(isinstance(part, nodes.TemplateData | nodes.Name) for part in parts), node
            case nodes.Name(name=name):
                assert name in names
            case _:
                assert isinstance(node, nodes.TemplateData), node
    # What the tree does not show: comments, raw blocks, the trimming of blanks.
    assert not re.search(r"\{%|\{#|\{\{-|-\}\}", read(path))


def test_install_sql_is_a_table_of_contents() -> None:
    for node in jinja2.Environment().parse(read("install.sql")).body:
        match node:
            case nodes.Include(template=nodes.Const(value=str()), ignore_missing=False):
                pass
            case nodes.Output(nodes=[nodes.TemplateData(data=text)]):
                assert re.fullmatch(r"(\s|--.*$)*", text, re.MULTILINE), text
            case _:
                pytest.fail(f"line {node.lineno}: {node}")


def test_install_sql_includes_every_file_once() -> None:
    assert Counter(template.path for template in Templates().files) == Counter(INCLUDED)


def test_migrations_are_numbered_from_1_without_a_gap_and_come_first() -> None:
    versions = [template.version for template in Templates().files]
    count = sum(path.startswith("migrations/") for path in INCLUDED)
    assert versions == [*range(1, count + 1), *[None] * (len(INCLUDED) - count)]


@pytest.mark.parametrize("path", INCLUDED)
def test_a_name_is_safe_where_a_template_puts_it(path: str) -> None:
    text = read(path)
    assert not re.search(r"--.*\{\{", text), "a line break in the name would end the comment"
    assert all(re.fullmatch("[a-z]+", tag) for tag in re.findall(r"\$(\w*)\$", text)), (
        "such tags are not replaced"
    )


@pytest.mark.parametrize("path", INCLUDED)
def test_every_function_is_in_the_file_of_its_name(path: str) -> None:
    created = re.findall(
        r"^CREATE (?:OR REPLACE )?FUNCTION \{\{ schema \}\}\.(\w+)", read(path), re.MULTILINE
    )
    assert created == ([Path(path).stem] if path.startswith("functions/") else [])


@pytest.mark.parametrize("name", HOSTILE)
def test_only_the_name_differs(name: str) -> None:
    # No template has these in it, so that every one in the rendering is the name.
    mark = "<name>"
    ours = render_install("lonny").replace('"lonny"', mark).replace("'lonny'", mark)
    theirs = render_install(name).replace(quote_identifier(name), mark).replace(quote_literal(name), mark)
    tag = re.compile(r"\$([a-z]+)_*\$")
    assert tag.sub(r"$\1$", theirs) == tag.sub(r"$\1$", ours)
    assert ours.count(mark) > len(FILES)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_ends_a_quoted_text(name: str) -> None:
    rendered = render_install(name, event_channel=name)
    # Outside of the name every tag stands there an even number of times, and the name has none of them in it.
    rest = rendered.replace(quote_identifier(name), "").replace(quote_literal(name), "")
    tags = Counter(re.findall(r"\$\w+\$", rest))
    assert tags
    assert all(count % 2 == 0 and tag not in name for tag, count in tags.items()), tags


def test_event_channel_is_null_or_a_literal() -> None:
    assert "SELECT NULL::" in render_install()
    assert "SELECT 'It''s'::" in render_install(event_channel="It's")


def test_a_rendering_is_one_transaction_with_its_ledger() -> None:
    rendered = render_install("lonny", "events")
    assert rendered == render_install("lonny", "events")
    code = [line for line in rendered.splitlines() if line and not line.startswith("--")]
    assert code[0].startswith("BEGIN ")
    assert code[-1] == "COMMIT;"
    assert [line for line in code if line in ("COMMIT;", "ROLLBACK;")] == ["COMMIT;"]
    [first] = [template for template in Templates().files if template.version == 1]
    row = f"VALUES (1, 'initial', '{first.checksum}', '{__version__}', false, clock_timestamp());"
    assert row in rendered
    for template in Templates().files:
        row = f"('{template.path}', '{template.checksum}', '{__version__}', clock_timestamp())"
        assert (row in rendered) == (template.version is None)


def test_a_checksum_is_that_of_the_template_on_every_system(tmp_path: Path) -> None:
    text = "-- {{ schema }}\nSELECT 1;\n"
    (tmp_path / "install.sql").write_text('{% include "migrations/0001_a_b.sql" %}\n')
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations/0001_a_b.sql").write_bytes(text.replace("\n", "\r\n").encode())
    [template] = Templates(root=tmp_path).files
    assert template == Template("migrations/0001_a_b.sql", text)
    assert (template.version, template.name) == (1, "a_b")
    assert template.checksum == "d723a423f84fabfc930d250d36fbf208917e9b6c80a83bdd8b50b275c4c2afaf"


def test_a_name_that_is_not_defined_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "install.sql").write_text('{% include "a.sql" %}\n')
    (tmp_path / "a.sql").write_text("SELECT {{ shcema }};\n")
    with pytest.raises(jinja2.UndefinedError, match="shcema"):
        render_install(root=tmp_path)


@pytest.mark.parametrize(
    "statement", ['{% if true %}{% include "a.sql" %}{% endif %}', "{{ schema }}", "{% include x %}"]
)
def test_install_sql_may_not_decide(tmp_path: Path, statement: str) -> None:
    (tmp_path / "install.sql").write_text(f"-- one\n{statement}\n")
    with pytest.raises(Error, match=r"install\.sql, line [12]: only text and includes belong here"):
        render_install(root=tmp_path)


@pytest.mark.parametrize(
    ("text", "identifier", "literal"),
    [
        ("lonny", '"lonny"', "'lonny'"),
        ('My "Q"', '"My ""Q"""', "'My \"Q\"'"),
        ("it's", '"it\'s"', "'it''s'"),
        ("a\\b'", '"a\\b\'"', "E'a\\\\b'''"),
    ],
)
def test_quoting(text: str, identifier: str, literal: str) -> None:
    assert quote_identifier(text) == identifier
    assert quote_literal(text) == literal


@pytest.mark.parametrize("name", ["a", LONG, "x" * 63, "PG_x", "pgx", " "])
def test_names_that_postgresql_can_have(name: str) -> None:
    assert check_schema(name) == name
    assert check_notify_channel(name) == name


@pytest.mark.parametrize("name", ["", "x" * 64, "ä" * 32, "a\0b", "\udcff"])
def test_names_that_postgresql_cannot_have(name: str) -> None:
    for check in (check_schema, check_notify_channel, quote_identifier, render_install):
        with pytest.raises(InvalidNameError, match="give a name of 1 to 63 bytes"):
            check(name)
    with pytest.raises(InvalidNameError):
        render_install("lonny", event_channel=name)


def test_the_prefix_of_system_schemas_is_refused() -> None:
    with pytest.raises(InvalidNameError, match='PostgreSQL keeps the prefix "pg_" to itself'):
        render_install("pg_queue")
    assert "'pg_queue'" in render_install("lonny", event_channel="pg_queue")
