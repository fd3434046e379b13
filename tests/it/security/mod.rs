//! Hostile input, curious neighbours, and roles that may do no more than they need (docs/security.md).
#![allow(clippy::unwrap_used, reason = "tests panic")]

mod input;
mod network;
mod privacy;
mod rights;

/// What nobody may repeat.
const CANARY: &str = "Kanarienvogel";
