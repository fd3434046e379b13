//! The scenarios, each with a database of its own on a real PostgreSQL and tenantd as a real process.

mod apply;
mod bad_input;
mod commands;
mod crash;
mod events;
mod failures;
mod faults;
mod heal;
mod http;
mod install;
mod layers;
mod locks;
mod outside;
mod passwords;
mod pooler;
mod roles;
mod security;
mod shipped;
mod states;
mod support;
mod sweep;
mod tls;
mod verify;
