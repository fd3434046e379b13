//! How we talk to PostgreSQL: parameters, pool, one LISTEN connection, quoting.

pub mod conninfo;
pub mod ident;
pub mod notify;
pub mod pool;

pub use conninfo::Target;
pub use notify::Listener;
pub use pool::{Connection, Pool};
