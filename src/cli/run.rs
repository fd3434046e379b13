//! `tenantd run`: the daemon.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tenantd::{
    Config, Error, Result,
    daemon::{Signal, controller},
    failpoint,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::Code;

/// After the second signal to stop: enough to send the server its cancel requests.
const AT_ONCE: Duration = Duration::from_millis(700);

pub(crate) async fn run(config: Config) -> Result<Code> {
    failpoint::check()?;
    let (sender, receiver) = mpsc::channel(16);
    let stops = Arc::new(AtomicU32::new(0));
    let mut signals = Vec::new();
    for (kind, meaning) in [
        (SignalKind::terminate(), Signal::Stop),
        (SignalKind::interrupt(), Signal::Stop),
        (SignalKind::hangup(), Signal::Reload),
        (SignalKind::user_defined1(), Signal::Sweep),
    ] {
        let signal = signal(kind).map_err(|source| Error::Io {
            operation: "handle signals".into(),
            source,
        })?;
        signals.push((signal, meaning));
    }
    for (mut signal, meaning) in signals {
        let (sender, stops) = (sender.clone(), Arc::clone(&stops));
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                if meaning == Signal::Stop && stops.fetch_add(1, Ordering::AcqRel) > 0 {
                    tokio::spawn(end_at_once());
                }
                let _ = sender.send(meaning).await;
            }
        });
    }
    let ended = controller::run(config, receiver).await;
    if stops.load(Ordering::Acquire) > 1 {
        return Ok(Code::Killed);
    }
    ended.map(|()| Code::Ok)
}

/// The second signal: what is in flight is cancelled meanwhile, and nothing is waited for.
async fn end_at_once() {
    tokio::time::sleep(AT_ONCE).await;
    eprintln!("tenantd: stopped at once; the server rolls back what was in flight");
    std::process::exit(130);
}
