-- Counts a failure of a version, and stops the version when it is one too many: five in a row, or five of the
-- last fifty. A tenant among the last five counts once. Answers whether this failure stopped it.
--   $1 digest  $2 version  $3 file  $4 tenant  $5 tenants that succeeded since we last counted  $6 error
INSERT INTO tenantd.breaker AS b (digest, version, file, tried, places, tenants, error)
VALUES ($1, $2, $3, $5 + 1, ARRAY[$5 + 1], ARRAY[$4], $6)
ON CONFLICT (digest) DO UPDATE SET
    tried = b.tried + $5 + 1,
    places = (b.places || (b.tried + $5 + 1))[greatest(pg_catalog.cardinality(b.places) - 3, 1):],
    tenants = (b.tenants || $4)[greatest(pg_catalog.cardinality(b.tenants) - 3, 1):],
    failures = b.failures + 1,
    error = excluded.error,
    opened_at = CASE
        WHEN pg_catalog.cardinality(b.places) >= 4
         -- The oldest of the last five: how far back it lies among those tried.
         AND b.tried + $5 + 1 - b.places[pg_catalog.cardinality(b.places) - 3]
             <= CASE WHEN b.tried + $5 + 1 >= 50 THEN 49 ELSE 4 END
        THEN pg_catalog.clock_timestamp() END
-- What is stopped is not counted any more: those in flight then are no news.
WHERE b.opened_at IS NULL AND $4 <> ALL (b.tenants)
RETURNING failures, tried, opened_at IS NOT NULL AS tripped
