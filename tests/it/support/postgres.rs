//! A throw-away PostgreSQL cluster for tests, the demo and the benchmark.
//!
//! [`Server::start`] makes a cluster in a directory of its own under `/tmp`, and nothing of it outlives us:
//!
//! ```text
//!   this process ──pipe──> sh (own process group, owns the directory) ──> initdb, then postgres
//!                <─pipe───  directory D, initialised, started PID, stopped
//! ```
//!
//! The cluster belongs to a supervising shell that waits in `read`. When our end of its pipe closes, for whatever
//! reason (drop, panic, exit of a process with a server in a `static`, SIGKILL), it stops postgres and removes the
//! directory. That is why a shared server may sit in a `static`, although Rust never drops those.
//!
//! initdb and postgres refuse to run as root, so under root the shell runs as `postgres` or `nobody`. Authentication
//! is `trust`: the directory (mode 0700) guards the socket. With [`Options::tcp`] every local user may connect.
//!
//! Only std, tokio and tokio-postgres are used here, so that examples and benchmarks can include the file by `#[path]`.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each crate that includes this file uses another part of it"
)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use supervisor::Supervisor;

#[path = "postgres/host.rs"]
mod host;
#[path = "postgres/supervisor.rs"]
mod supervisor;
#[cfg(test)]
#[path = "postgres/tests.rs"]
mod tests;

/// How long a server may take until a connection works.
const READY_LIMIT: Duration = Duration::from_secs(30);
const READY_PAUSE: Duration = Duration::from_millis(20);
/// Without TCP the port is only a part of the socket's name, so the usual one serves.
const SOCKET_PORT: u16 = 5432;
/// A free TCP port may be taken between our look and the server's bind.
const PORT_ATTEMPTS: u32 = 5;

/// What kind of server to start.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Keep the server's own durability settings. Otherwise `fsync`, `synchronous_commit` and `full_page_writes` are off.
    pub durable: bool,
    /// Listen on a free port of 127.0.0.1 too.
    pub tcp: bool,
    /// Further settings, which win over ours.
    pub settings: Vec<(String, String)>,
    /// Where initdb and postgres are, if not to be searched for.
    pub bin_dir: Option<PathBuf>,
    /// Keep the data (not the write-ahead log) on a disk of this size, such as `128M`, so that it can be full. Needs root.
    pub disk: Option<String>,
    /// Be a streaming standby of the server with this connection string.
    pub standby_of: Option<String>,
}

/// A running cluster, stopped and removed on drop.
pub struct Server {
    directory: PathBuf,
    port: u16,
    pid: AtomicU32,
    supervisor: Arc<Mutex<Supervisor>>,
}

impl Server {
    /// Makes a cluster and returns when a connection works.
    ///
    /// # Errors
    /// No binaries, a failing initdb, or no connection within 30 s; the server's log is part of the message.
    pub async fn start(options: Options) -> Result<Self, String> {
        let bin = host::find_binaries(options.bin_dir.as_deref())?;
        let lines = configuration(&options);
        let asked = options.clone();
        let (supervisor, directory) =
            blocking(move || Supervisor::launch(&bin, &lines, &asked)).await?;
        let supervisor = Arc::new(Mutex::new(supervisor));
        let mut server = Self {
            directory,
            port: SOCKET_PORT,
            pid: AtomicU32::new(0),
            supervisor,
        };
        let mut attempts = PORT_ATTEMPTS;
        loop {
            if options.tcp {
                server.port = host::free_port()?;
            }
            attempts -= 1;
            match server.start_again().await {
                Err(error) if attempts > 0 && error.contains("Address already in use") => {}
                other => return other.map(|()| server),
            }
        }
    }

    /// The directory of the socket, also that of the whole cluster.
    pub fn socket_dir(&self) -> &Path {
        &self.directory
    }

    /// The port: of TCP if asked for, and the last part of the socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the postmaster, the last one if it is stopped.
    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// How to connect to a database over the socket, as the superuser.
    pub fn conninfo(&self, dbname: &str) -> String {
        self.conninfo_at(&self.directory.display().to_string(), dbname)
    }

    /// The same over TCP, for a server with [`Options::tcp`].
    pub fn tcp_conninfo(&self, dbname: &str) -> String {
        self.conninfo_at("127.0.0.1", dbname)
    }

    fn conninfo_at(&self, host: &str, dbname: &str) -> String {
        let plain = !dbname.is_empty()
            && dbname
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_');
        let escaped = dbname.replace('\\', r"\\").replace('\'', r"\'");
        let dbname = if plain {
            escaped
        } else {
            format!("'{escaped}'")
        };
        format!(
            "host={host} port={} user=postgres dbname={dbname}",
            self.port
        )
    }

    /// A new connection, whose task belongs to the caller's runtime.
    ///
    /// # Errors
    /// The server is stopped or has no such database.
    pub async fn try_connect(
        &self,
        dbname: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let (client, connection) =
            tokio_postgres::connect(&self.conninfo(dbname), tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// As [`Server::try_connect`], for a server that should be there.
    ///
    /// # Panics
    /// If there is no connection; the server's log is part of the message.
    pub async fn connect(&self, dbname: &str) -> tokio_postgres::Client {
        match self.try_connect(dbname).await {
            Ok(client) => client,
            Err(error) => panic!("connect to {dbname}: {error:?}\n{}", self.log()),
        }
    }

    /// Creates an empty database.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn create_database(&self, name: &str) {
        let sql = format!(
            "CREATE DATABASE \"{}\" TEMPLATE template0",
            name.replace('"', "\"\"")
        );
        if let Err(error) = self.connect("postgres").await.batch_execute(&sql).await {
            panic!("create database {name}: {error:?}\n{}", self.log());
        }
    }

    /// What initdb and the server have written so far.
    pub fn log(&self) -> String {
        supervisor::read_log(&self.directory)
    }

    /// Stops the server as a crash would: SIGQUIT, no checkpoint, recovery at the next start.
    /// Unless it is [`Options::durable`] it may forget what was committed in the last second.
    ///
    /// # Errors
    /// The supervisor has gone.
    pub async fn stop_immediate(&self) -> Result<(), String> {
        self.ask("stop-immediate".to_owned()).await.map(drop)
    }

    /// Starts the server again at the same port and returns when a connection works. A running one is stopped first.
    ///
    /// # Errors
    /// No connection within 30 s.
    pub async fn start_again(&self) -> Result<(), String> {
        let answer = self.ask(format!("start {}", self.port)).await?;
        let pid = answer
            .strip_prefix("started ")
            .and_then(|pid| pid.parse().ok());
        self.pid.store(
            pid.ok_or_else(|| format!("supervisor answered {answer:?}"))?,
            Ordering::Relaxed,
        );
        self.wait_until_ready().await
    }

    async fn ask(&self, command: String) -> Result<String, String> {
        let supervisor = Arc::clone(&self.supervisor);
        blocking(move || {
            supervisor
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .ask(&command)
        })
        .await
    }

    async fn wait_until_ready(&self) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let attempt = tokio::time::timeout(READY_LIMIT, self.try_connect("postgres")).await;
            let problem = match attempt {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => format!("{error:?}"),
                Err(_) => "no answer".to_owned(),
            };
            let running = host::is_running(self.pid());
            if !running || start.elapsed() > READY_LIMIT {
                let state = if running { "is not ready" } else { "has ended" };
                return Err(format!(
                    "postgres in {} {state}: {problem}\n{}",
                    self.directory.display(),
                    self.log()
                ));
            }
            tokio::time::sleep(READY_PAUSE).await;
        }
    }
}

/// The newest binaries that have a `pg_dump` beside them. It refuses servers newer than itself, and the packages of
/// fetch-postgres have none.
///
/// # Panics
/// If there are none.
pub fn with_clients() -> PathBuf {
    let selected = host::find_binaries(None)
        .ok()
        .and_then(|bin| bin.join("postgres").canonicalize().ok())
        .and_then(|postgres| postgres.parent().map(Path::to_owned));
    let packages = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut packages: Vec<_> = packages.map(|it| it.path().join("bin")).collect();
    packages.sort();
    selected
        .into_iter()
        .chain(packages.into_iter().rev())
        .find(|bin| bin.join("pg_dump").is_file())
        .expect("pg_dump is needed: apt-get install postgresql")
}

/// Whether servers run as another user, because they refuse to run as root.
pub fn as_root() -> bool {
    matches!(host::unprivileged_user(), Ok(Some(_)))
}

/// Lines for postgresql.conf, so that `ALTER SYSTEM` still has the last word.
fn configuration(options: &Options) -> Vec<String> {
    let mut settings = vec![
        ("max_connections", "200"),
        (
            "listen_addresses",
            if options.tcp { "127.0.0.1" } else { "" },
        ),
        ("unix_socket_permissions", "0700"),
    ];
    if !options.durable {
        settings.extend([
            ("fsync", "off"),
            ("synchronous_commit", "off"),
            ("full_page_writes", "off"),
        ]);
    }
    let given = options
        .settings
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    settings
        .into_iter()
        .chain(given)
        .map(|(name, value)| format!("{name} = '{}'", value.replace('\'', "''")))
        .collect()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| error.to_string())?
}
