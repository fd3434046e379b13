//! Doing it all the time: the loops of one database, and the process around them.

pub mod controller;
pub mod engine;
pub mod findings;
pub mod health;
pub mod heartbeat;
pub mod http;
pub mod lead;
pub mod listener;
pub mod peers;
pub mod retry;
pub mod rollout;
pub mod spares;
pub mod sweeper;
pub mod systemd;
pub mod work;

pub use controller::Signal;
pub use engine::Engine;
