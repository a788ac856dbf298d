//! The terminal error of a send after the network has stopped (03 D.8, B-50).

use super::marshal::{Cause, UnmarshalError, marshal, unmarshal};
use serde_json::Value;

/// The network of this process is stopped; durable messages wait for the next start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NetworkStoppedError {
    /// Normally [`Self::MESSAGE`].
    pub message: String,
    /// What it was caused by.
    pub cause: Option<Cause>,
    /// The stack of the process it was made in.
    pub stack: Option<String>,
}

impl NetworkStoppedError {
    /// The class name, by which `is_terminal_send_error` recognises it.
    pub const NAME: &'static str = "NetworkStoppedError";
    /// The code in the marshalled form.
    pub const CODE: &'static str = "NETWORK_STOPPED_ERROR";
    /// The canonical message.
    pub const MESSAGE: &'static str = "Network stopped";

    /// Returns the form that crosses a process boundary.
    pub fn marshal(&self) -> Value {
        marshal(Self::CODE, &self.message, self.cause.as_ref(), self.stack.as_deref())
    }

    /// Reads the marshalled form; refuses another code, data, or a missing sentinel or message.
    pub fn unmarshal(value: &Value) -> Result<Self, UnmarshalError> {
        let parts = unmarshal(Self::CODE, value)?;
        Ok(NetworkStoppedError { message: parts.message, cause: parts.cause, stack: parts.stack })
    }
}

impl Default for NetworkStoppedError {
    fn default() -> Self {
        NetworkStoppedError { message: Self::MESSAGE.into(), cause: None, stack: None }
    }
}
