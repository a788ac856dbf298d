//! Values for people (01 §5, end).

use super::decode::{SmallcapsError, decode_with};
use super::{Value, js_number};
use crate::capdata::CapData;
use std::fmt::{Display, Write};

/// Renders a value on one line: JSON, with `<ko6> (Alleged: thing)` for references, `3n`, `[undefined]`, `[TypeError: msg]`.
///
/// More lenient than decoding: a slot that is missing shows as `<?N>`.
pub fn render<R: Display>(value: &CapData<R>) -> Result<String, SmallcapsError> {
    let name = |_object: bool, index: u64| {
        let slot = usize::try_from(index).ok().and_then(|i| value.slots.get(i));
        Ok(slot.map_or_else(|| format!("?{index}"), ToString::to_string))
    };
    let decoded = decode_with(&value.body, &name)?;
    let mut out = String::new();
    write_value(&mut out, &decoded);
    Ok(out)
}

/// Depth is bounded by the decoder. Writing to a `String` does not fail, so results of `write!` are dropped.
fn write_value(out: &mut String, value: &Value<String>) {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let _ = match value {
        Value::Undefined => write!(out, "[undefined]"),
        Value::Null => write!(out, "null"),
        Value::Bool(bit) => write!(out, "{bit}"),
        Value::Number(number) if number.is_finite() => write!(out, "{}", js_number(*number)),
        Value::Number(number) => write!(out, "[{}]", js_number(*number)),
        Value::BigInt(digits) => write!(out, "{digits}n"),
        Value::String(text) => write!(out, "{}", quoted(text)),
        Value::Symbol(name) => write!(out, "[Symbol: {name}]"),
        Value::Error { name, message, .. } => write!(out, "[{name}: {message}]"),
        Value::Object { slot, iface: Some(iface) } => write!(out, "<{slot}> ({iface})"),
        Value::Object { slot, iface: None } | Value::Promise(slot) => write!(out, "<{slot}>"),
        Value::Tagged { tag, payload } => {
            let _ = write!(out, "{{{}:", quoted(&format!("[Tagged: {tag}]")));
            write_value(out, payload);
            write!(out, "}}")
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                write_value(out, item);
            }
            write!(out, "]")
        }
        Value::Record(entries) => {
            out.push('{');
            for (i, (key, value)) in entries.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                let _ = write!(out, "{}:", quoted(key));
                write_value(out, value);
            }
            write!(out, "}}")
        }
    };
}
