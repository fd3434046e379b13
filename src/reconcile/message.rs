//! The apply message: everything one tenant needs, as one simple query, one round trip.
//!
//! Each transaction of the plan is laid out like this; see `migrations/control/0002_apply.sql`:
//!
//! ```text
//! BEGIN · settings · guard · [create the schema] · [become the role] · files · [become ourselves] · record · COMMIT
//! ```
//!
//! Settings are transaction-local, so nothing is left behind whether it commits or not. Where each part
//! begins is remembered (`parts.rs`).

pub use super::parts::Message;
use super::{
    parts::{Part, Place},
    work::Work,
};
use crate::{
    migrations::{
        Migration,
        check::{Known, Names, Statement},
    },
    pg::ident::{Ident, Literal, Nullable, OF_DATABASE, text_array},
};

/// Opened before files that hold code we cannot read, fetched by `tenantd.record`: the locks of the
/// moment of fetching, with the names of the moment of opening. So it tells of dropped tables too.
const BEFORE: &str = "DECLARE tenantd_before NO SCROLL CURSOR FOR \
     SELECT c.relnamespace, pg_catalog.format('%I.%I', n.nspname, c.relname) \
     FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' \
     AND n.nspname NOT IN ('pg_toast', 'pg_catalog')";

/// Class of the shared advisory lock that tells the watch which file a transaction runs: what a session has
/// set is seen by nobody else, a lock by all, and at once.
pub(super) const RUNNING: i32 = 0x7464;

impl Message {
    /// Lays out one transaction for each of `transactions`; `create`: the first creates the schema.
    pub fn new(work: Work<'_>, create: bool, transactions: &[&[Migration]]) -> Self {
        let mut message = Self::empty();
        let mut digest = work.tenant.digest.as_deref();
        for (index, &files) in transactions.iter().enumerate() {
            let namespace = if create && index > 0 {
                format!(
                    "{}::pg_catalog.regnamespace",
                    Literal(&Ident(&work.tenant.schema).to_string())
                )
            } else {
                work.namespace()
            };
            message.open(work, digest, &namespace, files);
            message.create_schema(work, create && index == 0);
            message.become_role(work);
            if files.iter().any(|file| file.opaque) {
                message.ours(BEFORE, 1);
            }
            let mut known = Known::default();
            for file in files {
                message.file(work, file, &mut known);
            }
            message.close(work, &namespace, files);
            digest = files.last().map(|file| file.digest.as_str());
        }
        if transactions
            .iter()
            .any(|files| files.iter().any(|file| file.opaque))
        {
            // Code we cannot read may have left session state for the next tenant. DISCARD ALL itself
            // is refused inside a message.
            message.ours(
                "DEALLOCATE ALL; CLOSE ALL; UNLISTEN *; SELECT pg_catalog.pg_advisory_unlock_all(); RESET ALL; \
                 RESET SESSION AUTHORIZATION; DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES",
                9,
            );
        }
        message
    }

    /// One transaction that holds no file: `ours` in it is run under the guard.
    pub(super) fn guarded(work: Work<'_>, ours: &str) -> Self {
        let mut message = Self::begun(work, &[]);
        message.ours(ours, 1);
        message.commit(work, Part::Ours);
        message
    }

    /// As `guarded`, before a statement that refuses a transaction: what it will change is the tenant's own.
    pub(super) fn before(
        work: Work<'_>,
        file: &Migration,
        statement: &Statement,
        ours: &str,
    ) -> Self {
        let mut message = Self::begun(work, &[]);
        message.look_up(work, file, &statement.changes, statement.line);
        message.ours(ours, 1);
        message.commit(work, Part::Ours);
        message
    }

    /// One transaction for one statement of a file that runs outside, and `ours` behind it.
    pub(super) fn statement(work: Work<'_>, file: &Migration, index: usize, ours: &str) -> Self {
        let mut message = Self::begun(work, std::slice::from_ref(file));
        message.become_role(work);
        let statement = &file.statements[index];
        message.look_up(work, file, &statement.changes, statement.line);
        let place = Place {
            ordinal: file.ordinal,
            line: statement.line,
            statements: vec![statement.line],
        };
        message.text(place, &file.sql[statement.offset..statement.end]);
        if work.settings.role.is_some() {
            message.ours("SELECT pg_catalog.set_config('role', 'none', true)", 1);
        }
        message.ours(ours, 1);
        message.commit(work, Part::Ours);
        message
    }

    /// The transaction that records a file whose statements are all done.
    pub(super) fn recorded(work: Work<'_>, file: &Migration, ours: &str) -> Self {
        let files = std::slice::from_ref(file);
        let mut message = Self::begun(work, files);
        message.become_role(work);
        message.record(work, &work.namespace(), files, false);
        message.ours(ours, 1);
        message.commit(work, Part::Commit(file.ordinal));
        message
    }

    /// The beginning of a transaction on the tenant as it stands.
    fn begun(work: Work<'_>, files: &[Migration]) -> Self {
        let mut message = Self::empty();
        let digest = work.tenant.digest.as_deref();
        message.open(work, digest, &work.namespace(), files);
        message
    }

    fn open(&mut self, work: Work<'_>, digest: Option<&str>, namespace: &str, files: &[Migration]) {
        let mut more = String::new();
        if work.settings.yields_deadlocks {
            more += ", pg_catalog.set_config('deadlock_timeout', '10ms', true)";
        }
        if work.envelope.asynchronous {
            more += ", pg_catalog.set_config('synchronous_commit', 'off', true)";
        }
        self.ours(
            &format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
                 SELECT pg_catalog.set_config('search_path', {path}, true), \
                 pg_catalog.set_config('lock_timeout', '{lock}ms', true), \
                 pg_catalog.set_config('statement_timeout', '{statement}ms', true), \
                 pg_catalog.set_config('standard_conforming_strings', 'on', true), \
                 pg_catalog.pg_try_advisory_xact_lock_shared({RUNNING}, {first}){more}; \
                 {spare}SELECT tenantd.guard({id} {OF_DATABASE}, {name}, {digest}, {namespace}, pg_catalog.current_schema())",
                path = Literal(&work.search_path()),
                lock = work.envelope.lock_timeout.as_millis(),
                statement = work.statement_timeout(files),
                first = files.first().map_or(0, |file| file.ordinal),
                id = Literal(&work.tenant.id),
                name = Literal(&work.tenant.schema),
                digest = Nullable(digest),
                spare = match work.envelope.spare {
                    true => format!("SELECT tenantd.spare_open({}); ", Literal(&work.tenant.schema)),
                    false => String::new(),
                },
            ),
            3 + usize::from(work.envelope.spare),
        );
    }

    fn become_role(&mut self, work: Work<'_>) {
        if let Some(role) = &work.settings.role {
            self.ours(
                &format!(
                    "SELECT pg_catalog.set_config('role', {}, true)",
                    Literal(role)
                ),
                1,
            );
        }
    }

    fn create_schema(&mut self, work: Work<'_>, create: bool) {
        if !create {
            return;
        }
        let settings = work.settings;
        let schema = Ident(&work.tenant.schema);
        let owner = settings.owner.as_deref().or(settings.role.as_deref());
        let owner = owner.map_or_else(String::new, |owner| {
            format!(" AUTHORIZATION {}", Ident(owner))
        });
        self.ours(&format!("CREATE SCHEMA {schema}{owner}"), 1);
        // A new schema gives nobody anything: neither the schema nor what the files will create in it.
        let creator = settings
            .role
            .as_deref()
            .map_or_else(String::new, |r| format!(" FOR ROLE {}", Ident(r)));
        match (&settings.owner, &settings.role) {
            (Some(owner), None) => self.default_privileges(schema, &creator, "ALL", owner),
            (Some(owner), Some(role)) if owner != role => {
                self.ours(
                    &format!("GRANT USAGE, CREATE ON SCHEMA {schema} TO {}", Ident(role)),
                    1,
                );
                self.default_privileges(schema, &creator, "ALL", owner);
            }
            _ => {}
        }
        for role in &settings.usage {
            self.ours(
                &format!("GRANT USAGE ON SCHEMA {schema} TO {}", Ident(role)),
                1,
            );
            self.default_privileges(schema, &creator, "SELECT, INSERT, UPDATE, DELETE", role);
        }
    }

    fn default_privileges(&mut self, schema: Ident<'_>, creator: &str, tables: &str, role: &str) {
        let alter = format!("ALTER DEFAULT PRIVILEGES{creator} IN SCHEMA {schema} GRANT");
        let role = Ident(role);
        self.ours(
            &format!(
                "{alter} {tables} ON TABLES TO {role}; {alter} USAGE, SELECT ON SEQUENCES TO {role}"
            ),
            2,
        );
    }

    fn file(&mut self, work: Work<'_>, file: &Migration, known: &mut Known) {
        for piece in file.pieces(known) {
            if let Some(names) = piece.names {
                self.look_up(work, file, names, piece.statements[0].line);
            }
            let place = Place {
                ordinal: file.ordinal,
                line: piece.line,
                statements: piece.statements.iter().map(|it| it.line).collect(),
            };
            self.text(place, piece.sql);
        }
    }

    /// Asks whether these names lead out of the tenant's schema; it is the file's fault if they do.
    fn look_up(&mut self, work: Work<'_>, file: &Migration, names: &Names, line: usize) {
        if names.is_empty() {
            return;
        }
        let place = Place {
            ordinal: file.ordinal,
            line,
            statements: vec![line],
        };
        self.text(place, &names.look_up(&work.tenant.schema));
    }

    fn close(&mut self, work: Work<'_>, namespace: &str, files: &[Migration]) {
        let last = files.last().expect("a planned transaction has files");
        self.record(work, namespace, files, files.iter().any(|file| file.opaque));
        self.commit(work, Part::Commit(last.ordinal));
    }

    fn record(&mut self, work: Work<'_>, namespace: &str, files: &[Migration], look: bool) {
        let Work {
            release,
            tenant,
            settings,
            envelope,
        } = work;
        let last = files.last().expect("a record is of files");
        let (mut user, mut expected) = ("CURRENT_USER", "SESSION_USER".to_owned());
        if let Some(role) = &settings.role {
            // The role has no right on the ledger: remember who the files ended as, then step back.
            self.ours(
                "SELECT pg_catalog.set_config('tenantd.user', CURRENT_USER, true), pg_catalog.set_config('role', 'none', true)",
                1,
            );
            user = "pg_catalog.current_setting('tenantd.user')";
            expected = Literal(role).to_string();
        }
        let ordinals: Vec<_> = files.iter().map(|file| file.ordinal.to_string()).collect();
        let at_head = last.ordinal >= release.head;
        self.ours(
            &format!(
                "SELECT tenantd.record({id} {OF_DATABASE}, {schema}, {name}, {namespace}, {versions}, {checksums}, \
                 ARRAY[{ordinals}], {digest}, pg_catalog.current_schema(), \
                 pg_catalog.current_setting('search_path'), {user}, {path}, {expected}, {look}, {at_head}, {notify}, {instance})",
                id = Literal(&tenant.id),
                schema = Literal(&tenant.schema),
                name = Nullable(tenant.name.as_deref()),
                versions = text_array(files.iter().map(|file| file.version.as_str())),
                checksums = text_array(files.iter().map(|file| file.checksum.as_str())),
                ordinals = ordinals.join(","),
                digest = Literal(&last.digest),
                path = Literal(&work.search_path()),
                notify = envelope.notify,
                instance = Literal(&settings.instance),
            ),
            1,
        );
    }

    fn commit(&mut self, work: Work<'_>, part: Part) {
        if work.envelope.spare {
            let (schema, made) = (&work.tenant.schema, work.settings.made());
            self.ours(
                &format!(
                    "SELECT tenantd.spare_close({}, {})",
                    Literal(schema),
                    Literal(&made)
                ),
                1,
            );
        }
        self.part(part, 1);
        self.sql.push_str("COMMIT;\n");
    }
}
