//! `ocap:` URLs: the text grammar, the secret that a grant keeps the hash of, and the reference's sealed form (03 A.5).

pub mod reference_oid;

use capstan_model::peer::{Hint, PeerId};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

/// A parsed URL: an object id that only its host understands, and where the host might be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcapUrl {
    /// Names the object to its host; never empty, without `@`, `?` and `#`.
    pub oid: String,
    /// The kernel that issued the URL.
    pub host: PeerId,
    /// Where to dial it, most useful first.
    pub hints: Vec<Hint>,
}

/// Why a text is not an `ocap:` URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OcapUrlError {
    /// No URL at all.
    #[error("unparseable URL")]
    Unparseable,
    /// A URL of another scheme.
    #[error("not an ocap URL")]
    OtherScheme,
    /// An `ocap:` URL without exactly one `@`, or with an empty part.
    #[error("bad ocap URL")]
    Bad,
}

impl FromStr for OcapUrl {
    type Err = OcapUrlError;

    fn from_str(text: &str) -> Result<Self, OcapUrlError> {
        // As a URL parser does: blanks around it do not count, and an opaque path ends at `?` or `#`.
        let text = bare(text);
        let (scheme, rest) = text.split_once(':').ok_or(OcapUrlError::Unparseable)?;
        let well_formed = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        if !well_formed {
            return Err(OcapUrlError::Unparseable);
        }
        if !scheme.eq_ignore_ascii_case("ocap") {
            return Err(OcapUrlError::OtherScheme);
        }
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        let (oid, place) = path.split_once('@').ok_or(OcapUrlError::Bad)?;
        let mut parts = place.split(',').map(bare);
        let host = parts.next().unwrap_or_default();
        if oid.is_empty() || oid.starts_with('/') || host.is_empty() || place.contains('@') {
            return Err(OcapUrlError::Bad);
        }
        let hints = parts.filter(|hint| !hint.is_empty()).map(Hint::from).collect();
        Ok(OcapUrl { oid: oid.to_owned(), host: PeerId::new(host), hints })
    }
}

/// Without blanks and controls around it: nothing ends in them that is written as the end of a URL.
fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| c <= ' ')
}

impl fmt::Display for OcapUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ocap:{}@{}", self.oid, self.host)?;
        self.hints.iter().try_for_each(|hint| write!(f, ",{hint}"))
    }
}

/// Returns the object id that carries a grant's secret: multibase base58btc.
pub fn oid_from_secret(secret: &[u8; 32]) -> String {
    format!("z{}", bs58::encode(secret).into_string())
}

/// Returns the secret in an object id; `None` if there is none of the right length.
pub fn secret_from_oid(oid: &str) -> Option<[u8; 32]> {
    let mut secret = [0; 32];
    let digits = oid.strip_prefix('z')?;
    let written = bs58::decode(digits).onto(&mut secret).ok()?;
    (written == secret.len()).then_some(secret)
}

/// What a grant row keeps instead of the secret: SHA-256.
pub fn secret_hash(secret: &[u8; 32]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn r14_parse_table() {
        let url = |hints: &[&str]| OcapUrl {
            oid: "zOid".into(),
            host: PeerId::new("12D3"),
            hints: hints.iter().map(|hint| Hint::from(*hint)).collect(),
        };
        let rows: Vec<(&str, Result<OcapUrl, &str>)> = vec![
            ("ocap:zOid@12D3", Ok(url(&[]))),
            (" OCAP:zOid@12D3\n", Ok(url(&[]))),
            ("ocap:zOid@12D3?x#y", Ok(url(&[]))),
            ("ocap:zOid@12D3 ?x#y", Ok(url(&[]))),
            ("ocap:zOid@12D3,/ip4/1.2.3.4/tcp/9", Ok(url(&["/ip4/1.2.3.4/tcp/9"]))),
            ("ocap:zOid@12D3,/a,,/b,", Ok(url(&["/a", "/b"]))),
            ("ocap:zOid@12D3 ,/a , ,/b ,?", Ok(url(&["/a", "/b"]))),
            ("ocap:zOid@ ,/a", Err("bad ocap URL")),
            ("nonsense", Err("unparseable URL")),
            ("", Err("unparseable URL")),
            ("3:x@y", Err("unparseable URL")),
            ("http://zOid@12D3", Err("not an ocap URL")),
            ("ocap:zOid", Err("bad ocap URL")),
            ("ocap:zOid@12D3@x", Err("bad ocap URL")),
            ("ocap:zOid@12D3,@x", Err("bad ocap URL")),
            ("ocap:@12D3", Err("bad ocap URL")),
            ("ocap:zOid@,x", Err("bad ocap URL")),
            ("ocap:zOid@", Err("bad ocap URL")),
            ("ocap://zOid@12D3", Err("bad ocap URL")),
            ("ocap:", Err("bad ocap URL")),
        ];
        for (text, expected) in rows {
            let parsed = text.parse::<OcapUrl>().map_err(|error| error.to_string());
            assert_eq!(parsed, expected.map_err(str::to_owned), "{text}");
        }
        let full = "ocap:zOid@12D3,/a,/b";
        assert_eq!(full.parse::<OcapUrl>().map(|url| url.to_string()), Ok(full.to_owned()));
    }

    proptest! {
        #[test]
        fn secrets_round_trip(secret in any::<[u8; 32]>()) {
            prop_assert_eq!(secret_from_oid(&oid_from_secret(&secret)), Some(secret));
        }

        #[test]
        fn parsing_never_panics(text in any::<String>(), shaped in "(ocap)?:?[z@,/?#a]{0,20}") {
            for text in [text, shaped] {
                let _ = (text.parse::<OcapUrl>(), secret_from_oid(&text), reference_oid::open(&[0; 32], &text));
            }
        }
    }

    #[test]
    fn oids_of_another_length_hold_no_secret() {
        for oid in [
            "",
            "z",
            "zOid",
            "x11",
            &oid_from_secret(&[9; 32])[..40],
            &format!("{}1", oid_from_secret(&[9; 32])),
        ] {
            assert_eq!(secret_from_oid(oid), None, "{oid}");
        }
    }
}
