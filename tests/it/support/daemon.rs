//! A running tenantd as the tests see it: its log, its metrics, what it notifies.

use std::{
    fs,
    future::poll_fn,
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use super::mutant::limit;

/// How many sweeps a daemon has done.
pub const HEAD_SWEEPS: &str =
    "tenantd_sweep_duration_seconds_count{database=\"main\",kind=\"head\"}";
pub const FULL_SWEEPS: &str =
    "tenantd_sweep_duration_seconds_count{database=\"main\",kind=\"full\"}";

/// A connection of the application's that listens on one channel.
pub struct Heard {
    client: Client,
    channel: String,
    receiver: mpsc::UnboundedReceiver<String>,
}

/// A running `tenantd run`, killed on drop.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Heard {
    /// Listens on this channel.
    pub async fn new(conninfo: &str, channel: &str) -> Self {
        let (client, mut connection) = tokio_postgres::connect(conninfo, NoTls).await.unwrap();
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(note) = message {
                    let _ = sender.send(note.payload().to_owned());
                }
            }
        });
        client
            .batch_execute(&format!("LISTEN {channel}"))
            .await
            .unwrap();
        Self {
            client,
            channel: channel.to_owned(),
            receiver,
        }
    }

    /// The next payload.
    pub async fn next(&mut self) -> String {
        tokio::time::timeout(limit(), self.receiver.recv())
            .await
            .expect("nothing was notified")
            .expect("the connection is open")
    }

    /// Every payload so far. Notifications come in order of their commits, so one of our own marks the end.
    pub async fn so_far(&mut self) -> Vec<String> {
        self.client
            .batch_execute(&format!("NOTIFY {}, 'the end'", self.channel))
            .await
            .unwrap();
        let mut heard = Vec::new();
        loop {
            match self.next().await {
                end if end == "the end" => return heard,
                payload => heard.push(payload),
            }
        }
    }
}

impl Daemon {
    pub fn new(child: Child, log: PathBuf) -> Self {
        Self { child, log }
    }

    /// How many notifications had this outcome on this channel.
    pub async fn events(&self, channel: &str, outcome: &str) -> f64 {
        self.metric(&format!(
            "tenantd_events_total{{channel=\"{channel}\",database=\"main\",outcome=\"{outcome}\"}}"
        ))
        .await
    }

    /// How many tenants were looked at for this reason and with this outcome.
    pub async fn reconciles(&self, reason: &str, outcome: &str) -> f64 {
        self.metric(&format!(
            "tenantd_reconciles_total{{database=\"main\",outcome=\"{outcome}\",reason=\"{reason}\"}}"
        ))
        .await
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal by name: `TERM`, `HUP`, `USR1`, `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end; the exit code.
    pub async fn ended(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(start.elapsed() < limit(), "it still runs:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The address of its HTTP endpoints, once it serves them.
    fn address(&self) -> Option<String> {
        let log = self.log();
        let (_, rest) = log.split_once("serving http://")?;
        Some(rest.split('/').next()?.to_owned())
    }

    /// Status and body of a GET; 0 where nobody answers.
    pub async fn get(&self, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let Some(address) = self.address() else {
            return (0, String::new());
        };
        let Ok(mut stream) = tokio::net::TcpStream::connect(&address).await else {
            return (0, String::new());
        };
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        if stream.write_all(request.as_bytes()).await.is_err()
            || stream.read_to_string(&mut answer).await.is_err()
        {
            return (0, String::new());
        }
        let code = answer
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        (
            code,
            answer
                .split_once("\r\n\r\n")
                .map(|(_, body)| body.to_owned())
                .unwrap_or_default(),
        )
    }

    /// The value of one series of `/metrics`, by its beginning.
    pub async fn metric(&self, series: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        let line = text.lines().find(|line| line.starts_with(series));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or(f64::NAN)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a state; `look` tells whether it holds and what it saw, for the message when it never does.
pub async fn until<F: AsyncFnMut() -> (bool, String)>(what: &str, look: F) {
    until_within(limit(), what, look).await;
}

/// The same for what is much work, and takes as long as the machine is busy.
pub async fn until_within<F>(limit: Duration, what: &str, mut look: F)
where
    F: AsyncFnMut() -> (bool, String),
{
    let start = Instant::now();
    loop {
        let (holds, seen) = look().await;
        if holds {
            return;
        }
        assert!(
            start.elapsed() < limit,
            "waited in vain for {what}; last seen: {seen}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
