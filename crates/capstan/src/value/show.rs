//! Results: values to JSON.

use crate::error::{CliError, Code};
use capstan_model::capdata::CapData;
use capstan_model::error::KernelError;
use capstan_model::id::KRef;
use capstan_model::smallcaps::{Value, decode, render};
use serde_json::{Map, Number, Value as Json, json};

/// Returns the JSON form of a settled value. What does not decode is shown raw, as `@capdata`.
pub fn value_json(value: &CapData<KRef>) -> Json {
    match decode(value) {
        Ok(decoded) => show(&decoded),
        Err(_) => json!({"@capdata": {"body": &*value.body, "slots": value.slots}}),
    }
}

/// Returns the JSON form of a value.
pub fn show(value: &Value<KRef>) -> Json {
    match value {
        Value::Undefined => json!({"@undefined": true}),
        Value::Null => Json::Null,
        Value::Bool(bit) => Json::Bool(*bit),
        Value::Number(number) => show_number(*number),
        Value::BigInt(digits) => json!({"@bigint": digits}),
        Value::String(text) => Json::from(text.as_str()),
        Value::Symbol(name) => json!({"@symbol": name}),
        Value::Array(items) => Json::Array(items.iter().map(show).collect()),
        Value::Record(entries) => {
            let plain: Map<String, Json> =
                entries.iter().map(|(key, value)| (key.clone(), show(value))).collect();
            if plain.keys().any(|key| key.starts_with('@')) {
                json!({"@object": plain})
            } else {
                Json::Object(plain)
            }
        }
        Value::Error { name, message, .. } => match KernelError::parse(message) {
            Some(kernel) => {
                json!({"@error": {"name": name, "message": message, "code": kernel.code.as_str()}})
            }
            None => json!({"@error": {"name": name, "message": message}}),
        },
        Value::Tagged { tag, payload } => json!({"@tagged": {"tag": tag, "payload": show(payload)}}),
        Value::Object { slot, iface: Some(iface) } => json!({"@kref": slot.to_string(), "iface": iface}),
        Value::Object { slot, iface: None } => json!({"@kref": slot.to_string()}),
        Value::Promise(slot) => json!({"@promise": slot.to_string()}),
    }
}

/// Whole numbers are written without a fraction, as JavaScript does.
fn show_number(number: f64) -> Json {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.is_nan() {
        return json!({"@number": "NaN"});
    }
    if number.is_infinite() {
        return json!({"@number": if number > 0.0 { "Infinity" } else { "-Infinity" }});
    }
    if number.fract() == 0.0 && number.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
        return Json::from(number as i64);
    }
    Number::from_f64(number).map_or(Json::Null, Json::Number)
}

/// Returns the error that a rejection is reported as: the kernel's own code, or `REJECTED` with the value.
pub fn rejection(value: &CapData<KRef>) -> CliError {
    let message = match decode(value) {
        Ok(Value::Error { message, .. }) => message,
        Ok(Value::String(text)) => text,
        _ => render(value).unwrap_or_else(|_| value.body.to_string()),
    };
    let is_error = matches!(decode(value), Ok(Value::Error { .. }));
    match KernelError::parse(&message).filter(|_| is_error) {
        Some(kernel) => CliError::new(Code::Kernel(kernel.code), message),
        None => {
            CliError { value: Some(Box::new(value_json(value))), ..CliError::new(Code::Rejected, message) }
        }
    }
}
