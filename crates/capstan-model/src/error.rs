//! Errors that vats, hosts and peers tell apart: by code or by name, never by type (01 §7; 03 D.8).

pub mod intentional_close;
pub mod kernel_error;
mod marshal;
pub mod network_stopped;
pub mod peer_restarted;

pub use intentional_close::IntentionalCloseError;
pub use kernel_error::{ErrorCode, KernelError};
pub use marshal::{Cause, UnmarshalError};
pub use network_stopped::NetworkStoppedError;
pub use peer_restarted::PeerRestartedError;

/// The one place where a class of terminal send errors is registered (03 D-18).
const TERMINAL_SEND_ERRORS: [&str; 3] =
    [PeerRestartedError::NAME, IntentionalCloseError::NAME, NetworkStoppedError::NAME];

/// Whether an error of this name says that a send will not happen however often it is tried (03 D-17).
///
/// Works on the name, so it survives serialisation between processes.
#[doc(alias = "isTerminalSendError")]
pub fn is_terminal_send_error(name: &str) -> bool {
    TERMINAL_SEND_ERRORS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn r144_predicate_truth_table() {
        for name in ["PeerRestartedError", "IntentionalCloseError", "NetworkStoppedError"] {
            assert!(is_terminal_send_error(name), "{name}");
        }
        for name in [
            "AbortError",
            "Error",
            "ResourceLimitError",
            "",
            "peerRestartedError",
            "PEER_RESTARTED_ERROR",
            "null",
        ] {
            assert!(!is_terminal_send_error(name), "{name}");
        }
    }

    macro_rules! sentinel_tests {
        ($name:ident, $class:ident, $code:literal, $message:literal) => {
            #[test]
            fn $name() {
                assert_eq!($class::NAME, stringify!($class));
                assert_eq!($class::CODE, $code);
                assert_eq!($class::default().to_string(), $message);
                let bare = json!({"@@MARSHALED_ERROR": true, "message": $message, "code": $code});
                assert_eq!($class::default().marshal(), bare);
                assert_eq!($class::unmarshal(&bare), Ok($class::default()));

                let full = $class {
                    cause: Some(Cause::Text("\"why\"".into())),
                    stack: Some("at a".into()),
                    ..$class::default()
                };
                assert_eq!($class::unmarshal(&full.marshal()), Ok(full.clone()));
                let caused = $class { cause: Some(Cause::Error(full.marshal())), ..$class::default() };
                assert_eq!($class::unmarshal(&caused.marshal()), Ok(caused));

                let without = |key: &str| {
                    let mut object = bare.as_object().expect("an object").clone();
                    object.remove(key);
                    Value::Object(object)
                };
                let with = |key: &str, value: Value| {
                    let mut object = bare.as_object().expect("an object").clone();
                    object.insert(key.into(), value);
                    Value::Object(object)
                };
                for bad in [
                    with("code", json!("ABORT_ERROR")),
                    without("code"),
                    with("data", json!({})),
                    with("data", Value::Null),
                    with("@@MARSHALED_ERROR", json!(false)),
                    without("@@MARSHALED_ERROR"),
                    without("message"),
                    with("message", json!(3)),
                    with("stack", json!(3)),
                    with("cause", json!(3)),
                    with("cause", json!({"message": "not marshalled"})),
                    with("surprise", json!(1)),
                    json!("text"),
                    Value::Null,
                ] {
                    assert!($class::unmarshal(&bad).is_err(), "{bad}");
                }
            }
        };
    }
    sentinel_tests!(
        r143_peer_restarted,
        PeerRestartedError,
        "PEER_RESTARTED_ERROR",
        "Remote peer restarted: message not sent to avoid stale delivery"
    );
    sentinel_tests!(
        r143_intentional_close,
        IntentionalCloseError,
        "INTENTIONAL_CLOSE_ERROR",
        "Message delivery failed after intentional close"
    );
    sentinel_tests!(r143_network_stopped, NetworkStoppedError, "NETWORK_STOPPED_ERROR", "Network stopped");
}
