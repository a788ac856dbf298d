//! Names as endpoints use them: vrefs of vats, rrefs of remotes, and what goes over the wire (01 §2, §3).
//!
//! `+` means "allocated by the endpoint", `-` means "allocated by the kernel", seen from the endpoint that
//! owns the c-list. On the wire a reference is written in the *receiver's* terms, so its sign is flipped.
//!
//! **Invariant:** polarity is flipped in one pair of functions, [`RRef::to_wire`] and
//! [`WireRef::received`], which only the frame codec calls.

use crate::id::{ParseRefError, parse_index, serde_as_text};
use std::fmt;
use std::str::FromStr;

/// Who allocated a reference, seen from the endpoint that owns the c-list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// `+`: the endpoint did. For an object: it lives there.
    Export,
    /// `-`: the kernel did. For an object: it lives elsewhere.
    Import,
}

impl Side {
    /// `+` or `-`.
    pub fn sign(self) -> char {
        match self {
            Side::Export => '+',
            Side::Import => '-',
        }
    }
    fn flipped(self) -> Side {
        match self {
            Side::Export => Side::Import,
            Side::Import => Side::Export,
        }
    }
    fn split(text: &str) -> Option<(Side, &str)> {
        let plus = text.strip_prefix('+').map(|rest| (Side::Export, rest));
        plus.or_else(|| text.strip_prefix('-').map(|rest| (Side::Import, rest)))
    }
}

/// How a vat names an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VObject {
    /// `o-N`: lives elsewhere.
    Import(u64),
    /// `o+N`: exported, ephemeral; `o+0` is the vat's root.
    Ephemeral(u64),
    /// `o+vK/I` or `o+vK/I:F`: exported, virtual, with kind, instance and facet.
    Virtual(u64, u64, Option<u64>),
    /// `o+dK/I` or `o+dK/I:F`: exported, durable, with kind, instance and facet.
    Durable(u64, u64, Option<u64>),
}

/// How a vat names an object or a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VRef {
    /// An object.
    Object(VObject),
    /// `p+N` or `p-N`.
    Promise(Side, u64),
}

impl VRef {
    /// `o+0`, the root object of every vat.
    pub const ROOT: VRef = VRef::Object(VObject::Ephemeral(0));

    /// Who allocated it.
    pub fn side(self) -> Side {
        match self {
            VRef::Object(VObject::Import(_)) => Side::Import,
            VRef::Object(VObject::Ephemeral(_) | VObject::Virtual(..) | VObject::Durable(..)) => Side::Export,
            VRef::Promise(side, _) => side,
        }
    }

    /// Whether it names an object.
    pub fn is_object(self) -> bool {
        matches!(self, VRef::Object(_))
    }
}

impl fmt::Display for VRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_kind = |f: &mut fmt::Formatter<'_>, letter, kind, instance, facet: Option<u64>| {
            write!(f, "o+{letter}{kind}/{instance}")?;
            facet.map_or(Ok(()), |facet| write!(f, ":{facet}"))
        };
        match *self {
            VRef::Promise(side, n) => write!(f, "p{}{n}", side.sign()),
            VRef::Object(VObject::Import(n)) => write!(f, "o-{n}"),
            VRef::Object(VObject::Ephemeral(n)) => write!(f, "o+{n}"),
            VRef::Object(VObject::Virtual(kind, instance, facet)) => of_kind(f, 'v', kind, instance, facet),
            VRef::Object(VObject::Durable(kind, instance, facet)) => of_kind(f, 'd', kind, instance, facet),
        }
    }
}

fn parse_vref(text: &str) -> Option<VRef> {
    if let Some(rest) = text.strip_prefix('p') {
        let (side, digits) = Side::split(rest)?;
        return Some(VRef::Promise(side, parse_index(digits)?));
    }
    let object = match Side::split(text.strip_prefix('o')?)? {
        (Side::Import, digits) => VObject::Import(parse_index(digits)?),
        (Side::Export, rest) => match rest.strip_prefix(['v', 'd']) {
            None => VObject::Ephemeral(parse_index(rest)?),
            Some(path) => {
                let (kind, instance) = path.split_once('/')?;
                let (instance, facet) = match instance.split_once(':') {
                    None => (instance, None),
                    Some((instance, facet)) => (instance, Some(parse_index(facet)?)),
                };
                let (kind, instance) = (parse_index(kind)?, parse_index(instance)?);
                if rest.starts_with('v') {
                    VObject::Virtual(kind, instance, facet)
                } else {
                    VObject::Durable(kind, instance, facet)
                }
            }
        },
    };
    Some(VRef::Object(object))
}

impl FromStr for VRef {
    type Err = ParseRefError;
    fn from_str(text: &str) -> Result<Self, ParseRefError> {
        parse_vref(text).ok_or_else(|| ParseRefError::new(text, "a vref such as o+0, o-3 or p+5"))
    }
}
serde_as_text!(VRef);

/// Object or promise, where that alone is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefKind {
    /// Written `o`.
    Object,
    /// Written `p`.
    Promise,
}

impl RefKind {
    fn letter(self) -> char {
        match self {
            RefKind::Object => 'o',
            RefKind::Promise => 'p',
        }
    }
}

macro_rules! remote_ref {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            /// Object or promise.
            pub kind: RefKind,
            /// Who allocated the number.
            pub side: Side,
            /// The number.
            pub index: u64,
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "r{}{}{}", self.kind.letter(), self.side.sign(), self.index)
            }
        }

        impl FromStr for $name {
            type Err = ParseRefError;
            fn from_str(text: &str) -> Result<Self, ParseRefError> {
                let parse = || {
                    let rest = text.strip_prefix('r')?;
                    let object = rest.strip_prefix('o').map(|rest| (RefKind::Object, rest));
                    let (kind, rest) = object.or_else(|| rest.strip_prefix('p').map(|rest| (RefKind::Promise, rest)))?;
                    let (side, digits) = Side::split(rest)?;
                    Some($name { kind, side, index: parse_index(digits)? })
                };
                parse().ok_or_else(|| ParseRefError::new(text, "a remote reference such as ro+1 or rp-2"))
            }
        }
        serde_as_text!($name);
    };
}

remote_ref!(
    /// How a remote's c-list names an object or a promise: `+` was allocated by the peer, `-` by us.
    RRef
);
remote_ref!(
    /// A reference as written in a frame: in the terms of whoever receives the frame.
    WireRef
);

impl RRef {
    /// Returns the text form for an outgoing frame. Only the frame encoder calls this.
    pub fn to_wire(self) -> WireRef {
        WireRef { kind: self.kind, side: self.side.flipped(), index: self.index }
    }
}

impl WireRef {
    /// Returns what our c-list calls a reference read from an incoming frame: it is already in our terms.
    /// Only the frame decoder calls this.
    pub fn received(self) -> RRef {
        RRef { kind: self.kind, side: self.side, index: self.index }
    }
}

/// A name of either kind of endpoint, as stored in a c-list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ERef {
    /// A vat's.
    Vat(VRef),
    /// A remote's.
    Remote(RRef),
}

impl ERef {
    /// Who allocated it.
    pub fn side(self) -> Side {
        match self {
            ERef::Vat(vref) => vref.side(),
            ERef::Remote(rref) => rref.side,
        }
    }
    /// Whether it names an object.
    pub fn is_object(self) -> bool {
        match self {
            ERef::Vat(vref) => vref.is_object(),
            ERef::Remote(rref) => rref.kind == RefKind::Object,
        }
    }
}

impl fmt::Display for ERef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ERef::Vat(vref) => vref.fmt(f),
            ERef::Remote(rref) => rref.fmt(f),
        }
    }
}

impl FromStr for ERef {
    type Err = ParseRefError;
    fn from_str(text: &str) -> Result<Self, ParseRefError> {
        if text.starts_with('r') { text.parse().map(ERef::Remote) } else { text.parse().map(ERef::Vat) }
    }
}
serde_as_text!(ERef);

impl From<VRef> for ERef {
    fn from(vref: VRef) -> Self {
        ERef::Vat(vref)
    }
}
impl From<RRef> for ERef {
    fn from(rref: RRef) -> Self {
        ERef::Remote(rref)
    }
}
