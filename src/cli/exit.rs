//! Exit codes: part of the contract with scripts.

use std::process::ExitCode;

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
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(match code {
            Code::Ok => 0,
            Code::Error => 1,
            Code::NotCurrent => 3,
            Code::SomeFailed => 4,
        })
    }
}
