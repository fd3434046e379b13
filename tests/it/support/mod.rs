//! What the scenarios share.
#![allow(
    unreachable_pub,
    dead_code,
    reason = "not every scenario uses every helper"
)]

pub mod app;
pub mod database;
pub mod postgres;

pub use app::{App, Daemon, Ran, until};
