//! Exit codes: part of the contract with scripts.

use std::process::ExitCode;

use tenantd::Error;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// Done.
    Ok,
    /// Done, and wrong.
    Error,
    /// Something is not current, or has drifted.
    NotCurrent,
    /// Some tenants failed, the others are done.
    SomeFailed,
    /// The schema `tenantd` in the database is newer than this program.
    Outdated,
    /// A second signal ended the daemon at once.
    Killed,
}

impl Code {
    /// How a command ends with this error.
    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::Newer { .. } => Self::Outdated,
            _ => Self::Error,
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(match code {
            Code::Ok => 0,
            Code::Error => 1,
            Code::NotCurrent => 3,
            Code::SomeFailed => 4,
            Code::Outdated => 5,
            Code::Killed => 130,
        })
    }
}
