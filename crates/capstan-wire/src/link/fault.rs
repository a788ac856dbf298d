//! Why a dial came to nothing: one table for all of it (03 B-42 to B-44).

use std::fmt;
use std::io;

/// What kind of failure a dial met. The first nine have a name in every operating system or in the protocols below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultCode {
    /// Nobody listens there.
    Refused,
    /// No way to the host.
    HostUnreachable,
    /// No way to its network.
    NetUnreachable,
    /// The host's name means nothing.
    NotFound,
    /// The connection was reset.
    Reset,
    /// Nothing came in time.
    TimedOut,
    /// The other end was closed.
    BrokenPipe,
    /// The relay holds no reservation for the peer.
    NoReservation,
    /// The multiplexer of the connection ended.
    MuxerClosed,
    /// Any other failure of a transport, or of what was found at the address.
    Dial,
    /// There is no address to dial, or none that may be dialled.
    NoAddress,
    /// Whatever names no peer.
    Malformed,
}

impl FaultCode {
    /// The code of the reference's table, for the log.
    pub fn name(self) -> &'static str {
        match self {
            FaultCode::Refused => "ECONNREFUSED",
            FaultCode::HostUnreachable => "EHOSTUNREACH",
            FaultCode::NetUnreachable => "ENETUNREACH",
            FaultCode::NotFound => "ENOTFOUND",
            FaultCode::Reset => "ECONNRESET",
            FaultCode::TimedOut => "ETIMEDOUT",
            FaultCode::BrokenPipe => "EPIPE",
            FaultCode::NoReservation => "NO_RESERVATION",
            FaultCode::MuxerClosed => "MuxerClosedError",
            FaultCode::Dial => "DialError",
            FaultCode::NoAddress => "NoAddressError",
            FaultCode::Malformed => "MalformedPeerError",
        }
    }

    /// Whether trying again, with nothing new known, may help.
    pub fn is_retryable(self) -> bool {
        !matches!(self, FaultCode::NoAddress | FaultCode::Malformed)
    }

    /// Whether several in a row say that the peer is down.
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            FaultCode::Refused | FaultCode::HostUnreachable | FaultCode::NetUnreachable | FaultCode::NotFound
        )
    }
}

impl From<io::ErrorKind> for FaultCode {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the list of the standard library is open")]
    fn from(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::ConnectionRefused => FaultCode::Refused,
            io::ErrorKind::HostUnreachable => FaultCode::HostUnreachable,
            io::ErrorKind::NetworkUnreachable => FaultCode::NetUnreachable,
            io::ErrorKind::NotFound => FaultCode::NotFound,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => FaultCode::Reset,
            io::ErrorKind::TimedOut => FaultCode::TimedOut,
            io::ErrorKind::BrokenPipe => FaultCode::BrokenPipe,
            _ => FaultCode::Dial,
        }
    }
}

/// A failed dial: its kind, and a text for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialFault {
    /// What kind.
    pub code: FaultCode,
    /// What happened.
    pub text: String,
}

impl DialFault {
    /// A failure of this kind.
    pub fn new(code: FaultCode, text: impl Into<String>) -> Self {
        DialFault { code, text: text.into() }
    }
}

/// A failure of which nothing but the text is known.
impl From<&str> for DialFault {
    fn from(text: &str) -> Self {
        DialFault::new(FaultCode::Dial, text)
    }
}

impl fmt::Display for DialFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r61_every_failure_has_one_code_and_one_consequence() {
        use FaultCode::*;
        let rows = [
            (Refused, "ECONNREFUSED", true, true),
            (HostUnreachable, "EHOSTUNREACH", true, true),
            (NetUnreachable, "ENETUNREACH", true, true),
            (NotFound, "ENOTFOUND", true, true),
            (Reset, "ECONNRESET", true, false),
            (TimedOut, "ETIMEDOUT", true, false),
            (BrokenPipe, "EPIPE", true, false),
            (NoReservation, "NO_RESERVATION", true, false),
            (MuxerClosed, "MuxerClosedError", true, false),
            (Dial, "DialError", true, false),
            (NoAddress, "NoAddressError", false, false),
            (Malformed, "MalformedPeerError", false, false),
        ];
        for (code, name, retryable, refusal) in rows {
            assert_eq!((code.name(), code.is_retryable(), code.is_refusal()), (name, retryable, refusal));
        }
        let kinds = [
            (io::ErrorKind::ConnectionRefused, Refused),
            (io::ErrorKind::HostUnreachable, HostUnreachable),
            (io::ErrorKind::NetworkUnreachable, NetUnreachable),
            (io::ErrorKind::NotFound, NotFound),
            (io::ErrorKind::ConnectionReset, Reset),
            (io::ErrorKind::TimedOut, TimedOut),
            (io::ErrorKind::BrokenPipe, BrokenPipe),
            (io::ErrorKind::InvalidData, Dial),
        ];
        for (kind, code) in kinds {
            assert_eq!(FaultCode::from(kind), code);
        }
        assert_eq!(DialFault::from("x").to_string(), "DialError: x");
    }
}
