//! Daemons and backends that are killed at random moments, again and again (faults 17, 33, 34, 51).
//!
//! A seed decides everything but the timing: `TENANTD_SEED=7 make kill-matrix` begins with the round of seed 7,
//! and a round that fails says its seed. Without the variable the long runs take a new seed each time.

mod files;
mod round;

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::recovered;
use crate::support::postgres::Server;
use round::Round;
use tenantd::failpoint::POINTS;

/// What was done, for people.
#[derive(Default)]
pub(super) struct Tally {
    rounds: u32,
    /// Daemons killed by SIGKILL at some moment.
    daemons: u32,
    /// Backends killed by SIGKILL, and with each the server.
    backends: u32,
    /// Daemons that died at a failpoint.
    points: BTreeMap<&'static str, u32>,
    /// Daemons that did not come to their failpoint in time and were killed by SIGKILL instead.
    missed: u32,
    longest_convergence: Duration,
    oldest_orphan: Duration,
}

impl Tally {
    fn kills(&self) -> u32 {
        self.daemons + self.backends + self.missed + self.points.values().sum::<u32>()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills in {} rounds: {} daemons at some moment, {} that missed their failpoint, {} backends, {} at \
             failpoints {:?}; longest convergence {:.1} s, oldest orphan {:.1} s",
            self.kills(),
            self.rounds,
            self.daemons,
            self.missed,
            self.backends,
            self.points.values().sum::<u32>(),
            self.points,
            self.longest_convergence.as_secs_f64(),
            self.oldest_orphan.as_secs_f64(),
        )
    }
}

/// The splitmix64 generator: the same numbers for the same seed, on every machine.
pub(super) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Kills until it was done this often; after every few all must be well.
async fn matrix(seed: u64, daemons: usize, kills: u32, asynchronous: bool) -> Tally {
    // Pages are torn when a process is killed while it writes one. Nothing needs to survive the machine.
    let settings = [
        ("full_page_writes", "on"),
        (
            "synchronous_commit",
            if asynchronous { "off" } else { "on" },
        ),
    ];
    let server = Server::with(&settings).await;
    let mut tally = Tally::default();
    while tally.kills() < kills {
        let seed = seed.wrapping_add(u64::from(tally.rounds));
        println!("TENANTD_SEED={seed} make kill-matrix # daemons: {daemons}");
        let mut random = Random(seed);
        let left = u64::from(kills - tally.kills());
        let this_round = (4 + random.below(5)).min(left.max(4));
        let mut round = Round::begin(&server, seed, daemons, random, &mut tally).await;
        for _ in 0..this_round {
            round.kill().await;
        }
        round.converge().await;
        round.finish().await;
        tally.rounds += 1;
    }
    println!("{tally}");
    tally
}

#[tokio::test]
async fn eight_kills_of_a_daemon_leave_only_work_to_do() {
    let start = Instant::now();
    let tally = matrix(1, 1, 8, false).await;
    assert!(tally.kills() >= 8);
    assert!(start.elapsed() < Duration::from_secs(120), "{tally}");
}

mod slow {
    use super::*;

    const KILLS: u32 = 200;

    fn seed() -> u64 {
        let seed = std::env::var("TENANTD_SEED").ok();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        seed.map_or(now.as_secs(), |seed| {
            seed.parse().expect("TENANTD_SEED is a number")
        })
    }

    async fn holds(daemons: usize, asynchronous: bool) {
        let tally = matrix(seed(), daemons, KILLS, asynchronous).await;
        let never: Vec<_> = POINTS
            .iter()
            .filter(|(point, _)| !tally.points.contains_key(point))
            .collect();
        assert!(never.is_empty(), "nobody died at {never:?}: {tally}");
        recovered(Instant::now() - tally.longest_convergence);
    }

    #[tokio::test]
    async fn two_hundred_kills_of_a_daemon_leave_only_work_to_do() {
        holds(1, false).await;
    }

    #[tokio::test]
    async fn two_hundred_kills_among_three_daemons_leave_only_work_to_do() {
        holds(3, true).await;
    }
}
