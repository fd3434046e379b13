//! What must hold after every fault, whatever it was (O1 to O8 of the catalogue).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tenantd::{fleet::fingerprint::Fingerprint, migrations::MigrationSet};
use tokio_postgres::NoTls;

use super::{App, Daemon, proxy::aside, until};

/// A password that no server asks for and no one may repeat.
pub const CANARY: &str = "canary-7f3a";
/// Lines of one kind that a burst may hold, beyond one a second.
const BURST: usize = 20;

/// All that hold while the daemon runs. Waits until every tenant is current.
pub async fn oracles(app: &App, daemon: &Daemon) {
    oracles_but(app, daemon, &[]).await;
}

/// The same, with tenants (by id) that are in quarantine, and must be.
pub async fn oracles_but(app: &App, daemon: &Daemon, quarantined: &[&str]) {
    all_current(app, daemon, quarantined).await;
    as_built_anew(app, quarantined).await;
    let invalid =
        "SELECT string_agg(indexrelid::regclass::text, ', ') FROM pg_index WHERE NOT indisvalid";
    assert_eq!(app.ask(invalid).await, "-", "O3: invalid indexes");
    applied_once(app).await;
    until("O6: notifications to be drained and no old snapshot", async || {
        let seen = app
            .ask(
                "SELECT concat_ws(' ', pg_notification_queue_usage() < 0.01, count(*), count(backend_xmin), count(xact_start))
                 FROM pg_stat_activity WHERE application_name = 'tenantd/listen' AND datname = current_database()",
            )
            .await;
        (seen == "t 1 0 0", format!("{seen}\n{}", daemon.log()))
    })
    .await;
    quiet(&daemon.log());
    let (_, metrics) = daemon.get("/metrics").await;
    assert!(!metrics.contains(CANARY), "O8: a secret");
}

/// O1: nobody is behind; who is in quarantine is known.
async fn all_current(app: &App, daemon: &Daemon, quarantined: &[&str]) {
    until("O1: all tenants to be current", async || {
        let report = app.tenantd(&["status", "--all", "--output", "json"]);
        if report.code != 0 {
            return (false, report.stderr);
        }
        let report = report.json();
        let tenants = report["tenants"].as_array().unwrap();
        let expected = |id: &str| {
            if quarantined.contains(&id) {
                "quarantined"
            } else {
                "current"
            }
        };
        let wrong: Vec<_> = tenants
            .iter()
            .filter(|tenant| tenant["state"] != expected(tenant["id"].as_str().unwrap()))
            .collect();
        let all = app.ask("SELECT count(*) FROM public.tenants").await;
        let holds = wrong.is_empty() && all == tenants.len().to_string();
        (holds, format!("{wrong:?}\n{}", daemon.log()))
    })
    .await;
}

/// O2: each schema is what its files build.
async fn as_built_anew(app: &App, quarantined: &[&str]) {
    let set = MigrationSet::load(&app.migrations()).unwrap();
    let mut client = app.db.connect().await;
    let path = ["{schema}".to_owned(), "public".to_owned()];
    let fresh = Fingerprint::fresh(&mut client, set.files(), None, &path);
    let fresh = fresh.await.unwrap();
    let sql = "SELECT t.tenant_id, n.nspname::text, n.oid FROM tenantd.tenant t
               JOIN pg_namespace n ON n.nspname = t.schema ORDER BY n.oid";
    for row in client.query(sql, &[]).await.unwrap() {
        let (id, schema, oid): (&str, &str, u32) = (row.get(0), row.get(1), row.get(2));
        if quarantined.contains(&id) {
            continue;
        }
        let found = Fingerprint::of(&mut client, schema, oid, &path).await;
        let difference = found.unwrap().difference(&fresh);
        assert!(difference.is_empty(), "O2: {schema}:\n{difference}");
    }
}

/// O5: the ledger and, for files made by [`App::counted`], the files themselves say once.
async fn applied_once(app: &App) {
    let wrong = "SELECT string_agg(t.schema, ', ') FROM tenantd.tenant t WHERE t.state = 'current' AND t.digest = (SELECT digest FROM tenantd.head)
                 AND (SELECT count(*) FROM tenantd.applied a WHERE a.tenant = t.id) <> (SELECT count(*) FROM tenantd.migration)";
    assert_eq!(app.ask(wrong).await, "-", "O5: the ledger");
    if app.ask("SELECT to_regclass('public.ran')").await == "-" {
        return;
    }
    let ran = "SELECT string_agg(concat_ws(' ', file, schema), ', ') FROM (
                   SELECT file, schema FROM public.ran GROUP BY 1, 2 HAVING count(*) <> 1) s";
    let ran = app.ask(ran).await;
    assert!(ran == "-", "O5: files that ran more than once: {ran}");
    let ledger = "SELECT string_agg(concat_ws(' ', coalesce(r.file, a.version), coalesce(r.schema, a.schema)), ', ')
                  FROM public.ran r FULL JOIN (
                      SELECT a.version, t.schema FROM tenantd.applied a JOIN tenantd.tenant t ON t.id = a.tenant
                      WHERE a.version IN (SELECT file FROM public.ran)) a
                  ON r.file = a.version AND r.schema = a.schema WHERE r.file IS NULL OR a.version IS NULL";
    assert_eq!(
        app.ask(ledger).await,
        "-",
        "O5: what ran is not what is recorded"
    );
}

/// O8: no class of warning repeats faster than once a second for long, and nothing secret is said.
pub fn quiet(log: &str) {
    assert!(!log.contains(CANARY), "O8: a secret:\n{log}");
    let mut classes = BTreeMap::<String, (usize, u64, u64)>::new();
    for line in log.lines() {
        let Some((time, text)) = line.split_once(' ') else {
            continue;
        };
        let (Some(second), text) = (seconds(time), text.trim_start()) else {
            continue;
        };
        if text.starts_with("WARN") || text.starts_with("ERROR") {
            let class: String = text
                .chars()
                .filter(|c| !c.is_ascii_digit())
                .take(60)
                .collect();
            let seen = classes.entry(class).or_insert((0, second, second));
            (seen.0, seen.2) = (seen.0 + 1, second);
        }
    }
    for (class, (lines, first, last)) in classes {
        let allowed = BURST + usize::try_from(last.saturating_sub(first)).unwrap();
        assert!(
            lines <= allowed,
            "O8: {lines} lines in {} s: {class}",
            last - first
        );
    }
}

/// `2026-11-23T18:45:07.123Z` as a second of the day.
fn seconds(time: &str) -> Option<u64> {
    let (_, clock) = time.split_once('T')?;
    let mut parts = clock
        .get(..8)?
        .split(':')
        .map(|part| part.parse::<u64>().ok());
    Some(parts.next()?? * 3600 + parts.next()?? * 60 + parts.next()??)
}

/// O4: after its exit the daemon has no session left, and so no lock.
pub async fn nothing_left(app: &App) {
    until("O4: no session to be left", async || {
        let left = app
            .ask(
                "SELECT string_agg(concat_ws(' ', application_name, state, wait_event, query), '; ') FROM pg_stat_activity
                 WHERE application_name LIKE 'tenantd/%' AND datname = current_database()",
            )
            .await;
        (left == "-", left)
    })
    .await;
}

/// An application that works on a tenant all the time (O7).
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(Duration, Vec<String>)>,
}

impl Probe {
    /// Inserts into and selects from `items` of this schema every 50 ms.
    pub fn start(app: &App, schema: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, conninfo) = (Arc::clone(&stop), app.db.conninfo.clone());
        let insert = format!(
            "INSERT INTO {schema}.items (id) SELECT coalesce(max(id), 0) + 1 FROM {schema}.items"
        );
        let select = format!("SELECT count(*) FROM {schema}.items");
        let thread = aside(async move {
            let connected = tokio_postgres::connect(&conninfo, NoTls).await;
            let (client, connection) = connected.unwrap();
            tokio::spawn(connection);
            let (mut longest, mut errors) = (Duration::ZERO, Vec::new());
            while !told.load(Ordering::Relaxed) {
                let start = Instant::now();
                for sql in [&insert, &select] {
                    if let Err(error) = client.batch_execute(sql).await {
                        errors.push(format!("{error:?}"));
                    }
                }
                longest = longest.max(start.elapsed());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (longest, errors)
        });
        Self { stop, thread }
    }

    /// Ends it: the application had no error and never stood still for longer than this.
    pub fn was_served(self, within: Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let (longest, errors) = self.thread.join().unwrap();
        assert!(errors.is_empty(), "O7: the application failed: {errors:?}");
        assert!(
            longest <= within,
            "O7: the application waited for {longest:?}"
        );
    }
}

#[tokio::test]
#[should_panic(expected = "O2: tenant_1")]
async fn a_schema_altered_by_hand_does_not_pass() {
    let app = App::current("altered", 2).await;
    let daemon = app.daemon().await;
    app.run("ALTER TABLE tenant_1.items ADD COLUMN odd int")
        .await;
    oracles(&app, &daemon).await;
}

#[tokio::test]
#[should_panic(expected = "O5: files that ran more than once: 0003 tenant_1")]
async fn a_file_that_ran_twice_does_not_pass() {
    let app = App::new("twice").await;
    app.counted("0003").await;
    app.tenant(1).await;
    let daemon = app.daemon().await;
    app.all_ready(&daemon, [1]).await;
    app.run("INSERT INTO public.ran VALUES ('0003', 'tenant_1')")
        .await;
    oracles(&app, &daemon).await;
}

#[test]
#[should_panic(expected = "O8: 100 lines")]
fn a_storm_of_log_lines_does_not_pass() {
    quiet(&"2026-11-23T18:45:07.123Z  WARN not listening, tried again\n".repeat(100));
}
