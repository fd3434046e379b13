//! What happens between the plan and the work: guard and record notice it. A failpoint holds the daemon in between.

use crate::support::{App, Daemon, until};

/// The number of the last run, and whether there was one.
const RAN: &str = "SELECT concat_ws(' ', last_value, is_called) FROM public.ran";

/// A tenant that is behind by a file which counts itself, and a daemon that has planned and not sent anything.
async fn planned(hint: &str) -> (App, Daemon) {
    let app = App::current(hint, 1).await;
    // What a sequence counts is not rolled back.
    app.run("CREATE SEQUENCE public.ran").await;
    app.migration(
        "0003_count.sql",
        "DO $$ BEGIN PERFORM nextval('public.ran'); END $$;",
    );
    let daemon = app.start_at("reconcile.planned=sleep:2500ms@1");
    until("it to have planned", async || {
        let log = daemon.log();
        (log.contains("sleeps at reconcile.planned"), log)
    })
    .await;
    (app, daemon)
}

/// Waits until the daemon has seen that its plan is of yesterday, which is no failure.
async fn notices(app: &App, daemon: &Daemon) {
    until("it to notice", async || {
        let stale = daemon.reconciles("sweep", "busy").await;
        (stale >= 1.0, daemon.log())
    })
    .await;
    let failed = "SELECT count(*) FROM tenantd.tenant WHERE attempts > 0 OR error IS NOT NULL";
    assert_eq!(app.ask(failed).await, "0", "{}", daemon.log());
}

#[tokio::test]
pub(crate) async fn a_plan_that_another_session_overtook_is_dropped() {
    let (app, daemon) = planned("overtaken").await;
    app.tenantd(&["migrate", "1"]).ok();
    notices(&app, &daemon).await;
    assert_eq!(app.state("1").await, "current 0003");
    assert_eq!(app.ask(RAN).await, "1 t", "it ran again");
}

#[tokio::test]
pub(crate) async fn a_tenant_that_is_held_meanwhile_is_left_alone() {
    let (app, daemon) = planned("held_meanwhile").await;
    app.run("UPDATE tenantd.tenant SET held_by = 'ada' WHERE tenant_id = '1'")
        .await;
    notices(&app, &daemon).await;
    assert_eq!(app.state("1").await, "held 0002");
    assert_eq!(app.ask(RAN).await, "1 f", "it ran");
}

#[tokio::test]
pub(crate) async fn a_schema_that_was_replaced_meanwhile_is_not_migrated() {
    let (app, daemon) = planned("replaced").await;
    app.run("DROP SCHEMA tenant_1 CASCADE; CREATE SCHEMA tenant_1; CREATE TABLE tenant_1.theirs (id bigint)")
        .await;
    notices(&app, &daemon).await;
    assert_eq!(app.state("1").await, "restored 0002");
    assert_eq!(app.ask(RAN).await, "1 f", "it ran");
}

#[tokio::test]
pub(crate) async fn a_record_without_its_guard_is_refused() {
    let app = App::current("no_guard", 1).await;
    let recorded = app
        .sql
        .batch_execute(
            "SET search_path = tenant_1;
             SELECT tenantd.record('1', 'tenant_1', 'n1', 'tenant_1'::regnamespace, ARRAY['0003'], ARRAY['x'], ARRAY[3],
                 repeat('0', 32), current_schema(), 'tenant_1', CURRENT_USER, 'tenant_1', CURRENT_USER, false, true, false, 'by hand')",
        )
        .await;
    let refused = recorded
        .err()
        .map(|error| format!("{error:?}"))
        .unwrap_or_default();
    assert!(
        refused.contains("the migration left its transaction"),
        "left its transaction and was recorded: {refused}"
    );
}
