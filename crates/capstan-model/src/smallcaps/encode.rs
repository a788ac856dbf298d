//! Values to bodies.

use super::{SlotRef, Value, is_special};
use crate::capdata::CapData;
use std::collections::BTreeMap;

/// What is still to be written. A list instead of recursion: no value is too deep.
enum Todo<'v, R> {
    Value(&'v Value<R>),
    Text(&'static str),
    Key(&'v str),
}

struct Encoder<R> {
    body: String,
    slots: Vec<R>,
    known: BTreeMap<R, usize>,
}

/// Encodes a value, numbering its references in the order of their first mention.
pub fn encode<R: SlotRef>(value: &Value<R>) -> CapData<R> {
    let mut encoder = Encoder { body: String::from("#"), slots: Vec::new(), known: BTreeMap::new() };
    let mut todo = vec![Todo::Value(value)];
    while let Some(next) = todo.pop() {
        match next {
            Todo::Text(text) => encoder.body.push_str(text),
            Todo::Key(key) => {
                encoder.string(key);
                encoder.body.push(':');
            }
            Todo::Value(value) => encoder.value(value, &mut todo),
        }
    }
    CapData { body: encoder.body.into(), slots: encoder.slots }
}

impl<R: SlotRef> Encoder<R> {
    fn value<'v>(&mut self, value: &'v Value<R>, todo: &mut Vec<Todo<'v, R>>) {
        match value {
            Value::Undefined => self.quoted("#undefined"),
            Value::Null => self.body.push_str("null"),
            Value::Bool(true) => self.body.push_str("true"),
            Value::Bool(false) => self.body.push_str("false"),
            Value::Number(number) if number.is_finite() => self.body.push_str(&js_number(*number)),
            Value::Number(number) => self.quoted(&format!("#{}", js_number(*number))),
            Value::BigInt(digits) if digits.starts_with('-') => self.quoted(digits),
            Value::BigInt(digits) => self.quoted(&format!("+{digits}")),
            Value::String(text) => self.string(text),
            Value::Symbol(name) => self.quoted(&format!("%{name}")),
            Value::Array(items) => {
                todo.push(Todo::Text("]"));
                for (i, item) in items.iter().enumerate().rev() {
                    todo.push(Todo::Value(item));
                    todo.push(Todo::Text(if i == 0 { "[" } else { "," }));
                }
                if items.is_empty() {
                    todo.push(Todo::Text("["));
                }
            }
            Value::Record(entries) => {
                let mut sorted: Vec<_> = entries.iter().collect();
                sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
                todo.push(Todo::Text("}"));
                for (i, (key, value)) in sorted.iter().enumerate().rev() {
                    todo.push(Todo::Value(value));
                    todo.push(Todo::Key(key));
                    todo.push(Todo::Text(if i == 0 { "{" } else { "," }));
                }
                if sorted.is_empty() {
                    todo.push(Todo::Text("{"));
                }
            }
            Value::Error { name, message, error_id } => {
                self.body.push_str(r##"{"#error":"##);
                self.string(message);
                if let Some(id) = error_id {
                    self.body.push_str(r#","errorId":"#);
                    self.string(id);
                }
                self.body.push_str(r#","name":"#);
                self.string(name);
                self.body.push('}');
            }
            Value::Tagged { tag, payload } => {
                self.body.push_str(r##"{"#tag":"##);
                self.string(tag);
                self.body.push_str(r#","payload":"#);
                todo.push(Todo::Text("}"));
                todo.push(Todo::Value(payload));
            }
            Value::Object { slot, iface } => {
                let (index, first) = self.slot(*slot);
                match iface {
                    Some(iface) if first => {
                        let claimed = iface == "Remotable"
                            || ["Alleged: ", "DebugName: "].iter().any(|p| iface.starts_with(p));
                        self.quoted(&format!("${index}.{}{iface}", if claimed { "" } else { "Alleged: " }));
                    }
                    Some(_) | None => self.quoted(&format!("${index}")),
                }
            }
            Value::Promise(slot) => {
                let (index, _) = self.slot(*slot);
                self.quoted(&format!("&{index}"));
            }
        }
    }

    /// Returns the index of a reference, and whether this is its first mention.
    fn slot(&mut self, slot: R) -> (usize, bool) {
        if let Some(index) = self.known.get(&slot) {
            return (*index, false);
        }
        let index = self.slots.len();
        self.slots.push(slot);
        self.known.insert(slot, index);
        (index, true)
    }

    fn string(&mut self, text: &str) {
        if is_special(text) { self.quoted(&format!("!{text}")) } else { self.quoted(text) }
    }

    fn quoted(&mut self, text: &str) {
        self.body.push_str(&serde_json::Value::from(text).to_string());
    }
}

/// Writes a number as JavaScript does: shortest digits, exponents from 1e21 and below 1e-6, no negative zero.
pub fn js_number(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    if number == 0.0 {
        return "0".into();
    }
    let scientific = format!("{:e}", number.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = mantissa.replace('.', "");
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    let point = exponent + 1;
    let text = if (-5..=0).contains(&point) {
        format!("0.{}{digits}", zeros(-point))
    } else if (1..=21).contains(&point) {
        match usize::try_from(point).ok().and_then(|at| digits.split_at_checked(at)) {
            Some((whole, fraction)) if !fraction.is_empty() => format!("{whole}.{fraction}"),
            Some(_) | None => format!("{digits}{}", zeros(point - count)),
        }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{}", exponent.abs())
    };
    if number < 0.0 { format!("-{text}") } else { text }
}
