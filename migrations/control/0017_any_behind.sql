-- Whether a login might help anybody, read first by the login trigger: a look into `tenantd.behind` costs a tenth of a
-- small transaction, this one a third of that, because a sequence is read without a snapshot and a plan. Without a
-- value: nobody is behind. Whoever adds to `tenantd.behind` calls setval in the same statement, which shows at once. It
-- is taken back under a lock that no such writer holds (`note_anybody` in `src/fleet/ledger.rs`).
CREATE SEQUENCE tenantd.any_behind;
SELECT pg_catalog.setval('tenantd.any_behind', 1, EXISTS (SELECT FROM tenantd.behind));
