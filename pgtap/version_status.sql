-- version_status: what is installed, for programs that ask whether they go with it.
BEGIN;
SELECT plan(4);

SELECT row_eq(
    'SELECT version, package_version, breaking_version FROM version_status()',
    (SELECT row(m.version, m.package_version, NULL::integer) FROM migration m ORDER BY m.version DESC LIMIT 1),
    'the last migration, and who has made it');
UPDATE migration SET is_breaking = true;
INSERT INTO migration VALUES (10, 'a', 'x', '7.10', false, now()), (9, 'b', 'x', '7.9', true, now()), (8, 'b', 'x', '7.8', true, now());
SELECT row_eq(
    'SELECT version, package_version, breaking_version FROM version_status()', row(10, '7.10'::text, 9),
    'and the last one that older programs cannot live with');
DELETE FROM migration;
SELECT row_eq(
    'SELECT version, package_version, breaking_version FROM version_status()', row(NULL::integer, NULL::text, NULL::integer), 'of an empty ledger nothing');
SELECT is((SELECT count(*) FROM version_status()), 1::bigint, 'in one row');

SELECT * FROM finish();
ROLLBACK;
