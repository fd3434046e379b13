//! What a message is made for: a tenant as it stands, and how files are run.

use std::time::Duration;

use crate::{
    fleet::{Release, Tenant},
    migrations::Migration,
    pg::ident::search_path,
};

/// How files are run, for all tenants alike.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Role that owns a new schema.
    pub owner: Option<String>,
    /// Roles that may use what is in a new schema.
    pub usage: Vec<String>,
    /// Role that runs the files.
    pub role: Option<String>,
    /// `search_path`, `{schema}` standing for the tenant's.
    pub search_path: Vec<String>,
    /// Longest run time of a statement.
    pub statement_timeout: Duration,
    /// Whether our role may lower `deadlock_timeout`, so that we are the victim of a deadlock.
    pub yields_deadlocks: bool,
    /// Who writes the ledger: the instance's id.
    pub instance: String,
}

impl Settings {
    /// What a fresh schema depends on besides the files, as text: a spare made otherwise is not handed out.
    pub fn made(&self) -> String {
        let Self {
            owner,
            usage,
            role,
            search_path,
            ..
        } = self;
        format!("owner {owner:?} usage {usage:?} role {role:?} path {search_path:?}")
    }
}

/// What one message carries besides the plan.
#[derive(Debug, Clone, Copy)]
pub struct Envelope {
    /// How long to wait for a table lock.
    pub lock_timeout: Duration,
    /// Send `tenant_ready` from the last transaction.
    pub notify: bool,
    /// Commit without waiting for the disk: nobody waits for this tenant.
    pub asynchronous: bool,
    /// The schema is a spare: it has no tenant when the transactions end.
    pub spare: bool,
}

/// What a message is made for: one tenant, from where it stands now.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// The set and its released head.
    pub release: &'a Release,
    /// The tenant; its digest and namespace are what the guard demands.
    pub tenant: &'a Tenant,
    /// How files are run.
    pub settings: &'a Settings,
    /// What the message carries besides.
    pub envelope: Envelope,
}

impl Work<'_> {
    /// The search path that the files see.
    pub(super) fn search_path(&self) -> String {
        search_path(&self.tenant.schema, &self.settings.search_path)
    }

    /// Milliseconds that a statement of these files may take.
    pub(super) fn statement_timeout(&self, files: &[Migration]) -> u128 {
        let marked = files.iter().filter_map(|it| it.markers.statement_timeout);
        let longest = marked.max().unwrap_or(self.settings.statement_timeout);
        longest.as_millis()
    }

    /// The namespace oid that was observed; NULL where the message creates the schema itself.
    pub(super) fn namespace(&self) -> String {
        let oid = self.tenant.namespace;
        oid.map_or_else(|| "NULL".into(), |oid| oid.to_string())
    }
}
