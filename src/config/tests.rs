//! The layers end to end, and the shipped file against the structs.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

/// Loads a file with `toml` in it, the given variables and the given flags.
fn load(toml: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    };
    let file = TempFile::new(toml);
    Config::load_from(Some(&file.0), own(env).into_iter().collect(), own(flags))
}

fn refusal(toml: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> String {
    load(toml, env, flags).unwrap_err().to_string()
}

struct TempFile(PathBuf);

impl TempFile {
    fn new(text: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tenantd-config-{}-{number}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// `section.key` of each line of default.toml, commented or not.
fn documented_keys() -> BTreeSet<String> {
    let mut section = "";
    let mut keys = BTreeSet::new();
    for line in DEFAULT_TOML.lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name;
        }
        let assignment = line.strip_prefix("# ").unwrap_or(line).split_once(" = ");
        if let Some((key, _)) = assignment.filter(|(key, _)| !key.contains([' ', '`'])) {
            assert!(
                keys.insert(format!("{section}.{key}")),
                "twice: {section}.{key}"
            );
        }
    }
    keys
}

#[test]
fn the_default_file_documents_every_key_and_no_other() {
    let known: BTreeSet<String> = layers::known_keys()
        .iter()
        .flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}.{key}")))
        .collect();
    assert_eq!(documented_keys(), known);
}

#[test]
fn the_optional_lines_of_the_default_file_hold_once_uncommented() {
    let all: String = DEFAULT_TOML
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest
                    .split_once(" = ")
                    .is_some_and(|(key, _)| !key.contains([' ', '`'])) =>
            {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .filter(|line| !line.starts_with("schema_template"))
        .collect();
    let config = load(&all, &[], &[]).unwrap();
    assert_eq!(
        config.registry.schema_column.as_deref(),
        Some("schema_name")
    );
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = Config::load_from(None, HashMap::new(), Vec::new()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(
        (config.database.workers, config.database.name.as_str()),
        (4, "main")
    );
    assert_eq!(config.registry.table.to_string(), "public.tenants");
    assert_eq!(config.migrations.search_path, ["{schema}", "public"]);
    assert_eq!(config.sweep.full_interval, Duration::from_secs(300));
    assert_eq!(config.locks.lock_timeout, Duration::from_secs(1));
    assert_eq!(config.http.listen, "127.0.0.1:8947".parse().ok());
    assert_eq!(
        (config.rollout.mode, config.heal.lost),
        (RolloutMode::Auto, LostPolicy::Hold)
    );
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let file = "[database]\nworkers = 2\nname = \"file\"\n[sweep]\ninterval = \"5s\"";
    let env = [
        ("TENANTD_DATABASE__NAME", "1e5"),
        ("TENANTD_SWEEP__INTERVAL", "7s"),
        ("TENANTD_MIGRATIONS__SEARCH_PATH", "{schema}, shared"),
        ("TENANTD_HTTP__LISTEN", ""),
        ("TENANTD_CONFIG", "/etc/tenantd.toml"),
        ("OTHER__KEY", "x"),
    ];
    let config = load(file, &env, &[("sweep.interval", "9s")]).unwrap();
    assert_eq!(
        (config.database.workers, config.database.name.as_str()),
        (2, "1e5")
    );
    assert_eq!(config.sweep.interval, Duration::from_secs(9));
    assert_eq!(config.migrations.search_path, ["{schema}", "shared"]);
    assert_eq!(config.http.listen, None);
}

#[test]
fn an_empty_text_takes_an_optional_value_back() {
    let file = "[schema]\nowner = \"app\"\nusage = [\"a\", \"b\"]";
    let env = [("TENANTD_SCHEMA__OWNER", ""), ("TENANTD_SCHEMA__USAGE", "")];
    let config = load(file, &env, &[]).unwrap();
    assert_eq!((config.schema.owner, config.schema.usage.len()), (None, 0));
}

#[test]
fn session_settings_may_have_dots_however_they_are_written() {
    let file = "[database.session_settings]\n\"a.quoted\" = true\nb.plain = 4\nwork_mem = \"1MB\"";
    let env = [("TENANTD_DATABASE__SESSION_SETTINGS__CITUS__X", "on")];
    let config = load(file, &env, &[]).unwrap();
    let settings: Vec<_> = config.database.session_settings.into_iter().collect();
    let expected = [
        ("a.quoted", "true"),
        ("b.plain", "4"),
        ("citus.x", "on"),
        ("work_mem", "1MB"),
    ];
    assert_eq!(
        settings,
        expected.map(|(k, v)| (k.to_owned(), v.to_owned()))
    );
}

#[test]
fn an_unknown_key_is_named_with_its_origin_and_a_suggestion() {
    let message = refusal(
        "[sweep]\nintervall = \"5s\"\n[swep]\nx = 1\n[log]\nworkers = 3",
        &[("TENANTD_RETRY__ATEMPTS", "3")],
        &[("http.lisen", "x")],
    );
    for part in [
        "configuration has 5 problems",
        "unknown key `intervall` in [sweep] in /",
        "did you mean `interval`?",
        "unknown section [swep] in /",
        "did you mean `sweep`?",
        "unknown key `workers` in [log] in /",
        "`workers` is a key of [database]",
        "unknown key `atempts` in [retry] from TENANTD_RETRY__ATEMPTS; did you mean `attempts`?",
        "unknown key `lisen` in [http] from the command line; did you mean `listen`?",
    ] {
        assert!(message.contains(part), "{part} is not in:\n{message}");
    }
}

#[test]
fn every_wrong_value_is_reported_at_once() {
    let message = refusal(
        "[database]\nworkers = \"many\"\n[sweep]\ninterval = 60\nfull_interval = \"0s\"\npoll_interval = \"2m\"\n\
         [rollout]\nmode = \"slow\"\n[registry]\ntable = \"a b\"\nschema_column = \"s\"\n\
         schema_template = \"t\"\n[locks]\nlock_timeout = \"1ms\"\n[logins]\nupdate_columns = [\"x\"]\n\
         [migrations]\nsearch_path = [\"public\"]\n[log]\nlevel = \"inof\"\n",
        &[("TENANTD_RETRY__ATTEMPTS", "0")],
        &[("http.listen", "localhost")],
    );
    for part in [
        "`workers` in [database] in /",
        "found string \"many\"",
        "`60` is not a duration",
        "`full_interval` in [sweep] must be longer than 0",
        "`poll_interval` in [sweep] must be at most 1m",
        "unknown variant `slow`, expected `auto` or `manual`",
        "`table` in [registry]",
        "`a b` is not a table name",
        "exclude each other",
        "must contain {id}",
        "at least 10ms",
        "`update_columns` in [logins] needs `table`",
        "must begin with \"{schema}\"",
        "`attempts` in [retry] must be at least 1",
        "`listen` in [http] from the command line: expected an IP address and a port",
        "did you mean `info`?",
    ] {
        assert!(message.contains(part), "{part} is not in:\n{message}");
    }
}

#[test]
fn settings_that_tenantd_makes_itself_are_refused() {
    let message = refusal(
        "[database.session_settings]\nsearch_path = \"x\"\n\"bad name\" = 1",
        &[],
        &[],
    );
    assert!(
        message.contains("use search_path in [migrations]"),
        "{message}"
    );
    assert!(
        message.contains("`bad name` in `session_settings`"),
        "{message}"
    );
}

#[test]
fn a_broken_file_is_named_with_its_line_and_without_its_text() {
    let error = load("[database]\nurl = postgres://u:hunter2@h/db\n", &[], &[]).unwrap_err();
    let message = format!("{error} {error:?}");
    assert!(message.contains(", line 2: "), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn a_missing_file_is_named() {
    let path = Path::new("/nonexistent/tenantd.toml");
    let error = Config::load_from(Some(path), HashMap::new(), Vec::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "read configuration file /nonexistent/tenantd.toml: No such file or directory (os error 2)"
    );
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn a_printed_configuration_shows_no_password() {
    let url = "postgres://u:hunter2@h/db";
    let file = format!("[database]\nurl = \"{url}\"\nlisten_url = \"password=hunter2\"");
    let config = load(&file, &[], &[]).unwrap();
    assert_eq!(config.database.url.as_ref().unwrap().expose(), url);
    let json = serde_json::to_string(&config).unwrap();
    let printed = format!(
        "{config:?} {:#?} {json} {}",
        config,
        config.database.url.clone().unwrap()
    );
    assert!(!printed.contains("hunter2"), "{printed}");
}
