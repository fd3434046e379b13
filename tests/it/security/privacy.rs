//! What customers wrote, and who they are, is told to nobody.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::CANARY;
use crate::support::App;

#[tokio::test]
async fn what_customers_wrote_is_in_no_log_and_not_in_the_ledger() {
    let app = App::new("customer data").await;
    app.tenant(1).await;
    app.tenantd(&["migrate", "1"]).ok();
    app.run(&format!(
        "INSERT INTO tenant_1.items VALUES (1, '{CANARY}'), (2, '{CANARY}')"
    ))
    .await;
    app.migration("0003_unique.sql", "CREATE UNIQUE INDEX ON items (label);");
    let daemon = app.daemon().await;
    app.becomes(&daemon, "1", "quarantined 0002").await;
    let (log, error) = (daemon.log(), app.error("1"));
    let (_, status) = daemon.get("/status").await;
    assert!(error.contains("could not create unique index"), "{error}");
    let ledger = app
        .ask("SELECT string_agg(t::text, ' ') FROM tenantd.tenant t")
        .await;
    for text in [log, error, status, ledger] {
        assert!(!text.contains(CANARY), "{text}");
    }
}

#[tokio::test]
async fn metrics_name_no_tenant_and_do_not_grow_with_the_fleet() {
    let app = App::new("series").await;
    app.configure_in("registry", "schema_column = \"schema\"");
    let insert = |from: i64, to: i64| {
        format!(
            "INSERT INTO public.tenants (id, name, schema) SELECT i, '{CANARY}', '{CANARY}' || i FROM generate_series({from}, {to}) i"
        )
    };
    app.run(&insert(1, 10)).await;
    let daemon = app.daemon().await;
    app.all_ready(&daemon, 1..=10).await;
    let series = async || {
        let (_, text) = daemon.get("/metrics").await;
        assert!(!text.contains(CANARY), "{text}");
        text.lines()
            .filter(|line| line.starts_with("tenantd_"))
            .count()
    };
    let few = series().await;
    app.run(&insert(11, 210)).await;
    app.all_ready(&daemon, 1..=210).await;
    assert_eq!(series().await, few);
}

#[tokio::test]
async fn a_configuration_file_with_a_password_that_everybody_may_read_is_warned_about() {
    let app = App::new("readable").await;
    let plain = fs::read_to_string(app.config()).unwrap();
    let secret = plain.replace("user=postgres", &format!("user=postgres password={CANARY}"));
    for (text, mode, warned) in [
        (&plain, 0o644, false),
        (&secret, 0o640, false),
        (&secret, 0o644, true),
    ] {
        fs::write(app.config(), text).unwrap();
        fs::set_permissions(app.config(), fs::Permissions::from_mode(mode)).unwrap();
        let log = app.daemon().await.log();
        let said = log.contains("holds a password and everybody may read it (mode 0644)");
        assert_eq!(said, warned, "{mode:o}: {log}");
        assert!(!log.contains(CANARY), "{log}");
    }
}
