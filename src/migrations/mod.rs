//! What the tenants should have: the migration set, read from files, checked and ordered.

pub mod check;
pub mod file;
pub mod plan;
pub mod set;

pub use check::{Finding, Severity};
pub use file::Migration;
pub use plan::Plan;
pub use set::{FileFinding, MigrationSet, SetError};
