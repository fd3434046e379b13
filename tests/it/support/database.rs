//! A database of its own for each test: notification channels and the control schema are per database.
//!
//! All databases of a test process live in one server. Under nextest that is one server a test, under plain
//! `cargo test` one for all. The server sits in a `static`, which is never dropped; its supervisor removes it when
//! the process ends (see `postgres.rs`). It keeps no connection between tests, because a connection's task belongs to
//! the runtime of the test that opened it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "not every scenario uses every helper"
)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use super::postgres::{Options, Server};

/// How long a database may take to be dropped; the server takes it along anyway.
const DROP_LIMIT: Duration = Duration::from_secs(10);
/// PostgreSQL cuts names at 63 bytes; leave room for the number.
const HINT_LIMIT: usize = 40;

static SHARED: OnceCell<Server> = OnceCell::const_new();
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The server of this test process, started by the first caller. It listens on TCP too, for tests with a proxy.
///
/// # Panics
/// If no server can be started.
pub async fn shared() -> &'static Server {
    SHARED
        .get_or_init(|| async {
            match Server::start(Options {
                tcp: true,
                ..Options::default()
            })
            .await
            {
                Ok(server) => server,
                Err(error) => panic!("start a throw-away server: {error}"),
            }
        })
        .await
}

/// An empty database, dropped with everybody connected to it when the value goes out of scope.
pub struct TestDb {
    /// How to connect, over the socket and as the superuser.
    pub conninfo: String,
    /// The same over TCP; works if the server listens there, as the shared one does.
    pub tcp_conninfo: String,
    /// Its name: the hint and a number.
    pub name: String,
    admin: String,
}

impl TestDb {
    /// Creates a database in the shared server.
    ///
    /// # Panics
    /// If the server cannot be started or refuses.
    pub async fn new(name_hint: &str) -> Self {
        Self::create_in(shared().await, name_hint).await
    }

    /// Creates a database in a server of the caller's.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn create_in(server: &Server, name_hint: &str) -> Self {
        let hint = name_hint.chars().map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        });
        let hint: String = hint.take(HINT_LIMIT).collect();
        let name = format!("{hint}_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        server.create_database(&name).await;
        let (conninfo, tcp_conninfo) = (server.conninfo(&name), server.tcp_conninfo(&name));
        Self {
            conninfo,
            tcp_conninfo,
            name,
            admin: server.conninfo("postgres"),
        }
    }

    /// A new connection to the database.
    ///
    /// # Panics
    /// If there is no connection.
    pub async fn connect(&self) -> Client {
        match connect(&self.conninfo).await {
            Ok(client) => client,
            Err(error) => panic!("connect to {}: {error:?}", self.name),
        }
    }
}

impl Drop for TestDb {
    /// Blocks on a thread with a runtime of its own: the test's runtime may be shutting down, or have one thread only.
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let dropped = runtime.block_on(async {
                tokio::time::timeout(DROP_LIMIT, drop_database(&admin, &name)).await
            });
            dropped
                .map_err(std::io::Error::other)?
                .map_err(std::io::Error::other)
        });
        if !matches!(thread.join(), Ok(Ok(()))) {
            eprintln!(
                "database {} was not dropped; it goes with its server",
                self.name
            );
        }
    }
}

async fn drop_database(admin: &str, name: &str) -> Result<(), tokio_postgres::Error> {
    connect(admin)
        .await?
        .batch_execute(&format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"))
        .await
}

async fn connect(conninfo: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(conninfo, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_test_database_is_dropped_with_its_sessions() {
        let db = TestDb::new("Dropped with its sessions").await;
        let other = TestDb::new("Dropped with its sessions").await;
        assert_ne!(db.name, other.name);
        let (name, _open) = (db.name.clone(), db.connect().await);
        drop(db);
        let sql = "SELECT datname FROM pg_catalog.pg_database WHERE datname = $1";
        let rows = shared()
            .await
            .connect(&other.name)
            .await
            .query(sql, &[&name])
            .await
            .expect("query");
        assert!(rows.is_empty());
    }
}
