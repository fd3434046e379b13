//! Where libpq looks for the files of the user that runs it.

use std::path::PathBuf;

use super::system::{Env, System};

/// The user's home directory: as the environment says, else as the system does.
pub(super) fn home(env: Env<'_>, system: &System<'_>) -> Option<PathBuf> {
    env("HOME")
        .filter(|home| !home.is_empty())
        .or_else(|| system.user.as_ref().map(|user| user.home.clone()))
        .map(PathBuf::from)
}

/// A file of TLS under its usual name, whether or not it exists.
pub(super) fn of_home(env: Env<'_>, system: &System<'_>, name: &str) -> Option<PathBuf> {
    Some(home(env, system)?.join(".postgresql").join(name))
}
