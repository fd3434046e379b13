//! tenantd keeps every tenant schema of a schema-per-tenant PostgreSQL application at head.
//!
//! A *wakeup* is a tenant's id and a reason: a trigger fired, somebody asked, a timer ran out. It carries
//! no work. What to do is read from the *ledger* (`tenantd.tenant`, in the same database), compared with
//! the *migration set*, and done in transactions that record themselves:
//!
//! ```text
//! NOTIFY ─ listener ─┐
//! timer ── sweeper ──┼─> queue (one entry a tenant) ─> workers ─> one message to PostgreSQL ─> ledger + tenant_ready
//! requests ──────────┘     dedupe, priority, in-flight,           guard · SQL · record · commit
//!                          re-run flag, backoff
//! ```
//!
//! # Invariants
//!
//! 1. A schema that tenantd built is at head exactly when its catalog equals that of a fresh schema.
//! 2. Each (tenant, version) is applied once, with any number of daemons.
//! 3. No event is needed for correctness: without NOTIFY, a sweep finds everything.
//! 4. One tenant's failure costs the others nothing.
//! 5. The application never fails because of us, and never waits behind us for longer than configured.
//! 6. Nothing outside the tenant schemas and `tenantd` is written, apart from the installed triggers;
//!    nothing that held data is dropped.
//! 7. Memory does not grow with the number of tenants or notifications.
//!
//! # Modules, from the ground up
//!
//! [`error`], [`config`], [`metrics`], [`failpoint`]: what everything uses. [`pg`]: how we talk to
//! PostgreSQL. [`migrations`]: what the tenants should have. [`fleet`]: who they are and what they have.
//! [`reconcile`]: bringing one to head. [`daemon`]: doing it all the time. The binary adds the commands.

pub mod config;
pub mod daemon;
pub mod error;
pub mod failpoint;
pub mod fleet;
pub mod metrics;
pub mod migrations;
pub mod pg;
pub mod reconcile;

pub use config::Config;
pub use error::{Error, Result};
