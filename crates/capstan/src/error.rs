//! What the command line says when something did not work: a code that scripts rely on, and words for people.

use capstan_model::error::{ErrorCode, KernelError};
use serde_json::{Value as Json, json};
use std::fmt;

/// The codes of the `--json` error document, and with them the exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The command line does not parse.
    Usage,
    /// A kref, vat id, subcluster id, grant or peer id does not parse.
    BadReference,
    /// An `ocap:` URL does not parse.
    BadUrl,
    /// A JSON argument does not parse, or an `@` form is malformed.
    BadJson,
    /// A configuration file does not parse.
    BadConfig,
    /// No daemon runs at that home.
    NoDaemon,
    /// `--timeout` ran out.
    Timeout,
    /// A launch failed; nothing of it remains.
    LaunchFailed,
    /// No such vat.
    VatNotFound,
    /// No such subcluster.
    SubclusterNotFound,
    /// No remote stands for that peer.
    PeerNotFound,
    /// The URL names no grant, or one that ended.
    UrlUnknown,
    /// The peer did not answer a redemption in time.
    RedemptionTimeout,
    /// The peer could not be reached.
    PeerUnreachable,
    /// The query was refused.
    QueryRefused,
    /// A file, socket or process is not as it should be.
    Io,
    /// One of ours failed.
    Internal,
    /// The called object rejected, by user code.
    Rejected,
    /// The kernel rejected (01 §7).
    Kernel(ErrorCode),
}

const PLAIN: &[(Code, &str)] = &[
    (Code::Usage, "USAGE"),
    (Code::BadReference, "BAD_REFERENCE"),
    (Code::BadUrl, "BAD_URL"),
    (Code::BadJson, "BAD_JSON"),
    (Code::BadConfig, "BAD_CONFIG"),
    (Code::NoDaemon, "NO_DAEMON"),
    (Code::Timeout, "TIMEOUT"),
    (Code::LaunchFailed, "LAUNCH_FAILED"),
    (Code::VatNotFound, "VAT_NOT_FOUND"),
    (Code::SubclusterNotFound, "SUBCLUSTER_NOT_FOUND"),
    (Code::PeerNotFound, "PEER_NOT_FOUND"),
    (Code::UrlUnknown, "URL_UNKNOWN"),
    (Code::RedemptionTimeout, "REDEMPTION_TIMEOUT"),
    (Code::PeerUnreachable, "PEER_UNREACHABLE"),
    (Code::QueryRefused, "QUERY_REFUSED"),
    (Code::Io, "IO"),
    (Code::Internal, "INTERNAL"),
    (Code::Rejected, "REJECTED"),
];

impl Code {
    /// The code as scripts read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Kernel(code) => code.as_str(),
            plain => PLAIN.iter().find(|(code, _)| *code == plain).map_or("INTERNAL", |(_, text)| text),
        }
    }

    /// Reads a code; what is unknown counts as a fault of ours.
    pub fn parse(text: &str) -> Code {
        let plain = PLAIN.iter().find(|(_, known)| *known == text).map(|(code, _)| *code);
        let kernel =
            || ErrorCode::ALL.iter().find(|code| code.as_str() == text).map(|code| Code::Kernel(*code));
        plain.or_else(kernel).unwrap_or(Code::Internal)
    }

    /// What the process exits with.
    pub fn exit(self) -> u8 {
        match self {
            Code::Usage | Code::BadReference | Code::BadUrl | Code::BadJson | Code::BadConfig => 2,
            Code::NoDaemon => 3,
            Code::Timeout => 4,
            Code::LaunchFailed
            | Code::VatNotFound
            | Code::SubclusterNotFound
            | Code::PeerNotFound
            | Code::UrlUnknown
            | Code::RedemptionTimeout
            | Code::PeerUnreachable
            | Code::QueryRefused
            | Code::Io
            | Code::Internal
            | Code::Rejected
            | Code::Kernel(_) => 1,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a command did not do what was asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    /// What kind.
    pub code: Code,
    /// What happened, for people.
    pub message: String,
    /// The rejection value, in the JSON form of values, when user code rejected.
    pub value: Option<Box<Json>>,
    /// What to do about it, for people.
    pub hints: Vec<String>,
}

impl CliError {
    /// An error of some kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        CliError { code, message: message.into(), value: None, hints: Vec::new() }
    }

    /// Something outside of us is not as it should be; `what` names it.
    pub fn io(what: impl fmt::Display, cause: impl fmt::Display) -> Self {
        CliError::new(Code::Io, format!("{what}: {cause}"))
    }

    /// One of ours failed.
    pub fn internal(message: impl Into<String>) -> Self {
        CliError::new(Code::Internal, message)
    }

    /// Adds a line about what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The kernel's error behind a text, or else an error of the kind `otherwise`.
    pub fn from_text(text: String, otherwise: Code) -> Self {
        let code = KernelError::parse(&text).map_or(otherwise, |error| Code::Kernel(error.code));
        CliError::new(code, text)
    }

    /// The document that `--json` prints.
    pub fn document(&self) -> Json {
        let mut error = json!({"code": self.code.as_str(), "message": self.message});
        if let (Some(value), Some(object)) = (&self.value, error.as_object_mut()) {
            object.insert("value".into(), (**value).clone());
        }
        json!({ "error": error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_they_are_written_and_exit_as_promised() {
        for (code, text) in PLAIN {
            assert_eq!((Code::parse(text), code.as_str()), (*code, *text));
        }
        for kernel in ErrorCode::ALL {
            assert_eq!(Code::parse(kernel.as_str()), Code::Kernel(*kernel));
            assert_eq!(Code::Kernel(*kernel).exit(), 1);
        }
        let exits: Vec<u8> = PLAIN.iter().map(|(code, _)| code.exit()).collect();
        assert_eq!(exits, [2, 2, 2, 2, 2, 3, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(Code::parse("SOMETHING_NEW"), Code::Internal);
    }
}
