//! What a single key cannot tell: ranges, and keys that belong together or exclude each other.

use std::time::Duration;

use super::Config;
use super::suggest::{closest, hint};

/// Workers are connections; more than this only moves the queue into the server.
const MAX_WORKERS: u16 = 64;
/// Below this, a lock attempt fails before a busy server had a chance to grant it.
const MIN_LOCK_TIMEOUT: Duration = Duration::from_millis(10);
/// PostgreSQL keeps timeouts as milliseconds in 32 bits.
const MAX_SERVER_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);
/// The listener comes round once in it, and is taken for wedged after 90 s.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(60);
/// Settings that tenantd makes for each transaction, with the key to use in their place.
const OWN_SETTINGS: [(&str, &str); 4] = [
    ("search_path", "search_path in [migrations]"),
    ("role", "role in [migrations]"),
    ("lock_timeout", "lock_timeout in [locks]"),
    ("statement_timeout", "statement_timeout in [locks]"),
];
/// The words a log filter may use for a level.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Adds a sentence to `problems` for everything that is wrong.
pub(super) fn check(config: &Config, problems: &mut Vec<String>) {
    let mut rule = |holds: bool, problem: &str| {
        if !holds {
            problems.push(problem.to_owned());
        }
    };
    let default = Config::default();
    let registry = &config.registry;
    let logins = &config.logins;
    let workers = config.database.workers;

    rule(
        (1..=MAX_WORKERS).contains(&workers),
        &format!("`workers` in [database] must be 1 to {MAX_WORKERS}, not {workers}"),
    );
    rule(
        registry.schema_column.is_none()
            || registry.schema_template == default.registry.schema_template,
        "`schema_column` and `schema_template` in [registry] exclude each other: the schema's name \
         is either stored or built",
    );
    rule(
        registry.schema_template.contains("{id}"),
        "`schema_template` in [registry] must contain {id}, or all tenants share a schema",
    );
    rule(
        !registry
            .schema_template
            .replace("{id}", "")
            .contains(['{', '}']),
        "`schema_template` in [registry] has a placeholder other than {id}",
    );
    rule(
        logins.table.is_some() == logins.tenant_column.is_some(),
        "`table` and `tenant_column` in [logins] go together",
    );
    rule(
        logins.update_columns.is_empty() || logins.table.is_some(),
        "`update_columns` in [logins] needs `table`",
    );
    rule(
        config
            .migrations
            .search_path
            .first()
            .is_some_and(|first| first == "{schema}"),
        "`search_path` in [migrations] must begin with \"{schema}\", so that files reach the tenant \
         first",
    );
    rule(
        config.retry.attempts >= 1,
        "`attempts` in [retry] must be at least 1",
    );
    rule(
        config.retry.initial <= config.retry.max,
        "`initial` in [retry] must not be longer than `max`",
    );
    rule(
        (0.0..=1.0).contains(&config.sweep.verify_share),
        "`verify_share` in [sweep] must be 0 to 1",
    );
    texts(config, problems);
    durations(config, problems);
    session_settings(config, problems);
    log_level(&config.log.level, problems);
}

/// Names and paths that must not be empty.
fn texts(config: &Config, problems: &mut Vec<String>) {
    let has_blank = |list: &[String]| list.iter().any(|item| item.trim().is_empty());
    let dir = config.migrations.dir.as_os_str();
    for (blank, key, section) in [
        (config.database.name.trim().is_empty(), "name", "database"),
        (
            config.registry.id_column.is_empty(),
            "id_column",
            "registry",
        ),
        (dir.is_empty(), "dir", "migrations"),
        (
            has_blank(&config.migrations.search_path),
            "search_path",
            "migrations",
        ),
        (
            has_blank(&config.logins.update_columns),
            "update_columns",
            "logins",
        ),
        (has_blank(&config.schema.usage), "usage", "schema"),
    ] {
        if blank {
            problems.push(format!(
                "`{key}` in [{section}] must not be or hold an empty text"
            ));
        }
    }
}

fn durations(config: &Config, problems: &mut Vec<String>) {
    let locks = &config.locks;
    for (value, key, section) in [
        (config.sweep.interval, "interval", "sweep"),
        (config.sweep.full_interval, "full_interval", "sweep"),
        (config.sweep.poll_interval, "poll_interval", "sweep"),
        (config.retry.initial, "initial", "retry"),
        (config.retry.max, "max", "retry"),
        (locks.max_hold, "max_hold", "locks"),
        (locks.statement_timeout, "statement_timeout", "locks"),
    ] {
        if value.is_zero() {
            problems.push(format!("`{key}` in [{section}] must be longer than 0"));
        }
    }
    if config.sweep.poll_interval > MAX_POLL_INTERVAL {
        problems.push("`poll_interval` in [sweep] must be at most 1m".to_owned());
    }
    if locks.lock_timeout < MIN_LOCK_TIMEOUT {
        problems.push("`lock_timeout` in [locks] must be at least 10ms".to_owned());
    }
    for (value, key) in [
        (locks.lock_timeout, "lock_timeout"),
        (locks.statement_timeout, "statement_timeout"),
    ] {
        if value > MAX_SERVER_TIMEOUT {
            problems.push(format!(
                "`{key}` in [locks] is longer than PostgreSQL's limit of 24 days"
            ));
        }
    }
}

fn session_settings(config: &Config, problems: &mut Vec<String>) {
    for name in config.database.session_settings.keys() {
        if !is_setting_name(name) {
            problems.push(format!(
                "`{name}` in `session_settings` of [database] is not the name of a server setting"
            ));
        }
        let own = OWN_SETTINGS
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name));
        if let Some((_, key)) = own {
            problems.push(format!(
                "`{name}` in `session_settings` of [database] is set by tenantd; use {key}"
            ));
        }
    }
}

/// `work_mem`, or `citus.shard_count` for a setting of an extension.
fn is_setting_name(name: &str) -> bool {
    name.split('.').all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
    })
}

/// A level that is misspelt would be read as the name of a target, and switch the log off.
fn log_level(filter: &str, problems: &mut Vec<String>) {
    for directive in filter.split(',').map(str::trim) {
        let level = directive.rsplit('=').next().unwrap_or(directive);
        if !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
            problems.push(format!(
                "`level` in [log]: `{level}` is none of {}{}",
                LEVELS.join(", "),
                hint(closest(level, LEVELS))
            ));
        }
    }
}
