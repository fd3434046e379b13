//! A detector that is switched off for the scenarios of this thread (see `mutants.rs`). A test and all its tasks run on
//! one thread, so nothing needs to be handed down.

use std::{cell::Cell, time::Duration};

use tokio_postgres::Client;

/// Generous: only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(30);

thread_local! {
    static OFF: Cell<Option<(Off, Duration)>> = const { Cell::new(None) };
}

/// How a detector is switched off.
#[derive(Debug, Clone, Copy)]
pub enum Off {
    /// By `name=off` in `TENANTD_FAILPOINTS`; `name` is one of `failpoint::DETECTORS`.
    Failpoint(&'static str),
    /// In the control schema: this function, this text in it, and what stands there instead.
    Sql(&'static str, &'static str, &'static str),
}

/// Runs a scenario without a detector; `limit` bounds what it waits for. What it panicked with, if it did.
pub fn without(off: Off, limit: Duration, scenario: fn()) -> Option<String> {
    let thread = std::thread::spawn(move || {
        OFF.set(Some((off, limit)));
        scenario();
    });
    let payload = thread.join().err()?;
    let text = payload.downcast_ref::<String>().cloned();
    Some(text.unwrap_or_else(|| {
        payload
            .downcast_ref::<&str>()
            .map_or_else(String::new, |text| (*text).to_owned())
    }))
}

/// How long a scenario waits for a state.
pub(super) fn limit() -> Duration {
    OFF.get().map_or(LIMIT, |(_, limit)| limit)
}

/// Whether this detector of the program's is switched off.
pub(super) fn is_off(detector: &str) -> bool {
    matches!(OFF.get(), Some((Off::Failpoint(name), _)) if name == detector)
}

/// What the program's environment says, with what the scenario itself wants there.
pub(super) fn failpoints(own: &str) -> String {
    match OFF.get() {
        Some((Off::Failpoint(name), _)) => format!("{own};{name}=off"),
        _ => own.to_owned(),
    }
}

/// Changes the control schema, once it is installed.
pub(super) async fn change(client: &Client) {
    let Some((Off::Sql(function, text, instead), _)) = OFF.get() else {
        return;
    };
    let find = "SELECT pg_get_functiondef(p.oid) FROM pg_proc p
                WHERE p.pronamespace = 'tenantd'::regnamespace AND p.proname = $1";
    let found = client
        .query_one(find, &[&function])
        .await
        .expect("the function");
    let definition: String = found.get(0);
    assert!(
        definition.contains(text),
        "tenantd.{function} has no {text:?}"
    );
    client
        .batch_execute(&definition.replacen(text, instead, 1))
        .await
        .expect("the changed function");
}
