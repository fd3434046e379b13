//! The files that are shipped: defaults, sample migrations, the unit, and what the README promises of `make`.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::{collections::HashMap, fs, process::Command};

use tenantd::Config;

use crate::support::{
    App,
    app::repository,
    more::{finish, program, spawn},
};

#[test]
fn the_shipped_configuration_is_the_default() {
    let file = repository("config/default.toml");
    let loaded = Config::load_from(Some(&file), HashMap::new(), Vec::new()).unwrap();
    assert_eq!(loaded, Config::default());
}

#[test]
fn every_optional_key_of_the_shipped_configuration_can_be_set_as_shown() {
    let text = fs::read_to_string(repository("config/default.toml")).unwrap();
    let mut section = String::new();
    let (mut shown, mut refused) = (0, Vec::new());
    for line in text.lines() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
        }
        let Some((key, value)) = line
            .strip_prefix("# ")
            .and_then(|line| line.split_once(" = "))
        else {
            continue;
        };
        if key.contains(' ') {
            continue; // a sentence
        }
        shown += 1;
        let value = value.trim_matches('"').to_owned();
        let set = vec![(format!("{section}.{key}"), value)];
        match Config::load_from(None, HashMap::new(), set) {
            // Keys that go together are refused alone, by a sentence that names the other one.
            Err(error) if error.to_string().contains("unknown") => refused.push(error.to_string()),
            _ => {}
        }
    }
    assert!(shown > 5, "{shown}");
    assert_eq!(refused, [""; 0]);
}

#[tokio::test]
async fn the_sample_migrations_pass_the_check_and_fill_an_empty_schema() {
    let app = App::new("sample set").await;
    let samples = repository("migrations/tenant");
    let dir = format!("migrations.dir={}", samples.display());
    let check = app.tenantd(&["check", "--set", &dir]).ok();
    let (findings, summary) = check
        .stdout
        .trim_end()
        .rsplit_once('\n')
        .unwrap_or(("", check.stdout.trim_end()));
    assert_eq!(findings, "", "the samples should be beyond reproach");
    let entries = fs::read_dir(&samples)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = entries
        .filter(|path| path.extension().is_some_and(|it| it == "sql"))
        .count();
    assert!(
        summary.starts_with(&format!("{files} files, head ")),
        "{summary}"
    );
    app.tenant(1).await;
    app.sql
        .batch_execute("CREATE SCHEMA tenant_1")
        .await
        .unwrap();
    app.tenantd(&["migrate", "1", "--set", &dir]).ok();
    let sql = "SELECT count(*) FROM pg_class WHERE relnamespace = 'tenant_1'::regnamespace AND relkind IN ('r', 'p')";
    let tables: u32 = app.ask(sql).await.parse().unwrap();
    assert!(tables >= 12, "{tables} tables");
    let elsewhere = "SELECT string_agg(relname, ',') FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";
    assert_eq!(
        app.ask(elsewhere).await.split(',').count(),
        2,
        "tenants and logins"
    );
    let status = app.tenantd(&["status", "1", "--check", "--set", &dir]).ok();
    assert!(status.stdout.contains("current (fine)"), "{status:?}");
}

#[tokio::test]
async fn the_unit_is_one_that_systemd_accepts_and_its_command_line_one_that_we_do() {
    let unit = fs::read_to_string(repository("systemd/tenantd.service")).unwrap();
    let lines = unit.lines().filter(|line| line.starts_with("ExecStart="));
    let start = lines
        .map(|line| line.trim_start_matches("ExecStart="))
        .next()
        .unwrap();
    let words: Vec<_> = start.split_whitespace().collect();
    let help = program().args(&words[1..]).arg("--help").output().unwrap();
    assert!(help.status.success(), "{start}");

    // With our program in place of the installed one, as systemd looks for it.
    let dir = std::env::temp_dir().join(format!("tenantd-unit-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join("tenantd.service");
    fs::write(&file, unit.replace(words[0], env!("CARGO_BIN_EXE_tenantd"))).unwrap();
    let mut verify = Command::new("systemd-analyze");
    let child = spawn(verify.arg("verify").arg("--man=no").arg(&file));
    let ran = finish(child).await;
    fs::remove_dir_all(&dir).unwrap();
    let about_us: Vec<_> = ran
        .stderr
        .lines()
        .filter(|line| line.contains("tenantd"))
        .collect();
    assert_eq!(
        (ran.code, about_us.as_slice()),
        (0, &[""; 0][..]),
        "{ran:?}"
    );
}

#[test]
fn the_make_targets_that_the_readme_names_exist() {
    let readme = fs::read_to_string(repository("README.md")).unwrap();
    let makefile = fs::read_to_string(repository("Makefile")).unwrap();
    let targets: Vec<_> = makefile
        .lines()
        .filter_map(|line| line.split_once(':').map(|(name, _)| name))
        .collect();
    let named = readme
        .split(['`', '\n'])
        .filter_map(|code| code.trim().strip_prefix("make "));
    let named: Vec<_> = named
        .filter_map(|rest| rest.split_whitespace().next())
        .collect();
    assert!(!named.is_empty(), "the README names no make target");
    for target in named {
        assert!(
            targets.contains(&target),
            "make {target}: the Makefile has {targets:?}"
        );
    }
}
