//! The pipe to the shell that owns a cluster.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Options, host};

const SCRIPT: &str = include_str!("supervisor.sh");
const DISK: &str = include_str!("disk.sh");
/// How long it may take to stop postgres (5 s, then SIGKILL) and to remove the directory.
const REMOVE_LIMIT: Duration = Duration::from_secs(15);

/// Dropping it closes the pipe and waits until everything is removed.
pub(super) struct Supervisor {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Supervisor {
    /// Starts the shell and returns when initdb is done.
    pub(super) fn launch(
        bin: &Path,
        lines: &[String],
        options: &Options,
    ) -> Result<(Self, PathBuf), String> {
        let user = host::unprivileged_user()?;
        let mut command = match (&options.disk, user) {
            (None, _) => Command::new("/bin/sh"),
            (Some(_), None) => return Err("a disk of its own needs root".to_owned()),
            (Some(size), Some((uid, gid))) => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "/bin/sh", "-c", DISK, "tenantd-pg-disk", size]);
                command.args([uid.to_string(), gid.to_string(), "/bin/sh".to_owned()]);
                command
            }
        };
        command
            .args(["-c", SCRIPT, "tenantd-pg"])
            .arg(bin)
            .args(lines);
        if let Some(primary) = &options.standby_of {
            command.env("TENANTD_PG_PRIMARY", primary);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .env("LC_ALL", "C")
            .process_group(0);
        if let Some((uid, gid)) = user.filter(|_| options.disk.is_none()) {
            command.uid(uid).gid(gid);
        }
        let mut child = command
            .spawn()
            .map_err(|error| format!("start /bin/sh: {error}"))?;
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("the supervisor has no stdout")?);
        let mut supervisor = Self {
            child,
            commands,
            answers,
        };
        let answer = supervisor.answer()?;
        let directory = PathBuf::from(
            answer
                .strip_prefix("directory ")
                .ok_or("no directory under /tmp")?,
        );
        match supervisor.answer()?.as_str() {
            "initialised" => Ok((supervisor, directory)),
            _ => Err(format!(
                "{}/initdb failed:\n{}",
                bin.display(),
                read_log(&directory)
            )),
        }
    }

    /// Sends one command and waits for its answer.
    pub(super) fn ask(&mut self, command: &str) -> Result<String, String> {
        let pipe = self.commands.as_mut().ok_or("the supervisor is closed")?;
        writeln!(pipe, "{command}")
            .map_err(|error| format!("send {command:?} to the supervisor: {error}"))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(1..) => Ok(line.trim_end().to_owned()),
            Ok(0) => Err("the supervisor of the throw-away server has ended".to_owned()),
            Err(error) => Err(format!("read from the supervisor: {error}")),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.commands.take());
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < REMOVE_LIMIT {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What initdb and postgres have written.
pub(super) fn read_log(directory: &Path) -> String {
    std::fs::read_to_string(directory.join("log"))
        .unwrap_or_else(|error| format!("(no server log: {error})"))
}
