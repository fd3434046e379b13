//! What libpq asks the operating system: who runs this, and where the server's socket is.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where server packages put the socket: Debian and Red Hat use the first, a plain build the second.
pub(super) const SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Looks up a variable of the environment.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The user that runs this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OsUser {
    pub(super) name: String,
    pub(super) home: String,
}

/// The answers, replaceable in tests.
pub(super) struct System<'a> {
    pub(super) user: Option<OsUser>,
    pub(super) exists: &'a dyn Fn(&Path) -> bool,
}

impl System<'static> {
    /// This machine and this process.
    pub(super) fn here() -> Self {
        // The owner of /proc/self is the effective user; reading the id otherwise needs libc.
        let uid = std::fs::metadata("/proc/self").map(|entry| entry.uid());
        let passwd = std::fs::read_to_string("/etc/passwd");
        Self {
            user: uid
                .ok()
                .zip(passwd.ok())
                .and_then(|(uid, text)| passwd_entry(&text, uid)),
            exists: &Path::exists,
        }
    }
}

impl System<'_> {
    /// libpq's default host: the socket directory, else localhost.
    ///
    /// The directory is chosen by the socket of this port in it, since /tmp exists everywhere.
    pub(super) fn default_host(&self, port: u16) -> &'static str {
        let socket = format!(".s.PGSQL.{port}");
        let packaged = SOCKET_DIRS[0];
        SOCKET_DIRS
            .into_iter()
            .find(|dir| (self.exists)(&Path::new(dir).join(&socket)))
            .or_else(|| (self.exists)(Path::new(packaged)).then_some(packaged))
            .unwrap_or("localhost")
    }
}

/// Finds the line of a user id in the text of /etc/passwd.
fn passwd_entry(text: &str, uid: u32) -> Option<OsUser> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, id, _, _, home, ..] = fields[..] else {
            return None;
        };
        (id.parse() == Ok(uid)).then(|| OsUser {
            name: name.to_owned(),
            home: home.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_id() {
        let text = "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:999:999::/srv/app:/bin/false\n";
        let user = passwd_entry(text, 999).unwrap();
        assert_eq!(
            (user.name.as_str(), user.home.as_str()),
            ("app", "/srv/app")
        );
        assert_eq!(passwd_entry(text, 1), None);
    }

    #[test]
    fn the_default_host_is_where_the_socket_is() {
        let host = |present: &'static [&'static str]| {
            let exists = move |path: &Path| present.iter().any(|p| Path::new(p) == path);
            System {
                user: None,
                exists: &exists,
            }
            .default_host(5432)
        };
        assert_eq!(
            host(&["/tmp", "/tmp/.s.PGSQL.5432", "/var/run/postgresql"]),
            "/tmp"
        );
        assert_eq!(
            host(&["/tmp", "/var/run/postgresql"]),
            "/var/run/postgresql"
        );
        assert_eq!(host(&["/tmp"]), "localhost");
    }
}
