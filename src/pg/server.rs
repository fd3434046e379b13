//! Which PostgreSQL this is: too old to work with, or a minor release with known holes.

use tokio_postgres::Client;

use crate::error::{During, Error, Result};

/// The oldest major version that the tests run on.
const OLDEST: i32 = 14;
/// The first minor release of each major version without the holes of May 2026.
const SOUND: [(i32, i32); 5] = [(14, 23), (15, 18), (16, 14), (17, 10), (18, 4)];

/// A server's version: 150018 is 15.18.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(i32);

impl Version {
    /// Asks the server.
    ///
    /// # Errors
    /// When it does not answer, or is too old.
    pub async fn of(client: &Client) -> Result<Self> {
        let rows = client
            .query_typed(
                "SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4",
                &[],
            )
            .await
            .during("ask for the server's version")?;
        Self(rows[0].get(0)).supported()
    }

    /// 14 to 18.
    pub fn major(self) -> i32 {
        self.0 / 10_000
    }

    /// What to tell an operator whose server lacks security fixes.
    pub fn warning(self) -> Option<String> {
        let minor = self.0 % 100;
        let (major, sound) = *SOUND.iter().find(|(major, _)| *major == self.major())?;
        (minor < sound).then(|| {
            format!("the server is PostgreSQL {major}.{minor}, which has known security holes: upgrade it to {major}.{sound} or later")
        })
    }

    fn supported(self) -> Result<Self> {
        if self.major() >= OLDEST {
            return Ok(self);
        }
        Err(Error::Refused(format!(
            "the server is PostgreSQL {}, tenantd needs {OLDEST} or later: upgrade the server",
            self.major()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_before_14_is_refused_by_name() {
        let refused = Version(130_023).supported().unwrap_err().to_string();
        assert_eq!(
            refused,
            "the server is PostgreSQL 13, tenantd needs 14 or later: upgrade the server"
        );
        for version in [140_000, 180_004, 190_000] {
            assert_eq!(Version(version).supported().unwrap().0, version);
        }
    }

    #[test]
    fn a_minor_with_known_holes_is_warned_about_and_others_are_not() {
        let warning = Version(150_017).warning().unwrap();
        assert!(
            warning.contains("PostgreSQL 15.17") && warning.contains("15.18 or later"),
            "{warning}"
        );
        for version in [140_023, 150_018, 160_020, 170_010, 180_004, 190_000] {
            assert_eq!(Version(version).warning(), None, "{version}");
        }
    }
}
