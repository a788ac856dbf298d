//! Other kernels, as the core knows them: opaque names and numbers (03 §0).

use crate::id::serde_as_text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

macro_rules! opaque {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a text that the caller vouches for; the core never looks inside.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                $name(text.into())
            }
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
            /// The first eight characters, as logs name peers and incarnations.
            pub fn short(&self) -> &str {
                self.0.get(..8).unwrap_or(&self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = std::convert::Infallible;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Ok($name(text.into()))
            }
        }
        serde_as_text!($name);
    };
}

opaque!(
    /// The public name of a kernel: the text of its libp2p peer id. Two kernels are one peer iff it is equal.
    PeerId
);
opaque!(
    /// The name of one continuous life of a kernel's durable state: a random UUID (03 A-12).
    Incarnation
);

/// The number of a frame within a session and direction; the first is 1, and 0 means "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0.saturating_add(1))
    }
}
impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Numbers the sessions of a pair of lives; survives forgetting (03 G.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// The running digest of the frames 1..n of one session and direction: two sides that agree on it have the
/// same history. `Digest::default()` stands for n = 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 16]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl FromStr for Digest {
    type Err = crate::id::ParseRefError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || crate::id::ParseRefError::new(text, "32 hexadecimal digits");
        let mut bytes = [0; 16];
        if text.len() != 32 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(error());
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            let pair = text.get(2 * i..2 * i + 2).ok_or_else(error)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
        }
        Ok(Digest(bytes))
    }
}
serde_as_text!(Digest);

/// One open, ordered, two-way frame stream to a peer; unique within a process life, never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChannelId(pub u64);

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

/// Where a peer might be dialled: for the core an opaque text (a multiaddr in fact).
pub type Hint = Arc<str>;

/// Milliseconds: since the Unix epoch where it is a point in time, a length otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// The point in time `length` later.
    #[must_use]
    pub fn after(self, length: Millis) -> Millis {
        Millis(self.0.saturating_add(length.0))
    }
}
