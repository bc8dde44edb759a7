-- Nothing is granted to PUBLIC: the owner of the schema decides who may use it.
REVOKE ALL ON SCHEMA {{ schema }} FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA {{ schema }} FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA {{ schema }} FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {{ schema }} FROM PUBLIC;
