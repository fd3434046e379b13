//! `tenantd run`: the daemon.

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

pub(crate) async fn run(config: Config) -> Result<Code> {
    failpoint::check()?;
    let (sender, receiver) = mpsc::channel(16);
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
        let sender = sender.clone();
        tokio::spawn(async move {
            let mut stops = 0;
            while signal.recv().await.is_some() {
                stops += u32::from(meaning == Signal::Stop);
                if stops > 1 {
                    eprintln!("tenantd: stopped at once; the server rolls back what was in flight");
                    std::process::exit(1);
                }
                let _ = sender.send(meaning).await;
            }
        });
    }
    controller::run(config, receiver).await?;
    Ok(Code::Ok)
}
