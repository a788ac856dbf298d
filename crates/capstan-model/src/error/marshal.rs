//! The plain JSON form in which errors cross a process boundary (03 D.8).

use serde_json::{Map, Value};

const SENTINEL: &str = "@@MARSHALED_ERROR";

/// What an error was caused by, as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Another marshalled error.
    Error(Value),
    /// JSON text of something that is no error.
    Text(String),
}

/// Why a JSON value is not the marshalled error that was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a marshalled {expected}: {why}")]
pub struct UnmarshalError {
    /// The code that was expected.
    pub expected: &'static str,
    /// What is wrong with the value.
    pub why: &'static str,
}

/// The parts of a marshalled error that vary within one class.
pub(super) struct Parts {
    pub(super) message: String,
    pub(super) cause: Option<Cause>,
    pub(super) stack: Option<String>,
}

pub(super) fn marshal(code: &str, message: &str, cause: Option<&Cause>, stack: Option<&str>) -> Value {
    let mut object = Map::new();
    object.insert(SENTINEL.into(), Value::Bool(true));
    object.insert("message".into(), message.into());
    object.insert("code".into(), code.into());
    if let Some(stack) = stack {
        object.insert("stack".into(), stack.into());
    }
    match cause {
        Some(Cause::Error(error)) => object.insert("cause".into(), error.clone()),
        Some(Cause::Text(text)) => object.insert("cause".into(), text.as_str().into()),
        None => None,
    };
    Value::Object(object)
}

/// Returns the marshalled form of an error of no class: its text alone.
pub fn marshal_plain(message: &str) -> Value {
    let mut object = Map::new();
    object.insert(SENTINEL.into(), Value::Bool(true));
    object.insert("message".into(), message.into());
    Value::Object(object)
}

fn is_marshaled(value: &Value) -> bool {
    value.get(SENTINEL) == Some(&Value::Bool(true)) && value.get("message").is_some_and(Value::is_string)
}

/// Accepts exactly the marshalled form of a class without data.
pub(super) fn unmarshal(code: &'static str, value: &Value) -> Result<Parts, UnmarshalError> {
    let refuse = |why| UnmarshalError { expected: code, why };
    let object = value.as_object().ok_or(refuse("not an object"))?;
    if !is_marshaled(value) {
        return Err(refuse("sentinel or message is missing"));
    }
    if object.get("code").and_then(Value::as_str) != Some(code) {
        return Err(refuse("another code"));
    }
    if object.contains_key("data") {
        return Err(refuse("carries data"));
    }
    if object.keys().any(|key| !matches!(key.as_str(), SENTINEL | "message" | "code" | "stack" | "cause")) {
        return Err(refuse("unknown key"));
    }
    let text = |key| match object.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(refuse("a field is not text")),
    };
    let cause = match object.get("cause") {
        None => None,
        Some(Value::String(text)) => Some(Cause::Text(text.clone())),
        Some(error) if is_marshaled(error) => Some(Cause::Error(error.clone())),
        Some(_) => return Err(refuse("the cause is neither text nor a marshalled error")),
    };
    let message = text("message")?.unwrap_or_default();
    Ok(Parts { message, cause, stack: text("stack")? })
}
