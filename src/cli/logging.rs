//! Logs on stderr, as text or JSON.

use std::io::{IsTerminal as _, stderr};

use tenantd::config::{Log, LogFormat};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Starts logging. Commands other than the daemon log warnings only, unless the level was changed.
pub(crate) fn start(log: &Log, daemon: bool) {
    let level = if daemon || log.level != "info" {
        log.level.as_str()
    } else {
        "warn"
    };
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let to_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    match log.format {
        LogFormat::Json => registry
            .with(tracing_subscriber::fmt::layer().json().with_writer(stderr))
            .init(),
        // The journal keeps the time itself.
        LogFormat::Text if to_journal => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .without_time()
                    .with_target(false)
                    .with_ansi(false)
                    .with_writer(stderr),
            )
            .init(),
        LogFormat::Text => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_target(false)
                    .with_ansi(stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
                    .with_writer(stderr),
            )
            .init(),
    }
}
