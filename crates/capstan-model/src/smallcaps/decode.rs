//! Bodies to values. The JSON parser bounds the depth (128), so recursion here is bounded too.

use super::{SlotRef, Value, is_special};
use crate::capdata::CapData;
use crate::id::{KRef, parse_index};
use serde_json::Value as Json;

/// Why a body is not smallcaps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SmallcapsError {
    /// The body does not begin with `#`: another, older encoding.
    #[error("body does not begin with '#'")]
    NoPrefix,
    /// What follows `#` is not JSON, or nested too deeply.
    #[error("body is not JSON")]
    NotJson,
    /// A string or key with a reserved or malformed beginning.
    #[error("malformed special string {0:?}")]
    BadSpecial(String),
    /// A slot that is not in the list.
    #[error("slot {0} out of range")]
    NoSuchSlot(u64),
    /// An object where the slot holds a promise, or the other way round.
    #[error("slot {0} is of the other kind")]
    WrongKind(u64),
    /// An error or tagged record lacks a part or has a part of the wrong type.
    #[error("malformed {0} record")]
    BadRecord(&'static str),
}

fn bad(text: &str) -> SmallcapsError {
    SmallcapsError::BadSpecial(text.chars().take(64).collect())
}

/// Decodes a whole value; refuses whatever the format reserves.
pub fn decode<R: SlotRef>(value: &CapData<R>) -> Result<Value<R>, SmallcapsError> {
    decode_with(&value.body, &|object, index| slot_of(value, object, index))
}

/// Returns the reference if the value is one object or one promise itself, not a container of one (02 §4.1).
pub fn single_reference(value: &CapData<KRef>) -> Option<KRef> {
    let text = value.body.strip_prefix('#')?.trim_start();
    if !text.starts_with('"') {
        return None;
    }
    match decode(value).ok()? {
        Value::Object { slot, .. } | Value::Promise(slot) => Some(slot),
        Value::Undefined | Value::Null | Value::Bool(_) | Value::Number(_) | Value::BigInt(_) => None,
        Value::String(_) | Value::Symbol(_) | Value::Array(_) | Value::Record(_) => None,
        Value::Error { .. } | Value::Tagged { .. } => None,
    }
}

fn slot_of<R: SlotRef>(value: &CapData<R>, object: bool, index: u64) -> Result<R, SmallcapsError> {
    let found = usize::try_from(index).ok().and_then(|i| value.slots.get(i));
    let slot = *found.ok_or(SmallcapsError::NoSuchSlot(index))?;
    if slot.is_object() == object { Ok(slot) } else { Err(SmallcapsError::WrongKind(index)) }
}

type Lookup<'l, S> = dyn Fn(bool, u64) -> Result<S, SmallcapsError> + 'l;

/// Decodes with slots looked up by `lookup(is_object, index)`.
pub(super) fn decode_with<S>(body: &str, lookup: &Lookup<'_, S>) -> Result<Value<S>, SmallcapsError> {
    let text = body.strip_prefix('#').ok_or(SmallcapsError::NoPrefix)?;
    let json = serde_json::from_str(text).map_err(|_| SmallcapsError::NotJson)?;
    from_json(json, lookup)
}

fn from_json<S>(json: Json, lookup: &Lookup<'_, S>) -> Result<Value<S>, SmallcapsError> {
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(bit) => Value::Bool(bit),
        Json::Number(number) => Value::Number(number.as_f64().ok_or(SmallcapsError::NotJson)?),
        Json::String(text) => from_string(text, lookup)?,
        Json::Array(items) => {
            let items = items.into_iter().map(|item| from_json(item, lookup));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Json::Object(mut object) => {
            if object.contains_key("#error") {
                return error(&object);
            }
            if object.contains_key("#tag") {
                let tag = plain(object.get("#tag")).ok_or(SmallcapsError::BadRecord("tagged"))?;
                let payload = object.remove("payload").ok_or(SmallcapsError::BadRecord("tagged"))?;
                if object.len() != 1 {
                    return Err(SmallcapsError::BadRecord("tagged"));
                }
                return Ok(Value::Tagged { tag, payload: Box::new(from_json(payload, lookup)?) });
            }
            let entries = object.into_iter().map(|(key, value)| {
                let name = unescape(&key).ok_or_else(|| bad(&key))?;
                Ok((name, from_json(value, lookup)?))
            });
            Value::Record(entries.collect::<Result<_, _>>()?)
        }
    })
}

fn error<S>(object: &serde_json::Map<String, Json>) -> Result<Value<S>, SmallcapsError> {
    let refuse = SmallcapsError::BadRecord("error");
    if let Some(key) = object.keys().find(|key| key.as_str() != "#error" && key.starts_with('#')) {
        return Err(bad(key));
    }
    let message = plain(object.get("#error")).ok_or(refuse.clone())?;
    let name = plain(object.get("name")).ok_or(refuse.clone())?;
    let error_id = match object.get("errorId") {
        None => None,
        id => Some(plain(id).ok_or(refuse)?),
    };
    Ok(Value::Error { name, message, error_id })
}

/// Returns the string that an encoded plain string stands for.
fn unescape(text: &str) -> Option<String> {
    if is_special(text) { text.strip_prefix('!').map(str::to_owned) } else { Some(text.to_owned()) }
}

fn plain(json: Option<&Json>) -> Option<String> {
    json.and_then(Json::as_str).and_then(unescape)
}

fn from_string<S>(text: String, lookup: &Lookup<'_, S>) -> Result<Value<S>, SmallcapsError> {
    if !is_special(&text) {
        return Ok(Value::String(text));
    }
    let index = |digits: &str| parse_index(digits).ok_or_else(|| bad(&text));
    let (sigil, rest) = text.split_at_checked(1).ok_or_else(|| bad(&text))?;
    Ok(match sigil {
        "!" => Value::String(rest.to_owned()),
        "#" => match rest {
            "undefined" => Value::Undefined,
            "NaN" => Value::Number(f64::NAN),
            "Infinity" => Value::Number(f64::INFINITY),
            "-Infinity" => Value::Number(f64::NEG_INFINITY),
            _ => return Err(bad(&text)),
        },
        "+" | "-" if !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()) => {
            let digits = rest.trim_start_matches('0');
            Value::BigInt(match (sigil, digits) {
                (_, "") => "0".to_owned(),
                ("-", digits) => format!("-{digits}"),
                (_, digits) => digits.to_owned(),
            })
        }
        "%" => Value::Symbol(rest.to_owned()),
        "$" => {
            let (digits, iface) = match rest.split_once('.') {
                Some((digits, iface)) => (digits, Some(iface.to_owned())),
                None => (rest, None),
            };
            Value::Object { slot: lookup(true, index(digits)?)?, iface }
        }
        "&" => Value::Promise(lookup(false, index(rest)?)?),
        _ => return Err(bad(&text)),
    })
}
