//! A version that fails on many tenants is stopped for the fleet; a few bad tenants stop nobody.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use tenantd::{fleet::breaker, migrations::MigrationSet};

use crate::support::{App, Daemon, daemon::HEAD_SWEEPS, until};

const OPEN: &str = "tenantd_breaker_open{database=\"main\"}";
/// Tenants that the bad version reached.
const REACHED: &str = "SELECT count(*) FROM tenantd.tenant WHERE error_version = '0003'";
/// Fails as long as the application's table says so.
const KNOB: &str = "DO $$ BEGIN IF (SELECT broken FROM public.knob) THEN RAISE 'out of order' USING ERRCODE = '22012'; END IF; END $$;";

/// Current tenants 1 to `tenants`, and a third file that fails until the knob is turned.
async fn broken(hint: &str, tenants: i64) -> App {
    let app = App::current(hint, tenants).await;
    app.run("CREATE TABLE public.knob AS SELECT true AS broken")
        .await;
    app.migration("0003_knob.sql", KNOB);
    app
}

async fn opens(daemon: &Daemon) {
    until("the version to be stopped", async || {
        (daemon.metric(OPEN).await == 1.0, daemon.log())
    })
    .await;
}

/// Waits until two more sweeps have looked at the fleet.
async fn sweeps(daemon: &Daemon) {
    let before = daemon.metric(HEAD_SWEEPS).await;
    until("two sweeps", async || {
        (
            daemon.metric(HEAD_SWEEPS).await >= before + 2.0,
            daemon.log(),
        )
    })
    .await;
}

#[tokio::test]
pub(crate) async fn a_version_that_fails_everywhere_reaches_five_tenants_and_those_in_flight() {
    let app = broken("breaker", 30).await;
    let daemon = app.daemon().await;
    opens(&daemon).await;
    sweeps(&daemon).await;
    let reached: i64 = app.ask(REACHED).await.parse().unwrap();
    // The other one of two workers may be under way when the fifth failure is counted.
    assert!((5..=6).contains(&reached), "{reached}:\n{}", daemon.log());
    let lines: Vec<_> = daemon
        .log()
        .lines()
        .filter(|line| line.contains("ERROR"))
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for part in [
        "version 0003 (0003_knob.sql) is stopped for the whole fleet: it failed on 5 of 5 tenants",
        "`tenantd release 0003`",
        "out of order (SQLSTATE 22012)",
    ] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
    assert_eq!(daemon.get("/readyz").await.0, 200);
    let (_, status) = daemon.get("/status").await;
    assert!(status.contains(r#""stopped":[{"#), "{status}");

    // Who comes now waits too, and so does whoever is asked for together with all others.
    app.tenant(31).await;
    until("the new tenant to be looked at", async || {
        (
            daemon.reconciles("insert", "waiting").await >= 1.0,
            daemon.log(),
        )
    })
    .await;
    assert_eq!(app.state("31").await, "unprovisioned -");
    let ran = app.tenantd(&["migrate", "--all"]);
    assert_eq!(ran.code, 4);
    assert!(ran.stdout.contains("tenants wait: version 0003"), "{ran:?}");
    assert_eq!(app.ask(REACHED).await, reached.to_string());
    let said = app.tenantd(&["status"]).ok().stdout;
    assert!(
        said.contains("stopped: version 0003 (0003_knob.sql) failed on 5 tenants"),
        "{said}"
    );
    let said = app.tenantd(&["status", "30"]).ok().stdout;
    assert!(
        said.contains("`tenantd release 0003`; on this tenant alone with `tenantd migrate 30`"),
        "{said}"
    );

    // A person may try it on one tenant.
    let ran = app.tenantd(&["migrate", "30"]);
    assert_eq!(ran.code, 4);
    assert!(ran.stdout.contains("quarantined"), "{ran:?}");

    // Another file is another version.
    app.migration("0003_knob.sql", "ALTER TABLE items ADD COLUMN note text;");
    daemon.signal("HUP");
    app.all_ready(&daemon, 1..=31).await;
    until("the gauge to say so", async || {
        (daemon.metric(OPEN).await < 1.0, daemon.log())
    })
    .await;
    let ran = app.tenantd(&["release"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("nothing to release"), "{ran:?}");
}

#[tokio::test]
async fn a_released_version_is_tried_on_those_who_waited() {
    let app = broken("breaker_release", 12).await;
    let daemon = app.daemon().await;
    opens(&daemon).await;
    app.run("UPDATE public.knob SET broken = false").await;
    for version in ["0002", "0009"] {
        let ran = app.tenantd(&["release", version]);
        assert_eq!(ran.code, 1, "{ran:?}");
    }
    let ran = app.tenantd(&["release", "0003"]).ok();
    assert!(ran.stdout.contains("released 0003"), "{ran:?}");
    until("the others to be current", async || {
        let waiting = app
            .ask(
                "SELECT count(*) FROM tenantd.tenant WHERE state NOT IN ('current', 'quarantined')",
            )
            .await;
        (waiting == "0", daemon.log())
    })
    .await;
    until("the gauge to say so", async || {
        (daemon.metric(OPEN).await == 0.0, daemon.log())
    })
    .await;
    let parked = app
        .ask("SELECT string_agg(tenant_id, ' ') FROM tenantd.tenant WHERE state = 'quarantined'")
        .await;
    let mut fix = vec!["fix"];
    fix.extend(parked.split(' '));
    app.tenantd(&fix).ok();
    app.all_ready(&daemon, 1..=12).await;
}

#[tokio::test]
async fn two_daemons_count_together() {
    let app = broken("breaker_two", 30).await;
    let (one, two) = (app.daemon().await, app.daemon().await);
    opens(&one).await;
    opens(&two).await;
    // The first one leads, and so sweeps.
    sweeps(&one).await;
    let reached: i64 = app.ask(REACHED).await.parse().unwrap();
    assert!((5..=8).contains(&reached), "{reached}:\n{}", one.log());
    let said = [one.log(), two.log()]
        .concat()
        .matches("is stopped for the whole fleet")
        .count();
    assert_eq!(said, 1);
}

#[tokio::test]
async fn one_poison_tenant_in_a_hundred_is_tried_once_and_costs_the_others_nothing() {
    let app = App::new("poison").await;
    app.run("INSERT INTO public.tenants (id) SELECT generate_series(1, 200)")
        .await;
    app.tenantd(&["migrate", "--all"]).ok();
    app.run("INSERT INTO tenant_50.items VALUES (-1); INSERT INTO tenant_150.items VALUES (-1)")
        .await;
    app.migration("0003_picky.sql", "ALTER TABLE items ADD CHECK (id > 0);");
    let daemon = app.daemon().await;
    app.all_ready(&daemon, (1..=200).filter(|id| ![50, 150].contains(id)))
        .await;
    sweeps(&daemon).await;
    assert_eq!(
        app.ask("SELECT string_agg(concat_ws(' ', tenant_id, state, attempts), ', ' ORDER BY tenant_id::int) FROM tenantd.tenant WHERE state <> 'current'")
            .await,
        "50 quarantined 1, 150 quarantined 1"
    );
    assert_eq!(daemon.reconciles("sweep", "quarantined").await, 2.0);
    assert_eq!(daemon.metric(OPEN).await, 0.0);
}

#[tokio::test]
async fn five_in_a_row_or_a_tenth_of_the_last_fifty_stop_a_version() {
    let app = App::new("breaker_count").await;
    let set = MigrationSet::load(&app.migrations()).unwrap();
    let file = &set.files()[1];
    let count = async |tenant: &str, successes: u32| {
        let counted = breaker::count(&app.sql, file, tenant, successes, "why").await;
        counted.unwrap().map(|counted| counted.tripped)
    };
    let forget = async || app.run("DELETE FROM tenantd.breaker").await;

    for tenant in ["1", "2", "3", "4"] {
        assert_eq!(count(tenant, 0).await, Some(false), "{tenant}");
        assert_eq!(count(tenant, 0).await, None, "each counts once");
    }
    assert_eq!(count("5", 0).await, Some(true));
    assert_eq!(count("6", 0).await, None, "it is stopped already");

    forget().await;
    for tenant in 0..4 {
        count(&format!("a{tenant}"), 0).await;
    }
    assert_eq!(count("b", 1).await, Some(false), "not in a row");

    // One in nine: too few tenants tell too little, fifty tell enough.
    forget().await;
    let mut tripped = Vec::new();
    for tenant in 1..=6 {
        tripped.push(count(&tenant.to_string(), 8).await.unwrap());
    }
    assert_eq!(tripped, [false, false, false, false, false, true]);

    // One in thirteen is less than a tenth, however long it goes on.
    forget().await;
    for tenant in 1..=20 {
        assert_eq!(
            count(&tenant.to_string(), 12).await,
            Some(false),
            "{tenant}"
        );
    }
}
