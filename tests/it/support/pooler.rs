//! A real PgBouncer in transaction mode, with one server connection for all.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{App, until};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A running `pgbouncer`, ended on drop.
pub struct Pooler {
    child: Child,
    dir: PathBuf,
    dbname: String,
}

impl Pooler {
    /// Between this application's database and whoever connects to it: all share `connections` backends.
    pub async fn start(app: &App, connections: u32) -> Self {
        Self::start_with(app, connections, "").await
    }

    /// As `start`, with further lines in its configuration.
    pub async fn start_with(app: &App, connections: u32, more: &str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = PathBuf::from(format!("/tmp/tenantd-pool-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let value = |key: &str| {
            let pair = app
                .db
                .conninfo
                .split(' ')
                .find_map(|pair| pair.strip_prefix(key));
            pair.unwrap().to_owned()
        };
        let (host, port) = (value("host="), value("port="));
        let dbname = app.db.name.clone();
        let ini = format!(
            "[databases]\n{dbname} = host={host} port={port} dbname={dbname} user=postgres\n[pgbouncer]\nunix_socket_dir = {at}\n\
             listen_addr =\nlisten_port = 6432\nauth_type = any\npool_mode = transaction\ndefault_pool_size = {connections}\n\
             logfile = {at}/log\nserver_round_robin = 1\n{more}\n",
            at = dir.display()
        );
        fs::write(dir.join("pgbouncer.ini"), ini).unwrap();
        let as_root = super::postgres::as_root();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]);
        if as_root {
            let status = Command::new("chown")
                .arg("-R")
                .arg("postgres")
                .arg(&dir)
                .status();
            assert!(status.unwrap().success());
            command.args(["--reuid=postgres", "--clear-groups"]);
        }
        let child = command
            .args(["--", "pgbouncer", "-q"])
            .arg(dir.join("pgbouncer.ini"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("setpriv and pgbouncer are needed: apt-get install pgbouncer");
        let pooler = Self { child, dir, dbname };
        until("the pooler to answer", async || {
            let connected =
                tokio_postgres::connect(&pooler.conninfo(), tokio_postgres::NoTls).await;
            let log = fs::read_to_string(pooler.dir.join("log")).unwrap_or_default();
            (connected.is_ok(), log)
        })
        .await;
        pooler
    }

    /// How to connect through it.
    pub fn conninfo(&self) -> String {
        let dir = self.dir.display();
        format!("host={dir} port=6432 user=postgres dbname={}", self.dbname)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
