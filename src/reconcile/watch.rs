//! Watches one apply from another connection: who blocks it, and whether it blocks others too long.
//!
//! A lock timeout names neither the relation nor the holder, and `lock_timeout` bounds waiting, not
//! holding. Both can only be seen from outside, while it happens.

use std::time::Duration;

use tokio::time::{Instant, interval_at, timeout};
use tokio_postgres::{CancelToken, types::Type};

use crate::pg::Pool;

/// The first look; most applies are over by then. Well inside the shortest lock timeout.
const FIRST: Duration = Duration::from_millis(50);
const EVERY: Duration = Duration::from_millis(100);

/// What was seen. Kept outside the watching future, which is dropped when the apply ends.
#[derive(Debug, Default)]
pub struct Seen {
    /// The last session we waited for, in words.
    pub blocker: Option<String>,
    /// A cancel was sent. It may arrive late, so the session is not used again.
    pub cancelling: bool,
    /// The apply was cancelled because it held a strong lock on an existing table this long.
    pub held: Option<Duration>,
}

/// Watches the session `pid` until dropped; cancels it once `max_hold` is over.
pub async fn watch(
    pool: &Pool,
    pid: i32,
    cancel: CancelToken,
    max_hold: Duration,
    seen: &mut Seen,
) {
    let mut looks = interval_at(Instant::now() + FIRST, EVERY);
    let mut holding: Option<(Option<String>, Instant)> = None;
    loop {
        looks.tick().await;
        let Ok(Some((blocker, holds))) = timeout(EVERY * 10, look(pool, pid)).await else {
            continue;
        };
        if blocker.is_some() {
            seen.blocker = blocker;
        }
        // Locks end with their transaction: the next file's start a count of their own.
        holding = holds.map(|transaction| match holding.take() {
            Some((same, since)) if same == transaction => (same, since),
            _ => (transaction, Instant::now()),
        });
        if let Some((_, since)) = &holding
            && since.elapsed() >= max_hold
        {
            seen.cancelling = true;
            if let Ok(Ok(())) = timeout(EVERY * 10, cancel.cancel_query(pool.tls())).await {
                seen.held = Some(since.elapsed());
            }
        }
    }
}

/// The blocker in words, and the transaction (by its start) that holds a strong lock on a table that exists
/// outside of it: those are the ones this session sees in pg_class.
async fn look(pool: &Pool, pid: i32) -> Option<(Option<String>, Option<Option<String>>)> {
    let client = pool.get().await.ok()?;
    let rows = client
        .query_typed(
            "SELECT (SELECT pg_catalog.format('process %s (%s, user %s), in a transaction since %s', a.pid,
                         coalesce(nullif(a.application_name, ''), 'unnamed'), a.usename,
                         coalesce(pg_catalog.date_trunc('milliseconds', a.xact_start)::text, 'an unknown time'))
                     FROM pg_catalog.pg_stat_activity a
                     WHERE a.pid = ANY (pg_catalog.pg_blocking_pids($1)) ORDER BY a.xact_start LIMIT 1),
                    EXISTS (SELECT FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
                            WHERE l.pid = $1 AND l.granted AND l.locktype = 'relation' AND c.relkind IN ('r', 'p', 'm')
                              AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')),
                    (SELECT a.xact_start::text FROM pg_catalog.pg_stat_activity a WHERE a.pid = $1)",
            &[(&pid, Type::INT4)],
        )
        .await
        .ok()?;
    let row = rows.first()?;
    Some((row.get(0), row.get::<_, bool>(1).then(|| row.get(2))))
}
