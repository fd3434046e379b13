//! `tenantd verify`: what a schema is, against what its files build.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use crate::support::{App, until};

/// One of everything that a fingerprint must tell apart, under names that tempt it.
const EVERYTHING: &str = "
    CREATE TYPE mood AS ENUM ('ok', 'sad');
    CREATE DOMAIN short AS text CHECK (length(value) < 9);
    CREATE TABLE a (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, mood mood DEFAULT 'ok', code short, word text COLLATE \"C\");
    CREATE TABLE b (id serial PRIMARY KEY, a bigint REFERENCES a, note text, CONSTRAINT positive CHECK (id > 0));
    CREATE INDEX b_note ON b (lower(note)) WHERE note IS NOT NULL;
    CREATE TABLE parts (at date NOT NULL) PARTITION BY RANGE (at);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    CREATE VIEW v AS SELECT a.id, b.note FROM a JOIN b ON b.a = a.id;
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
    CREATE FUNCTION feels(m mood) RETURNS text LANGUAGE sql AS $$ SELECT m::text || ' a.b' $$;
    CREATE TRIGGER touched BEFORE UPDATE ON b FOR EACH ROW EXECUTE FUNCTION touch();
    CREATE STATISTICS pair (dependencies) ON id, a FROM b;
    ALTER TABLE a ENABLE ROW LEVEL SECURITY;
    CREATE POLICY mine ON a USING (word = current_user);
    COMMENT ON TABLE a IS 'letters';";

#[tokio::test]
async fn schemas_of_any_name_are_as_built() {
    let app = App::bare("verify").await;
    app.configure_in("registry", "schema_column = \"schema\"");
    app.migration("0003_everything.sql", EVERYTHING);
    app.tenantd(&["install"]).ok();
    for (id, schema) in [(1, "a"), (2, "b"), (3, "Ab c"), (4, "q\"uote"), (5, "note")] {
        app.sql
            .execute(
                "INSERT INTO public.tenants (id, schema) VALUES ($1, $2)",
                &[&i64::from(id), &schema],
            )
            .await
            .unwrap();
    }
    app.tenantd(&["migrate", "--all"]).ok();
    let ran = app.tenantd(&["verify", "--all"]).ok();
    assert_eq!(ran.stdout, "5 as built, 0 drifted, 0 not compared\n");
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tenantd\\_scratch%'";
    assert_eq!(app.ask(left).await, "0");
}

#[tokio::test]
async fn every_change_by_hand_is_shown_line_by_line() {
    let app = App::new("verify").await;
    app.migration("0003_everything.sql", EVERYTHING);
    app.tenant(1).await;
    app.tenant(2).await;
    app.tenantd(&["migrate", "--all"]).ok();
    for (change, shown) in [
        (
            "ALTER TABLE items ADD COLUMN extra int",
            "+ column items.extra integer",
        ),
        (
            "ALTER TABLE notes ALTER COLUMN body SET NOT NULL",
            "+ column notes.body text not null",
        ),
        ("DROP INDEX b_note", "- index CREATE INDEX b_note ON b"),
        (
            "ALTER TYPE mood ADD VALUE 'glad'",
            "+ enum mood ('ok', 'sad', 'glad')",
        ),
        (
            "ALTER TABLE b DROP CONSTRAINT positive",
            "- constraint b.positive CHECK",
        ),
        (
            "DROP TRIGGER touched ON b",
            "- trigger CREATE TRIGGER touched",
        ),
        (
            "CREATE OR REPLACE FUNCTION feels(m mood) RETURNS text LANGUAGE sql AS 'SELECT null'",
            "+ CREATE OR REPLACE FUNCTION feels(m mood)",
        ),
        ("DROP POLICY mine ON a", "- policy a.mine"),
        (
            "COMMENT ON TABLE a IS 'numbers'",
            "+ comment on relation a: numbers",
        ),
        ("ALTER SEQUENCE b_id_seq INCREMENT 2", "+ sequence b_id_seq"),
        ("DROP STATISTICS pair", "- statistics pair on id, a"),
    ] {
        app.run(&format!(
            "SET search_path = tenant_1, public; {change}; RESET search_path"
        ))
        .await;
        let ran = app.tenantd(&["verify", "1"]);
        assert_eq!(ran.code, 3, "{change}: {}", ran.stderr);
        assert!(ran.stdout.contains(shown), "{change}: {}", ran.stdout);
    }
    let json = app.tenantd(&["verify", "--all", "--output", "json"]);
    assert_eq!(json.code, 3);
    let drifted: Vec<_> = json
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["drifted"].clone())
        .collect();
    assert_eq!(drifted, [true, false]);
    let report = app.tenantd(&["status", "--output", "json"]).ok().json();
    assert_eq!(report["drifted"], 1);
}

#[tokio::test]
async fn full_sweeps_verify_the_configured_share_and_count_what_drifted() {
    let app = App::current("verify", 3).await;
    app.configure_in("sweep", "verify_share = 0.4");
    app.run("ALTER TABLE tenant_2.items ADD COLUMN extra int")
        .await;
    let daemon = app.daemon().await;
    until("the drift to be counted", async || {
        let drifted = daemon
            .metric("tenantd_tenants_drifted{database=\"main\"}")
            .await;
        (drifted >= 1.0, daemon.log())
    })
    .await;
    until("every tenant to have had its turn", async || {
        let verified = app.ask("SELECT count(*) FROM tenantd.verified").await;
        (verified == "3", verified)
    })
    .await;
    app.run("ALTER TABLE tenant_2.items DROP COLUMN extra")
        .await;
    until("the drift to be gone", async || {
        let drifted = daemon
            .metric("tenantd_tenants_drifted{database=\"main\"}")
            .await;
        (drifted < 1.0, daemon.log())
    })
    .await;
    assert_eq!(
        daemon.log().matches("1 tenants differ").count(),
        1,
        "{}",
        daemon.log()
    );
}

#[tokio::test]
async fn a_set_that_needs_commits_is_verified_too_and_leaves_no_schema_behind() {
    let app = App::new("verify").await;
    app.migration(
        "0003_mood.sql",
        "CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE feelings (m mood);",
    );
    app.migration(
        "0004_sad.sql",
        "ALTER TYPE mood ADD VALUE 'sad'; INSERT INTO feelings VALUES ('sad'); CREATE INDEX CONCURRENTLY felt ON feelings (m);",
    );
    app.tenant(1).await;
    app.tenantd(&["migrate", "--all"]).ok();
    // What a killed process left two hours ago.
    app.run("CREATE SCHEMA tenantd_scratch_1600000000_0a1b")
        .await;
    app.tenantd(&["verify", "1"]).ok();
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tenantd\\_scratch%'";
    assert_eq!(app.ask(left).await, "0");
}

#[tokio::test]
async fn what_a_file_wrote_elsewhere_is_not_written_again_for_a_comparison() {
    let app = App::new("verify").await;
    app.run("CREATE TABLE public.ran (schema text)").await;
    app.migration(
        "0003_ran.sql",
        "INSERT INTO ran VALUES (current_schema()); DO $$ BEGIN INSERT INTO public.ran VALUES (current_schema()); END $$;",
    );
    app.tenant(1).await;
    app.tenantd(&["migrate", "--all"]).ok();
    let ran = "SELECT count(*) FROM public.ran";
    app.tenantd(&["verify", "1"]).ok();
    assert_eq!(app.ask(ran).await, "2", "it is rolled back");
    app.migration(
        "0004_mood.sql",
        "CREATE TYPE mood AS ENUM ('ok'); ALTER TYPE mood ADD VALUE 'sad'; CREATE TABLE feelings (m mood DEFAULT 'sad');",
    );
    app.tenantd(&["migrate", "--all"]).ok();
    let verified = app.tenantd(&["verify", "1"]);
    assert_eq!(verified.code, 1, "{verified:?}");
    assert!(
        verified.stderr.contains("writes to public.ran"),
        "{verified:?}"
    );
    assert_eq!(app.ask(ran).await, "2");
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tenantd\\_scratch%'";
    assert_eq!(app.ask(left).await, "0");
}

#[tokio::test]
async fn what_the_files_leave_in_the_session_of_a_comparison_ends_with_it() {
    let app = App::new("verify").await;
    app.migration(
        "0003_lock.sql",
        "DO $$ BEGIN EXECUTE 'SELECT pg_advisory_lock(4711)'; END $$;",
    );
    app.tenant(1).await;
    app.tenantd(&["migrate", "--all"]).ok();
    app.configure_in("sweep", "verify_share = 1.0");
    let daemon = app.daemon().await;
    until("the tenant to be verified", async || {
        let verified = app.ask("SELECT count(*) FROM tenantd.verified").await;
        (verified == "1", daemon.log())
    })
    .await;
    app.run("UPDATE tenantd.verified SET verified_at = 'epoch'")
        .await;
    app.answers(
        "SELECT count(*) FROM tenantd.verified v WHERE v.verified_at > 'epoch' AND NOT EXISTS (
             SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
             WHERE l.locktype = 'advisory' AND l.objid = 4711 AND d.datname = current_database())",
        "1",
    )
    .await;
}
