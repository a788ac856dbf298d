//! The object ids of the reference: a kref sealed under the store's URL key (03 ). For stores taken over from it.

use aes_gcm::aead::Aead;
use aes_gcm::{Aes128Gcm, KeyInit};
use capstan_model::id::KRef;

const KDF_ROUNDS: u32 = 32_767;
/// Longer texts are no ids of the reference; refused before any key derivation.
const OID_BYTES_MAX: usize = 256;

/// Why an id does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OidError {
    /// Not base58btc with its prefix, or of an impossible length.
    #[error("oid is malformed")]
    Malformed,
    /// Sealed under another key, or tampered with.
    #[error("oid does not open")]
    Sealed,
    /// What is inside is no kref.
    #[error("oid holds no kernel reference")]
    NotAKref,
}

fn cipher(url_key: &[u8; 32], salt: &[u8; 16]) -> Aes128Gcm {
    let key = pbkdf2::pbkdf2_hmac_array::<sha2::Sha256, 16>(url_key, salt, KDF_ROUNDS);
    Aes128Gcm::new(&key.into())
}

/// Seals a kref. Salt and nonce must be fresh random bytes; they are arguments because chance is an input.
pub fn seal(url_key: &[u8; 32], kref: KRef, salt: [u8; 16], nonce: [u8; 12]) -> Result<String, OidError> {
    let padded = format!("{:>16}", kref.to_string());
    let sealed =
        cipher(url_key, &salt).encrypt(&nonce.into(), padded.as_bytes()).map_err(|_| OidError::Sealed)?;
    let raw = [salt.as_slice(), nonce.as_slice(), sealed.as_slice()].concat();
    Ok(format!("z{}", bs58::encode(raw).into_string()))
}

/// Opens an id. Costs milliseconds: the key derivation is the reference's.
pub fn open(url_key: &[u8; 32], oid: &str) -> Result<KRef, OidError> {
    let digits =
        oid.strip_prefix('z').filter(|digits| digits.len() <= OID_BYTES_MAX).ok_or(OidError::Malformed)?;
    let raw = bs58::decode(digits).into_vec().map_err(|_| OidError::Malformed)?;
    let (salt, rest) = raw.split_first_chunk::<16>().ok_or(OidError::Malformed)?;
    let (nonce, sealed) = rest.split_first_chunk::<12>().ok_or(OidError::Malformed)?;
    if sealed.len() < 16 {
        return Err(OidError::Malformed);
    }
    let plain = cipher(url_key, salt).decrypt(&(*nonce).into(), sealed).map_err(|_| OidError::Sealed)?;
    let text = std::str::from_utf8(&plain).map_err(|_| OidError::NotAKref)?;
    text.trim().parse().map_err(|_| OidError::NotAKref)
}
