-- The standbys and how many seconds each lags; null where our role may not see that. A time is measured from the
-- commit to its replay. Where none is known yet, 16 MB of WAL count as a second.
SELECT coalesce(nullif(r.application_name, ''), pg_catalog.host(r.client_addr), 'unnamed'),
       CASE WHEN r.state IS NULL THEN NULL
            WHEN r.replay_lsn >= w.lsn THEN 0
            WHEN r.replay_lag IS NOT NULL THEN EXTRACT(epoch FROM r.replay_lag)
            ELSE pg_catalog.pg_wal_lsn_diff(w.lsn, r.replay_lsn) / 16777216 END::float8
FROM pg_catalog.pg_stat_replication r, pg_catalog.pg_current_wal_flush_lsn() w (lsn)
-- A backup or an archive that only receives has replayed nothing and never will.
WHERE r.state IS NULL OR r.state IN ('catchup', 'streaming') AND r.replay_lsn IS NOT NULL
