//! Several tenants in one transaction: a short file over a large fleet costs less in guards, records and commits
//! than in itself, so they are shared.
//!
//! ```text
//! BEGIN · settings · guard of all · [become the role] · (search_path · file) each · [become ourselves] · record of all · COMMIT
//! ```
//!
//! One transaction a file still, so that no lock is held across files. Whatever goes wrong undoes the file for all of
//! them; who was at fault is told by the number of answers, and is then worked on alone. See
//! `migrations/control/0011_together.sql`.

use std::{fmt::Write as _, time::Duration};

use crate::{
    fleet::{Release, Tenant},
    migrations::Migration,
    pg::ident::{Literal, search_path, text_array},
};

use super::work::Settings;

/// A lock that is not free at once is waited for by the tenant alone, while no other tenant's are held.
const LOCK_TIMEOUT: &str = "10ms";

/// One message for tenants that stand at the same version, and what its answers tell.
pub(super) struct Together<'a> {
    /// The set and its released head.
    pub(super) release: &'a Release,
    /// How files are run.
    pub(super) settings: &'a Settings,
    /// The tenants, all at the version before the first of `files`.
    pub(super) tenants: &'a [&'a Tenant],
    /// What they lack, in order: none that runs outside, none that is opaque.
    pub(super) files: &'a [Migration],
    /// Commit without waiting for the disk.
    pub(super) asynchronous: bool,
    /// Longest run time of a statement.
    pub(super) statement_timeout: Duration,
}

impl Together<'_> {
    /// The text of the message.
    pub(super) fn sql(&self) -> String {
        let tenants = text_array(self.tenants.iter().map(|tenant| tenant.id.as_str()));
        let schemas = text_array(self.tenants.iter().map(|tenant| tenant.schema.as_str()));
        let namespaces: Vec<_> = self
            .tenants
            .iter()
            .map(|t| t.namespace.unwrap_or(0).to_string())
            .collect();
        let which = format!(
            "{tenants}, {schemas}, ARRAY[{}]::pg_catalog.oid[]",
            namespaces.join(",")
        );
        let text: usize = self.files.iter().map(|file| file.sql.len()).sum();
        let mut sql = String::with_capacity(
            self.files.len() * (2048 + 2 * which.len()) + self.tenants.len() * (text + 256),
        );
        let mut before = self.tenants[0].digest.as_deref().unwrap_or_default();
        for file in self.files {
            self.begin(&mut sql, &which, before);
            for tenant in self.tenants {
                let path = search_path(&tenant.schema, &self.settings.search_path);
                let _ = writeln!(
                    sql,
                    "SELECT pg_catalog.set_config('search_path', {}, true);\n{}\n;",
                    Literal(&path),
                    file.in_transaction().0
                );
            }
            self.end(&mut sql, &which, before, file);
            before = &file.digest;
        }
        sql
    }

    fn begin(&self, sql: &mut String, which: &str, before: &str) {
        let set = |name, value| format!(", pg_catalog.set_config('{name}', '{value}', true)");
        let mut more = String::new();
        if self.settings.yields_deadlocks {
            more += &set("deadlock_timeout", "10ms");
        }
        if self.asynchronous {
            more += &set("synchronous_commit", "off");
        }
        let _ = writeln!(
            sql,
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
             SELECT pg_catalog.set_config('lock_timeout', '{LOCK_TIMEOUT}', true), \
             pg_catalog.set_config('statement_timeout', '{timeout}ms', true), \
             pg_catalog.set_config('standard_conforming_strings', 'on', true){more}; \
             SELECT tenantd.guard_all({which}, {before});",
            timeout = self.statement_timeout.as_millis(),
            before = Literal(before),
        );
        if let Some(role) = &self.settings.role {
            let _ = writeln!(
                sql,
                "SELECT pg_catalog.set_config('role', {}, true);",
                Literal(role)
            );
        }
    }

    fn end(&self, sql: &mut String, which: &str, before: &str, file: &Migration) {
        if self.settings.role.is_some() {
            sql.push_str("SELECT pg_catalog.set_config('role', 'none', true);\n");
        }
        let _ = writeln!(
            sql,
            "SELECT tenantd.record_all({which}, {before}, {version}, {checksum}, {ordinal}, {digest}, {at_head}, {instance}); COMMIT;",
            before = Literal(before),
            version = Literal(&file.version),
            checksum = Literal(&file.checksum),
            ordinal = file.ordinal,
            digest = Literal(&file.digest),
            at_head = file.ordinal >= self.release.head,
            instance = Literal(&self.settings.instance),
        );
    }

    /// Statements of ours before the first tenant's, and after the last one's.
    fn frame(&self) -> (usize, usize) {
        let role = usize::from(self.settings.role.is_some());
        (3 + role, 2 + role)
    }

    /// Which of the tenants was being worked on after this many answers; `None`: all of them, or nothing.
    pub(super) fn culprit(&self, mut answered: usize) -> Option<usize> {
        let (before, after) = self.frame();
        for file in self.files {
            let each = 1 + file.in_transaction().1.len();
            let body = each * self.tenants.len();
            if answered < before + body {
                return answered.checked_sub(before).map(|inside| inside / each);
            }
            answered = answered.checked_sub(before + body + after)?;
        }
        None
    }

    /// How many of the files are committed after this many answers.
    pub(super) fn committed(&self, mut answered: usize) -> usize {
        let (before, after) = self.frame();
        for (index, file) in self.files.iter().enumerate() {
            let whole = before + after + self.tenants.len() * (1 + file.in_transaction().1.len());
            if answered < whole {
                return index;
            }
            answered -= whole;
        }
        self.files.len()
    }
}
