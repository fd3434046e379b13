//! Bringing one tenant to head: which is next, what to do, doing it, and what a failure means.

mod ahead;
pub mod apply;
pub mod batch;
pub mod brake;
pub mod breaker;
mod causes;
pub mod disposition;
mod failure;
pub mod message;
pub mod outside;
pub mod pace;
mod parts;
pub mod places;
mod pooled;
pub mod queue;
pub mod quick;
pub mod reconciler;
pub mod runner;
mod running;
mod seen;
mod share;
pub mod spare;
mod together;
pub mod watch;
pub mod work;

pub use batch::Taken;
pub use queue::{Queue, Reason};
pub use reconciler::{Limits, Loaded, Outcome, Reconciler};
pub use runner::{Runner, SqlFiles};
pub use work::Settings;
