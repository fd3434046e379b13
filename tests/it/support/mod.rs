//! What the scenarios share.
#![allow(
    unreachable_pub,
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    reason = "tests panic, and not every scenario uses every helper"
)]

pub mod app;
pub mod daemon;
pub mod database;
pub mod more;
pub mod mutant;
pub mod oracles;
pub mod pki;
pub mod pooler;
pub mod postgres;
pub mod proxy;
pub mod server;

pub use app::{App, Ran};
pub use daemon::{Daemon, Heard, until, until_within};
pub use oracles::{Probe, nothing_left, oracles, oracles_but};
pub use proxy::{Link, Proxy};
