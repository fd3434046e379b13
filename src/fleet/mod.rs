//! Who the tenants are and what they have: registry, census, ledger, and the control schema.

pub mod adopt;
pub mod breaker;
pub mod census;
pub mod claim;
pub mod control;
pub mod fingerprint;
mod fresh;
pub mod gaps;
pub mod glance;
pub mod head;
pub mod hold;
pub mod instances;
pub mod ledger;
pub mod load;
pub mod lost;
pub mod registry;
pub mod report;
pub mod requests;
pub mod rollout;
pub mod server;
pub mod spare;
pub mod state;
pub mod tenant;
pub mod triggers;
pub mod trust;
mod turn;
pub mod verify;

pub use census::{Census, Counts, Release, Which};
pub use glance::Depth;
pub use registry::Registry;
pub use state::{Group, State};
pub use tenant::Tenant;
pub use verify::Verifier;
