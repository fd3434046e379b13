//! What this machine offers: binaries, a user who is not root, a free port.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `TENANTD_PG_BIN`, PATH, pg_config, then the newest version of Debian's packages. A directory that was named must do.
pub(super) fn find_binaries(named: Option<&Path>) -> Result<PathBuf, String> {
    let usable = |dir: &PathBuf| dir.join("initdb").is_file() && dir.join("postgres").is_file();
    if let Some(dir) = named
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("TENANTD_PG_BIN").map(PathBuf::from))
    {
        let missing = format!("no initdb and postgres in {}", dir.display());
        return Some(dir).filter(usable).ok_or(missing);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let pg_config = Command::new("pg_config")
        .arg("--bindir")
        .stderr(Stdio::null())
        .output()
        .ok();
    let pg_config =
        pg_config.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let packages = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut packages: Vec<PathBuf> = packages.map(|entry| entry.path().join("bin")).collect();
    let version = |dir: &PathBuf| {
        dir.iter()
            .rev()
            .nth(1)
            .and_then(|name| name.to_str()?.parse::<f32>().ok())
    };
    packages.sort_by(|a, b| {
        version(b)
            .partial_cmp(&version(a))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    std::env::split_paths(&path).chain(pg_config).chain(packages).find(usable).ok_or_else(|| {
        "no PostgreSQL server found (initdb, postgres); set TENANTD_PG_BIN or run:\n  apt-get install -y postgresql"
            .to_owned()
    })
}

/// Under root: whom to run the server as.
pub(super) fn unprivileged_user() -> Result<Option<(u32, u32)>, String> {
    let read =
        |path: &str| std::fs::read_to_string(path).map_err(|error| format!("read {path}: {error}"));
    let status = read("/proc/self/status")?;
    let euid = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1));
    if euid != Some("0") {
        return Ok(None);
    }
    let passwd = read("/etc/passwd")?;
    let ids = |user: &str| {
        let entry = passwd
            .lines()
            .find_map(|line| line.strip_prefix(user)?.strip_prefix(':'))?;
        let mut fields = entry.split(':').skip(1).map(|field| field.parse().ok());
        Some((fields.next()??, fields.next()??))
    };
    let found = ids("postgres").or_else(|| ids("nobody"));
    found
        .map(Some)
        .ok_or_else(|| "running as root, and there is no user postgres or nobody".to_owned())
}

/// A port of 127.0.0.1 that was free a moment ago.
pub(super) fn free_port() -> Result<u16, String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0");
    let address = listener.and_then(|listener| listener.local_addr());
    address
        .map(|address| address.port())
        .map_err(|error| format!("find a free port: {error}"))
}

/// Whether a process exists and is not a zombie.
pub(super) fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}
