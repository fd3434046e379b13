//! The guided demo: tenantd at work on a throw-away PostgreSQL, seen from an application's connection.
//!
//! `--once` ends by itself; the exit code tells whether every step held. Without it the cluster and the
//! daemon stay up until Ctrl-C.

#[path = "../../tests/it/support/postgres.rs"]
mod postgres;
mod stage;

use std::{process::ExitCode, time::Instant};

use stage::{Stage, millis};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let once = std::env::args().any(|argument| argument == "--once");
    match play(once).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn play(once: bool) -> Result<(), String> {
    let mut stage = Stage::set().await?;
    three_tenants(&mut stage).await?;
    first_login(&mut stage).await?;
    one_bad_tenant(&mut stage).await?;
    rollout(&mut stage).await?;
    lost_and_rebuilt(&mut stage).await?;
    numbers(&mut stage).await?;
    stage.say("every step held");
    if !once {
        stage.invite();
        let _ = tokio::signal::ctrl_c().await;
    }
    stage.strike().await
}

/// The main job: a row in the registry, and its schema is ready.
async fn three_tenants(stage: &mut Stage) -> Result<(), String> {
    stage.step("a tenant signs up; its schema is built");
    sign_up(stage, "Acme").await?;
    stage.step("two more sign up when spares are ready; each is given one");
    stage.shows("tenantd_spares{database=\"main\"} 2").await?;
    for name in ["Globex", "Initech"] {
        sign_up(stage, name).await?;
    }
    stage
        .shows("tenantd_spares_claimed_total{database=\"main\"} 2")
        .await?;
    Ok(())
}

async fn sign_up(stage: &mut Stage, name: &'static str) -> Result<(), String> {
    let id = stage.insert(name).await?;
    let committed = Instant::now();
    stage.ready(&id).await?;
    let took = millis(committed);
    let tables = stage
        .ask(&format!(
            "SELECT count(*) FROM pg_tables WHERE schemaname = '{}'",
            schema(&id)
        ))
        .await?;
    stage.say(&format!(
        "{name}: {tables} tables, ready {took} after the INSERT's commit"
    ));
    stage.tenants.push((name, id));
    Ok(())
}

/// A schema that somebody created and nobody filled; no event told of the tenant.
async fn first_login(stage: &mut Stage) -> Result<(), String> {
    stage.step("a tenant was imported without events, its schema created empty; at a login the application asks tenantd.login()");
    let id = stage.ask("SELECT gen_random_uuid()::text").await?;
    stage
        .run(&format!(
            "SET session_replication_role = replica; INSERT INTO tenants (id, name) VALUES ('{id}', 'Umbrella');
             RESET session_replication_role; CREATE SCHEMA {}",
            schema(&id)
        ))
        .await?;
    stage
        .expect(&format!("SELECT tenantd.ready('{id}')"), "f")
        .await?;
    // The login trigger asks only who lags; the function asks the ledger, and nobody has told it of this tenant.
    stage
        .expect(&format!("SELECT tenantd.login('{id}')"), "f")
        .await?;
    let committed = Instant::now();
    stage.ready(&id).await?;
    stage.say(&format!(
        "Umbrella: filled at its first login, ready {} after it",
        millis(committed)
    ));
    stage.tenants.push(("Umbrella", id));
    Ok(())
}

/// A new file that the data of one tenant does not allow.
async fn one_bad_tenant(stage: &mut Stage) -> Result<(), String> {
    stage.step("file 0015 makes e-mail addresses unique, and Globex has the same one twice");
    let (_, globex) = stage.tenants[1].clone();
    let customers = format!("{}.customers", schema(&globex));
    stage
        .run(&format!("INSERT INTO {customers} (display_name, email) VALUES ('Ann', 'ann@example.com'), ('Ann B.', 'Ann@example.com')"))
        .await?;
    stage.release("0015_customers_email_unique.sql")?;
    let start = Instant::now();
    stage
        .until(
            "SELECT count(*) FROM tenantd.status WHERE version = '0015' AND state = 'current'",
            "3",
        )
        .await?;
    stage
        .until(
            &format!("SELECT state FROM tenantd.status WHERE id = '{globex}'"),
            "quarantined",
        )
        .await?;
    stage.say(&format!(
        "the other three went on, {} after the file came; Globex is set apart:",
        millis(start)
    ));
    stage.tenantd(&["status"]).await?;
    stage.say("its data is mended, and a person says so:");
    stage
        .run(&format!(
            "DELETE FROM {customers} WHERE display_name = 'Ann B.'"
        ))
        .await?;
    stage.tenantd(&["fix", &globex]).await?;
    stage
        .expect(&format!("SELECT tenantd.ready('{globex}')"), "t")
        .await
}

/// A new file that suits everybody.
async fn rollout(stage: &mut Stage) -> Result<(), String> {
    stage.step("file 0016 is rolled out");
    stage.release("0016_customer_notes.sql")?;
    let start = Instant::now();
    stage
        .until(
            "SELECT count(*) FROM tenantd.status WHERE version = '0016' AND state = 'current'",
            "4",
        )
        .await?;
    stage.say(&format!(
        "all four tenants have it {} after the daemon was told",
        millis(start)
    ));
    Ok(())
}

/// Tables that vanish are never built again without a person's word.
async fn lost_and_rebuilt(stage: &mut Stage) -> Result<(), String> {
    stage.step("somebody drops every table of Initech");
    let (_, initech) = stage.tenants[2].clone();
    let name = schema(&initech);
    stage
        .run(&format!(
            "DO $$ DECLARE t text; BEGIN
                 FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = '{name}' LOOP
                     EXECUTE format('DROP TABLE {name}.%I CASCADE', t);
                 END LOOP;
             END $$"
        ))
        .await?;
    stage.tenantd(&["sweep"]).await?;
    stage
        .until(
            &format!("SELECT state FROM tenantd.status WHERE id = '{initech}'"),
            "lost",
        )
        .await?;
    stage.say("it is reported, and left alone:");
    stage.tenantd(&["status", &initech]).await?;
    stage.say("a person says to build it anew; what is left is renamed and kept:");
    stage.tenantd(&["fix", &initech, "--rebuild"]).await?;
    stage
        .expect(&format!("SELECT tenantd.ready('{initech}')"), "t")
        .await?;
    stage
        .expect(
            &format!(
                r"SELECT count(*) FROM pg_namespace WHERE nspname LIKE '{}%\_\_lost\_%'",
                &name[..30]
            ),
            "1",
        )
        .await
}

/// What operators see.
async fn numbers(stage: &mut Stage) -> Result<(), String> {
    stage.step("what operators see");
    stage.tenantd(&["sweep"]).await?;
    let metrics = stage
        .shows("tenantd_schemas_with_tables{database=\"main\"} 4")
        .await?;
    let shown = [
        "tenantd_tenants{",
        "tenantd_schemas_",
        "tenantd_migrations_applied",
        "tenantd_spares",
        "tenantd_event_to_ready_seconds_sum",
        "tenantd_event_to_ready_seconds_count",
        "process_resident_memory_bytes",
    ];
    for line in metrics
        .lines()
        .filter(|line| shown.iter().any(|start| line.starts_with(start)))
    {
        println!("    {line}");
    }
    println!();
    stage.tenantd(&["status", "--all"]).await?;
    let resident = metrics
        .lines()
        .find_map(|line| {
            line.strip_prefix("process_resident_memory_bytes ")?
                .parse::<f64>()
                .ok()
        })
        .ok_or("no resident memory among the metrics")?;
    stage.say(&format!(
        "resident memory of the daemon: {:.1} MiB",
        resident / 1024.0 / 1024.0
    ));
    Ok(())
}

fn schema(id: &str) -> String {
    format!("tenant_{}", id.replace('-', "_"))
}
