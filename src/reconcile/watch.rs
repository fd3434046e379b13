//! Watches one apply from another connection: who blocks it, and whether it blocks others too long.
//!
//! A lock timeout names neither the relation nor the holder, and `lock_timeout` bounds waiting, not
//! holding. Both can only be seen from outside, while it happens.

use std::time::Duration;

use tokio::time::{Instant, interval_at, timeout};
use tokio_postgres::types::Type;

use super::message::RUNNING;
use crate::pg::{Cancel, Pool};

/// The first look; most applies are over by then. Well inside the shortest lock timeout.
const FIRST: Duration = Duration::from_millis(50);
const EVERY: Duration = Duration::from_millis(100);

/// What was seen. Kept outside the watching future, which is dropped when the apply ends.
#[derive(Debug, Default)]
pub struct Seen {
    /// The last session we waited for, in words.
    pub blocker: Option<String>,
    /// The last cancel that was sent. It may arrive late, so the session is not used again.
    pub cancel: Option<Cancelled>,
}

/// A cancel, because a transaction held a strong lock on an existing table for too long.
#[derive(Debug)]
pub struct Cancelled {
    /// How long.
    pub held: Duration,
    /// The file (ordinal) that the transaction began with, where one was seen.
    pub file: Option<usize>,
}

impl Cancelled {
    /// Whether the transaction had committed when it arrived, with these files done: it hit the next one,
    /// which had done nothing wrong.
    pub fn came_late(&self, committed: usize) -> bool {
        self.file
            .is_some_and(|first| (1..=committed).contains(&first))
    }
}

/// Watches the session that works on `schema` until dropped; cancels it once it holds a lock for too long. `max_hold` knows how
/// long that is for the transaction that begins with this file (ordinal), where one can be seen.
pub async fn watch(
    pool: &Pool,
    schema: &str,
    cancel: Cancel,
    max_hold: impl Fn(Option<usize>) -> Duration,
    seen: &mut Seen,
) {
    let mut looks = interval_at(Instant::now() + FIRST, EVERY);
    let mut holding: Option<(Option<String>, Instant)> = None;
    loop {
        looks.tick().await;
        let Ok(Some(look)) = timeout(EVERY * 10, look(pool, schema)).await else {
            continue;
        };
        if look.blocker.is_some() {
            seen.blocker = look.blocker;
        }
        // Locks end with their transaction: the next file's start a count of their own.
        holding = look.holds.then(|| match holding.take() {
            Some((same, since)) if same == look.transaction => (same, since),
            _ => (look.transaction, Instant::now()),
        });
        if let Some((_, since)) = &holding
            && since.elapsed() >= max_hold(look.file)
        {
            // Noted first: the apply may end, and this with it, before the server has answered.
            seen.cancel = Some(Cancelled {
                held: since.elapsed(),
                file: look.file,
            });
            let _ = timeout(EVERY * 10, cancel.send()).await;
        }
    }
}

struct Look {
    /// Who blocks the session, in words.
    blocker: Option<String>,
    /// Whether it holds a strong lock on a table that exists outside of its transaction: those are the ones
    /// that this session sees in pg_class.
    holds: bool,
    /// The transaction, by its start.
    transaction: Option<String>,
    /// The file that the transaction begins with.
    file: Option<usize>,
}

async fn look(pool: &Pool, schema: &str) -> Option<Look> {
    let client = pool.get().await.ok()?;
    let rows = client
        .query_typed(
            include_str!("watch.sql"),
            &[(&schema, Type::TEXT), (&RUNNING, Type::INT4)],
        )
        .await
        .ok()?;
    let row = rows.first()?;
    let file = row.get::<_, Option<i32>>(3);
    Some(Look {
        blocker: row.get(0),
        holds: row.get(1),
        transaction: row.get(2),
        file: file.and_then(|ordinal| usize::try_from(ordinal).ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_is_late_once_its_transaction_has_committed() {
        let cancel = |file| Cancelled { held: EVERY, file };
        assert!(cancel(Some(3)).came_late(3));
        assert!(cancel(Some(1)).came_late(16), "one transaction of 16 files");
        assert!(!cancel(Some(4)).came_late(3));
        assert!(!cancel(None).came_late(3), "nobody can say");
        assert!(!cancel(Some(0)).came_late(3), "it held no file");
    }
}
