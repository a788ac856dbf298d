//! Writing values in tests without ceremony.

use capstan_model::id::{KRef, ObjectId, PromiseId};
use capstan_model::refs::VRef;
use capstan_model::smallcaps::Value;

/// Whatever can stand where a value is wanted.
pub trait Passable<R> {
    /// As a value.
    fn value(self) -> Value<R>;
}

impl<R> Passable<R> for Value<R> {
    fn value(self) -> Value<R> {
        self
    }
}

impl<R> Passable<R> for i32 {
    fn value(self) -> Value<R> {
        Value::Number(f64::from(self))
    }
}

impl<R> Passable<R> for &str {
    fn value(self) -> Value<R> {
        Value::String(self.to_owned())
    }
}

impl<R> Passable<R> for bool {
    fn value(self) -> Value<R> {
        Value::Bool(self)
    }
}

/// `undefined`.
impl<R> Passable<R> for () {
    fn value(self) -> Value<R> {
        Value::Undefined
    }
}

impl<R, P: Passable<R>> Passable<R> for Vec<P> {
    fn value(self) -> Value<R> {
        Value::Array(self.into_iter().map(Passable::value).collect())
    }
}

impl Passable<KRef> for ObjectId {
    fn value(self) -> Value<KRef> {
        Value::Object { slot: self.into(), iface: None }
    }
}

impl Passable<KRef> for PromiseId {
    fn value(self) -> Value<KRef> {
        Value::Promise(self.into())
    }
}

impl Passable<KRef> for KRef {
    fn value(self) -> Value<KRef> {
        match self {
            KRef::Object(ko) => ko.value(),
            KRef::Promise(kp) => kp.value(),
        }
    }
}

impl Passable<VRef> for VRef {
    fn value(self) -> Value<VRef> {
        match self {
            VRef::Object(_) => Value::Object { slot: self, iface: None },
            VRef::Promise(..) => Value::Promise(self),
        }
    }
}

/// The value without what its objects claim to be: interface names are advice, not identity.
pub fn plain<R>(value: Value<R>) -> Value<R> {
    match value {
        Value::Object { slot, .. } => Value::Object { slot, iface: None },
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        Value::Record(fields) => {
            Value::Record(fields.into_iter().map(|(key, value)| (key, plain(value))).collect())
        }
        Value::Tagged { tag, payload } => Value::Tagged { tag, payload: Box::new(plain(*payload)) },
        Value::Undefined | Value::Null | Value::Bool(_) | Value::Number(_) | Value::BigInt(_) => value,
        Value::String(_) | Value::Symbol(_) | Value::Error { .. } | Value::Promise(_) => value,
    }
}
