-- A queue of pylonny 0.1.0, made by: python -m pylonny render
-- One transaction: it does all or nothing, and nothing if the schema is not as it expects.

BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL client_encoding = 'UTF8';
-- The search path is that of the functions; no notices about what is normal.
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL standard_conforming_strings = on;
SET LOCAL client_min_messages = warning;
DO $do$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('lonny', 0));
END
$do$;

DO $do$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'an install needs the isolation level READ COMMITTED, not %',
            upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'active_sql_transaction', HINT = 'run it in a transaction of its own';
    END IF;
END
$do$;
DO $do$
DECLARE
    v_schema pg_namespace.oid%TYPE;
    v_owner name;
    v_extension name;
BEGIN
    IF current_setting('server_version_num')::integer < 150000 THEN
        RAISE EXCEPTION 'PostgreSQL 15 or newer is needed, this server is %',
            current_setting('server_version')
            USING ERRCODE = 'feature_not_supported', HINT = 'upgrade the server, or use another';
    END IF;

    LOOP
        SELECT n.oid INTO v_schema FROM pg_namespace n WHERE n.nspname = 'lonny';
        EXIT WHEN FOUND;
        IF NOT has_database_privilege(current_database(), 'CREATE') THEN
            RAISE EXCEPTION 'role "%" may not create schema "%" in database "%"',
                current_user, 'lonny', current_database()
                USING ERRCODE = 'insufficient_privilege',
                    HINT = format(
                        'have its owner run  GRANT CREATE ON DATABASE %1$I TO %2$I  '
                        'or  CREATE SCHEMA %3$I AUTHORIZATION %2$I',
                        current_database(), current_user, 'lonny');
        END IF;
        BEGIN
            CREATE SCHEMA "lonny";
            COMMENT ON SCHEMA "lonny" IS 'pylonny: a message queue. Created by its install, dropped by its uninstall.';
            RETURN;
        EXCEPTION WHEN unique_violation OR duplicate_schema THEN
            NULL;  -- Somebody created it meanwhile, not with an install: look at it.
        END;
    END LOOP;

    SELECT pg_get_userbyid(c.relowner), x.extname INTO v_owner, v_extension
    FROM pg_class c
    LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
    LEFT JOIN pg_extension x ON x.oid = d.refobjid
    WHERE c.relnamespace = v_schema AND c.relname = 'migration'
      AND obj_description(c.oid, 'pg_class') LIKE 'pylonny%';
    IF FOUND THEN
        -- Its scripts bring an extension up to date, and nothing else: they are what a dump relies on.
        IF v_extension IS NOT NULL THEN
            RAISE EXCEPTION 'the queue in schema "%" belongs to the extension "%"',
                'lonny', v_extension
                USING ERRCODE = 'object_not_in_prerequisite_state',
                    HINT = format('bring it up to date with  ALTER EXTENSION %I UPDATE', v_extension);
        END IF;
        -- Functions of several owners in one queue could not be replaced by any one of them.
        IF v_owner <> current_user THEN
            RAISE EXCEPTION 'the queue in schema "%" belongs to role "%", not to "%"',
                'lonny', v_owner, current_user
                USING ERRCODE = 'insufficient_privilege',
                    HINT = format('connect as "%s", or become it with PGOPTIONS="-c role=%1$s"', v_owner);
        END IF;
    ELSIF EXISTS (
        SELECT FROM pg_depend d
        WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = v_schema AND d.deptype = 'n'
    ) THEN
        RAISE EXCEPTION 'schema "%" is not empty and not a queue of pylonny', 'lonny'
            USING ERRCODE = 'duplicate_schema', HINT = 'choose another schema, or empty this one';
    ELSIF NOT (has_schema_privilege(v_schema, 'CREATE') AND has_schema_privilege(v_schema, 'USAGE')) THEN
        RAISE EXCEPTION 'role "%" may not create anything in schema "%"', current_user, 'lonny'
            USING ERRCODE = 'insufficient_privilege',
                HINT = format('have its owner run  GRANT CREATE, USAGE ON SCHEMA %I TO %I',
                    'lonny', current_user);
    END IF;
END
$do$;

DO $do$
BEGIN
    IF EXISTS (
        SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'lonny' AND c.relname = 'migration'
    ) THEN
        RAISE EXCEPTION 'schema "%" has a queue already, this script is for one that has none',
            'lonny'
            USING ERRCODE = 'duplicate_schema', HINT = 'bring it up to date with  python -m pylonny install';
    END IF;
END
$do$;

-- pylonny: a multi-tenant message queue that is nothing but PostgreSQL.
-- Table of contents, in the order of installation. This is the only file that includes others.

-- Tables, types, sequences, indexes
-- Tables, types, sequences and indexes of the first release.
--
-- Upgrading at noon: nothing to upgrade from; this file only creates.

CREATE TABLE "lonny".migration (
  version         integer     NOT NULL,
  name            text        NOT NULL,
  checksum        text        NOT NULL,
  package_version text        NOT NULL,
  is_breaking     boolean     NOT NULL,
  applied_at      timestamptz NOT NULL,
  CONSTRAINT migration_version_pkey PRIMARY KEY (version)
);
COMMENT ON TABLE "lonny".migration IS 'pylonny: the ledger of what is installed in this schema, one row a migration. Its presence marks the schema as pylonny''s.';
COMMENT ON COLUMN "lonny".migration.version IS 'Number of the migration, in the order of application.';
COMMENT ON COLUMN "lonny".migration.name IS 'Name of the migration''s file without number and ending.';
COMMENT ON COLUMN "lonny".migration.checksum IS 'SHA-256 (hex) of the migration''s template as it was applied.';
COMMENT ON COLUMN "lonny".migration.package_version IS 'Version of the package that applied it.';
COMMENT ON COLUMN "lonny".migration.is_breaking IS 'Whether packages older than it cannot use the schema any more.';
COMMENT ON COLUMN "lonny".migration.applied_at IS 'When it was applied.';

CREATE TABLE "lonny".template (
  path            text COLLATE "C" NOT NULL,
  checksum        text        NOT NULL,
  package_version text        NOT NULL,
  applied_at      timestamptz NOT NULL,
  CONSTRAINT template_path_pkey PRIMARY KEY (path)
);
COMMENT ON TABLE "lonny".template IS 'The ledger of what every install runs anew, one row a file: functions and rights.';
COMMENT ON COLUMN "lonny".template.path IS 'The file, below the folder of the templates.';
COMMENT ON COLUMN "lonny".template.checksum IS 'SHA-256 (hex) of the template as it was applied.';
COMMENT ON COLUMN "lonny".template.package_version IS 'Version of the package that applied it.';
COMMENT ON COLUMN "lonny".template.applied_at IS 'When it was applied last.';

CREATE TABLE "lonny".object (
  kind     text COLLATE "C" NOT NULL,
  name     text COLLATE "C" NOT NULL,
  part     text COLLATE "C" NOT NULL,
  checksum text NOT NULL,
  CONSTRAINT object_kind_name_part_pkey PRIMARY KEY (kind, name, part)
);
COMMENT ON TABLE "lonny".object IS 'What the catalog said of each object when it was installed, for status to compare with what it says now (see _objects).';
COMMENT ON COLUMN "lonny".object.kind IS 'What it is: function, table, view, sequence or type.';
COMMENT ON COLUMN "lonny".object.name IS 'Its name.';
COMMENT ON COLUMN "lonny".object.part IS 'Of a function the types of its arguments, else a column, an index or such; empty for the object itself.';
COMMENT ON COLUMN "lonny".object.checksum IS 'MD5 (hex) of its definition.';


CREATE TYPE "lonny".message_status   AS ENUM ('WAITING', 'READY', 'LOCKED');
CREATE TYPE "lonny".dequeue_result   AS ENUM ('MESSAGE_DEQUEUED', 'MESSAGE_NOT_AVAILABLE');
CREATE TYPE "lonny".delete_result    AS ENUM ('MESSAGE_DELETED', 'MESSAGE_NOT_FOUND', 'MESSAGE_STATE_INVALID');
CREATE TYPE "lonny".defer_result     AS ENUM ('MESSAGE_DEFERRED', 'MESSAGE_NOT_FOUND', 'MESSAGE_STATE_INVALID');
CREATE TYPE "lonny".heartbeat_result AS ENUM ('MESSAGE_HEARTBEATED', 'MESSAGE_NOT_FOUND', 'MESSAGE_STATE_INVALID', 'MESSAGE_BUSY');
CREATE TYPE "lonny".cancel_result    AS ENUM ('MESSAGE_CANCELLED', 'MESSAGE_NOT_FOUND', 'MESSAGE_STATE_INVALID');
COMMENT ON TYPE "lonny".message_status IS 'Where a message is in its life: WAITING (for its delay, or for its channel''s policy to release it), READY (the next dequeue may take it) or LOCKED (a worker has it, or had it and its lock''s end was not noticed yet).';
COMMENT ON TYPE "lonny".dequeue_result IS 'What message_dequeue answers.';
COMMENT ON TYPE "lonny".delete_result IS 'What message_delete answers.';
COMMENT ON TYPE "lonny".defer_result IS 'What message_defer answers.';
COMMENT ON TYPE "lonny".heartbeat_result IS 'What message_heartbeat answers.';
COMMENT ON TYPE "lonny".cancel_result IS 'What message_cancel answers.';


-- Sequences, because what one session sets all others see at once, without a row, a lock or a wait, and even if it rolls back.
-- Unlogged: after a crash the rotation may begin anywhere.
CREATE UNLOGGED SEQUENCE "lonny".rotation AS bigint MINVALUE -9223372036854775808 START WITH 0;
COMMENT ON SEQUENCE "lonny".rotation IS 'The lane that was served last.';
CREATE UNLOGGED SEQUENCE "lonny".wake_rotation AS bigint MINVALUE -9223372036854775808 START WITH 0;
COMMENT ON SEQUENCE "lonny".wake_rotation IS 'The lane whose wakes were handled last.';

-- Beside an old snapshot (sql/README.md) only. As long as nothing holds one, they are 0, or less, and no row has a generation. A row's is read when its
-- transaction has its number, so that it is known which ones may have read an older one (_horizons_draw).
CREATE UNLOGGED SEQUENCE "lonny".generation AS bigint MINVALUE -9223372036854775808 START WITH 0;
COMMENT ON SEQUENCE "lonny".generation IS 'The sum of the two generations in use: what becomes ready gets the younger, what is ready has the one or the other. 2: only 1 is in use, 3: 1 and 2, 4: only 2. 0 or less: none is, -4: those up to 2 were.';
CREATE UNLOGGED SEQUENCE "lonny".generation_walk AS bigint MINVALUE 0 START WITH 0;
COMMENT ON SEQUENCE "lonny".generation_walk IS 'When to look for what is ready in neither generation, in microseconds since 1970; 0: never, none is in use; 1: at once, and before the first look is over nobody searches by generations.';
CREATE UNLOGGED SEQUENCE "lonny".generation_at AS bigint MINVALUE -9223372036854775808 START WITH 0;
COMMENT ON SEQUENCE "lonny".generation_at IS 'When the younger of two generations began, in microseconds since 1970.';
CREATE UNLOGGED SEQUENCE "lonny".generation_horizon AS bigint MINVALUE 0 START WITH 0;
COMMENT ON SEQUENCE "lonny".generation_horizon IS 'Transactions with a lower number may still commit something in the older of two generations; the highest number of all: it is not known which.';
CREATE UNLOGGED SEQUENCE "lonny".late_horizon AS bigint MINVALUE 0 START WITH 0;
COMMENT ON SEQUENCE "lonny".late_horizon IS 'Transactions with a lower number may still commit something that is in neither generation; 0: all that is ready is in the two; the highest number of all: it is not known which.';
CREATE UNLOGGED SEQUENCE "lonny".timer_mark AS bigint MINVALUE -9223372036854775808 START WITH 0;
COMMENT ON SEQUENCE "lonny".timer_mark IS 'Where the search for timers that are over begins while generations are in use, in microseconds since 1970.';
CREATE UNLOGGED SEQUENCE "lonny".timer_floor AS bigint MINVALUE -9223372036854775808 START WITH 0;
COMMENT ON SEQUENCE "lonny".timer_floor IS 'No timer of this time or before is left, or can come; in microseconds since 1970.';


CREATE TABLE "lonny".producer (
  role           regrole NOT NULL,
  channel_prefix text    NOT NULL,
  CONSTRAINT producer_role_pkey PRIMARY KEY (role)
);
COMMENT ON TABLE "lonny".producer IS 'The roles that may create messages in some channels only. What a role may is in the catalog: see _roles.';
COMMENT ON COLUMN "lonny".producer.role IS 'The role; of one that is gone nothing is made.';
COMMENT ON COLUMN "lonny".producer.channel_prefix IS 'What the names of its channels begin with.';

CREATE TABLE "lonny".message (
  id           bigint      GENERATED ALWAYS AS IDENTITY,
  lane         bigint      NOT NULL,
  lock_ms      bigint      NOT NULL,
  created_at   timestamptz NOT NULL,
  dequeue_at   timestamptz NOT NULL,
  timer_at     timestamptz,
  locked_at    timestamptz,
  unlock_at    timestamptz,
  policy_id    bigint,
  generation   bigint      DEFAULT CASE WHEN pg_current_xact_id() IS NOT NULL THEN NULLIF(GREATEST(pg_sequence_last_value($regclass$"lonny".generation$regclass$) + 1, 1) / 2, 0) END,
  num_attempts integer     NOT NULL DEFAULT 0,
  status       "lonny".message_status NOT NULL,
  channel      text COLLATE "C",
  content      bytea       NOT NULL,
  state        bytea,
  CONSTRAINT message_id_pkey PRIMARY KEY (id)
) WITH (
  -- To give pages back to the disk a vacuum locks out everybody, if only for a moment; a queue fills them again.
  vacuum_truncate = false,
  -- Of a large backlog one lane's dead entries lie before the living ones, and only a vacuum removes them (sql/README.md, Storage).
  autovacuum_vacuum_threshold = 1000,
  autovacuum_vacuum_scale_factor = 0.01
);
COMMENT ON TABLE "lonny".message IS 'The messages, one row each. Read it as you like; change it only through the functions.';
COMMENT ON COLUMN "lonny".message.id IS 'Number of the message, ascending in the order of creation; never used again.';
COMMENT ON COLUMN "lonny".message.lane IS 'The rotation''s key: a hash of the channel, or 0 for all messages created without one.';
COMMENT ON COLUMN "lonny".message.lock_ms IS 'How long a dequeue locks the message, in milliseconds.';
COMMENT ON COLUMN "lonny".message.created_at IS 'When it was created.';
COMMENT ON COLUMN "lonny".message.dequeue_at IS 'When it is due, and with id its place in the channel: the time of its creation or deferral plus the delay.';
COMMENT ON COLUMN "lonny".message.timer_at IS 'When a dequeue has to look at it: the end of its delay (WAITING) or of its lock (LOCKED); NULL if there is nothing to look at.';
COMMENT ON COLUMN "lonny".message.locked_at IS 'When it was dequeued last; NULL if never.';
COMMENT ON COLUMN "lonny".message.unlock_at IS 'When the lock of its last dequeue ends or ended; NULL if it was not dequeued since its creation or deferral.';
COMMENT ON COLUMN "lonny".message.policy_id IS 'The version of the channel''s policy that released it last; NULL if it was released without one.';
COMMENT ON COLUMN "lonny".message.generation IS 'The generation in which it became ready last; NULL: none was in use.';
COMMENT ON COLUMN "lonny".message.num_attempts IS 'How often it was dequeued: the fencing token.';
COMMENT ON COLUMN "lonny".message.status IS 'WAITING, READY or LOCKED.';
COMMENT ON COLUMN "lonny".message.channel IS 'Its channel; NULL if it was created without one (_channel_name tells the name that such a message goes by).';
COMMENT ON COLUMN "lonny".message.content IS 'What the producer gave.';
COMMENT ON COLUMN "lonny".message.state IS 'What the worker kept at the last deferral that gave a state.';

-- Each holds only the rows that may answer its question. Few, since each index costs every insert and update, also of a row that it does not hold.
CREATE INDEX message_ready_idx ON "lonny".message (lane, dequeue_at, id) WHERE status = 'READY';
COMMENT ON INDEX "lonny".message_ready_idx IS 'Which message is next, in rotation over the lanes?';
CREATE INDEX message_generation_idx ON "lonny".message (generation, lane, dequeue_at, id) WHERE status = 'READY' AND generation IS NOT NULL;
COMMENT ON INDEX "lonny".message_generation_idx IS 'The same beside an old snapshot, without the dead rows of former generations.';
CREATE INDEX message_channel_idx ON "lonny".message (lane, status, dequeue_at, id) WHERE status <> 'READY' AND lane <> 0;
COMMENT ON INDEX "lonny".message_channel_idx IS 'Which message of a channel is the next to be released, and how many are locked?';
CREATE INDEX message_timer_idx ON "lonny".message (timer_at, id) WHERE timer_at IS NOT NULL;
COMMENT ON INDEX "lonny".message_timer_idx IS 'Which delays and locks are over?';


CREATE TABLE "lonny".channel_policy (
  id                  bigint  GENERATED ALWAYS AS IDENTITY,
  channel             text COLLATE "C" NOT NULL,
  max_concurrency     integer,
  release_interval_ms bigint,
  cleared             boolean NOT NULL,
  CONSTRAINT channel_policy_channel_id_pkey PRIMARY KEY (channel, id)
);
COMMENT ON TABLE "lonny".channel_policy IS 'Versions of the channels'' policies, only ever added to, so that setting one waits for nobody; the highest id of a channel is in force, older ones are removed in passing.';
COMMENT ON COLUMN "lonny".channel_policy.id IS 'Number of the version.';
COMMENT ON COLUMN "lonny".channel_policy.channel IS 'The channel it is for.';
COMMENT ON COLUMN "lonny".channel_policy.max_concurrency IS 'How many messages of the channel may be out at a time; 0: paused, NULL: no limit.';
COMMENT ON COLUMN "lonny".channel_policy.release_interval_ms IS 'Milliseconds between two dequeues of the channel; NULL: no interval.';
COMMENT ON COLUMN "lonny".channel_policy.cleared IS 'True if this version says that the channel has no policy.';

CREATE VIEW "lonny"._policy_in_force AS
SELECT p.id, p.channel, p.max_concurrency, p.release_interval_ms
  FROM (SELECT DISTINCT ON (v.channel) v.id, v.channel, v.max_concurrency, v.release_interval_ms, v.cleared
          FROM "lonny".channel_policy v
         ORDER BY v.channel, v.id DESC) p
 WHERE NOT p.cleared;
COMMENT ON VIEW "lonny"._policy_in_force IS 'The policies in force, one row a channel that has one.';
COMMENT ON COLUMN "lonny"._policy_in_force.id IS 'Number of the version that is in force.';
COMMENT ON COLUMN "lonny"._policy_in_force.channel IS 'The channel it is for.';
COMMENT ON COLUMN "lonny"._policy_in_force.max_concurrency IS 'How many messages of the channel may be out at a time; 0: paused, NULL: no limit.';
COMMENT ON COLUMN "lonny"._policy_in_force.release_interval_ms IS 'Milliseconds between two dequeues of the channel; NULL: no interval.';


CREATE TABLE "lonny".wake (
  lane        bigint NOT NULL,
  at          timestamptz,
  released_at timestamptz,
  generation  bigint DEFAULT CASE WHEN pg_current_xact_id() IS NOT NULL THEN NULLIF(GREATEST(pg_sequence_last_value($regclass$"lonny".generation$regclass$) + 1, 1) / 2, 0) END,
  channel     text COLLATE "C" NOT NULL
) WITH (vacuum_truncate = false);
COMMENT ON TABLE "lonny".wake IS 'Signals and timers, only ever added to: look at this channel, now or at a time; deleted when that was done.';
COMMENT ON COLUMN "lonny".wake.lane IS 'The channel''s lane.';
COMMENT ON COLUMN "lonny".wake.at IS 'When to look at the channel; NULL: now.';
COMMENT ON COLUMN "lonny".wake.released_at IS 'Set if this is the timer of a release interval: the time of the dequeue that the interval follows.';
COMMENT ON COLUMN "lonny".wake.generation IS 'The generation in which it became due; NULL: none was in use.';
COMMENT ON COLUMN "lonny".wake.channel IS 'The channel to look at.';
-- It has no key (an index entry a wake for nothing). Without this a publication of all tables would make its deletes fail.
ALTER TABLE "lonny".wake REPLICA IDENTITY FULL;

CREATE INDEX wake_due_idx ON "lonny".wake (lane) WHERE at IS NULL;
COMMENT ON INDEX "lonny".wake_due_idx IS 'Which channel is to be looked at next, in rotation over the lanes?';
CREATE INDEX wake_generation_idx ON "lonny".wake (generation, lane) WHERE at IS NULL AND generation IS NOT NULL;
COMMENT ON INDEX "lonny".wake_generation_idx IS 'The same beside an old snapshot, without the dead rows of former generations.';
CREATE INDEX wake_timer_idx ON "lonny".wake (at, lane) WHERE at IS NOT NULL;
COMMENT ON INDEX "lonny".wake_timer_idx IS 'Which timers are over?';
CREATE INDEX wake_lane_idx ON "lonny".wake (lane) WHERE at IS NOT NULL OR released_at IS NOT NULL;
COMMENT ON INDEX "lonny".wake_lane_idx IS 'Which timers has this channel, and when was it released last?';


-- Of a queue with a wake channel only. Unlogged: after a crash nobody sleeps.
CREATE UNLOGGED SEQUENCE "lonny".sleeper AS bigint;
COMMENT ON SEQUENCE "lonny".sleeper IS 'The number of the last dequeue that let its worker sleep.';
CREATE UNLOGGED SEQUENCE "lonny".sleeper_at AS bigint MINVALUE -9223372036854775808 START WITH 0;
COMMENT ON SEQUENCE "lonny".sleeper_at IS 'When that was, in microseconds since 1970.';

CREATE UNLOGGED TABLE "lonny".wake_up (
  sleeper bigint NOT NULL
) WITH (vacuum_truncate = false);
COMMENT ON TABLE "lonny".wake_up IS 'Notifications of sleeping workers, one row each, committed with it; the latest ones only.';
COMMENT ON COLUMN "lonny".wake_up.sleeper IS 'The last sleeper that it wakes, and so do all before.';
CREATE INDEX wake_up_sleeper_idx ON "lonny".wake_up (sleeper);
COMMENT ON INDEX "lonny".wake_up_sleeper_idx IS 'Have all been woken?';


CREATE TYPE "lonny".dequeued AS (
  result       "lonny".dequeue_result,
  id           bigint,
  channel      text,
  content      bytea,
  state        bytea,
  num_attempts integer,
  is_unlocked  boolean,
  unlock_at    timestamptz,
  retry_ms     bigint
);
COMMENT ON TYPE "lonny".dequeued IS 'A row of message_dequeue. It may grow at the end: name the columns that you read.';
COMMENT ON COLUMN "lonny".dequeued.result IS 'MESSAGE_DEQUEUED, or MESSAGE_NOT_AVAILABLE in a row of its own.';
COMMENT ON COLUMN "lonny".dequeued.id IS 'The message.';
COMMENT ON COLUMN "lonny".dequeued.channel IS 'Its channel.';
COMMENT ON COLUMN "lonny".dequeued.content IS 'Its content.';
COMMENT ON COLUMN "lonny".dequeued.state IS 'The state that a deferral left with it, or NULL.';
COMMENT ON COLUMN "lonny".dequeued.num_attempts IS 'How often it was dequeued, this time included: the fencing token for delete, defer and heartbeat.';
COMMENT ON COLUMN "lonny".dequeued.is_unlocked IS 'True if this delivery follows a lock that expired, false after a create or a defer.';
COMMENT ON COLUMN "lonny".dequeued.unlock_at IS 'When the lock ends.';
COMMENT ON COLUMN "lonny".dequeued.retry_ms IS 'With MESSAGE_NOT_AVAILABLE: milliseconds until something known can become available; NULL if nothing is known.';

-- What message_dequeue works with inside. A call that is under way while an upgrade replaces the public type goes on with this one.
CREATE TYPE "lonny"._taken AS (
  result       "lonny".dequeue_result,
  id           bigint,
  channel      text,
  content      bytea,
  state        bytea,
  num_attempts integer,
  is_unlocked  boolean,
  unlock_at    timestamptz,
  retry_ms     bigint
);
COMMENT ON TYPE "lonny"._taken IS 'A row of message_dequeue inside of the functions: the same columns. It never grows: a release that needs more has another type.';
COMMENT ON COLUMN "lonny"._taken.result IS 'See dequeued.';
COMMENT ON COLUMN "lonny"._taken.id IS 'See dequeued.';
COMMENT ON COLUMN "lonny"._taken.channel IS 'See dequeued.';
COMMENT ON COLUMN "lonny"._taken.content IS 'See dequeued.';
COMMENT ON COLUMN "lonny"._taken.state IS 'See dequeued.';
COMMENT ON COLUMN "lonny"._taken.num_attempts IS 'See dequeued.';
COMMENT ON COLUMN "lonny"._taken.is_unlocked IS 'See dequeued.';
COMMENT ON COLUMN "lonny"._taken.unlock_at IS 'See dequeued.';
COMMENT ON COLUMN "lonny"._taken.retry_ms IS 'See dequeued.';

CREATE TYPE "lonny".deleted AS (
  id     bigint,
  result "lonny".delete_result
);
COMMENT ON TYPE "lonny".deleted IS 'A row of message_delete_many. It may grow at the end: name the columns that you read.';
COMMENT ON COLUMN "lonny".deleted.id IS 'The message, as it was given.';
COMMENT ON COLUMN "lonny".deleted.result IS 'What became of it.';

CREATE TYPE "lonny".message_state AS (
  id           bigint,
  status       "lonny".message_status,
  channel      text,
  num_attempts integer,
  created_at   timestamptz,
  dequeue_at   timestamptz,
  locked_at    timestamptz,
  unlock_at    timestamptz
);
COMMENT ON TYPE "lonny".message_state IS 'A row of message_status. It may grow at the end: name the columns that you read.';
COMMENT ON COLUMN "lonny".message_state.id IS 'The message.';
COMMENT ON COLUMN "lonny".message_state.status IS 'WAITING, READY or LOCKED.';
COMMENT ON COLUMN "lonny".message_state.channel IS 'Its channel.';
COMMENT ON COLUMN "lonny".message_state.num_attempts IS 'How often it was dequeued.';
COMMENT ON COLUMN "lonny".message_state.created_at IS 'When it was created.';
COMMENT ON COLUMN "lonny".message_state.dequeue_at IS 'When it is or was due.';
COMMENT ON COLUMN "lonny".message_state.locked_at IS 'When it was dequeued last; NULL if never.';
COMMENT ON COLUMN "lonny".message_state.unlock_at IS 'When the lock of its last dequeue ends or ended; NULL if it was not dequeued since its creation or deferral.';

CREATE TYPE "lonny".version_state AS (
  version          integer,
  package_version  text,
  breaking_version integer
);
COMMENT ON TYPE "lonny".version_state IS 'What version_status answers. It may grow at the end: name the columns that you read.';
COMMENT ON COLUMN "lonny".version_state.version IS 'Number of the last migration; NULL if the ledger is empty.';
COMMENT ON COLUMN "lonny".version_state.package_version IS 'Version of the package that applied it.';
COMMENT ON COLUMN "lonny".version_state.breaking_version IS 'Number of the last migration after which older packages cannot use the schema; NULL if there is none.';

CREATE TYPE "lonny".fault AS (
  kind       text,
  promise    integer,
  channel    text,
  message_id bigint,
  found      text,
  remedy     text
);
COMMENT ON TYPE "lonny".fault IS 'A row of check or repair: something that is wrong. It may grow at the end: name the columns that you read.';
COMMENT ON COLUMN "lonny".fault.kind IS 'What it is, in one word: MESSAGE_FORGOTTEN, MESSAGE_INCONSISTENT, CHANNEL_OVERFULL, LANE_WRONG, POLICY_INCONSISTENT, TRANSACTION_OPEN, SCHEMA_INCOMPLETE.';
COMMENT ON COLUMN "lonny".fault.promise IS 'The number of the promise that it breaks, or will.';
COMMENT ON COLUMN "lonny".fault.channel IS 'The channel; NULL if it is of no channel.';
COMMENT ON COLUMN "lonny".fault.message_id IS 'The message, or the first of several; NULL if it is of no message.';
COMMENT ON COLUMN "lonny".fault.found IS 'What was found.';
COMMENT ON COLUMN "lonny".fault.remedy IS 'What to do about it; of repair: what was done.';

CREATE TYPE "lonny".message_explanation AS (
  id              bigint,
  reason          text,
  explanation     text,
  available_in_ms bigint,
  num_ahead       integer,
  num_lanes_ahead integer
);
COMMENT ON TYPE "lonny".message_explanation IS 'What message_explain answers. It may grow at the end: name the columns that you read.';
COMMENT ON COLUMN "lonny".message_explanation.id IS 'The message.';
COMMENT ON COLUMN "lonny".message_explanation.reason IS 'In one word: GONE, LOCKED, DELAYED, PAUSED, INTERVAL, AT_LIMIT, BEHIND or READY.';
COMMENT ON COLUMN "lonny".message_explanation.explanation IS 'In a sentence.';
COMMENT ON COLUMN "lonny".message_explanation.available_in_ms IS 'Milliseconds until that ends by itself: 0 if it is READY, NULL if nothing known will end it.';
COMMENT ON COLUMN "lonny".message_explanation.num_ahead IS 'How many messages of its channel are due and come before it, 100 if it is more; NULL unless it is due.';
COMMENT ON COLUMN "lonny".message_explanation.num_lanes_ahead IS 'How many other channels have a message and their turn before its channel, 20 if it is more (of those in which nothing is ready yet five are looked at); NULL unless it is READY.';

CREATE TYPE "lonny".channel_explanation AS (
  channel             text,
  reason              text,
  explanation         text,
  available_in_ms     bigint,
  num_available       integer,
  num_lanes_ahead     integer,
  num_locked          integer,
  locked_at           timestamptz,
  max_concurrency     integer,
  release_interval_ms bigint
);
COMMENT ON TYPE "lonny".channel_explanation IS 'What channel_explain answers. It may grow at the end: name the columns that you read.';
COMMENT ON COLUMN "lonny".channel_explanation.channel IS 'The channel.';
COMMENT ON COLUMN "lonny".channel_explanation.reason IS 'In one word: EMPTY, LOCKED, DELAYED, PAUSED, INTERVAL, AT_LIMIT or READY.';
COMMENT ON COLUMN "lonny".channel_explanation.explanation IS 'In a sentence.';
COMMENT ON COLUMN "lonny".channel_explanation.available_in_ms IS 'Milliseconds until a message of it can be had: 0 if it is READY, NULL if nothing known will bring one.';
COMMENT ON COLUMN "lonny".channel_explanation.num_available IS 'How many of its messages can be had now, 100 if it is more.';
COMMENT ON COLUMN "lonny".channel_explanation.num_lanes_ahead IS 'How many other channels have a message and their turn before it, 20 if it is more (of those in which nothing is ready yet five are looked at); NULL unless it is READY.';
COMMENT ON COLUMN "lonny".channel_explanation.num_locked IS 'How many of its messages are locked, and their lock is not over; 100 if it is more.';
COMMENT ON COLUMN "lonny".channel_explanation.locked_at IS 'When the one of these was locked that has been so for the longest time.';
COMMENT ON COLUMN "lonny".channel_explanation.max_concurrency IS 'The limit that is in force.';
COMMENT ON COLUMN "lonny".channel_explanation.release_interval_ms IS 'The interval that is in force, in milliseconds.';

INSERT INTO "lonny".migration (version, name, checksum, package_version, is_breaking, applied_at)
VALUES (1, 'initial', '26f2a37f5ca6ce378ef9b1932d27521e425d21d4b013296a50cb750de8670eb7', '0.1.0', false, clock_timestamp());
DELETE FROM "lonny".object;


-- The one clock, the one hash, the places that know of the event channel and the wake channel
CREATE OR REPLACE FUNCTION "lonny"._clock()
RETURNS timestamptz
LANGUAGE sql VOLATILE PARALLEL SAFE
AS $function$
  -- No SET clause: with one it could not be inlined, and it is called in every statement.
  SELECT pg_catalog.clock_timestamp()
$function$;
COMMENT ON FUNCTION "lonny"._clock() IS 'The one clock of the queue: the time now, not the transaction''s or the statement''s. Tests replace it.';

CREATE OR REPLACE FUNCTION "lonny"._microseconds(p_at timestamptz)
RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
AS $function$
  -- No SET clause: with one it could not be inlined.
  SELECT (extract(epoch FROM p_at) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8
$function$;
COMMENT ON FUNCTION "lonny"._microseconds(timestamptz) IS 'A time as a sequence can hold it: microseconds since 1970.';

CREATE OR REPLACE FUNCTION "lonny"._lane(p_channel text)
RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
  -- No SET clause: with one it could not be inlined. Below 0, which is kept for messages without a channel and so comes last: behind it the
  -- rotation begins anew, and a queue without channels is searched once. The lowest number is kept for what is before all lanes.
  SELECT GREATEST(pg_catalog.hashtextextended(p_channel COLLATE "C", 0) OPERATOR(pg_catalog.|) (-9223372036854775807 OPERATOR(pg_catalog.-) 1), -9223372036854775807)
$function$;
COMMENT ON FUNCTION "lonny"._lane(text) IS 'The rotation''s key of a named channel. Two channels that collide share turns, nothing else.';

CREATE OR REPLACE FUNCTION "lonny"._channel_name(p_channel text, p_id bigint, p_created_at timestamptz)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
  -- No SET clause: with one it could not be inlined. Derived, not stored: a uuid in the row is written twice a message, and to draw one costs more
  -- than to insert the row.
  SELECT COALESCE(p_channel, pg_catalog.md5(pg_catalog.int8send(p_id) OPERATOR(pg_catalog.||) pg_catalog.timestamptz_send(p_created_at))::pg_catalog.uuid::pg_catalog.text)
$function$;
COMMENT ON FUNCTION "lonny"._channel_name(text, bigint, timestamptz) IS
'The name of a message''s channel. One without a channel goes by a uuid of its own, a hash of its id and the time of its creation in microseconds.';

CREATE OR REPLACE FUNCTION "lonny"._event_channel()
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
  -- Inlined as a constant: where events are off, asking costs nothing.
  SELECT NULL::pg_catalog.text
$function$;
COMMENT ON FUNCTION "lonny"._event_channel() IS 'The channel that events are sent to with NOTIFY, or NULL if events are off. Set by install.';

CREATE OR REPLACE FUNCTION "lonny"._event_notify(p_type text, p_id bigint, p_channel text, p_delay_ms bigint)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
BEGIN
  -- At most 512 bytes of channel name, six bytes each when escaped: always below the 8000 bytes that NOTIFY takes.
  PERFORM pg_notify("lonny"._event_channel(), json_strip_nulls(json_build_object(
    'type', p_type, 'id', p_id, 'channel', p_channel, 'delay_ms', p_delay_ms))::text);
END
$function$;
COMMENT ON FUNCTION "lonny"._event_notify(text, bigint, text, bigint) IS 'Sends an event; what is NULL is left out. Delivered when, and only if, the transaction commits.';

CREATE OR REPLACE FUNCTION "lonny"._wake_channel()
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
  -- Inlined as a constant, as in _event_channel.
  SELECT NULL::pg_catalog.text
$function$;
COMMENT ON FUNCTION "lonny"._wake_channel() IS 'The channel on which sleeping workers are woken with NOTIFY, or NULL if none are. Set by install.';

CREATE OR REPLACE FUNCTION "lonny"._sleepers_wake()
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- Called by whoever makes something available, or may, when the transaction commits. It waits for nobody, but a NOTIFY has the commit wait for others that notify. The shared lock, held until then, tells who is
-- about to fall asleep (_sleeper_nap_ms) that something is on its way of which it may not be told; so it comes before the look at who sleeps.
--
-- Told are all who sleep if a wake-up for the last of them is committed: a notification is delivered with the commit. Until then others send one too.
DECLARE
  v_sleeper bigint;
BEGIN
  IF current_setting('transaction_isolation') IN ('read committed', 'read uncommitted')
     AND pg_try_advisory_xact_lock_shared($regclass$"lonny".wake_up$regclass$::regclass::oid::integer, 0) THEN
    v_sleeper := pg_sequence_last_value($regclass$"lonny".sleeper$regclass$);
    IF v_sleeper IS NULL OR COALESCE((SELECT true FROM "lonny".wake_up u WHERE u.sleeper >= v_sleeper LIMIT 1), false) THEN
      RETURN;
    END IF;
    INSERT INTO "lonny".wake_up (sleeper) VALUES (v_sleeper);
  END IF;
  PERFORM pg_notify("lonny"._wake_channel(), '');
END
$function$;
COMMENT ON FUNCTION "lonny"._sleepers_wake() IS
'Wakes the workers that sleep, when, and only if, the transaction commits; does nothing if all of them have been woken since they fell asleep.';

CREATE OR REPLACE FUNCTION "lonny"._sleeper_nap_ms()
RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $function$
-- Called by a dequeue that has found nothing. Its number, drawn from a sequence, is seen by all at once: whoever looks at it later wakes it. Whoever
-- looked at it earlier and has not committed yet holds the shared lock, or has committed and is seen by one more look after this.
DECLARE
  -- c_pause: new numbers are not drawn more often, and so nobody notifies more often.
  c_pause_ms   CONSTANT bigint := 10;
  c_longest_ms CONSTANT bigint := 1000;
  v_now        bigint := "lonny"._microseconds("lonny"._clock());
  v_sleeper    bigint := pg_sequence_last_value($regclass$"lonny".sleeper$regclass$);
  v_is_woken   boolean;
  v_asleep_ms  bigint;
BEGIN
  v_is_woken := v_sleeper IS NULL OR COALESCE((SELECT true FROM "lonny".wake_up u WHERE u.sleeper >= v_sleeper LIMIT 1), false);
  -- Set before a number is drawn, and read after it was: never older than it.
  v_asleep_ms := (v_now - COALESCE(pg_sequence_last_value($regclass$"lonny".sleeper_at$regclass$), 0)) / 1000;
  IF v_is_woken THEN
    IF v_asleep_ms >= 0 AND v_asleep_ms < c_pause_ms THEN
      RETURN c_pause_ms - v_asleep_ms;
    END IF;
    PERFORM setval($regclass$"lonny".sleeper_at$regclass$, v_now);
    v_sleeper := nextval($regclass$"lonny".sleeper$regclass$);
    v_asleep_ms := 0;
    -- Of the last thousand, so that it does not step over all that an old snapshot keeps; now and then of all.
    DELETE FROM "lonny".wake_up u
     WHERE u.ctid = ANY (ARRAY (SELECT x.ctid FROM "lonny".wake_up x
                                 WHERE x.sleeper >= CASE WHEN v_sleeper % 1000 = 0 THEN 0 ELSE v_sleeper - 1000 END AND x.sleeper < v_sleeper
                                 ORDER BY x.sleeper LIMIT 1000 FOR UPDATE SKIP LOCKED));
  END IF;

  -- Undone at once, as in _channel_try_release: with this lock left, nobody else could be let sleep.
  BEGIN
    IF pg_try_advisory_xact_lock($regclass$"lonny".wake_up$regclass$::regclass::oid::integer, 0) THEN
      RAISE EXCEPTION USING ERRCODE = 'PYUND';
    END IF;
  EXCEPTION WHEN SQLSTATE 'PYUND' THEN
    RETURN NULL;
  END;
  -- Those on their way looked before the last one fell asleep. The longer ago that is, the longer they may yet take.
  RETURN LEAST(GREATEST(v_asleep_ms, c_pause_ms), c_longest_ms);
END
$function$;
COMMENT ON FUNCTION "lonny"._sleeper_nap_ms() IS
'NULL if a worker may sleep, once it has looked one more time, until it is woken: on _wake_channel, to which it has to LISTEN already. Else after how many milliseconds it has to look again, at most 1000.';

CREATE OR REPLACE FUNCTION "lonny"._raise_invalid(p_argument text, p_value text, p_hint text)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
BEGIN
  IF p_value IS NULL THEN
    RAISE EXCEPTION '% must not be NULL', p_argument
      USING ERRCODE = 'null_value_not_allowed', HINT = p_hint;
  END IF;
  RAISE EXCEPTION 'invalid %: %', p_argument,
      CASE WHEN p_value = '' THEN '''''' WHEN length(p_value) > 80 THEN left(p_value, 80) || '…' ELSE p_value END
    USING ERRCODE = 'invalid_parameter_value', HINT = p_hint;
END
$function$;
COMMENT ON FUNCTION "lonny"._raise_invalid(text, text, text) IS 'Refuses an argument: 22004 if it is NULL, else 22023, with its name, its value and what would be right.';


-- What producers, consumers and operators may call
CREATE OR REPLACE FUNCTION "lonny"._producer()
RETURNS text[]
LANGUAGE sql IMMUTABLE
AS $function$
  SELECT ARRAY['message_create', 'message_create_many', 'version_status', '_event_channel']
$function$;
COMMENT ON FUNCTION "lonny"._producer() IS
'The functions that a producer may call, by name. Who has the right to call this one is a producer.';

CREATE OR REPLACE FUNCTION "lonny"._bound_producer()
RETURNS text[]
LANGUAGE sql IMMUTABLE
AS $function$
  SELECT "lonny"._producer()
$function$;
COMMENT ON FUNCTION "lonny"._bound_producer() IS
'The functions that a producer of some channels only may call, by name. Who has the right to call this one, and not _producer, is one.';

CREATE OR REPLACE FUNCTION "lonny"._consumer()
RETURNS text[]
LANGUAGE sql IMMUTABLE
AS $function$
  SELECT ARRAY['message_dequeue', 'message_delete', 'message_delete_many', 'message_defer', 'message_heartbeat', 'version_status', '_event_channel',
               '_wake_channel']
$function$;
COMMENT ON FUNCTION "lonny"._consumer() IS
'The functions that a consumer may call, by name. Who has the right to call this one is a consumer.';

CREATE OR REPLACE FUNCTION "lonny"._operator()
RETURNS text[]
LANGUAGE sql IMMUTABLE
AS $function$
  SELECT ARRAY['channel_policy_set', 'channel_policy_clear', 'message_cancel', 'message_status', 'message_explain', 'channel_explain', 'check', 'repair',
               'version_status', '_event_channel']
$function$;
COMMENT ON FUNCTION "lonny"._operator() IS
'The functions that an operator may call, by name. Who has the right to call this one is an operator.';

CREATE OR REPLACE FUNCTION "lonny"._channels_check(p_channels text[])
RETURNS void
LANGUAGE plpgsql STABLE
AS $function$
-- A function that runs with its owner's rights sees of its caller only the role that has logged in, so that one is looked at.
DECLARE
  v_channel  text;
  v_prefixes text;
BEGIN
  -- Bound as one role that it inherits from, and free as another; superusers are everything.
  IF has_function_privilege(session_user, $regprocedure$"lonny"._producer()$regprocedure$::regprocedure, 'EXECUTE') THEN
    RETURN;
  END IF;
  SELECT u.channel INTO v_channel
    FROM unnest(p_channels) WITH ORDINALITY AS u (channel, n)
   WHERE NOT EXISTS (SELECT FROM "lonny".producer p
                      WHERE starts_with(u.channel, p.channel_prefix) AND pg_has_role(session_user, p.role, 'USAGE'))
   ORDER BY u.n LIMIT 1;
  IF FOUND THEN
    SELECT string_agg(quote_literal(p.channel_prefix), ' or ' ORDER BY p.channel_prefix) INTO v_prefixes
      FROM "lonny".producer p WHERE pg_has_role(session_user, p.role, 'USAGE');
    RAISE EXCEPTION 'role "%" may create messages only in channels that begin with %, not %', session_user, COALESCE(v_prefixes, 'nothing'),
        CASE WHEN v_channel IS NULL THEN 'without a channel' ELSE 'in ' || quote_literal(left(v_channel, 80)) END
      USING ERRCODE = 'insufficient_privilege', HINT = 'Choose another channel, or have the owner of the queue call role_grant with another prefix.';
  END IF;
END
$function$;
COMMENT ON FUNCTION "lonny"._channels_check(text[]) IS
'Refuses, with 42501, channels in which the role that has logged in may not create messages, because it is bound to others.';


-- Putting messages in
CREATE OR REPLACE FUNCTION "lonny"._is_alone(p_call_stack text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $function$
-- The server does not say whether a statement is a transaction of its own, but the times do. In a simple query the transaction begins with the
-- statement. A prepared statement begins it with its portal, which pg_cursors shows with the time. BEGIN, or a statement before, begins it
-- earlier (and may leave its own portal behind, if it was prepared); so does a statement that is parsed, bound and executed at once, which cannot be
-- told from the former and counts as such.
BEGIN
  RETURN CASE
    -- Called from a function, which may do anything afterwards.
    WHEN p_call_stack LIKE '%' || chr(10) || '%' THEN false
    -- Several statements in one simple query: the transaction ends with the last.
    WHEN transaction_timestamp() = statement_timestamp() THEN position(';' IN rtrim(current_query(), E'; \t\r\n')) = 0
    ELSE EXISTS (SELECT FROM pg_cursor() c WHERE c.name = '' AND c.statement = current_query() AND c.creation_time = transaction_timestamp())
  END;
END
$function$;
COMMENT ON FUNCTION "lonny"._is_alone(text) IS
'Whether the statement under way is a transaction of its own, as far as can be told; if in doubt, false. p_call_stack is the caller''s PG_CONTEXT.
To be asked before the transaction has written anything: one that has is not alone. Commands sent after it in one pipeline are not known.';

CREATE OR REPLACE FUNCTION "lonny"._channel_admits(p_lane bigint, p_channel text, p_now timestamptz, p_call_stack text)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $function$
-- For a create that is a transaction of its own and the only row of its statement: it ends at once, and the mutex with it. Any other leaves the decision
-- to the dequeues (_channel_advance), as it would hold up the channel until it ends. So does one that finds others waiting: it could not be admitted,
-- and the mutex is wanted by those who release. They also decide where it takes more than a count: with an interval, or foreign messages.
--
-- The mutex makes the count exact, as in _channel_advance: its holder sees all that earlier holders made ready.
DECLARE
  -- Of those that are out no more are counted: above this the dequeues decide, each for many messages.
  c_most      CONSTANT integer := 200;
  v_policy_id bigint;
BEGIN
  IF NOT "lonny"._is_alone(p_call_stack)
     OR octet_length(current_query()) > 4096 OR current_query() !~* E'^\\s*select\\M' OR current_query() ~* E'\\m(from|union|values)\\M'
     OR current_setting('transaction_isolation') <> 'read committed'
     -- The first in the order tells, as in _place_freed.
     OR COALESCE((SELECT m.dequeue_at <= p_now OR m.timer_at IS NULL FROM "lonny".message m
                   WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel
                   ORDER BY m.dequeue_at, m.id LIMIT 1), false)
     OR NOT pg_try_advisory_xact_lock($regclass$"lonny".wake$regclass$::regclass::oid::integer, hashint8(p_lane)) THEN
    RETURN NULL;
  END IF;
  SELECT p.id INTO v_policy_id
    FROM (SELECT x.id, x.cleared, LEAST(x.max_concurrency, c_most) AS max_concurrency, x.release_interval_ms
            FROM "lonny".channel_policy x WHERE x.channel = p_channel ORDER BY x.id DESC LIMIT 1) p, LATERAL (
         SELECT count(*) AS num
           FROM (SELECT FROM "lonny".message m
                  WHERE m.status = 'LOCKED' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel LIMIT p.max_concurrency) x) l, LATERAL (
         SELECT count(*) AS num, COALESCE(bool_or(x.policy_id IS DISTINCT FROM p.id), false) AS has_foreign
           FROM (SELECT m.policy_id FROM "lonny".message m
                  WHERE m.status = 'READY' AND m.lane = p_lane AND m.channel = p_channel LIMIT p.max_concurrency) x) r
   WHERE NOT p.cleared AND COALESCE(p.release_interval_ms, 0) = 0 AND l.num + r.num < p.max_concurrency AND NOT r.has_foreign
     -- Once more: what was put back before the mutex was ours is seen only now.
     AND NOT COALESCE((SELECT m.dequeue_at <= p_now OR m.timer_at IS NULL FROM "lonny".message m
                        WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel
                        ORDER BY m.dequeue_at, m.id LIMIT 1), false);
  RETURN v_policy_id;
END
$function$;
COMMENT ON FUNCTION "lonny"._channel_admits(bigint, text, timestamptz, text) IS
'The version of a limited channel''s policy that allows one message more to be ready at once; NULL if it does not, or if that is not for the caller to find out. p_now is the time, p_call_stack the caller''s PG_CONTEXT.
To be asked before the transaction has written anything. If it is allowed the channel is the caller''s until its transaction ends.';

CREATE OR REPLACE FUNCTION "lonny".message_create(channel text, content bytea, lock_ms bigint, delay_ms bigint DEFAULT 0)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $function$
-- It only inserts. Its transaction may stay open for an hour or roll back, and nobody notices. One of its own may try for the mutex of a limited
-- channel, to make the message ready there and then, and hold it until it ends. (A pipeline of prepared statements looks so to its first one:
-- while it lasts nothing of that channel is released.)
DECLARE
  -- The clock is read when the transaction has a number, if it sets a timer (_generation_retire).
  v_now        timestamptz := CASE WHEN message_create.delay_ms <= 0 OR pg_current_xact_id() IS NOT NULL THEN "lonny"._clock() END;
  v_objection  text;
  v_lane       bigint;
  v_is_limited boolean;
  v_policy_id  bigint;
  v_call_stack text;
  v_id         bigint;
BEGIN
  -- All in one: each expression of its own is initialised anew in every transaction.
  v_objection := CASE
    WHEN octet_length(message_create.channel) NOT BETWEEN 1 AND 512 THEN 'channel'
    -- A row is sent as 1 GiB at most, in which most clients have each byte as two digits; and a state comes on top.
    WHEN COALESCE(octet_length(message_create.content) > 256000000, true) THEN 'content'
    WHEN COALESCE(message_create.lock_ms NOT BETWEEN 0 AND 3155760000000, true) THEN 'lock_ms'
    WHEN COALESCE(message_create.delay_ms NOT BETWEEN -3155760000000 AND 3155760000000, true) THEN 'delay_ms'
    WHEN session_user <> current_user AND has_function_privilege(session_user, $regprocedure$"lonny"._bound_producer()$regprocedure$::regprocedure, 'EXECUTE')
      THEN 'bound' END;
  IF v_objection IS NOT NULL THEN
    CASE v_objection
      WHEN 'channel' THEN
        PERFORM "lonny"._raise_invalid('channel', message_create.channel, 'Give a name of 1 to 512 bytes, or NULL for no channel.');
      WHEN 'content' THEN
        PERFORM "lonny"._raise_invalid('content', octet_length(message_create.content) || ' bytes', 'Give at most 256000000 bytes; none at all are a content too.');
      WHEN 'lock_ms' THEN
        PERFORM "lonny"._raise_invalid('lock_ms', message_create.lock_ms::text, 'Give milliseconds from 0 to 3155760000000 (100 years).');
      WHEN 'delay_ms' THEN
        PERFORM "lonny"._raise_invalid('delay_ms', message_create.delay_ms::text, 'Give milliseconds from -3155760000000 to 3155760000000 (100 years either way).');
      WHEN 'bound' THEN
        PERFORM "lonny"._channels_check(ARRAY[message_create.channel]);
    END CASE;
  END IF;

  IF message_create.channel IS NOT NULL THEN
    v_lane := "lonny"._lane(message_create.channel);
    -- A policy that is committed while we look is not seen here; the dequeue that takes the message will see it and put the message back.
    SELECT NOT p.cleared INTO v_is_limited
      FROM "lonny".channel_policy p WHERE p.channel = message_create.channel ORDER BY p.id DESC LIMIT 1;
    IF v_is_limited AND message_create.delay_ms <= 0 THEN
      IF message_create.delay_ms = 0 AND pg_current_xact_id_if_assigned() IS NULL THEN
        GET DIAGNOSTICS v_call_stack = PG_CONTEXT;
        v_policy_id := "lonny"._channel_admits(v_lane, message_create.channel, v_now, v_call_stack);
      END IF;
      IF v_policy_id IS NULL THEN
        INSERT INTO "lonny".wake (lane, channel) VALUES (v_lane, message_create.channel);
      END IF;
    END IF;
  END IF;
  INSERT INTO "lonny".message AS m (lane, lock_ms, created_at, dequeue_at, timer_at, policy_id, status, channel, content)
  VALUES (COALESCE(v_lane, 0), message_create.lock_ms, v_now, v_now + message_create.delay_ms * interval '1 ms',
          CASE WHEN message_create.delay_ms > 0 THEN v_now + message_create.delay_ms * interval '1 ms' END, v_policy_id,
          CASE WHEN message_create.delay_ms > 0 OR v_is_limited AND v_policy_id IS NULL THEN 'WAITING'::"lonny".message_status ELSE 'READY' END,
          message_create.channel, message_create.content)
  RETURNING m.id INTO v_id;

  IF COALESCE("lonny"._wake_channel(), "lonny"._event_channel()) IS NOT NULL THEN
    IF "lonny"._wake_channel() IS NOT NULL THEN
      PERFORM "lonny"._sleepers_wake();
    END IF;
    IF "lonny"._event_channel() IS NOT NULL THEN
      PERFORM "lonny"._event_notify('MESSAGE_CREATED', v_id, "lonny"._channel_name(message_create.channel, v_id, v_now), message_create.delay_ms);
    END IF;
  END IF;
  RETURN v_id;
END
$function$;
COMMENT ON FUNCTION "lonny".message_create(text, bytea, bigint, bigint) IS
'Puts a message into a channel and returns its id.
It can be dequeued once the calling transaction has committed and delay_ms milliseconds have passed since the call; a negative delay puts it ahead of others in its channel. channel NULL: no channel; all such messages share one turn, first in, first out. lock_ms is for how many milliseconds a dequeue locks it and a heartbeat extends the lock. The content has at most 256000000 bytes. Errors: 42501 if the role is bound to other channels, 22004, 22023.';

CREATE OR REPLACE FUNCTION "lonny".message_create_many(channels text[], contents bytea[], lock_ms bigint[], delay_ms bigint[] DEFAULT '{0}')
RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $function$
-- As message_create, in one statement for all: it only inserts, so batches in any order neither wait nor deadlock.
DECLARE
  v_count  integer := cardinality(message_create_many.contents);
  v_lock   bigint[] := message_create_many.lock_ms;
  v_delay  bigint[] := message_create_many.delay_ms;
  -- As in message_create.
  v_now    timestamptz := CASE WHEN pg_current_xact_id() IS NOT NULL THEN "lonny"._clock() END;
  v_row    record;
  v_ids    bigint[];
BEGIN
  IF v_count IS NULL THEN
    PERFORM "lonny"._raise_invalid('contents', NULL, 'Give an array of bytea, one element a message.');
  END IF;
  IF v_lock IS NULL OR cardinality(v_lock) NOT IN (1, v_count) THEN
    PERFORM "lonny"._raise_invalid('lock_ms', v_lock::text, format('Give one element for all or as many as contents (%s).', v_count));
  END IF;
  IF v_delay IS NULL OR cardinality(v_delay) NOT IN (1, v_count) THEN
    PERFORM "lonny"._raise_invalid('delay_ms', v_delay::text, format('Give one element for all or as many as contents (%s).', v_count));
  END IF;
  IF cardinality(message_create_many.channels) <> v_count THEN
    PERFORM "lonny"._raise_invalid('channels', message_create_many.channels::text, format('Give as many elements as contents (%s), or NULL for no channels.', v_count));
  END IF;
  IF cardinality(v_lock) = 1 THEN
    v_lock := array_fill((SELECT unnest(v_lock)), ARRAY[v_count]);
  END IF;
  -- Also when it has as many: of any shape, it is counted from 1 to the end below.
  v_delay := CASE WHEN cardinality(v_delay) = 1 THEN array_fill((SELECT unnest(v_delay)), ARRAY[v_count])
                  ELSE ARRAY (SELECT unnest(v_delay)) END;

  SELECT u.* INTO v_row
    FROM unnest(message_create_many.channels, message_create_many.contents, v_lock, v_delay)
         WITH ORDINALITY AS u (channel, content, lock_ms, delay_ms, n)
   WHERE octet_length(u.channel) NOT BETWEEN 1 AND 512
      OR u.content IS NULL OR octet_length(u.content) > 256000000
      OR u.lock_ms IS NULL OR u.lock_ms NOT BETWEEN 0 AND 3155760000000
      OR u.delay_ms IS NULL OR u.delay_ms NOT BETWEEN -3155760000000 AND 3155760000000
   ORDER BY u.n LIMIT 1;
  IF FOUND THEN
    IF octet_length(v_row.channel) NOT BETWEEN 1 AND 512 THEN
      PERFORM "lonny"._raise_invalid(format('channels[%s]', v_row.n), v_row.channel, 'Give names of 1 to 512 bytes, or NULL for no channel.');
    ELSIF v_row.content IS NULL THEN
      PERFORM "lonny"._raise_invalid(format('contents[%s]', v_row.n), NULL, 'Give every content as bytea; it may be empty.');
    ELSIF octet_length(v_row.content) > 256000000 THEN
      PERFORM "lonny"._raise_invalid(format('contents[%s]', v_row.n), format('%s bytes', octet_length(v_row.content)), 'Give at most 256000000 bytes each.');
    ELSIF v_row.lock_ms IS NULL OR v_row.lock_ms NOT BETWEEN 0 AND 3155760000000 THEN
      PERFORM "lonny"._raise_invalid(format('lock_ms[%s]', v_row.n), v_row.lock_ms::text, 'Give milliseconds from 0 to 3155760000000 (100 years).');
    ELSE
      PERFORM "lonny"._raise_invalid(format('delay_ms[%s]', v_row.n), v_row.delay_ms::text, 'Give milliseconds from -3155760000000 to 3155760000000 (100 years either way).');
    END IF;
  END IF;

  IF session_user <> current_user AND has_function_privilege(session_user, $regprocedure$"lonny"._bound_producer()$regprocedure$::regprocedure, 'EXECUTE') THEN
    PERFORM "lonny"._channels_check(COALESCE(message_create_many.channels, ARRAY[NULL]));
  END IF;

  WITH given AS (
    SELECT u.channel, CASE WHEN u.channel IS NULL THEN 0 ELSE "lonny"._lane(u.channel) END AS lane,
           u.content, u.lock_ms, u.delay_ms, v_now + u.delay_ms * interval '1 ms' AS at, u.n
      FROM unnest(message_create_many.channels, message_create_many.contents, v_lock, v_delay)
           WITH ORDINALITY AS u (channel, content, lock_ms, delay_ms, n)
  ), created AS (
    INSERT INTO "lonny".message AS m (lane, lock_ms, created_at, dequeue_at, timer_at, status, channel, content)
    SELECT g.lane, g.lock_ms, v_now, g.at,
           CASE WHEN g.delay_ms > 0 THEN g.at END,
           CASE WHEN g.delay_ms > 0
                  OR g.lane <> 0 AND (SELECT NOT p.cleared FROM "lonny".channel_policy p WHERE p.channel = g.channel ORDER BY p.id DESC LIMIT 1)
                THEN 'WAITING'::"lonny".message_status ELSE 'READY' END,
           g.channel, g.content
      FROM given g ORDER BY g.n
    RETURNING m.id, m.lane, m.channel, m.status, m.timer_at
  ), woken AS (
    INSERT INTO "lonny".wake (lane, channel)
    SELECT DISTINCT c.lane, c.channel FROM created c WHERE c.status = 'WAITING' AND c.timer_at IS NULL
  )
  -- Ids are drawn in the order of insertion, which is the order of the input.
  SELECT array_agg(c.id ORDER BY c.id) INTO v_ids FROM created c;
  IF v_ids IS NOT NULL AND "lonny"._wake_channel() IS NOT NULL THEN
    PERFORM "lonny"._sleepers_wake();
  END IF;
  IF "lonny"._event_channel() IS NOT NULL THEN
    PERFORM "lonny"._event_notify('MESSAGE_CREATED', u.id, "lonny"._channel_name(u.channel, u.id, v_now), u.delay_ms)
       FROM unnest(v_ids, message_create_many.channels, v_delay) AS u (id, channel, delay_ms);
  END IF;
  RETURN QUERY SELECT u.id FROM unnest(v_ids) AS u (id);
END
$function$;
COMMENT ON FUNCTION "lonny".message_create_many(text[], bytea[], bigint[], bigint[]) IS
'Puts many messages in at once and returns their ids in the order of the input.
channels NULL, or an element NULL: no channel. lock_ms and delay_ms, in milliseconds, have one element for all or as many as contents. Each message is as by message_create. Errors: 42501 if the role is bound to other channels, 22004, 22023, also for arrays of lengths that do not fit; then nothing is created.';


-- Deciding when a message becomes ready
CREATE OR REPLACE FUNCTION "lonny"._channel_survey(
  p_lane bigint, p_policy "lonny"._policy_in_force, p_released_at timestamptz, p_now timestamptz, p_over_ids bigint[],
  OUT room bigint, OUT num_due integer, OUT num_foreign integer, OUT num_overtaking integer, OUT over_ids bigint[], OUT ready_ids bigint[],
  OUT suspect_ids bigint[], OUT is_flooded boolean, OUT is_ending boolean, OUT released_at timestamptz, OUT release_at timestamptz, OUT early_at timestamptz,
  OUT next_status "lonny".message_status, OUT next_at timestamptz, OUT next_id bigint, OUT is_next_held boolean)
LANGUAGE plpgsql VOLATILE
AS $function$
-- Counts what a channel has out: ready and locked together in one statement, so in one snapshot. In two, a message that is dequeued
-- between them would be in neither. A lock that is over holds its place until that was noticed: a heartbeat may still renew it. A foreign message
-- holds none, since no dequeue may take it before an advance has released it; but one that did not see the policy yet may be taking it at this
-- moment: a suspect.
--
-- A row version whose xmax is another's (an update leaves the lock that it came with: xmax = xmin) is being updated, deleted or locked by a
-- transaction that is not over, or was by one that rolled back: it may end without seeing what this transaction does.
--
-- Of the ready ones the limit and c_ahead more are read. If there are more, suspects may be among those that were not.
DECLARE
  c_batch CONSTANT integer := 200;
  c_ahead CONSTANT integer := 1000;
  -- One more than the limit tells that it is exceeded; where there is none, only an interval, c_batch does for it. c_ahead more is still an integer.
  v_cap     integer := LEAST(COALESCE(p_policy.max_concurrency, c_batch), 2147480000) + 1;
  v_out     bigint;
  v_ready   bigint;
  v_waiting integer;
BEGIN
  SELECT l.num + r.num_own, r.num, r.num - r.num_own, COALESCE(r.ready_ids, '{}'), COALESCE(r.suspect_ids, '{}'),
         COALESCE(l.is_held AND p_policy.max_concurrency IS NOT NULL, false) OR COALESCE(r.is_held, false),
         d.num, d.num_due, COALESCE(d.is_held, false), d.early_at
    INTO v_out, v_ready, num_foreign, ready_ids, suspect_ids, is_ending, v_waiting, num_due, is_next_held, early_at
    FROM (SELECT count(*) AS num, bool_or(x.xmax <> 0 AND x.xmax <> x.xmin) AS is_held
            FROM (SELECT m.xmin, m.xmax FROM "lonny".message m
                   WHERE m.status = 'LOCKED' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_policy.channel
                   LIMIT v_cap + c_batch) x) l,
         (SELECT count(*) AS num,
                 count(*) FILTER (WHERE x.is_own) AS num_own,
                 array_agg(x.id ORDER BY x.dequeue_at, x.id) FILTER (WHERE x.is_own) AS ready_ids,
                 array_agg(x.id) FILTER (WHERE x.is_held AND NOT x.is_own) AS suspect_ids,
                 bool_or(x.is_held AND x.is_own) AS is_held
            FROM (SELECT m.id, m.dequeue_at, m.policy_id IS NOT DISTINCT FROM p_policy.id AS is_own, m.xmax <> 0 AND m.xmax <> m.xmin AS is_held
                    FROM "lonny".message m
                   WHERE m.status = 'READY' AND m.lane = p_lane AND m.channel = p_policy.channel
                   ORDER BY m.dequeue_at, m.id LIMIT v_cap + c_ahead) x) r,
         (SELECT count(*) AS num, count(*) FILTER (WHERE x.is_due) AS num_due, bool_or(x.is_held AND x.is_due) AS is_held,
                 min(x.dequeue_at) FILTER (WHERE NOT x.is_due AND x.timer_at IS NULL) AS early_at
            FROM (SELECT m.dequeue_at, m.timer_at, m.dequeue_at <= p_now AS is_due, m.xmax <> 0 AND m.xmax <> m.xmin AS is_held
                    FROM "lonny".message m
                   WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_policy.channel
                   ORDER BY m.dequeue_at, m.id LIMIT 2) x) d;

  -- The rest as a rule need not be asked.
  IF v_waiting = 2 AND early_at IS NULL THEN
    SELECT min(x.dequeue_at) FILTER (WHERE x.timer_at IS NULL) INTO early_at
      FROM (SELECT m.dequeue_at, m.timer_at FROM "lonny".message m
             WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_policy.channel AND m.dequeue_at > p_now
             ORDER BY m.dequeue_at, m.id LIMIT 100) x;
  END IF;
  num_overtaking := 0;
  IF num_due > 0 AND ready_ids <> '{}' THEN
    SELECT count(*) INTO num_overtaking
      FROM (SELECT m.dequeue_at, m.id FROM "lonny".message m WHERE m.id = ready_ids[cardinality(ready_ids)] LIMIT 1) last, LATERAL (
           SELECT FROM "lonny".message m
            WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_policy.channel
              AND m.dequeue_at <= p_now AND (m.dequeue_at, m.id) < (last.dequeue_at, last.id)
            LIMIT c_batch) x;
  END IF;
  released_at := p_released_at;
  IF p_policy.release_interval_ms > 0 THEN
    SELECT GREATEST(p_released_at, max(x.released_at)) INTO released_at
      FROM "lonny".wake x
     WHERE (x.at IS NOT NULL OR x.released_at IS NOT NULL) AND x.lane = p_lane AND x.channel = p_policy.channel;
    release_at := released_at + p_policy.release_interval_ms * interval '1 ms';
  END IF;

  is_flooded := v_ready = v_cap + c_ahead;
  room := COALESCE(p_policy.max_concurrency, 2147483647) - v_out;
  over_ids := CASE WHEN p_over_ids = '{}' THEN p_over_ids
                   ELSE ARRAY (SELECT m.id FROM unnest(p_over_ids) AS u (id), LATERAL (
                                 SELECT x.id, x.dequeue_at FROM "lonny".message x
                                  WHERE x.id = u.id AND x.status = 'LOCKED' AND x.unlock_at <= p_now LIMIT 1) m
                                ORDER BY m.dequeue_at, m.id) END;

  -- Only if there is something to compare: as a rule the one that waits first is the next.
  IF over_ids <> '{}' OR num_foreign > 0 OR ready_ids <> '{}' AND num_due > 0 THEN
    SELECT n.status, n.dequeue_at, n.id, n.is_held INTO next_status, next_at, next_id, is_next_held
      FROM ((SELECT m.status, m.dequeue_at, m.id, m.xmax <> 0 AND m.xmax <> m.xmin AS is_held FROM "lonny".message m
              WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_policy.channel AND m.dequeue_at <= p_now
              ORDER BY m.dequeue_at, m.id LIMIT 1)
            UNION ALL
            (SELECT m.status, m.dequeue_at, m.id, m.xmax <> 0 AND m.xmax <> m.xmin AS is_held FROM "lonny".message m
              WHERE m.id = over_ids[1] AND m.status = 'LOCKED')
            UNION ALL
            (SELECT m.status, m.dequeue_at, m.id, m.xmax <> 0 AND m.xmax <> m.xmin AS is_held FROM "lonny".message m
              WHERE m.status = 'READY' AND m.lane = p_lane AND m.channel = p_policy.channel AND m.policy_id IS DISTINCT FROM p_policy.id
                AND num_foreign > 0
              ORDER BY m.dequeue_at, m.id LIMIT 1)) n
     ORDER BY n.dequeue_at, n.id LIMIT 1;
  ELSIF num_due > 0 THEN
    next_status := 'WAITING';
  END IF;
END
$function$;
COMMENT ON FUNCTION "lonny"._channel_survey(bigint, "lonny"._policy_in_force, timestamptz, timestamptz, bigint[]) IS
'What a channel has out, and what could come next. p_policy is the policy in force, p_released_at the last release that the caller knows of, p_now the time, p_over_ids messages of the channel whose lock may be over.
room: how many more may be out, negative if too many are. num_due: how many wait and are due, two at most. num_foreign: ready, but released by another version of the policy or by none. num_overtaking: wait, due, although they sort before something ready. over_ids: those of p_over_ids whose lock is over, in order. ready_ids: released by this policy, in order. suspect_ids: foreign, and perhaps in another transaction''s hands. is_flooded: there are too many to know all suspects. is_ending: something that is out is in another''s hands. release_at: when the interval ends. early_at: when something is due that was due before, as the clock was set back; it has no timer. next_status: the status of the message that would be the next to release, NULL if there is none; next_at, next_id: its place, if others are ready; is_next_held: it is perhaps in another transaction''s hands.';

CREATE OR REPLACE FUNCTION "lonny"._timer_set(p_lane bigint, p_channel text, p_at timestamptz, p_released_at timestamptz)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
BEGIN
  -- One that is there already is held, lest another transaction deletes it that does not see yet what this one wants it for.
  PERFORM FROM "lonny".wake w
    WHERE (w.at IS NOT NULL OR w.released_at IS NOT NULL) AND w.lane = p_lane AND w.channel = p_channel
      AND COALESCE(w.at, 'infinity') <= p_at AND (p_released_at IS NULL OR w.released_at = p_released_at)
    LIMIT 1 FOR KEY SHARE SKIP LOCKED;
  IF NOT FOUND THEN
    INSERT INTO "lonny".wake (lane, channel, at, released_at) VALUES (p_lane, p_channel, p_at, p_released_at);
  END IF;
END
$function$;
COMMENT ON FUNCTION "lonny"._timer_set(bigint, text, timestamptz, timestamptz) IS
'Has a channel looked at when p_at is over, unless a timer does so already. p_released_at: the release that an interval is counted from, or NULL.';

CREATE OR REPLACE FUNCTION "lonny"._channel_advance(p_lane bigint, p_channel text, p_released_at timestamptz, p_over_ids bigint[], p_max integer)
RETURNS bigint[]
LANGUAGE plpgsql VOLATILE
AS $function$
-- The one place that decides what of a limited channel becomes ready. It is level-triggered: it looks at what is, and keeps no count that
-- could drift. The caller holds the lane's mutex until the end of its transaction, and has removed the wakes that brought it here before.
--
-- Why nothing is forgotten: whoever changes something that matters here commits a wake with it. A wake that was removed was visible, so
-- its cause is visible to the statements below, which take their snapshots later; a wake that was not visible stays for the next time.
-- What is passed by because another transaction holds its row gets a timer, since that transaction may roll back and leave no trace.
--
-- Why limits are exact: only the holder of the mutex makes messages of a limited channel ready, and it sees all that earlier holders
-- committed. A message that slipped by (created before the policy was visible) is stopped by the dequeue that would take it.
--
-- With p_max = 1 the caller takes what is released, and may stay open for an hour: no other row is changed, but the one whose place it takes (one
-- ready that sorts after it, or one whose lock is over; more of these only if they are more than the limit, and foreign ones if too many are).
DECLARE
  -- c_look: when to look again at what was passed by.
  c_look       CONSTANT interval := interval '200 ms';
  c_batch      CONSTANT bigint := 200;
  -- As in message_create.
  v_now        timestamptz := CASE WHEN pg_current_xact_id() IS NOT NULL THEN "lonny"._clock() END;
  v_policy     "lonny"._policy_in_force;
  v_survey     record;
  v_is_cleared boolean;
  v_has_older  boolean;
  v_room       bigint := 2147483647;
  v_held       bigint := 0;
  v_count      bigint;
  v_moved      bigint := 0;
  v_back       integer := 0;
  v_released   bigint[] := ARRAY[]::bigint[];
  v_waiting    bigint := 2147483647;
  v_more       boolean := true;
  v_tidy       boolean := false;
  v_doubt      boolean := false;
  v_left_at    timestamptz;
BEGIN
  SELECT p.id, p.channel, p.max_concurrency, p.release_interval_ms, p.cleared,
         COALESCE((SELECT true FROM "lonny".channel_policy x WHERE x.channel = p_channel AND x.id < p.id LIMIT 1), false)
    INTO v_policy.id, v_policy.channel, v_policy.max_concurrency, v_policy.release_interval_ms, v_is_cleared, v_has_older
    FROM "lonny".channel_policy p WHERE p.channel = p_channel ORDER BY p.id DESC LIMIT 1;
  IF v_has_older THEN
    -- The mutex keeps out all but repair.
    DELETE FROM "lonny".channel_policy v
     WHERE v.channel = p_channel
       AND v.id = ANY (ARRAY (SELECT x.id FROM "lonny".channel_policy x WHERE x.channel = p_channel AND x.id < v_policy.id FOR UPDATE SKIP LOCKED));
  END IF;
  IF v_is_cleared THEN
    v_policy := NULL;
  END IF;

  IF v_policy.id IS NOT NULL THEN
    v_survey := "lonny"._channel_survey(p_lane, v_policy, p_released_at, v_now, p_over_ids);
    v_room := v_survey.room;
    IF p_max = 1 AND v_survey.next_status IS NULL THEN
      RETURN v_released;
    END IF;

    -- Which of the suspects are in another's hands? That is known by whether they can be locked, which must leave no lock behind: see
    -- _channel_try_release for PYUND.
    IF cardinality(v_survey.suspect_ids) > 0 THEN
      BEGIN
        PERFORM FROM unnest(v_survey.suspect_ids) AS u (id), LATERAL (
          SELECT FROM "lonny".message m WHERE m.id = u.id AND m.status::text = 'READY' FOR NO KEY UPDATE SKIP LOCKED) h;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        RAISE EXCEPTION USING ERRCODE = 'PYUND';
      EXCEPTION WHEN SQLSTATE 'PYUND' THEN
        v_held := cardinality(v_survey.suspect_ids) - v_count;
      END;
      v_room := v_room - v_held;
      v_doubt := v_held > 0;
    END IF;

    -- Those whose lock is over and foreign ones wait from now on: all that one call should move, or what is released below and, if there is no
    -- room for it, as many locks that are over as make room.
    v_count := CASE WHEN p_max > 1 THEN cardinality(v_survey.over_ids)
                    WHEN v_survey.next_status = 'LOCKED' THEN GREATEST(1 - v_room, 1)
                    ELSE 1 - v_room END;
    IF v_survey.over_ids <> '{}' AND v_count > 0 THEN
      UPDATE "lonny".message m
         SET status = 'WAITING', policy_id = NULL, timer_at = NULL
       WHERE m.id = ANY (ARRAY (
               SELECT h.id FROM unnest(v_survey.over_ids) AS u (id), LATERAL (
                 SELECT x.id FROM "lonny".message x
                  WHERE x.id = u.id AND x.status = 'LOCKED' AND x.unlock_at <= v_now
                    FOR NO KEY UPDATE SKIP LOCKED) h
                LIMIT v_count));
      GET DIAGNOSTICS v_moved = ROW_COUNT;
      v_room := v_room + v_moved;
    END IF;
    v_count := CASE WHEN v_survey.num_foreign = 0 THEN 0
                    WHEN v_survey.is_flooded THEN c_batch
                    WHEN p_max > 1 OR v_survey.next_status = 'READY' THEN p_max
                    ELSE 0 END;
    IF v_count > 0 THEN
      UPDATE "lonny".message m
         SET status = 'WAITING', policy_id = NULL
       WHERE m.id = ANY (ARRAY (
               SELECT x.id FROM "lonny".message x
                WHERE x.status = 'READY' AND x.lane = p_lane AND x.channel = p_channel AND x.policy_id IS DISTINCT FROM v_policy.id
                ORDER BY x.dequeue_at, x.id LIMIT v_count
                  FOR NO KEY UPDATE SKIP LOCKED));
      GET DIAGNOSTICS v_count = ROW_COUNT;
    END IF;
    v_tidy := CASE WHEN p_max = 1 THEN v_survey.num_foreign - v_held > v_count ELSE v_count = c_batch END;
    v_moved := v_moved + v_count;
    v_more := p_max > 1 OR v_survey.num_due + cardinality(v_survey.over_ids) + v_survey.num_foreign > 1;

    -- If none or one is due and that is all, this is how many may be left. What came since has its own wake.
    IF v_survey.num_due < 2 AND v_moved = 0 AND v_survey.early_at IS NULL THEN
      v_waiting := v_survey.num_due;
    END IF;
    IF v_survey.early_at IS NOT NULL THEN
      PERFORM "lonny"._timer_set(p_lane, p_channel, v_survey.early_at, NULL);
    END IF;
    IF v_survey.release_at > v_now THEN
      -- Kept even if nothing waits now: it is all that is known of the last release.
      PERFORM "lonny"._timer_set(p_lane, p_channel, v_survey.release_at, v_survey.released_at);
      v_room := 0;
    ELSIF v_survey.is_flooded THEN
      v_room := 0;
    ELSE
      -- As many as were overtaken make room for those that overtook them: the last ones of the order.
      v_back := LEAST(cardinality(v_survey.ready_ids),
                      CASE WHEN p_max > 1 THEN v_survey.num_overtaking + v_moved
                           WHEN v_room > 0 AND COALESCE(v_policy.release_interval_ms, 0) = 0 THEN 0 ELSE 1 END);
      IF v_back > 0 AND v_room + v_back > 0 THEN
        UPDATE "lonny".message m
           SET status = 'WAITING', policy_id = NULL
         WHERE m.id = ANY (ARRAY (
                 SELECT h.id
                   FROM unnest(v_survey.ready_ids[cardinality(v_survey.ready_ids) - v_back + 1 :]) AS u (id), LATERAL (
                     SELECT x.id FROM "lonny".message x WHERE x.id = u.id AND x.status::text = 'READY' FOR NO KEY UPDATE SKIP LOCKED) h));
        GET DIAGNOSTICS v_back = ROW_COUNT;
        v_room := v_room + v_back;
        -- Whoever ends a message of this channel does not see what was put back until this transaction commits.
        v_doubt := true;
      ELSE
        v_back := 0;
      END IF;
      IF v_policy.release_interval_ms > 0 THEN
        v_room := CASE WHEN cardinality(v_survey.ready_ids) > v_back OR v_held > 0 THEN 0 ELSE LEAST(v_room, 1) END;
      END IF;
    END IF;
    v_doubt := (v_doubt OR v_moved > CASE WHEN p_max = 1 AND v_survey.next_status <> 'WAITING' THEN 1 ELSE 0 END OR v_survey.is_ending) AND v_policy.max_concurrency IS DISTINCT FROM 0;
  END IF;

  IF v_room > 0 THEN
    WITH released AS (
      UPDATE "lonny".message m
         SET status = 'READY', policy_id = v_policy.id, timer_at = NULL, generation = DEFAULT
       WHERE m.id = ANY (ARRAY (
               SELECT x.id FROM "lonny".message x
                WHERE x.status = 'WAITING' AND x.lane <> 0 AND x.lane = p_lane AND x.channel = p_channel AND x.dequeue_at <= v_now
                ORDER BY x.dequeue_at, x.id LIMIT LEAST(v_room, p_max)
                  FOR NO KEY UPDATE SKIP LOCKED))
      RETURNING m.id
    )
    SELECT COALESCE(array_agg(r.id), ARRAY[]::bigint[]) INTO v_released FROM released r;
  END IF;

  -- What waits from now on, by this transaction, was locked for everybody else: who ends a message meanwhile does not see it (_place_freed).
  IF v_policy.max_concurrency > 0 AND NOT v_doubt THEN
    v_doubt := v_moved > cardinality(v_released)
               -- Moved by _tend, which did so just before.
               OR p_max > 1 AND v_survey.num_due > 0
                  AND COALESCE((SELECT true
                                  FROM (SELECT m.xmin FROM "lonny".message m
                                         WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel
                                         ORDER BY m.dequeue_at, m.id LIMIT 100) x
                                 WHERE x.xmin = pg_current_xact_id_if_assigned()::xid LIMIT 1), false);
  END IF;

  IF v_tidy OR v_more AND cardinality(v_released) = p_max AND v_room > p_max THEN
    INSERT INTO "lonny".wake (lane, channel) VALUES (p_lane, p_channel);
  ELSIF v_doubt OR cardinality(v_released) < LEAST(v_room, v_waiting) THEN
    -- A row was passed by, or the end of something that is out may have looked for a waiting message before this one waits (_place_freed). One
    -- without a timer was due once: it is early only because the clock was set back.
    SELECT min(x.dequeue_at) INTO v_left_at
      FROM (SELECT m.dequeue_at, m.timer_at FROM "lonny".message m
             WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel
             ORDER BY m.dequeue_at, m.id LIMIT 100) x
     WHERE x.dequeue_at <= v_now OR x.timer_at IS NULL;
    IF v_left_at IS NOT NULL THEN
      PERFORM "lonny"._timer_set(p_lane, p_channel, GREATEST(v_left_at, v_now + c_look), NULL);
    END IF;
  END IF;
  RETURN v_released;
END
$function$;
COMMENT ON FUNCTION "lonny"._channel_advance(bigint, text, timestamptz, bigint[], integer) IS
'Makes ready what the channel''s policy allows now, at most p_max messages, and takes back what it does not allow, as many; returns the ids of what became ready.
p_released_at is the newest time of release among the wakes that the caller removed, p_over_ids are messages of the channel whose lock may be over. The caller holds the lane''s mutex. With p_max = 1 nothing else is touched, and if nothing is returned the caller has to undo it.';

CREATE OR REPLACE FUNCTION "lonny"._lane_tend(p_lane bigint)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $function$
-- The mutex is only ever tried, never waited for, and is held until the transaction ends, so that the next holder sees what this one did.
-- If the transaction stays open, this lane's limited channel stands still, and no other; if it rolls back, the wakes are there again.
DECLARE
  c_batch   CONSTANT integer := 200;
  v_channel record;
BEGIN
  IF NOT pg_try_advisory_xact_lock($regclass$"lonny".wake$regclass$::regclass::oid::integer, hashint8(p_lane)) THEN
    RETURN false;
  END IF;
  FOR v_channel IN
    WITH gone AS (
      DELETE FROM "lonny".wake w
       WHERE w.ctid = ANY (ARRAY (SELECT x.ctid FROM "lonny".wake x WHERE x.at IS NULL AND x.lane = p_lane LIMIT 1000 FOR UPDATE SKIP LOCKED))
      RETURNING w.channel, w.released_at
    )
    -- One that another transaction holds is of a dequeue that found it to be of no use at that time; it may be of use now.
    SELECT u.channel, max(u.released_at) AS released_at
      FROM (SELECT g.channel, g.released_at FROM gone g
            UNION ALL
            (SELECT w.channel, NULL FROM "lonny".wake w WHERE w.at IS NULL AND w.lane = p_lane LIMIT 1)) u
     GROUP BY u.channel
  LOOP
    PERFORM "lonny"._channel_advance(p_lane, v_channel.channel, v_channel.released_at, ARRAY[]::bigint[], c_batch);
  END LOOP;
  RETURN true;
END
$function$;
COMMENT ON FUNCTION "lonny"._lane_tend(bigint) IS
'Removes the due wakes of a lane, at most 1000, and advances their channels, each by 200 messages at most; returns false, and does nothing, if another transaction has the lane''s mutex.';

CREATE OR REPLACE FUNCTION "lonny"._wakes_next(p_served bigint, p_last bigint, p_limit integer)
RETURNS TABLE (lane bigint, channel text)
LANGUAGE plpgsql VOLATILE
AS $function$
DECLARE
  c_last CONSTANT bigint := 9223372036854775807;
  -- The way from p_served to p_last is one or two stretches: up to the highest lane, and on from the lowest.
  v_ahead  bigint := CASE WHEN p_last > p_served THEN p_last ELSE c_last END;
  v_behind bigint := CASE WHEN p_last <= p_served THEN p_last END;
BEGIN
  RETURN QUERY
  WITH RECURSIVE ahead AS (
    (SELECT w.lane, w.channel FROM "lonny".wake w WHERE w.at IS NULL AND w.lane > p_served AND w.lane <= v_ahead ORDER BY w.lane LIMIT 1)
    UNION ALL
    SELECT n.* FROM ahead a, LATERAL (
      SELECT w.lane, w.channel FROM "lonny".wake w WHERE w.at IS NULL AND w.lane > a.lane AND w.lane <= v_ahead ORDER BY w.lane LIMIT 1) n
  ), behind AS (
    (SELECT w.lane, w.channel FROM "lonny".wake w WHERE w.at IS NULL AND w.lane <= v_behind ORDER BY w.lane LIMIT 1)
    UNION ALL
    SELECT n.* FROM behind b, LATERAL (
      SELECT w.lane, w.channel FROM "lonny".wake w WHERE w.at IS NULL AND w.lane > b.lane AND w.lane <= v_behind ORDER BY w.lane LIMIT 1) n
  )
  SELECT a.lane, a.channel FROM ahead a
  UNION ALL
  SELECT b.lane, b.channel FROM behind b
  LIMIT p_limit;
END
$function$;
COMMENT ON FUNCTION "lonny"._wakes_next(bigint, bigint, integer) IS
'The next lanes that have due wakes, in rotation after p_served and up to p_last (the same: all the way round), at most p_limit, each with one of its channels.';

CREATE OR REPLACE FUNCTION "lonny"._tend(p_budget integer, p_messages boolean, p_timers boolean, p_mark timestamptz, p_generations bigint[])
RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $function$
-- For a dequeue that is a transaction of its own: what is done here is committed, and so seen by others, at once.
-- Rows that another transaction holds are passed by and stay for the next dequeue: the timer is in the row itself.
DECLARE
  v_now      timestamptz := "lonny"._clock();
  v_served   bigint := COALESCE(pg_sequence_last_value($regclass$"lonny".wake_rotation$regclass$), 0);
  v_lane     bigint := v_served;
  v_next     bigint;
  v_is_round boolean := false;
  v_has_had  boolean := false;
BEGIN
  IF p_messages THEN
    WITH moved AS (
      UPDATE "lonny".message m
         SET status = CASE WHEN m.lane <> 0 AND COALESCE((SELECT true FROM "lonny"._policy_in_force p WHERE p.channel = m.channel LIMIT 1), false)
                           THEN 'WAITING'::"lonny".message_status ELSE 'READY' END,
             policy_id = NULL, timer_at = NULL, generation = DEFAULT
       WHERE m.id = ANY (ARRAY (
               SELECT x.id FROM "lonny".message x
                WHERE x.timer_at > p_mark AND x.timer_at <= v_now
                -- As in _message_offer: not to be taken without a policy while another acts on one.
                AND (x.lane = 0
                     OR COALESCE((SELECT true FROM "lonny"._policy_in_force p WHERE p.channel = x.channel LIMIT 1), false)
                     OR pg_try_advisory_xact_lock_shared($regclass$"lonny".wake$regclass$::regclass::oid::integer, hashint8(x.lane)))
                -- Each may cost a mutex, and the server's lock table has 64 places a session unless configured otherwise.
                ORDER BY x.timer_at LIMIT p_budget
                  FOR NO KEY UPDATE SKIP LOCKED))
      RETURNING m.lane, m.channel, m.status
    ), woken AS (
      INSERT INTO "lonny".wake (lane, channel)
      SELECT DISTINCT m.lane, m.channel FROM moved m WHERE m.status = 'WAITING'
    )
    SELECT count(*) > 0 INTO v_has_had FROM moved m;
  END IF;
  IF p_timers THEN
    UPDATE "lonny".wake w
       SET at = NULL, generation = DEFAULT
     WHERE w.ctid = ANY (ARRAY (
             SELECT x.ctid FROM "lonny".wake x
              WHERE x.at > p_mark AND x.at <= v_now
              ORDER BY x.at LIMIT p_budget * 4
                FOR UPDATE SKIP LOCKED));
    v_has_had := v_has_had OR FOUND;
  END IF;

  -- One lane after the other, each looked for anew: others do the same at this moment, and what they have done need not be done again.
  FOR i IN 1 .. p_budget LOOP
    IF p_generations IS NULL THEN
      SELECT w.lane INTO v_next FROM "lonny".wake w WHERE w.at IS NULL AND w.lane > v_lane ORDER BY w.lane LIMIT 1;
    ELSE
      SELECT w.lane INTO v_next
        FROM unnest(p_generations) AS g (generation), LATERAL (
             SELECT x.lane FROM "lonny".wake x
              WHERE x.at IS NULL AND (x.generation, x.lane) > (g.generation, v_lane) AND x.generation <= g.generation
              ORDER BY x.generation, x.lane LIMIT 1) w
       ORDER BY w.lane LIMIT 1;
    END IF;
    IF v_next IS NULL THEN
      IF v_is_round THEN
        RETURN v_has_had;
      END IF;
      v_is_round := true;
      -- Before all lanes.
      v_lane := -9223372036854775808;
      CONTINUE;
    END IF;
    IF v_is_round AND v_next > v_served THEN
      RETURN v_has_had;
    END IF;
    v_lane := v_next;
    PERFORM setval($regclass$"lonny".wake_rotation$regclass$, v_lane);
    v_has_had := "lonny"._lane_tend(v_lane) OR v_has_had;
  END LOOP;
  RETURN true;
END
$function$;
COMMENT ON FUNCTION "lonny"._tend(integer, boolean, boolean, timestamptz, bigint[]) IS
'Notices delays, locks and timers that are over, at most p_budget messages (each becomes ready, or waits with a wake if its channel has a policy) and four times as many timers (each becomes a due wake), then advances the channels of the next p_budget lanes that have due wakes. Returns false if all of this is in other transactions'' hands.
p_messages: there are messages whose delay or lock is over; p_timers: there are timers that are. p_mark: what was over before is not looked at; p_generations: nor wakes of others, unless NULL.';


-- Taking messages out
CREATE OR REPLACE FUNCTION "lonny"._channel_release(p_lane bigint, p_channel text, p_over_ids bigint[])
RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $function$
-- As _lane_tend, but for one channel and one message, which the caller takes.
DECLARE
  v_now         timestamptz := "lonny"._clock();
  v_released_at timestamptz;
  v_count       bigint;
  v_released    bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock($regclass$"lonny".wake$regclass$::regclass::oid::integer, hashint8(p_lane)) THEN
    RETURN NULL;
  END IF;
  WITH gone AS (
    DELETE FROM "lonny".wake w
     WHERE w.ctid = ANY (ARRAY (SELECT x.ctid FROM "lonny".wake x
                                 WHERE x.at IS NULL AND x.lane = p_lane AND x.channel = p_channel LIMIT 1000 FOR UPDATE SKIP LOCKED))
        OR w.ctid = ANY (ARRAY (SELECT x.ctid FROM "lonny".wake x
                                 WHERE (x.at IS NOT NULL OR x.released_at IS NOT NULL) AND x.lane = p_lane AND x.channel = p_channel
                                   AND COALESCE(x.at, 'infinity') <= v_now LIMIT 1000 FOR UPDATE SKIP LOCKED))
    RETURNING w.released_at
  )
  SELECT max(g.released_at), count(*) INTO v_released_at, v_count FROM gone g;
  v_released := ("lonny"._channel_advance(p_lane, p_channel, v_released_at, p_over_ids, 1))[1];
  IF v_released IS NULL AND v_count > 0 THEN
    -- Another was faster. It may have left something to those wakes.
    INSERT INTO "lonny".wake (lane, channel, released_at) VALUES (p_lane, p_channel, v_released_at);
  END IF;
  RETURN v_released;
END
$function$;
COMMENT ON FUNCTION "lonny"._channel_release(bigint, text, bigint[]) IS
'Makes the next message of a limited channel ready, if its policy allows, for the caller to take; returns its id, or none if it is in another transaction''s hands or that has the lane''s mutex.';

CREATE OR REPLACE FUNCTION "lonny"._channel_try_release(p_lane bigint, p_channel text, p_over_ids bigint[])
RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $function$
-- Not always so, since what a subtransaction has changed costs a multixact when the transaction changes it again. PYUND ("undo") is an SQLSTATE
-- of the queue's own: it rolls a subtransaction back, and never leaves the function that raises it.
DECLARE
  v_released bigint;
BEGIN
  v_released := "lonny"._channel_release(p_lane, p_channel, p_over_ids);
  IF v_released IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'PYUND';
  END IF;
  RETURN v_released;
EXCEPTION WHEN SQLSTATE 'PYUND' THEN
  RETURN NULL;
END
$function$;
COMMENT ON FUNCTION "lonny"._channel_try_release(bigint, text, bigint[]) IS
'As _channel_release; but if nothing is released all is undone, the mutex included: the transaction may stay open, and would hold up a channel of which it has nothing.';

CREATE OR REPLACE FUNCTION "lonny"._message_offer(p_lane bigint, p_channel text, p_over_ids bigint[], p_now timestamptz, OUT offered bigint, OUT is_busy boolean)
LANGUAGE plpgsql VOLATILE
AS $function$
-- One after the other in the order of the channel, each after those that are ready and sort before it. What others hold is passed by.
DECLARE
  v_due record;
BEGIN
  is_busy := false;
  FOR v_due IN
    SELECT m.dequeue_at, m.id
      FROM unnest(p_over_ids) AS u (id), LATERAL (
        SELECT x.id, x.dequeue_at FROM "lonny".message x WHERE x.id = u.id AND COALESCE(x.timer_at, 'infinity') <= p_now LIMIT 1) m
    UNION
    -- One without a timer was due once, and is early only because the clock was set back.
    SELECT m.dequeue_at, m.id
      FROM (SELECT x.id, x.dequeue_at, x.timer_at FROM "lonny".message x
             WHERE x.status = 'WAITING' AND x.lane <> 0 AND x.lane = p_lane AND x.channel = p_channel
             ORDER BY x.dequeue_at, x.id LIMIT 100) m
     WHERE m.timer_at IS NULL OR m.timer_at <= p_now
     ORDER BY 1, 2
  LOOP
    is_busy := true;
    -- Shared by all who take without a policy: whoever acts on a policy that is set now has to know what was taken before.
    IF p_lane <> 0 AND NOT pg_try_advisory_xact_lock_shared($regclass$"lonny".wake$regclass$::regclass::oid::integer, hashint8(p_lane)) THEN
      RETURN;
    END IF;
    SELECT m.id INTO offered FROM "lonny".message m
     WHERE m.status = 'READY' AND m.lane = p_lane AND (p_lane = 0 OR m.channel = p_channel)
       AND (m.dequeue_at, m.id) < (v_due.dequeue_at, v_due.id)
     ORDER BY m.dequeue_at, m.id LIMIT 1
       FOR NO KEY UPDATE SKIP LOCKED;
    IF FOUND THEN
      RETURN;
    END IF;
    UPDATE "lonny".message m
       SET status = 'READY', policy_id = NULL, timer_at = NULL, generation = DEFAULT
     WHERE m.id = ANY (ARRAY (
             SELECT x.id FROM "lonny".message x
              WHERE x.id = v_due.id AND (x.timer_at <= p_now OR x.status = 'WAITING' AND x.timer_at IS NULL)
                FOR NO KEY UPDATE SKIP LOCKED))
    RETURNING m.id INTO offered;
    IF FOUND THEN
      RETURN;
    END IF;
  END LOOP;

  -- All of the first hundred that wait are in others' hands, perhaps those of one batch. The shared lock was taken above.
  IF is_busy AND p_lane <> 0 THEN
    UPDATE "lonny".message m
       SET status = 'READY', policy_id = NULL, timer_at = NULL, generation = DEFAULT
     WHERE m.id = ANY (ARRAY (
             SELECT x.id FROM "lonny".message x
              WHERE x.status = 'WAITING' AND x.lane <> 0 AND x.lane = p_lane AND x.channel = p_channel AND x.dequeue_at <= p_now
              ORDER BY x.dequeue_at, x.id LIMIT 1
                FOR NO KEY UPDATE SKIP LOCKED))
    RETURNING m.id INTO offered;
  END IF;
END
$function$;
COMMENT ON FUNCTION "lonny"._message_offer(bigint, text, bigint[], timestamptz) IS
'As _channel_offer, for a channel without a policy or the messages without a channel. is_busy: something is due; if nothing is offered it is in another transaction''s hands.';

CREATE OR REPLACE FUNCTION "lonny"._message_try_offer(p_lane bigint, p_channel text, p_over_ids bigint[], p_now timestamptz)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $function$
-- As _channel_try_release, and not always so for the same reason.
DECLARE
  v_offered bigint;
BEGIN
  SELECT o.offered INTO v_offered FROM "lonny"._message_offer(p_lane, p_channel, p_over_ids, p_now) o;
  IF v_offered IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'PYUND';
  END IF;
  RETURN v_offered;
EXCEPTION WHEN SQLSTATE 'PYUND' THEN
  RETURN NULL;
END
$function$;
COMMENT ON FUNCTION "lonny"._message_try_offer(bigint, text, bigint[], timestamptz) IS
'As _message_offer; but if nothing is offered all is undone, the mutex included: the transaction may stay open, and a policy that the channel gets would wait for it.';

CREATE OR REPLACE FUNCTION "lonny"._channel_offer(p_lane bigint, p_channel text, p_over_ids bigint[], OUT offered bigint, OUT is_busy boolean, OUT is_limited boolean, OUT release_at timestamptz)
LANGUAGE plpgsql VOLATILE
AS $function$
-- The transaction may stay open, so this looks before it touches anything, and changes one message at most, which the caller then takes.
--
-- If there is nothing to be had, wakes that brought the caller here are deleted; that needs no mutex and holds up nobody. They were visible before
-- what they announce was looked at. If nothing waits, whatever will wait comes with a wake of its own. If the channel is at its limit and no
-- transaction has its hands on what is out, each end of that sees what waits (_place_freed). They are kept if they, or what would replace them, say
-- more than that: others do not see what is set here.
DECLARE
  v_now    timestamptz := "lonny"._clock();
  v_wakes  tid[];
  v_policy "lonny"._policy_in_force;
  v_survey record;
BEGIN
  is_busy := false;
  v_wakes := ARRAY ((SELECT w.ctid FROM "lonny".wake w WHERE w.at IS NULL AND w.lane = p_lane AND w.channel = p_channel LIMIT 1000)
                    UNION ALL
                    (SELECT w.ctid FROM "lonny".wake w
                      WHERE (w.at IS NOT NULL OR w.released_at IS NOT NULL) AND w.lane = p_lane AND w.channel = p_channel AND COALESCE(w.at, 'infinity') <= v_now LIMIT 1000));
  -- Later than the wakes: what they announce is due by now, unless the clock was set back.
  v_now := "lonny"._clock();
  IF p_lane <> 0 THEN
    SELECT p.* INTO v_policy FROM "lonny"._policy_in_force p WHERE p.channel = p_channel;
  END IF;

  is_limited := v_policy.id IS NOT NULL;
  IF NOT is_limited THEN
    -- Is something due in others' hands, perhaps all of it?
    IF p_lane <> 0
       AND COALESCE((SELECT true FROM "lonny".message m
                      WHERE m.id = ANY (p_over_ids) AND COALESCE(m.timer_at, 'infinity') <= v_now AND m.xmax <> 0 AND m.xmax <> m.xmin LIMIT 1),
                    (SELECT true
                       FROM (SELECT m.timer_at, m.xmin, m.xmax FROM "lonny".message m
                              WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel
                              ORDER BY m.dequeue_at, m.id LIMIT 100) x
                      WHERE (x.timer_at IS NULL OR x.timer_at <= v_now) AND x.xmax <> 0 AND x.xmax <> x.xmin LIMIT 1), false) THEN
      offered := "lonny"._message_try_offer(p_lane, p_channel, p_over_ids, v_now);
      is_busy := true;
      RETURN;
    END IF;
    SELECT o.offered, o.is_busy INTO offered, is_busy FROM "lonny"._message_offer(p_lane, p_channel, p_over_ids, v_now) o;
    IF is_busy THEN
      RETURN;
    END IF;
  ELSIF v_policy.max_concurrency = 0 THEN
    -- Nothing can be had. What is ready is foreign, and what knows of the last release stays.
    IF COALESCE((SELECT true FROM "lonny".message m WHERE m.status = 'READY' AND m.lane = p_lane AND m.channel = p_channel LIMIT 1), false) THEN
      RETURN;
    END IF;
    v_wakes := ARRAY (SELECT w.ctid FROM "lonny".wake w WHERE w.ctid = ANY (v_wakes) AND w.released_at IS NULL);
  ELSE
    v_survey := "lonny"._channel_survey(p_lane, v_policy, NULL, v_now, p_over_ids);
    -- First what is ready and sorts before what could be released, then that, then anything that is ready: what sorts before it is in others' hands.
    FOR v_step IN 1 .. 3 LOOP
      IF v_step <> 2 AND v_survey.ready_ids <> '{}' THEN
        -- One after the other until one is had: a sort would hold them all.
        SELECT h.id INTO offered
          FROM unnest(v_survey.ready_ids) AS u (id), LATERAL (
            SELECT m.id FROM "lonny".message m
             WHERE m.id = u.id AND m.status::text = 'READY'
               AND (v_step = 3 OR v_survey.next_status IS NULL OR (m.dequeue_at, m.id) < (v_survey.next_at, v_survey.next_id))
               FOR NO KEY UPDATE SKIP LOCKED) h
         LIMIT 1;
        is_busy := true;
      ELSIF v_step = 2 AND v_survey.next_status IS NOT NULL AND (v_survey.release_at > v_now) IS NOT TRUE
            AND (v_survey.room > 0 OR v_survey.over_ids <> '{}' OR v_survey.room = 0 AND v_survey.ready_ids <> '{}') THEN
        -- Does it depend on rows that are perhaps in others' hands? If too many are ready they are put back bit by bit, which has to last.
        IF NOT v_survey.is_flooded
           AND (v_survey.is_next_held OR v_survey.suspect_ids <> '{}'
                OR v_survey.is_ending AND (v_survey.room <= 0 OR v_survey.ready_ids <> '{}')) THEN
          offered := "lonny"._channel_try_release(p_lane, p_channel, p_over_ids);
        ELSE
          offered := "lonny"._channel_release(p_lane, p_channel, p_over_ids);
        END IF;
        is_busy := true;
      END IF;
      IF offered IS NOT NULL THEN
        RETURN;
      END IF;
    END LOOP;
    IF v_survey.next_status IS NOT NULL AND v_survey.release_at > v_now THEN
      release_at := v_survey.release_at;
    END IF;
    -- What ends at this moment may make room.
    is_busy := is_busy OR v_survey.is_ending AND v_survey.next_status IS NOT NULL AND release_at IS NULL;
    IF is_busy OR v_survey.early_at IS NOT NULL OR v_survey.num_foreign > 0 OR v_survey.is_ending THEN
      RETURN;
    END IF;
    IF v_survey.release_at > v_now THEN
      -- The wakes may be all that is known of the last release, to us or, if the timer is ours, to others.
      IF NOT COALESCE((SELECT true FROM "lonny".wake w
                        WHERE (w.at IS NOT NULL OR w.released_at IS NOT NULL) AND w.lane = p_lane AND w.channel = p_channel
                          AND w.at = v_survey.release_at AND w.released_at = v_survey.released_at
                          AND w.xmin <> COALESCE(pg_current_xact_id_if_assigned()::xid, '0'::xid) LIMIT 1), false) THEN
        -- As in message_create. If it is over meanwhile, the wakes stay, and will say so.
        IF pg_current_xact_id() IS NOT NULL AND v_survey.release_at > "lonny"._clock() THEN
          INSERT INTO "lonny".wake (lane, channel, at, released_at) VALUES (p_lane, p_channel, v_survey.release_at, v_survey.released_at);
        END IF;
        RETURN;
      END IF;
    END IF;
  END IF;
  DELETE FROM "lonny".wake w
   WHERE w.ctid = ANY (ARRAY (SELECT x.ctid FROM "lonny".wake x WHERE x.ctid = ANY (v_wakes) FOR UPDATE SKIP LOCKED));
END
$function$;
COMMENT ON FUNCTION "lonny"._channel_offer(bigint, text, bigint[]) IS
'The message that the caller may take when it is the channel''s turn, made ready for it or held; none if none is to be had or, in a channel without a policy, nothing of it is due.
p_over_ids: messages of the channel whose delay or lock is over, as far as known. is_busy: there is something, and if nothing is offered it is in another transaction''s hands; is_limited: the channel has a policy; release_at: when the channel''s release interval ends, if something waits for that.';

CREATE OR REPLACE FUNCTION "lonny"._lanes_next(p_served bigint, p_limit integer, p_generations bigint[])
RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE
AS $function$
DECLARE
  c_first CONSTANT bigint := -9223372036854775808;
  c_last  CONSTANT bigint := 9223372036854775807;
BEGIN
  IF p_generations IS NULL THEN
    RETURN QUERY
    WITH RECURSIVE ahead AS (
      (SELECT m.lane FROM "lonny".message m WHERE m.status = 'READY' AND m.lane > p_served ORDER BY m.lane LIMIT 1)
      UNION ALL
      SELECT n.lane FROM ahead a, LATERAL (
        SELECT m.lane FROM "lonny".message m WHERE m.status = 'READY' AND m.lane > a.lane ORDER BY m.lane LIMIT 1) n
    ), behind AS (
      (SELECT m.lane FROM "lonny".message m WHERE m.status = 'READY' AND m.lane <= p_served ORDER BY m.lane LIMIT 1)
      UNION ALL
      SELECT n.lane FROM behind b, LATERAL (
        SELECT m.lane FROM "lonny".message m WHERE m.status = 'READY' AND m.lane > b.lane AND m.lane <= p_served ORDER BY m.lane LIMIT 1) n
    )
    SELECT a.lane FROM ahead a
    UNION ALL
    SELECT b.lane FROM behind b
    LIMIT p_limit;
  ELSE
    -- As in _message_hold: only message_generation_idx can answer this.
    RETURN QUERY
    WITH RECURSIVE walk AS (
      SELECT s.is_behind, s.last, g.generation, 1 AS n, (
               SELECT m.lane FROM "lonny".message m
                WHERE m.status = 'READY' AND (m.generation, m.lane) > (g.generation, s.after)
                  AND (m.generation, m.lane) <= (g.generation, s.last) AND m.generation <= g.generation
                ORDER BY m.generation, m.lane LIMIT 1) AS lane
        FROM (VALUES (false, p_served, c_last), (true, c_first, p_served)) AS s (is_behind, after, last), unnest(p_generations) AS g (generation)
      UNION ALL
      SELECT w.is_behind, w.last, w.generation, w.n + 1, (
               SELECT m.lane FROM "lonny".message m
                WHERE m.status = 'READY' AND (m.generation, m.lane) > (w.generation, w.lane)
                  AND (m.generation, m.lane) <= (w.generation, w.last) AND m.generation <= w.generation
                ORDER BY m.generation, m.lane LIMIT 1)
        FROM walk w WHERE w.lane IS NOT NULL AND w.n < p_limit
    )
    SELECT w.lane FROM walk w WHERE w.lane IS NOT NULL GROUP BY w.is_behind, w.lane ORDER BY w.is_behind, w.lane LIMIT p_limit;
  END IF;
END
$function$;
COMMENT ON FUNCTION "lonny"._lanes_next(bigint, integer, bigint[]) IS
'The next lanes that have ready messages, in rotation after p_served, at most p_limit; of p_generations only unless it is NULL.';

CREATE OR REPLACE FUNCTION "lonny"._turns_due(p_after bigint, p_last bigint, p_window integer, p_taken_ids bigint[])
RETURNS TABLE (lane bigint, channel text, message_ids bigint[])
LANGUAGE plpgsql VOLATILE
AS $function$
-- Delays, locks and timers that are over are ordered by time, not by lane. Of those, the oldest p_window are looked at and, if there are more, as
-- many from a random place on, so that old ones that nobody can move (their channel is paused, say) do not hide the others for ever. Many may have
-- the same time: those of a batch.
DECLARE
  v_now     timestamptz := "lonny"._clock();
  v_message record;
  v_wake    record;
BEGIN
  SELECT NULL::timestamptz AS at, NULL::bigint AS id INTO v_message;
  SELECT NULL::timestamptz AS at, NULL::bigint AS lane INTO v_wake;
  IF (SELECT count(*) FROM (SELECT FROM "lonny".message m WHERE m.timer_at <= v_now ORDER BY m.timer_at LIMIT p_window + 1) x) > p_window THEN
    SELECT l.timer_at AS at, f.id + floor(random() * (l.id - f.id + 1))::bigint AS id INTO v_message
      FROM (SELECT m.timer_at + random() * (v_now - m.timer_at) AS at FROM "lonny".message m WHERE m.timer_at <= v_now ORDER BY m.timer_at LIMIT 1) r,
           LATERAL (SELECT m.timer_at, m.id FROM "lonny".message m WHERE m.timer_at <= r.at ORDER BY m.timer_at DESC, m.id DESC LIMIT 1) l,
           LATERAL (SELECT m.id FROM "lonny".message m WHERE m.timer_at = l.timer_at ORDER BY m.timer_at, m.id LIMIT 1) f;
  END IF;
  IF (SELECT count(*) FROM (SELECT FROM "lonny".wake w WHERE w.at <= v_now ORDER BY w.at LIMIT p_window + 1) x) > p_window THEN
    SELECT l.at, (f.lane + floor(random()::numeric * (l.lane::numeric - f.lane + 1)))::bigint AS lane INTO v_wake
      FROM (SELECT w.at + random() * (v_now - w.at) AS at FROM "lonny".wake w WHERE w.at <= v_now ORDER BY w.at LIMIT 1) r,
           LATERAL (SELECT w.at, w.lane FROM "lonny".wake w WHERE w.at <= r.at ORDER BY w.at DESC, w.lane DESC LIMIT 1) l,
           LATERAL (SELECT w.lane FROM "lonny".wake w WHERE w.at = l.at ORDER BY w.at, w.lane LIMIT 1) f;
  END IF;
  RETURN QUERY
  SELECT t.lane, t.channel, array_remove(array_agg(t.id), NULL)
    FROM ((SELECT m.id, m.lane, m.channel FROM "lonny".message m
            WHERE m.timer_at <= v_now ORDER BY m.timer_at, m.id LIMIT p_window)
          UNION ALL
          (SELECT m.id, m.lane, m.channel FROM "lonny".message m
            WHERE (m.timer_at, m.id) >= (v_message.at, v_message.id) AND m.timer_at <= v_now ORDER BY m.timer_at, m.id LIMIT p_window)
          UNION ALL
          (SELECT NULL, w.lane, w.channel FROM "lonny".wake w
            WHERE w.at <= v_now ORDER BY w.at, w.lane LIMIT p_window)
          UNION ALL
          (SELECT NULL, w.lane, w.channel FROM "lonny".wake w
            WHERE (w.at, w.lane) >= (v_wake.at, v_wake.lane) AND w.at <= v_now ORDER BY w.at, w.lane LIMIT p_window)
          UNION ALL
          (SELECT NULL, n.lane, n.channel FROM "lonny"._wakes_next(p_after, p_last, 10000) n)) t
   WHERE (t.lane <= p_after, t.lane) <= (p_last <= p_after, p_last) AND (t.id <> ALL (p_taken_ids)) IS NOT FALSE
   GROUP BY t.lane, t.channel
   ORDER BY t.lane <= p_after, t.lane, 2;
END
$function$;
COMMENT ON FUNCTION "lonny"._turns_due(bigint, bigint, integer, bigint[]) IS
'The channels for which something is due, in rotation after the lane p_after and up to p_last (the same: all the way round), each with its messages whose delay or lock is over, as far as p_window shows them and without p_taken_ids.';

CREATE OR REPLACE FUNCTION "lonny"._take_one(p_served bigint, p_lane bigint, p_id bigint, p_lock_ms bigint)
RETURNS "lonny"._taken
LANGUAGE plpgsql VOLATILE
AS $function$
DECLARE
  v_now     timestamptz;
  v_held    record;
  v_policy  record;
  v_message "lonny"._taken;
BEGIN
  IF p_id IS NOT NULL THEN
    SELECT m.ctid, m.lane, m.channel, m.policy_id, m.unlock_at INTO v_held
      FROM "lonny".message m
     WHERE m.id = p_id AND m.status::text = 'READY'
       FOR NO KEY UPDATE SKIP LOCKED;
  ELSE
    SELECT m.ctid, m.lane, m.channel, m.policy_id, m.unlock_at INTO v_held
      FROM "lonny".message m
     WHERE m.status = 'READY' AND m.lane = p_lane
       -- What the policy did not release stays untouched behind what others hold: the caller may go on to many lanes, and stay open.
       AND (m.lane = 0 OR COALESCE((SELECT p.cleared OR p.id IS NOT DISTINCT FROM m.policy_id
                                      FROM "lonny".channel_policy p WHERE p.channel = m.channel ORDER BY p.id DESC LIMIT 1), true))
     ORDER BY m.dequeue_at, m.id LIMIT 1
       FOR NO KEY UPDATE SKIP LOCKED;
  END IF;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;

  IF v_held.lane <> 0 THEN
    -- The policy is looked at when the message is already ours: whatever was in flight when it was set, it binds from here on.
    SELECT p.id, p.cleared, p.release_interval_ms INTO v_policy
      FROM "lonny".channel_policy p WHERE p.channel = v_held.channel ORDER BY p.id DESC LIMIT 1;
    IF NOT v_policy.cleared AND v_held.policy_id IS DISTINCT FROM v_policy.id THEN
      -- It was not released by this one. The wake has it put back.
      INSERT INTO "lonny".wake (lane, channel) VALUES (v_held.lane, v_held.channel);
      RETURN NULL;
    END IF;
  END IF;

  -- The clock is read now that the row is held: with an older time, locks would overlap and intervals be short.
  v_now := "lonny"._clock();
  UPDATE "lonny".message m
     SET status = 'LOCKED', num_attempts = m.num_attempts + 1, locked_at = v_now,
         lock_ms = COALESCE(p_lock_ms, m.lock_ms),
         unlock_at = v_now + COALESCE(p_lock_ms, m.lock_ms) * interval '1 ms',
         timer_at = v_now + COALESCE(p_lock_ms, m.lock_ms) * interval '1 ms'
   -- It is held, so it stays where it is.
   WHERE m.ctid = v_held.ctid
  RETURNING 'MESSAGE_DEQUEUED'::"lonny".dequeue_result, m.id, "lonny"._channel_name(m.channel, m.id, m.created_at), m.content, m.state, m.num_attempts,
            v_held.unlock_at IS NOT NULL, m.unlock_at, NULL::bigint
       INTO v_message;
  IF v_held.lane <> p_served THEN
    PERFORM setval($regclass$"lonny".rotation$regclass$, v_held.lane);
  END IF;
  IF v_held.lane <> 0 THEN
    IF NOT v_policy.cleared AND v_policy.release_interval_ms > 0 THEN
      INSERT INTO "lonny".wake (lane, channel, at, released_at)
      VALUES (v_held.lane, v_held.channel, v_now + v_policy.release_interval_ms * interval '1 ms', v_now);
    END IF;
  END IF;
  RETURN v_message;
END
$function$;
COMMENT ON FUNCTION "lonny"._take_one(bigint, bigint, bigint, bigint) IS
'Locks a message and returns it: p_id if it is given, else the first ready one of p_lane. NULL if there is none, or if the channel''s policy did not release it.
p_served is the lane served last, p_lock_ms replaces the message''s own lock time unless NULL.';

CREATE OR REPLACE FUNCTION "lonny"._take_in_turn(
  p_served bigint, p_max_messages integer, p_lock_ms bigint, p_window integer,
  OUT taken_ids bigint[], OUT are_unlocked boolean[], OUT is_busy boolean, OUT release_at timestamptz, OUT limited_lanes bigint[])
LANGUAGE plpgsql VOLATILE
AS $function$
-- Goes round the lanes, a message from each, until it has enough or a whole round gave none. It looks at a stretch of them at a time, each with
-- eight times as many ready lanes as the one before, since as a rule the first few have what is wanted.
--
-- Its transaction may stay open for an hour, so it holds what it takes, the mutex of that channel if it had to release the message, and
-- nothing else.
DECLARE
  v_served  bigint := p_served;
  v_from    bigint := p_served;
  v_last    bigint;
  v_num     integer := LEAST(p_max_messages, 10000);
  v_lanes   bigint[];
  v_lane    bigint;
  v_turn    record;
  v_first   record;
  v_offer   record;
  v_taken   "lonny"._taken;
  v_id      bigint;
  v_missing integer := p_max_messages;
BEGIN
  taken_ids := '{}';
  is_busy := false;
  limited_lanes := '{}';
  LOOP
    v_lanes := ARRAY (SELECT n.lane FROM "lonny"._lanes_next(v_from, v_num, NULL) AS n (lane)
                       WHERE v_from = p_served OR (n.lane <= p_served, n.lane) > (v_from <= p_served, v_from));
    v_last := CASE WHEN cardinality(v_lanes) = v_num THEN v_lanes[v_num] ELSE p_served END;
    -- The fourth column puts the lanes that come after the turn of the numbers behind the others.
    FOR v_turn IN
      SELECT t.lane, t.channel, t.message_ids, t.lane <= p_served FROM "lonny"._turns_due(v_from, v_last, p_window, taken_ids) t
      UNION ALL
      SELECT u.lane, NULL, NULL, u.lane <= p_served FROM unnest(v_lanes) AS u (lane)
      ORDER BY 4, 1, 3 NULLS LAST
    LOOP
      -- It had its turn already, or is known to have nothing.
      CONTINUE WHEN v_turn.lane = v_lane OR v_turn.lane = ANY (limited_lanes);
      v_id := NULL;
      IF v_turn.message_ids IS NULL THEN
        -- Looked at first and then held: a message that its channel's policy did not release stays untouched.
        SELECT m.channel, COALESCE((SELECT p.id IS DISTINCT FROM m.policy_id FROM "lonny"._policy_in_force p
                                     WHERE p.channel = m.channel AND m.lane <> 0 LIMIT 1), false) AS is_limited INTO v_first
          FROM "lonny".message m
         WHERE m.status = 'READY' AND m.lane = v_turn.lane
         ORDER BY m.dequeue_at, m.id LIMIT 1;
        CONTINUE WHEN NOT FOUND;
        IF v_first.is_limited THEN
          v_turn.channel := v_first.channel;
          v_turn.message_ids := ARRAY[]::bigint[];
        END IF;
      END IF;
      IF v_turn.message_ids IS NOT NULL THEN
        v_offer := "lonny"._channel_offer(v_turn.lane, v_turn.channel, v_turn.message_ids);
        is_busy := is_busy OR v_offer.is_busy;
        release_at := LEAST(release_at, v_offer.release_at);
        IF v_offer.offered IS NULL THEN
          IF v_offer.is_limited THEN
            limited_lanes := limited_lanes || v_turn.lane;
          END IF;
          CONTINUE;
        END IF;
        v_id := v_offer.offered;
      END IF;
      v_taken := "lonny"._take_one(v_served, v_turn.lane, v_id, p_lock_ms);
      IF v_taken.id IS NULL AND v_id IS NULL AND v_turn.lane <> 0 THEN
        -- All that its policy released is in others' hands. There may be room for more.
        v_offer := "lonny"._channel_offer(v_turn.lane, v_first.channel, ARRAY[]::bigint[]);
        IF v_offer.offered IS NOT NULL THEN
          v_taken := "lonny"._take_one(v_served, v_turn.lane, v_offer.offered, p_lock_ms);
        END IF;
      END IF;
      IF v_taken.id IS NULL THEN
        is_busy := true;
        CONTINUE;
      END IF;
      v_lane := v_turn.lane;
      taken_ids := taken_ids || v_taken.id;
      are_unlocked := are_unlocked || v_taken.is_unlocked;
      v_served := v_lane;
      IF cardinality(taken_ids) = p_max_messages THEN
        RETURN;
      END IF;
    END LOOP;
    v_from := v_last;
    v_num := LEAST(v_num * 8, 10000);
    IF v_last = p_served THEN
      EXIT WHEN cardinality(taken_ids) = p_max_messages - v_missing;
      v_missing := p_max_messages - cardinality(taken_ids);
      v_num := LEAST(v_missing, 10000);
      v_lane := NULL;
    END IF;
  END LOOP;
END
$function$;
COMMENT ON FUNCTION "lonny"._take_in_turn(bigint, integer, bigint, integer) IS
'Takes up to p_max_messages, those whose turn it is after the lane p_served, made ready for it if need be; none if none is to be had.
p_lock_ms as of _take_one, p_window as of _turns_due. is_busy: something is in another transaction''s hands; release_at: the first end of a release interval that something waits for; limited_lanes: those that have nothing to be had now, because of a policy. The ids of what it took come in the order of turns, are_unlocked with them; not the rows, since an array takes no more than 1 GB.';

CREATE OR REPLACE FUNCTION "lonny"._take_many(p_served bigint, p_max_messages integer, p_lock_ms bigint, p_is_alone boolean, p_generations bigint[])
RETURNS SETOF "lonny"._taken
LANGUAGE plpgsql VOLATILE
AS $function$
-- What single calls would do p_max_messages times, in few statements a round: the next lanes in rotation give one message each; if that is not enough, equal
-- shares of the rest, the first ones one more where it does not divide; and what a lane could not fill is shared among all in the next round.
--
-- If its transaction may stay open, what the policy in force did not release must not be held, so lanes that begin with such a message are left
-- alone, and others are passed by. There may be some of which no wake tells: of a producer that began before the policy and committed after it.
DECLARE
  v_wanted       integer := p_max_messages;
  v_served       bigint := p_served;
  v_now          timestamptz;
  v_lanes        bigint[];
  v_share        integer;
  v_num_more     integer;
  v_turn         bigint;
  v_held         record;
  v_more         record;
  v_foreign_ids  bigint[];
  v_timed_ids    bigint[];
  v_intervals_ms bigint[];
BEGIN
  LOOP
    IF p_is_alone AND p_generations IS NULL THEN
      -- Held as they are come by, so another batch at this moment passes by these.
      WITH RECURSIVE ahead AS (
        SELECT NULL::bigint AS id, NULL::tid AS ctid, v_served AS lane, NULL::timestamptz AS dequeue_at, NULL::text COLLATE "C" AS channel, NULL::bigint AS policy_id, NULL::timestamptz AS unlock_at
        UNION ALL
        SELECT n.* FROM ahead a, LATERAL (
          SELECT m.id, m.ctid, m.lane, m.dequeue_at, m.channel, m.policy_id, m.unlock_at FROM "lonny".message m
           WHERE m.status = 'READY' AND m.lane > a.lane
           ORDER BY m.lane, m.dequeue_at, m.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) n
      ), behind AS (
        SELECT NULL::bigint AS id, NULL::tid AS ctid, bigint '-9223372036854775808' AS lane, NULL::timestamptz AS dequeue_at, NULL::text COLLATE "C" AS channel, NULL::bigint AS policy_id, NULL::timestamptz AS unlock_at
        UNION ALL
        SELECT n.* FROM behind b, LATERAL (
          SELECT m.id, m.ctid, m.lane, m.dequeue_at, m.channel, m.policy_id, m.unlock_at FROM "lonny".message m
           WHERE m.status = 'READY' AND m.lane > b.lane AND m.lane <= v_served
           ORDER BY m.lane, m.dequeue_at, m.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) n
      )
      SELECT array_agg(h.id) AS ids, array_agg(h.ctid) AS ctids, array_agg(h.id) FILTER (WHERE h.unlock_at IS NOT NULL) AS unlocked_ids, array_agg(h.lane) AS lanes,
             array_agg(h.channel) AS channels, array_agg(h.policy_id) AS policy_ids, bool_or(h.lane <> 0) AS are_named, array_agg(h.dequeue_at) AS places
        INTO v_held
        FROM (SELECT a.* FROM ahead a WHERE a.id IS NOT NULL UNION ALL SELECT b.* FROM behind b WHERE b.id IS NOT NULL LIMIT v_wanted) h;
      EXIT WHEN v_held.ids IS NULL;
      v_num_more := v_wanted - cardinality(v_held.ids);
      IF v_num_more = 0 THEN
        -- Said at once, so that others at this moment go on behind these lanes.
        v_turn := v_held.lanes[v_wanted];
        PERFORM setval($regclass$"lonny".rotation$regclass$, v_turn);
      ELSE
        -- These are all the lanes: of each what comes behind the one that is held.
        SELECT array_agg(h.id) AS ids, array_agg(h.ctid) AS ctids, array_agg(h.id) FILTER (WHERE h.unlock_at IS NOT NULL) AS unlocked_ids, array_agg(t.lane) AS lanes,
               array_agg(h.channel) AS channels, array_agg(h.policy_id) AS policy_ids
          INTO v_more
          FROM unnest(v_held.lanes, v_held.places, v_held.ids) WITH ORDINALITY AS t (lane, dequeue_at, id, position), LATERAL (
               SELECT m.id, m.ctid, m.channel, m.policy_id, m.unlock_at
                 FROM "lonny".message m
                WHERE m.status = 'READY' AND m.lane = t.lane AND (m.dequeue_at, m.id) > (t.dequeue_at, t.id)
                ORDER BY m.dequeue_at, m.id
                LIMIT v_num_more / cardinality(v_held.lanes) + CASE WHEN t.position <= v_num_more % cardinality(v_held.lanes) THEN 1 ELSE 0 END
                  FOR NO KEY UPDATE SKIP LOCKED) h;
        IF v_more.ids IS NOT NULL THEN
          SELECT v_held.ids || v_more.ids AS ids, v_held.ctids || v_more.ctids AS ctids, v_held.unlocked_ids || v_more.unlocked_ids AS unlocked_ids,
                 v_held.lanes || v_more.lanes AS lanes, v_held.channels || v_more.channels AS channels, v_held.policy_ids || v_more.policy_ids AS policy_ids,
                 v_held.are_named AS are_named
            INTO v_held;
        END IF;
      END IF;
    ELSE
      WITH lane AS MATERIALIZED (
        SELECT n.lane, n.position,
               CASE WHEN NOT p_is_alone AND n.lane <> 0 THEN (
                 SELECT f.channel
                   FROM (SELECT m.channel, m.policy_id FROM "lonny".message m
                          WHERE m.status = 'READY' AND m.lane = n.lane ORDER BY m.dequeue_at, m.id LIMIT 1) f, LATERAL (
                        SELECT x.id, x.cleared FROM "lonny".channel_policy x WHERE x.channel = f.channel ORDER BY x.id DESC LIMIT 1) p
                  WHERE NOT p.cleared AND p.id IS DISTINCT FROM f.policy_id) END AS foreign_channel
          FROM "lonny"._lanes_next(v_served, v_wanted, p_generations) WITH ORDINALITY AS n (lane, position)
      ), woken AS (
        INSERT INTO "lonny".wake (lane, channel) SELECT l.lane, l.foreign_channel FROM lane l WHERE l.foreign_channel IS NOT NULL
      )
      SELECT array_agg(l.lane ORDER BY l.position) INTO v_lanes FROM lane l WHERE l.foreign_channel IS NULL;
      EXIT WHEN v_lanes IS NULL;

      v_share := v_wanted / cardinality(v_lanes);
      v_num_more := v_wanted % cardinality(v_lanes);
      IF p_generations IS NULL THEN
        SELECT array_agg(h.id) AS ids, array_agg(h.ctid) AS ctids, array_agg(h.id) FILTER (WHERE h.unlock_at IS NOT NULL) AS unlocked_ids, array_agg(t.lane) AS lanes,
               array_agg(h.channel) AS channels, array_agg(h.policy_id) AS policy_ids, bool_or(t.lane <> 0) AS are_named
          INTO v_held
          FROM unnest(v_lanes) WITH ORDINALITY AS t (lane, position), LATERAL (
               SELECT m.id, m.ctid, m.channel, m.policy_id, m.unlock_at
                 FROM "lonny".message m
                WHERE m.status = 'READY' AND m.lane = t.lane
                  AND (m.lane = 0
                       OR COALESCE((SELECT p.cleared OR p.id IS NOT DISTINCT FROM m.policy_id
                                      FROM "lonny".channel_policy p WHERE p.channel = m.channel ORDER BY p.id DESC LIMIT 1), true))
                ORDER BY m.dequeue_at, m.id LIMIT v_share + CASE WHEN t.position <= v_num_more THEN 1 ELSE 0 END
                  FOR NO KEY UPDATE SKIP LOCKED) h;
      ELSE
        -- The same through message_generation_idx: see _message_hold. Of two generations each gives a whole share, so that the first ones of both
        -- together are among them.
        SELECT array_agg(h.id) AS ids, array_agg(h.ctid) AS ctids, array_agg(h.id) FILTER (WHERE h.unlock_at IS NOT NULL) AS unlocked_ids, array_agg(h.lane) AS lanes,
               array_agg(h.channel) AS channels, array_agg(h.policy_id) AS policy_ids, bool_or(h.lane <> 0) AS are_named
          INTO v_held
          FROM (SELECT x.*, t.lane, t.turn, t.share, row_number() OVER (PARTITION BY t.lane ORDER BY x.dequeue_at, x.id) AS position
                  FROM (SELECT u.lane, u.position AS turn, v_share + CASE WHEN u.position <= v_num_more THEN 1 ELSE 0 END AS share
                          FROM unnest(v_lanes) WITH ORDINALITY AS u (lane, position)) t, unnest(p_generations) AS g (generation), LATERAL (
                       SELECT m.id, m.ctid, m.channel, m.policy_id, m.unlock_at, m.dequeue_at
                         FROM "lonny".message m
                        WHERE m.status = 'READY' AND (m.generation, m.lane) >= (g.generation, t.lane)
                          AND (m.generation, m.lane) <= (g.generation, t.lane) AND m.generation <= g.generation
                          AND (p_is_alone OR m.lane = 0
                               OR COALESCE((SELECT p.cleared OR p.id IS NOT DISTINCT FROM m.policy_id
                                              FROM "lonny".channel_policy p WHERE p.channel = m.channel ORDER BY p.id DESC LIMIT 1), true))
                        ORDER BY m.generation, m.lane, m.dequeue_at, m.id LIMIT t.share
                          FOR NO KEY UPDATE SKIP LOCKED) x
                 -- In the order of turns, as below it is asked which came last; the window has sorted by lane.
                 ORDER BY t.turn) h
         WHERE h.position <= h.share;
      END IF;
      EXIT WHEN v_held.ids IS NULL;
    END IF;

    -- Policies and clock are read when the rows are ours already, as in _take_one.
    IF v_held.are_named THEN
      SELECT array_agg(h.id) FILTER (WHERE h.policy_id IS DISTINCT FROM p.id),
             array_agg(h.id) FILTER (WHERE h.policy_id IS NOT DISTINCT FROM p.id AND p.release_interval_ms > 0),
             array_agg(p.release_interval_ms) FILTER (WHERE h.policy_id IS NOT DISTINCT FROM p.id AND p.release_interval_ms > 0)
        INTO v_foreign_ids, v_timed_ids, v_intervals_ms
        FROM unnest(v_held.ids, v_held.channels, v_held.policy_ids) AS h (id, channel, policy_id), LATERAL (
             SELECT x.id, x.release_interval_ms, x.cleared
               FROM "lonny".channel_policy x WHERE x.channel = h.channel ORDER BY x.id DESC LIMIT 1) p
       WHERE NOT p.cleared;
      IF v_foreign_ids IS NOT NULL THEN
        INSERT INTO "lonny".wake (lane, channel)
        SELECT DISTINCT h.lane, h.channel
          FROM unnest(v_held.ids, v_held.lanes, v_held.channels) AS h (id, lane, channel)
         -- IS TRUE keeps it a lookup for each row. As a join, with hash joins off, it would compare each with each.
         WHERE (h.id IN (SELECT unnest(v_foreign_ids))) IS TRUE;
        -- Their lanes go too: what was not taken was no turn.
        SELECT array_agg(h.id), array_agg(h.ctid), array_agg(h.lane) INTO v_held.ids, v_held.ctids, v_held.lanes
          FROM unnest(v_held.ids, v_held.ctids, v_held.lanes) AS h (id, ctid, lane) WHERE h.id NOT IN (SELECT unnest(v_foreign_ids));
        EXIT WHEN v_held.ids IS NULL;
      END IF;
    END IF;

    v_now := "lonny"._clock();
    RETURN QUERY
    WITH locked AS (
      UPDATE "lonny".message m
         SET status = 'LOCKED', num_attempts = m.num_attempts + 1, locked_at = v_now,
             lock_ms = COALESCE(p_lock_ms, m.lock_ms),
             unlock_at = v_now + COALESCE(p_lock_ms, m.lock_ms) * interval '1 ms',
             timer_at = v_now + COALESCE(p_lock_ms, m.lock_ms) * interval '1 ms'
       -- They are held, so they stay where they are.
       WHERE m.ctid = ANY (v_held.ctids)
      RETURNING m.id, m.lane, m.channel, m.created_at, m.dequeue_at, m.content, m.state, m.num_attempts, m.unlock_at
    )
    SELECT 'MESSAGE_DEQUEUED'::"lonny".dequeue_result, l.id, "lonny"._channel_name(l.channel, l.id, l.created_at), l.content, l.state,
           l.num_attempts, l.id IN (SELECT unnest(v_held.unlocked_ids)), l.unlock_at, NULL::bigint
      FROM locked l
     ORDER BY row_number() OVER (PARTITION BY l.lane ORDER BY l.dequeue_at, l.id), l.lane <= v_served, l.lane;
    v_wanted := v_wanted - cardinality(v_held.ids);
    IF v_held.are_named THEN
      IF v_timed_ids IS NOT NULL THEN
        INSERT INTO "lonny".wake (lane, channel, at, released_at)
        SELECT m.lane, m.channel, v_now + u.interval_ms * interval '1 ms', v_now
          FROM unnest(v_timed_ids, v_intervals_ms) AS u (id, interval_ms), LATERAL (
               SELECT x.lane, x.channel FROM "lonny".message x WHERE x.id = u.id LIMIT 1) m;
      END IF;
      v_served := (SELECT h.lane FROM unnest(v_held.lanes) WITH ORDINALITY AS h (lane, n)
                    GROUP BY h.lane ORDER BY count(*) DESC, max(h.n) DESC LIMIT 1);
    ELSE
      v_served := 0;
    END IF;
    IF v_served IS DISTINCT FROM v_turn THEN
      PERFORM setval($regclass$"lonny".rotation$regclass$, v_served);
    END IF;
    EXIT WHEN v_wanted = 0 OR v_foreign_ids IS NOT NULL;
  END LOOP;
END
$function$;
COMMENT ON FUNCTION "lonny"._take_many(bigint, integer, bigint, boolean, bigint[]) IS
'Locks up to p_max_messages ready messages in the order of turns and returns them; no row if none is to be had. p_is_alone as of _is_alone, p_generations as of _lanes_next, the others as of _take_one.';

CREATE OR REPLACE FUNCTION "lonny"._retry_ms(p_is_busy boolean, p_release_at timestamptz, p_looked_at timestamptz)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $function$
-- What has ended since the caller looked counts as well: it has not been seen. Beside an old snapshot it does not step over all that has ended in the
-- next years, had it not been deleted.
DECLARE
  c_busy_ms    CONSTANT bigint := 50;
  c_bloated_ms CONSTANT bigint := 1000;
  v_now        timestamptz := "lonny"._clock();
  v_is_bloated boolean := COALESCE(pg_sequence_last_value($regclass$"lonny".generation_walk$regclass$), 0) > 0;
  v_last_at    timestamptz := CASE WHEN v_is_bloated THEN p_looked_at + c_bloated_ms * interval '1 ms' ELSE 'infinity' END;
  v_next_at    timestamptz;
BEGIN
  v_next_at := LEAST(p_release_at,
                     (SELECT m.timer_at FROM "lonny".message m WHERE m.timer_at > p_looked_at AND m.timer_at <= v_last_at ORDER BY m.timer_at LIMIT 1),
                     (SELECT w.at FROM "lonny".wake w WHERE w.at > p_looked_at AND w.at <= v_last_at ORDER BY w.at LIMIT 1));
  RETURN LEAST(ceil(extract(epoch FROM v_next_at - LEAST(v_now, v_next_at)) * 1000)::bigint, CASE WHEN p_is_busy THEN c_busy_ms WHEN v_is_bloated THEN c_bloated_ms END);
END
$function$;
COMMENT ON FUNCTION "lonny"._retry_ms(boolean, timestamptz, timestamptz) IS
'Milliseconds, rounded up, until the next delay, lock or timer ends that was not over at p_looked_at, or until p_release_at; 0 if that is over by now, at most 50 if p_is_busy, or 1000 beside an old snapshot, NULL if nothing is known.';

CREATE OR REPLACE FUNCTION "lonny"._entries_read(p_index text)
RETURNS bigint
LANGUAGE sql VOLATILE
AS $function$
  -- No SET clause: with one it could not be inlined, and it is called twice a dequeue. Without the index the queue is slow, but works.
  SELECT COALESCE(pg_catalog.pg_stat_get_xact_tuples_returned(pg_catalog.to_regclass(p_index)), 0)
$function$;
COMMENT ON FUNCTION "lonny"._entries_read(text) IS
'A counter of the entries of an index that this session''s searches have read, those of dead rows included. Only differences within a call mean anything. It stands still while track_counts is off.';

CREATE OR REPLACE FUNCTION "lonny"._walk_is_in_time(p_at timestamptz, p_late interval)
RETURNS boolean
LANGUAGE sql STABLE
AS $function$
  -- No SET clause: with one it could not be inlined. What is further away than _generations_walk would have set it comes of a clock that was set back.
  SELECT pg_catalog.pg_sequence_last_value($regclass$"lonny".generation_walk$regclass$)
         BETWEEN "lonny"._microseconds(p_at OPERATOR(pg_catalog.-) p_late) AND "lonny"._microseconds(p_at OPERATOR(pg_catalog.+) '61 s')
$function$;
COMMENT ON FUNCTION "lonny"._walk_is_in_time(timestamptz, interval) IS 'Whether the next walk of the generations is overdue at p_at by p_late at most. False before the first one is over.';

CREATE OR REPLACE FUNCTION "lonny"._generation_turn(p_from bigint, p_to bigint, p_floor_seen bigint, p_floor bigint)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- One session at a time, and for a moment only: the mutex goes with the subtransaction that took it, as in _channel_try_release, and what was set in
-- sequences stays. A doubt is said before what it is about: if the session dies in between, a doubt too many is left.
DECLARE
  c_unknown    CONSTANT bigint := 9223372036854775807;
  v_generation bigint;
BEGIN
  IF pg_try_advisory_xact_lock($regclass$"lonny".generation$regclass$::regclass::oid::integer, 1) THEN
    v_generation := COALESCE(pg_sequence_last_value($regclass$"lonny".generation$regclass$), 0);
    IF p_to IS NULL AND v_generation > 0 THEN
      PERFORM setval($regclass$"lonny".late_horizon$regclass$, c_unknown);
      PERFORM setval($regclass$"lonny".generation$regclass$, - v_generation);
    ELSIF p_to IS NULL OR v_generation <> p_from THEN
      NULL;
    ELSIF p_to % 2 <> 0 THEN
      PERFORM setval($regclass$"lonny".generation_horizon$regclass$, c_unknown);
      PERFORM setval($regclass$"lonny".generation$regclass$, p_to);
      PERFORM setval($regclass$"lonny".generation_at$regclass$, "lonny"._microseconds("lonny"._clock()));
    ELSIF p_floor IS NULL THEN
      PERFORM setval($regclass$"lonny".late_horizon$regclass$, c_unknown);
      IF p_from <= 0 THEN
        PERFORM setval($regclass$"lonny".timer_floor$regclass$, 0);
      END IF;
      PERFORM setval($regclass$"lonny".generation$regclass$, p_to);
    ELSIF COALESCE(pg_sequence_last_value($regclass$"lonny".timer_floor$regclass$), 0) = p_floor_seen THEN
      PERFORM setval($regclass$"lonny".timer_floor$regclass$, p_floor);
      PERFORM setval($regclass$"lonny".generation$regclass$, p_to);
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'PYUND';
  END IF;
EXCEPTION WHEN SQLSTATE 'PYUND' THEN
  NULL;
END
$function$;
COMMENT ON FUNCTION "lonny"._generation_turn(bigint, bigint, bigint, bigint) IS
'Sets generation to p_to if it is p_from: has the first one begin, or a younger one (p_to is odd), or the older one end. With p_to NULL it ends with generations. Does nothing if another session does any of this at the same moment.
p_floor, in microseconds since 1970: nothing can come in the older one any more, nor a timer of this time or before, and timer_floor was p_floor_seen when that was found out; NULL unless it was.';

CREATE OR REPLACE FUNCTION "lonny"._horizon_is_over(p_horizon bigint)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $function$
-- A transaction that has to do with it has a lock on one of the tables until it has ended, and has taken it before it read which generation is in
-- use. To list the locks costs more the more there are, so that is asked only if transactions are under way that are as old.
DECLARE
  c_unknown CONSTANT bigint := 9223372036854775807;
BEGIN
  RETURN pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= p_horizon
         OR p_horizon < c_unknown AND NOT EXISTS (
              -- One that waits for its lock counts too.
              WITH held AS MATERIALIZED (SELECT l.locktype, l.database, l.relation, l.transactionid, l.virtualtransaction, l.mode, l.pid FROM pg_locks l)
              SELECT FROM held t, held r
               WHERE t.locktype = 'transactionid' AND t.mode = 'ExclusiveLock' AND age(t.transactionid) > age((p_horizon % 4294967296)::text::xid)
                 AND r.virtualtransaction = t.virtualtransaction AND r.locktype = 'relation' AND r.mode = 'RowExclusiveLock'
                 AND r.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                 -- Its own are seen by the caller.
                 AND r.pid IS DISTINCT FROM pg_backend_pid()
                 AND r.relation IN ($regclass$"lonny".message$regclass$::regclass, $regclass$"lonny".wake$regclass$::regclass));
END
$function$;
COMMENT ON FUNCTION "lonny"._horizon_is_over(bigint) IS
'Whether all transactions with numbers below p_horizon that may have made something ready have ended: what they have committed is seen from now on.';

CREATE OR REPLACE FUNCTION "lonny"._horizons_draw()
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- A number drawn now is higher than that of any transaction that may have read the generation before it was changed. It is drawn when the mutex is ours, so
-- that the change and nothing else is what it follows. As in _generation_turn.
DECLARE
  c_unknown CONSTANT bigint := 9223372036854775807;
BEGIN
  IF pg_try_advisory_xact_lock($regclass$"lonny".generation$regclass$::regclass::oid::integer, 1) THEN
    IF pg_sequence_last_value($regclass$"lonny".generation_horizon$regclass$) = c_unknown THEN
      PERFORM setval($regclass$"lonny".generation_horizon$regclass$, pg_current_xact_id()::text::bigint);
    END IF;
    IF pg_sequence_last_value($regclass$"lonny".late_horizon$regclass$) = c_unknown THEN
      PERFORM setval($regclass$"lonny".late_horizon$regclass$, pg_current_xact_id()::text::bigint);
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'PYUND';
  END IF;
EXCEPTION WHEN SQLSTATE 'PYUND' THEN
  NULL;
END
$function$;
COMMENT ON FUNCTION "lonny"._horizons_draw() IS
'Sets generation_horizon and late_horizon, if they are not known, to the number of the transaction under way, which must not have one yet.';

CREATE OR REPLACE FUNCTION "lonny"._late_lift(p_horizon bigint)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- As in _generation_turn: if an older generation was ended at this moment, there is another horizon.
BEGIN
  IF pg_try_advisory_xact_lock($regclass$"lonny".generation$regclass$::regclass::oid::integer, 1) THEN
    IF pg_sequence_last_value($regclass$"lonny".late_horizon$regclass$) = p_horizon THEN
      PERFORM setval($regclass$"lonny".late_horizon$regclass$, 0);
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'PYUND';
  END IF;
EXCEPTION WHEN SQLSTATE 'PYUND' THEN
  NULL;
END
$function$;
COMMENT ON FUNCTION "lonny"._late_lift(bigint) IS 'Sets late_horizon to 0 if it is p_horizon.';

CREATE OR REPLACE FUNCTION "lonny"._generation_retire(p_generation bigint, p_is_due boolean)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- As a rule all transactions that may have given something the older one have ended, and what they committed is seen below; so nothing can come in it any
-- more. What this transaction has changed is seen too, but may be undone, so it must not have changed anything. If something can come, the older one
-- ends all the same when the younger one is to be followed, and late_horizon says so.
--
-- Timers are set by transactions that read the clock when they have a number, and so to a later time than generation_at if that is higher than the
-- horizon. One that is known to be over by its locks only may have had no lock yet between the two, so there is a margin.
DECLARE
  c_margin_us CONSTANT bigint := 10000000;
  v_now       timestamptz := "lonny"._clock();
  v_horizon   bigint := pg_sequence_last_value($regclass$"lonny".generation_horizon$regclass$);
  v_is_past   boolean := pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= v_horizon;
  v_floor_us  bigint := COALESCE(pg_sequence_last_value($regclass$"lonny".timer_floor$regclass$), 0);
  v_floor     timestamptz := timestamptz 'epoch' + v_floor_us * interval '1 us';
  v_at_us     bigint := COALESCE(pg_sequence_last_value($regclass$"lonny".generation_at$regclass$), 0);
  v_bound_us  bigint := v_at_us - CASE WHEN v_is_past THEN 0 ELSE c_margin_us END;
  v_first     record;
BEGIN
  IF v_is_past OR p_is_due AND "lonny"._horizon_is_over(v_horizon) THEN
    SELECT COALESCE((SELECT true FROM "lonny".message m WHERE m.status = 'READY' AND m.generation >= p_generation / 2 AND m.generation <= p_generation / 2
                      ORDER BY m.generation, m.lane LIMIT 1),
                    (SELECT true FROM "lonny".wake w WHERE w.at IS NULL AND w.generation >= p_generation / 2 AND w.generation <= p_generation / 2
                      ORDER BY w.generation, w.lane LIMIT 1), false) AS is_there,
           (SELECT m.timer_at FROM "lonny".message m WHERE m.timer_at > v_floor AND m.timer_at <= v_now ORDER BY m.timer_at LIMIT 1) AS timer_at,
           (SELECT w.at FROM "lonny".wake w WHERE w.at > v_floor AND w.at <= v_now ORDER BY w.at LIMIT 1) AS wake_at
      INTO v_first;
    IF NOT v_first.is_there THEN
      PERFORM "lonny"._generation_turn(p_generation, p_generation + 1, v_floor_us,
                -- The floor holds once it was found, unless the clock was set back since.
                LEAST(CASE WHEN v_at_us > v_floor_us THEN GREATEST(v_bound_us, v_floor_us + 1) ELSE v_bound_us END,
                      "lonny"._microseconds(LEAST(v_first.timer_at, v_first.wake_at, v_now))) - 1);
    END IF;
  ELSIF p_is_due THEN
    PERFORM "lonny"._generation_turn(p_generation, p_generation + 1, NULL, NULL);
  END IF;
END
$function$;
COMMENT ON FUNCTION "lonny"._generation_retire(bigint, boolean) IS
'Ends the older of two generations (p_generation is their sum) if nothing is in it and nothing can come; if p_is_due, also if something can.
To be called when nothing was seen in it, by a transaction that has changed nothing yet.';

CREATE OR REPLACE FUNCTION "lonny"._generations_walk()
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- One session at a time: the mutex is only tried. What it sets in sequences others see at once; what it changes in rows they see when this
-- transaction, a dequeue of its own, commits. If it dies before, the next walk finds the same.
--
-- Nothing but speed, and place and turn of what came late, depends on its being right or in time. But late_horizon does, which lets a dequeue that finds
-- nothing in the two generations say so without looking through all: it is lifted only by a walk that began when all had ended that could have
-- committed something late, and found nothing in others.
DECLARE
  c_few         CONSTANT integer  := 10000;
  c_few_stale   CONSTANT integer  := 1000;
  c_few_dead    CONSTANT integer  := 500;
  c_few_a_lane  CONSTANT integer  := 8;
  c_share       CONSTANT integer  := 20;
  c_pause       CONSTANT interval := interval '500 ms';
  c_pause_max   CONSTANT interval := interval '60 s';
  c_margin      CONSTANT interval := interval '20 ms';
  c_unknown     CONSTANT bigint := 9223372036854775807;
  v_began_at    timestamptz := "lonny"._clock();
  v_ended_at    timestamptz;
  v_generation  bigint;
  v_is_new      boolean;
  v_older       bigint;
  v_younger     bigint;
  v_late        bigint;
  v_is_over     boolean := false;
  v_num_read    bigint;
  v_few_dead    bigint;
  v_due_at      timestamptz;
  v_messages    record;
  v_wakes       record;
BEGIN
  IF NOT pg_try_advisory_xact_lock($regclass$"lonny".generation$regclass$::regclass::oid::integer, 0)
     OR "lonny"._walk_is_in_time(v_began_at, interval '0') THEN
    RETURN;
  END IF;
  v_generation := COALESCE(pg_sequence_last_value($regclass$"lonny".generation$regclass$), 0);
  IF v_generation <= 0 THEN
    -- One that nothing has yet, set before the look: what becomes ready from now on has it. Until the look is over nobody may search it: what
    -- is ready already is not in it. Whoever reads the generation reads afterwards whether it is walked.
    v_generation := 2 * (1 + (1 - v_generation) / 2);
    PERFORM setval($regclass$"lonny".generation_walk$regclass$, 1);
    PERFORM "lonny"._generation_turn(COALESCE(pg_sequence_last_value($regclass$"lonny".generation$regclass$), 0), v_generation, NULL, NULL);
    IF pg_sequence_last_value($regclass$"lonny".generation$regclass$) IS DISTINCT FROM v_generation THEN
      -- Another has the mutex of the numbers at this moment.
      RETURN;
    END IF;
  END IF;
  -- Perhaps another began with it and got no further.
  v_is_new := pg_sequence_last_value($regclass$"lonny".generation_walk$regclass$) = 1;
  v_late := pg_sequence_last_value($regclass$"lonny".late_horizon$regclass$);
  IF v_late = c_unknown AND pg_current_xact_id_if_assigned() IS NULL THEN
    PERFORM "lonny"._horizons_draw();
  ELSIF v_late <> 0 THEN
    v_is_over := "lonny"._horizon_is_over(v_late);
  END IF;
  v_older := v_generation / 2;
  v_younger := (v_generation + 1) / 2;

  BEGIN
    v_num_read := - "lonny"._entries_read($regclass$"lonny".message_ready_idx$regclass$)
                  - "lonny"._entries_read($regclass$"lonny".message_timer_idx$regclass$);
    -- Stale is what is in neither generation. What another transaction holds (or one that rolled back held: the row version's xmax is another's) would
    -- keep the older one for as long, so that one is over when nothing else is left in it. Its wakes are taken along, since those of a lane whose
    -- mutex is held stay as well.
    SELECT count(*) AS num, count(DISTINCT x.lane) AS num_lanes, count(*) FILTER (WHERE x.is_stale AND NOT x.is_held) AS num_stale,
           COALESCE(bool_or((x.generation >= v_older) IS NOT TRUE), false) AS has_older, COALESCE(max(x.generation), 0) AS last,
           COALESCE(bool_and(x.is_held) FILTER (WHERE x.generation < v_younger AND NOT x.is_stale), false) AS is_older_held,
           count(*) FILTER (WHERE x.generation < v_younger AND NOT x.is_stale) AS num_older,
           array_agg(x.id) FILTER (WHERE x.is_stale OR x.generation < v_younger AND x.is_held) AS stale
      INTO v_messages
      FROM (SELECT m.id, m.lane, m.generation, (m.generation BETWEEN v_older AND v_younger) IS NOT TRUE AS is_stale, m.xmax <> 0 AND m.xmax <> m.xmin AS is_held
              FROM "lonny".message m
             WHERE m.status = 'READY' ORDER BY m.lane, m.dequeue_at, m.id LIMIT c_few) x;
    SELECT count(*) AS num, count(*) FILTER (WHERE (x.generation BETWEEN v_older AND v_younger) IS NOT TRUE) AS num_stale,
           COALESCE(bool_or((x.generation >= v_older) IS NOT TRUE), false) AS has_older, COALESCE(max(x.generation), 0) AS last,
           COALESCE(bool_or(x.is_held) FILTER (WHERE x.generation < v_younger), false) AS is_older_held,
           array_agg(x.ctid) FILTER (WHERE (x.generation = v_younger) IS NOT TRUE) AS stale
      INTO v_wakes
      FROM (SELECT w.ctid, w.generation, w.xmax <> 0 AND w.xmax <> w.xmin AS is_held FROM "lonny".wake w
             WHERE w.at IS NULL ORDER BY w.lane LIMIT c_few) x;
    -- What another transaction holds is no reason to begin there: if that rolls back, the next walk finds it.
    v_due_at := LEAST((SELECT m.timer_at FROM "lonny".message m WHERE m.timer_at <= v_began_at ORDER BY m.timer_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED),
                      (SELECT w.at FROM "lonny".wake w WHERE w.at <= v_began_at ORDER BY w.at LIMIT 1 FOR UPDATE SKIP LOCKED), v_began_at);
    v_num_read := v_num_read + "lonny"._entries_read($regclass$"lonny".message_ready_idx$regclass$)
                  + "lonny"._entries_read($regclass$"lonny".message_timer_idx$regclass$) - v_messages.num;
    v_few_dead := c_few_dead + c_few_a_lane * v_messages.num_lanes;
    IF v_num_read >= v_few_dead AND v_num_read < c_few_dead * v_messages.num_lanes THEN
      -- In each lane there are few, and they may all be of the last moments: then this search has marked them for the next one to pass by. Only
      -- if they stay are they worth the search in generations, which costs more the more lanes there are.
      v_num_read := - "lonny"._entries_read($regclass$"lonny".message_ready_idx$regclass$)
                    - "lonny"._entries_read($regclass$"lonny".message_timer_idx$regclass$);
      PERFORM FROM (SELECT FROM "lonny".message m WHERE m.status = 'READY' ORDER BY m.lane, m.dequeue_at, m.id LIMIT v_messages.num) x;
      PERFORM FROM "lonny".message m WHERE m.timer_at <= v_began_at ORDER BY m.timer_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
      v_num_read := v_num_read + "lonny"._entries_read($regclass$"lonny".message_ready_idx$regclass$)
                    + "lonny"._entries_read($regclass$"lonny".message_timer_idx$regclass$) - v_messages.num;
    END IF;
  EXCEPTION WHEN query_canceled THEN
    -- Perhaps by a statement_timeout: if the next dequeue tried again, none would ever get further.
    v_ended_at := "lonny"._clock();
    IF v_is_new THEN
      PERFORM "lonny"._generation_turn(NULL, NULL, NULL, NULL);
    END IF;
    PERFORM setval($regclass$"lonny".generation_walk$regclass$, "lonny"._microseconds(
              v_ended_at + LEAST(GREATEST(c_share * (v_ended_at - v_began_at), c_pause), c_pause_max)));
    RAISE;
  END;
  PERFORM setval($regclass$"lonny".timer_mark$regclass$, "lonny"._microseconds(v_due_at - c_margin));

  IF v_num_read < v_few_dead
     OR v_messages.num = c_few OR v_wakes.num = c_few OR v_messages.num_stale > c_few_stale OR v_wakes.num_stale > c_few_stale THEN
    PERFORM "lonny"._generation_turn(NULL, NULL, NULL, NULL);
    IF pg_sequence_last_value($regclass$"lonny".generation$regclass$) > 0 THEN
      -- Another has the mutex of the numbers at this moment. The next dequeue walks again.
      PERFORM setval($regclass$"lonny".generation_walk$regclass$, 1);
      RETURN;
    END IF;
    IF v_num_read < v_few_dead THEN
      PERFORM setval($regclass$"lonny".generation_walk$regclass$, 0);
      RETURN;
    END IF;
  ELSE
    UPDATE "lonny".message m
       SET generation = DEFAULT
     WHERE m.id = ANY (ARRAY (
             SELECT h.id FROM unnest(v_messages.stale) AS u (id), LATERAL (
               SELECT x.id FROM "lonny".message x WHERE x.id = u.id AND x.status::text = 'READY' FOR NO KEY UPDATE SKIP LOCKED) h));
    UPDATE "lonny".wake w
       SET generation = DEFAULT
     WHERE w.ctid = ANY (ARRAY (
             SELECT x.ctid FROM "lonny".wake x WHERE x.ctid = ANY (v_wakes.stale) AND x.at IS NULL FOR UPDATE SKIP LOCKED));
    -- If nothing at all is left a dequeue ends it; as a rule what is held is so for a moment only.
    IF v_older < v_younger AND (v_messages.is_older_held OR v_messages.num_older = 0 AND v_wakes.is_older_held)
       -- In the future it is if the clock was set back.
       AND (pg_sequence_last_value($regclass$"lonny".generation_at$regclass$)
            BETWEEN "lonny"._microseconds(v_began_at - c_pause) + 1 AND "lonny"._microseconds(v_began_at)) IS NOT TRUE THEN
      PERFORM "lonny"._generation_turn(v_generation, v_generation + 1, NULL, NULL);
    ELSIF v_is_over AND NOT v_messages.has_older AND NOT v_wakes.has_older
          -- What is later than both has come meanwhile, with a generation that has; or before a crash, which resets the numbers.
          AND GREATEST(v_messages.last, v_wakes.last) <= (pg_sequence_last_value($regclass$"lonny".generation$regclass$) + 1) / 2 THEN
      PERFORM "lonny"._late_lift(v_late);
    END IF;
  END IF;
  v_ended_at := "lonny"._clock();
  PERFORM setval($regclass$"lonny".generation_walk$regclass$, "lonny"._microseconds(
            v_ended_at + LEAST(GREATEST(c_share * (v_ended_at - v_began_at), c_pause), c_pause_max)));
END
$function$;
COMMENT ON FUNCTION "lonny"._generations_walk() IS
'Looks through all that is ready or due, dead rows included, and takes what is in neither of the two generations into the younger; begins with generations if none is in use, and ends with them if dead rows are few or ready messages are many. Sets when to walk again: after 20 times as long as it took, at least 500 ms, at most a minute.';

CREATE OR REPLACE FUNCTION "lonny"._message_hold(p_served bigint, p_generation bigint)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $function$
-- Bounds and order name the generation, although it is always the same one: without a sort, which message_dequeue has off, only
-- message_generation_idx can answer that, whatever the statistics say.
DECLARE
  v_id bigint;
BEGIN
  SELECT m.id INTO v_id
    FROM "lonny".message m
   WHERE m.status = 'READY' AND (m.generation, m.lane) > (p_generation, p_served) AND m.generation <= p_generation
   ORDER BY m.generation, m.lane, m.dequeue_at, m.id LIMIT 1
     FOR NO KEY UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    SELECT m.id INTO v_id
      FROM "lonny".message m
     WHERE m.status = 'READY' AND m.generation >= p_generation AND (m.generation, m.lane) <= (p_generation, p_served)
     ORDER BY m.generation, m.lane, m.dequeue_at, m.id LIMIT 1
       FOR NO KEY UPDATE SKIP LOCKED;
  END IF;
  RETURN v_id;
END
$function$;
COMMENT ON FUNCTION "lonny"._message_hold(bigint, bigint) IS
'Holds the first ready message of a generation, in rotation after the lane p_served, that no other transaction holds, and returns its id; NULL if there is none.';

CREATE OR REPLACE FUNCTION "lonny"._take_in_generations(p_max_messages integer, p_lock_ms bigint, p_is_alone boolean)
RETURNS SETOF "lonny"._taken
LANGUAGE plpgsql VOLATILE
AS $function$
-- While a transaction holds an old snapshot, dead rows stay, and every search steps over those of all messages that ever were. So what
-- becomes ready or due gets a generation, and the search goes through the generation in use only. When that has gathered many dead rows as well,
-- the next one begins: for a moment there are two, until the older one has nothing left, and nothing can come in it. Something can as long as a
-- transaction is under way that was when the younger one began; if that takes long, the older one ends all the same (late_horizon says so), and what
-- comes is found by _generations_walk, or by a dequeue that finds nothing here.
--
-- Ends of delays and locks are searched from a mark on, a little before the last time at which none was left. Before it is said that there is nothing,
-- they are searched from timer_floor on, before which nothing can come.
--
-- Empty is what was so in one look: no row of the generations in use was ready then, nothing could be in others (or it was all in others' hands, no
-- walk moving any meanwhile), and no delay, lock or timer was over. The generation never has the same number again, so if it was the same before that
-- look and after it, it was so all the time; and nothing late can come without another number.
DECLARE
  c_many        CONSTANT integer := 300;
  c_margin_us   CONSTANT bigint := 20000;
  -- Where so many end in that time that stepping over them takes its own.
  c_many_timers CONSTANT integer := 30;
  c_narrow_us   CONSTANT bigint := 2000;
  -- After so long it is asked who keeps the older generation from ending.
  c_patience    CONSTANT interval := interval '200 ms';
  c_unknown     CONSTANT bigint := 9223372036854775807;
  v_now         timestamptz := "lonny"._clock();
  v_served      bigint;
  v_generation  bigint;
  v_last_seen   bigint;
  v_generations bigint[];
  v_is_over     boolean;
  v_is_late     boolean := true;
  v_was_late    boolean;
  v_walk_us     bigint;
  v_floor_us    bigint;
  v_floor       timestamptz;
  v_num_busy    integer := 0;
  v_is_none     boolean;
  v_has_had     boolean;
  v_is_asleep   boolean := false;
  v_nap_ms      bigint;
  v_id          bigint;
  v_mark_us     bigint;
  v_mark        timestamptz;
  v_margin_us   bigint;
  v_found       record;
  v_found_us    bigint;
  v_num_read    bigint;
  v_num_dead    bigint;
  v_many        bigint := c_many + 8::bigint * p_max_messages;
  v_num_taken   integer := 0;
  v_message     "lonny"._taken;
BEGIN
  IF p_is_alone AND NOT "lonny"._walk_is_in_time(v_now, interval '0') THEN
    PERFORM "lonny"._generations_walk();
    -- It may have taken seconds, and the time of the next one is counted from its end.
    v_now := "lonny"._clock();
  END IF;

  -- Others may take all that we see and leave what we do not see yet, or go on to another generation. Bounded, since some may hold what they took.
  FOR i IN 1 .. 10 LOOP
    v_generation := pg_sequence_last_value($regclass$"lonny".generation$regclass$);
    EXIT WHEN (v_generation > 0) IS NOT TRUE;
    IF NOT "lonny"._walk_is_in_time(v_now, interval '1 s') THEN
      -- Not to be relied on before the first walk is over, or if nobody walks (all sessions dequeue in longer transactions, or the clock was set). A walk
      -- that is under way may just take longer than that: if all searched everything meanwhile, it would take longer still.
      EXIT WHEN pg_sequence_last_value($regclass$"lonny".generation_walk$regclass$) = 1;
      -- In one expression, lest a cancel between the two leave the lock to the session.
      EXIT WHEN pg_try_advisory_lock_shared($regclass$"lonny".generation$regclass$::regclass::oid::integer, 0)
            AND pg_advisory_unlock_shared($regclass$"lonny".generation$regclass$::regclass::oid::integer, 0);
    END IF;
    v_generations := CASE WHEN v_generation % 2 = 0 THEN ARRAY[v_generation / 2] ELSE ARRAY[v_generation / 2, v_generation / 2 + 1] END;
    IF p_is_alone AND v_generation % 2 <> 0 AND pg_sequence_last_value($regclass$"lonny".generation_horizon$regclass$) = c_unknown
       AND pg_current_xact_id_if_assigned() IS NULL THEN
      PERFORM "lonny"._horizons_draw();
    END IF;
    -- Not needed if something is found at once.
    IF i > 1 THEN
      v_was_late := v_is_late;
      v_is_late := (pg_sequence_last_value($regclass$"lonny".late_horizon$regclass$) = 0) IS NOT TRUE;
      v_walk_us := pg_sequence_last_value($regclass$"lonny".generation_walk$regclass$);
      v_floor_us := COALESCE(pg_sequence_last_value($regclass$"lonny".timer_floor$regclass$), 0);
      IF v_floor_us > "lonny"._microseconds("lonny"._clock()) THEN
        -- The clock was set back. (v_now is older than what others have done meanwhile.)
        PERFORM setval($regclass$"lonny".timer_floor$regclass$, 0);
        v_floor_us := 0;
      END IF;
    END IF;
    v_served := COALESCE(pg_sequence_last_value($regclass$"lonny".rotation$regclass$), 0);
    v_mark_us := COALESCE(pg_sequence_last_value($regclass$"lonny".timer_mark$regclass$), 0);
    v_mark := timestamptz 'epoch' + v_mark_us * interval '1 us';
    v_num_read := - "lonny"._entries_read($regclass$"lonny".message_generation_idx$regclass$);
    v_margin_us := - "lonny"._entries_read($regclass$"lonny".message_timer_idx$regclass$);
    SELECT (SELECT m.timer_at FROM "lonny".message m WHERE m.timer_at > v_mark AND m.timer_at <= v_now ORDER BY m.timer_at LIMIT 1) AS message_at,
           (SELECT w.at FROM "lonny".wake w WHERE w.at > v_mark AND w.at <= v_now ORDER BY w.at LIMIT 1) AS timer_at,
           (SELECT w.generation FROM "lonny".wake w WHERE w.at IS NULL AND w.generation >= v_generation / 2 AND w.generation <= (v_generation + 1) / 2
             ORDER BY w.generation, w.lane LIMIT 1) AS wake_generation,
           (SELECT m.generation FROM "lonny".message m WHERE m.status = 'READY' AND m.generation >= v_generation / 2 AND m.generation <= (v_generation + 1) / 2
             ORDER BY m.generation, m.lane LIMIT 1) AS message_generation
      INTO v_found;
    v_is_over := v_generations[1] < LEAST(v_generations[2], v_found.wake_generation, v_found.message_generation);
    IF v_is_over AND pg_current_xact_id_if_assigned() IS NULL THEN
      v_num_dead := v_num_read + "lonny"._entries_read($regclass$"lonny".message_generation_idx$regclass$);
      PERFORM "lonny"._generation_retire(v_generation, v_num_dead > 2 * v_many OR v_now - c_patience > (
                timestamptz 'epoch' + pg_sequence_last_value($regclass$"lonny".generation_at$regclass$) * interval '1 us'));
    END IF;
    v_is_none := v_found.message_at IS NULL AND v_found.timer_at IS NULL AND v_found.wake_generation IS NULL AND v_found.message_generation IS NULL;
    IF v_found.message_at IS NOT NULL OR v_found.timer_at IS NOT NULL OR v_found.wake_generation IS NOT NULL THEN
      EXIT WHEN NOT p_is_alone;
      v_num_read := v_num_read + "lonny"._entries_read($regclass$"lonny".message_generation_idx$regclass$);
      v_has_had := "lonny"._tend(GREATEST(32, LEAST(p_max_messages, 250)), v_found.message_at IS NOT NULL, v_found.timer_at IS NOT NULL, v_mark, v_generations);
      v_num_read := v_num_read - "lonny"._entries_read($regclass$"lonny".message_generation_idx$regclass$);
    ELSE
      v_has_had := false;
    END IF;
    IF v_num_busy = 2 AND NOT v_has_had OR i > 2 AND v_is_none AND v_generation = v_last_seen THEN
      -- Nor if nobody has walked for a minute: it may be a copy of a database, whose numbers are younger than its rows.
      EXIT WHEN v_was_late OR NOT "lonny"._walk_is_in_time(v_now, interval '1 min');
      v_floor := timestamptz 'epoch' + v_floor_us * interval '1 us';
      v_floor := LEAST((SELECT m.timer_at FROM "lonny".message m WHERE m.timer_at > v_floor AND m.timer_at <= LEAST(v_mark, v_now) ORDER BY m.timer_at LIMIT 1),
                       (SELECT w.at FROM "lonny".wake w WHERE w.at > v_floor AND w.at <= LEAST(v_mark, v_now) ORDER BY w.at LIMIT 1));
      IF v_floor IS NOT NULL THEN
        EXIT WHEN NOT p_is_alone;
        PERFORM setval($regclass$"lonny".timer_mark$regclass$, "lonny"._microseconds(v_floor) - 1);
        v_num_busy := 0;
        CONTINUE;
      END IF;
      IF "lonny"._wake_channel() IS NOT NULL AND NOT v_is_asleep THEN
        v_nap_ms := "lonny"._sleeper_nap_ms();
        v_is_asleep := true;
        IF v_nap_ms IS NULL THEN
          -- Its number is drawn: one more look.
          v_last_seen := NULL;
          v_num_busy := 0;
          CONTINUE;
        END IF;
      END IF;
      v_message.result := 'MESSAGE_NOT_AVAILABLE';
      v_message.retry_ms := LEAST("lonny"._retry_ms(NOT v_is_none, NULL, v_now), v_nap_ms);
      RETURN NEXT v_message;
      RETURN;
    END IF;
    v_last_seen := v_generation;
    v_found_us := "lonny"._microseconds(LEAST(v_found.message_at, v_found.timer_at, v_now));
    v_margin_us := CASE WHEN v_margin_us + "lonny"._entries_read($regclass$"lonny".message_timer_idx$regclass$) > c_many_timers
                        THEN c_narrow_us ELSE c_margin_us END;
    IF v_found_us - v_mark_us > 2 * v_margin_us THEN
      PERFORM setval($regclass$"lonny".timer_mark$regclass$, v_found_us - v_margin_us);
    END IF;
    IF v_is_over THEN
      v_generations := v_generations[2:];
    END IF;

    IF p_max_messages > 1 THEN
      -- With two generations it holds more than it takes, for as long as the transaction lasts.
      EXIT WHEN v_generations[1] < v_generations[2] AND NOT p_is_alone;
      RETURN QUERY SELECT t.* FROM "lonny"._take_many(v_served, p_max_messages, p_lock_ms, p_is_alone, v_generations) t;
      GET DIAGNOSTICS v_num_taken = ROW_COUNT;
    END IF;
    -- A batch looks at the first lanes only, and these may all be in others' hands.
    IF v_num_taken = 0 THEN
      IF v_generations[1] < v_generations[2] THEN
        -- Whose turn is it, and of the same lane, which comes first? The other one is second, in case that what we see is in another's hands.
        SELECT array_agg(g.generation ORDER BY f.lane <= v_served, f.lane, f.dequeue_at, f.id, g.generation) INTO v_generations
          FROM unnest(v_generations) AS g (generation) LEFT JOIN LATERAL (
               SELECT n.lane, x.dequeue_at, x.id
                 FROM "lonny"._lanes_next(v_served, 1, ARRAY[g.generation]) AS n (lane), LATERAL (
                      SELECT m.dequeue_at, m.id FROM "lonny".message m
                       WHERE m.status = 'READY' AND (m.generation, m.lane) >= (g.generation, n.lane)
                         AND (m.generation, m.lane) <= (g.generation, n.lane) AND m.generation <= g.generation
                       ORDER BY m.generation, m.lane, m.dequeue_at, m.id LIMIT 1) x) f ON true;
      END IF;
      v_id := COALESCE("lonny"._message_hold(v_served, v_generations[1]), "lonny"._message_hold(v_served, v_generations[2]));
      IF v_id IS NOT NULL THEN
        v_message := "lonny"._take_one(v_served, NULL, v_id, p_lock_ms);
        EXIT WHEN v_message.id IS NULL;
        RETURN NEXT v_message;
        v_num_taken := 1;
      END IF;
    END IF;
    IF v_num_taken > 0 THEN
      v_num_read := v_num_read + "lonny"._entries_read($regclass$"lonny".message_generation_idx$regclass$);
      IF v_generation % 2 = 0 AND v_num_read > v_many OR v_is_over AND v_num_read > 8 * v_many THEN
        PERFORM "lonny"._generation_turn(v_generation, v_generation + 1, NULL, NULL);
      END IF;
      EXIT;
    END IF;
    -- All that was seen is in others' hands, unless a walk moved it from the one to the other between the two looks, or does at this moment.
    v_num_busy := CASE WHEN NOT v_is_none AND NOT v_has_had AND NOT v_is_late AND pg_sequence_last_value($regclass$"lonny".generation$regclass$) = v_generation
                        AND pg_sequence_last_value($regclass$"lonny".generation_walk$regclass$) = v_walk_us
                        AND pg_try_advisory_lock_shared($regclass$"lonny".generation$regclass$::regclass::oid::integer, 0)
                        AND pg_advisory_unlock_shared($regclass$"lonny".generation$regclass$::regclass::oid::integer, 0) THEN v_num_busy + 1 ELSE 0 END;
  END LOOP;
END
$function$;
COMMENT ON FUNCTION "lonny"._take_in_generations(integer, bigint, boolean) IS
'What message_dequeue does beside an old snapshot: takes up to p_max_messages of those that are ready in the generations in use; no row if none is to be had there, or none is in use.
p_lock_ms as of _take_one, p_is_alone as of _is_alone.';

CREATE OR REPLACE FUNCTION "lonny".message_dequeue(max_messages integer DEFAULT 1, lock_ms bigint DEFAULT NULL)
RETURNS SETOF "lonny".dequeued
LANGUAGE plpgsql VOLATILE ROWS 10
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_sort = off
SET jit = off
AS $function$
-- A lane's turn comes when it has a ready message, or one that this call can make ready. Every row is taken with SKIP LOCKED and every mutex
-- is only tried: it waits for nobody.
--
-- If the transaction stays open, it holds what it took, and the mutex of those channels whose policy released that in this transaction: these stand
-- still. A message of a limited channel that was ready and had to give way to an earlier one is held too, and nothing else (one ready message at
-- the most that it met without a warning: of a channel that got a policy while it was created). If it rolls back, or the server dies, all is as
-- before, but that the rotation goes on from here.
--
-- A call that is a transaction of its own does a share of the work that is due for all before it takes what is ready.
--
-- The usual call takes one message, when nothing is due and no old snapshot is in the way. It does so in as few statements and expressions as there can
-- be, since each is initialised anew in every transaction, which is most of what a call costs.
DECLARE
  v_now          timestamptz := "lonny"._clock();
  v_served       bigint := COALESCE(pg_sequence_last_value($regclass$"lonny".rotation$regclass$), 0);
  v_num_read     bigint := - "lonny"._entries_read($regclass$"lonny".message_ready_idx$regclass$);
  v_is_single    boolean := message_dequeue.max_messages = 1 AND COALESCE(message_dequeue.lock_ms BETWEEN 0 AND 3155760000000, true)
                            AND current_setting('transaction_isolation') = 'read committed'
                            AND COALESCE(pg_sequence_last_value($regclass$"lonny".generation_walk$regclass$), 0) = 0;
  v_is_looked_at boolean;
  v_held         record;
  v_policy       record;
  v_is_bloated   boolean;
  v_has_messages boolean;
  v_has_timers   boolean;
  v_has_wakes    boolean;
  v_is_due       boolean;
  v_is_alone     boolean;
  v_call_stack   text;
  v_taken        record;
  v_seen         tid[];
  v_ready        tid[];
  v_round        integer;
  v_is_last      boolean;
  v_is_asleep    boolean;
  v_nap_ms       bigint;
  v_message      "lonny"._taken;
BEGIN
  LOOP
    IF v_is_single THEN
      -- What is due is looked for in the same statement, the first time. Each of these conditions is a lookup in an index of its own.
      IF v_served = 0 THEN
        -- Behind it there is no other lane, so this is all of them.
        SELECT m.id, m.ctid, m.lane, m.channel, m.policy_id, m.unlock_at INTO v_held
          FROM "lonny".message m
         WHERE m.status = 'READY'
           AND (v_is_looked_at
                OR NOT EXISTS (SELECT FROM "lonny".message x WHERE x.timer_at <= v_now)
               AND NOT EXISTS (SELECT FROM "lonny".wake w WHERE w.at IS NULL)
               AND (SELECT true FROM "lonny".wake w WHERE w.at <= v_now ORDER BY w.at LIMIT 1) IS NULL)
         ORDER BY m.lane, m.dequeue_at, m.id LIMIT 1
           FOR NO KEY UPDATE SKIP LOCKED;
      ELSE
        SELECT h.id, h.ctid, h.lane, h.channel, h.policy_id, h.unlock_at, c.is_clear INTO v_held
          FROM (SELECT v_is_looked_at
                       OR NOT EXISTS (SELECT FROM "lonny".message x WHERE x.timer_at <= v_now)
                      AND NOT EXISTS (SELECT FROM "lonny".wake w WHERE w.at IS NULL)
                      AND (SELECT true FROM "lonny".wake w WHERE w.at <= v_now ORDER BY w.at LIMIT 1) IS NULL AS is_clear OFFSET 0) c
          LEFT JOIN LATERAL (
               SELECT m.id, m.ctid, m.lane, m.channel, m.policy_id, m.unlock_at
                 FROM "lonny".message m
                WHERE c.is_clear AND m.status = 'READY' AND m.lane > v_served
                ORDER BY m.lane, m.dequeue_at, m.id LIMIT 1
                  FOR NO KEY UPDATE SKIP LOCKED) h ON true;
        -- Only if those ahead were looked at, or they would lose their turn.
        IF v_held.id IS NULL AND v_held.is_clear THEN
          SELECT m.id, m.ctid, m.lane, m.channel, m.policy_id, m.unlock_at INTO v_held
            FROM "lonny".message m
           WHERE m.status = 'READY' AND m.lane <= v_served
           ORDER BY m.lane, m.dequeue_at, m.id LIMIT 1
             FOR NO KEY UPDATE SKIP LOCKED;
        END IF;
      END IF;
      IF v_held.lane <> 0 THEN
        -- As in _take_one.
        SELECT p.id, p.cleared, p.release_interval_ms INTO v_policy
          FROM "lonny".channel_policy p WHERE p.channel = v_held.channel ORDER BY p.id DESC LIMIT 1;
        IF NOT v_policy.cleared AND v_held.policy_id IS DISTINCT FROM v_policy.id THEN
          INSERT INTO "lonny".wake (lane, channel) VALUES (v_held.lane, v_held.channel);
          v_held.id := NULL;
        END IF;
      END IF;
      IF v_held.id IS NOT NULL THEN
        v_now := "lonny"._clock();
        RETURN QUERY
        UPDATE "lonny".message m
           SET status = 'LOCKED', num_attempts = m.num_attempts + 1, locked_at = v_now,
               lock_ms = COALESCE(message_dequeue.lock_ms, m.lock_ms),
               unlock_at = v_now + COALESCE(message_dequeue.lock_ms, m.lock_ms) * interval '1 ms',
               timer_at = v_now + COALESCE(message_dequeue.lock_ms, m.lock_ms) * interval '1 ms'
         -- It is held, so it stays where it is.
         WHERE m.ctid = v_held.ctid
        RETURNING 'MESSAGE_DEQUEUED'::"lonny".dequeue_result, m.id, "lonny"._channel_name(m.channel, m.id, m.created_at), m.content, m.state, m.num_attempts,
                  v_held.unlock_at IS NOT NULL, m.unlock_at, NULL::bigint;
        IF v_held.lane <> 0 OR v_served <> 0 THEN
          IF v_held.lane <> v_served THEN
            PERFORM setval($regclass$"lonny".rotation$regclass$, v_held.lane);
          END IF;
          IF v_held.lane <> 0 THEN
            IF NOT v_policy.cleared AND v_policy.release_interval_ms > 0 THEN
              INSERT INTO "lonny".wake (lane, channel, at, released_at)
              VALUES (v_held.lane, v_held.channel, v_now + v_policy.release_interval_ms * interval '1 ms', v_now);
            END IF;
          END IF;
        END IF;
        EXIT;
      END IF;
    ELSIF v_is_looked_at AND (v_is_alone OR NOT v_is_due) THEN
      -- Named, so that a call which an upgrade has caught here is none the wiser if there are more of them now.
      RETURN QUERY SELECT t.result, t.id, t.channel, t.content, t.state, t.num_attempts, t.is_unlocked, t.unlock_at, t.retry_ms
                     FROM "lonny"._take_many(v_served, message_dequeue.max_messages, message_dequeue.lock_ms, v_is_alone, NULL) t;
      EXIT WHEN FOUND;
    END IF;

    IF v_is_looked_at IS NULL THEN
      IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'message_dequeue works in READ COMMITTED only, not in %', upper(current_setting('transaction_isolation'))
          USING ERRCODE = 'active_sql_transaction',
                HINT = 'An older snapshot cannot see what others have taken. Dequeue in a transaction of its own in READ COMMITTED.';
      END IF;
      IF message_dequeue.max_messages IS NULL OR message_dequeue.max_messages < 1 THEN
        PERFORM "lonny"._raise_invalid('max_messages', message_dequeue.max_messages::text, 'Give the greatest number of messages to take, 1 or more.');
      END IF;
      IF message_dequeue.lock_ms NOT BETWEEN 0 AND 3155760000000 THEN
        PERFORM "lonny"._raise_invalid('lock_ms', message_dequeue.lock_ms::text, 'Give milliseconds from 0 to 3155760000000 (100 years), or NULL for the message''s own.');
      END IF;

      v_is_bloated := COALESCE(pg_sequence_last_value($regclass$"lonny".generation_walk$regclass$), 0) > 0;
      IF v_is_bloated THEN
        IF pg_current_xact_id_if_assigned() IS NULL THEN
          GET DIAGNOSTICS v_call_stack = PG_CONTEXT;
          v_is_alone := "lonny"._is_alone(v_call_stack);
        END IF;
        RETURN QUERY SELECT t.result, t.id, t.channel, t.content, t.state, t.num_attempts, t.is_unlocked, t.unlock_at, t.retry_ms
                       FROM "lonny"._take_in_generations(message_dequeue.max_messages, message_dequeue.lock_ms, COALESCE(v_is_alone, false)) t;
        IF FOUND THEN
          RETURN;
        END IF;
      END IF;

      SELECT EXISTS (SELECT FROM "lonny".message m WHERE m.timer_at <= v_now),
             COALESCE((SELECT true FROM "lonny".wake w WHERE w.at <= v_now ORDER BY w.at LIMIT 1), false),
             EXISTS (SELECT FROM "lonny".wake w WHERE w.at IS NULL)
        INTO v_has_messages, v_has_timers, v_has_wakes;
      v_is_due := v_has_messages OR v_has_timers OR v_has_wakes;
      IF v_is_alone IS NULL AND (v_is_due OR message_dequeue.max_messages > 1) AND pg_current_xact_id_if_assigned() IS NULL THEN
        GET DIAGNOSTICS v_call_stack = PG_CONTEXT;
        v_is_alone := "lonny"._is_alone(v_call_stack);
      END IF;
      v_is_alone := COALESCE(v_is_alone, false);
      IF v_is_alone AND v_is_due THEN
        v_num_read := v_num_read + "lonny"._entries_read($regclass$"lonny".message_ready_idx$regclass$);
        PERFORM "lonny"._tend(GREATEST(32, LEAST(message_dequeue.max_messages, 250)), v_has_messages, v_has_timers, '-infinity', NULL);
        v_num_read := v_num_read - "lonny"._entries_read($regclass$"lonny".message_ready_idx$regclass$);
        -- That took its time, in which others took turns.
        v_served := COALESCE(pg_sequence_last_value($regclass$"lonny".rotation$regclass$), 0);
      END IF;
      v_is_single := message_dequeue.max_messages = 1 AND (v_is_alone OR NOT v_is_due);
      v_is_looked_at := true;
      v_seen := '{}';
      -- Bounded, since others go on making work while this call looks for it.
      v_round := 1;
      v_is_asleep := false;
      CONTINUE;
    END IF;

    v_taken := "lonny"._take_in_turn(v_served, message_dequeue.max_messages, message_dequeue.lock_ms, 64);
    IF v_taken.taken_ids = '{}' THEN
      v_now := "lonny"._clock();
      v_taken := "lonny"._take_in_turn(v_served, message_dequeue.max_messages, message_dequeue.lock_ms, 10000);
    END IF;
    IF v_taken.taken_ids <> '{}' THEN
      RETURN QUERY
      SELECT 'MESSAGE_DEQUEUED'::"lonny".dequeue_result, t.id, "lonny"._channel_name(t.channel, t.id, t.created_at), t.content, t.state, t.num_attempts, u.is_unlocked, t.unlock_at, NULL::bigint
        FROM unnest(v_taken.taken_ids, v_taken.are_unlocked) WITH ORDINALITY AS u (id, is_unlocked, n), LATERAL (
          SELECT m.* FROM "lonny".message m WHERE m.id = u.id LIMIT 1) t
       ORDER BY u.n;
      RETURN;
    END IF;

    -- A message that moved under the search may have been missed. Whatever is ready now and was not when we looked before is worth
    -- another look; what was ready then was in another's hands.
    v_ready := ARRAY (SELECT m.ctid FROM "lonny"._lanes_next(v_served, 10000, NULL) AS n (lane), LATERAL (
                        SELECT x.ctid FROM "lonny".message x WHERE x.status = 'READY' AND x.lane = n.lane LIMIT 1000) m
                       WHERE n.lane <> ALL (v_taken.limited_lanes) LIMIT 10000);
    v_is_last := v_round = 100;
    IF v_ready <@ v_seen THEN
      IF "lonny"._wake_channel() IS NULL OR v_is_asleep THEN
        v_is_last := true;
      ELSE
        -- After the last round there is no other look, which a number asks for.
        v_nap_ms := CASE WHEN v_is_last THEN 10 ELSE "lonny"._sleeper_nap_ms() END;
        v_is_last := v_nap_ms IS NOT NULL;
        v_is_asleep := true;
      END IF;
    END IF;
    IF v_is_last THEN
      v_message.result := 'MESSAGE_NOT_AVAILABLE';
      v_message.retry_ms := LEAST("lonny"._retry_ms(v_taken.is_busy OR v_ready <> '{}', v_taken.release_at, v_now), v_nap_ms);
      RETURN NEXT v_message;
      RETURN;
    END IF;
    v_seen := v_seen || v_ready;
    v_round := v_round + 1;
  END LOOP;

  IF v_num_read + "lonny"._entries_read($regclass$"lonny".message_ready_idx$regclass$) > 500 + 8::bigint * message_dequeue.max_messages AND v_is_bloated IS NOT TRUE THEN
    -- Too much to step over: the next call is to find out whether an old snapshot is why.
    PERFORM setval($regclass$"lonny".generation_walk$regclass$, 1);
  END IF;
END
$function$;
COMMENT ON FUNCTION "lonny".message_dequeue(integer, bigint) IS
'Takes the next messages, in rotation over the channels, and locks them.
Returns 1 to max_messages rows MESSAGE_DEQUEUED in the order of turns, or one row MESSAGE_NOT_AVAILABLE with retry_ms: milliseconds until something known can become available, at most 50 if something is in another transaction''s hands, NULL if nothing is known (1000 beside an old snapshot). lock_ms, in milliseconds, replaces the messages'' own lock time from now on; NULL keeps it. Commit at once: the lock is in the row, not in the transaction. Errors: 22004, 22023; 25001 unless in READ COMMITTED.';


-- Finishing them
CREATE OR REPLACE FUNCTION "lonny"._place_freed(p_lane bigint, p_channel text)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- Called after the row was deleted or updated, so that this statement's snapshot is younger than the hold on the row. An advance that found the
-- row untouched is older, and so is all that it left waiting: it is seen here. An advance that found the row in our hands looks again
-- by itself (_channel_survey, is_ending). A snapshot for the whole transaction sees neither, so there the channel is woken in any case.
DECLARE
  v_now        timestamptz := "lonny"._clock();
  v_is_waiting boolean;
BEGIN
  v_is_waiting := current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
                  -- The first in the order is enough: it is due, or, if the clock was set back, was due once.
                  OR COALESCE((SELECT m.dequeue_at <= v_now OR m.timer_at IS NULL FROM "lonny".message m
                                WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel
                                ORDER BY m.dequeue_at, m.id LIMIT 1), false);
  IF v_is_waiting THEN
    INSERT INTO "lonny".wake (lane, channel) VALUES (p_lane, p_channel);
  END IF;
  -- What is ready without having been released waits for this place too. The channel has a due wake then, of which who sleeps has to be told.
  IF "lonny"._wake_channel() IS NOT NULL
     AND (v_is_waiting OR COALESCE((SELECT true FROM "lonny".message m WHERE m.status = 'READY' AND m.lane = p_lane LIMIT 1), false)) THEN
    PERFORM "lonny"._sleepers_wake();
  END IF;
END
$function$;
COMMENT ON FUNCTION "lonny"._place_freed(bigint, text) IS
'Wakes a channel one of whose messages is no longer out, if another waits. To be called after that message''s row was changed, in a statement of its own.';

CREATE OR REPLACE FUNCTION "lonny"._places_freed(p_lanes bigint[], p_channels text[])
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- _place_freed, with its reasons, for many at once. For one it takes several times as long (measured), so single calls have their own.
DECLARE
  v_now timestamptz := "lonny"._clock();
BEGIN
  INSERT INTO "lonny".wake (lane, channel)
  SELECT f.lane, f.channel
    FROM (SELECT DISTINCT u.lane, u.channel FROM unnest(p_lanes, p_channels) AS u (lane, channel)) f
   WHERE current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
      OR (SELECT m.dequeue_at <= v_now OR m.timer_at IS NULL FROM "lonny".message m
           WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = f.lane AND m.channel = f.channel
           ORDER BY m.dequeue_at, m.id LIMIT 1);
  IF "lonny"._wake_channel() IS NOT NULL
     AND (FOUND OR COALESCE((SELECT true FROM unnest(p_lanes) AS u (lane), LATERAL (
                               SELECT FROM "lonny".message m WHERE m.status = 'READY' AND m.lane = u.lane LIMIT 1) r LIMIT 1), false)) THEN
    PERFORM "lonny"._sleepers_wake();
  END IF;
END
$function$;
COMMENT ON FUNCTION "lonny"._places_freed(bigint[], text[]) IS
'Wakes those of the channels, given with their lanes, in which messages wait. To be called after messages of theirs that were out were changed, in a statement of its own.';

CREATE OR REPLACE FUNCTION "lonny".message_delete(id bigint, num_attempts integer)
RETURNS "lonny".delete_result
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $function$
-- Locks the message's own row and nothing else. It waits only for a transaction that holds this very message.
DECLARE
  v_message record;
BEGIN
  -- With an argument that is NULL it finds nothing.
  DELETE FROM "lonny".message m
   WHERE m.id = message_delete.id AND m.num_attempts = message_delete.num_attempts AND m.unlock_at IS NOT NULL
  RETURNING m.lane, m.channel, m.created_at, 'MESSAGE_DELETED'::"lonny".delete_result AS result INTO v_message;
  IF NOT FOUND THEN
    IF message_delete.id IS NULL THEN
      PERFORM "lonny"._raise_invalid('id', NULL, 'Give the id of the message.');
    END IF;
    IF message_delete.num_attempts IS NULL THEN
      PERFORM "lonny"._raise_invalid('num_attempts', NULL, 'Give num_attempts as message_dequeue returned it.');
    END IF;
    RETURN CASE WHEN EXISTS (SELECT FROM "lonny".message m WHERE m.id = message_delete.id)
                THEN 'MESSAGE_STATE_INVALID'::"lonny".delete_result ELSE 'MESSAGE_NOT_FOUND' END;
  END IF;
  IF v_message.lane <> 0 THEN
    PERFORM "lonny"._place_freed(v_message.lane, v_message.channel);
  END IF;
  IF "lonny"._event_channel() IS NOT NULL THEN
    PERFORM "lonny"._event_notify('MESSAGE_DELETED', message_delete.id, "lonny"._channel_name(v_message.channel, message_delete.id, v_message.created_at), NULL);
  END IF;
  RETURN v_message.result;
END
$function$;
COMMENT ON FUNCTION "lonny".message_delete(bigint, integer) IS
'Removes a message that the caller has dequeued: its work is done.
num_attempts is the fencing token that message_dequeue returned; with another one, or if the message was deferred since, the answer is MESSAGE_STATE_INVALID and nothing changes. A worker whose lock has expired may still delete until the message is dequeued again. Errors: 22004.';

CREATE OR REPLACE FUNCTION "lonny".message_delete_many(ids bigint[], num_attempts integer[])
RETURNS SETOF "lonny".deleted
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $function$
-- Locks the messages' own rows, in the order of their ids (in which the primary key is searched), so that two calls for the same messages,
-- in whatever order, may wait for each other but never deadlock.
DECLARE
  v_bad    record;
  v_gone   record;
BEGIN
  IF message_delete_many.ids IS NULL THEN
    PERFORM "lonny"._raise_invalid('ids', NULL, 'Give an array of ids.');
  END IF;
  IF message_delete_many.num_attempts IS NULL THEN
    PERFORM "lonny"._raise_invalid('num_attempts', NULL, 'Give an array of num_attempts as message_dequeue returned them.');
  END IF;
  IF cardinality(message_delete_many.num_attempts) <> cardinality(message_delete_many.ids) THEN
    PERFORM "lonny"._raise_invalid('num_attempts', message_delete_many.num_attempts::text,
                                        format('Give as many elements as ids (%s).', cardinality(message_delete_many.ids)));
  END IF;
  SELECT u.id, u.n INTO v_bad
    FROM unnest(message_delete_many.ids, message_delete_many.num_attempts) WITH ORDINALITY AS u (id, num_attempts, n)
   WHERE u.id IS NULL OR u.num_attempts IS NULL
   ORDER BY u.n LIMIT 1;
  IF FOUND THEN
    PERFORM "lonny"._raise_invalid(format('%s[%s]', CASE WHEN v_bad.id IS NULL THEN 'ids' ELSE 'num_attempts' END, v_bad.n), NULL,
                                        'Give the id and the num_attempts of a message in each place.');
  END IF;

  WITH gone AS (
    DELETE FROM "lonny".message m
     WHERE m.id = ANY (message_delete_many.ids) AND m.unlock_at IS NOT NULL
       -- IS TRUE keeps it a lookup for each row, so that no plan can begin with it.
       AND ((m.id, m.num_attempts) IN (SELECT u.id, u.num_attempts FROM unnest(message_delete_many.ids, message_delete_many.num_attempts) AS u (id, num_attempts))) IS TRUE
    RETURNING m.id, m.num_attempts, m.lane, m.channel, m.created_at
  )
  SELECT array_agg(g.id) AS ids, array_agg(g.num_attempts) AS attempts, array_agg(g.channel) AS channels, array_agg(g.created_at) AS times,
         array_agg(g.lane) FILTER (WHERE g.lane <> 0) AS lanes, array_agg(g.channel) FILTER (WHERE g.lane <> 0) AS named_channels
    INTO v_gone
    FROM gone g;
  IF v_gone.lanes IS NOT NULL THEN
    PERFORM "lonny"._places_freed(v_gone.lanes, v_gone.named_channels);
  END IF;
  IF "lonny"._event_channel() IS NOT NULL THEN
    PERFORM "lonny"._event_notify('MESSAGE_DELETED', u.id, "lonny"._channel_name(u.channel, u.id, u.created_at), NULL)
       FROM unnest(v_gone.ids, v_gone.channels, v_gone.times) AS u (id, channel, created_at);
  END IF;

  IF cardinality(v_gone.ids) = cardinality(message_delete_many.ids) THEN
    RETURN QUERY SELECT u.id, 'MESSAGE_DELETED'::"lonny".delete_result FROM unnest(message_delete_many.ids) AS u (id);
    RETURN;
  END IF;
  -- As one call after the other would have answered: the first element with the right number deletes it, for the later ones it is gone.
  RETURN QUERY
  WITH given AS MATERIALIZED (
    SELECT u.id, u.num_attempts, u.n
      FROM unnest(message_delete_many.ids, message_delete_many.num_attempts) WITH ORDINALITY AS u (id, num_attempts, n)
  ), gone AS (
    SELECT g.id, min(g.n) AS n
      FROM given g JOIN unnest(v_gone.ids, v_gone.attempts) AS d (id, num_attempts) ON d.id = g.id AND d.num_attempts = g.num_attempts
     GROUP BY g.id
  )
  SELECT g.id,
         CASE WHEN g.n = d.n THEN 'MESSAGE_DELETED'::"lonny".delete_result
              WHEN g.n > d.n THEN 'MESSAGE_NOT_FOUND'
              WHEN g.n < d.n OR COALESCE((SELECT true FROM "lonny".message m WHERE m.id = g.id LIMIT 1), false) THEN 'MESSAGE_STATE_INVALID'
              ELSE 'MESSAGE_NOT_FOUND' END
    FROM given g LEFT JOIN gone d ON d.id = g.id
   ORDER BY g.n;
END
$function$;
COMMENT ON FUNCTION "lonny".message_delete_many(bigint[], integer[]) IS
'Removes many messages that the caller has dequeued; returns a row for each, in the order of the input.
Each is as by message_delete; one given twice is deleted once and then MESSAGE_NOT_FOUND. Errors: 22004, 22023 for arrays of lengths that do not fit; then nothing is deleted.';

CREATE OR REPLACE FUNCTION "lonny".message_defer(id bigint, num_attempts integer, delay_ms bigint DEFAULT 0, state bytea DEFAULT NULL)
RETURNS "lonny".defer_result
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $function$
-- Locks the message's own row and nothing else. It waits only for a transaction that holds this very message.
DECLARE
  v_at      timestamptz;
  v_message record;
BEGIN
  IF message_defer.id IS NULL THEN
    PERFORM "lonny"._raise_invalid('id', NULL, 'Give the id of the message.');
  END IF;
  IF message_defer.num_attempts IS NULL THEN
    PERFORM "lonny"._raise_invalid('num_attempts', NULL, 'Give num_attempts as message_dequeue returned it.');
  END IF;
  IF message_defer.delay_ms IS NULL OR message_defer.delay_ms NOT BETWEEN -3155760000000 AND 3155760000000 THEN
    PERFORM "lonny"._raise_invalid('delay_ms', message_defer.delay_ms::text, 'Give milliseconds from -3155760000000 to 3155760000000 (100 years either way).');
  END IF;
  IF octet_length(message_defer.state) > 256000000 THEN
    PERFORM "lonny"._raise_invalid('state', format('%s bytes', octet_length(message_defer.state)), 'Give at most 256000000 bytes.');
  END IF;

  -- As in message_create.
  v_at := CASE WHEN pg_current_xact_id() IS NOT NULL THEN "lonny"._clock() + message_defer.delay_ms * interval '1 ms' END;
  UPDATE "lonny".message m
     SET status = CASE WHEN message_defer.delay_ms > 0
                         OR m.lane <> 0 AND COALESCE((SELECT true FROM "lonny"._policy_in_force p WHERE p.channel = m.channel LIMIT 1), false)
                       THEN 'WAITING'::"lonny".message_status ELSE 'READY' END,
         policy_id = NULL, dequeue_at = v_at, unlock_at = NULL,
         generation = DEFAULT, timer_at = CASE WHEN message_defer.delay_ms > 0 THEN v_at END,
         state = COALESCE(message_defer.state, m.state)
   WHERE m.id = message_defer.id AND m.num_attempts = message_defer.num_attempts AND m.unlock_at IS NOT NULL
  RETURNING m.lane, m.channel, m.created_at INTO v_message;
  IF NOT FOUND THEN
    RETURN CASE WHEN EXISTS (SELECT FROM "lonny".message m WHERE m.id = message_defer.id)
                THEN 'MESSAGE_STATE_INVALID'::"lonny".defer_result ELSE 'MESSAGE_NOT_FOUND' END;
  END IF;
  -- Another may take its place, or it may itself, if it waits and is due at once.
  IF v_message.lane <> 0 THEN
    PERFORM "lonny"._place_freed(v_message.lane, v_message.channel);
  END IF;
  IF "lonny"._wake_channel() IS NOT NULL THEN
    PERFORM "lonny"._sleepers_wake();
  END IF;
  IF "lonny"._event_channel() IS NOT NULL THEN
    PERFORM "lonny"._event_notify('MESSAGE_DEFERRED', message_defer.id, "lonny"._channel_name(v_message.channel, message_defer.id, v_message.created_at), message_defer.delay_ms);
  END IF;
  RETURN 'MESSAGE_DEFERRED'::"lonny".defer_result;
END
$function$;
COMMENT ON FUNCTION "lonny".message_defer(bigint, integer, bigint, bytea) IS
'Gives a message that the caller has dequeued back, to be delivered again after delay_ms milliseconds.
state is kept with the message for the next delivery; NULL keeps the state that it has, an empty one is a state like any other, and 256000000 bytes are the most. A negative delay puts it ahead of others in its channel. num_attempts as in message_delete. Errors: 22004, 22023.';

CREATE OR REPLACE FUNCTION "lonny".message_heartbeat(id bigint, num_attempts integer, lock_ms bigint DEFAULT NULL)
RETURNS "lonny".heartbeat_result
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $function$
-- Takes the message's own row with SKIP LOCKED. If it waited, a worker that deletes in an open transaction and then joins the thread
-- that sends its heartbeats would hang for ever.
BEGIN
  IF message_heartbeat.id IS NULL THEN
    PERFORM "lonny"._raise_invalid('id', NULL, 'Give the id of the message.');
  END IF;
  IF message_heartbeat.num_attempts IS NULL THEN
    PERFORM "lonny"._raise_invalid('num_attempts', NULL, 'Give num_attempts as message_dequeue returned it.');
  END IF;
  IF message_heartbeat.lock_ms NOT BETWEEN 0 AND 3155760000000 THEN
    PERFORM "lonny"._raise_invalid('lock_ms', message_heartbeat.lock_ms::text, 'Give milliseconds from 0 to 3155760000000 (100 years), or NULL for the message''s own.');
  END IF;

  UPDATE "lonny".message m
     SET lock_ms = COALESCE(message_heartbeat.lock_ms, m.lock_ms),
         (unlock_at, timer_at) = (
           SELECT u.at, u.at
             FROM (SELECT GREATEST(m.unlock_at, "lonny"._clock() + COALESCE(message_heartbeat.lock_ms, m.lock_ms) * interval '1 ms') AS at) u)
   WHERE m.id = ANY (ARRAY (
           SELECT x.id FROM "lonny".message x
            WHERE x.id = message_heartbeat.id AND x.num_attempts = message_heartbeat.num_attempts AND x.status = 'LOCKED'
              FOR NO KEY UPDATE SKIP LOCKED));
  IF FOUND THEN
    RETURN 'MESSAGE_HEARTBEATED'::"lonny".heartbeat_result;
  END IF;
  RETURN COALESCE(
    (SELECT CASE WHEN m.status = 'LOCKED' AND m.num_attempts = message_heartbeat.num_attempts
                 THEN 'MESSAGE_BUSY'::"lonny".heartbeat_result ELSE 'MESSAGE_STATE_INVALID' END
       FROM "lonny".message m WHERE m.id = message_heartbeat.id),
    'MESSAGE_NOT_FOUND');
END
$function$;
COMMENT ON FUNCTION "lonny".message_heartbeat(bigint, integer, bigint) IS
'Extends the lock of a message that the caller has dequeued to lock_ms milliseconds from now; never shortens it.
lock_ms replaces the message''s own lock time from now on; NULL keeps it. Never waits: MESSAGE_BUSY if another transaction is at this very message right now. After the lock has expired it works only until a dequeue has noticed. num_attempts as in message_delete. Errors: 22004, 22023.';

CREATE OR REPLACE FUNCTION "lonny".message_cancel(id bigint)
RETURNS "lonny".cancel_result
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $function$
-- Locks the message's own row and nothing else. It waits only for a transaction that holds this very message.
DECLARE
  v_message record;
BEGIN
  IF message_cancel.id IS NULL THEN
    PERFORM "lonny"._raise_invalid('id', NULL, 'Give the id of the message.');
  END IF;

  DELETE FROM "lonny".message m
   WHERE m.id = message_cancel.id AND (m.status <> 'LOCKED' OR m.unlock_at <= "lonny"._clock())
  RETURNING m.lane, m.channel, m.created_at, m.status INTO v_message;
  IF NOT FOUND THEN
    RETURN CASE WHEN EXISTS (SELECT FROM "lonny".message m WHERE m.id = message_cancel.id)
                THEN 'MESSAGE_STATE_INVALID'::"lonny".cancel_result ELSE 'MESSAGE_NOT_FOUND' END;
  END IF;
  IF v_message.lane <> 0 AND v_message.status <> 'WAITING' THEN
    PERFORM "lonny"._place_freed(v_message.lane, v_message.channel);
  END IF;
  IF "lonny"._event_channel() IS NOT NULL THEN
    PERFORM "lonny"._event_notify('MESSAGE_DELETED', message_cancel.id, "lonny"._channel_name(v_message.channel, message_cancel.id, v_message.created_at), NULL);
  END IF;
  RETURN 'MESSAGE_CANCELLED'::"lonny".cancel_result;
END
$function$;
COMMENT ON FUNCTION "lonny".message_cancel(bigint) IS
'Removes a message that no worker holds; MESSAGE_STATE_INVALID if it is locked.
A lock that is over does not count, even if no dequeue has noticed. Its event is MESSAGE_DELETED. Errors: 22004.';


-- Looking at them
CREATE OR REPLACE FUNCTION "lonny".message_status(ids bigint[])
RETURNS SETOF "lonny".message_state
LANGUAGE plpgsql STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $function$
DECLARE
  v_missing bigint;
BEGIN
  IF message_status.ids IS NULL THEN
    PERFORM "lonny"._raise_invalid('ids', NULL, 'Give an array of ids.');
  END IF;
  SELECT min(u.n) INTO v_missing FROM unnest(message_status.ids) WITH ORDINALITY AS u (id, n) WHERE u.id IS NULL;
  IF v_missing IS NOT NULL THEN
    PERFORM "lonny"._raise_invalid(format('ids[%s]', v_missing), NULL, 'Give the id of a message in each place.');
  END IF;
  RETURN QUERY
  SELECT f.*
    FROM unnest(message_status.ids) WITH ORDINALITY AS u (id, n),
         LATERAL (SELECT m.id, m.status, "lonny"._channel_name(m.channel, m.id, m.created_at), m.num_attempts, m.created_at, m.dequeue_at, m.locked_at, m.unlock_at
                    FROM "lonny".message m WHERE m.id = u.id OFFSET 0) f
   ORDER BY u.n;
END
$function$;
COMMENT ON FUNCTION "lonny".message_status(bigint[]) IS
'Where messages are in their lives: a row for each that exists, in the order of the input; what is missing is gone.
Name the argument (ids => ''{1,2}'') or give an array (ARRAY[1,2]): message_status(''{1,2}'') is a cast to the type of the same name. Errors: 22004.';


-- Limits
CREATE OR REPLACE FUNCTION "lonny"._policy_add(p_channel text, p_max_concurrency integer, p_release_interval_ms bigint)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
BEGIN
  INSERT INTO "lonny".channel_policy (channel, max_concurrency, release_interval_ms, cleared)
  VALUES (p_channel, p_max_concurrency, p_release_interval_ms,
          p_max_concurrency IS NULL AND COALESCE(p_release_interval_ms, 0) = 0);
  INSERT INTO "lonny".wake (lane, channel) VALUES ("lonny"._lane(p_channel), p_channel);
  IF "lonny"._wake_channel() IS NOT NULL THEN
    PERFORM "lonny"._sleepers_wake();
  END IF;
  IF "lonny"._event_channel() IS NOT NULL THEN
    PERFORM "lonny"._event_notify('CHANNEL_POLICY_CHANGED', NULL, p_channel, NULL);
  END IF;
END
$function$;
COMMENT ON FUNCTION "lonny"._policy_add(text, integer, bigint) IS
'Adds a version of a channel''s policy, one without limits if there are none, and wakes the channel.';

CREATE OR REPLACE FUNCTION "lonny".channel_policy_set(channel text, max_concurrency integer DEFAULT NULL, release_interval_ms bigint DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
-- Only inserts: a version and a wake. It waits for nobody, and nobody for it.
BEGIN
  IF channel_policy_set.channel IS NULL OR octet_length(channel_policy_set.channel) NOT BETWEEN 1 AND 512 THEN
    PERFORM "lonny"._raise_invalid('channel', channel_policy_set.channel, 'Give a name of 1 to 512 bytes.');
  END IF;
  IF channel_policy_set.max_concurrency < 0 THEN
    PERFORM "lonny"._raise_invalid('max_concurrency', channel_policy_set.max_concurrency::text, 'Give 0 to pause the channel, a positive number, or NULL for no limit.');
  END IF;
  IF channel_policy_set.release_interval_ms NOT BETWEEN 0 AND 3155760000000 THEN
    PERFORM "lonny"._raise_invalid('release_interval_ms', channel_policy_set.release_interval_ms::text, 'Give milliseconds from 0 to 3155760000000 (100 years), or NULL for no interval.');
  END IF;

  PERFORM "lonny"._policy_add(channel_policy_set.channel, channel_policy_set.max_concurrency, channel_policy_set.release_interval_ms);
END
$function$;
COMMENT ON FUNCTION "lonny".channel_policy_set(text, integer, bigint) IS
'Limits a channel: at most max_concurrency of its messages are out at a time, and two dequeues are release_interval_ms milliseconds apart.
max_concurrency NULL: no limit, 0: paused; release_interval_ms NULL or 0: no interval. Both are replaced. It binds every dequeue that begins after it is committed, for messages already there too. Errors: 22004, 22023.';

CREATE OR REPLACE FUNCTION "lonny".channel_policy_clear(channel text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  IF channel_policy_clear.channel IS NULL OR octet_length(channel_policy_clear.channel) NOT BETWEEN 1 AND 512 THEN
    PERFORM "lonny"._raise_invalid('channel', channel_policy_clear.channel, 'Give a name of 1 to 512 bytes.');
  END IF;

  PERFORM "lonny"._policy_add(channel_policy_clear.channel, NULL, NULL);
END
$function$;
COMMENT ON FUNCTION "lonny".channel_policy_clear(text) IS
'Removes all limits of a channel.
It binds every dequeue that begins after it is committed. Errors: 22004, 22023.';


-- Why is it not delivered?
CREATE OR REPLACE FUNCTION "lonny"._num_due(p_lane bigint, p_channel text, p_now timestamptz, p_before_at timestamptz, p_before_id bigint, p_most integer)
RETURNS integer
LANGUAGE plpgsql VOLATILE
AS $function$
BEGIN
  -- What is due is READY, or WAITING, or was, and its delay or lock is over. Without a channel there is no index of what waits: then of
  -- all that is over a thousand are looked at.
  RETURN LEAST(p_most, (
    SELECT count(*)
      FROM ((SELECT FROM "lonny".message m
              WHERE m.status = 'READY' AND m.lane = p_lane AND (p_lane = 0 OR m.channel = p_channel)
                AND (m.dequeue_at, m.id) < (p_before_at, p_before_id) LIMIT p_most)
            UNION ALL
            (SELECT FROM "lonny".message m
              WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel AND m.dequeue_at <= p_now
                AND (m.dequeue_at, m.id) < (p_before_at, p_before_id) LIMIT p_most)
            UNION ALL
            (SELECT FROM "lonny".message m
              WHERE m.status = 'LOCKED' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel AND m.unlock_at <= p_now
                AND (m.dequeue_at, m.id) < (p_before_at, p_before_id) LIMIT p_most)
            UNION ALL
            (SELECT FROM (SELECT x.lane, x.dequeue_at, x.id FROM "lonny".message x WHERE p_lane = 0 AND x.timer_at <= p_now ORDER BY x.timer_at LIMIT 1000) m
              WHERE m.lane = 0 AND (m.dequeue_at, m.id) < (p_before_at, p_before_id))) d));
END
$function$;
COMMENT ON FUNCTION "lonny"._num_due(bigint, text, timestamptz, timestamptz, bigint, integer) IS
'How many messages of a channel are due at p_now and not locked, and sort before (p_before_at, p_before_id); p_most if it is more.';

CREATE OR REPLACE FUNCTION "lonny"._channel_outlook(
  p_lane bigint, p_channel text, p_now timestamptz,
  OUT num_allowed integer, OUT num_locked integer, OUT locked_at timestamptz, OUT unlock_at timestamptz, OUT release_at timestamptz,
  OUT max_concurrency integer, OUT release_interval_ms bigint)
LANGUAGE plpgsql VOLATILE
AS $function$
-- The same survey that decides in a dequeue, so that what is told is what will be done. It only reads.
DECLARE
  c_most   CONSTANT integer := 100;
  -- Of locks that are over more are needed than are told of: each makes room.
  c_over   CONSTANT integer := 1000;
  v_policy "lonny"._policy_in_force;
  v_survey record;
BEGIN
  num_allowed := 2147483647;
  IF p_lane = 0 THEN
    RETURN;
  END IF;
  SELECT count(*), min(l.locked_at), min(l.unlock_at) INTO num_locked, locked_at, unlock_at
    FROM (SELECT m.locked_at, m.unlock_at FROM "lonny".message m
           WHERE m.status = 'LOCKED' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel AND m.unlock_at > p_now LIMIT c_most) l;
  SELECT p.* INTO v_policy FROM "lonny"._policy_in_force p WHERE p.channel = p_channel;
  IF v_policy.id IS NULL THEN
    RETURN;
  END IF;
  max_concurrency := v_policy.max_concurrency;
  release_interval_ms := v_policy.release_interval_ms;
  v_survey := "lonny"._channel_survey(p_lane, v_policy, NULL, p_now, ARRAY (
    SELECT m.id FROM "lonny".message m
     WHERE m.status = 'LOCKED' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel AND m.unlock_at <= p_now LIMIT c_over));
  num_allowed := GREATEST(LEAST(v_survey.room + cardinality(v_survey.ready_ids) + cardinality(v_survey.over_ids), 2147483647), 0);
  IF release_interval_ms > 0 THEN
    release_at := v_survey.release_at;
    num_allowed := CASE WHEN release_at > p_now THEN 0 ELSE LEAST(num_allowed, 1) END;
  END IF;
END
$function$;
COMMENT ON FUNCTION "lonny"._channel_outlook(bigint, text, timestamptz) IS
'How many messages of a channel its policy would let a dequeue have at p_now, if they are due, and what holds back the others.
num_locked, locked_at, unlock_at: how many are locked, 100 if it is more, since when, and until when the first of them; release_at: when the release interval ends.';

CREATE OR REPLACE FUNCTION "lonny"._lanes_ahead(p_lane bigint, p_now timestamptz)
RETURNS integer
LANGUAGE plpgsql VOLATILE
AS $function$
-- The lanes that a dequeue would come to: those with something ready, and those with something due, of which it would look which may be had.
DECLARE
  c_most   CONSTANT integer := 20;
  c_due    CONSTANT integer := 5;
  c_timers CONSTANT integer := 300;
  v_served bigint := COALESCE(pg_sequence_last_value($regclass$"lonny".rotation$regclass$), 0);
  v_count  integer := 0;
  v_turn   record;
  v_lane   bigint;
  v_looks  integer := 0;
BEGIN
  FOR v_turn IN
    SELECT t.lane, t.channel, bool_or(t.is_ready) AS is_ready
      FROM (SELECT f.lane, f.channel,
                   COALESCE((SELECT p.cleared OR p.id IS NOT DISTINCT FROM f.policy_id FROM "lonny".channel_policy p
                              WHERE p.channel = f.channel AND f.lane <> 0 ORDER BY p.id DESC LIMIT 1), true) AS is_ready
              FROM "lonny"._lanes_next(v_served, c_most + 1, NULL) AS n (lane), LATERAL (
                   SELECT m.lane, m.channel, m.policy_id FROM "lonny".message m
                    WHERE m.status = 'READY' AND m.lane = n.lane ORDER BY m.dequeue_at, m.id LIMIT 1) f
            UNION ALL
            (SELECT w.lane, w.channel, false FROM "lonny"._wakes_next(v_served, v_served, c_most) w)
            UNION ALL
            (SELECT m.lane, m.channel, false FROM "lonny".message m WHERE m.timer_at <= p_now ORDER BY m.timer_at LIMIT c_timers)
            UNION ALL
            (SELECT w.lane, w.channel, false FROM "lonny".wake w WHERE w.at <= p_now ORDER BY w.at LIMIT c_timers)) t
     WHERE (t.lane <= v_served, t.lane) < (p_lane <= v_served, p_lane)
     GROUP BY t.lane, t.channel
     ORDER BY t.lane, 3 DESC
  LOOP
    CONTINUE WHEN v_turn.lane = v_lane;
    IF NOT v_turn.is_ready THEN
      v_looks := v_looks + 1;
      CONTINUE WHEN v_looks > c_due
                 OR (SELECT o.num_allowed FROM "lonny"._channel_outlook(v_turn.lane, v_turn.channel, p_now) o) = 0
                 OR "lonny"._num_due(v_turn.lane, v_turn.channel, p_now, 'infinity', 0, 1) = 0;
    END IF;
    v_count := v_count + 1;
    v_lane := v_turn.lane;
    EXIT WHEN v_count = c_most;
  END LOOP;
  RETURN v_count;
END
$function$;
COMMENT ON FUNCTION "lonny"._lanes_ahead(bigint, timestamptz) IS
'How many lanes have a message that can be had at p_now, and their turn before p_lane; 20 if it is more, and of those in which nothing is ready yet five are looked at.';

CREATE OR REPLACE FUNCTION "lonny".message_explain(id bigint)
RETURNS "lonny".message_explanation
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $function$
-- It only reads. What other transactions hold at this moment it does not know.
DECLARE
  c_most    CONSTANT integer := 100;
  v_now     timestamptz := "lonny"._clock();
  v_answer  "lonny".message_explanation;
  v_message record;
  v_outlook record;
  v_is_first boolean;
  v_at      timestamptz := v_now;
BEGIN
  IF message_explain.id IS NULL THEN
    PERFORM "lonny"._raise_invalid('id', NULL, 'Give the id of the message.');
  END IF;

  v_answer.id := message_explain.id;
  SELECT m.lane, m.channel, m.status, m.num_attempts, m.dequeue_at, m.locked_at, m.unlock_at INTO v_message
    FROM "lonny".message m WHERE m.id = message_explain.id;
  IF NOT FOUND THEN
    v_answer.reason := 'GONE';
    v_answer.explanation := 'It is gone: deleted, cancelled, rolled back, or it never was.';
    RETURN v_answer;
  END IF;

  IF v_message.status = 'LOCKED' AND v_message.unlock_at > v_now THEN
    v_answer.reason := 'LOCKED';
    v_at := v_message.unlock_at;
    v_answer.explanation := format('A worker has had it since %s, and has it until %s: attempt %s.', v_message.locked_at, v_message.unlock_at, v_message.num_attempts);
  ELSIF v_message.dequeue_at > v_now THEN
    v_answer.reason := 'DELAYED';
    v_at := v_message.dequeue_at;
    v_answer.explanation := format('It is due at %s.', v_message.dequeue_at);
  ELSE
    v_outlook := "lonny"._channel_outlook(v_message.lane, v_message.channel, v_now);
    -- Where the limit is high it takes as many to know whether there is room.
    v_answer.num_ahead := "lonny"._num_due(v_message.lane, v_message.channel, v_now, v_message.dequeue_at, message_explain.id,
                                                CASE WHEN v_outlook.max_concurrency > c_most THEN v_outlook.max_concurrency ELSE c_most END);
    v_is_first := v_answer.num_ahead < v_outlook.num_allowed;
    v_answer.num_ahead := LEAST(v_answer.num_ahead, c_most);
    IF v_is_first THEN
      v_answer.reason := 'READY';
      v_answer.num_lanes_ahead := "lonny"._lanes_ahead(v_message.lane, v_now);
      v_answer.explanation := format('It can be dequeued. Before it come %s of its channel, and the turns of %s other channels.', v_answer.num_ahead, v_answer.num_lanes_ahead);
    ELSIF v_outlook.max_concurrency = 0 THEN
      v_answer.reason := 'PAUSED';
      v_at := NULL;
      v_answer.explanation := 'Its channel is paused: max_concurrency is 0.';
    ELSIF v_outlook.num_locked >= v_outlook.max_concurrency THEN
      v_answer.reason := 'AT_LIMIT';
      v_at := v_outlook.unlock_at;
      v_answer.explanation := format('Its channel is at its limit: %s of %s are locked, the first since %s. Before it come %s of its channel.',
                                     v_outlook.num_locked, v_outlook.max_concurrency, v_outlook.locked_at, v_answer.num_ahead);
    ELSIF v_outlook.release_at > v_now THEN
      v_answer.reason := 'INTERVAL';
      v_at := v_outlook.release_at;
      v_answer.explanation := format('The next message of its channel can be dequeued at %s, for it gives one in %s ms. Before it come %s of its channel.',
                                     v_outlook.release_at, v_outlook.release_interval_ms, v_answer.num_ahead);
    ELSE
      v_answer.reason := 'BEHIND';
      v_at := NULL;
      v_answer.explanation := format('Its channel may give %s, but %s come before it.', v_outlook.num_allowed, v_answer.num_ahead);
    END IF;
  END IF;
  v_answer.available_in_ms := ceil(extract(epoch FROM v_at - v_now) * 1000);
  RETURN v_answer;
END
$function$;
COMMENT ON FUNCTION "lonny".message_explain(bigint) IS
'Why is this message not delivered? One row, in words and columns.
reason is GONE, LOCKED (by a worker), DELAYED, PAUSED, INTERVAL (its channel''s next release is still to come), AT_LIMIT (as many of its channel are locked as may be), BEHIND (others of its channel come first, and there is no room for more) or READY: a dequeue can have it, after num_ahead of its channel and in the turn after num_lanes_ahead others. It uses the survey that decides in a dequeue, but does not know what other transactions hold right now. Errors: 22004.';

CREATE OR REPLACE FUNCTION "lonny".channel_explain(channel text)
RETURNS "lonny".channel_explanation
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $function$
-- It only reads. What other transactions hold at this moment it does not know.
DECLARE
  c_most    CONSTANT integer := 100;
  v_now     timestamptz := "lonny"._clock();
  v_lane    bigint;
  v_answer  "lonny".channel_explanation;
  v_outlook record;
  v_num_due integer;
  v_next_at timestamptz;
  v_at      timestamptz;
BEGIN
  IF channel_explain.channel IS NULL OR octet_length(channel_explain.channel) NOT BETWEEN 1 AND 512 THEN
    PERFORM "lonny"._raise_invalid('channel', channel_explain.channel, 'Give a name of 1 to 512 bytes.');
  END IF;

  v_lane := "lonny"._lane(channel_explain.channel);
  v_outlook := "lonny"._channel_outlook(v_lane, channel_explain.channel, v_now);
  v_num_due := "lonny"._num_due(v_lane, channel_explain.channel, v_now, 'infinity', 0, c_most);
  v_answer.channel := channel_explain.channel;
  v_answer.num_available := LEAST(v_num_due, v_outlook.num_allowed);
  v_answer.num_locked := v_outlook.num_locked;
  v_answer.locked_at := v_outlook.locked_at;
  v_answer.max_concurrency := v_outlook.max_concurrency;
  v_answer.release_interval_ms := v_outlook.release_interval_ms;

  IF v_answer.num_available > 0 THEN
    v_answer.reason := 'READY';
    v_at := v_now;
    v_answer.num_lanes_ahead := "lonny"._lanes_ahead(v_lane, v_now);
    v_answer.explanation := format('%s can be dequeued, after the turns of %s other channels.', v_answer.num_available, v_answer.num_lanes_ahead);
  ELSIF v_outlook.max_concurrency = 0 THEN
    v_answer.reason := 'PAUSED';
    v_answer.explanation := format('It is paused: max_concurrency is 0. %s are due.', v_num_due);
  ELSIF v_num_due > 0 AND v_outlook.num_locked >= v_outlook.max_concurrency THEN
    v_answer.reason := 'AT_LIMIT';
    v_at := v_outlook.unlock_at;
    v_answer.explanation := format('It is at its limit: %s of %s are locked, the first since %s. %s are due.',
                                   v_outlook.num_locked, v_outlook.max_concurrency, v_outlook.locked_at, v_num_due);
  ELSIF v_num_due > 0 THEN
    v_answer.reason := 'INTERVAL';
    v_at := v_outlook.release_at;
    v_answer.explanation := format('The next can be dequeued at %s, for it gives one in %s ms. %s are due.',
                                   v_outlook.release_at, v_outlook.release_interval_ms, v_num_due);
  ELSE
    SELECT min(m.dequeue_at) INTO v_next_at FROM "lonny".message m
     WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = v_lane AND m.channel = channel_explain.channel;
    v_at := LEAST(v_next_at, v_outlook.unlock_at);
    IF v_next_at IS NOT NULL THEN
      v_answer.reason := 'DELAYED';
      v_answer.explanation := format('Nothing is due. The next is at %s; %s are locked.', v_next_at, v_outlook.num_locked);
    ELSIF v_outlook.num_locked > 0 THEN
      v_answer.reason := 'LOCKED';
      v_answer.explanation := format('All that it has, %s, is locked, the first since %s.', v_outlook.num_locked, v_outlook.locked_at);
    ELSE
      v_answer.reason := 'EMPTY';
      v_answer.explanation := 'It has no messages.';
    END IF;
  END IF;
  v_answer.available_in_ms := ceil(extract(epoch FROM v_at - v_now) * 1000);
  RETURN v_answer;
END
$function$;
COMMENT ON FUNCTION "lonny".channel_explain(text) IS
'Why is nothing delivered from this channel? One row, in words and columns.
reason is EMPTY, LOCKED (all that it has), DELAYED (nothing is due yet), PAUSED, INTERVAL (the next release is still to come), AT_LIMIT (as many are locked as may be) or READY: num_available can be had, in the turn after num_lanes_ahead other channels. Limits and locks come with it. See message_explain. Errors: 22004, 22023.';


-- Is all well?
CREATE OR REPLACE FUNCTION "lonny"._schema_missing()
RETURNS TABLE (name text, statement text)
LANGUAGE plpgsql STABLE
AS $function$
BEGIN
  RETURN QUERY
  SELECT e.name,
         CASE WHEN e.is_constraint THEN format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s', n.nspname, e.relation, e.name, e.definition)
              ELSE format('DROP INDEX CONCURRENTLY IF EXISTS %1$I.%2$I; CREATE INDEX CONCURRENTLY %2$I ON %1$I.%3$I %4$s', n.nspname, e.name, e.relation, e.definition) END
    FROM (SELECT c.relnamespace FROM pg_class c WHERE c.oid = $regclass$"lonny".message$regclass$::regclass) q
    JOIN pg_namespace n ON n.oid = q.relnamespace, (VALUES
      ('message', 'message_ready_idx', '(lane, dequeue_at, id) WHERE status = ''READY''', false),
      ('message', 'message_generation_idx', '(generation, lane, dequeue_at, id) WHERE status = ''READY'' AND generation IS NOT NULL', false),
      ('message', 'message_channel_idx', '(lane, status, dequeue_at, id) WHERE status <> ''READY'' AND lane <> 0', false),
      ('message', 'message_timer_idx', '(timer_at, id) WHERE timer_at IS NOT NULL', false),
      ('wake', 'wake_due_idx', '(lane) WHERE at IS NULL', false),
      ('wake', 'wake_generation_idx', '(generation, lane) WHERE at IS NULL AND generation IS NOT NULL', false),
      ('wake', 'wake_timer_idx', '(at, lane) WHERE at IS NOT NULL', false),
      ('wake', 'wake_lane_idx', '(lane) WHERE at IS NOT NULL OR released_at IS NOT NULL', false),
      ('wake_up', 'wake_up_sleeper_idx', '(sleeper)', false),
      ('migration', 'migration_version_pkey', 'PRIMARY KEY (version)', true),
      ('template', 'template_path_pkey', 'PRIMARY KEY (path)', true),
      ('object', 'object_kind_name_part_pkey', 'PRIMARY KEY (kind, name, part)', true),
      ('producer', 'producer_role_pkey', 'PRIMARY KEY (role)', true),
      ('message', 'message_id_pkey', 'PRIMARY KEY (id)', true),
      ('channel_policy', 'channel_policy_channel_id_pkey', 'PRIMARY KEY (channel, id)', true)
    ) AS e (relation, name, definition, is_constraint)
   WHERE NOT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                      WHERE c.relnamespace = n.oid AND c.relname = e.name AND i.indisvalid);
END
$function$;
COMMENT ON FUNCTION "lonny"._schema_missing() IS
'The indexes and constraints that are missing or not valid, each with the statement that makes it.';

CREATE OR REPLACE FUNCTION "lonny".check(max_open_ms bigint DEFAULT 60000)
RETURNS SETOF "lonny".fault
LANGUAGE plpgsql STABLE ROWS 10
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $function$
-- It only reads, and each table a few times at most. STABLE: all statements see one snapshot, that of the statement that called. Whoever
-- changes something commits what announces it in the same transaction, so in a snapshot they are together; what is missing is missing.
DECLARE
  c_rows CONSTANT integer := 1000;
BEGIN
  IF max_open_ms IS NULL OR max_open_ms NOT BETWEEN 0 AND 3155760000000 THEN
    PERFORM "lonny"._raise_invalid('max_open_ms', max_open_ms::text, 'Give milliseconds from 0 to 3155760000000 (100 years).');
  END IF;

  -- Each row by itself. What has no timer was due once, and waits for its policy; without a channel it would wait for ever.
  RETURN QUERY
  SELECT 'MESSAGE_INCONSISTENT', 2, "lonny"._channel_name(f.channel, f.id, f.created_at), f.id, f.found,
         'repair() makes it wait until it is due, or locked until its lock ends.'
    FROM (SELECT m.id, m.channel, m.created_at,
                 CASE WHEN m.num_attempts < 0 OR (m.num_attempts = 0) <> (m.locked_at IS NULL) OR m.num_attempts = 0 AND m.unlock_at IS NOT NULL
                      THEN format('it was dequeued %s times, last at %s, its lock ends at %s', m.num_attempts, COALESCE(m.locked_at::text, 'no time'), COALESCE(m.unlock_at::text, 'no time'))
                      WHEN m.status = 'LOCKED' AND (m.unlock_at IS NULL OR m.num_attempts = 0)
                      THEN 'it is LOCKED, but no dequeue has locked it'
                      WHEN m.status = 'LOCKED' AND m.timer_at IS DISTINCT FROM m.unlock_at
                      THEN format('its lock ends at %s, but a dequeue looks at it at %s', m.unlock_at, COALESCE(m.timer_at::text, 'no time'))
                      WHEN m.status = 'READY' AND m.timer_at IS NOT NULL
                      THEN 'it is READY, but has a timer'
                      WHEN m.status = 'WAITING' AND m.timer_at <> m.dequeue_at
                      THEN format('it is due at %s, but a dequeue looks at it at %s', m.dequeue_at, m.timer_at)
                      WHEN m.status = 'WAITING' AND m.timer_at IS NULL AND m.lane = 0
                      THEN 'it is WAITING for a policy, but has no channel'
                      WHEN m.status = 'WAITING' AND m.policy_id IS NOT NULL
                      THEN 'it is WAITING, but released by a policy'
                      WHEN m.lock_ms < 0
                      THEN format('its lock lasts %s ms', m.lock_ms)
                 END AS found
            FROM "lonny".message m) f
   WHERE f.found IS NOT NULL
   LIMIT c_rows;

  RETURN QUERY
  SELECT 'LANE_WRONG', 4, f.channel, f.id, format('%s is in lane %s, its channel is not', f.what, f.lane), 'repair() moves it.'
    FROM (SELECT m.channel, m.id, m.lane, 'a message' AS what FROM "lonny".message m
           WHERE m.lane <> CASE WHEN m.channel IS NULL THEN 0 ELSE "lonny"._lane(m.channel) END
          UNION ALL
          SELECT DISTINCT w.channel, NULL::bigint, w.lane, 'a wake' FROM "lonny".wake w WHERE w.lane <> "lonny"._lane(w.channel)) f
   LIMIT c_rows;

  RETURN QUERY
  SELECT 'POLICY_INCONSISTENT', 3, p.channel, NULL::bigint,
         format('max_concurrency %s, release_interval_ms %s, cleared %s', COALESCE(p.max_concurrency::text, 'NULL'), COALESCE(p.release_interval_ms::text, 'NULL'), p.cleared),
         'repair() makes it one without limits if it has none, and one that is in force if it has.'
    FROM "lonny".channel_policy p
   WHERE p.cleared <> (p.max_concurrency IS NULL AND COALESCE(p.release_interval_ms, 0) = 0) OR p.max_concurrency < 0 OR p.release_interval_ms < 0
   LIMIT c_rows;

  -- Each channel by itself: what waits without a timer needs a wake, or a reason to wait whose end brings one. A wake may be a timer.
  RETURN QUERY
  WITH channel AS MATERIALIZED (
    SELECT m.channel, p.id AS policy_id, p.max_concurrency, p.release_interval_ms,
           min(m.id) FILTER (WHERE m.status = 'WAITING' AND m.timer_at IS NULL) AS waiting_id,
           count(*) FILTER (WHERE m.status = 'WAITING' AND m.timer_at IS NULL) AS num_waiting,
           min(m.id) FILTER (WHERE m.status = 'READY' AND m.policy_id = p.id) AS ready_id,
           count(*) FILTER (WHERE m.status = 'READY' AND m.policy_id = p.id) AS num_ready,
           count(*) FILTER (WHERE m.status = 'LOCKED') AS num_locked
      FROM "lonny".message m LEFT JOIN "lonny"._policy_in_force p ON p.channel = m.channel
     WHERE m.lane <> 0
     GROUP BY m.channel, p.id, p.max_concurrency, p.release_interval_ms
  )
  (SELECT 'MESSAGE_FORGOTTEN', 2, c.channel, c.waiting_id,
          format('%s due messages wait, but nothing will release them: no wake, %s', c.num_waiting,
                 CASE WHEN c.policy_id IS NULL THEN 'no policy' ELSE format('%s out of %s', c.num_ready + c.num_locked, COALESCE(c.max_concurrency::text, 'any number')) END),
          'repair() wakes the channel.'
     FROM channel c
    WHERE c.num_waiting > 0
      AND (c.policy_id IS NULL
           OR (c.max_concurrency IS NULL OR c.num_ready + c.num_locked < c.max_concurrency)
              AND (COALESCE(c.release_interval_ms, 0) = 0 OR c.num_ready = 0))
      AND NOT EXISTS (SELECT FROM "lonny".wake w WHERE w.channel = c.channel)
    LIMIT c_rows)
  UNION ALL
  -- Of what is locked some may have been taken under another policy.
  (SELECT 'CHANNEL_OVERFULL', 3, c.channel, c.ready_id,
          format('%s messages are locked and %s released, of %s%s', c.num_locked, c.num_ready, COALESCE(c.max_concurrency::text, 'any number'),
                 CASE WHEN c.release_interval_ms > 0 THEN format(', one in %s ms', c.release_interval_ms) ELSE '' END),
          'repair() makes those wait that are too many.'
     FROM channel c
    WHERE c.num_ready > 0
      AND (c.num_ready + c.num_locked > c.max_concurrency OR c.num_ready > 1 AND c.release_interval_ms > 0)
    LIMIT c_rows);

  -- A dequeue's transaction is to be committed at once. Only a dequeue, or a heartbeat, locks rows before it changes them. Of sessions that the queue's owner may not see nothing is known.
  RETURN QUERY
  SELECT DISTINCT ON (a.pid)
         'TRANSACTION_OPEN', 1, NULL::text, NULL::bigint,
         format('session %s of %s (%s) has dequeued in a transaction that has been open since %s', a.pid, a.usename, COALESCE(NULLIF(a.application_name, ''), 'no name'), a.xact_start),
         format('Commit it. As a last resort: SELECT pg_terminate_backend(%s)', a.pid)
    FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
   WHERE l.locktype = 'relation' AND l.relation = $regclass$"lonny".message$regclass$::regclass AND l.mode = 'RowShareLock' AND l.granted
     AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
     AND a.pid <> pg_backend_pid()
     AND a.xact_start < statement_timestamp() - max_open_ms * interval '1 ms'
   ORDER BY a.pid
   LIMIT c_rows;

  RETURN QUERY
  SELECT 'SCHEMA_INCOMPLETE', 8, NULL::text, NULL::bigint, format('%s is missing or not valid', s.name), s.statement
    FROM "lonny"._schema_missing() s;
END
$function$;
COMMENT ON FUNCTION "lonny".check(bigint) IS
'What is wrong with the queue: a row for each fault, none when all is well; at most 1000 of a kind.
It reads each table as a whole, once or twice (about a second for a million messages), and locks nothing that anyone waits for. Of the promises in the design it verifies those that a snapshot can show. max_open_ms: for how many milliseconds a transaction that has dequeued may be open; to find them the owner of the queue has to be a role that may see other sessions (pg_read_all_stats). Errors: 22004, 22023.';

CREATE OR REPLACE FUNCTION "lonny".repair()
RETURNS SETOF "lonny".fault
LANGUAGE plpgsql VOLATILE ROWS 10
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $function$
-- It waits for nobody: what another transaction holds is passed by, and said to be. Of what it makes wait, and of each channel that it wakes, the
-- next dequeue decides, so to repair what was right after all does no harm.
DECLARE
  v_now    timestamptz := "lonny"._clock();
  v_fault  "lonny".fault;
  v_lane   bigint;
  v_count  bigint;
  v_is_had boolean;
BEGIN
  -- It may set timers that are over. Until it is committed no search for them begins later (_generation_retire).
  -- Dequeues have this mutex for a moment, another repair until it ends.
  FOR i IN 1 .. 100 LOOP
    v_is_had := pg_try_advisory_xact_lock($regclass$"lonny".generation$regclass$::regclass::oid::integer, 1);
    EXIT WHEN v_is_had;
    PERFORM pg_sleep(0.01);
  END LOOP;
  IF NOT v_is_had THEN
    RAISE EXCEPTION 'another transaction is repairing the queue'
      USING ERRCODE = 'lock_not_available', HINT = 'Call repair again when it has ended.';
  END IF;
  -- Another value than any other: who has looked before this must notice.
  PERFORM setval($regclass$"lonny".timer_floor$regclass$, - ceil(random() * 1000000000)::bigint);
  FOR v_fault IN SELECT c.* FROM "lonny".check() c LOOP
    v_lane := "lonny"._lane(v_fault.channel);
    CASE v_fault.kind
      WHEN 'MESSAGE_INCONSISTENT' THEN
        UPDATE "lonny".message m
           SET (num_attempts, locked_at, unlock_at, timer_at, policy_id) = (
                 SELECT CASE WHEN l.is_locked OR m.locked_at IS NOT NULL THEN GREATEST(m.num_attempts, 1) ELSE GREATEST(m.num_attempts, 0) END,
                        CASE WHEN l.is_locked OR m.num_attempts > 0 THEN COALESCE(m.locked_at, v_now) ELSE m.locked_at END,
                        CASE WHEN l.is_locked THEN l.unlock_at WHEN m.num_attempts > 0 OR m.locked_at IS NOT NULL THEN m.unlock_at END,
                        CASE WHEN l.is_locked THEN l.unlock_at ELSE m.dequeue_at END,
                        CASE WHEN l.is_locked THEN m.policy_id END
                   FROM (SELECT m.status = 'LOCKED' AS is_locked, COALESCE(m.unlock_at, m.timer_at, v_now) AS unlock_at) l),
               status = CASE m.status WHEN 'LOCKED' THEN m.status ELSE 'WAITING' END,
               lock_ms = GREATEST(m.lock_ms, 0)
         WHERE m.id = ANY (ARRAY (SELECT x.id FROM "lonny".message x WHERE x.id = v_fault.message_id FOR NO KEY UPDATE SKIP LOCKED));
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_fault.remedy := 'It waits until it is due, or is locked until its lock ends.';

      WHEN 'LANE_WRONG' THEN
        UPDATE "lonny".message m SET lane = CASE WHEN m.channel IS NULL THEN 0 ELSE "lonny"._lane(m.channel) END
         WHERE m.id = ANY (ARRAY (SELECT x.id FROM "lonny".message x WHERE x.id = v_fault.message_id FOR NO KEY UPDATE SKIP LOCKED));
        GET DIAGNOSTICS v_count = ROW_COUNT;
        IF v_fault.message_id IS NULL THEN
          DELETE FROM "lonny".wake w
           WHERE w.ctid = ANY (ARRAY (SELECT x.ctid FROM "lonny".wake x
                                       WHERE x.channel = v_fault.channel AND x.lane <> v_lane FOR UPDATE SKIP LOCKED));
          GET DIAGNOSTICS v_count = ROW_COUNT;
        END IF;
        INSERT INTO "lonny".wake (lane, channel) SELECT v_lane, v_fault.channel WHERE v_fault.channel IS NOT NULL;
        v_fault.remedy := 'Moved to the lane of its channel.';

      WHEN 'POLICY_INCONSISTENT' THEN
        UPDATE "lonny".channel_policy p
           SET max_concurrency = CASE WHEN p.max_concurrency < 0 THEN 0 ELSE p.max_concurrency END,
               release_interval_ms = CASE WHEN p.release_interval_ms < 0 THEN 0 ELSE p.release_interval_ms END,
               cleared = p.max_concurrency IS NULL AND COALESCE(p.release_interval_ms, 0) <= 0
         WHERE p.id = ANY (ARRAY (SELECT x.id FROM "lonny".channel_policy x WHERE x.channel = v_fault.channel FOR NO KEY UPDATE SKIP LOCKED))
           AND p.channel = v_fault.channel;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        INSERT INTO "lonny".wake (lane, channel) VALUES (v_lane, v_fault.channel);
        v_fault.remedy := 'Its limits are in force; one below 0 counts as 0.';

      WHEN 'MESSAGE_FORGOTTEN' THEN
        INSERT INTO "lonny".wake (lane, channel) VALUES (v_lane, v_fault.channel);
        v_count := 1;
        v_fault.remedy := 'The channel is woken.';

      WHEN 'CHANNEL_OVERFULL' THEN
        v_count := 0;
        -- As in _channel_advance: what counts a channel's messages holds its mutex.
        IF pg_try_advisory_xact_lock($regclass$"lonny".wake$regclass$::regclass::oid::integer, hashint8(v_lane)) THEN
          UPDATE "lonny".message m
             SET status = 'WAITING', policy_id = NULL
           WHERE m.id = ANY (ARRAY (
                   SELECT h.id
                     FROM (SELECT r.id, row_number() OVER (ORDER BY r.dequeue_at, r.id) > LEAST(
                                    CASE WHEN p.release_interval_ms > 0 THEN 1 END,
                                    p.max_concurrency - (SELECT count(*) FROM "lonny".message x WHERE x.status = 'LOCKED' AND x.channel = p.channel)) AS is_too_many
                             FROM "lonny"._policy_in_force p JOIN "lonny".message r ON r.channel = p.channel AND r.policy_id = p.id
                            WHERE p.channel = v_fault.channel AND r.status = 'READY') u, LATERAL (
                          SELECT x.id FROM "lonny".message x WHERE x.id = u.id AND x.status::text = 'READY' FOR NO KEY UPDATE SKIP LOCKED) h
                    WHERE u.is_too_many));
          GET DIAGNOSTICS v_count = ROW_COUNT;
          INSERT INTO "lonny".wake (lane, channel) VALUES (v_lane, v_fault.channel);
        END IF;
        v_fault.remedy := format('%s messages were put back.', v_count);

      ELSE
        v_fault.remedy := 'Not mended here. ' || v_fault.remedy;
        v_count := 1;
    END CASE;
    IF v_count = 0 THEN
      v_fault.remedy := 'Not mended: another transaction has it in hand, or has mended it. Check again.';
    END IF;
    RETURN NEXT v_fault;
  END LOOP;
  IF "lonny"._wake_channel() IS NOT NULL THEN
    PERFORM "lonny"._sleepers_wake();
  END IF;
END
$function$;
COMMENT ON FUNCTION "lonny".repair() IS
'Mends what check finds and says what it did: the rows of check, with what was done for a remedy.
At most 1000 faults of a kind are mended in a call; TRANSACTION_OPEN and SCHEMA_INCOMPLETE are left to you. Like all functions here it waits for nobody. Errors: 55P03 while another transaction is repairing.';


-- Telling what is installed, and what differs from it
CREATE OR REPLACE FUNCTION "lonny".version_status()
RETURNS "lonny".version_state
LANGUAGE sql STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
SELECT (max(m.version), (SELECT l.package_version FROM "lonny".migration l ORDER BY l.version DESC LIMIT 1),
        max(m.version) FILTER (WHERE m.is_breaking))::"lonny".version_state
  FROM "lonny".migration m
$function$;
COMMENT ON FUNCTION "lonny".version_status() IS
'Which version of the queue is installed, for programs that ask whether they go with it.';

CREATE OR REPLACE FUNCTION "lonny"._objects()
RETURNS TABLE (kind text, name text, part text, checksum text)
LANGUAGE sql STABLE
AS $function$
-- Not in it: owners, rights, and settings of autovacuum, which are the user's. Nor what PostgreSQL prints differently from one version to the
-- next, where it can be helped: the checksums outlive a pg_upgrade.
WITH schema AS (
  SELECT n.oid FROM pg_namespace n WHERE n.nspname = 'lonny'
), relation AS (
  SELECT c.oid, c.relname, c.relpersistence, c.relreplident, c.relrowsecurity, c.reloptions, c.reltype, c.relkind,
         CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'type' END AS kind
    FROM schema s JOIN pg_class c ON c.relnamespace = s.oid AND c.relkind IN ('r', 'v', 'S', 'c')
), definition (kind, name, part, facts) AS (
  SELECT r.kind, r.relname, '',
         ARRAY[r.relpersistence::text, r.relreplident::text, r.relrowsecurity::text,
               (SELECT string_agg(o.option, ',' ORDER BY o.option) FROM unnest(r.reloptions) AS o (option) WHERE o.option NOT LIKE 'autovacuum%'),
               -- Without the aliases before columns, which PostgreSQL 15 prints, and 16 where they are needed.
               CASE WHEN r.relkind = 'v' THEN regexp_replace(pg_get_viewdef(r.oid), E'\\m[a-z]\\.', '', 'g') END,
               obj_description(CASE WHEN r.relkind = 'c' THEN r.reltype ELSE r.oid END, CASE WHEN r.relkind = 'c' THEN 'pg_type' ELSE 'pg_class' END),
               s.seqtypid::regtype::text, s.seqmin::text, s.seqmax::text, s.seqincrement::text, s.seqcycle::text]
    FROM relation r LEFT JOIN pg_sequence s ON s.seqrelid = r.oid
  UNION ALL
  SELECT r.kind, r.relname, 'column ' || a.attname,
         ARRAY[format_type(a.atttypid, a.atttypmod), a.attnotnull::text, a.attidentity::text, a.attgenerated::text, a.attcollation::regcollation::text,
               pg_get_expr(d.adbin, d.adrelid), col_description(r.oid, a.attnum)]
    FROM relation r
    JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
   WHERE r.relkind <> 'S'
  UNION ALL
  SELECT r.kind, r.relname, 'index ' || c.relname,
         ARRAY[pg_get_indexdef(i.indexrelid), i.indisvalid::text, i.indisunique::text, i.indisreplident::text, obj_description(c.oid, 'pg_class')]
    FROM relation r JOIN pg_index i ON i.indrelid = r.oid JOIN pg_class c ON c.oid = i.indexrelid
  UNION ALL
  -- PostgreSQL 18 has NOT NULL among the constraints; it is one of the column's facts.
  SELECT r.kind, r.relname, 'constraint ' || c.conname, ARRAY[pg_get_constraintdef(c.oid), c.convalidated::text]
    FROM relation r JOIN pg_constraint c ON c.conrelid = r.oid AND c.contype <> 'n'
  UNION ALL
  SELECT r.kind, r.relname, 'trigger ' || t.tgname, ARRAY[pg_get_triggerdef(t.oid), t.tgenabled::text]
    FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal
  UNION ALL
  SELECT r.kind, r.relname, 'rule ' || w.rulename, ARRAY[pg_get_ruledef(w.oid), w.ev_enabled::text]
    FROM relation r JOIN pg_rewrite w ON w.ev_class = r.oid AND w.rulename <> '_RETURN'
  UNION ALL
  SELECT r.kind, r.relname, 'policy ' || p.polname, ARRAY[p.polcmd::text, pg_get_expr(p.polqual, r.oid), pg_get_expr(p.polwithcheck, r.oid)]
    FROM relation r JOIN pg_policy p ON p.polrelid = r.oid
  UNION ALL
  SELECT 'type', t.typname, '', ARRAY[(SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
                                      obj_description(t.oid, 'pg_type')]
    FROM schema s JOIN pg_type t ON t.typnamespace = s.oid AND t.typtype = 'e'
  UNION ALL
  SELECT 'function', p.proname, oidvectortypes(p.proargtypes),
         ARRAY[pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), l.lanname, p.prosrc, p.prosecdef::text, p.provolatile::text,
               p.proparallel::text, p.proisstrict::text, p.prorows::text, p.proconfig::text, obj_description(p.oid, 'pg_proc')]
    FROM schema s JOIN pg_proc p ON p.pronamespace = s.oid JOIN pg_language l ON l.oid = p.prolang
   WHERE EXISTS (SELECT FROM "lonny".template t WHERE t.path = 'functions/' || p.proname || '.sql')
)
SELECT d.kind, d.name::text, d.part::text, md5(d.facts::text) FROM definition d
$function$;
COMMENT ON FUNCTION "lonny"._objects() IS
'What the catalog says of the objects in this schema: one row each and one for each part, with a checksum of its definition.
To be called with the search path of the public functions. Of functions only those that an install has made, of others all that there are.';


-- Who may do what
CREATE OR REPLACE FUNCTION "lonny"._roles()
RETURNS TABLE (role regrole, kind text, channel_prefix text, functions text[])
LANGUAGE sql STABLE
AS $function$
-- Kept in the catalog, as rights on four functions: so they follow a role that is renamed, hinder that it is dropped, go with DROP OWNED, are
-- there after a pg_upgrade, and in a dump. Each is granted to a role by itself; what it inherits, or may because it is the owner, is not in it.
SELECT a.grantee::regrole, k.kind, p.channel_prefix, k.functions
  FROM (VALUES ('_producer', 'producer', "lonny"._producer()), ('_bound_producer', 'producer', "lonny"._bound_producer()),
               ('_consumer', 'consumer', "lonny"._consumer()), ('_operator', 'operator', "lonny"._operator())) AS k (name, kind, functions)
  JOIN pg_proc f ON f.proname = k.name
  JOIN pg_namespace n ON n.oid = f.pronamespace AND n.nspname = 'lonny'
 CROSS JOIN LATERAL aclexplode(f.proacl) a
  LEFT JOIN "lonny".producer p ON p.role = a.grantee AND k.name = '_bound_producer'
 WHERE a.grantee NOT IN (0, f.proowner)
$function$;
COMMENT ON FUNCTION "lonny"._roles() IS
'The roles that role_grant has made something, and what: one row each, with the names of the functions that they may call.';

CREATE OR REPLACE FUNCTION "lonny"._roles_renew()
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- A function that an upgrade has made anew, or put in the place of one that it has renamed, has no rights on it.
DECLARE
  v_grant record;
BEGIN
  FOR v_grant IN
    SELECT DISTINCT f.oid::regprocedure AS function, r.role
      FROM "lonny"._roles() r
      JOIN pg_proc f ON f.proname = ANY (r.functions)
      JOIN pg_namespace n ON n.oid = f.pronamespace AND n.nspname = 'lonny'
     WHERE NOT EXISTS (SELECT FROM aclexplode(f.proacl) a WHERE a.grantee = r.role)
  LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', v_grant.function, v_grant.role);
  END LOOP;
END
$function$;
COMMENT ON FUNCTION "lonny"._roles_renew() IS
'Grants producers, consumers and operators what functions they lack. Every install does it.';

CREATE OR REPLACE FUNCTION "lonny".role_revoke(role text, kind text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- With the rights of its caller, as role_grant.
DECLARE
  v_role     regrole;
  v_function regprocedure;
BEGIN
  IF role_revoke.role IS NULL THEN
    PERFORM "lonny"._raise_invalid('role', NULL, 'Give the name of a role.');
  END IF;
  IF role_revoke.kind IS NULL OR role_revoke.kind NOT IN ('producer', 'consumer', 'operator') THEN
    PERFORM "lonny"._raise_invalid('kind', role_revoke.kind, 'Give producer, consumer or operator.');
  END IF;
  SELECT r.oid INTO v_role FROM pg_roles r WHERE r.rolname = role_revoke.role;
  IF NOT FOUND THEN
    -- A longer name than this no role can have.
    RAISE EXCEPTION 'role "%" does not exist', left(role_revoke.role, 64)
      USING ERRCODE = 'undefined_object', HINT = format('Create it with  CREATE ROLE %I LOGIN  or correct the name.', left(role_revoke.role, 64));
  END IF;
  -- One at a time, and not beside an install, which takes this lock too: PostgreSQL refuses to change the rights on a function twice at once.
  PERFORM pg_advisory_xact_lock(hashtextextended('lonny', 0));

  DELETE FROM "lonny".producer p WHERE p.role = v_role AND role_revoke.kind = 'producer';
  FOR v_function IN
    SELECT f.oid
      FROM "lonny"._roles() r
      JOIN pg_proc f ON f.proname = ANY (r.functions || ('_' || r.kind) || CASE WHEN r.kind = 'producer' THEN '_bound_producer' END)
      JOIN pg_namespace n ON n.oid = f.pronamespace AND n.nspname = 'lonny'
     WHERE r.role = v_role AND r.kind = role_revoke.kind
       AND NOT EXISTS (SELECT FROM "lonny"._roles() other
                        WHERE other.role = v_role AND other.kind <> role_revoke.kind AND f.proname = ANY (other.functions))
  LOOP
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM %s', v_function, v_role);
  END LOOP;
  IF NOT EXISTS (SELECT FROM "lonny"._roles() r WHERE r.role = v_role) AND has_schema_privilege('lonny', 'USAGE WITH GRANT OPTION') THEN
    EXECUTE format('REVOKE USAGE ON SCHEMA %I FROM %s', 'lonny', v_role);
  END IF;
END
$function$;
COMMENT ON FUNCTION "lonny".role_revoke(text, text) IS
'Takes back what role_grant has given a role: it is no producer, consumer or operator any more.
The functions that it needs as something else stay; with the last one goes the right to use the schema. If it was none, nothing happens. A role that is to be dropped needs it before, or DROP OWNED. Only the owner of the queue may call it. Errors: 22004, 22023; 42704 if there is no such role.';

CREATE OR REPLACE FUNCTION "lonny".role_grant(role text, kind text, channel_prefix text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- With the rights of its caller, who has to be the owner: nobody else may grant these.
DECLARE
  v_role   regrole;
  v_schema oid := (SELECT n.oid FROM pg_namespace n WHERE n.nspname = 'lonny');
BEGIN
  IF role_grant.channel_prefix IS NOT NULL AND role_grant.kind <> 'producer' THEN
    PERFORM "lonny"._raise_invalid('channel_prefix', role_grant.channel_prefix, 'Only a producer can be bound to channels: give kind producer, or no prefix.');
  END IF;
  IF octet_length(role_grant.channel_prefix) NOT BETWEEN 1 AND 512 THEN
    PERFORM "lonny"._raise_invalid('channel_prefix', role_grant.channel_prefix, 'Give 1 to 512 bytes, or NULL for all channels.');
  END IF;
  -- A producer is bound or not: the last grant says.
  PERFORM "lonny".role_revoke(role_grant.role, role_grant.kind);

  SELECT r.oid INTO v_role FROM pg_roles r WHERE r.rolname = role_grant.role;
  IF NOT has_schema_privilege(v_role, v_schema, 'USAGE') THEN
    IF NOT has_schema_privilege(v_schema, 'USAGE WITH GRANT OPTION') THEN
      RAISE EXCEPTION 'role "%" may not let "%" use schema "%", which is not its own', current_user, role_grant.role, 'lonny'
        USING ERRCODE = 'insufficient_privilege',
              HINT = format('Have its owner run  GRANT USAGE ON SCHEMA %I TO %s  and try again.', 'lonny', v_role);
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %s', 'lonny', v_role);
  END IF;
  IF role_grant.channel_prefix IS NOT NULL THEN
    INSERT INTO "lonny".producer (role, channel_prefix) VALUES (v_role, role_grant.channel_prefix);
  END IF;
  EXECUTE format('GRANT EXECUTE ON FUNCTION %I.%I() TO %s', 'lonny',
                 CASE WHEN role_grant.channel_prefix IS NULL THEN '_' || role_grant.kind ELSE '_bound_producer' END, v_role);
  PERFORM "lonny"._roles_renew();
END
$function$;
COMMENT ON FUNCTION "lonny".role_grant(text, text, text) IS
'Makes a role a producer, a consumer or an operator of the queue: lets it call what these need, and nothing else.
A producer creates messages; a consumer dequeues them, and deletes, defers and keeps what it has; an operator sets policies, cancels, and looks at what there is. A role may be several of these: call it for each. No role needs rights on the tables. channel_prefix, for a producer, binds it to channels whose names begin so; NULL, to none. It is looked for by the role that has logged in: that one, or what it inherits from, has to be the one that is bound; SET ROLE does not matter. Only the owner of the queue may call it. Errors: 22004, 22023; 42704 if there is no such role.';

-- Nothing is granted to PUBLIC: the owner of the schema decides who may use it. PostgreSQL grants PUBLIC nothing on new tables and
-- sequences, but the right to call new functions.
REVOKE ALL ON FUNCTION
  "lonny"._clock(),
  "lonny"._microseconds(timestamptz),
  "lonny"._lane(text),
  "lonny"._channel_name(text, bigint, timestamptz),
  "lonny"._event_channel(),
  "lonny"._event_notify(text, bigint, text, bigint),
  "lonny"._wake_channel(),
  "lonny"._sleepers_wake(),
  "lonny"._sleeper_nap_ms(),
  "lonny"._raise_invalid(text, text, text),
  "lonny"._producer(),
  "lonny"._bound_producer(),
  "lonny"._consumer(),
  "lonny"._operator(),
  "lonny"._channels_check(text[]),
  "lonny"._is_alone(text),
  "lonny"._channel_admits(bigint, text, timestamptz, text),
  "lonny".message_create(text, bytea, bigint, bigint),
  "lonny".message_create_many(text[], bytea[], bigint[], bigint[]),
  "lonny"._channel_survey(bigint, "lonny"._policy_in_force, timestamptz, timestamptz, bigint[]),
  "lonny"._timer_set(bigint, text, timestamptz, timestamptz),
  "lonny"._channel_advance(bigint, text, timestamptz, bigint[], integer),
  "lonny"._lane_tend(bigint),
  "lonny"._wakes_next(bigint, bigint, integer),
  "lonny"._tend(integer, boolean, boolean, timestamptz, bigint[]),
  "lonny"._channel_release(bigint, text, bigint[]),
  "lonny"._channel_try_release(bigint, text, bigint[]),
  "lonny"._message_offer(bigint, text, bigint[], timestamptz),
  "lonny"._message_try_offer(bigint, text, bigint[], timestamptz),
  "lonny"._channel_offer(bigint, text, bigint[]),
  "lonny"._lanes_next(bigint, integer, bigint[]),
  "lonny"._turns_due(bigint, bigint, integer, bigint[]),
  "lonny"._take_one(bigint, bigint, bigint, bigint),
  "lonny"._take_in_turn(bigint, integer, bigint, integer),
  "lonny"._take_many(bigint, integer, bigint, boolean, bigint[]),
  "lonny"._walk_is_in_time(timestamptz, interval),
  "lonny"._generation_turn(bigint, bigint, bigint, bigint),
  "lonny"._horizon_is_over(bigint),
  "lonny"._horizons_draw(),
  "lonny"._late_lift(bigint),
  "lonny"._generation_retire(bigint, boolean),
  "lonny"._generations_walk(),
  "lonny"._message_hold(bigint, bigint),
  "lonny"._take_in_generations(integer, bigint, boolean),
  "lonny"._retry_ms(boolean, timestamptz, timestamptz),
  "lonny"._entries_read(text),
  "lonny".message_dequeue(integer, bigint),
  "lonny"._place_freed(bigint, text),
  "lonny"._places_freed(bigint[], text[]),
  "lonny".message_delete(bigint, integer),
  "lonny".message_delete_many(bigint[], integer[]),
  "lonny".message_defer(bigint, integer, bigint, bytea),
  "lonny".message_heartbeat(bigint, integer, bigint),
  "lonny".message_cancel(bigint),
  "lonny".message_status(bigint[]),
  "lonny"._policy_add(text, integer, bigint),
  "lonny".channel_policy_set(text, integer, bigint),
  "lonny".channel_policy_clear(text),
  "lonny"._num_due(bigint, text, timestamptz, timestamptz, bigint, integer),
  "lonny"._channel_outlook(bigint, text, timestamptz),
  "lonny"._lanes_ahead(bigint, timestamptz),
  "lonny".message_explain(bigint),
  "lonny".channel_explain(text),
  "lonny"._schema_missing(),
  "lonny".check(bigint),
  "lonny".repair(),
  "lonny".version_status(),
  "lonny"._objects(),
  "lonny"._roles(),
  "lonny"._roles_renew(),
  "lonny".role_revoke(text, text),
  "lonny".role_grant(text, text, text)
FROM PUBLIC;

-- Those that the owner has made something with role_grant.
DO $do$
BEGIN
  PERFORM "lonny"._roles_renew();
END
$do$;


DELETE FROM "lonny".template;
INSERT INTO "lonny".template (path, checksum, package_version, applied_at) VALUES
  ('functions/_clock.sql', 'a773d143d30abd09a27c1e9de7b39ca25519c61cf2f23c808aac381bb56f5556', '0.1.0', clock_timestamp()),
  ('functions/_microseconds.sql', 'ddf05358fdbf5c11dc6ca6fbe23ac2adfcfc0290f39fdb817d4d59b216d6d33c', '0.1.0', clock_timestamp()),
  ('functions/_lane.sql', '3a2a91e883d0b930ad15a9164af43261115e0d0f36dceb7a0778ed0aecd9fe8a', '0.1.0', clock_timestamp()),
  ('functions/_channel_name.sql', 'd977e5902f731ec5df03244d22f9389f2a815f1920c27b0495f59252173988bf', '0.1.0', clock_timestamp()),
  ('functions/_event_channel.sql', '0e8a1a2cbfc0c31f5f090c5bdffe72471dff68562e87c92ddc8f4c0cade2506a', '0.1.0', clock_timestamp()),
  ('functions/_event_notify.sql', 'bbf2716f09cb8e55c9692bb8d812657631627a4331b3407f3e60925489c4dd2b', '0.1.0', clock_timestamp()),
  ('functions/_wake_channel.sql', 'df41575d571bb37f8c8ca9b4e0027dfbfbac172055b134a1880c819ce2cac482', '0.1.0', clock_timestamp()),
  ('functions/_sleepers_wake.sql', '4ba2c50aed86001390a83780d0d49fa29ae637d1a04f53236f97565723e406cd', '0.1.0', clock_timestamp()),
  ('functions/_sleeper_nap_ms.sql', 'b7e9039a45242fc9a81ac021c8e1400197fae1127e04576a2431052ed21b074d', '0.1.0', clock_timestamp()),
  ('functions/_raise_invalid.sql', 'ba7e6ea088c81a4a30658d01c6bd1518993911596f0e08621b5faadf431044fb', '0.1.0', clock_timestamp()),
  ('functions/_producer.sql', 'd8ae1d11068553eb635d5dba49f6f3fbdbcaee0241549e6f58d75d1cdf2599cf', '0.1.0', clock_timestamp()),
  ('functions/_bound_producer.sql', '700315a214feb59e7152d50ab5875d66e7e721ea4b08e9a4666637904ecc2be9', '0.1.0', clock_timestamp()),
  ('functions/_consumer.sql', '0d309bd6f2c9dcee612c80173438e04133b0dd71e36b06c6981eca9f8643c88a', '0.1.0', clock_timestamp()),
  ('functions/_operator.sql', 'f3985303b4122f5dc9a1564412b4096e20f83162c9ff8d04aff876c0375d86d0', '0.1.0', clock_timestamp()),
  ('functions/_channels_check.sql', '7af092ddf7d11dd5c5fc362cc7f9f5d0ef43e789f7443a328aa41a4a149936f8', '0.1.0', clock_timestamp()),
  ('functions/_is_alone.sql', '81a13af691ca6b148867fa39dd9096f936926d900b8e0c747a6a2bace6f2f48c', '0.1.0', clock_timestamp()),
  ('functions/_channel_admits.sql', '3cf245e716c04418d4b825abbe086b20f72fddd6d3f8fde27e3a0172f6c11d83', '0.1.0', clock_timestamp()),
  ('functions/message_create.sql', 'ed2ac3c9df3bbe5638db916ea945c8f2fb4053ca3ec205727667f787d178c9aa', '0.1.0', clock_timestamp()),
  ('functions/message_create_many.sql', '7919a14f1e6be23c5eb8228436286c323c673340a7ae1a6e8e0d9226a89416e1', '0.1.0', clock_timestamp()),
  ('functions/_channel_survey.sql', '4bb5bc0eca36a3dcb62c73d02548262c454e39084b594f5d9d626d1ce20293b2', '0.1.0', clock_timestamp()),
  ('functions/_timer_set.sql', 'e968b0a3da4b497b85ea45a4fd034b4099e8a8b86ed57dba27d2ec449a70e604', '0.1.0', clock_timestamp()),
  ('functions/_channel_advance.sql', 'be24cb039a0cb5ece9bfcaf11717712f075b5cdef7261a1c02a159d64ee3d1a5', '0.1.0', clock_timestamp()),
  ('functions/_lane_tend.sql', '6d5fb295e3edb18d0bb2758a80eba0df9fa5502ce3dba0d21612d4566375cb00', '0.1.0', clock_timestamp()),
  ('functions/_wakes_next.sql', '06e649240a2bdabbefc27a6ac20a16f0ba4d86a7053ec920d682fa8d7fc4dce4', '0.1.0', clock_timestamp()),
  ('functions/_tend.sql', 'e276bf8e3540ba445f9e52b6b39cc7ff78d9cff7c60d5da9b059107410bec5d2', '0.1.0', clock_timestamp()),
  ('functions/_channel_release.sql', '259e428cc57db2221fcf77bd523c1259b2972d0eaabae2747c914dcd56a24aa9', '0.1.0', clock_timestamp()),
  ('functions/_channel_try_release.sql', 'b05856c1da082b660ec7603d4367b3e2dc60628640e7d42c49287834bdec7cd8', '0.1.0', clock_timestamp()),
  ('functions/_message_offer.sql', '93b28c54a60c6af2650dac668ae9457a51c4625f958c1c1b8638636d43b02316', '0.1.0', clock_timestamp()),
  ('functions/_message_try_offer.sql', '4c0621518e7d0eda1cd530983b062afc3c3702759d942c25c1b33213a001abbe', '0.1.0', clock_timestamp()),
  ('functions/_channel_offer.sql', '2884d500e0f6fddc16f4256ff78bf13f4d52c872bdf932b58dafae8674b76dcf', '0.1.0', clock_timestamp()),
  ('functions/_lanes_next.sql', '6b18d45bfed571bda162fedff3294581d55657dca1fd9956bd97678db198bb7c', '0.1.0', clock_timestamp()),
  ('functions/_turns_due.sql', '1626de977dba2017c680427a54c419ac8869675dfd3082f5be04f1f56fe00e54', '0.1.0', clock_timestamp()),
  ('functions/_take_one.sql', '1c60cb7009daa542ece435e0e5246ea8de3f38066eb08deee1a8d36333973441', '0.1.0', clock_timestamp()),
  ('functions/_take_in_turn.sql', '5591ac4e261e67c1d1fabc99382213dfdba6e804c1effd1d05f58e3ce835e855', '0.1.0', clock_timestamp()),
  ('functions/_take_many.sql', '15c5462343c67371985eb32dbd285d4d204b7ceb3eec5338eec22a4c6c7e6a73', '0.1.0', clock_timestamp()),
  ('functions/_retry_ms.sql', '588584fd3a7dc891a02acb5d0375bab9efe6b7bffb312e582f57d337658b1b71', '0.1.0', clock_timestamp()),
  ('functions/_entries_read.sql', '32cb14bd2956e3f5ea2d2a57f8bbe5fbb5284986d8b1c0ace4835813c80e6257', '0.1.0', clock_timestamp()),
  ('functions/_walk_is_in_time.sql', 'fca1d12d2936ef84ffffdedd25dd0edad37242304a052d96e0bb0eb23e74a0f4', '0.1.0', clock_timestamp()),
  ('functions/_generation_turn.sql', '31d16aaddc810be90914cc4b9cb0565163b381a6a6ada5fad2cedab936986bc6', '0.1.0', clock_timestamp()),
  ('functions/_horizon_is_over.sql', 'a6c1d8743c969b6e84d14f811d5f8fc1517f4b338d94395d3ec9e6e79ccde64d', '0.1.0', clock_timestamp()),
  ('functions/_horizons_draw.sql', 'e0ab2fcdcd78316a79902d41ad3386c5eecf316de83295225d98ad5eb8681512', '0.1.0', clock_timestamp()),
  ('functions/_late_lift.sql', 'd8e1ba204ebe8a970cfac4305f5160a67320fb301fd9d5e1f68bd8f22619321f', '0.1.0', clock_timestamp()),
  ('functions/_generation_retire.sql', '607920763cf8e0f8508f132e50dcf698a7f4b62d2c251ec99aa6c60d9a1e8abf', '0.1.0', clock_timestamp()),
  ('functions/_generations_walk.sql', 'fcf2fe47cecf7265e88bfb319d3997d95ca9c690afaa4b254a304f2b7304f5a6', '0.1.0', clock_timestamp()),
  ('functions/_message_hold.sql', '9e5014576c458755e095ec36d35279f4f28097413e1ec00b6af1e0da83b73562', '0.1.0', clock_timestamp()),
  ('functions/_take_in_generations.sql', '898e350cd84a095a8cc034585f9a9518bfee5cd05da39fffb1624fbf68aa9064', '0.1.0', clock_timestamp()),
  ('functions/message_dequeue.sql', 'abf031a95b1cf29d73ea2e4da4ad999d560d811ef98f9902f8a32e8351a8f283', '0.1.0', clock_timestamp()),
  ('functions/_place_freed.sql', '2b4f67268933a0d46935df704fa68d3790598460d8eb94bbec25846b9d08d054', '0.1.0', clock_timestamp()),
  ('functions/_places_freed.sql', 'ff49c38309f3f4c88872397f88c23f0ab2209d711698a6b8f2725312b49bb1e3', '0.1.0', clock_timestamp()),
  ('functions/message_delete.sql', '343c53a1c393b5b0cf8c3cffbfdd32c43f8987659ee786c98e4bd8bb1492790c', '0.1.0', clock_timestamp()),
  ('functions/message_delete_many.sql', 'c52d6d6972d23bf27a4723b72d6d10a2b3c656438d09f455e8893997330dfb22', '0.1.0', clock_timestamp()),
  ('functions/message_defer.sql', 'e1e6725b6ef71ce0ae3ea9819be5215f39f28d775095e087c11b1c6c2fa9759d', '0.1.0', clock_timestamp()),
  ('functions/message_heartbeat.sql', '0c24989fbe85e063d67092e828feb9b916dcc937815779289d2c02d17ccc9d0d', '0.1.0', clock_timestamp()),
  ('functions/message_cancel.sql', '86a3cbef4efd751db1af95feb81a0e8d6131730c2f3f0e2ba05aee3fd6ac80ea', '0.1.0', clock_timestamp()),
  ('functions/message_status.sql', 'ad44e602f46b02208643d60961376cbad8662e548d8adbe0118ac30ecadb0ec8', '0.1.0', clock_timestamp()),
  ('functions/_policy_add.sql', 'd9eeb4f564cc29fa6f2f07b3290ae05b1ab61e68dc1f87cd192a7648929bc89b', '0.1.0', clock_timestamp()),
  ('functions/channel_policy_set.sql', '02d11df1fc54ef2a7e6d91dcc63178d5e9bf5df7cea1168373c29bb59dd2ef7c', '0.1.0', clock_timestamp()),
  ('functions/channel_policy_clear.sql', '36c4bdc5286f3f5547a117f8259afb73d7d6db1d01b6fb9a11cb5c5f6d4aa64c', '0.1.0', clock_timestamp()),
  ('functions/_num_due.sql', 'cc9f1e4df6a7002adc69398916de41298b5bbeb3ac0722c820e5b0787d680d64', '0.1.0', clock_timestamp()),
  ('functions/_channel_outlook.sql', '391fc5dfdcd313551c995ccfa7b6d096d63b6c607b59309f74570d278a2df4f9', '0.1.0', clock_timestamp()),
  ('functions/_lanes_ahead.sql', '6825eb9d1e6f035f245324fd52184a920f89cf619155d8c8a0f6ed6af3aca0ec', '0.1.0', clock_timestamp()),
  ('functions/message_explain.sql', 'd56f17c77aade0f1d78881a162f19888952c72d8dc0fb73899980d13f19db68e', '0.1.0', clock_timestamp()),
  ('functions/channel_explain.sql', '981004354220637eedcfff47d1402e8ce2f70f984f0d3f110ba07942de69fb3a', '0.1.0', clock_timestamp()),
  ('functions/_schema_missing.sql', '413c5124a90e0e222c2415c27ffe3a8b50fcd197f89d7a42bf81394a91e8b9c4', '0.1.0', clock_timestamp()),
  ('functions/check.sql', 'e15b4330033e63623a95b9336572a62fd8fc6d1477d94ac35bc59fd3dde0508e', '0.1.0', clock_timestamp()),
  ('functions/repair.sql', '0ea2d7cd5af7a15a6bbb5742eac26f438963cd7fa2876c8319ae3e23a7eb911f', '0.1.0', clock_timestamp()),
  ('functions/version_status.sql', '62f7bbb4abb01e029199e35b18ac1f3e89fa140d55672832c28c72741a1605e2', '0.1.0', clock_timestamp()),
  ('functions/_objects.sql', '385e065c4599136798efd326262116cc9f6f32ece7a72253c53e7fd58049d3a7', '0.1.0', clock_timestamp()),
  ('functions/_roles.sql', '8c77ac6c69007c98ee4df55366a7ee479b31bc4deb709ba9f94acce6dbfbe440', '0.1.0', clock_timestamp()),
  ('functions/_roles_renew.sql', 'b74d4df6e2945693d419e613851b666f4b3aae72901b5efefcec4d970575ccdf', '0.1.0', clock_timestamp()),
  ('functions/role_revoke.sql', '9d7ae6289ca4e5ac725def857a1f16b8b34dc6743f0d3286c6e0fa7030b0ac9d', '0.1.0', clock_timestamp()),
  ('functions/role_grant.sql', 'cc934f67ad2bcc670c69cd0e11daeaf9cc35ed34e086d04f927860ef9a7b238f', '0.1.0', clock_timestamp()),
  ('grants.sql', 'f60d1c9105dfade3c852a3255b9f99c8be67c635b3fab2e6680ab88c5050d5b8', '0.1.0', clock_timestamp());

DELETE FROM "lonny".object WHERE kind = 'function';
INSERT INTO "lonny".object (kind, name, part, checksum)
SELECT o.kind, o.name, o.part, o.checksum
  FROM "lonny"._objects() o
 WHERE o.kind = 'function' OR NOT EXISTS (SELECT FROM "lonny".object);

COMMIT;
