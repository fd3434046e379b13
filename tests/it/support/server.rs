//! What can happen to a server: frozen or killed processes, a full disk, a standby that takes over.

use std::{fs, io::Write as _, process::Command};

use super::postgres::{Options, Server};

/// Takes up all room on a server's disk until dropped.
pub struct Ballast(std::path::PathBuf);

impl Server {
    /// A server that listens on TCP too, with these settings.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter();
        let options = Options {
            tcp: true,
            settings: settings.map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            ..Options::default()
        };
        Self::start(options).await.unwrap()
    }

    /// A server whose data has a disk of 160 MB for itself.
    pub async fn with_small_disk() -> Self {
        let options = Options {
            tcp: true,
            disk: Some("160M".into()),
            ..Options::default()
        };
        Self::start(options).await.unwrap()
    }

    /// A streaming standby of this server, which must listen on TCP.
    pub async fn standby(&self) -> Self {
        let options = Options {
            tcp: true,
            standby_of: Some(
                self.tcp_conninfo("postgres")
                    .replace(" dbname=postgres", ""),
            ),
            ..Options::default()
        };
        Self::start(options).await.unwrap()
    }

    /// Makes a standby the primary; returns when it accepts writes.
    pub async fn promote(&self) {
        let client = self.connect("postgres").await;
        let row = client.query_one("SELECT pg_promote()", &[]).await.unwrap();
        assert!(row.get::<_, bool>(0), "{}", self.log());
    }

    /// Fills the disk of a server started with [`Server::with_small_disk`].
    pub fn fill(&self) -> Ballast {
        // The disk is mounted for the server's processes only.
        let data = self
            .socket_dir()
            .strip_prefix("/")
            .unwrap()
            .join("data/ballast");
        let path = std::path::Path::new(&format!("/proc/{}/root", self.pid())).join(data);
        let mut file = fs::File::create(&path).unwrap();
        let block = vec![0; 1 << 16];
        for size in [block.len(), 4096, 1] {
            while file.write_all(&block[..size]).is_ok() {}
        }
        Ballast(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

/// Sends a signal by name to one process: a backend, the postmaster, a daemon.
pub fn signal(pid: u32, name: &str) {
    let mut kill = Command::new("kill");
    let status = kill.arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(status.unwrap().success(), "kill -{name} {pid}");
}

/// A process that stands still until dropped.
pub struct Frozen(u32);

/// Stops a process in its tracks.
pub fn freeze(pid: u32) -> Frozen {
    signal(pid, "STOP");
    Frozen(pid)
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let mut kill = Command::new("kill");
        let _ = kill.arg("-CONT").arg(self.0.to_string()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_rows_and_takes_them_again_when_there_is_room() {
    let server = Server::with_small_disk().await;
    let client = server.connect("postgres").await;
    client
        .batch_execute("CREATE TABLE t (x text)")
        .await
        .unwrap();
    let fill = "INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 1000)";
    let ballast = server.fill();
    let error = client.batch_execute(fill).await.unwrap_err();
    assert_eq!(
        error.code().map(tokio_postgres::error::SqlState::code),
        Some("53100"),
        "{error:?}"
    );
    drop(ballast);
    client.batch_execute(fill).await.unwrap();
    let directory = server.socket_dir().to_owned();
    drop(server);
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_standby_follows_its_primary_and_takes_over() {
    let primary = Server::with(&[]).await;
    let client = primary.connect("postgres").await;
    client
        .batch_execute("CREATE TABLE t AS SELECT 1 AS x")
        .await
        .unwrap();
    let standby = primary.standby().await;
    let client = standby.connect("postgres").await;
    let write = "UPDATE t SET x = 2";
    let error = client.batch_execute(write).await.unwrap_err();
    assert_eq!(
        error.code().map(tokio_postgres::error::SqlState::code),
        Some("25006"),
        "{error:?}"
    );
    primary.stop_immediate().await.unwrap();
    standby.promote().await;
    client.batch_execute(write).await.unwrap();
}
