use super::{Alone, Parsed, Severity, check};

/// Statement, rule, line.
type Case<'a> = (&'a str, &'a str, usize);

fn rules(parsed: &Parsed) -> Vec<(&'static str, usize)> {
    parsed
        .findings
        .iter()
        .map(|it| (it.rule, it.line))
        .collect()
}

/// Each case stands alone, in the middle of a file, and two lines down in it.
fn assert_refused(cases: &[Case<'_>]) {
    for (sql, rule, line) in cases {
        let parsed = check(sql);
        assert_eq!(
            rules(&parsed),
            [(*rule, *line)],
            "{sql}\n{:#?}",
            parsed.findings
        );
        assert_eq!(parsed.findings[0].severity, Severity::Error, "{sql}");

        let parsed = check(&format!("SELECT 1; -- one\n\n{sql}\n;\nSELECT 2"));
        assert!(
            rules(&parsed).contains(&(*rule, line + 2)),
            "{sql}\n{:#?}",
            parsed.findings
        );
    }
}

fn assert_accepted(sql: &str) {
    assert_eq!(check(sql).findings, [], "{sql}");
}

/// The lines of `tests/locks.txt`: expected locks and statement.
fn lock_cases() -> impl Iterator<Item = (Vec<String>, &'static str)> {
    let lines = include_str!("tests/locks.txt").lines();
    lines.filter(|line| !line.starts_with('#')).map(|line| {
        let (locks, sql) = line.trim_start_matches('-').split_once(": ").unwrap();
        let mut locks: Vec<_> = locks
            .split(", ")
            .filter(|it| !it.is_empty())
            .map(Into::into)
            .collect();
        locks.sort();
        (locks, sql)
    })
}

#[test]
fn each_statement_takes_the_lock_that_the_manual_says() {
    for (expected, sql) in lock_cases() {
        let locks = check(sql).locks;
        let known = locks.known.iter();
        let mut known: Vec<_> = known
            .map(|lock| format!("{} on {}", lock.mode, lock.on))
            .collect();
        known.sort();
        assert_eq!(known, expected, "{sql}");
    }
}

#[test]
fn what_a_file_makes_is_not_locked_and_what_cannot_be_read_is_said() {
    let said = |sql: &str| check(sql).locks.to_string();
    assert_eq!(
        said(
            "CREATE TABLE a (id int); CREATE INDEX i ON a (id); UPDATE a SET id = 1; DROP INDEX i"
        ),
        "none on a table that exists"
    );
    assert_eq!(
        said("UPDATE \"Items\" SET a = 1; CREATE INDEX i ON \"Items\" (a); DROP INDEX j"),
        "ACCESS EXCLUSIVE on the table of index j, SHARE on \"Items\""
    );
    let unknown = "unknown: its text does not tell all it does";
    for sql in [
        "DO $$ BEGIN NULL; END $$",
        "SELECT f()",
        "DROP TYPE t CASCADE",
        "ALTER DOMAIN d SET NOT NULL",
    ] {
        assert_eq!(said(sql), unknown, "{sql}");
    }
    assert_eq!(
        said("LOCK TABLE a; CALL p()"),
        format!("ACCESS EXCLUSIVE on a, {unknown}")
    );
}

#[test]
fn transaction_control_is_refused() {
    assert_refused(&[
        ("BEGIN", "transaction-control", 1),
        (
            "begin work isolation level serializable",
            "transaction-control",
            1,
        ),
        ("START TRANSACTION", "transaction-control", 1),
        ("COMMIT", "transaction-control", 1),
        ("/* a\n b */ COMMIT AND CHAIN", "transaction-control", 2),
        ("END", "transaction-control", 1),
        ("ROLLBACK", "transaction-control", 1),
        ("ABORT", "transaction-control", 1),
        ("SAVEPOINT a", "transaction-control", 1),
        ("RELEASE SAVEPOINT a", "transaction-control", 1),
        ("RELEASE a", "transaction-control", 1),
        ("ROLLBACK TO SAVEPOINT a", "transaction-control", 1),
        ("PREPARE TRANSACTION 'a'", "transaction-control", 1),
        ("COMMIT PREPARED 'a'", "transaction-control", 1),
        ("ROLLBACK PREPARED 'a'", "transaction-control", 1),
        ("SET TRANSACTION READ ONLY", "transaction-control", 1),
        ("SET TRANSACTION SNAPSHOT 'a'", "transaction-control", 1),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "transaction-control",
            1,
        ),
        ("DO $$ BEGIN\n COMMIT;\nEND $$", "transaction-control", 2),
        (
            "DO $$\nBEGIN\n IF true THEN\n  ROLLBACK AND CHAIN; END IF; END $$",
            "transaction-control",
            4,
        ),
    ]);
}

#[test]
fn session_settings_are_refused() {
    assert_refused(&[
        ("SET search_path = public", "session-setting", 1),
        ("SET SESSION search_path TO a, b", "session-setting", 1),
        ("SET LOCAL search_path = public", "session-setting", 1),
        ("SET LOCAL lock_timeout = '1s'", "session-setting", 1),
        ("SET LOCAL Statement_Timeout = 0", "session-setting", 1),
        (
            "SET LOCAL session_replication_role = replica",
            "session-setting",
            1,
        ),
        ("SET LOCAL synchronous_commit = off", "session-setting", 1),
        ("SET LOCAL \"role\" = a", "session-setting", 1),
        ("SET LOCAL app.tenant = 'a'", "session-setting", 1),
        ("SET work_mem = '1GB'", "session-setting", 1),
        ("SET SCHEMA 'a'", "session-setting", 1),
        ("SET TIME ZONE 'UTC'", "session-setting", 1),
        ("SET LOCAL TIME ZONE DEFAULT", "session-setting", 1),
        ("SET XML OPTION DOCUMENT", "session-setting", 1),
        ("SET ROLE a", "session-setting", 1),
        ("SET LOCAL ROLE NONE", "session-setting", 1),
        ("SET SESSION AUTHORIZATION DEFAULT", "session-setting", 1),
        ("RESET ALL", "session-setting", 1),
        ("RESET search_path", "session-setting", 1),
        ("RESET ROLE", "session-setting", 1),
        ("RESET SESSION AUTHORIZATION", "session-setting", 1),
        ("DISCARD ALL", "session-setting", 1),
        ("DISCARD TEMP", "session-setting", 1),
        (
            "SELECT set_config('search_path', 'a', true)",
            "session-setting",
            1,
        ),
        (
            "UPDATE a SET b = 1\nWHERE pg_catalog.\"set_config\"('a', 'b', false) = ''",
            "session-setting",
            2,
        ),
        (
            "DO $$ BEGIN\n PERFORM set_config('a.b', 'c', false); END $$",
            "session-setting",
            2,
        ),
        (
            "DO $$ BEGIN\n SET LOCAL lock_timeout = 0; END $$",
            "session-setting",
            2,
        ),
        ("DO 'BEGIN\n RESET ALL; END'", "session-setting", 2),
    ]);
}

#[test]
fn planner_and_memory_settings_may_be_local() {
    assert_accepted("SET LOCAL work_mem = '64MB'; SET LOCAL \"enable_seqscan\" TO off;");
    assert_accepted(
        "SET LOCAL maintenance_work_mem = '1GB'; SET LOCAL check_function_bodies = off",
    );
    assert_accepted(
        "DO $$ BEGIN SET LOCAL work_mem = '64MB'; END $$; SET CONSTRAINTS ALL DEFERRED",
    );
    assert_accepted("CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path = a RETURN 1");
}

#[test]
fn what_would_wait_for_the_client_or_outlive_the_tenant_is_refused() {
    assert_refused(&[
        ("COPY a FROM STDIN", "copy", 1),
        ("COPY a (b) TO STDOUT WITH (FORMAT csv)", "copy", 1),
        ("COPY (SELECT 1) TO '/tmp/x'", "copy", 1),
        ("COPY a FROM PROGRAM 'ls'", "copy", 1),
        ("CREATE TEMP TABLE a (b int)", "temporary-object", 1),
        (
            "CREATE LOCAL TEMPORARY TABLE a AS SELECT 1",
            "temporary-object",
            1,
        ),
        ("CREATE TEMP VIEW a AS SELECT 1", "temporary-object", 1),
        ("CREATE TEMPORARY SEQUENCE a", "temporary-object", 1),
        ("SELECT 1 AS b\nINTO TEMP a", "temporary-object", 2),
        (
            "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql RETURN 1",
            "temporary-object",
            1,
        ),
        ("SELECT\n pg_temp.f()", "temporary-object", 2),
        ("SELECT * FROM pg_temp_3 . a", "temporary-object", 1),
        ("PREPARE a AS SELECT 1", "prepared-statement", 1),
        ("EXECUTE a", "prepared-statement", 1),
        ("CREATE TABLE a AS EXECUTE b (1)", "prepared-statement", 1),
        ("DEALLOCATE ALL", "prepared-statement", 1),
        ("DECLARE a CURSOR WITH HOLD FOR SELECT 1", "cursor", 1),
        ("FETCH NEXT FROM a", "cursor", 1),
        ("MOVE a", "cursor", 1),
        ("CLOSE ALL", "cursor", 1),
        ("LISTEN a", "notification", 1),
        ("UNLISTEN *", "notification", 1),
        ("NOTIFY a, 'b'", "notification", 1),
        ("SELECT pg_notify('a', 'b')", "notification", 1),
        ("LOAD 'auto_explain'", "load", 1),
        ("SELECT pg_advisory_lock(1)", "advisory-lock", 1),
        ("SELECT pg_try_advisory_lock_shared(1)", "advisory-lock", 1),
        (
            "SELECT pg_catalog.pg_advisory_unlock_all()",
            "advisory-lock",
            1,
        ),
        (
            "DO $$ BEGIN\nPERFORM pg_advisory_lock(1); END $$",
            "advisory-lock",
            2,
        ),
    ]);
    assert_accepted("SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(1)");
}

const DATABASE_WIDE: &str = include_str!("tests/database_wide.sql");

#[test]
fn statements_about_the_whole_database_are_refused() {
    for sql in DATABASE_WIDE.lines() {
        assert_refused(&[(sql, "database-wide", 1)]);
    }
}

#[test]
fn statements_outside_a_transaction_are_refused_where_they_cannot_be_repeated() {
    assert_refused(&[
        (
            "REINDEX (VERBOSE, CONCURRENTLY) INDEX a",
            "no-transaction",
            1,
        ),
        ("REINDEX SCHEMA a", "no-transaction", 1),
        ("REINDEX DATABASE a", "no-transaction", 1),
        ("REINDEX SYSTEM a", "no-transaction", 1),
        ("VACUUM", "database-wide", 1),
        (
            "ALTER TABLE a\nDETACH PARTITION b CONCURRENTLY",
            "no-transaction",
            2,
        ),
        ("CREATE INDEX CONCURRENTLY ON b (c)", "index-name", 1),
        (
            "DROP INDEX CONCURRENTLY a; DO $$ BEGIN END $$",
            "outside-opaque",
            1,
        ),
    ]);
    for inside in [
        "CREATE INDEX a ON b (c); REINDEX TABLE b; CLUSTER b USING a; ANALYZE",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY a",
        "ALTER TYPE mood ADD VALUE 'a'",
    ] {
        assert_accepted(inside);
        assert_eq!(check(inside).outside, None, "{inside}");
    }
}

#[test]
fn a_file_that_refuses_a_transaction_has_a_plain_form_with_every_place_where_it_was() {
    let text = "VACUUM (ANALYZE) ä;\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS \"A b\" ON b (c);\n\
                DROP INDEX CONCURRENTLY Old;REINDEX TABLE CONCURRENTLY b";
    let parsed = check(text);
    let alone: Vec<_> = parsed
        .statements
        .iter()
        .map(|it| it.alone.clone())
        .collect();
    assert_eq!(
        alone,
        [
            Some(Alone::Vacuum),
            Some(Alone::BuildIndex("A b".into())),
            Some(Alone::DropIndex("old".into())),
            Some(Alone::Reindex)
        ]
    );
    let plain = parsed.outside.unwrap().plain;
    assert_eq!(plain.sql.len(), text.len());
    let left: Vec<_> = plain.statements.iter().map(|it| it.line).collect();
    assert_eq!(left, [2, 3]);
    assert_eq!(
        plain.sql.split_whitespace().collect::<Vec<_>>().join(" "),
        "CREATE UNIQUE INDEX IF NOT EXISTS \"A b\" ON b (c); DROP INDEX Old;"
    );
}

#[test]
fn a_file_that_uses_an_enum_value_it_adds_takes_several_commits() {
    let add = "ALTER TYPE mood ADD VALUE 'it''s' AFTER 'ok';";
    let parsed = check(&format!("{add}\nINSERT INTO a VALUES (E'it\\'s')"));
    assert_eq!(rules(&parsed), []);
    assert!(parsed.outside.is_some_and(|it| it.commits));
    let block = check(&format!("{add}\nDO $$ BEGIN\n PERFORM 'it''s'; END $$"));
    assert_eq!(rules(&block), [("outside-opaque", 2)]);
    let unused = check(&format!(
        "SELECT 'it''s'; {add} COMMENT ON TYPE mood IS 'it''s'; SELECT 'ok'"
    ));
    assert_eq!(unused.outside, None);
}

const OUTSIDE: &str = include_str!("tests/outside_schema.sql");

#[test]
fn changing_an_object_outside_the_schema_is_refused() {
    for sql in OUTSIDE.lines() {
        assert_refused(&[(sql, "outside-schema", 1)]);
    }
    assert_refused(&[("DROP TABLE a,\n s.b", "outside-schema", 2)]);
}

#[test]
fn reading_from_another_schema_is_fine() {
    assert_accepted("SELECT s.f(a) FROM s.b JOIN s.c USING (d); TABLE s.a");
    assert_accepted("CREATE VIEW a AS SELECT * FROM s.b; CREATE TABLE c (LIKE s.d INCLUDING ALL)");
    assert_accepted("CREATE TABLE a (b s.t DEFAULT s.f() COLLATE s.c, CHECK (b OPERATOR(s.=) 1))");
    assert_accepted("INSERT INTO a SELECT * FROM s.b; UPDATE a SET b = c.d FROM s.c");
    assert_accepted("CREATE TRIGGER a AFTER INSERT ON b FOR EACH ROW EXECUTE FUNCTION s.f()");
    assert_accepted(
        "CREATE INDEX a ON b USING gin (c s.gin_trgm_ops); ALTER TABLE a ADD b s.citext",
    );
    assert_accepted("COMMENT ON COLUMN a.b IS 'c'; ALTER SEQUENCE a OWNED BY b.c");
}

#[test]
fn a_body_that_runs_later_is_not_judged() {
    assert_accepted(
        "CREATE RULE a AS ON INSERT TO b DO ALSO (NOTIFY c; INSERT INTO s.d VALUES (1))",
    );
    assert_accepted(
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC INSERT INTO s.a VALUES (1); SELECT 1; END",
    );
    assert_accepted("CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN SET ROLE a; COMMIT; END $$");
    assert_accepted("DO $$ BEGIN EXECUTE 'COMMIT'; RAISE NOTICE 'COMMIT;'; END $$");
    assert_accepted("DO $$ this is not PL/pgSQL; COMMIT; $$");
}

#[test]
fn a_foreign_key_to_a_shared_table_is_a_warning() {
    for sql in [
        "CREATE TABLE a (\nb int REFERENCES s.c (d))",
        "ALTER TABLE a ADD COLUMN b int\n REFERENCES s.c",
        "ALTER TABLE a ADD CONSTRAINT k\nFOREIGN KEY (b) REFERENCES s.c (d) NOT VALID",
    ] {
        let parsed = check(sql);
        assert_eq!(rules(&parsed), [("shared-foreign-key", 2)], "{sql}");
        assert_eq!(parsed.findings[0].severity, Severity::Warning);
    }
    assert_accepted("CREATE TABLE a (b int REFERENCES c (d), FOREIGN KEY (b) REFERENCES c)");
}

#[test]
fn a_file_without_a_statement_is_refused() {
    for text in ["", "\n", "-- nothing\n/* here */", ";", " ;; -- x\n;"] {
        assert_eq!(rules(&check(text)), [("empty", 1)], "{text:?}");
    }
}

#[test]
fn psql_commands_are_told_from_syntax_errors() {
    assert_eq!(
        rules(&check("\\c other\nSELECT 1;\n  \\i file.sql")),
        [("psql-command", 1), ("psql-command", 3)]
    );
    assert_eq!(rules(&check("SELECT 1 \\gexec")), [("psql-command", 1)]);
    assert_accepted("SELECT '\n\\c x', $$\n\\c$$, E'\\\\' /*\n\\c */ -- \\c\n;");
}

#[test]
fn syntax_errors_are_reported_once_a_line_and_at_most_five_times() {
    assert_eq!(
        rules(&check("SELECT 1;\nCREATE TABLE (a int);")),
        [("syntax", 2)]
    );
    assert_eq!(
        rules(&check("SELECT 1\nCREATE TABLE a (b int)")),
        [("syntax", 1)]
    );
    assert!(!check("SELECT 'open").findings.is_empty());
    assert!(!check("DO $x$ BEGIN NULL; END $y$;").findings.is_empty());
    assert!(!check("SELECT 1 /* open").findings.is_empty());
    assert_eq!(rules(&check(&"this is no SQL\n".repeat(20))).len(), 5);
}

#[test]
fn text_that_parser_and_server_read_differently_is_refused() {
    assert!(rules(&check("SELECT '\0'")).contains(&("nul-byte", 1)));
    assert_eq!(rules(&check("\u{feff}SELECT 1")), [("byte-order-mark", 1)]);
    assert_eq!(
        rules(&check("SELECT 1,\nE'a'\n'b\\'' || 'c'")),
        [("syntax", 2)]
    );
}

#[test]
fn statements_begin_at_their_first_token() {
    let text =
        "-- lead\nCREATE TABLE a (b int); ;\n/* x\n */ SELECT 1; -- tail\nDO $$ BEGIN NULL; END $$";
    let parsed = check(text);
    let found: Vec<_> = parsed
        .statements
        .iter()
        .map(|it| (&text[it.offset..][..2], it.line))
        .collect();
    assert_eq!(found, [("CR", 2), ("SE", 4), ("DO", 5)]);
}

#[test]
fn semicolons_inside_a_statement_do_not_end_it() {
    for (sql, count) in [
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC; SELECT 1; SELECT 2; END; SELECT 3",
            2,
        ),
        (
            "CREATE RULE r AS ON INSERT TO a DO (SELECT 1; SELECT 2); SELECT 3;",
            2,
        ),
        (
            "SELECT ';', \";\", $$;$$, $a$;$$;$a$, E'\\';' /* ; /* ; */ ; */ -- ;\n",
            1,
        ),
        ("SELECT 'a'\n';'; SELECT U&';'", 2),
    ] {
        assert_eq!(check(sql).statements.len(), count, "{sql}");
    }
}

#[test]
fn code_whose_effect_is_not_in_the_text_is_opaque() {
    for sql in [
        "DO $$ BEGIN NULL; END $$",
        "CALL p()",
        "SELECT f(1)",
        "SELECT s.now()",
        "VALUES (f())",
        "WITH a AS (SELECT f()) SELECT * FROM a",
        "INSERT INTO a SELECT f(b) FROM c",
        "UPDATE a SET b = f(b)",
        "DELETE FROM a WHERE f(b)",
        "CREATE TABLE a AS SELECT f()",
        "SELECT * FROM f()",
        "ALTER TABLE a ADD COLUMN b int DEFAULT f()",
        "EXPLAIN ANALYZE SELECT f()",
    ] {
        assert!(check(sql).opaque, "{sql}");
    }
    for sql in [
        "SELECT now(), lower('A'), pg_catalog.upper('a'), coalesce(1, 2), extract(year FROM now())",
        "INSERT INTO a SELECT jsonb_build_object('x', count(*)), nextval('s') FROM generate_series(1, 2)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN g()",
        "CREATE VIEW a AS SELECT f()",
        "CREATE TRIGGER a AFTER INSERT ON b EXECUTE FUNCTION f()",
        "CREATE TABLE a (b int DEFAULT f())",
    ] {
        assert!(!check(sql).opaque, "{sql}");
    }
}

#[test]
fn every_syntax_that_creates_a_table_counts() {
    for sql in [
        "CREATE TABLE a ()",
        "CREATE TABLE a AS SELECT 1",
        "SELECT 1 AS b INTO a",
    ] {
        assert!(check(sql).creates_table, "{sql}");
    }
    assert!(!check("CREATE VIEW a AS SELECT 1; INSERT INTO b SELECT 1").creates_table);
}

#[test]
fn messages_name_the_statement_and_the_remedy() {
    let message = |sql| check(sql).findings[0].message.clone();
    assert_eq!(
        message("COMMIT"),
        "COMMIT is refused: leave it out, the service commits the file together with its ledger \
         entry"
    );
    assert_eq!(
        message("WITH x AS (SELECT 1) UPDATE s.a SET b = 1"),
        "UPDATE names s.a: leave out the schema, the tenant's comes first on the search path; \
         shared objects are changed outside the migration set"
    );
    assert!(
        message("ALTER TABLE a DETACH PARTITION b CONCURRENTLY")
            .starts_with("ALTER TABLE … CONCURRENTLY is")
    );
    assert!(message("SET work_mem = 1").ends_with("write SET LOCAL"));
}

const SAMPLE: &str = include_str!("tests/sample.sql");

#[test]
fn no_prefix_or_suffix_of_a_file_makes_the_check_panic() {
    for (at, _) in SAMPLE.char_indices() {
        for text in [&SAMPLE[..at], &SAMPLE[at..]] {
            let parsed = super::inspect(text);
            let lines = text.lines().count().max(1);
            assert!(
                parsed
                    .findings
                    .iter()
                    .all(|it| (1..=lines + 1).contains(&it.line)),
                "{text}"
            );
        }
    }
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    let deep = format!("SELECT {}1{}", "(".repeat(3000), ")".repeat(3000));
    assert_eq!(check(&deep).statements.len(), 1);
    assert_eq!(
        check(&format!("SELECT true{}", " OR true".repeat(5000))).findings,
        []
    );
}
