//! The body format of [`CapData`]: `#` and one JSON text in which special strings stand for what JSON lacks (01 §5).

mod decode;
mod encode;
mod render;

pub use decode::{SmallcapsError, decode, single_reference};
pub use encode::{encode, js_number};
pub use render::render;

use crate::id::KRef;
use crate::refs::{RRef, RefKind, VRef, WireRef};

/// A reference that may stand in a slot.
pub trait SlotRef: Copy + Ord {
    /// Whether it names an object rather than a promise.
    fn is_object(self) -> bool;
}

impl SlotRef for KRef {
    fn is_object(self) -> bool {
        matches!(self, KRef::Object(_))
    }
}
impl SlotRef for VRef {
    fn is_object(self) -> bool {
        VRef::is_object(self)
    }
}
impl SlotRef for RRef {
    fn is_object(self) -> bool {
        self.kind == RefKind::Object
    }
}
impl SlotRef for WireRef {
    fn is_object(self) -> bool {
        self.kind == RefKind::Object
    }
}

/// A passable value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<R> {
    /// `undefined`.
    Undefined,
    /// `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number; the sign of zero is lost on the way.
    Number(f64),
    /// A bigint: decimal digits, with `-` in front if negative.
    BigInt(String),
    /// A string.
    String(String),
    /// A registered symbol by its key, a well-known one as `@@name`.
    Symbol(String),
    /// An array.
    Array(Vec<Value<R>>),
    /// A plain record; encoded in the order of its keys' UTF-16 units.
    Record(Vec<(String, Value<R>)>),
    /// An error; stack and cause do not travel.
    Error {
        /// Its class, e.g. `TypeError`.
        name: String,
        /// Its message.
        message: String,
        /// What the vat that made it calls it, for its log.
        error_id: Option<String>,
    },
    /// A tagged value such as a copySet.
    Tagged {
        /// The tag.
        tag: String,
        /// What it wraps.
        payload: Box<Value<R>>,
    },
    /// An object.
    Object {
        /// Which.
        slot: R,
        /// What it claims to be; advice only. Written at the first mention, with `Alleged: ` in front unless it is there.
        iface: Option<String>,
    },
    /// A promise.
    Promise(R),
}

/// `!` to `-`: strings that begin so have a meaning of their own, or are reserved.
fn is_special(text: &str) -> bool {
    matches!(text.as_bytes().first(), Some(b'!'..=b'-'))
}

#[cfg(test)]
mod tests;
