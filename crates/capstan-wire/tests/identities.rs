use crate::recordings::json;
use capstan_wire::identity::{IdentityError, KeySeed, mnemonic_from_entropy};
use capstan_wire::url::{OcapUrl, reference_oid};

fn bytes<const N: usize>(value: &serde_json::Value) -> [u8; N] {
    hex::decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
}

#[test]
fn r4_r5_recorded_identities() {
    let recorded = json("identity.json");
    assert_eq!(recorded.len(), 6);
    for entry in recorded {
        let seed = KeySeed::from_hex(entry["keySeedHex"].as_str().unwrap()).unwrap();
        if let Some(words) = entry["mnemonic"].as_str() {
            assert_eq!(KeySeed::from_mnemonic(words).unwrap().to_hex(), seed.to_hex());
        }
        let public = seed.keypair().public().try_into_ed25519().unwrap().to_bytes();
        assert_eq!(hex::encode(public), entry["ed25519PublicKeyHex"].as_str().unwrap());
        assert_eq!(seed.peer_id().as_str(), entry["peerId"].as_str().unwrap());
    }
}

#[test]
fn r7_bad_seeds_and_mnemonics_are_refused() {
    for bad in [
        "",
        "abandon",
        "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon",
    ] {
        let error = KeySeed::from_mnemonic(bad).err();
        assert_eq!(error, Some(IdentityError::BadMnemonic));
        assert_eq!(error.unwrap().to_string(), "Invalid BIP39 mnemonic");
    }
    for bad in ["", "00", &"G".repeat(64), &"AB".repeat(32)] {
        assert_eq!(KeySeed::from_hex(bad).err(), Some(IdentityError::BadSeed));
    }
}

#[test]
fn r7_mnemonics_are_generated_from_entropy_and_of_24_words_too() {
    let twelve = mnemonic_from_entropy(&[0; 16]).unwrap();
    assert_eq!(twelve, format!("{}about", "abandon ".repeat(11)));
    let long = mnemonic_from_entropy(&[7; 32]).unwrap();
    assert_eq!(long.split(' ').count(), 24);
    let (by_long, by_twelve) = (KeySeed::from_mnemonic(&long), KeySeed::from_mnemonic(&twelve));
    assert_ne!(by_long.unwrap().peer_id(), by_twelve.unwrap().peer_id());
    assert_eq!(mnemonic_from_entropy(&[0; 20]), Err(IdentityError::BadEntropy));
}

#[test]
fn r11_r13_recorded_urls_open_and_are_sealed_alike() {
    let recorded = json("ocap-url.json");
    assert_eq!(recorded.len(), 3);
    for entry in recorded {
        let key = bytes(&entry["ocapURLKeyHex"]);
        for (field, hints) in [("url", 0), ("urlWithRelays", 1)] {
            let text = entry[field].as_str().unwrap();
            let url: OcapUrl = text.parse().unwrap();
            assert_eq!((url.host.as_str(), url.hints.len()), (entry["peerId"].as_str().unwrap(), hints));
            assert_eq!(url.to_string(), text);
            assert_eq!(
                reference_oid::open(&key, &url.oid).unwrap().to_string(),
                entry["decryptsTo"].as_str().unwrap()
            );
        }
        let oid = entry["oid"].as_str().unwrap();
        let kref = entry["kref"].as_str().unwrap().parse().unwrap();
        let sealed = reference_oid::seal(&key, kref, bytes(&entry["saltHex"]), bytes(&entry["nonceHex"]));
        assert_eq!(sealed.as_deref(), Ok(oid));
        let other = if &oid[20..21] == "2" { "3" } else { "2" };
        let tampered = format!("{}{other}{}", &oid[..20], &oid[21..]);
        assert_eq!(reference_oid::open(&key, &tampered), Err(reference_oid::OidError::Sealed));
    }
}
