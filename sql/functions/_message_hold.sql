CREATE OR REPLACE FUNCTION {{ schema }}._message_hold(p_served bigint, p_generation bigint)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $function$
-- Bounds and order name the generation, although it is always the same one: without a sort, which message_dequeue has off, only
-- message_generation_idx can answer that, whatever the statistics say.
DECLARE
  v_id bigint;
BEGIN
  SELECT m.id INTO v_id
    FROM {{ schema }}.message m
   WHERE m.status = 'READY' AND (m.generation, m.lane) > (p_generation, p_served) AND m.generation <= p_generation
   ORDER BY m.generation, m.lane, m.dequeue_at, m.id LIMIT 1
     FOR NO KEY UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    SELECT m.id INTO v_id
      FROM {{ schema }}.message m
     WHERE m.status = 'READY' AND m.generation >= p_generation AND (m.generation, m.lane) <= (p_generation, p_served)
     ORDER BY m.generation, m.lane, m.dequeue_at, m.id LIMIT 1
       FOR NO KEY UPDATE SKIP LOCKED;
  END IF;
  RETURN v_id;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._message_hold(bigint, bigint) IS
'Holds the first ready message of a generation, in rotation after the lane p_served, that no other transaction holds, and returns its id; NULL if there is none.';
