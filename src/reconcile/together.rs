//! Several tenants in one transaction: a short file over a large fleet costs less in guards, records and commits
//! than in itself, so they are shared.
//!
//! ```text
//! BEGIN · settings · guard of all · [become the role] · (search_path · file) each · [become ourselves] · record of all · COMMIT
//! ```
//!
//! One message and one transaction a file, so that no lock is held across files. Whatever goes wrong undoes the file
//! for all of them; who was at fault is told by the number of answers or by the error, and is then worked on alone. See
//! `migrations/control/0016_together.sql`.

use std::fmt::Write as _;

use tokio_postgres::error::DbError;

use crate::{
    fleet::{Release, Tenant},
    migrations::{Migration, check::Known},
    pg::ident::{Literal, OF_DATABASE, search_path, text_array},
};

use super::{quick::HOLD, work::Settings};

/// A lock that is not free at once is waited for by the tenant alone, while no other tenant's are held.
const LOCK_TIMEOUT: &str = "10ms";

/// One message for tenants that stand at the same version, and what its answers tell.
pub(super) struct Together<'a> {
    /// The set and its released head.
    pub(super) release: &'a Release,
    /// How files are run.
    pub(super) settings: &'a Settings,
    /// The tenants.
    pub(super) tenants: &'a [&'a Tenant],
    /// The digest that all of them have.
    pub(super) before: &'a str,
    /// What they lack next: a file that runs in a transaction, is not opaque, and asks about names at its
    /// beginning at most.
    pub(super) file: &'a Migration,
    /// Commit without waiting for the disk.
    pub(super) asynchronous: bool,
    /// pg_stat_statements would get an entry for each `SET` of a search path and lose the application's: a function
    /// call costs more and has one in all.
    pub(super) counted: bool,
}

impl Together<'_> {
    /// The text of the message.
    pub(super) fn sql(&self) -> String {
        let tenants = text_array(self.tenants.iter().map(|tenant| tenant.id.as_str()));
        let schemas = text_array(self.tenants.iter().map(|tenant| tenant.schema.as_str()));
        let namespaces = self
            .tenants
            .iter()
            .map(|tenant| tenant.namespace.unwrap_or(0));
        let namespaces: Vec<_> = namespaces.map(|oid| oid.to_string()).collect();
        let which = format!(
            "{tenants} {OF_DATABASE}, {schemas}, '{{{}}}'::pg_catalog.oid[], {}",
            namespaces.join(","),
            Literal(self.before)
        );
        let (text, _) = self.file.in_transaction();
        let mut sql =
            String::with_capacity(2048 + 2 * which.len() + self.tenants.len() * (text.len() + 256));
        self.begin(&mut sql, &which);
        for tenant in self.tenants {
            let path = search_path(&tenant.schema, &self.settings.search_path);
            let _ = if self.counted {
                let path = Literal(&path);
                write!(
                    sql,
                    "SELECT pg_catalog.set_config('search_path', {path}, true)"
                )
            } else {
                write!(sql, "SET LOCAL search_path = {path}")
            };
            let _ = writeln!(sql, ";\n{text}\n;");
        }
        self.end(&mut sql, &which);
        sql
    }

    fn begin(&self, sql: &mut String, which: &str) {
        let set = |name, value| format!(", pg_catalog.set_config('{name}', '{value}', true)");
        let (file, names) = (self.file, self.file.pieces(&mut Known::default())[0].names);
        let role = self.settings.role.as_deref().map(Literal);
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
             SELECT tenantd.guard_all({which}, {version}, {digest}, {at_head}, {role}, {relations}, {types});",
            timeout = HOLD.as_millis(),
            version = Literal(&file.version),
            digest = Literal(&file.digest),
            at_head = file.ordinal >= self.release.head,
            role = role
                .as_ref()
                .map_or_else(|| "NULL".into(), ToString::to_string),
            relations = text_array(
                names
                    .iter()
                    .flat_map(|it| &it.relations)
                    .map(String::as_str)
            ),
            types = text_array(names.iter().flat_map(|it| &it.types).map(String::as_str)),
        );
        if let Some(role) = role {
            let _ = writeln!(sql, "SELECT pg_catalog.set_config('role', {role}, true);");
        }
    }

    fn end(&self, sql: &mut String, which: &str) {
        if self.settings.role.is_some() {
            sql.push_str("SELECT pg_catalog.set_config('role', 'none', true);\n");
        }
        let file = self.file;
        let _ = writeln!(
            sql,
            "SELECT tenantd.record_all({which}, {version}, {checksum}, {ordinal}, {digest}, {at_head}, {instance}); COMMIT;",
            version = Literal(&file.version),
            checksum = Literal(&file.checksum),
            ordinal = file.ordinal,
            digest = Literal(&file.digest),
            at_head = file.ordinal >= self.release.head,
            instance = Literal(&self.settings.instance),
        );
    }

    /// Which of the tenants an error after this many answers is about: who was being worked on, or whose schema it
    /// names. `None`: all of them, or nobody knows.
    pub(super) fn at_fault(&self, answered: usize, error: &tokio_postgres::Error) -> Option<usize> {
        let schema = error.as_db_error().and_then(DbError::schema);
        let named =
            schema.and_then(|schema| self.tenants.iter().position(|it| it.schema == schema));
        self.culprit(answered).or(named)
    }

    /// Which of the tenants was being worked on after this many answers; `None`: all of them, or none yet.
    pub(super) fn culprit(&self, answered: usize) -> Option<usize> {
        let before = 3 + usize::from(self.settings.role.is_some());
        let each = 1 + self.file.in_transaction().1.len();
        let culprit = answered.checked_sub(before)? / each;
        (culprit < self.tenants.len()).then_some(culprit)
    }
}
