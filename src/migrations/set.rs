//! The migration set: a directory read as one immutable snapshot.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use super::{
    check::{Finding, Severity},
    directory,
    file::{self, Migration},
};

/// The ordered files of one directory. Never empty.
#[derive(Clone, Debug)]
pub struct MigrationSet {
    files: Vec<Migration>,
    warnings: Vec<FileFinding>,
}

/// A finding and the file it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFinding {
    /// File name within the directory.
    pub file: String,
    /// What was found there.
    pub finding: Finding,
}

impl fmt::Display for FileFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding {
            severity,
            rule,
            line,
            message,
        } = &self.finding;
        let severity = match severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}:{line}: {severity}[{rule}]: {message}", self.file)
    }
}

/// Why a directory is not a migration set.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// The directory or a file in it cannot be read.
    #[error("read migrations from {path}: {source}", path = .path.display())]
    Io {
        /// What was being read.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No `.sql` file at all.
    #[error("{} holds no migrations: put files named <version>_<name>.sql there, or point migrations.dir elsewhere", .0.display())]
    Empty(PathBuf),
    /// Somebody else could put SQL there that we would run.
    #[error("{} may be written by {by} (mode {mode:04o}), who could have tenantd run anything: run `chmod {} {}`", .path.display(), if *.by == "everybody" { "o-w" } else { "g-w" }, .path.display())]
    Writable {
        /// The directory or the file.
        path: PathBuf,
        /// Who may write it, beside its owner.
        by: &'static str,
        /// Its permission bits.
        mode: u32,
    },
    /// A symbolic link that leads out of the directory.
    #[error("{} leads out of its directory, to {}: put the file itself there", .path.display(), .target.display())]
    Outside {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Files came, went or changed while they were read.
    #[error("{} kept changing while it was read: load it again when the copy is complete", .0.display())]
    Changing(PathBuf),
    /// Some file could hurt a tenant; all findings, warnings included.
    #[error("the migration set is refused:\n{}", .0.iter().map(|f| format!("  {f}")).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<FileFinding>),
}

impl MigrationSet {
    /// Reads and checks every `.sql` file of `dir`; other files are ignored.
    ///
    /// # Errors
    /// When the directory cannot be read, holds no file, changes meanwhile, or a file is refused.
    pub fn load(dir: &Path) -> Result<Self, SetError> {
        let sources = steady(|| directory::read(dir))?;
        Self::from_files(
            dir,
            sources.ok_or_else(|| SetError::Changing(dir.to_owned()))?,
        )
    }

    fn from_files(dir: &Path, sources: Vec<(String, Vec<u8>)>) -> Result<Self, SetError> {
        if sources.is_empty() {
            return Err(SetError::Empty(dir.to_owned()));
        }
        let mut findings = Vec::new();
        let mut files: Vec<Migration> = Vec::new();
        for (name, bytes) in &sources {
            let mut found = Vec::new();
            match file::parse_name(name) {
                Ok((version, title)) => {
                    files.extend(Migration::parse(name, version, title, bytes, &mut found));
                }
                Err(message) => {
                    found.push(Finding {
                        severity: Severity::Error,
                        rule: "file-name",
                        line: 1,
                        message,
                    });
                }
            }
            findings.extend(found.into_iter().map(|finding| FileFinding {
                file: name.clone(),
                finding,
            }));
        }
        files.sort_by(|a, b| {
            file::compare_versions(&a.version, &b.version).then_with(|| a.file.cmp(&b.file))
        });
        findings.extend(duplicates(&files));
        findings.extend(outside(&files));
        if findings
            .iter()
            .any(|f| f.finding.severity == Severity::Error)
        {
            return Err(SetError::Refused(findings));
        }
        let mut digest = String::new();
        for (index, migration) in files.iter_mut().enumerate() {
            digest = file::chain(&digest, &migration.version, &migration.checksum);
            migration.ordinal = index + 1;
            migration.digest.clone_from(&digest);
        }
        Ok(Self {
            files,
            warnings: findings,
        })
    }

    /// All files in order.
    pub fn files(&self) -> &[Migration] {
        &self.files
    }

    /// The last file.
    pub fn head(&self) -> &Migration {
        self.files.last().expect("a loaded set is never empty")
    }

    /// Findings that do not refuse the set.
    pub fn warnings(&self) -> &[FileFinding] {
        &self.warnings
    }

    /// The file of this version, compared as a number.
    pub fn find(&self, version: &str) -> Option<&Migration> {
        self.files
            .iter()
            .find(|file| file::compare_versions(&file.version, version).is_eq())
    }
}

/// A directory that is being copied into is not a set: two equal readings are. `None`: it kept changing.
fn steady<T: PartialEq>(
    mut read: impl FnMut() -> Result<T, SetError>,
) -> Result<Option<T>, SetError> {
    for _ in 0..3 {
        let before = read()?;
        if before == read()? {
            return Ok(Some(before));
        }
    }
    Ok(None)
}

fn duplicates(files: &[Migration]) -> Vec<FileFinding> {
    files
        .windows(2)
        .filter(|pair| file::compare_versions(&pair[0].version, &pair[1].version).is_eq())
        .map(|pair| FileFinding {
            file: pair[1].file.clone(),
            finding: Finding {
                severity: Severity::Error,
                rule: "duplicate-version",
                line: 1,
                message: format!(
                    "version {} is also {}; give one of them another",
                    pair[1].version, pair[0].file
                ),
            },
        })
        .collect()
}

/// What to say of the files that run outside a transaction.
fn outside(files: &[Migration]) -> Vec<FileFinding> {
    let mut found = Vec::new();
    let mut has_tables = false;
    for file in files {
        let mut say = |severity, rule, message: &str| {
            found.push(FileFinding {
                file: file.file.clone(),
                finding: Finding {
                    severity,
                    rule,
                    line: 1,
                    message: message.to_owned(),
                },
            });
        };
        if file.needs_commits() && !has_tables {
            say(
                Severity::Error,
                "enum-value-used",
                "the file uses an enum value that it adds, which takes a commit in between, and no file before \
                 it creates a table: use the value in a later file",
            );
        }
        if file.outside.is_some() && !file.markers.no_transaction && file.statements.len() > 1 {
            say(
                Severity::Warning,
                "several-commits",
                "the file cannot run in one transaction: when a statement fails, those before it stay, and the \
                 next attempt goes on behind them; `-- tenantd: transaction=none` says that this is meant",
            );
        }
        has_tables |= file.creates_table;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(files: &[(&str, &str)]) -> Result<MigrationSet, SetError> {
        let sources = files
            .iter()
            .map(|(n, s)| ((*n).to_owned(), s.as_bytes().to_vec()))
            .collect();
        MigrationSet::from_files(Path::new("dir"), sources)
    }

    #[test]
    fn files_are_ordered_by_version_and_head_is_the_last() {
        let set = set(&[
            ("10_b.sql", "CREATE TABLE b ();"),
            ("9_a.sql", "CREATE TABLE a ();"),
        ])
        .unwrap();
        let order: Vec<_> = set
            .files()
            .iter()
            .map(|f| (f.ordinal, f.version.as_str()))
            .collect();
        assert_eq!(order, [(1, "9"), (2, "10")]);
        assert_eq!(set.head().version, "10");
        assert_eq!(set.find("0009").unwrap().name, "a");
    }

    #[test]
    fn a_directory_that_changes_while_it_is_read_is_no_set() {
        let mut reads = 0;
        let copying = steady(|| {
            reads += 1;
            Ok(reads)
        });
        assert_eq!((copying.unwrap(), reads), (None, 6));
        let mut reads = 0;
        let settles = steady(|| {
            reads += 1;
            Ok(reads.min(3))
        });
        assert_eq!(settles.unwrap(), Some(3));
    }

    #[test]
    fn every_problem_is_reported_at_once_with_file_and_line() {
        let error = set(&[
            ("0001_a.sql", "CREATE TABLE a ();\nCOMMIT;"),
            ("1_b.sql", "CREATE TABLE b ();"),
            ("init.sql", "CREATE TABLE c ();"),
        ])
        .unwrap_err();
        let text = error.to_string();
        for expected in [
            "0001_a.sql:2: error[",
            "1_b.sql:1: error[duplicate-version]",
            "init.sql:1: error[file-name]",
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn an_edited_file_changes_its_digest_and_those_after_it_only() {
        let a = set(&[
            ("1_a.sql", "CREATE TABLE a ();"),
            ("2_b.sql", "CREATE TABLE b ();"),
        ])
        .unwrap();
        let b = set(&[
            ("1_a.sql", "CREATE TABLE a ();"),
            ("2_b.sql", "CREATE TABLE c ();"),
        ])
        .unwrap();
        assert_eq!(a.files()[0].digest, b.files()[0].digest);
        assert_ne!(a.head().digest, b.head().digest);
    }

    #[test]
    fn a_missing_or_empty_directory_says_what_to_do() {
        let missing = MigrationSet::load(Path::new("/nonexistent/dir")).unwrap_err();
        assert!(
            missing
                .to_string()
                .starts_with("read migrations from /nonexistent/dir")
        );
        let empty = set(&[]).unwrap_err();
        assert!(empty.to_string().contains("holds no migrations"));
    }
}
