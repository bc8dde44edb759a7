-- pylonny: a multi-tenant message queue that is nothing but PostgreSQL.
-- Table of contents, in the order of installation. This is the only file that includes others.

-- Tables, types, sequences, indexes
{% include "migrations/0001_initial.sql" %}

-- The one clock, the one hash, the places that know of the event channel and the wake channel
{% include "functions/_clock.sql" %}
{% include "functions/_microseconds.sql" %}
{% include "functions/_lane.sql" %}
{% include "functions/_channel_name.sql" %}
{% include "functions/_event_channel.sql" %}
{% include "functions/_event_notify.sql" %}
{% include "functions/_wake_channel.sql" %}
{% include "functions/_sleepers_wake.sql" %}
{% include "functions/_sleeper_nap_ms.sql" %}
{% include "functions/_raise_invalid.sql" %}

-- What producers, consumers and operators may call
{% include "functions/_producer.sql" %}
{% include "functions/_bound_producer.sql" %}
{% include "functions/_consumer.sql" %}
{% include "functions/_operator.sql" %}
{% include "functions/_channels_check.sql" %}

-- Putting messages in
{% include "functions/_is_alone.sql" %}
{% include "functions/_channel_admits.sql" %}
{% include "functions/message_create.sql" %}
{% include "functions/message_create_many.sql" %}

-- Deciding when a message becomes ready
{% include "functions/_channel_survey.sql" %}
{% include "functions/_timer_set.sql" %}
{% include "functions/_channel_advance.sql" %}
{% include "functions/_lane_tend.sql" %}
{% include "functions/_wakes_next.sql" %}
{% include "functions/_tend.sql" %}

-- Taking messages out
{% include "functions/_channel_release.sql" %}
{% include "functions/_channel_try_release.sql" %}
{% include "functions/_message_offer.sql" %}
{% include "functions/_message_try_offer.sql" %}
{% include "functions/_channel_offer.sql" %}
{% include "functions/_lanes_next.sql" %}
{% include "functions/_turns_due.sql" %}
{% include "functions/_take_one.sql" %}
{% include "functions/_take_in_turn.sql" %}
{% include "functions/_take_many.sql" %}
{% include "functions/_retry_ms.sql" %}
{% include "functions/_entries_read.sql" %}
{% include "functions/_walk_is_in_time.sql" %}
{% include "functions/_generation_turn.sql" %}
{% include "functions/_horizon_is_over.sql" %}
{% include "functions/_horizons_draw.sql" %}
{% include "functions/_late_lift.sql" %}
{% include "functions/_generation_retire.sql" %}
{% include "functions/_generations_walk.sql" %}
{% include "functions/_message_hold.sql" %}
{% include "functions/_take_in_generations.sql" %}
{% include "functions/message_dequeue.sql" %}

-- Finishing them
{% include "functions/_place_freed.sql" %}
{% include "functions/_places_freed.sql" %}
{% include "functions/message_delete.sql" %}
{% include "functions/message_delete_many.sql" %}
{% include "functions/message_defer.sql" %}
{% include "functions/message_heartbeat.sql" %}
{% include "functions/message_cancel.sql" %}

-- Looking at them
{% include "functions/message_status.sql" %}

-- Limits
{% include "functions/_policy_add.sql" %}
{% include "functions/channel_policy_set.sql" %}
{% include "functions/channel_policy_clear.sql" %}

-- Why is it not delivered?
{% include "functions/_num_due.sql" %}
{% include "functions/_channel_outlook.sql" %}
{% include "functions/_lanes_ahead.sql" %}
{% include "functions/message_explain.sql" %}
{% include "functions/channel_explain.sql" %}

-- Is all well?
{% include "functions/_schema_missing.sql" %}
{% include "functions/check.sql" %}
{% include "functions/repair.sql" %}

-- Telling what is installed, and what differs from it
{% include "functions/version_status.sql" %}
{% include "functions/_objects.sql" %}

-- Who may do what
{% include "functions/_roles.sql" %}
{% include "functions/_roles_renew.sql" %}
{% include "functions/role_revoke.sql" %}
{% include "functions/role_grant.sql" %}
{% include "grants.sql" %}
