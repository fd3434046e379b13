//! The password file: `host:port:dbname:user:password`, one line each, the first match wins.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::system::SOCKET_DIRS;

/// Permission bits of everybody but the owner.
const GROUP_AND_WORLD: u32 = 0o077;
/// The same without the right to read as the group: systemd hands a credential to a service by an
/// access list, which shows as that bit.
const GROUP_AND_WORLD_OF_CREDENTIAL: u32 = 0o037;

/// What a password is looked up for.
pub(super) struct Wanted<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) dbname: &'a str,
    pub(super) user: &'a str,
}

/// Reads the file, or says why it was not read. `credentials` is the directory of systemd's credentials.
pub(super) fn read(path: &Path, credentials: Option<&str>) -> Result<String, String> {
    let shown = path.display();
    let ignored = |reason: String| format!("password file {shown} is ignored: {reason}");
    let meta = std::fs::metadata(path).map_err(|error| ignored(error.to_string()))?;
    if !meta.is_file() {
        return Err(ignored("it is not a plain file".to_owned()));
    }
    let is_credential = credentials.is_some_and(|dir| !dir.is_empty() && path.starts_with(dir));
    let forbidden = if is_credential {
        GROUP_AND_WORLD_OF_CREDENTIAL
    } else {
        GROUP_AND_WORLD
    };
    if meta.mode() & forbidden != 0 {
        return Err(ignored(format!(
            "group or world has access (mode {:04o}); run `chmod 0600 {shown}`",
            meta.mode() & 0o7777
        )));
    }
    std::fs::read_to_string(path).map_err(|error| ignored(error.to_string()))
}

/// The password of the first line that matches.
pub(super) fn find(text: &str, wanted: &Wanted<'_>) -> Option<String> {
    let port = wanted.port.to_string();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let (host, rest) = field(line);
            let (port_field, rest) = field(rest?);
            let (dbname, rest) = field(rest?);
            let (user, rest) = field(rest?);
            let (password, _) = field(rest?);
            let matches = (host.matches(wanted.host) || host.matches(local_name(wanted.host)))
                && port_field.matches(&port)
                && dbname.matches(wanted.dbname)
                && user.matches(wanted.user);
            matches.then_some(password.text)
        })
}

/// A socket in the default directory is `localhost` to a password file.
fn local_name(host: &str) -> &str {
    if SOCKET_DIRS.contains(&host) {
        "localhost"
    } else {
        host
    }
}

struct Field {
    text: String,
    any: bool,
}

impl Field {
    fn matches(&self, value: &str) -> bool {
        self.any || self.text == value
    }
}

/// Reads up to a colon that is not escaped, and returns what follows it, if there was one.
fn field(line: &str) -> (Field, Option<&str>) {
    let mut text = String::new();
    let mut chars = line.char_indices();
    let mut rest = None;
    let mut end = line.len();
    while let Some((at, c)) = chars.next() {
        match c {
            ':' => {
                (rest, end) = (Some(&line[at + 1..]), at);
                break;
            }
            '\\' => text.push(chars.next().map_or('\\', |(_, escaped)| escaped)),
            c => text.push(c),
        }
    }
    let any = &line[..end] == "*";
    (Field { text, any }, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(text: &str, host: &str) -> Option<String> {
        let wanted = Wanted {
            host,
            port: 5432,
            dbname: "shop",
            user: "app",
        };
        find(text, &wanted)
    }

    #[test]
    fn the_first_matching_line_wins() {
        let text =
            "# h:5432:shop:app:comment\nh:1:shop:app:port\nh:*:shop:app:first\n*:*:*:*:last\n";
        assert_eq!(lookup(text, "h").as_deref(), Some("first"));
        assert_eq!(lookup(text, "other").as_deref(), Some("last"));
        assert_eq!(lookup("h:*:shop:bob:x\nshort:line\n\n", "h"), None);
    }

    #[test]
    fn a_backslash_escapes_colons_and_itself() {
        assert_eq!(
            lookup(r"\:\:1:*:*:*:a\:b\\c\*:rest", "::1").as_deref(),
            Some(r"a:b\c*")
        );
        assert_eq!(lookup(r"\*:*:*:*:literal star", "h"), None);
    }

    #[test]
    fn localhost_also_stands_for_the_default_socket() {
        let text = "localhost:*:*:*:local";
        assert_eq!(
            lookup(text, "/var/run/postgresql").as_deref(),
            Some("local")
        );
        assert_eq!(lookup(text, "/srv/pg"), None);
        assert_eq!(lookup("/tmp:*:*:*:dir", "/tmp").as_deref(), Some("dir"));
    }
}
