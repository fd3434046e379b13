//! The scenarios, each with a database of its own on a real PostgreSQL and tenantd as a real process.

mod apply;
mod crash;
mod events;
mod failures;
mod heal;
mod locks;
mod roles;
mod states;
mod support;
mod sweep;
