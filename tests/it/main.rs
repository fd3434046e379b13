//! The scenarios, each on a real PostgreSQL of its own.
mod support;
