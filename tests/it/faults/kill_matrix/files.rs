//! The files that are rolled out while daemons die: one of each kind that takes another way through tenantd.

use super::Random;
use crate::support::App;

/// Each tells `public.ran` that it ran, where it can, and so counts itself; not in a fresh schema to compare with, which
/// such a set must leave without a trace.
const KINDS: &[(&str, &str)] = &[
    (
        "table",
        "INSERT INTO ran SELECT '{v}', current_schema() WHERE current_schema() LIKE 'tenant\\_%';
         ALTER TABLE items ADD COLUMN column_{v} text DEFAULT 'x';
         CREATE TABLE table_{v} (id bigint PRIMARY KEY REFERENCES items, label text);",
    ),
    (
        "block",
        "DO $$ BEGIN
             INSERT INTO public.ran SELECT '{v}', current_schema() WHERE current_schema() LIKE 'tenant\\_%';
             EXECUTE 'CREATE TABLE block_{v} (id bigint)'; PERFORM pg_sleep(0.02);
         END $$;
         ALTER TABLE items ADD COLUMN block_{v} int;",
    ),
    (
        "built",
        "-- tenantd: transaction=none
         INSERT INTO ran SELECT '{v}', current_schema() WHERE current_schema() LIKE 'tenant\\_%';
         CREATE INDEX CONCURRENTLY built_{v} ON items (label);
         ALTER TABLE notes ADD COLUMN built_{v} int;",
    ),
    (
        "index",
        "CREATE INDEX CONCURRENTLY index_{v} ON notes (body);",
    ),
    (
        "rebuilt",
        "-- tenantd: transaction=none
         CREATE INDEX CONCURRENTLY gone_{v} ON items (label);
         REINDEX TABLE CONCURRENTLY items;
         INSERT INTO ran SELECT '{v}', current_schema() WHERE current_schema() LIKE 'tenant\\_%';
         DROP INDEX CONCURRENTLY gone_{v};
         VACUUM items;",
    ),
    (
        "enum",
        "-- tenantd: transaction=none
         ALTER TYPE mood ADD VALUE 'mood_{v}';
         ALTER TABLE items ALTER COLUMN mood SET DEFAULT 'mood_{v}';",
    ),
];

/// Fails now and then for three tenants, as a serialization failure does: tried again, never quarantined.
const FLAKY: &str = "DO $$ BEGIN
    IF current_schema() IN ('tenant_1', 'tenant_2', 'tenant_3') AND random() < 0.7 THEN
        RAISE EXCEPTION 'not now' USING ERRCODE = '40001';
    END IF;
    INSERT INTO public.ran SELECT '{v}', current_schema() WHERE current_schema() LIKE 'tenant\\_%';
END $$;
CREATE TABLE flaky_{v} (id bigint);";

/// What the fleet has before anybody is killed.
pub(super) async fn base(app: &App) {
    app.run("CREATE TABLE public.ran (file text, schema text)")
        .await;
    app.migration(
        "0003_mood.sql",
        "CREATE TYPE mood AS ENUM ('ok'); ALTER TABLE items ADD COLUMN mood mood DEFAULT 'ok';
         INSERT INTO items SELECT n, 'label ' || n FROM generate_series(1, 20) n;",
    );
}

/// Adds one file of a random kind, or the one that fails.
pub(super) fn add(app: &App, version: u32, flaky: bool, random: &mut Random) {
    let (kind, text) = match flaky {
        true => ("flaky", FLAKY),
        false => KINDS[usize::try_from(random.below(KINDS.len() as u64)).unwrap()],
    };
    let version = format!("{version:04}");
    app.migration_at_once(
        &format!("{version}_{kind}.sql"),
        &text.replace("{v}", &version),
    );
}
