//! The scenarios, each with a database of its own on a real PostgreSQL and tenantd as a real process.

mod events;
mod support;
