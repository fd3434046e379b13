//! A configuration file with a password in it that everybody on the machine may read.

use std::{collections::HashMap, os::unix::fs::PermissionsExt as _, path::Path};

use tenantd::{Config, config::Secret, pg::conninfo};

/// Says so, if it is one.
pub(super) fn warn(file: &Path) {
    let Ok(meta) = std::fs::metadata(file) else {
        return;
    };
    let mode = meta.permissions().mode() & 0o7777;
    if mode & 0o004 == 0 {
        return;
    }
    // By itself: what environment and flags say is not in the file.
    let Ok(config) = Config::load_from(Some(file), HashMap::new(), Vec::new()) else {
        return;
    };
    let urls = [&config.database.url, &config.database.listen_url];
    let mut texts = urls.into_iter().flatten().map(Secret::expose);
    if texts.any(conninfo::holds_password) {
        tracing::warn!(
            "configuration file {} holds a password and everybody may read it (mode {mode:04o}): use a password file, or \
             run `chmod 0640` on it",
            file.display()
        );
    }
}
