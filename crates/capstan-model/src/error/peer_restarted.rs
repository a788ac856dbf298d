//! The terminal error of a send that met a restarted peer (03 D.8, S5).

use super::marshal::{Cause, UnmarshalError, marshal, unmarshal};
use serde_json::Value;

/// The peer lost its state; what was meant for its former life is not sent to the new one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PeerRestartedError {
    /// Normally [`Self::MESSAGE`].
    pub message: String,
    /// What it was caused by.
    pub cause: Option<Cause>,
    /// The stack of the process it was made in.
    pub stack: Option<String>,
}

impl PeerRestartedError {
    /// The class name, by which `is_terminal_send_error` recognises it.
    pub const NAME: &'static str = "PeerRestartedError";
    /// The code in the marshalled form.
    pub const CODE: &'static str = "PEER_RESTARTED_ERROR";
    /// The canonical message.
    pub const MESSAGE: &'static str = "Remote peer restarted: message not sent to avoid stale delivery";

    /// Returns the form that crosses a process boundary.
    pub fn marshal(&self) -> Value {
        marshal(Self::CODE, &self.message, self.cause.as_ref(), self.stack.as_deref())
    }

    /// Reads the marshalled form; refuses another code, data, or a missing sentinel or message.
    pub fn unmarshal(value: &Value) -> Result<Self, UnmarshalError> {
        let parts = unmarshal(Self::CODE, value)?;
        Ok(PeerRestartedError { message: parts.message, cause: parts.cause, stack: parts.stack })
    }
}

impl Default for PeerRestartedError {
    fn default() -> Self {
        PeerRestartedError { message: Self::MESSAGE.into(), cause: None, stack: None }
    }
}
