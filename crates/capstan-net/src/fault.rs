//! What the library's errors say about a dial.

use capstan_wire::link::{DialFault, FaultCode};
use libp2p::TransportError;
use libp2p::swarm::DialError;
use std::error::Error;
use std::io;

/// The kind of a failed dial: that of the last address which says more than that it failed.
pub(crate) fn of_dial(error: &DialError) -> DialFault {
    let code = match error {
        DialError::LocalPeerId { .. } => return "reached ourselves".into(),
        DialError::NoAddresses => FaultCode::NoAddress,
        DialError::Transport(tried) => {
            let codes = tried.iter().rev().map(|(_, error)| match error {
                TransportError::Other(error) => of_io(error),
                TransportError::MultiaddrNotSupported(_) => FaultCode::NoAddress,
            });
            let codes: Vec<FaultCode> = codes.collect();
            let telling = codes.iter().find(|code| !matches!(code, FaultCode::Dial | FaultCode::NoAddress));
            telling.or(codes.first()).copied().unwrap_or(FaultCode::NoAddress)
        }
        _ => FaultCode::Dial,
    };
    DialFault::new(code, error.to_string())
}

/// The kind of an error of the system, however deep it is wrapped.
pub(crate) fn of_io(error: &io::Error) -> FaultCode {
    let mut at: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = at {
        let inner = error.downcast_ref::<io::Error>();
        match inner.map(|inner| FaultCode::from(inner.kind())) {
            None | Some(FaultCode::Dial) => {}
            Some(code) => return code,
        }
        if error.to_string().contains("NoReservation") || error.to_string().contains("no reservation") {
            return FaultCode::NoReservation;
        }
        // What an error of the system wraps is not what it calls its source.
        let wrapped = inner.and_then(io::Error::get_ref).map(|wrapped| wrapped as &(dyn Error + 'static));
        at = wrapped.or_else(|| error.source());
    }
    FaultCode::Dial
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r61_wrapped_errors_of_the_system_are_recognised() {
        let wrap = |error: io::Error| io::Error::other(io::Error::other(error));
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(of_io(&wrap(refused())), FaultCode::Refused);
        assert_eq!(of_io(&wrap(io::Error::other("noise"))), FaultCode::Dial);
        let address = libp2p::Multiaddr::empty();
        let tried = |errors: Vec<io::Error>| {
            let tried = errors.into_iter().map(|error| (address.clone(), TransportError::Other(error)));
            of_dial(&DialError::Transport(tried.collect())).code
        };
        assert_eq!(tried(vec![wrap(refused()), io::Error::other("noise")]), FaultCode::Refused);
        assert_eq!(tried(vec![]), FaultCode::NoAddress);
        assert_eq!(of_dial(&DialError::NoAddresses).code, FaultCode::NoAddress);
        assert!(!of_dial(&DialError::NoAddresses).code.is_retryable());
        assert!(of_dial(&DialError::Aborted).code.is_retryable());
    }
}
