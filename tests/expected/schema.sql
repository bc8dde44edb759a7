CREATE SCHEMA lonny;

COMMENT ON SCHEMA lonny IS 'pylonny: a message queue. Created by its install, dropped by its uninstall.';

CREATE TYPE lonny.dequeue_result AS ENUM (
    'MESSAGE_DEQUEUED',
    'MESSAGE_NOT_AVAILABLE'
);

COMMENT ON TYPE lonny.dequeue_result IS 'What message_dequeue answers.';

CREATE TYPE lonny._taken AS (
	result lonny.dequeue_result,
	id bigint,
	channel text,
	content bytea,
	state bytea,
	num_attempts integer,
	is_unlocked boolean,
	unlock_at timestamp with time zone,
	retry_ms bigint
);

COMMENT ON TYPE lonny._taken IS 'A row of message_dequeue inside of the functions: the same columns. It never grows: a release that needs more has another type.';

COMMENT ON COLUMN lonny._taken.result IS 'See dequeued.';

COMMENT ON COLUMN lonny._taken.id IS 'See dequeued.';

COMMENT ON COLUMN lonny._taken.channel IS 'See dequeued.';

COMMENT ON COLUMN lonny._taken.content IS 'See dequeued.';

COMMENT ON COLUMN lonny._taken.state IS 'See dequeued.';

COMMENT ON COLUMN lonny._taken.num_attempts IS 'See dequeued.';

COMMENT ON COLUMN lonny._taken.is_unlocked IS 'See dequeued.';

COMMENT ON COLUMN lonny._taken.unlock_at IS 'See dequeued.';

COMMENT ON COLUMN lonny._taken.retry_ms IS 'See dequeued.';

CREATE TYPE lonny.cancel_result AS ENUM (
    'MESSAGE_CANCELLED',
    'MESSAGE_NOT_FOUND',
    'MESSAGE_STATE_INVALID'
);

COMMENT ON TYPE lonny.cancel_result IS 'What message_cancel answers.';

CREATE TYPE lonny.channel_explanation AS (
	channel text,
	reason text,
	explanation text,
	available_in_ms bigint,
	num_available integer,
	num_lanes_ahead integer,
	num_locked integer,
	locked_at timestamp with time zone,
	max_concurrency integer,
	release_interval_ms bigint
);

COMMENT ON TYPE lonny.channel_explanation IS 'What channel_explain answers. It may grow at the end: name the columns that you read.';

COMMENT ON COLUMN lonny.channel_explanation.channel IS 'The channel.';

COMMENT ON COLUMN lonny.channel_explanation.reason IS 'In one word: EMPTY, LOCKED, DELAYED, PAUSED, INTERVAL, AT_LIMIT or READY.';

COMMENT ON COLUMN lonny.channel_explanation.explanation IS 'In a sentence.';

COMMENT ON COLUMN lonny.channel_explanation.available_in_ms IS 'Milliseconds until a message of it can be had: 0 if it is READY, NULL if nothing known will bring one.';

COMMENT ON COLUMN lonny.channel_explanation.num_available IS 'How many of its messages can be had now, 100 if it is more.';

COMMENT ON COLUMN lonny.channel_explanation.num_lanes_ahead IS 'How many other channels have a message and their turn before it, 20 if it is more (of those in which nothing is ready yet five are looked at); NULL unless it is READY.';

COMMENT ON COLUMN lonny.channel_explanation.num_locked IS 'How many of its messages are locked, and their lock is not over; 100 if it is more.';

COMMENT ON COLUMN lonny.channel_explanation.locked_at IS 'When the one of these was locked that has been so for the longest time.';

COMMENT ON COLUMN lonny.channel_explanation.max_concurrency IS 'The limit that is in force.';

COMMENT ON COLUMN lonny.channel_explanation.release_interval_ms IS 'The interval that is in force, in milliseconds.';

CREATE TYPE lonny.defer_result AS ENUM (
    'MESSAGE_DEFERRED',
    'MESSAGE_NOT_FOUND',
    'MESSAGE_STATE_INVALID'
);

COMMENT ON TYPE lonny.defer_result IS 'What message_defer answers.';

CREATE TYPE lonny.delete_result AS ENUM (
    'MESSAGE_DELETED',
    'MESSAGE_NOT_FOUND',
    'MESSAGE_STATE_INVALID'
);

COMMENT ON TYPE lonny.delete_result IS 'What message_delete answers.';

CREATE TYPE lonny.deleted AS (
	id bigint,
	result lonny.delete_result
);

COMMENT ON TYPE lonny.deleted IS 'A row of message_delete_many. It may grow at the end: name the columns that you read.';

COMMENT ON COLUMN lonny.deleted.id IS 'The message, as it was given.';

COMMENT ON COLUMN lonny.deleted.result IS 'What became of it.';

CREATE TYPE lonny.dequeued AS (
	result lonny.dequeue_result,
	id bigint,
	channel text,
	content bytea,
	state bytea,
	num_attempts integer,
	is_unlocked boolean,
	unlock_at timestamp with time zone,
	retry_ms bigint
);

COMMENT ON TYPE lonny.dequeued IS 'A row of message_dequeue. It may grow at the end: name the columns that you read.';

COMMENT ON COLUMN lonny.dequeued.result IS 'MESSAGE_DEQUEUED, or MESSAGE_NOT_AVAILABLE in a row of its own.';

COMMENT ON COLUMN lonny.dequeued.id IS 'The message.';

COMMENT ON COLUMN lonny.dequeued.channel IS 'Its channel.';

COMMENT ON COLUMN lonny.dequeued.content IS 'Its content.';

COMMENT ON COLUMN lonny.dequeued.state IS 'The state that a deferral left with it, or NULL.';

COMMENT ON COLUMN lonny.dequeued.num_attempts IS 'How often it was dequeued, this time included: the fencing token for delete, defer and heartbeat.';

COMMENT ON COLUMN lonny.dequeued.is_unlocked IS 'True if this delivery follows a lock that expired, false after a create or a defer.';

COMMENT ON COLUMN lonny.dequeued.unlock_at IS 'When the lock ends.';

COMMENT ON COLUMN lonny.dequeued.retry_ms IS 'With MESSAGE_NOT_AVAILABLE: milliseconds until something known can become available; NULL if nothing is known.';

CREATE TYPE lonny.fault AS (
	kind text,
	promise integer,
	channel text,
	message_id bigint,
	found text,
	remedy text
);

COMMENT ON TYPE lonny.fault IS 'A row of check or repair: something that is wrong. It may grow at the end: name the columns that you read.';

COMMENT ON COLUMN lonny.fault.kind IS 'What it is, in one word: MESSAGE_FORGOTTEN, MESSAGE_INCONSISTENT, CHANNEL_OVERFULL, LANE_WRONG, POLICY_INCONSISTENT, TRANSACTION_OPEN, SCHEMA_INCOMPLETE.';

COMMENT ON COLUMN lonny.fault.promise IS 'The number of the promise that it breaks, or will.';

COMMENT ON COLUMN lonny.fault.channel IS 'The channel; NULL if it is of no channel.';

COMMENT ON COLUMN lonny.fault.message_id IS 'The message, or the first of several; NULL if it is of no message.';

COMMENT ON COLUMN lonny.fault.found IS 'What was found.';

COMMENT ON COLUMN lonny.fault.remedy IS 'What to do about it; of repair: what was done.';

CREATE TYPE lonny.heartbeat_result AS ENUM (
    'MESSAGE_HEARTBEATED',
    'MESSAGE_NOT_FOUND',
    'MESSAGE_STATE_INVALID',
    'MESSAGE_BUSY'
);

COMMENT ON TYPE lonny.heartbeat_result IS 'What message_heartbeat answers.';

CREATE TYPE lonny.message_explanation AS (
	id bigint,
	reason text,
	explanation text,
	available_in_ms bigint,
	num_ahead integer,
	num_lanes_ahead integer
);

COMMENT ON TYPE lonny.message_explanation IS 'What message_explain answers. It may grow at the end: name the columns that you read.';

COMMENT ON COLUMN lonny.message_explanation.id IS 'The message.';

COMMENT ON COLUMN lonny.message_explanation.reason IS 'In one word: GONE, LOCKED, DELAYED, PAUSED, INTERVAL, AT_LIMIT, BEHIND or READY.';

COMMENT ON COLUMN lonny.message_explanation.explanation IS 'In a sentence.';

COMMENT ON COLUMN lonny.message_explanation.available_in_ms IS 'Milliseconds until that ends by itself: 0 if it is READY, NULL if nothing known will end it.';

COMMENT ON COLUMN lonny.message_explanation.num_ahead IS 'How many messages of its channel are due and come before it, 100 if it is more; NULL unless it is due.';

COMMENT ON COLUMN lonny.message_explanation.num_lanes_ahead IS 'How many other channels have a message and their turn before its channel, 20 if it is more (of those in which nothing is ready yet five are looked at); NULL unless it is READY.';

CREATE TYPE lonny.message_status AS ENUM (
    'WAITING',
    'READY',
    'LOCKED'
);

COMMENT ON TYPE lonny.message_status IS 'Where a message is in its life: WAITING (for its delay, or for its channel''s policy to release it), READY (the next dequeue may take it) or LOCKED (a worker has it, or had it and its lock''s end was not noticed yet).';

CREATE TYPE lonny.message_state AS (
	id bigint,
	status lonny.message_status,
	channel text,
	num_attempts integer,
	created_at timestamp with time zone,
	dequeue_at timestamp with time zone,
	locked_at timestamp with time zone,
	unlock_at timestamp with time zone
);

COMMENT ON TYPE lonny.message_state IS 'A row of message_status. It may grow at the end: name the columns that you read.';

COMMENT ON COLUMN lonny.message_state.id IS 'The message.';

COMMENT ON COLUMN lonny.message_state.status IS 'WAITING, READY or LOCKED.';

COMMENT ON COLUMN lonny.message_state.channel IS 'Its channel.';

COMMENT ON COLUMN lonny.message_state.num_attempts IS 'How often it was dequeued.';

COMMENT ON COLUMN lonny.message_state.created_at IS 'When it was created.';

COMMENT ON COLUMN lonny.message_state.dequeue_at IS 'When it is or was due.';

COMMENT ON COLUMN lonny.message_state.locked_at IS 'When it was dequeued last; NULL if never.';

COMMENT ON COLUMN lonny.message_state.unlock_at IS 'When the lock of its last dequeue ends or ended; NULL if it was not dequeued since its creation or deferral.';

CREATE TYPE lonny.version_state AS (
	version integer,
	package_version text,
	breaking_version integer
);

COMMENT ON TYPE lonny.version_state IS 'What version_status answers. It may grow at the end: name the columns that you read.';

COMMENT ON COLUMN lonny.version_state.version IS 'Number of the last migration; NULL if the ledger is empty.';

COMMENT ON COLUMN lonny.version_state.package_version IS 'Version of the package that applied it.';

COMMENT ON COLUMN lonny.version_state.breaking_version IS 'Number of the last migration after which older packages cannot use the schema; NULL if there is none.';

CREATE FUNCTION lonny._bound_producer() RETURNS text[]
    LANGUAGE sql IMMUTABLE
    AS ...;

COMMENT ON FUNCTION lonny._bound_producer() IS 'The functions that a producer of some channels only may call, by name. Who has the right to call this one, and not _producer, is one.';

CREATE FUNCTION lonny._channel_admits(p_lane bigint, p_channel text, p_now timestamp with time zone, p_call_stack text) RETURNS bigint
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._channel_admits(p_lane bigint, p_channel text, p_now timestamp with time zone, p_call_stack text) IS 'The version of a limited channel''s policy that allows one message more to be ready at once; NULL if it does not, or if that is not for the caller to find out. p_now is the time, p_call_stack the caller''s PG_CONTEXT.
To be asked before the transaction has written anything. If it is allowed the channel is the caller''s until its transaction ends.';

CREATE FUNCTION lonny._channel_advance(p_lane bigint, p_channel text, p_released_at timestamp with time zone, p_over_ids bigint[], p_max integer) RETURNS bigint[]
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._channel_advance(p_lane bigint, p_channel text, p_released_at timestamp with time zone, p_over_ids bigint[], p_max integer) IS 'Makes ready what the channel''s policy allows now, at most p_max messages, and takes back what it does not allow, as many; returns the ids of what became ready.
p_released_at is the newest time of release among the wakes that the caller removed, p_over_ids are messages of the channel whose lock may be over. The caller holds the lane''s mutex. With p_max = 1 nothing else is touched, and if nothing is returned the caller has to undo it.';

CREATE FUNCTION lonny._channel_name(p_channel text, p_id bigint, p_created_at timestamp with time zone) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS ...;

COMMENT ON FUNCTION lonny._channel_name(p_channel text, p_id bigint, p_created_at timestamp with time zone) IS 'The name of a message''s channel. One without a channel goes by a uuid of its own, a hash of its id and the time of its creation in microseconds.';

CREATE FUNCTION lonny._channel_offer(p_lane bigint, p_channel text, p_over_ids bigint[], OUT offered bigint, OUT is_busy boolean, OUT is_limited boolean, OUT release_at timestamp with time zone) RETURNS record
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._channel_offer(p_lane bigint, p_channel text, p_over_ids bigint[], OUT offered bigint, OUT is_busy boolean, OUT is_limited boolean, OUT release_at timestamp with time zone) IS 'The message that the caller may take when it is the channel''s turn, made ready for it or held; none if none is to be had or, in a channel without a policy, nothing of it is due.
p_over_ids: messages of the channel whose delay or lock is over, as far as known. is_busy: there is something, and if nothing is offered it is in another transaction''s hands; is_limited: the channel has a policy; release_at: when the channel''s release interval ends, if something waits for that.';

CREATE FUNCTION lonny._channel_outlook(p_lane bigint, p_channel text, p_now timestamp with time zone, OUT num_allowed integer, OUT num_locked integer, OUT locked_at timestamp with time zone, OUT unlock_at timestamp with time zone, OUT release_at timestamp with time zone, OUT max_concurrency integer, OUT release_interval_ms bigint) RETURNS record
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._channel_outlook(p_lane bigint, p_channel text, p_now timestamp with time zone, OUT num_allowed integer, OUT num_locked integer, OUT locked_at timestamp with time zone, OUT unlock_at timestamp with time zone, OUT release_at timestamp with time zone, OUT max_concurrency integer, OUT release_interval_ms bigint) IS 'How many messages of a channel its policy would let a dequeue have at p_now, if they are due, and what holds back the others.
num_locked, locked_at, unlock_at: how many are locked, 100 if it is more, since when, and until when the first of them; release_at: when the release interval ends.';

CREATE FUNCTION lonny._channel_release(p_lane bigint, p_channel text, p_over_ids bigint[]) RETURNS bigint
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._channel_release(p_lane bigint, p_channel text, p_over_ids bigint[]) IS 'Makes the next message of a limited channel ready, if its policy allows, for the caller to take; returns its id, or none if it is in another transaction''s hands or that has the lane''s mutex.';

CREATE TABLE lonny.channel_policy (
    id bigint NOT NULL,
    channel text NOT NULL COLLATE pg_catalog."C",
    max_concurrency integer,
    release_interval_ms bigint,
    cleared boolean NOT NULL
);

COMMENT ON TABLE lonny.channel_policy IS 'Versions of the channels'' policies, only ever added to, so that setting one waits for nobody; the highest id of a channel is in force, older ones are removed in passing.';

COMMENT ON COLUMN lonny.channel_policy.id IS 'Number of the version.';

COMMENT ON COLUMN lonny.channel_policy.channel IS 'The channel it is for.';

COMMENT ON COLUMN lonny.channel_policy.max_concurrency IS 'How many messages of the channel may be out at a time; 0: paused, NULL: no limit.';

COMMENT ON COLUMN lonny.channel_policy.release_interval_ms IS 'Milliseconds between two dequeues of the channel; NULL: no interval.';

COMMENT ON COLUMN lonny.channel_policy.cleared IS 'True if this version says that the channel has no policy.';

CREATE VIEW lonny._policy_in_force AS
 SELECT id,
    channel,
    max_concurrency,
    release_interval_ms
   FROM ( SELECT DISTINCT ON (channel) id,
            channel,
            max_concurrency,
            release_interval_ms,
            cleared
           FROM lonny.channel_policy v
          ORDER BY channel, id DESC) p
  WHERE (NOT cleared);

COMMENT ON VIEW lonny._policy_in_force IS 'The policies in force, one row a channel that has one.';

COMMENT ON COLUMN lonny._policy_in_force.id IS 'Number of the version that is in force.';

COMMENT ON COLUMN lonny._policy_in_force.channel IS 'The channel it is for.';

COMMENT ON COLUMN lonny._policy_in_force.max_concurrency IS 'How many messages of the channel may be out at a time; 0: paused, NULL: no limit.';

COMMENT ON COLUMN lonny._policy_in_force.release_interval_ms IS 'Milliseconds between two dequeues of the channel; NULL: no interval.';

CREATE FUNCTION lonny._channel_survey(p_lane bigint, p_policy lonny._policy_in_force, p_released_at timestamp with time zone, p_now timestamp with time zone, p_over_ids bigint[], OUT room bigint, OUT num_due integer, OUT num_foreign integer, OUT num_overtaking integer, OUT over_ids bigint[], OUT ready_ids bigint[], OUT suspect_ids bigint[], OUT is_flooded boolean, OUT is_ending boolean, OUT released_at timestamp with time zone, OUT release_at timestamp with time zone, OUT early_at timestamp with time zone, OUT next_status lonny.message_status, OUT next_at timestamp with time zone, OUT next_id bigint, OUT is_next_held boolean) RETURNS record
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._channel_survey(p_lane bigint, p_policy lonny._policy_in_force, p_released_at timestamp with time zone, p_now timestamp with time zone, p_over_ids bigint[], OUT room bigint, OUT num_due integer, OUT num_foreign integer, OUT num_overtaking integer, OUT over_ids bigint[], OUT ready_ids bigint[], OUT suspect_ids bigint[], OUT is_flooded boolean, OUT is_ending boolean, OUT released_at timestamp with time zone, OUT release_at timestamp with time zone, OUT early_at timestamp with time zone, OUT next_status lonny.message_status, OUT next_at timestamp with time zone, OUT next_id bigint, OUT is_next_held boolean) IS 'What a channel has out, and what could come next. p_policy is the policy in force, p_released_at the last release that the caller knows of, p_now the time, p_over_ids messages of the channel whose lock may be over.
room: how many more may be out, negative if too many are. num_due: how many wait and are due, two at most. num_foreign: ready, but released by another version of the policy or by none. num_overtaking: wait, due, although they sort before something ready. over_ids: those of p_over_ids whose lock is over, in order. ready_ids: released by this policy, in order. suspect_ids: foreign, and perhaps in another transaction''s hands. is_flooded: there are too many to know all suspects. is_ending: something that is out is in another''s hands. release_at: when the interval ends. early_at: when something is due that was due before, as the clock was set back; it has no timer. next_status: the status of the message that would be the next to release, NULL if there is none; next_at, next_id: its place, if others are ready; is_next_held: it is perhaps in another transaction''s hands.';

CREATE FUNCTION lonny._channel_try_release(p_lane bigint, p_channel text, p_over_ids bigint[]) RETURNS bigint
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._channel_try_release(p_lane bigint, p_channel text, p_over_ids bigint[]) IS 'As _channel_release; but if nothing is released all is undone, the mutex included: the transaction may stay open, and would hold up a channel of which it has nothing.';

CREATE FUNCTION lonny._channels_check(p_channels text[]) RETURNS void
    LANGUAGE plpgsql STABLE
    AS ...;

COMMENT ON FUNCTION lonny._channels_check(p_channels text[]) IS 'Refuses, with 42501, channels in which the role that has logged in may not create messages, because it is bound to others.';

CREATE FUNCTION lonny._clock() RETURNS timestamp with time zone
    LANGUAGE sql PARALLEL SAFE
    AS ...;

COMMENT ON FUNCTION lonny._clock() IS 'The one clock of the queue: the time now, not the transaction''s or the statement''s. Tests replace it.';

CREATE FUNCTION lonny._consumer() RETURNS text[]
    LANGUAGE sql IMMUTABLE
    AS ...;

COMMENT ON FUNCTION lonny._consumer() IS 'The functions that a consumer may call, by name. Who has the right to call this one is a consumer.';

CREATE FUNCTION lonny._entries_read(p_index text) RETURNS bigint
    LANGUAGE sql
    AS ...;

COMMENT ON FUNCTION lonny._entries_read(p_index text) IS 'A counter of the entries of an index that this session''s searches have read, those of dead rows included. Only differences within a call mean anything. It stands still while track_counts is off.';

CREATE FUNCTION lonny._event_channel() RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS ...;

COMMENT ON FUNCTION lonny._event_channel() IS 'The channel that events are sent to with NOTIFY, or NULL if events are off. Set by install.';

CREATE FUNCTION lonny._event_notify(p_type text, p_id bigint, p_channel text, p_delay_ms bigint) RETURNS void
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._event_notify(p_type text, p_id bigint, p_channel text, p_delay_ms bigint) IS 'Sends an event; what is NULL is left out. Delivered when, and only if, the transaction commits.';

CREATE FUNCTION lonny._generation_retire(p_generation bigint, p_is_due boolean) RETURNS void
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._generation_retire(p_generation bigint, p_is_due boolean) IS 'Ends the older of two generations (p_generation is their sum) if nothing is in it and nothing can come; if p_is_due, also if something can.
To be called when nothing was seen in it, by a transaction that has changed nothing yet.';

CREATE FUNCTION lonny._generation_turn(p_from bigint, p_to bigint, p_floor_seen bigint, p_floor bigint) RETURNS void
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._generation_turn(p_from bigint, p_to bigint, p_floor_seen bigint, p_floor bigint) IS 'Sets generation to p_to if it is p_from: has the first one begin, or a younger one (p_to is odd), or the older one end. With p_to NULL it ends with generations. Does nothing if another session does any of this at the same moment.
p_floor, in microseconds since 1970: nothing can come in the older one any more, nor a timer of this time or before, and timer_floor was p_floor_seen when that was found out; NULL unless it was.';

CREATE FUNCTION lonny._generations_walk() RETURNS void
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._generations_walk() IS 'Looks through all that is ready or due, dead rows included, and takes what is in neither of the two generations into the younger; begins with generations if none is in use, and ends with them if dead rows are few or ready messages are many. Sets when to walk again: after 20 times as long as it took, at least 500 ms, at most a minute.';

CREATE FUNCTION lonny._horizon_is_over(p_horizon bigint) RETURNS boolean
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._horizon_is_over(p_horizon bigint) IS 'Whether all transactions with numbers below p_horizon that may have made something ready have ended: what they have committed is seen from now on.';

CREATE FUNCTION lonny._horizons_draw() RETURNS void
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._horizons_draw() IS 'Sets generation_horizon and late_horizon, if they are not known, to the number of the transaction under way, which must not have one yet.';

CREATE FUNCTION lonny._is_alone(p_call_stack text) RETURNS boolean
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._is_alone(p_call_stack text) IS 'Whether the statement under way is a transaction of its own, as far as can be told; if in doubt, false. p_call_stack is the caller''s PG_CONTEXT.
To be asked before the transaction has written anything: one that has is not alone. Commands sent after it in one pipeline are not known.';

CREATE FUNCTION lonny._lane(p_channel text) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS ...;

COMMENT ON FUNCTION lonny._lane(p_channel text) IS 'The rotation''s key of a named channel. Two channels that collide share turns, nothing else.';

CREATE FUNCTION lonny._lane_tend(p_lane bigint) RETURNS boolean
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._lane_tend(p_lane bigint) IS 'Removes the due wakes of a lane, at most 1000, and advances their channels, each by 200 messages at most; returns false, and does nothing, if another transaction has the lane''s mutex.';

CREATE FUNCTION lonny._lanes_ahead(p_lane bigint, p_now timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._lanes_ahead(p_lane bigint, p_now timestamp with time zone) IS 'How many lanes have a message that can be had at p_now, and their turn before p_lane; 20 if it is more, and of those in which nothing is ready yet five are looked at.';

CREATE FUNCTION lonny._lanes_next(p_served bigint, p_limit integer, p_generations bigint[]) RETURNS SETOF bigint
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._lanes_next(p_served bigint, p_limit integer, p_generations bigint[]) IS 'The next lanes that have ready messages, in rotation after p_served, at most p_limit; of p_generations only unless it is NULL.';

CREATE FUNCTION lonny._late_lift(p_horizon bigint) RETURNS void
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._late_lift(p_horizon bigint) IS 'Sets late_horizon to 0 if it is p_horizon.';

CREATE FUNCTION lonny._message_hold(p_served bigint, p_generation bigint) RETURNS bigint
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._message_hold(p_served bigint, p_generation bigint) IS 'Holds the first ready message of a generation, in rotation after the lane p_served, that no other transaction holds, and returns its id; NULL if there is none.';

CREATE FUNCTION lonny._message_offer(p_lane bigint, p_channel text, p_over_ids bigint[], p_now timestamp with time zone, OUT offered bigint, OUT is_busy boolean) RETURNS record
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._message_offer(p_lane bigint, p_channel text, p_over_ids bigint[], p_now timestamp with time zone, OUT offered bigint, OUT is_busy boolean) IS 'As _channel_offer, for a channel without a policy or the messages without a channel. is_busy: something is due; if nothing is offered it is in another transaction''s hands.';

CREATE FUNCTION lonny._message_try_offer(p_lane bigint, p_channel text, p_over_ids bigint[], p_now timestamp with time zone) RETURNS bigint
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._message_try_offer(p_lane bigint, p_channel text, p_over_ids bigint[], p_now timestamp with time zone) IS 'As _message_offer; but if nothing is offered all is undone, the mutex included: the transaction may stay open, and a policy that the channel gets would wait for it.';

CREATE FUNCTION lonny._microseconds(p_at timestamp with time zone) RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
    AS ...;

COMMENT ON FUNCTION lonny._microseconds(p_at timestamp with time zone) IS 'A time as a sequence can hold it: microseconds since 1970.';

CREATE FUNCTION lonny._num_due(p_lane bigint, p_channel text, p_now timestamp with time zone, p_before_at timestamp with time zone, p_before_id bigint, p_most integer) RETURNS integer
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._num_due(p_lane bigint, p_channel text, p_now timestamp with time zone, p_before_at timestamp with time zone, p_before_id bigint, p_most integer) IS 'How many messages of a channel are due at p_now and not locked, and sort before (p_before_at, p_before_id); p_most if it is more.';

CREATE FUNCTION lonny._objects() RETURNS TABLE(kind text, name text, part text, checksum text)
    LANGUAGE sql STABLE
    AS ...;

COMMENT ON FUNCTION lonny._objects() IS 'What the catalog says of the objects in this schema: one row each and one for each part, with a checksum of its definition.
To be called with the search path of the public functions. Of functions only those that an install has made, of others all that there are.';

CREATE FUNCTION lonny._operator() RETURNS text[]
    LANGUAGE sql IMMUTABLE
    AS ...;

COMMENT ON FUNCTION lonny._operator() IS 'The functions that an operator may call, by name. Who has the right to call this one is an operator.';

CREATE FUNCTION lonny._place_freed(p_lane bigint, p_channel text) RETURNS void
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._place_freed(p_lane bigint, p_channel text) IS 'Wakes a channel one of whose messages is no longer out, if another waits. To be called after that message''s row was changed, in a statement of its own.';

CREATE FUNCTION lonny._places_freed(p_lanes bigint[], p_channels text[]) RETURNS void
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._places_freed(p_lanes bigint[], p_channels text[]) IS 'Wakes those of the channels, given with their lanes, in which messages wait. To be called after messages of theirs that were out were changed, in a statement of its own.';

CREATE FUNCTION lonny._policy_add(p_channel text, p_max_concurrency integer, p_release_interval_ms bigint) RETURNS void
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._policy_add(p_channel text, p_max_concurrency integer, p_release_interval_ms bigint) IS 'Adds a version of a channel''s policy, one without limits if there are none, and wakes the channel.';

CREATE FUNCTION lonny._producer() RETURNS text[]
    LANGUAGE sql IMMUTABLE
    AS ...;

COMMENT ON FUNCTION lonny._producer() IS 'The functions that a producer may call, by name. Who has the right to call this one is a producer.';

CREATE FUNCTION lonny._raise_invalid(p_argument text, p_value text, p_hint text) RETURNS void
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._raise_invalid(p_argument text, p_value text, p_hint text) IS 'Refuses an argument: 22004 if it is NULL, else 22023, with its name, its value and what would be right.';

CREATE FUNCTION lonny._retry_ms(p_is_busy boolean, p_release_at timestamp with time zone, p_looked_at timestamp with time zone) RETURNS bigint
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._retry_ms(p_is_busy boolean, p_release_at timestamp with time zone, p_looked_at timestamp with time zone) IS 'Milliseconds, rounded up, until the next delay, lock or timer ends that was not over at p_looked_at, or until p_release_at; 0 if that is over by now, at most 50 if p_is_busy, or 1000 beside an old snapshot, NULL if nothing is known.';

CREATE FUNCTION lonny._roles() RETURNS TABLE(role regrole, kind text, channel_prefix text, functions text[])
    LANGUAGE sql STABLE
    AS ...;

COMMENT ON FUNCTION lonny._roles() IS 'The roles that role_grant has made something, and what: one row each, with the names of the functions that they may call.';

CREATE FUNCTION lonny._roles_renew() RETURNS void
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._roles_renew() IS 'Grants producers, consumers and operators what functions they lack. Every install does it.';

CREATE FUNCTION lonny._schema_missing() RETURNS TABLE(name text, statement text)
    LANGUAGE plpgsql STABLE
    AS ...;

COMMENT ON FUNCTION lonny._schema_missing() IS 'The indexes and constraints that are missing or not valid, each with the statement that makes it.';

CREATE FUNCTION lonny._sleeper_nap_ms() RETURNS bigint
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._sleeper_nap_ms() IS 'NULL if a worker may sleep, once it has looked one more time, until it is woken: on _wake_channel, to which it has to LISTEN already. Else after how many milliseconds it has to look again, at most 1000.';

CREATE FUNCTION lonny._sleepers_wake() RETURNS void
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._sleepers_wake() IS 'Wakes the workers that sleep, when, and only if, the transaction commits; does nothing if all of them have been woken since they fell asleep.';

CREATE FUNCTION lonny._take_in_generations(p_max_messages integer, p_lock_ms bigint, p_is_alone boolean) RETURNS SETOF lonny._taken
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._take_in_generations(p_max_messages integer, p_lock_ms bigint, p_is_alone boolean) IS 'What message_dequeue does beside an old snapshot: takes up to p_max_messages of those that are ready in the generations in use; no row if none is to be had there, or none is in use.
p_lock_ms as of _take_one, p_is_alone as of _is_alone.';

CREATE FUNCTION lonny._take_in_turn(p_served bigint, p_max_messages integer, p_lock_ms bigint, p_window integer, OUT taken_ids bigint[], OUT are_unlocked boolean[], OUT is_busy boolean, OUT release_at timestamp with time zone, OUT limited_lanes bigint[]) RETURNS record
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._take_in_turn(p_served bigint, p_max_messages integer, p_lock_ms bigint, p_window integer, OUT taken_ids bigint[], OUT are_unlocked boolean[], OUT is_busy boolean, OUT release_at timestamp with time zone, OUT limited_lanes bigint[]) IS 'Takes up to p_max_messages, those whose turn it is after the lane p_served, made ready for it if need be; none if none is to be had.
p_lock_ms as of _take_one, p_window as of _turns_due. is_busy: something is in another transaction''s hands; release_at: the first end of a release interval that something waits for; limited_lanes: those that have nothing to be had now, because of a policy. The ids of what it took come in the order of turns, are_unlocked with them; not the rows, since an array takes no more than 1 GB.';

CREATE FUNCTION lonny._take_many(p_served bigint, p_max_messages integer, p_lock_ms bigint, p_is_alone boolean, p_generations bigint[]) RETURNS SETOF lonny._taken
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._take_many(p_served bigint, p_max_messages integer, p_lock_ms bigint, p_is_alone boolean, p_generations bigint[]) IS 'Locks up to p_max_messages ready messages in the order of turns and returns them; no row if none is to be had. p_is_alone as of _is_alone, p_generations as of _lanes_next, the others as of _take_one.';

CREATE FUNCTION lonny._take_one(p_served bigint, p_lane bigint, p_id bigint, p_lock_ms bigint) RETURNS lonny._taken
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._take_one(p_served bigint, p_lane bigint, p_id bigint, p_lock_ms bigint) IS 'Locks a message and returns it: p_id if it is given, else the first ready one of p_lane. NULL if there is none, or if the channel''s policy did not release it.
p_served is the lane served last, p_lock_ms replaces the message''s own lock time unless NULL.';

CREATE FUNCTION lonny._tend(p_budget integer, p_messages boolean, p_timers boolean, p_mark timestamp with time zone, p_generations bigint[]) RETURNS boolean
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._tend(p_budget integer, p_messages boolean, p_timers boolean, p_mark timestamp with time zone, p_generations bigint[]) IS 'Notices delays, locks and timers that are over, at most p_budget messages (each becomes ready, or waits with a wake if its channel has a policy) and four times as many timers (each becomes a due wake), then advances the channels of the next p_budget lanes that have due wakes. Returns false if all of this is in other transactions'' hands.
p_messages: there are messages whose delay or lock is over; p_timers: there are timers that are. p_mark: what was over before is not looked at; p_generations: nor wakes of others, unless NULL.';

CREATE FUNCTION lonny._timer_set(p_lane bigint, p_channel text, p_at timestamp with time zone, p_released_at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._timer_set(p_lane bigint, p_channel text, p_at timestamp with time zone, p_released_at timestamp with time zone) IS 'Has a channel looked at when p_at is over, unless a timer does so already. p_released_at: the release that an interval is counted from, or NULL.';

CREATE FUNCTION lonny._turns_due(p_after bigint, p_last bigint, p_window integer, p_taken_ids bigint[]) RETURNS TABLE(lane bigint, channel text, message_ids bigint[])
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._turns_due(p_after bigint, p_last bigint, p_window integer, p_taken_ids bigint[]) IS 'The channels for which something is due, in rotation after the lane p_after and up to p_last (the same: all the way round), each with its messages whose delay or lock is over, as far as p_window shows them and without p_taken_ids.';

CREATE FUNCTION lonny._wake_channel() RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS ...;

COMMENT ON FUNCTION lonny._wake_channel() IS 'The channel on which sleeping workers are woken with NOTIFY, or NULL if none are. Set by install.';

CREATE FUNCTION lonny._wakes_next(p_served bigint, p_last bigint, p_limit integer) RETURNS TABLE(lane bigint, channel text)
    LANGUAGE plpgsql
    AS ...;

COMMENT ON FUNCTION lonny._wakes_next(p_served bigint, p_last bigint, p_limit integer) IS 'The next lanes that have due wakes, in rotation after p_served and up to p_last (the same: all the way round), at most p_limit, each with one of its channels.';

CREATE FUNCTION lonny._walk_is_in_time(p_at timestamp with time zone, p_late interval) RETURNS boolean
    LANGUAGE sql STABLE
    AS ...;

COMMENT ON FUNCTION lonny._walk_is_in_time(p_at timestamp with time zone, p_late interval) IS 'Whether the next walk of the generations is overdue at p_at by p_late at most. False before the first one is over.';

CREATE FUNCTION lonny.channel_explain(channel text) RETURNS lonny.channel_explanation
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS ...;

COMMENT ON FUNCTION lonny.channel_explain(channel text) IS 'Why is nothing delivered from this channel? One row, in words and columns.
reason is EMPTY, LOCKED (all that it has), DELAYED (nothing is due yet), PAUSED, INTERVAL (the next release is still to come), AT_LIMIT (as many are locked as may be) or READY: num_available can be had, in the turn after num_lanes_ahead other channels. Limits and locks come with it. See message_explain. Errors: 22004, 22023.';

CREATE FUNCTION lonny.channel_policy_clear(channel text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS ...;

COMMENT ON FUNCTION lonny.channel_policy_clear(channel text) IS 'Removes all limits of a channel.
It binds every dequeue that begins after it is committed. Errors: 22004, 22023.';

CREATE FUNCTION lonny.channel_policy_set(channel text, max_concurrency integer DEFAULT NULL::integer, release_interval_ms bigint DEFAULT NULL::bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS ...;

COMMENT ON FUNCTION lonny.channel_policy_set(channel text, max_concurrency integer, release_interval_ms bigint) IS 'Limits a channel: at most max_concurrency of its messages are out at a time, and two dequeues are release_interval_ms milliseconds apart.
max_concurrency NULL: no limit, 0: paused; release_interval_ms NULL or 0: no interval. Both are replaced. It binds every dequeue that begins after it is committed, for messages already there too. Errors: 22004, 22023.';

CREATE FUNCTION lonny."check"(max_open_ms bigint DEFAULT 60000) RETURNS SETOF lonny.fault
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 10
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS ...;

COMMENT ON FUNCTION lonny."check"(max_open_ms bigint) IS 'What is wrong with the queue: a row for each fault, none when all is well; at most 1000 of a kind.
It reads each table as a whole, once or twice (about a second for a million messages), and locks nothing that anyone waits for. Of the promises in the design it verifies those that a snapshot can show. max_open_ms: for how many milliseconds a transaction that has dequeued may be open; to find them the owner of the queue has to be a role that may see other sessions (pg_read_all_stats). Errors: 22004, 22023.';

CREATE FUNCTION lonny.message_cancel(id bigint) RETURNS lonny.cancel_result
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS ...;

COMMENT ON FUNCTION lonny.message_cancel(id bigint) IS 'Removes a message that no worker holds; MESSAGE_STATE_INVALID if it is locked.
A lock that is over does not count, even if no dequeue has noticed. Its event is MESSAGE_DELETED. Errors: 22004.';

CREATE FUNCTION lonny.message_create(channel text, content bytea, lock_ms bigint, delay_ms bigint DEFAULT 0) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS ...;

COMMENT ON FUNCTION lonny.message_create(channel text, content bytea, lock_ms bigint, delay_ms bigint) IS 'Puts a message into a channel and returns its id.
It can be dequeued once the calling transaction has committed and delay_ms milliseconds have passed since the call; a negative delay puts it ahead of others in its channel. channel NULL: no channel; all such messages share one turn, first in, first out. lock_ms is for how many milliseconds a dequeue locks it and a heartbeat extends the lock. The content has at most 256000000 bytes. Errors: 42501 if the role is bound to other channels, 22004, 22023.';

CREATE FUNCTION lonny.message_create_many(channels text[], contents bytea[], lock_ms bigint[], delay_ms bigint[] DEFAULT '{0}'::bigint[]) RETURNS SETOF bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS ...;

COMMENT ON FUNCTION lonny.message_create_many(channels text[], contents bytea[], lock_ms bigint[], delay_ms bigint[]) IS 'Puts many messages in at once and returns their ids in the order of the input.
channels NULL, or an element NULL: no channel. lock_ms and delay_ms, in milliseconds, have one element for all or as many as contents. Each message is as by message_create. Errors: 42501 if the role is bound to other channels, 22004, 22023, also for arrays of lengths that do not fit; then nothing is created.';

CREATE FUNCTION lonny.message_defer(id bigint, num_attempts integer, delay_ms bigint DEFAULT 0, state bytea DEFAULT NULL::bytea) RETURNS lonny.defer_result
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS ...;

COMMENT ON FUNCTION lonny.message_defer(id bigint, num_attempts integer, delay_ms bigint, state bytea) IS 'Gives a message that the caller has dequeued back, to be delivered again after delay_ms milliseconds.
state is kept with the message for the next delivery; NULL keeps the state that it has, an empty one is a state like any other, and 256000000 bytes are the most. A negative delay puts it ahead of others in its channel. num_attempts as in message_delete. Errors: 22004, 22023.';

CREATE FUNCTION lonny.message_delete(id bigint, num_attempts integer) RETURNS lonny.delete_result
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS ...;

COMMENT ON FUNCTION lonny.message_delete(id bigint, num_attempts integer) IS 'Removes a message that the caller has dequeued: its work is done.
num_attempts is the fencing token that message_dequeue returned; with another one, or if the message was deferred since, the answer is MESSAGE_STATE_INVALID and nothing changes. A worker whose lock has expired may still delete until the message is dequeued again. Errors: 22004.';

CREATE FUNCTION lonny.message_delete_many(ids bigint[], num_attempts integer[]) RETURNS SETOF lonny.deleted
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS ...;

COMMENT ON FUNCTION lonny.message_delete_many(ids bigint[], num_attempts integer[]) IS 'Removes many messages that the caller has dequeued; returns a row for each, in the order of the input.
Each is as by message_delete; one given twice is deleted once and then MESSAGE_NOT_FOUND. Errors: 22004, 22023 for arrays of lengths that do not fit; then nothing is deleted.';

CREATE FUNCTION lonny.message_dequeue(max_messages integer DEFAULT 1, lock_ms bigint DEFAULT NULL::bigint) RETURNS SETOF lonny.dequeued
    LANGUAGE plpgsql SECURITY DEFINER ROWS 10
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS ...;

COMMENT ON FUNCTION lonny.message_dequeue(max_messages integer, lock_ms bigint) IS 'Takes the next messages, in rotation over the channels, and locks them.
Returns 1 to max_messages rows MESSAGE_DEQUEUED in the order of turns, or one row MESSAGE_NOT_AVAILABLE with retry_ms: milliseconds until something known can become available, at most 50 if something is in another transaction''s hands, NULL if nothing is known (1000 beside an old snapshot). lock_ms, in milliseconds, replaces the messages'' own lock time from now on; NULL keeps it. Commit at once: the lock is in the row, not in the transaction. Errors: 22004, 22023; 25001 unless in READ COMMITTED.';

CREATE FUNCTION lonny.message_explain(id bigint) RETURNS lonny.message_explanation
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS ...;

COMMENT ON FUNCTION lonny.message_explain(id bigint) IS 'Why is this message not delivered? One row, in words and columns.
reason is GONE, LOCKED (by a worker), DELAYED, PAUSED, INTERVAL (its channel''s next release is still to come), AT_LIMIT (as many of its channel are locked as may be), BEHIND (others of its channel come first, and there is no room for more) or READY: a dequeue can have it, after num_ahead of its channel and in the turn after num_lanes_ahead others. It uses the survey that decides in a dequeue, but does not know what other transactions hold right now. Errors: 22004.';

CREATE FUNCTION lonny.message_heartbeat(id bigint, num_attempts integer, lock_ms bigint DEFAULT NULL::bigint) RETURNS lonny.heartbeat_result
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS ...;

COMMENT ON FUNCTION lonny.message_heartbeat(id bigint, num_attempts integer, lock_ms bigint) IS 'Extends the lock of a message that the caller has dequeued to lock_ms milliseconds from now; never shortens it.
lock_ms replaces the message''s own lock time from now on; NULL keeps it. Never waits: MESSAGE_BUSY if another transaction is at this very message right now. After the lock has expired it works only until a dequeue has noticed. num_attempts as in message_delete. Errors: 22004, 22023.';

CREATE FUNCTION lonny.message_status(ids bigint[]) RETURNS SETOF lonny.message_state
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS ...;

COMMENT ON FUNCTION lonny.message_status(ids bigint[]) IS 'Where messages are in their lives: a row for each that exists, in the order of the input; what is missing is gone.
Name the argument (ids => ''{1,2}'') or give an array (ARRAY[1,2]): message_status(''{1,2}'') is a cast to the type of the same name. Errors: 22004.';

CREATE FUNCTION lonny.repair() RETURNS SETOF lonny.fault
    LANGUAGE plpgsql SECURITY DEFINER ROWS 10
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS ...;

COMMENT ON FUNCTION lonny.repair() IS 'Mends what check finds and says what it did: the rows of check, with what was done for a remedy.
At most 1000 faults of a kind are mended in a call; TRANSACTION_OPEN and SCHEMA_INCOMPLETE are left to you. Like all functions here it waits for nobody. Errors: 55P03 while another transaction is repairing.';

CREATE FUNCTION lonny.role_grant(role text, kind text, channel_prefix text DEFAULT NULL::text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS ...;

COMMENT ON FUNCTION lonny.role_grant(role text, kind text, channel_prefix text) IS 'Makes a role a producer, a consumer or an operator of the queue: lets it call what these need, and nothing else.
A producer creates messages; a consumer dequeues them, and deletes, defers and keeps what it has; an operator sets policies, cancels, and looks at what there is. A role may be several of these: call it for each. No role needs rights on the tables. channel_prefix, for a producer, binds it to channels whose names begin so; NULL, to none. It is looked for by the role that has logged in: that one, or what it inherits from, has to be the one that is bound; SET ROLE does not matter. Only the owner of the queue may call it. Errors: 22004, 22023; 42704 if there is no such role.';

CREATE FUNCTION lonny.role_revoke(role text, kind text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS ...;

COMMENT ON FUNCTION lonny.role_revoke(role text, kind text) IS 'Takes back what role_grant has given a role: it is no producer, consumer or operator any more.
The functions that it needs as something else stay; with the last one goes the right to use the schema. If it was none, nothing happens. A role that is to be dropped needs it before, or DROP OWNED. Only the owner of the queue may call it. Errors: 22004, 22023; 42704 if there is no such role.';

CREATE FUNCTION lonny.version_status() RETURNS lonny.version_state
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS ...;

COMMENT ON FUNCTION lonny.version_status() IS 'Which version of the queue is installed, for programs that ask whether they go with it.';

ALTER TABLE lonny.channel_policy ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME lonny.channel_policy_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE UNLOGGED SEQUENCE lonny.generation
    START WITH 0
    INCREMENT BY 1
    MINVALUE -9223372036854775808
    NO MAXVALUE
    CACHE 1;

COMMENT ON SEQUENCE lonny.generation IS 'The sum of the two generations in use: what becomes ready gets the younger, what is ready has the one or the other. 2: only 1 is in use, 3: 1 and 2, 4: only 2. 0 or less: none is, -4: those up to 2 were.';

CREATE UNLOGGED SEQUENCE lonny.generation_at
    START WITH 0
    INCREMENT BY 1
    MINVALUE -9223372036854775808
    NO MAXVALUE
    CACHE 1;

COMMENT ON SEQUENCE lonny.generation_at IS 'When the younger of two generations began, in microseconds since 1970.';

CREATE UNLOGGED SEQUENCE lonny.generation_horizon
    START WITH 0
    INCREMENT BY 1
    MINVALUE 0
    NO MAXVALUE
    CACHE 1;

COMMENT ON SEQUENCE lonny.generation_horizon IS 'Transactions with a lower number may still commit something in the older of two generations; the highest number of all: it is not known which.';

CREATE UNLOGGED SEQUENCE lonny.generation_walk
    START WITH 0
    INCREMENT BY 1
    MINVALUE 0
    NO MAXVALUE
    CACHE 1;

COMMENT ON SEQUENCE lonny.generation_walk IS 'When to look for what is ready in neither generation, in microseconds since 1970; 0: never, none is in use; 1: at once, and before the first look is over nobody searches by generations.';

CREATE UNLOGGED SEQUENCE lonny.late_horizon
    START WITH 0
    INCREMENT BY 1
    MINVALUE 0
    NO MAXVALUE
    CACHE 1;

COMMENT ON SEQUENCE lonny.late_horizon IS 'Transactions with a lower number may still commit something that is in neither generation; 0: all that is ready is in the two; the highest number of all: it is not known which.';

CREATE TABLE lonny.message (
    id bigint NOT NULL,
    lane bigint NOT NULL,
    lock_ms bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    dequeue_at timestamp with time zone NOT NULL,
    timer_at timestamp with time zone,
    locked_at timestamp with time zone,
    unlock_at timestamp with time zone,
    policy_id bigint,
    generation bigint DEFAULT 
CASE
    WHEN (pg_current_xact_id() IS NOT NULL) THEN NULLIF((GREATEST((pg_sequence_last_value('lonny.generation'::regclass) + 1), (1)::bigint) / 2), 0)
    ELSE NULL::bigint
END,
    num_attempts integer DEFAULT 0 NOT NULL,
    status lonny.message_status NOT NULL,
    channel text COLLATE pg_catalog."C",
    content bytea NOT NULL,
    state bytea
)
WITH (vacuum_truncate='false', autovacuum_vacuum_threshold='1000', autovacuum_vacuum_scale_factor='0.01');

COMMENT ON TABLE lonny.message IS 'The messages, one row each. Read it as you like; change it only through the functions.';

COMMENT ON COLUMN lonny.message.id IS 'Number of the message, ascending in the order of creation; never used again.';

COMMENT ON COLUMN lonny.message.lane IS 'The rotation''s key: a hash of the channel, or 0 for all messages created without one.';

COMMENT ON COLUMN lonny.message.lock_ms IS 'How long a dequeue locks the message, in milliseconds.';

COMMENT ON COLUMN lonny.message.created_at IS 'When it was created.';

COMMENT ON COLUMN lonny.message.dequeue_at IS 'When it is due, and with id its place in the channel: the time of its creation or deferral plus the delay.';

COMMENT ON COLUMN lonny.message.timer_at IS 'When a dequeue has to look at it: the end of its delay (WAITING) or of its lock (LOCKED); NULL if there is nothing to look at.';

COMMENT ON COLUMN lonny.message.locked_at IS 'When it was dequeued last; NULL if never.';

COMMENT ON COLUMN lonny.message.unlock_at IS 'When the lock of its last dequeue ends or ended; NULL if it was not dequeued since its creation or deferral.';

COMMENT ON COLUMN lonny.message.policy_id IS 'The version of the channel''s policy that released it last; NULL if it was released without one.';

COMMENT ON COLUMN lonny.message.generation IS 'The generation in which it became ready last; NULL: none was in use.';

COMMENT ON COLUMN lonny.message.num_attempts IS 'How often it was dequeued: the fencing token.';

COMMENT ON COLUMN lonny.message.status IS 'WAITING, READY or LOCKED.';

COMMENT ON COLUMN lonny.message.channel IS 'Its channel; NULL if it was created without one (_channel_name tells the name that such a message goes by).';

COMMENT ON COLUMN lonny.message.content IS 'What the producer gave.';

COMMENT ON COLUMN lonny.message.state IS 'What the worker kept at the last deferral that gave a state.';

ALTER TABLE lonny.message ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME lonny.message_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE lonny.migration (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    package_version text NOT NULL,
    is_breaking boolean NOT NULL,
    applied_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE lonny.migration IS 'pylonny: the ledger of what is installed in this schema, one row a migration. Its presence marks the schema as pylonny''s.';

COMMENT ON COLUMN lonny.migration.version IS 'Number of the migration, in the order of application.';

COMMENT ON COLUMN lonny.migration.name IS 'Name of the migration''s file without number and ending.';

COMMENT ON COLUMN lonny.migration.checksum IS 'SHA-256 (hex) of the migration''s template as it was applied.';

COMMENT ON COLUMN lonny.migration.package_version IS 'Version of the package that applied it.';

COMMENT ON COLUMN lonny.migration.is_breaking IS 'Whether packages older than it cannot use the schema any more.';

COMMENT ON COLUMN lonny.migration.applied_at IS 'When it was applied.';

CREATE TABLE lonny.object (
    kind text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    part text NOT NULL COLLATE pg_catalog."C",
    checksum text NOT NULL
);

COMMENT ON TABLE lonny.object IS 'What the catalog said of each object when it was installed, for status to compare with what it says now (see _objects).';

COMMENT ON COLUMN lonny.object.kind IS 'What it is: function, table, view, sequence or type.';

COMMENT ON COLUMN lonny.object.name IS 'Its name.';

COMMENT ON COLUMN lonny.object.part IS 'Of a function the types of its arguments, else a column, an index or such; empty for the object itself.';

COMMENT ON COLUMN lonny.object.checksum IS 'MD5 (hex) of its definition.';

CREATE TABLE lonny.producer (
    role regrole NOT NULL,
    channel_prefix text NOT NULL
);

COMMENT ON TABLE lonny.producer IS 'The roles that may create messages in some channels only. What a role may is in the catalog: see _roles.';

COMMENT ON COLUMN lonny.producer.role IS 'The role; of one that is gone nothing is made.';

COMMENT ON COLUMN lonny.producer.channel_prefix IS 'What the names of its channels begin with.';

CREATE UNLOGGED SEQUENCE lonny.rotation
    START WITH 0
    INCREMENT BY 1
    MINVALUE -9223372036854775808
    NO MAXVALUE
    CACHE 1;

COMMENT ON SEQUENCE lonny.rotation IS 'The lane that was served last.';

CREATE UNLOGGED SEQUENCE lonny.sleeper
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

COMMENT ON SEQUENCE lonny.sleeper IS 'The number of the last dequeue that let its worker sleep.';

CREATE UNLOGGED SEQUENCE lonny.sleeper_at
    START WITH 0
    INCREMENT BY 1
    MINVALUE -9223372036854775808
    NO MAXVALUE
    CACHE 1;

COMMENT ON SEQUENCE lonny.sleeper_at IS 'When that was, in microseconds since 1970.';

CREATE TABLE lonny.template (
    path text NOT NULL COLLATE pg_catalog."C",
    checksum text NOT NULL,
    package_version text NOT NULL,
    applied_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE lonny.template IS 'The ledger of what every install runs anew, one row a file: functions and rights.';

COMMENT ON COLUMN lonny.template.path IS 'The file, below the folder of the templates.';

COMMENT ON COLUMN lonny.template.checksum IS 'SHA-256 (hex) of the template as it was applied.';

COMMENT ON COLUMN lonny.template.package_version IS 'Version of the package that applied it.';

COMMENT ON COLUMN lonny.template.applied_at IS 'When it was applied last.';

CREATE UNLOGGED SEQUENCE lonny.timer_floor
    START WITH 0
    INCREMENT BY 1
    MINVALUE -9223372036854775808
    NO MAXVALUE
    CACHE 1;

COMMENT ON SEQUENCE lonny.timer_floor IS 'No timer of this time or before is left, or can come; in microseconds since 1970.';

CREATE UNLOGGED SEQUENCE lonny.timer_mark
    START WITH 0
    INCREMENT BY 1
    MINVALUE -9223372036854775808
    NO MAXVALUE
    CACHE 1;

COMMENT ON SEQUENCE lonny.timer_mark IS 'Where the search for timers that are over begins while generations are in use, in microseconds since 1970.';

CREATE TABLE lonny.wake (
    lane bigint NOT NULL,
    at timestamp with time zone,
    released_at timestamp with time zone,
    generation bigint DEFAULT 
CASE
    WHEN (pg_current_xact_id() IS NOT NULL) THEN NULLIF((GREATEST((pg_sequence_last_value('lonny.generation'::regclass) + 1), (1)::bigint) / 2), 0)
    ELSE NULL::bigint
END,
    channel text NOT NULL COLLATE pg_catalog."C"
)
WITH (vacuum_truncate='false');

ALTER TABLE ONLY lonny.wake REPLICA IDENTITY FULL;

COMMENT ON TABLE lonny.wake IS 'Signals and timers, only ever added to: look at this channel, now or at a time; deleted when that was done.';

COMMENT ON COLUMN lonny.wake.lane IS 'The channel''s lane.';

COMMENT ON COLUMN lonny.wake.at IS 'When to look at the channel; NULL: now.';

COMMENT ON COLUMN lonny.wake.released_at IS 'Set if this is the timer of a release interval: the time of the dequeue that the interval follows.';

COMMENT ON COLUMN lonny.wake.generation IS 'The generation in which it became due; NULL: none was in use.';

COMMENT ON COLUMN lonny.wake.channel IS 'The channel to look at.';

CREATE UNLOGGED SEQUENCE lonny.wake_rotation
    START WITH 0
    INCREMENT BY 1
    MINVALUE -9223372036854775808
    NO MAXVALUE
    CACHE 1;

COMMENT ON SEQUENCE lonny.wake_rotation IS 'The lane whose wakes were handled last.';

CREATE UNLOGGED TABLE lonny.wake_up (
    sleeper bigint NOT NULL
)
WITH (vacuum_truncate='false');

COMMENT ON TABLE lonny.wake_up IS 'Notifications of sleeping workers, one row each, committed with it; the latest ones only.';

COMMENT ON COLUMN lonny.wake_up.sleeper IS 'The last sleeper that it wakes, and so do all before.';

ALTER TABLE ONLY lonny.channel_policy
    ADD CONSTRAINT channel_policy_channel_id_pkey PRIMARY KEY (channel, id);

ALTER TABLE ONLY lonny.message
    ADD CONSTRAINT message_id_pkey PRIMARY KEY (id);

ALTER TABLE ONLY lonny.migration
    ADD CONSTRAINT migration_version_pkey PRIMARY KEY (version);

ALTER TABLE ONLY lonny.object
    ADD CONSTRAINT object_kind_name_part_pkey PRIMARY KEY (kind, name, part);

ALTER TABLE ONLY lonny.producer
    ADD CONSTRAINT producer_role_pkey PRIMARY KEY (role);

ALTER TABLE ONLY lonny.template
    ADD CONSTRAINT template_path_pkey PRIMARY KEY (path);

CREATE INDEX message_channel_idx ON lonny.message USING btree (lane, status, dequeue_at, id) WHERE ((status <> 'READY'::lonny.message_status) AND (lane <> 0));

COMMENT ON INDEX lonny.message_channel_idx IS 'Which message of a channel is the next to be released, and how many are locked?';

CREATE INDEX message_generation_idx ON lonny.message USING btree (generation, lane, dequeue_at, id) WHERE ((status = 'READY'::lonny.message_status) AND (generation IS NOT NULL));

COMMENT ON INDEX lonny.message_generation_idx IS 'The same beside an old snapshot, without the dead rows of former generations.';

CREATE INDEX message_ready_idx ON lonny.message USING btree (lane, dequeue_at, id) WHERE (status = 'READY'::lonny.message_status);

COMMENT ON INDEX lonny.message_ready_idx IS 'Which message is next, in rotation over the lanes?';

CREATE INDEX message_timer_idx ON lonny.message USING btree (timer_at, id) WHERE (timer_at IS NOT NULL);

COMMENT ON INDEX lonny.message_timer_idx IS 'Which delays and locks are over?';

CREATE INDEX wake_due_idx ON lonny.wake USING btree (lane) WHERE (at IS NULL);

COMMENT ON INDEX lonny.wake_due_idx IS 'Which channel is to be looked at next, in rotation over the lanes?';

CREATE INDEX wake_generation_idx ON lonny.wake USING btree (generation, lane) WHERE ((at IS NULL) AND (generation IS NOT NULL));

COMMENT ON INDEX lonny.wake_generation_idx IS 'The same beside an old snapshot, without the dead rows of former generations.';

CREATE INDEX wake_lane_idx ON lonny.wake USING btree (lane) WHERE ((at IS NOT NULL) OR (released_at IS NOT NULL));

COMMENT ON INDEX lonny.wake_lane_idx IS 'Which timers has this channel, and when was it released last?';

CREATE INDEX wake_timer_idx ON lonny.wake USING btree (at, lane) WHERE (at IS NOT NULL);

COMMENT ON INDEX lonny.wake_timer_idx IS 'Which timers are over?';

CREATE INDEX wake_up_sleeper_idx ON lonny.wake_up USING btree (sleeper);

COMMENT ON INDEX lonny.wake_up_sleeper_idx IS 'Have all been woken?';

REVOKE ALL ON FUNCTION lonny._bound_producer() FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._channel_admits(p_lane bigint, p_channel text, p_now timestamp with time zone, p_call_stack text) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._channel_advance(p_lane bigint, p_channel text, p_released_at timestamp with time zone, p_over_ids bigint[], p_max integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._channel_name(p_channel text, p_id bigint, p_created_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._channel_offer(p_lane bigint, p_channel text, p_over_ids bigint[], OUT offered bigint, OUT is_busy boolean, OUT is_limited boolean, OUT release_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._channel_outlook(p_lane bigint, p_channel text, p_now timestamp with time zone, OUT num_allowed integer, OUT num_locked integer, OUT locked_at timestamp with time zone, OUT unlock_at timestamp with time zone, OUT release_at timestamp with time zone, OUT max_concurrency integer, OUT release_interval_ms bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._channel_release(p_lane bigint, p_channel text, p_over_ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._channel_survey(p_lane bigint, p_policy lonny._policy_in_force, p_released_at timestamp with time zone, p_now timestamp with time zone, p_over_ids bigint[], OUT room bigint, OUT num_due integer, OUT num_foreign integer, OUT num_overtaking integer, OUT over_ids bigint[], OUT ready_ids bigint[], OUT suspect_ids bigint[], OUT is_flooded boolean, OUT is_ending boolean, OUT released_at timestamp with time zone, OUT release_at timestamp with time zone, OUT early_at timestamp with time zone, OUT next_status lonny.message_status, OUT next_at timestamp with time zone, OUT next_id bigint, OUT is_next_held boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._channel_try_release(p_lane bigint, p_channel text, p_over_ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._channels_check(p_channels text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._clock() FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._consumer() FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._entries_read(p_index text) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._event_channel() FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._event_notify(p_type text, p_id bigint, p_channel text, p_delay_ms bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._generation_retire(p_generation bigint, p_is_due boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._generation_turn(p_from bigint, p_to bigint, p_floor_seen bigint, p_floor bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._generations_walk() FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._horizon_is_over(p_horizon bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._horizons_draw() FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._is_alone(p_call_stack text) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._lane(p_channel text) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._lane_tend(p_lane bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._lanes_ahead(p_lane bigint, p_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._lanes_next(p_served bigint, p_limit integer, p_generations bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._late_lift(p_horizon bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._message_hold(p_served bigint, p_generation bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._message_offer(p_lane bigint, p_channel text, p_over_ids bigint[], p_now timestamp with time zone, OUT offered bigint, OUT is_busy boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._message_try_offer(p_lane bigint, p_channel text, p_over_ids bigint[], p_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._microseconds(p_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._num_due(p_lane bigint, p_channel text, p_now timestamp with time zone, p_before_at timestamp with time zone, p_before_id bigint, p_most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._objects() FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._operator() FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._place_freed(p_lane bigint, p_channel text) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._places_freed(p_lanes bigint[], p_channels text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._policy_add(p_channel text, p_max_concurrency integer, p_release_interval_ms bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._producer() FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._raise_invalid(p_argument text, p_value text, p_hint text) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._retry_ms(p_is_busy boolean, p_release_at timestamp with time zone, p_looked_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._roles() FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._roles_renew() FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._schema_missing() FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._sleeper_nap_ms() FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._sleepers_wake() FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._take_in_generations(p_max_messages integer, p_lock_ms bigint, p_is_alone boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._take_in_turn(p_served bigint, p_max_messages integer, p_lock_ms bigint, p_window integer, OUT taken_ids bigint[], OUT are_unlocked boolean[], OUT is_busy boolean, OUT release_at timestamp with time zone, OUT limited_lanes bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._take_many(p_served bigint, p_max_messages integer, p_lock_ms bigint, p_is_alone boolean, p_generations bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._take_one(p_served bigint, p_lane bigint, p_id bigint, p_lock_ms bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._tend(p_budget integer, p_messages boolean, p_timers boolean, p_mark timestamp with time zone, p_generations bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._timer_set(p_lane bigint, p_channel text, p_at timestamp with time zone, p_released_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._turns_due(p_after bigint, p_last bigint, p_window integer, p_taken_ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._wake_channel() FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._wakes_next(p_served bigint, p_last bigint, p_limit integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny._walk_is_in_time(p_at timestamp with time zone, p_late interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny.channel_explain(channel text) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny.channel_policy_clear(channel text) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny.channel_policy_set(channel text, max_concurrency integer, release_interval_ms bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny."check"(max_open_ms bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny.message_cancel(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny.message_create(channel text, content bytea, lock_ms bigint, delay_ms bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny.message_create_many(channels text[], contents bytea[], lock_ms bigint[], delay_ms bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny.message_defer(id bigint, num_attempts integer, delay_ms bigint, state bytea) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny.message_delete(id bigint, num_attempts integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny.message_delete_many(ids bigint[], num_attempts integer[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny.message_dequeue(max_messages integer, lock_ms bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny.message_explain(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny.message_heartbeat(id bigint, num_attempts integer, lock_ms bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny.message_status(ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny.repair() FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny.role_grant(role text, kind text, channel_prefix text) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny.role_revoke(role text, kind text) FROM PUBLIC;

REVOKE ALL ON FUNCTION lonny.version_status() FROM PUBLIC;
