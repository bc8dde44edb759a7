CREATE OR REPLACE FUNCTION {{ schema }}._is_alone(p_call_stack text)
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
COMMENT ON FUNCTION {{ schema }}._is_alone(text) IS
'Whether the statement under way is a transaction of its own, as far as can be told; if in doubt, false. p_call_stack is the caller''s PG_CONTEXT.
To be asked before the transaction has written anything: one that has is not alone. Commands sent after it in one pipeline are not known.';
