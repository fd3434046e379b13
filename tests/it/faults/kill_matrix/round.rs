//! One round: a fleet of its own, a few kills, and then all must be well.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::Command,
    time::{Duration, Instant},
};

use tenantd::failpoint::POINTS;

use super::{Random, Tally, files};
use crate::support::{App, Daemon, nothing_left, oracles, oracles::quiet, postgres::Server, until};

/// How long a daemon gets to come to its failpoint.
const PATIENCE: Duration = Duration::from_secs(4);
/// Only who leads sweeps, and a daemon that died without a word led for up to 15 s.
const PATIENCE_TO_LEAD: Duration = Duration::from_secs(8);
/// A backend of a dead daemon ends within `client_connection_check_interval`, and the time to look.
const ORPHANED: Duration = Duration::from_secs(5 + 3);
/// What is passed only when something fails.
const AFTER_A_FAILURE: [&str; 3] = [
    "reconcile.failed",
    "reconcile.rolled-back",
    "reconcile.recorded",
];
/// How soon the sessions of a server end that lost one to a kill.
const RESTART: Duration = Duration::from_secs(3);
const TENANTS: u64 = 16;
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;

enum Kill {
    /// SIGKILL for a daemon.
    Daemon,
    /// SIGKILL for a backend of a daemon's: the server restarts.
    Backend,
    /// A daemon dies where it passes a point for the n-th time.
    Point(&'static str, u64),
}

/// A backend whose daemon is dead.
struct Orphan {
    /// Process and start, as the server tells them.
    backend: String,
    since: Instant,
}

pub(super) struct Round<'a> {
    server: &'a Server,
    app: App,
    seed: u64,
    random: Random,
    tally: &'a mut Tally,
    daemons: Vec<Option<Daemon>>,
    orphans: Vec<Orphan>,
    version: u32,
    tenants: u64,
    /// How many failpoints this round has had.
    points: u64,
}

impl<'a> Round<'a> {
    pub(super) async fn begin(
        server: &'a Server,
        seed: u64,
        daemons: usize,
        random: Random,
        tally: &'a mut Tally,
    ) -> Self {
        let app = App::on_server(server, "kills").await;
        app.configure("[retry]\ninitial = \"100ms\"\nmax = \"500ms\"");
        files::base(&app).await;
        app.tenantd(&["install"]).ok();
        let mut round = Self {
            server,
            app,
            seed,
            random,
            tally,
            daemons: (0..daemons).map(|_| None).collect(),
            orphans: Vec::new(),
            version: 3,
            tenants: 0,
            points: 0,
        };
        round.insert(TENANTS).await;
        // On a machine that is short of everything, a wait for a lock may be over before its turn comes.
        until("the fleet to be filled", async || {
            let ran = round.app.tenantd(&["migrate", "--all"]);
            (ran.code == 0, ran.stdout)
        })
        .await;
        round
    }

    async fn insert(&mut self, tenants: u64) {
        let first = self.tenants + 1;
        self.tenants += tenants;
        let sql = format!(
            "INSERT INTO public.tenants (id, name) SELECT n, 'n' || n FROM generate_series({first}, {}) n \
             ON CONFLICT DO NOTHING",
            self.tenants
        );
        self.app.run(&sql).await;
    }

    /// Something new for everybody, and in the middle of it somebody dies.
    pub(super) async fn kill(&mut self) {
        self.look_for_orphans().await;
        let down = self.daemons.iter().position(Option::is_none);
        let kill = match (self.random.below(10), down) {
            (0..=5, Some(_)) => self.next_point(),
            (6..=7, _) => Kill::Backend,
            _ => Kill::Daemon,
        };
        let tenants = self.random.below(3);
        self.insert(tenants).await;
        for _ in 0..=self.random.below(2) {
            self.add_file(false);
        }
        if let Kill::Point(point, _) = kill
            && AFTER_A_FAILURE.contains(&point)
        {
            self.add_file(true);
        }
        let old: Vec<_> = self.running().collect();
        self.start_missing(&kill);
        self.reload(&old);
        match kill {
            Kill::Daemon => self.kill_daemon().await,
            Kill::Backend => self.kill_backend().await,
            Kill::Point(point, _) => self.die_at(down.expect("it was down"), point).await,
        }
    }

    fn add_file(&mut self, flaky: bool) {
        self.version += 1;
        files::add(&self.app, self.version, flaky, &mut self.random);
    }

    /// Three points a round, so that consecutive seeds come to all of them.
    fn next_point(&mut self) -> Kill {
        let number = self.seed.wrapping_mul(3).wrapping_add(self.points);
        self.points += 1;
        let (point, _) = POINTS[usize::try_from(number % POINTS.len() as u64).unwrap()];
        let times = match point.split('.').next() {
            Some("start" | "stop" | "sweep") => 1,
            Some("listener") => 1 + self.random.below(2),
            // Of a few failures the daemon that is to die may meet one.
            _ if AFTER_A_FAILURE.contains(&point) => 1,
            _ => 1 + self.random.below(8),
        };
        Kill::Point(point, times)
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        let slots = self.daemons.iter().enumerate();
        slots.filter_map(|(slot, daemon)| daemon.as_ref().map(|_| slot))
    }

    /// Starts who is down; the first of them is armed.
    fn start_missing(&mut self, kill: &Kill) {
        let mut armed = match kill {
            Kill::Point(point, times) => format!("{point}=abort@{times}"),
            _ => String::new(),
        };
        for slot in 0..self.daemons.len() {
            if self.daemons[slot].is_none() {
                let failpoints = std::mem::take(&mut armed);
                let environment = [
                    ("PGAPPNAME", name(slot)),
                    ("TENANTD_FAILPOINTS", failpoints),
                ];
                let environment = environment.each_ref().map(|(k, v)| (*k, v.as_str()));
                self.daemons[slot] = Some(self.app.spawn_daemon(&[], &environment));
            }
        }
    }

    /// Tells these daemons of the new set, unless they are too young to take a signal.
    fn reload(&self, slots: &[usize]) {
        for daemon in slots.iter().filter_map(|&slot| self.daemons[slot].as_ref()) {
            if daemon.log().contains("serving http") {
                daemon.signal("HUP");
            }
        }
    }

    async fn kill_daemon(&mut self) {
        self.pass_time().await;
        let slot = self.any_slot();
        let signal = self.end(slot, "KILL").await;
        assert_eq!(signal, Some(SIGKILL));
        self.tally.daemons += 1;
    }

    async fn kill_backend(&mut self) {
        const ANY: &str = "SELECT pid FROM pg_stat_activity
                           WHERE application_name LIKE 'tenantd/%work' AND datname = current_database()
                           ORDER BY state = 'active' DESC, random() LIMIT 1";
        self.pass_time().await;
        until(
            "a backend to be killed and the server to restart",
            async || {
                let pid = self.app.ask(ANY).await;
                let killed = pid != "-"
                    && Command::new("kill")
                        .args(["-KILL", &pid])
                        .status()
                        .unwrap()
                        .success();
                // One that had ended by itself is still there to be killed, and nothing comes of it: take another.
                let asked = Instant::now();
                while killed && !self.app.sql.is_closed() && asked.elapsed() < RESTART {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                (self.app.sql.is_closed(), self.server.log())
            },
        )
        .await;
        let name = &self.app.db.name;
        let mut client = None;
        until("the server to be back", async || {
            client = self.server.try_connect(name).await.ok();
            (client.is_some(), self.server.log())
        })
        .await;
        self.app.sql = client.expect("it is back");
        self.tally.backends += 1;
    }

    /// Waits until the daemon dies at the point it is armed with.
    async fn die_at(&mut self, slot: usize, point: &'static str) {
        if point.starts_with("stop.") {
            let daemon = self.daemons[slot].as_ref().expect("it was started");
            until("it to have started", async || {
                let log = daemon.log();
                (log.contains(" keeping "), log)
            })
            .await;
            self.pass_time().await;
            let signal = self.end(slot, "TERM").await;
            assert_eq!(signal, Some(SIGABRT), "it did not die at {point}");
        } else {
            let start = Instant::now();
            let daemon = self.daemons[slot].as_mut().expect("it was started");
            let patience = match point.starts_with("sweep.") {
                true => PATIENCE_TO_LEAD,
                false => PATIENCE,
            };
            while daemon.exited().is_none() && start.elapsed() < patience {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let signal = self.end(slot, "KILL").await;
            if signal == Some(SIGKILL) {
                self.tally.missed += 1;
                return;
            }
            assert_eq!(signal, Some(SIGABRT), "it did not die at {point}");
        }
        *self.tally.points.entry(point).or_default() += 1;
    }

    async fn pass_time(&mut self) {
        let delay = Duration::from_millis(self.random.below(700));
        tokio::time::sleep(delay).await;
    }

    fn any_slot(&mut self) -> usize {
        usize::try_from(self.random.below(self.daemons.len() as u64)).unwrap()
    }

    /// Sends the signal that is this daemon's end, unless it has come to its end; the signal it died of.
    async fn end(&mut self, slot: usize, signal: &str) -> Option<i32> {
        let mut daemon = self.daemons[slot].take().expect("it was started");
        if daemon.exited().is_none() {
            daemon.signal(signal);
        }
        daemon.ended().await;
        let status = daemon.exited().expect("it has ended");
        assert_ne!(status.code(), Some(1), "it gave up:\n{}", daemon.log());
        quiet(&daemon.log());
        let name = name(slot);
        let left = format!(
            "SELECT string_agg(pid || ' ' || backend_start, ',') FROM pg_stat_activity
             WHERE application_name IN ('{name}/work', '{name}/listen') AND datname = current_database()"
        );
        let left = self.app.ask(&left).await;
        let since = Instant::now();
        self.orphans.extend(
            left.split(',')
                .filter(|it| *it != "-")
                .map(|backend| Orphan {
                    backend: backend.to_owned(),
                    since,
                }),
        );
        status.signal()
    }

    /// None may be older than it takes the server to notice that its client is dead.
    async fn look_for_orphans(&mut self) {
        let mut left = Vec::new();
        for orphan in self.orphans.drain(..) {
            let Orphan { backend, since } = &orphan;
            let look = format!(
                "SELECT concat_ws(' ', state, wait_event, query) FROM pg_stat_activity WHERE pid || ' ' || backend_start = '{backend}'"
            );
            let query = self.app.ask(&look).await;
            if query != "-" {
                let age = since.elapsed();
                assert!(age < ORPHANED, "an orphan is {age:?} old: {query}");
                self.tally.oldest_orphan = self.tally.oldest_orphan.max(age);
                left.push(orphan);
            }
        }
        self.orphans = left;
    }

    /// Everybody runs undisturbed, and all must be well.
    pub(super) async fn converge(&mut self) {
        let start = Instant::now();
        self.start_missing(&Kill::Daemon);
        for daemon in self.daemons.iter().flatten() {
            until("the daemons to be ready", async || {
                (daemon.get("/readyz").await.0 == 200, daemon.log())
            })
            .await;
            daemon.signal("HUP");
        }
        let lag = "SELECT concat_ws(' ', (SELECT version FROM tenantd.head), count(*)) FROM public.tenants
                   WHERE NOT tenantd.ready(id::text)";
        let expected = format!("{:04} 0", self.version);
        let one = self.daemons[0].as_ref().expect("it was started");
        until("all tenants to be ready", async || {
            let lag = self.app.ask(lag).await;
            (lag == expected, format!("{lag}:\n{}", one.log()))
        })
        .await;
        let longest = &mut self.tally.longest_convergence;
        *longest = start.elapsed().max(*longest);
        println!(
            "# seed {}: {:.1} s to converge",
            self.seed,
            start.elapsed().as_secs_f64()
        );
        while !self.orphans.is_empty() {
            self.look_for_orphans().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let one = self.daemons[0].as_ref().expect("it was started");
        oracles(&self.app, one).await;
        let outside = self.app.ask("SELECT count(*) FROM tenantd.outside").await;
        assert_eq!(outside, "0", "a journal is left");
    }

    /// Nothing is left of the daemons when they have stopped.
    pub(super) async fn finish(mut self) {
        for slot in 0..self.daemons.len() {
            let signal = self.end(slot, "TERM").await;
            assert_eq!(signal, None, "it ends by itself");
        }
        nothing_left(&self.app).await;
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.app.db.name);
        let server = self.server.connect("postgres").await;
        server.batch_execute(&drop).await.unwrap();
    }
}

impl Drop for Round<'_> {
    /// The logs go with the round's directory, so a failure shows them.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (slot, daemon) in self.daemons.iter().enumerate() {
                let log = daemon.as_ref().map(Daemon::log).unwrap_or_default();
                let told: Vec<_> = log
                    .lines()
                    .filter(|line| !line.contains("executing"))
                    .collect();
                let tail = told[told.len().saturating_sub(80)..].join("\n");
                eprintln!("--- seed {}, daemon {slot}:\n{tail}", self.seed);
            }
        }
    }
}

/// What its sessions are called. The oracles look for the first daemon's.
fn name(slot: usize) -> String {
    match slot {
        0 => "tenantd".to_owned(),
        _ => format!("tenantd/{slot}"),
    }
}
