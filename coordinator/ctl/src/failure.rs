//! How a command can fail, and the exit code of each way.

use std::{error::Error, fmt::Write as _, io};

use tonic::{Code, Status};

use crate::cli::Format;

/// Why a command did not succeed. The text is what a person reads: what happened and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The state of the cluster refuses, or an operation ended badly.
    #[error("{0}")]
    Refused(String),
    /// A flag, an argument, a file.
    #[error("{0}")]
    Usage(String),
    /// Nobody could be asked.
    #[error("{0}")]
    Unreachable(String),
    /// It has not ended yet.
    #[error("{0}")]
    Waiting(String),
    /// Standard output is closed: the reader has seen enough (`| head`).
    #[error("standard output was closed")]
    OutputClosed,
}

impl Failure {
    /// See the table in the crate's documentation.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Refused(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Waiting(_) => 4,
        }
    }

    /// Writes the error where errors go.
    pub(crate) fn print(&self, format: Format) {
        match (self, format) {
            (Self::OutputClosed, _) => {}
            (_, Format::Table) => eprintln!("regentctl: {self}"),
            (_, Format::Json) => {
                let error = serde_json::json!({ "error": self.to_string(), "exit_code": self.exit_code() });
                eprintln!("{error}");
            }
        }
    }

    /// A file or certificate that cannot be used.
    pub(crate) fn usage(error: &dyn Error) -> Self {
        Self::Usage(chain(error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Usage(format!("cannot write the output: {error}")),
        }
    }
}

/// An answer that is final: another coordinator would say the same. `None` when another one should be asked.
pub(crate) fn final_answer(status: &Status) -> Option<Failure> {
    let message = status.message();
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange => {
            Some(Failure::Usage(format!("the cluster cannot read the request: {message}")))
        }
        Code::NotFound => Some(Failure::Refused(format!("not found: {message}"))),
        Code::PermissionDenied | Code::Unauthenticated => {
            Some(Failure::Refused(format!("not permitted: {message}")))
        }
        Code::Aborted => Some(Failure::Refused(format!(
            "the cluster has changed: {message}; look at `regentctl status` and decide again"
        ))),
        Code::FailedPrecondition | Code::AlreadyExists | Code::ResourceExhausted => {
            Some(Failure::Refused(format!("refused: {message}")))
        }
        _ => None,
    }
}

/// An error with its causes in one line, each said once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}
