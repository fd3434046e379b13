//! How we talk to PostgreSQL: parameters, TLS, pool, one LISTEN connection, quoting, its version.

mod ask;
mod cancel;
mod connect;
pub mod conninfo;
pub mod ident;
pub mod notify;
pub mod pool;
pub mod primary;
pub mod server;
pub mod session;
pub mod tls;

pub use cancel::Cancel;
pub use conninfo::Target;
pub use notify::Listener;
pub use pool::{Connection, Pool};
pub use session::LOOKS_IN;
pub use tls::Tls;
