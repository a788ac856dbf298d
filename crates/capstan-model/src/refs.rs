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
    Virtual(u32, u64, Option<u32>),
    /// `o+dK/I` or `o+dK/I:F`: exported, durable, with kind, instance and facet.
    Durable(u32, u64, Option<u32>),
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
        let of_kind = |f: &mut fmt::Formatter<'_>, letter, kind: u32, instance: u64, facet: Option<u32>| {
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
                    Some((instance, facet)) => (instance, Some(parse_index(facet)?.try_into().ok()?)),
                };
                let (kind, instance) = (parse_index(kind)?.try_into().ok()?, parse_index(instance)?);
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::id::{EndpointId, KRef, ObjectId, PromiseId, RemoteId, SubclusterId, VatId};

    /// What `text` is taken for, if anything: the kind, and the text that it reads as.
    fn kinds(text: &str) -> Vec<(&'static str, String)> {
        fn as_kind<T: FromStr + fmt::Display>(text: &str) -> Option<String> {
            text.parse::<T>().ok().map(|parsed| parsed.to_string())
        }
        [
            ("vat", as_kind::<VatId>(text)),
            ("remote", as_kind::<RemoteId>(text)),
            ("subcluster", as_kind::<SubclusterId>(text)),
            ("object", as_kind::<ObjectId>(text)),
            ("promise", as_kind::<PromiseId>(text)),
            ("vref", as_kind::<VRef>(text)),
            ("rref", as_kind::<RRef>(text)),
        ]
        .into_iter()
        .filter_map(|(kind, read)| Some((kind, read?)))
        .collect()
    }

    #[test]
    fn k1_every_kind_of_name_is_taken_for_itself_and_nothing_else() {
        for (text, kind) in [
            ("v0", "vat"),
            ("v42", "vat"),
            ("r3", "remote"),
            ("s5", "subcluster"),
            ("ko12", "object"),
            ("kp3", "promise"),
            ("o+0", "vref"),
            ("o-3", "vref"),
            ("p+5", "vref"),
            ("p-7", "vref"),
            ("ro+1", "rref"),
            ("rp-2", "rref"),
            ("ko18446744073709551615", "object"),
        ] {
            assert_eq!(kinds(text), [(kind, text.to_owned())]);
        }
        for text in [
            "v",
            "vx",
            "V1",
            "k1",
            "kq1",
            "o1",
            "o*1",
            "ro1",
            "",
            " v1",
            "v1 ",
            "v-1",
            "v+1",
            "v01",
            "ko00",
            "o+01",
            "ro-007",
            "ko18446744073709551616",
            "o+\u{661}",
            "kp",
            "o+",
            "p-",
            "rp+",
        ] {
            assert_eq!(kinds(text), [], "{text:?}");
        }
    }

    #[test]
    fn k2_virtual_and_durable_names_are_exported_objects_only() {
        for text in ["o+d10/1", "o+v3/4", "o+d10/1:0", "o+v3/4:7"] {
            let vref: VRef = text.parse().unwrap();
            assert_eq!((vref.to_string(), vref.side(), vref.is_object()), (text.into(), Side::Export, true));
        }
        for text in [
            "o-d10/1",
            "p+d1/1",
            "o+d10",
            "o+d10/1:",
            "o+x1/1",
            "o+d/1",
            "o+d1/",
            "o+d1/2/3",
            "o+d1/2:3:4",
            "o+d01/1",
            "ro+d1/1",
        ] {
            assert_eq!(kinds(text), [], "{text:?}");
        }
    }

    #[test]
    fn k3_a_name_tells_its_context_kind_direction_and_number() {
        assert_eq!("o+7".parse(), Ok(ERef::Vat(VRef::Object(VObject::Ephemeral(7)))));
        let import: ERef = "p-2".parse().unwrap();
        assert_eq!((import.side(), import.is_object()), (Side::Import, false));
        assert_eq!("kp9".parse(), Ok(KRef::Promise(PromiseId(9))));
        let remote: ERef = "rp+1".parse().unwrap();
        assert_eq!(remote, ERef::Remote(RRef { kind: RefKind::Promise, side: Side::Export, index: 1 }));
        for text in ["", "kp9", "x+1", "o+", "roo+1", "rko1"] {
            let error = text.parse::<ERef>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("invalid reference {text:?}: expected ")), "{error}");
        }
        let error = "kq1".parse::<KRef>().unwrap_err().to_string();
        assert_eq!(error, "invalid reference \"kq1\": expected a kref such as ko12 or kp7");
        assert_eq!("v1".parse(), Ok(EndpointId::Vat(VatId(1))));
        assert!("ko1".parse::<EndpointId>().is_err());
    }

    #[test]
    fn k13_a_name_on_the_wire_is_in_the_receivers_terms() {
        for (ours, wire) in [("ro+3", "ro-3"), ("ro-3", "ro+3"), ("rp+1", "rp-1"), ("rp-1", "rp+1")] {
            let name: RRef = ours.parse().unwrap();
            assert_eq!(name.to_wire().to_string(), wire);
            // What is read is in our terms already: once across is one flip.
            assert_eq!(name.to_wire().received().to_string(), wire);
        }
    }
}
