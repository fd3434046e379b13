//! Progress of long work on stderr: a bar on a terminal, a line every few seconds elsewhere.

use std::{
    io::{IsTerminal as _, stderr},
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const EVERY: Duration = Duration::from_secs(5);

/// How far a number of tenants is.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// When a line was last written, where lines are.
    lines: Option<Mutex<Instant>>,
}

impl Progress {
    /// Nothing is done yet.
    pub(crate) fn new(total: usize) -> Self {
        let bar = ProgressBar::new(total as u64);
        let terminal = stderr().is_terminal();
        if total < 2 || !terminal {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) =
            ProgressStyle::with_template("{bar:40} {pos}/{len} tenants, {per_sec}, {eta} left")
        {
            bar.set_style(style);
        }
        let lines = (!terminal).then(|| Mutex::new(Instant::now()));
        Self { bar, lines }
    }

    /// So many more are done.
    pub(crate) fn done(&self, tenants: usize) {
        self.bar.inc(tenants as u64);
        let Some(Ok(mut last)) = self.lines.as_ref().map(Mutex::lock) else {
            return;
        };
        if last.elapsed() >= EVERY {
            *last = Instant::now();
            let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
            eprintln!(
                "{done} of {total} tenants, {:.0} a second, {} s left",
                self.bar.per_sec(),
                self.bar.eta().as_secs()
            );
        }
    }

    /// All of them are.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
