//! What the tenants should have: the migration set, read from files, checked and ordered.

pub mod check;
mod directory;
pub mod file;
pub mod piece;
pub mod plan;
pub mod set;

pub use check::{Alone, Finding, Severity};
pub use file::{Markers, Migration};
pub use piece::Piece;
pub use plan::{Plan, Step};
pub use set::{FileFinding, MigrationSet, SetError};
