//! Errors that vats, hosts and peers tell apart: by code or by name, never by type (01 §7; 03 D.8).

pub mod intentional_close;
pub mod kernel_error;
mod marshal;
pub mod network_stopped;
pub mod peer_restarted;

pub use intentional_close::IntentionalCloseError;
pub use kernel_error::{ErrorCode, KernelError};
pub use marshal::{Cause, UnmarshalError, marshal_plain};
pub use network_stopped::NetworkStoppedError;
pub use peer_restarted::PeerRestartedError;

use serde_json::Value;

/// A class of errors, as it crosses a process boundary.
struct Class {
    name: &'static str,
    marshal: fn() -> Value,
    is_marshaled_in: fn(&Value) -> bool,
}

macro_rules! class {
    ($class:ident) => {
        Class {
            name: $class::NAME,
            marshal: || $class::default().marshal(),
            is_marshaled_in: |value| $class::unmarshal(value).is_ok(),
        }
    };
}

/// The one place where a class of terminal send errors is registered (03 D-18).
const TERMINAL_SEND_ERRORS: [Class; 3] =
    [class!(PeerRestartedError), class!(IntentionalCloseError), class!(NetworkStoppedError)];

/// Whether an error of this name says that a send will not happen however often it is tried (03 D-17).
///
/// Works on the name, so it survives serialisation between processes.
#[doc(alias = "isTerminalSendError")]
pub fn is_terminal_send_error(name: &str) -> bool {
    TERMINAL_SEND_ERRORS.iter().any(|class| class.name == name)
}

/// Returns the marshalled form of the terminal send error of this name; `None`: it names no such class.
pub fn marshal_terminal(name: &str) -> Option<Value> {
    TERMINAL_SEND_ERRORS.iter().find(|class| class.name == name).map(|class| (class.marshal)())
}

/// Returns the name of the terminal send error that was marshalled; `None` for every other value.
pub fn unmarshal_terminal(value: &Value) -> Option<&'static str> {
    TERMINAL_SEND_ERRORS.iter().find(|class| (class.is_marshaled_in)(value)).map(|class| class.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn r144_a_terminal_error_is_rebuilt_by_name() {
        for name in [PeerRestartedError::NAME, IntentionalCloseError::NAME, NetworkStoppedError::NAME] {
            let form = marshal_terminal(name).expect("a class");
            assert_eq!(unmarshal_terminal(&form), Some(name));
        }
        assert_eq!(marshal_terminal("AbortError"), None);
        assert_eq!(unmarshal_terminal(&marshal_plain("Network stopped")), None);
        assert_eq!(unmarshal_terminal(&json!("Network stopped")), None);
    }

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
