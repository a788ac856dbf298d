//! The terminal error of a send to a peer that the user closed (03 D.8, B-48).

use super::marshal::{Cause, UnmarshalError, marshal, unmarshal};
use serde_json::Value;

/// The user closed the connection to this peer; nothing is sent until it is reopened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct IntentionalCloseError {
    /// Normally [`Self::MESSAGE`].
    pub message: String,
    /// What it was caused by.
    pub cause: Option<Cause>,
    /// The stack of the process it was made in.
    pub stack: Option<String>,
}

impl IntentionalCloseError {
    /// The class name, by which `is_terminal_send_error` recognises it.
    pub const NAME: &'static str = "IntentionalCloseError";
    /// The code in the marshalled form.
    pub const CODE: &'static str = "INTENTIONAL_CLOSE_ERROR";
    /// The canonical message.
    pub const MESSAGE: &'static str = "Message delivery failed after intentional close";

    /// Returns the form that crosses a process boundary.
    pub fn marshal(&self) -> Value {
        marshal(Self::CODE, &self.message, self.cause.as_ref(), self.stack.as_deref())
    }

    /// Reads the marshalled form; refuses another code, data, or a missing sentinel or message.
    pub fn unmarshal(value: &Value) -> Result<Self, UnmarshalError> {
        let parts = unmarshal(Self::CODE, value)?;
        Ok(IntentionalCloseError { message: parts.message, cause: parts.cause, stack: parts.stack })
    }
}

impl Default for IntentionalCloseError {
    fn default() -> Self {
        IntentionalCloseError { message: Self::MESSAGE.into(), cause: None, stack: None }
    }
}
