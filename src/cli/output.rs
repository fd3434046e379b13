//! How results look: tables for people, JSON for programs.

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;
use tenantd::{Error, Result};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Prints a line on stdout. A reader that has gone away (`| head`) ends the program quietly.
pub(crate) fn line(text: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    if let Err(error) = writeln!(std::io::stdout(), "{text}") {
        let code = if error.kind() == std::io::ErrorKind::BrokenPipe {
            0
        } else {
            1
        };
        std::process::exit(code);
    }
}

/// `println!` through [`line`].
macro_rules! out {
    ($($text:tt)*) => { $crate::cli::output::line(format_args!($($text)*)) };
}
pub(crate) use out;

/// Prints a value as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::Refused(format!("write JSON: {error}")))?;
    line(format_args!("{text}"));
    Ok(())
}

/// A plain table: columns apart by blanks, so that it pastes well.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    table
}
