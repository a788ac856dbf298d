//! Who a kernel is: seed, key pair, peer id, mnemonic (03 A.1, A.2).

use capstan_model::peer::PeerId;
use libp2p_identity::Keypair;

/// Why there is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Unknown word, wrong count, or wrong checksum.
    #[error("Invalid BIP39 mnemonic")]
    BadMnemonic,
    /// Not 64 lowercase hexadecimal digits.
    #[error("key seed must be 64 lowercase hexadecimal digits")]
    BadSeed,
    /// Not 16 or 32 bytes.
    #[error("entropy must be 16 bytes (12 words) or 32 bytes (24 words)")]
    BadEntropy,
}

/// The Ed25519 seed that a kernel's network identity follows from. Secret: it has no `Debug` and no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct KeySeed([u8; 32]);

impl KeySeed {
    /// Wraps the bytes of a seed; any 32 bytes are one.
    pub fn new(bytes: [u8; 32]) -> Self {
        KeySeed(bytes)
    }

    /// Reads the text form: 64 lowercase hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, IdentityError> {
        let lowercase = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| IdentityError::BadSeed)?;
        if lowercase { Ok(KeySeed(bytes)) } else { Err(IdentityError::BadSeed) }
    }

    /// Returns the text form.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Derives the seed from an English mnemonic of 12, 15, 18, 21 or 24 words, with an empty passphrase.
    pub fn from_mnemonic(words: &str) -> Result<Self, IdentityError> {
        let mnemonic = bip39::Mnemonic::parse_in(bip39::Language::English, words);
        let long = mnemonic.map_err(|_| IdentityError::BadMnemonic)?.to_seed("");
        let (first, _) = long.split_first_chunk::<32>().ok_or(IdentityError::BadMnemonic)?;
        Ok(KeySeed(*first))
    }

    /// Returns the key pair that a network node identifies itself with.
    pub fn keypair(&self) -> Keypair {
        let mut bytes = self.0;
        let key = libp2p_identity::ed25519::SecretKey::try_from_bytes(&mut bytes);
        #[expect(clippy::unwrap_used, reason = "any 32 bytes are an Ed25519 seed, and the array has 32")]
        let key = key.unwrap();
        libp2p_identity::ed25519::Keypair::from(key).into()
    }

    /// Returns the public name of the kernel with this seed.
    pub fn peer_id(&self) -> PeerId {
        PeerId::new(self.keypair().public().to_peer_id().to_base58())
    }
}

/// Returns the mnemonic for 16 or 32 random bytes: 12 or 24 words.
pub fn mnemonic_from_entropy(entropy: &[u8]) -> Result<String, IdentityError> {
    if !matches!(entropy.len(), 16 | 32) {
        return Err(IdentityError::BadEntropy);
    }
    let mnemonic = bip39::Mnemonic::from_entropy_in(bip39::Language::English, entropy);
    Ok(mnemonic.map_err(|_| IdentityError::BadEntropy)?.to_string())
}
