//! tenantd as its users see it: the program with a configuration file and a migration directory, by its log,
//! its metrics and its answers.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use tenantd::Config;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use crate::{Outcome, sets};

/// Nothing that is waited for takes this long.
const LIMIT: Duration = Duration::from_secs(900);
/// How often [`Daemon::until`] looks where what it waits for is over in milliseconds.
pub(crate) const OFTEN: Duration = Duration::from_millis(5);
/// And where the scrapes would take of the two cores what the measured then lacks.
const SELDOM: Duration = Duration::from_millis(50);
const FULL_SWEEPS: &[&str] = &["tenantd_sweep_duration_seconds_count{", "kind=\"full\""];
const FULL_SECONDS: &[&str] = &["tenantd_sweep_duration_seconds_sum{", "kind=\"full\""];
/// What `migrate` ends with when some tenants failed: its workers may lose a lock to each other on a slow disk.
const SOME_FAILED: i32 = 4;
const MIGRATE: usize = 4;
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The program and its files, removed on drop.
pub(crate) struct Tenantd {
    dir: PathBuf,
}

/// A running `tenantd run`, killed on drop.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
    pub(crate) started: Instant,
}

impl Tenantd {
    /// For this database, with these files, installed.
    pub(crate) fn install(conninfo: &str, set: &[sets::File]) -> Outcome<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("tenantd-bench-{}-{number}", std::process::id()));
        let program = Self { dir };
        fs::create_dir_all(program.migrations())?;
        for (name, sql) in set {
            program.add(name, sql)?;
        }
        let text = format!(
            "[database]\nurl = \"{conninfo}\"\n[logins]\ntable = \"public.logins\"\ntenant_column = \"tenant_id\"\n\
             [migrations]\ndir = \"{}\"\n[rollout]\nmax_rate = 0\n[http]\nlisten = \"127.0.0.1:0\"\n",
            program.migrations().display()
        );
        fs::write(program.file(), text)?;
        program.run(&["install"])?;
        Ok(program)
    }

    pub(crate) fn migrations(&self) -> PathBuf {
        self.dir.join("migrations")
    }

    fn file(&self) -> PathBuf {
        self.dir.join("tenantd.toml")
    }

    /// What the configuration file says, for what is measured inside this process.
    pub(crate) fn config(&self) -> Outcome<Config> {
        Ok(Config::load_from(
            Some(&self.file()),
            std::collections::HashMap::new(),
            Vec::new(),
        )?)
    }

    /// A further migration file, there as a whole or not at all.
    pub(crate) fn add(&self, name: &str, sql: &str) -> Outcome<()> {
        let written = self.dir.join("written");
        fs::write(&written, sql)?;
        Ok(fs::rename(
            written,
            self.migrations().join(format!("{name}.sql")),
        )?)
    }

    /// The text of the whole set, in order.
    pub(crate) fn text(&self) -> Outcome<String> {
        let mut files: Vec<_> = fs::read_dir(self.migrations())?
            .map(|file| Ok(file?.path()))
            .collect::<std::io::Result<_>>()?;
        files.sort();
        Ok(files
            .iter()
            .map(fs::read_to_string)
            .collect::<std::io::Result<_>>()?)
    }

    /// Runs a command to its end; its standard output.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome<String> {
        match self.ended(arguments)? {
            (0, stdout, _) => Ok(stdout),
            (code, _, said) => {
                Err(format!("tenantd {arguments:?} ended with {code}: {said}").into())
            }
        }
    }

    /// `migrate --all`, again while it says that a tenant was blocked; how often it was run.
    pub(crate) fn migrate_all(&self) -> Outcome<usize> {
        for times in 1..=MIGRATE {
            match self.ended(&["migrate", "--all"])? {
                (0, ..) => return Ok(times),
                (SOME_FAILED, ..) if times < MIGRATE => {}
                (code, _, said) => {
                    return Err(format!("migrate --all ended with {code}: {said}").into());
                }
            }
        }
        unreachable!("the last one returns")
    }

    /// Exit code, standard output and standard error.
    fn ended(&self, arguments: &[&str]) -> Outcome<(i32, String, String)> {
        let output = self.command(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((
            output.status.code().unwrap_or(-1),
            String::from_utf8(output.stdout)?,
            said,
        ))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantd"));
        command.arg("--config").arg(self.file()).args(arguments);
        command
    }

    /// How many tenants are in this state.
    pub(crate) fn in_state(&self, state: &str) -> Outcome<usize> {
        let status: serde_json::Value =
            serde_json::from_str(&self.run(&["status", "--output", "json"])?)?;
        let counted = status["counts"]["by_state"][state].as_u64();
        Ok(counted.ok_or("status tells no counts")?.try_into()?)
    }

    /// Starts a daemon with further settings.
    pub(crate) fn daemon(&self, settings: &[&str]) -> Outcome<Daemon> {
        let log = self.dir.join("log");
        let started = Instant::now();
        let mut command = self.command(&["run"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let file = File::create(&log)?;
        let child = command.stdout(Stdio::null()).stderr(file).spawn()?;
        Ok(Daemon {
            child,
            log,
            started,
        })
    }
}

impl Drop for Tenantd {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Daemon {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the log has this text, looking every half millisecond; how long after the start that was.
    pub(crate) async fn says(&mut self, text: &str) -> Outcome<Duration> {
        loop {
            if self.log().contains(text) {
                return Ok(self.started.elapsed());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("tenantd run ended with {status}: {}", self.log()).into());
            }
            if self.started.elapsed() > LIMIT {
                return Err(
                    format!("waited in vain for {text:?} in the log: {}", self.log()).into(),
                );
            }
            sleep(Duration::from_micros(500)).await;
        }
    }

    /// Listens, and has looked at the fleet once.
    pub(crate) async fn settled(&mut self) -> Outcome<()> {
        self.says("listening on").await?;
        self.until("a full sweep", OFTEN, async |it| {
            Ok(it.sum(FULL_SWEEPS).await? >= 1.0)
        })
        .await
    }

    pub(crate) fn signal(&self, name: &str) -> Outcome<()> {
        let pid = self.pid().to_string();
        let status = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status()?;
        if !status.success() {
            return Err(format!("kill -{name}: {status}").into());
        }
        Ok(())
    }

    /// One full sweep, as long as the daemon says it took. Is asked seldom whether it is over: at 200 scrapes a second
    /// the sweep shares its two cores with them and takes a sixth longer.
    pub(crate) async fn full_sweep(&self) -> Outcome<Duration> {
        let (count, sum) = (self.sum(FULL_SWEEPS).await?, self.sum(FULL_SECONDS).await?);
        self.signal("USR1")?;
        self.until("a full sweep", SELDOM, async |it| {
            Ok(it.sum(FULL_SWEEPS).await? > count)
        })
        .await?;
        let sweeps = self.sum(FULL_SWEEPS).await? - count;
        Ok(Duration::from_secs_f64(
            (self.sum(FULL_SECONDS).await? - sum) / sweeps,
        ))
    }

    pub(crate) async fn until(
        &self,
        what: &str,
        every: Duration,
        holds: impl AsyncFn(&Self) -> Outcome<bool>,
    ) -> Outcome<()> {
        let start = Instant::now();
        while !holds(self).await? {
            if start.elapsed() > LIMIT {
                return Err(format!("waited in vain for {what}: {}", self.log()).into());
            }
            sleep(every).await;
        }
        Ok(())
    }

    /// The sum of the series whose name and labels hold these texts; 0 where there is none.
    pub(crate) async fn sum(&self, texts: &[&str]) -> Outcome<f64> {
        let text = self.metrics().await?;
        let lines = text
            .lines()
            .filter(|line| texts.iter().all(|text| line.contains(text)));
        Ok(lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    /// What `/metrics` says.
    pub(crate) async fn metrics(&self) -> Outcome<String> {
        let log = self.log();
        let (_, rest) = log
            .split_once("serving http://")
            .ok_or("no address in the log")?;
        let address = rest.split('/').next().unwrap_or_default();
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
            _ => Err(format!("/metrics answered {answer}").into()),
        }
    }

    /// Asks it to stop and waits for its end.
    pub(crate) async fn stop(mut self) -> Outcome<()> {
        self.signal("TERM")?;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    return Err(format!("tenantd run ended with {status}: {}", self.log()).into());
                }
                None => sleep(Duration::from_millis(5)).await,
            }
        }
        Err("tenantd run did not stop".into())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
