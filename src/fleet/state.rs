//! The states of a tenant. `census.sql` decides which one holds; this file says what follows from it.

use std::fmt;

use serde::Serialize;

pub use crate::metrics::State;

/// The three groups a person thinks in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Nothing to do.
    Fine,
    /// tenantd works on it.
    Healing,
    /// Waits for a person.
    NeedsPerson,
}

impl State {
    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|state| state.as_str() == name)
    }

    /// The group it belongs to.
    pub fn group(self) -> Group {
        match self {
            Self::Current | Self::Ahead => Group::Fine,
            Self::Unprovisioned | Self::Empty | Self::Behind | Self::Blocked | Self::Failed => {
                Group::Healing
            }
            Self::Quarantined
            | Self::Modified
            | Self::Untracked
            | Self::Lost
            | Self::Restored
            | Self::Held
            | Self::Refused => Group::NeedsPerson,
        }
    }

    /// Whether a login helps: there is work, and no timer already decides when to do it.
    pub fn login_wakes(self) -> bool {
        matches!(self, Self::Unprovisioned | Self::Empty | Self::Behind)
    }

    /// Whether an attempt was made and the next one has a time.
    pub fn waits(self) -> bool {
        matches!(self, Self::Blocked | Self::Failed)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fine => "fine",
            Self::Healing => "healing",
            Self::NeedsPerson => "needs a person",
        })
    }
}
