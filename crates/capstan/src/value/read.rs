//! Arguments: text to JSON to values.

use super::DEPTH_MAX;
use crate::error::{CliError, Code};
use capstan_model::id::KRef;
use capstan_model::smallcaps::Value;
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, BTreeSet};

/// A value whose references are known; what [`argument`] makes.
pub type Argument = Value<KRef>;

/// Why an argument is not a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// An `@` form that the table does not have, or a malformed one.
    #[error("{0}")]
    Form(String),
    /// Nested more than [`DEPTH_MAX`] deep.
    #[error("argument is nested more than {DEPTH_MAX} deep")]
    TooDeep,
    /// The text of an `@kref`.
    #[error("{0}")]
    Reference(String),
    /// The text of an `@url`.
    #[error("{0}")]
    Url(String),
}

impl From<BadValue> for CliError {
    fn from(bad: BadValue) -> CliError {
        let code = match bad {
            BadValue::Form(_) | BadValue::TooDeep => Code::BadJson,
            BadValue::Reference(_) => Code::BadReference,
            BadValue::Url(_) => Code::BadUrl,
        };
        CliError::new(code, bad.to_string())
    }
}

/// Reads one command-line argument: JSON, or else a bare string.
///
/// A text that begins like a JSON array, object, string or number out of range was meant as JSON, so it is refused rather than
/// passed on as a string.
pub fn parse_argument(text: &str) -> Result<Json, CliError> {
    match serde_json::from_str(text) {
        Ok(json) => Ok(json),
        Err(error) => {
            let meant = text.trim_start().starts_with(['{', '[', '"']);
            let number = error.to_string().starts_with("number out of range");
            if meant || number {
                let shown: String = text.chars().take(80).collect();
                let message = format!("argument is not JSON: {shown}: {error}");
                return Err(CliError::new(Code::BadJson, message)
                    .hint("quote a string that begins with { [ or \" as JSON: '\"{text\"'"));
            }
            Ok(Json::from(text))
        }
    }
}

/// Reads one argument as a value. `redeemed` holds what each `@url` in it turned into; an `@url` that is
/// missing there is only checked for its form, and stands as `undefined`.
pub fn argument(json: &Json, redeemed: &BTreeMap<String, KRef>) -> Result<Argument, BadValue> {
    read(json, redeemed, 0)
}

/// Returns the URLs in an argument, each once.
pub fn urls_of(json: &Json, into: &mut BTreeSet<String>) {
    match json {
        Json::Array(items) => items.iter().for_each(|item| urls_of(item, into)),
        Json::Object(entries) => {
            if let (1, Some(Json::String(url))) = (entries.len(), entries.get("@url")) {
                into.insert(url.clone());
                return;
            }
            if let (1, Some(Json::Object(plain))) = (entries.len(), entries.get("@object")) {
                plain.values().for_each(|value| urls_of(value, into));
                return;
            }
            entries.values().for_each(|value| urls_of(value, into));
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

type Redeemed = BTreeMap<String, KRef>;

fn read(json: &Json, redeemed: &Redeemed, depth: usize) -> Result<Argument, BadValue> {
    if depth > DEPTH_MAX {
        return Err(BadValue::TooDeep);
    }
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(bit) => Value::Bool(*bit),
        Json::Number(number) => {
            let number = number.as_f64().filter(|number| number.is_finite());
            Value::Number(number.ok_or_else(|| BadValue::Form("number out of range".into()))?)
        }
        Json::String(text) => Value::String(text.clone()),
        Json::Array(items) => {
            let items = items.iter().map(|item| read(item, redeemed, depth + 1));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Json::Object(entries) => match entries.keys().find(|key| key.starts_with('@')) {
            Some(key) => special(key, entries, redeemed, depth)?,
            None => record(entries, redeemed, depth)?,
        },
    })
}

fn record(entries: &Map<String, Json>, redeemed: &Redeemed, depth: usize) -> Result<Argument, BadValue> {
    let entries = entries.iter().map(|(key, value)| Ok((key.clone(), read(value, redeemed, depth + 1)?)));
    Ok(Value::Record(entries.collect::<Result<_, _>>()?))
}

fn form(what: &str) -> BadValue {
    BadValue::Form(what.into())
}

/// Reads an object that has the `@` key `key`.
fn special(
    key: &str,
    entries: &Map<String, Json>,
    redeemed: &Redeemed,
    depth: usize,
) -> Result<Argument, BadValue> {
    let companion = if key == "@kref" { Some("iface") } else { None };
    let foreign = entries.keys().find(|other| *other != key && Some(other.as_str()) != companion);
    if let Some(other) = foreign {
        let text = format!(
            "{other:?} beside {key:?}: write a plain object that has an @ key as {{\"@object\": {{…}}}}"
        );
        return Err(BadValue::Form(text));
    }
    let inner = entries.get(key).unwrap_or(&Json::Null);
    match key {
        "@kref" => reference(inner, entries.get("iface")),
        "@url" => url(inner, redeemed),
        "@promise" => Err(form("@promise appears in results only; pass a promise as {\"@kref\": \"kp7\"}")),
        "@bigint" => bigint(inner),
        "@undefined" if *inner == Json::Bool(true) => Ok(Value::Undefined),
        "@number" => match inner.as_str() {
            Some("NaN") => Ok(Value::Number(f64::NAN)),
            Some("Infinity") => Ok(Value::Number(f64::INFINITY)),
            Some("-Infinity") => Ok(Value::Number(f64::NEG_INFINITY)),
            _ => Err(form("@number takes \"NaN\", \"Infinity\" or \"-Infinity\"")),
        },
        "@symbol" => match inner.as_str() {
            Some(name) => Ok(Value::Symbol(name.to_owned())),
            None => Err(form("@symbol takes a string")),
        },
        "@error" => error(inner),
        "@tagged" => tagged(inner, redeemed, depth),
        "@object" => match inner {
            Json::Object(plain) => record(plain, redeemed, depth + 1),
            _ => Err(form("@object takes an object")),
        },
        "@undefined" => Err(form("@undefined takes true")),
        _ => Err(BadValue::Form(format!(
            "unknown form {key:?}: write a plain object that has an @ key as {{\"@object\": {{…}}}}"
        ))),
    }
}

fn reference(inner: &Json, iface: Option<&Json>) -> Result<Argument, BadValue> {
    let text = inner.as_str().ok_or_else(|| form("@kref takes a string"))?;
    let iface = match iface {
        None => None,
        Some(Json::String(iface)) => Some(iface.clone()),
        Some(_) => return Err(form("iface takes a string")),
    };
    match text
        .parse()
        .map_err(|error: capstan_model::id::ParseRefError| BadValue::Reference(error.to_string()))?
    {
        KRef::Object(ko) => Ok(Value::Object { slot: KRef::Object(ko), iface }),
        KRef::Promise(kp) => Ok(Value::Promise(KRef::Promise(kp))),
    }
}

fn url(inner: &Json, redeemed: &Redeemed) -> Result<Argument, BadValue> {
    let text = inner.as_str().ok_or_else(|| form("@url takes a string"))?;
    crate::url::check(text).map_err(BadValue::Url)?;
    Ok(match redeemed.get(text) {
        Some(kref) => Value::Object { slot: *kref, iface: None },
        None => Value::Undefined,
    })
}

/// The longest bigint, in digits: far beyond use, and short enough that no engine chokes on it.
const BIGINT_DIGITS_MAX: usize = 100_000;

fn bigint(inner: &Json) -> Result<Argument, BadValue> {
    let refuse = || form("@bigint takes a string of decimal digits");
    let text = inner.as_str().ok_or_else(refuse)?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || digits.len() > BIGINT_DIGITS_MAX || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refuse());
    }
    let significant = digits.trim_start_matches('0');
    Ok(Value::BigInt(match significant {
        "" => "0".into(),
        some if text.starts_with('-') => format!("-{some}"),
        some => some.to_owned(),
    }))
}

fn error(inner: &Json) -> Result<Argument, BadValue> {
    let refuse = || form("@error takes {\"name\": string, \"message\": string}");
    let object = inner.as_object().ok_or_else(refuse)?;
    if object
        .iter()
        .any(|(key, value)| !matches!(key.as_str(), "name" | "message" | "code") || !value.is_string())
    {
        return Err(refuse());
    }
    let part = |key: &str| object.get(key).and_then(Json::as_str).map(str::to_owned);
    let (name, message) = (part("name").ok_or_else(refuse)?, part("message").ok_or_else(refuse)?);
    Ok(Value::Error { name, message, error_id: None })
}

fn tagged(inner: &Json, redeemed: &Redeemed, depth: usize) -> Result<Argument, BadValue> {
    let refuse = || form("@tagged takes {\"tag\": string, \"payload\": value}");
    let object = inner.as_object().filter(|object| object.len() == 2).ok_or_else(refuse)?;
    let tag = object.get("tag").and_then(Json::as_str).ok_or_else(refuse)?.to_owned();
    // Depth counts levels of JSON, and a tagged value takes two.
    let payload = read(object.get("payload").ok_or_else(refuse)?, redeemed, depth + 2)?;
    Ok(Value::Tagged { tag, payload: Box::new(payload) })
}
