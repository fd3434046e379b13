-- A plan that was made while `tenantd.behind` or the ledger was all but empty reads it whole, and a release fills it
-- at once: what comes once a tenant finds its rows by their keys, whatever was so when its plan was made.
ALTER FUNCTION tenantd.guard_all SET enable_seqscan = off;
ALTER FUNCTION tenantd.record_all SET enable_seqscan = off;
ALTER FUNCTION tenantd.record SET enable_seqscan = off;
