//! How we talk to PostgreSQL: parameters, TLS, pool, one LISTEN connection, quoting, its version.

pub mod connect;
pub mod conninfo;
pub mod ident;
pub mod notify;
pub mod pool;
pub mod primary;
pub mod server;
pub mod tls;

pub use connect::LOOKS_IN;
pub use conninfo::Target;
pub use notify::Listener;
pub use pool::{Connection, Pool};
pub use tls::Tls;
