//! Names inside one kernel: vats, remotes, subclusters, objects, promises (specification 01 §2).
//!
//! Each is a `Copy` newtype over a number; text exists only at the edges. Endpoints have 32 bits: there are few, and
//! their names are part of every c-list entry. Parsing is strict: canonical
//! decimals, no sign, no leading zero.

use std::fmt;
use std::str::FromStr;

/// Why a text is not an identifier or a reference of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference {text:?}: expected {expected}")]
pub struct ParseRefError {
    /// The offending text, cut to a printable length.
    pub text: String,
    /// What would have been accepted, e.g. "a vat id such as v1".
    pub expected: &'static str,
}

impl ParseRefError {
    /// Makes the error for `text`, which is cut to 64 characters.
    pub fn new(text: &str, expected: &'static str) -> Self {
        ParseRefError { text: text.chars().take(64).collect(), expected }
    }
}

/// Parses a canonical decimal: digits only, no leading zero except `0` itself, within `u64`.
pub fn parse_index(digits: &str) -> Option<u64> {
    let canonical = digits == "0" || !digits.starts_with('0');
    let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    (canonical && all_digits).then(|| digits.parse().ok()).flatten()
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($number:ty), $prefix:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $number);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseRefError;
            fn from_str(text: &str) -> Result<Self, ParseRefError> {
                text.strip_prefix($prefix)
                    .and_then(parse_index)
                    .and_then(|number| number.try_into().ok().map($name))
                    .ok_or_else(|| ParseRefError::new(text, $expected))
            }
        }

        crate::id::serde_as_text!($name);
    };
}

/// Implements serde for a type through its `Display` and `FromStr`.
macro_rules! serde_as_text {
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize<'de>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;

id!(
    /// A vat: `v` and a number that is never reused.
    VatId(u32), "v", "a vat id such as v1"
);
id!(
    /// A remote, this kernel's stand-in for another kernel: `r` and a number that is never reused.
    RemoteId(u32), "r", "a remote id such as r1"
);
id!(
    /// A subcluster: `s` and a number that is never reused.
    SubclusterId(u64), "s", "a subcluster id such as s1"
);
id!(
    /// An object, as this kernel names it: `ko` and a number that is never reused.
    ObjectId(u64), "ko", "an object such as ko12"
);
id!(
    /// A promise, as this kernel names it: `kp` and a number that is never reused.
    PromiseId(u64), "kp", "a promise such as kp7"
);
id!(
    /// The row behind an issued `ocap:` URL: `g` and a number that is never reused.
    GrantId(u64), "g", "a grant such as g3"
);

/// Anything that has its own reference space and takes deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointId {
    /// A vat of this kernel.
    Vat(VatId),
    /// Another kernel.
    Remote(RemoteId),
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndpointId::Vat(vat) => vat.fmt(f),
            EndpointId::Remote(rid) => rid.fmt(f),
        }
    }
}

impl FromStr for EndpointId {
    type Err = ParseRefError;
    fn from_str(text: &str) -> Result<Self, ParseRefError> {
        let vat = text.parse().map(EndpointId::Vat);
        vat.or_else(|_| text.parse().map(EndpointId::Remote))
            .map_err(|_| ParseRefError::new(text, "an endpoint such as v1 or r1"))
    }
}
serde_as_text!(EndpointId);

impl From<VatId> for EndpointId {
    fn from(vat: VatId) -> Self {
        EndpointId::Vat(vat)
    }
}
impl From<RemoteId> for EndpointId {
    fn from(rid: RemoteId) -> Self {
        EndpointId::Remote(rid)
    }
}

/// What this kernel calls an object or a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KRef {
    /// An object.
    Object(ObjectId),
    /// A promise.
    Promise(PromiseId),
}

impl KRef {
    /// Returns the object, if this names one.
    pub fn object(self) -> Option<ObjectId> {
        match self {
            KRef::Object(ko) => Some(ko),
            KRef::Promise(_) => None,
        }
    }

    /// Returns the promise, if this names one.
    pub fn promise(self) -> Option<PromiseId> {
        match self {
            KRef::Promise(kp) => Some(kp),
            KRef::Object(_) => None,
        }
    }
}

impl fmt::Display for KRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KRef::Object(ko) => ko.fmt(f),
            KRef::Promise(kp) => kp.fmt(f),
        }
    }
}

impl FromStr for KRef {
    type Err = ParseRefError;
    fn from_str(text: &str) -> Result<Self, ParseRefError> {
        let object = text.parse().map(KRef::Object);
        object
            .or_else(|_| text.parse().map(KRef::Promise))
            .map_err(|_| ParseRefError::new(text, "a kref such as ko12 or kp7"))
    }
}
serde_as_text!(KRef);

impl From<ObjectId> for KRef {
    fn from(ko: ObjectId) -> Self {
        KRef::Object(ko)
    }
}
impl From<PromiseId> for KRef {
    fn from(kp: PromiseId) -> Self {
        KRef::Promise(kp)
    }
}
