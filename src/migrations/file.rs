//! One migration file: its name, its text, its checksum and its markers.

use std::{cmp::Ordering, time::Duration};

use sha2::{Digest as _, Sha256};

use super::check::{self, Finding, Locks, Outside, Plain, Severity, Statement};

/// One entry of a migration set.
#[derive(Clone, Debug)]
pub struct Migration {
    /// Position in the set, from 1.
    pub ordinal: usize,
    /// The version as the file name writes it.
    pub version: String,
    /// The descriptive part of the file name.
    pub name: String,
    /// The file name, for messages.
    pub file: String,
    /// The text, line ends as LF, without a byte-order mark.
    pub sql: String,
    /// SHA-256 of `sql`, hexadecimal: the same for CRLF and LF checkouts.
    pub checksum: String,
    /// Identity of the list up to and including this file (a chained hash).
    pub digest: String,
    /// The top-level statements, in order.
    pub statements: Vec<Statement>,
    /// Whether the file holds code whose effect cannot be seen by reading it.
    pub opaque: bool,
    /// Whether some statement creates a table.
    pub creates_table: bool,
    /// Whether some statement adds a value to an enum, which can be used only after a commit.
    pub adds_enum_value: bool,
    /// The file cannot, or by its marker shall not, run in one transaction.
    pub outside: Option<Outside>,
    /// What it locks of what exists.
    pub locks: Locks,
    /// What its marker comments say.
    pub markers: Markers,
}

/// Marker comments, `-- tenantd: key=value`, each on a line of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Markers {
    /// `max_hold=30s`: how long this file may hold strong locks on existing tables.
    pub max_hold: Option<Duration>,
    /// `statement_timeout=1h`: how long a statement of this file may take.
    pub statement_timeout: Option<Duration>,
    /// `transaction=none`: its statements run one by one.
    pub no_transaction: bool,
}

/// Splits `<version>_<name>.sql` into version and name.
///
/// # Errors
/// A sentence that says what the name should look like.
pub(super) fn parse_name(file: &str) -> Result<(&str, &str), String> {
    let shape =
        "name it <version>_<name>.sql, the version in digits, for instance 0042_add_invoices.sql";
    let stem = file.strip_suffix(".sql").ok_or(shape)?;
    let (version, name) = stem.split_once('_').ok_or(shape)?;
    let digits = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit());
    if !digits || name.is_empty() {
        return Err(shape.to_owned());
    }
    Ok((version, name))
}

/// Orders versions as numbers of any length: `0009` before `10` before `20261123184500`.
pub(super) fn compare_versions(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// The digest of a list is chained: that of the list before it, this version and this checksum.
/// So every prefix of a set has an identity of its own, and one comparison tells what a schema has.
pub(super) fn chain(before: &str, version: &str, checksum: &str) -> String {
    let mut hash = Sha256::new();
    for part in [before, version, checksum] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hex(&hash.finalize()[..16])
}

impl Migration {
    /// Parses one file alone. Findings of every severity are added to `findings`.
    pub(super) fn parse(
        file: &str,
        version: &str,
        name: &str,
        bytes: &[u8],
        findings: &mut Vec<Finding>,
    ) -> Option<Self> {
        let sql = match std::str::from_utf8(bytes) {
            Ok(text) => text.trim_start_matches('\u{feff}').replace("\r\n", "\n"),
            Err(error) => {
                let line = bytes[..error.valid_up_to()]
                    .iter()
                    .filter(|b| **b == b'\n')
                    .count()
                    + 1;
                findings.push(problem(
                    "encoding",
                    line,
                    "the file is not UTF-8; save it as UTF-8".into(),
                ));
                return None;
            }
        };
        let parsed = check::check(&sql);
        findings.extend(parsed.findings);
        let markers = Markers::read(&sql, findings);
        if markers.no_transaction && parsed.opaque {
            findings.push(problem(
                "outside-opaque",
                1,
                "a DO block or a call of a function of one's own is refused in a file marked transaction=none, because \
                 what it does could not be checked: move it to a file of its own"
                    .into(),
            ));
        }
        let asked = markers.no_transaction.then(|| Outside {
            plain: Plain {
                sql: sql.clone(),
                statements: parsed.statements.clone(),
            },
            commits: false,
        });
        Some(Self {
            ordinal: 0,
            digest: String::new(),
            version: version.to_owned(),
            name: name.to_owned(),
            file: file.to_owned(),
            checksum: hex(&Sha256::digest(sql.as_bytes())),
            sql,
            statements: parsed.statements,
            opaque: parsed.opaque,
            locks: parsed.locks,
            creates_table: parsed.creates_table,
            adds_enum_value: parsed.adds_enum_value,
            outside: parsed.outside.or(asked),
            markers,
        })
    }

    /// Text and statements for a schema that nobody uses yet: one transaction may hold all of it, unless it
    /// [needs commits](Self::needs_commits).
    pub fn in_transaction(&self) -> (&str, &[Statement]) {
        match &self.outside {
            Some(Outside { plain, .. }) => (&plain.sql, &plain.statements),
            None => (&self.sql, &self.statements),
        }
    }

    /// Whether it takes several transactions, also where nobody uses the schema.
    pub fn needs_commits(&self) -> bool {
        self.outside.as_ref().is_some_and(|it| it.commits)
    }
}

impl Markers {
    fn read(sql: &str, findings: &mut Vec<Finding>) -> Self {
        let mut markers = Self::default();
        for (index, line) in sql.lines().enumerate() {
            let Some(marker) = line.strip_prefix("-- tenantd:") else {
                continue;
            };
            if markers.take(marker).is_none() {
                findings.push(problem(
                    "marker",
                    index + 1,
                    format!(
                        "`{}` is no marker; there are `-- tenantd: max_hold=30s`, `-- tenantd: statement_timeout=1h` \
                         and `-- tenantd: transaction=none`",
                        line.trim()
                    ),
                ));
            }
        }
        markers
    }

    fn take(&mut self, marker: &str) -> Option<()> {
        let (key, value) = marker.trim().split_once('=')?;
        let duration = humantime::parse_duration(value.trim())
            .ok()
            .filter(|it| !it.is_zero());
        match key.trim() {
            "max_hold" => self.max_hold = Some(duration?),
            "statement_timeout" => self.statement_timeout = Some(duration?),
            "transaction" if value.trim() == "none" => self.no_transaction = true,
            _ => return None,
        }
        Some(())
    }
}

fn problem(rule: &'static str, line: usize, message: String) -> Finding {
    Finding {
        severity: Severity::Error,
        rule,
        line,
        message,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Option<Migration>, Vec<Finding>) {
        let mut findings = Vec::new();
        let migration = Migration::parse("0001_a.sql", "0001", "a", text.as_bytes(), &mut findings);
        (migration, findings)
    }

    #[test]
    fn versions_order_as_numbers_of_any_length() {
        let mut versions = vec!["20261123184500", "10", "0009", "2"];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(versions, ["2", "0009", "10", "20261123184500"]);
        assert_eq!(compare_versions("0001", "1"), Ordering::Equal);
    }

    #[test]
    fn line_ends_and_byte_order_marks_do_not_change_the_checksum() {
        let unix = parse("CREATE TABLE t (\n id int);\n").0.unwrap();
        let windows = parse("\u{feff}CREATE TABLE t (\r\n id int);\r\n")
            .0
            .unwrap();
        assert_eq!(unix.checksum, windows.checksum);
    }

    #[test]
    fn a_digest_names_the_whole_list_before_it() {
        let one = chain("", "1", "aa");
        assert_ne!(chain(&one, "2", "bb"), chain("", "2", "bb"));
        assert_ne!(
            chain("", "1", "2bb"),
            chain("", "12", "bb"),
            "fields are kept apart"
        );
        assert_eq!(one.len(), 32);
    }

    #[test]
    fn markers_are_read_and_unknown_ones_refused() {
        let (file, findings) = parse("-- tenantd: max_hold=30s\nCREATE TABLE t (id int);");
        assert_eq!(
            file.unwrap().markers.max_hold,
            Some(Duration::from_secs(30))
        );
        assert!(findings.is_empty());
        let (file, _) = parse("-- tenantd: transaction=none\nCREATE TABLE t (id int);");
        assert!(file.unwrap().outside.is_some());
        let (_, findings) = parse("CREATE TABLE t (id int);\n-- tenantd: maxhold=1s\n");
        assert_eq!((findings[0].rule, findings[0].line), ("marker", 2));
    }

    #[test]
    fn names_without_a_numeric_version_are_refused() {
        assert_eq!(
            parse_name("0042_add_invoices.sql"),
            Ok(("0042", "add_invoices"))
        );
        for bad in ["init.sql", "v1_init.sql", "1_.sql", "_x.sql", "1-x.sql"] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
    }
}
