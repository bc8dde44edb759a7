-- Tables, types, sequences and indexes of the first release.
--
-- Upgrading at noon: nothing to upgrade from; this file only creates.

CREATE TABLE {{ schema }}.migration (
  version         integer     NOT NULL,
  name            text        NOT NULL,
  checksum        text        NOT NULL,
  package_version text        NOT NULL,
  is_breaking     boolean     NOT NULL,
  applied_at      timestamptz NOT NULL,
  CONSTRAINT migration_version_pkey PRIMARY KEY (version)
);
COMMENT ON TABLE {{ schema }}.migration IS 'pylonny: the ledger of what is installed in this schema, one row a migration. Its presence marks the schema as pylonny''s.';
COMMENT ON COLUMN {{ schema }}.migration.version IS 'Number of the migration, in the order of application.';
COMMENT ON COLUMN {{ schema }}.migration.name IS 'Name of the migration''s file without number and ending.';
COMMENT ON COLUMN {{ schema }}.migration.checksum IS 'SHA-256 (hex) of the migration''s template as it was applied.';
COMMENT ON COLUMN {{ schema }}.migration.package_version IS 'Version of the package that applied it.';
COMMENT ON COLUMN {{ schema }}.migration.is_breaking IS 'Whether packages older than it cannot use the schema any more.';
COMMENT ON COLUMN {{ schema }}.migration.applied_at IS 'When it was applied.';

CREATE TABLE {{ schema }}.template (
  path            text COLLATE "C" NOT NULL,
  checksum        text        NOT NULL,
  package_version text        NOT NULL,
  applied_at      timestamptz NOT NULL,
  CONSTRAINT template_path_pkey PRIMARY KEY (path)
);
COMMENT ON TABLE {{ schema }}.template IS 'The ledger of what every install runs anew, one row a file: functions and rights.';
COMMENT ON COLUMN {{ schema }}.template.path IS 'The file, below the folder of the templates.';
COMMENT ON COLUMN {{ schema }}.template.checksum IS 'SHA-256 (hex) of the template as it was applied.';
COMMENT ON COLUMN {{ schema }}.template.package_version IS 'Version of the package that applied it.';
COMMENT ON COLUMN {{ schema }}.template.applied_at IS 'When it was applied last.';

CREATE TABLE {{ schema }}.object (
  kind     text COLLATE "C" NOT NULL,
  name     text COLLATE "C" NOT NULL,
  part     text COLLATE "C" NOT NULL,
  checksum text NOT NULL,
  CONSTRAINT object_kind_name_part_pkey PRIMARY KEY (kind, name, part)
);
COMMENT ON TABLE {{ schema }}.object IS 'What the catalog said of each object when it was installed, for status to compare with what it says now (see _objects).';
COMMENT ON COLUMN {{ schema }}.object.kind IS 'What it is: function, table, view, sequence or type.';
COMMENT ON COLUMN {{ schema }}.object.name IS 'Its name.';
COMMENT ON COLUMN {{ schema }}.object.part IS 'Of a function the types of its arguments, else a column, an index or such; empty for the object itself.';
COMMENT ON COLUMN {{ schema }}.object.checksum IS 'MD5 (hex) of its definition.';


CREATE TYPE {{ schema }}.message_status   AS ENUM ('WAITING', 'READY', 'LOCKED');
CREATE TYPE {{ schema }}.dequeue_result   AS ENUM ('MESSAGE_DEQUEUED', 'MESSAGE_NOT_AVAILABLE');
CREATE TYPE {{ schema }}.delete_result    AS ENUM ('MESSAGE_DELETED', 'MESSAGE_NOT_FOUND', 'MESSAGE_STATE_INVALID');
CREATE TYPE {{ schema }}.defer_result     AS ENUM ('MESSAGE_DEFERRED', 'MESSAGE_NOT_FOUND', 'MESSAGE_STATE_INVALID');
CREATE TYPE {{ schema }}.heartbeat_result AS ENUM ('MESSAGE_HEARTBEATED', 'MESSAGE_NOT_FOUND', 'MESSAGE_STATE_INVALID', 'MESSAGE_BUSY');
CREATE TYPE {{ schema }}.cancel_result    AS ENUM ('MESSAGE_CANCELLED', 'MESSAGE_NOT_FOUND', 'MESSAGE_STATE_INVALID');
COMMENT ON TYPE {{ schema }}.message_status IS 'Where a message is in its life: WAITING (for its delay, or for its channel''s policy to release it), READY (the next dequeue may take it) or LOCKED (a worker has it, or had it and its lock''s end was not noticed yet).';
COMMENT ON TYPE {{ schema }}.dequeue_result IS 'What message_dequeue answers.';
COMMENT ON TYPE {{ schema }}.delete_result IS 'What message_delete answers.';
COMMENT ON TYPE {{ schema }}.defer_result IS 'What message_defer answers.';
COMMENT ON TYPE {{ schema }}.heartbeat_result IS 'What message_heartbeat answers.';
COMMENT ON TYPE {{ schema }}.cancel_result IS 'What message_cancel answers.';


-- Sequences, because what one session sets all others see at once, without a row, a lock or a wait, and even if it rolls back.
-- Unlogged: after a crash the rotation may begin anywhere.
CREATE UNLOGGED SEQUENCE {{ schema }}.rotation AS bigint MINVALUE -9223372036854775808 START WITH 0;
COMMENT ON SEQUENCE {{ schema }}.rotation IS 'The lane that was served last.';
CREATE UNLOGGED SEQUENCE {{ schema }}.wake_rotation AS bigint MINVALUE -9223372036854775808 START WITH 0;
COMMENT ON SEQUENCE {{ schema }}.wake_rotation IS 'The lane whose wakes were handled last.';

-- Beside an old snapshot (sql/README.md) only. As long as nothing holds one, they are 0, or less, and no row has a generation. A row's is read when its
-- transaction has its number, so that it is known which ones may have read an older one (_horizons_draw).
CREATE UNLOGGED SEQUENCE {{ schema }}.generation AS bigint MINVALUE -9223372036854775808 START WITH 0;
COMMENT ON SEQUENCE {{ schema }}.generation IS 'The sum of the two generations in use: what becomes ready gets the younger, what is ready has the one or the other. 2: only 1 is in use, 3: 1 and 2, 4: only 2. 0 or less: none is, -4: those up to 2 were.';
CREATE UNLOGGED SEQUENCE {{ schema }}.generation_walk AS bigint MINVALUE 0 START WITH 0;
COMMENT ON SEQUENCE {{ schema }}.generation_walk IS 'When to look for what is ready in neither generation, in microseconds since 1970; 0: never, none is in use; 1: at once, and before the first look is over nobody searches by generations.';
CREATE UNLOGGED SEQUENCE {{ schema }}.generation_at AS bigint MINVALUE -9223372036854775808 START WITH 0;
COMMENT ON SEQUENCE {{ schema }}.generation_at IS 'When the younger of two generations began, in microseconds since 1970.';
CREATE UNLOGGED SEQUENCE {{ schema }}.generation_horizon AS bigint MINVALUE 0 START WITH 0;
COMMENT ON SEQUENCE {{ schema }}.generation_horizon IS 'Transactions with a lower number may still commit something in the older of two generations; the highest number of all: it is not known which.';
CREATE UNLOGGED SEQUENCE {{ schema }}.late_horizon AS bigint MINVALUE 0 START WITH 0;
COMMENT ON SEQUENCE {{ schema }}.late_horizon IS 'Transactions with a lower number may still commit something that is in neither generation; 0: all that is ready is in the two; the highest number of all: it is not known which.';
CREATE UNLOGGED SEQUENCE {{ schema }}.timer_mark AS bigint MINVALUE -9223372036854775808 START WITH 0;
COMMENT ON SEQUENCE {{ schema }}.timer_mark IS 'Where the search for timers that are over begins while generations are in use, in microseconds since 1970.';
CREATE UNLOGGED SEQUENCE {{ schema }}.timer_floor AS bigint MINVALUE -9223372036854775808 START WITH 0;
COMMENT ON SEQUENCE {{ schema }}.timer_floor IS 'No timer of this time or before is left, or can come; in microseconds since 1970.';


CREATE TABLE {{ schema }}.producer (
  role           regrole NOT NULL,
  channel_prefix text    NOT NULL,
  CONSTRAINT producer_role_pkey PRIMARY KEY (role)
);
COMMENT ON TABLE {{ schema }}.producer IS 'The roles that may create messages in some channels only. What a role may is in the catalog: see _roles.';
COMMENT ON COLUMN {{ schema }}.producer.role IS 'The role; of one that is gone nothing is made.';
COMMENT ON COLUMN {{ schema }}.producer.channel_prefix IS 'What the names of its channels begin with.';

CREATE TABLE {{ schema }}.message (
  id           bigint      GENERATED ALWAYS AS IDENTITY,
  lane         bigint      NOT NULL,
  lock_ms      bigint      NOT NULL,
  created_at   timestamptz NOT NULL,
  dequeue_at   timestamptz NOT NULL,
  timer_at     timestamptz,
  locked_at    timestamptz,
  unlock_at    timestamptz,
  policy_id    bigint,
  generation   bigint      DEFAULT CASE WHEN pg_current_xact_id() IS NOT NULL THEN NULLIF(GREATEST(pg_sequence_last_value($regclass${{ schema }}.generation$regclass$) + 1, 1) / 2, 0) END,
  num_attempts integer     NOT NULL DEFAULT 0,
  status       {{ schema }}.message_status NOT NULL,
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
COMMENT ON TABLE {{ schema }}.message IS 'The messages, one row each. Read it as you like; change it only through the functions.';
COMMENT ON COLUMN {{ schema }}.message.id IS 'Number of the message, ascending in the order of creation; never used again.';
COMMENT ON COLUMN {{ schema }}.message.lane IS 'The rotation''s key: a hash of the channel, or 0 for all messages created without one.';
COMMENT ON COLUMN {{ schema }}.message.lock_ms IS 'How long a dequeue locks the message, in milliseconds.';
COMMENT ON COLUMN {{ schema }}.message.created_at IS 'When it was created.';
COMMENT ON COLUMN {{ schema }}.message.dequeue_at IS 'When it is due, and with id its place in the channel: the time of its creation or deferral plus the delay.';
COMMENT ON COLUMN {{ schema }}.message.timer_at IS 'When a dequeue has to look at it: the end of its delay (WAITING) or of its lock (LOCKED); NULL if there is nothing to look at.';
COMMENT ON COLUMN {{ schema }}.message.locked_at IS 'When it was dequeued last; NULL if never.';
COMMENT ON COLUMN {{ schema }}.message.unlock_at IS 'When the lock of its last dequeue ends or ended; NULL if it was not dequeued since its creation or deferral.';
COMMENT ON COLUMN {{ schema }}.message.policy_id IS 'The version of the channel''s policy that released it last; NULL if it was released without one.';
COMMENT ON COLUMN {{ schema }}.message.generation IS 'The generation in which it became ready last; NULL: none was in use.';
COMMENT ON COLUMN {{ schema }}.message.num_attempts IS 'How often it was dequeued: the fencing token.';
COMMENT ON COLUMN {{ schema }}.message.status IS 'WAITING, READY or LOCKED.';
COMMENT ON COLUMN {{ schema }}.message.channel IS 'Its channel; NULL if it was created without one (_channel_name tells the name that such a message goes by).';
COMMENT ON COLUMN {{ schema }}.message.content IS 'What the producer gave.';
COMMENT ON COLUMN {{ schema }}.message.state IS 'What the worker kept at the last deferral that gave a state.';

-- Each holds only the rows that may answer its question. Few, since each index costs every insert and update, also of a row that it does not hold.
CREATE INDEX message_ready_idx ON {{ schema }}.message (lane, dequeue_at, id) WHERE status = 'READY';
COMMENT ON INDEX {{ schema }}.message_ready_idx IS 'Which message is next, in rotation over the lanes?';
CREATE INDEX message_generation_idx ON {{ schema }}.message (generation, lane, dequeue_at, id) WHERE status = 'READY' AND generation IS NOT NULL;
COMMENT ON INDEX {{ schema }}.message_generation_idx IS 'The same beside an old snapshot, without the dead rows of former generations.';
CREATE INDEX message_channel_idx ON {{ schema }}.message (lane, status, dequeue_at, id) WHERE status <> 'READY' AND lane <> 0;
COMMENT ON INDEX {{ schema }}.message_channel_idx IS 'Which message of a channel is the next to be released, and how many are locked?';
CREATE INDEX message_timer_idx ON {{ schema }}.message (timer_at, id) WHERE timer_at IS NOT NULL;
COMMENT ON INDEX {{ schema }}.message_timer_idx IS 'Which delays and locks are over?';


CREATE TABLE {{ schema }}.channel_policy (
  id                  bigint  GENERATED ALWAYS AS IDENTITY,
  channel             text COLLATE "C" NOT NULL,
  max_concurrency     integer,
  release_interval_ms bigint,
  cleared             boolean NOT NULL,
  CONSTRAINT channel_policy_channel_id_pkey PRIMARY KEY (channel, id)
);
COMMENT ON TABLE {{ schema }}.channel_policy IS 'Versions of the channels'' policies, only ever added to, so that setting one waits for nobody; the highest id of a channel is in force, older ones are removed in passing.';
COMMENT ON COLUMN {{ schema }}.channel_policy.id IS 'Number of the version.';
COMMENT ON COLUMN {{ schema }}.channel_policy.channel IS 'The channel it is for.';
COMMENT ON COLUMN {{ schema }}.channel_policy.max_concurrency IS 'How many messages of the channel may be out at a time; 0: paused, NULL: no limit.';
COMMENT ON COLUMN {{ schema }}.channel_policy.release_interval_ms IS 'Milliseconds between two dequeues of the channel; NULL: no interval.';
COMMENT ON COLUMN {{ schema }}.channel_policy.cleared IS 'True if this version says that the channel has no policy.';

CREATE VIEW {{ schema }}._policy_in_force AS
SELECT p.id, p.channel, p.max_concurrency, p.release_interval_ms
  FROM (SELECT DISTINCT ON (v.channel) v.id, v.channel, v.max_concurrency, v.release_interval_ms, v.cleared
          FROM {{ schema }}.channel_policy v
         ORDER BY v.channel, v.id DESC) p
 WHERE NOT p.cleared;
COMMENT ON VIEW {{ schema }}._policy_in_force IS 'The policies in force, one row a channel that has one.';
COMMENT ON COLUMN {{ schema }}._policy_in_force.id IS 'Number of the version that is in force.';
COMMENT ON COLUMN {{ schema }}._policy_in_force.channel IS 'The channel it is for.';
COMMENT ON COLUMN {{ schema }}._policy_in_force.max_concurrency IS 'How many messages of the channel may be out at a time; 0: paused, NULL: no limit.';
COMMENT ON COLUMN {{ schema }}._policy_in_force.release_interval_ms IS 'Milliseconds between two dequeues of the channel; NULL: no interval.';


CREATE TABLE {{ schema }}.wake (
  lane        bigint NOT NULL,
  at          timestamptz,
  released_at timestamptz,
  generation  bigint DEFAULT CASE WHEN pg_current_xact_id() IS NOT NULL THEN NULLIF(GREATEST(pg_sequence_last_value($regclass${{ schema }}.generation$regclass$) + 1, 1) / 2, 0) END,
  channel     text COLLATE "C" NOT NULL
) WITH (vacuum_truncate = false);
COMMENT ON TABLE {{ schema }}.wake IS 'Signals and timers, only ever added to: look at this channel, now or at a time; deleted when that was done.';
COMMENT ON COLUMN {{ schema }}.wake.lane IS 'The channel''s lane.';
COMMENT ON COLUMN {{ schema }}.wake.at IS 'When to look at the channel; NULL: now.';
COMMENT ON COLUMN {{ schema }}.wake.released_at IS 'Set if this is the timer of a release interval: the time of the dequeue that the interval follows.';
COMMENT ON COLUMN {{ schema }}.wake.generation IS 'The generation in which it became due; NULL: none was in use.';
COMMENT ON COLUMN {{ schema }}.wake.channel IS 'The channel to look at.';
-- It has no key (an index entry a wake for nothing). Without this a publication of all tables would make its deletes fail.
ALTER TABLE {{ schema }}.wake REPLICA IDENTITY FULL;

CREATE INDEX wake_due_idx ON {{ schema }}.wake (lane) WHERE at IS NULL;
COMMENT ON INDEX {{ schema }}.wake_due_idx IS 'Which channel is to be looked at next, in rotation over the lanes?';
CREATE INDEX wake_generation_idx ON {{ schema }}.wake (generation, lane) WHERE at IS NULL AND generation IS NOT NULL;
COMMENT ON INDEX {{ schema }}.wake_generation_idx IS 'The same beside an old snapshot, without the dead rows of former generations.';
CREATE INDEX wake_timer_idx ON {{ schema }}.wake (at, lane) WHERE at IS NOT NULL;
COMMENT ON INDEX {{ schema }}.wake_timer_idx IS 'Which timers are over?';
CREATE INDEX wake_lane_idx ON {{ schema }}.wake (lane) WHERE at IS NOT NULL OR released_at IS NOT NULL;
COMMENT ON INDEX {{ schema }}.wake_lane_idx IS 'Which timers has this channel, and when was it released last?';


-- Of a queue with a wake channel only. Unlogged: after a crash nobody sleeps.
CREATE UNLOGGED SEQUENCE {{ schema }}.sleeper AS bigint;
COMMENT ON SEQUENCE {{ schema }}.sleeper IS 'The number of the last dequeue that let its worker sleep.';
CREATE UNLOGGED SEQUENCE {{ schema }}.sleeper_at AS bigint MINVALUE -9223372036854775808 START WITH 0;
COMMENT ON SEQUENCE {{ schema }}.sleeper_at IS 'When that was, in microseconds since 1970.';

CREATE UNLOGGED TABLE {{ schema }}.wake_up (
  sleeper bigint NOT NULL
) WITH (vacuum_truncate = false);
COMMENT ON TABLE {{ schema }}.wake_up IS 'Notifications of sleeping workers, one row each, committed with it; the latest ones only.';
COMMENT ON COLUMN {{ schema }}.wake_up.sleeper IS 'The last sleeper that it wakes, and so do all before.';
CREATE INDEX wake_up_sleeper_idx ON {{ schema }}.wake_up (sleeper);
COMMENT ON INDEX {{ schema }}.wake_up_sleeper_idx IS 'Have all been woken?';


CREATE TYPE {{ schema }}.dequeued AS (
  result       {{ schema }}.dequeue_result,
  id           bigint,
  channel      text,
  content      bytea,
  state        bytea,
  num_attempts integer,
  is_unlocked  boolean,
  unlock_at    timestamptz,
  retry_ms     bigint
);
COMMENT ON TYPE {{ schema }}.dequeued IS 'A row of message_dequeue. It may grow at the end: name the columns that you read.';
COMMENT ON COLUMN {{ schema }}.dequeued.result IS 'MESSAGE_DEQUEUED, or MESSAGE_NOT_AVAILABLE in a row of its own.';
COMMENT ON COLUMN {{ schema }}.dequeued.id IS 'The message.';
COMMENT ON COLUMN {{ schema }}.dequeued.channel IS 'Its channel.';
COMMENT ON COLUMN {{ schema }}.dequeued.content IS 'Its content.';
COMMENT ON COLUMN {{ schema }}.dequeued.state IS 'The state that a deferral left with it, or NULL.';
COMMENT ON COLUMN {{ schema }}.dequeued.num_attempts IS 'How often it was dequeued, this time included: the fencing token for delete, defer and heartbeat.';
COMMENT ON COLUMN {{ schema }}.dequeued.is_unlocked IS 'True if this delivery follows a lock that expired, false after a create or a defer.';
COMMENT ON COLUMN {{ schema }}.dequeued.unlock_at IS 'When the lock ends.';
COMMENT ON COLUMN {{ schema }}.dequeued.retry_ms IS 'With MESSAGE_NOT_AVAILABLE: milliseconds until something known can become available; NULL if nothing is known.';

-- What message_dequeue works with inside. A call that is under way while an upgrade replaces the public type goes on with this one.
CREATE TYPE {{ schema }}._taken AS (
  result       {{ schema }}.dequeue_result,
  id           bigint,
  channel      text,
  content      bytea,
  state        bytea,
  num_attempts integer,
  is_unlocked  boolean,
  unlock_at    timestamptz,
  retry_ms     bigint
);
COMMENT ON TYPE {{ schema }}._taken IS 'A row of message_dequeue inside of the functions: the same columns. It never grows: a release that needs more has another type.';
COMMENT ON COLUMN {{ schema }}._taken.result IS 'See dequeued.';
COMMENT ON COLUMN {{ schema }}._taken.id IS 'See dequeued.';
COMMENT ON COLUMN {{ schema }}._taken.channel IS 'See dequeued.';
COMMENT ON COLUMN {{ schema }}._taken.content IS 'See dequeued.';
COMMENT ON COLUMN {{ schema }}._taken.state IS 'See dequeued.';
COMMENT ON COLUMN {{ schema }}._taken.num_attempts IS 'See dequeued.';
COMMENT ON COLUMN {{ schema }}._taken.is_unlocked IS 'See dequeued.';
COMMENT ON COLUMN {{ schema }}._taken.unlock_at IS 'See dequeued.';
COMMENT ON COLUMN {{ schema }}._taken.retry_ms IS 'See dequeued.';

CREATE TYPE {{ schema }}.deleted AS (
  id     bigint,
  result {{ schema }}.delete_result
);
COMMENT ON TYPE {{ schema }}.deleted IS 'A row of message_delete_many. It may grow at the end: name the columns that you read.';
COMMENT ON COLUMN {{ schema }}.deleted.id IS 'The message, as it was given.';
COMMENT ON COLUMN {{ schema }}.deleted.result IS 'What became of it.';

CREATE TYPE {{ schema }}.message_state AS (
  id           bigint,
  status       {{ schema }}.message_status,
  channel      text,
  num_attempts integer,
  created_at   timestamptz,
  dequeue_at   timestamptz,
  locked_at    timestamptz,
  unlock_at    timestamptz
);
COMMENT ON TYPE {{ schema }}.message_state IS 'A row of message_status. It may grow at the end: name the columns that you read.';
COMMENT ON COLUMN {{ schema }}.message_state.id IS 'The message.';
COMMENT ON COLUMN {{ schema }}.message_state.status IS 'WAITING, READY or LOCKED.';
COMMENT ON COLUMN {{ schema }}.message_state.channel IS 'Its channel.';
COMMENT ON COLUMN {{ schema }}.message_state.num_attempts IS 'How often it was dequeued.';
COMMENT ON COLUMN {{ schema }}.message_state.created_at IS 'When it was created.';
COMMENT ON COLUMN {{ schema }}.message_state.dequeue_at IS 'When it is or was due.';
COMMENT ON COLUMN {{ schema }}.message_state.locked_at IS 'When it was dequeued last; NULL if never.';
COMMENT ON COLUMN {{ schema }}.message_state.unlock_at IS 'When the lock of its last dequeue ends or ended; NULL if it was not dequeued since its creation or deferral.';

CREATE TYPE {{ schema }}.version_state AS (
  version          integer,
  package_version  text,
  breaking_version integer
);
COMMENT ON TYPE {{ schema }}.version_state IS 'What version_status answers. It may grow at the end: name the columns that you read.';
COMMENT ON COLUMN {{ schema }}.version_state.version IS 'Number of the last migration; NULL if the ledger is empty.';
COMMENT ON COLUMN {{ schema }}.version_state.package_version IS 'Version of the package that applied it.';
COMMENT ON COLUMN {{ schema }}.version_state.breaking_version IS 'Number of the last migration after which older packages cannot use the schema; NULL if there is none.';

CREATE TYPE {{ schema }}.fault AS (
  kind       text,
  promise    integer,
  channel    text,
  message_id bigint,
  found      text,
  remedy     text
);
COMMENT ON TYPE {{ schema }}.fault IS 'A row of check or repair: something that is wrong. It may grow at the end: name the columns that you read.';
COMMENT ON COLUMN {{ schema }}.fault.kind IS 'What it is, in one word: MESSAGE_FORGOTTEN, MESSAGE_INCONSISTENT, CHANNEL_OVERFULL, LANE_WRONG, POLICY_INCONSISTENT, TRANSACTION_OPEN, SCHEMA_INCOMPLETE.';
COMMENT ON COLUMN {{ schema }}.fault.promise IS 'The number of the promise that it breaks, or will.';
COMMENT ON COLUMN {{ schema }}.fault.channel IS 'The channel; NULL if it is of no channel.';
COMMENT ON COLUMN {{ schema }}.fault.message_id IS 'The message, or the first of several; NULL if it is of no message.';
COMMENT ON COLUMN {{ schema }}.fault.found IS 'What was found.';
COMMENT ON COLUMN {{ schema }}.fault.remedy IS 'What to do about it; of repair: what was done.';

CREATE TYPE {{ schema }}.message_explanation AS (
  id              bigint,
  reason          text,
  explanation     text,
  available_in_ms bigint,
  num_ahead       integer,
  num_lanes_ahead integer
);
COMMENT ON TYPE {{ schema }}.message_explanation IS 'What message_explain answers. It may grow at the end: name the columns that you read.';
COMMENT ON COLUMN {{ schema }}.message_explanation.id IS 'The message.';
COMMENT ON COLUMN {{ schema }}.message_explanation.reason IS 'In one word: GONE, LOCKED, DELAYED, PAUSED, INTERVAL, AT_LIMIT, BEHIND or READY.';
COMMENT ON COLUMN {{ schema }}.message_explanation.explanation IS 'In a sentence.';
COMMENT ON COLUMN {{ schema }}.message_explanation.available_in_ms IS 'Milliseconds until that ends by itself: 0 if it is READY, NULL if nothing known will end it.';
COMMENT ON COLUMN {{ schema }}.message_explanation.num_ahead IS 'How many messages of its channel are due and come before it, 100 if it is more; NULL unless it is due.';
COMMENT ON COLUMN {{ schema }}.message_explanation.num_lanes_ahead IS 'How many other channels have a message and their turn before its channel, 20 if it is more (of those in which nothing is ready yet five are looked at); NULL unless it is READY.';

CREATE TYPE {{ schema }}.channel_explanation AS (
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
COMMENT ON TYPE {{ schema }}.channel_explanation IS 'What channel_explain answers. It may grow at the end: name the columns that you read.';
COMMENT ON COLUMN {{ schema }}.channel_explanation.channel IS 'The channel.';
COMMENT ON COLUMN {{ schema }}.channel_explanation.reason IS 'In one word: EMPTY, LOCKED, DELAYED, PAUSED, INTERVAL, AT_LIMIT or READY.';
COMMENT ON COLUMN {{ schema }}.channel_explanation.explanation IS 'In a sentence.';
COMMENT ON COLUMN {{ schema }}.channel_explanation.available_in_ms IS 'Milliseconds until a message of it can be had: 0 if it is READY, NULL if nothing known will bring one.';
COMMENT ON COLUMN {{ schema }}.channel_explanation.num_available IS 'How many of its messages can be had now, 100 if it is more.';
COMMENT ON COLUMN {{ schema }}.channel_explanation.num_lanes_ahead IS 'How many other channels have a message and their turn before it, 20 if it is more (of those in which nothing is ready yet five are looked at); NULL unless it is READY.';
COMMENT ON COLUMN {{ schema }}.channel_explanation.num_locked IS 'How many of its messages are locked, and their lock is not over; 100 if it is more.';
COMMENT ON COLUMN {{ schema }}.channel_explanation.locked_at IS 'When the one of these was locked that has been so for the longest time.';
COMMENT ON COLUMN {{ schema }}.channel_explanation.max_concurrency IS 'The limit that is in force.';
COMMENT ON COLUMN {{ schema }}.channel_explanation.release_interval_ms IS 'The interval that is in force, in milliseconds.';
