//! Errors as they cross the hop: by name and text, in the marshalled form (03 D.8, D-19).

use capstan_model::error::{is_terminal_send_error, marshal_plain, marshal_terminal, unmarshal_terminal};
use capstan_wire::seam::SendFault;
use serde_json::{Value, json};

/// The other end could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// The JSON-RPC error code.
    pub code: i64,
    /// The name of its class; `Error` where it is of none.
    pub name: String,
    /// For people.
    pub message: String,
}

const PLAIN: &str = "Error";

impl Fault {
    /// The text was not JSON.
    pub const PARSE_ERROR: i64 = -32_700;
    /// The JSON was no request.
    pub const INVALID_REQUEST: i64 = -32_600;
    /// There is no such method.
    pub const UNKNOWN_METHOD: i64 = -32_601;
    /// The method takes other parameters.
    pub const INVALID_PARAMS: i64 = -32_602;
    /// The method failed.
    pub const FAILED: i64 = -32_000;

    /// A method that failed for a reason of no class.
    pub fn failed(message: impl Into<String>) -> Self {
        Fault::new(Self::FAILED, message)
    }

    /// An error of no class.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Fault { code, name: PLAIN.to_owned(), message: message.into() }
    }

    /// The member `error` of a response.
    pub fn to_error(&self) -> Value {
        json!({"code": self.code, "message": self.message, "data": self.marshal()})
    }

    /// Rebuilds the error from the member `error` of a response.
    pub fn from_error(error: &Value) -> Self {
        let code = error.get("code").and_then(Value::as_i64).unwrap_or(Self::FAILED);
        let message = error.get("message").and_then(Value::as_str).unwrap_or("an error without a message");
        let name = error.get("data").and_then(unmarshal_terminal).unwrap_or(PLAIN);
        Fault { code, name: name.to_owned(), message: message.to_owned() }
    }

    /// The marshalled form.
    pub fn marshal(&self) -> Value {
        marshal_terminal(&self.name).unwrap_or_else(|| marshal_plain(&self.message))
    }

    /// Rebuilds the error from its marshalled form.
    pub fn unmarshal(form: &Value) -> Self {
        Self::from_error(&json!({"message": form.get("message"), "data": form}))
    }
}

impl From<SendFault> for Fault {
    fn from(fault: SendFault) -> Self {
        match fault {
            SendFault::Terminal(name) => {
                let form = marshal_terminal(&name);
                let message = form.as_ref().and_then(|form| form.get("message")?.as_str());
                let message = message.unwrap_or(&name).to_owned();
                Fault { code: Fault::FAILED, name, message }
            }
            SendFault::Transient(text) => Fault::failed(text),
        }
    }
}

/// Terminal is what has the name of a terminal class, wherever it was made.
impl From<Fault> for SendFault {
    fn from(fault: Fault) -> Self {
        if is_terminal_send_error(&fault.name) {
            SendFault::Terminal(fault.name)
        } else {
            SendFault::Transient(fault.message)
        }
    }
}
