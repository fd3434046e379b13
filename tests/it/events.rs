//! From a notification to a migrated schema.

use crate::support::{App, until};

#[tokio::test]
async fn an_inserted_tenant_gets_its_schema_and_the_application_hears_of_it() {
    let app = App::new("insert").await;
    let daemon = app.daemon().await;
    app.tenant(7).await;
    until("tenant 7 to be current", async || {
        let state = app.ask("SELECT tenantd.ready('7')").await;
        (state == "t", daemon.log())
    })
    .await;
    assert_eq!(
        app.ask("SELECT count(*) FROM tenant_7.items, tenant_7.notes")
            .await,
        "0"
    );
    assert_eq!(app.state("7").await, "current 0002");
    assert_eq!(daemon.metric("tenantd_events_total{channel=\"tenant_inserted\",database=\"main\",outcome=\"queued\"}").await, 1.0);
}
