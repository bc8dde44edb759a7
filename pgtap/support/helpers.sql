-- What the files of pgtap/ share. Loaded into the schema `tap`, beside pgTAP. The queue's functions are not
-- qualified: the search_path of the session that calls says whose they are, so the bodies are not checked here.
SET check_function_bodies = off;

-- The id of a message that the test has put into its table `sent`, by name.
CREATE FUNCTION tap.id(name text) RETURNS bigint LANGUAGE sql
AS $$ SELECT s.id FROM sent s WHERE s.name = $1 $$;

-- The names that one dequeue delivers, in its order; of an empty answer what it knows.
CREATE FUNCTION tap.take(max_messages integer DEFAULT 1) RETURNS text[] LANGUAGE sql AS $$
    SELECT array_agg(
        CASE d.result
            WHEN 'MESSAGE_DEQUEUED' THEN convert_from(d.content, 'UTF8')
            ELSE 'empty, retry in ' || coalesce(d.retry_ms::text, 'unknown') || ' ms'
        END ORDER BY d.ordinality)
    FROM message_dequeue($1) WITH ORDINALITY AS d
$$;

-- The same of as many dequeues as find something.
CREATE FUNCTION tap.take_all() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    v_taken text[] := '{}';
    v_next text[];
BEGIN
    LOOP
        v_next := tap.take(1000);
        EXIT WHEN v_next[1] ~ '^empty';
        v_taken := v_taken || v_next;
    END LOOP;
    RETURN v_taken;
END
$$;

-- The same of a number of single dequeues, one after the other.
CREATE FUNCTION tap.take_each(calls integer) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    v_taken text[] := '{}';
BEGIN
    FOR i IN 1..calls LOOP
        v_taken := v_taken || tap.take();
    END LOOP;
    RETURN v_taken;
END
$$;

-- One test: the statement raises this SQLSTATE, its message names the argument and the value, and there is a hint.
CREATE FUNCTION tap.refused(sentence text, statement text, state text, argument text, value text)
RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    v_state text := 'no error';
    v_message text := '';
    v_hint text := '';
    v_ok boolean;
BEGIN
    BEGIN
        EXECUTE statement;
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS
            v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT, v_hint = PG_EXCEPTION_HINT;
    END;
    v_ok := v_state = state AND v_message ~ ('\m' || argument || '\M') AND v_message ~* value AND v_hint <> '';
    RETURN NEXT ok(v_ok, sentence);
    IF NOT v_ok THEN
        RETURN NEXT diag(format('%s: %s: %s (hint: %s)', statement, v_state, v_message, v_hint));
    END IF;
END
$$;

-- All that the queue's tables hold, to see that something changed nothing.
CREATE FUNCTION tap.tables() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_table regclass;
    v_rows text;
    v_all text := '';
BEGIN
    FOR v_table IN
        SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = current_schema() AND c.relkind = 'r' ORDER BY c.relname
    LOOP
        EXECUTE format('SELECT string_agg(t::text, chr(10) ORDER BY t::text) FROM %s AS t', v_table) INTO v_rows;
        v_all := concat(v_all, v_table, chr(10), v_rows, chr(10));
    END LOOP;
    RETURN v_all;
END
$$;

RESET check_function_bodies;
