//! A circuit relay with a key of its own, kept in a directory (03 B.10).

use crate::error::HostError;
use capstan_net::{Relay, RelayConfig};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file with the relay's secret key, hexadecimal, mode 0600.
const KEY_FILE: &str = "relay.key";

/// Binds a relay's listeners. Its key is read from `dir`, or made there at the first start: whoever knows the key can
/// pose as the relay, so it is never a constant.
pub async fn relay(dir: &Path, listen: Vec<String>, public_ip: Option<Ipv4Addr>) -> Result<Relay, HostError> {
    let seed = key(dir)?;
    Ok(Relay::start(RelayConfig { seed, listen, public_ip }).await?)
}

fn key(dir: &Path) -> Result<[u8; 32], HostError> {
    let path = dir.join(KEY_FILE);
    let file = |path: &PathBuf| {
        let path = path.clone();
        move |source| HostError::File { path, source }
    };
    if let Some(seed) = read(&path).map_err(file(&path))? {
        return Ok(seed);
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(file(&path))?;
    let seed: [u8; 32] = crate::chance::bytes().map_err(|_| HostError::System("randomness".to_owned()))?;
    let fresh = path.with_extension(format!("key.{}", std::process::id()));
    let mut made =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(file(&fresh))?;
    let written = writeln!(made, "{}", hex::encode(seed)).and_then(|()| made.sync_all());
    // A link fails where a file is: of two relays that start at once, both take the key of the first.
    let linked = written.and_then(|()| match fs::hard_link(&fresh, &path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let _ = fs::remove_file(&fresh);
    linked.map_err(file(&path))?;
    read(&path).map_err(file(&path))?.ok_or_else(|| HostError::System("a key file".to_owned()))
}

/// Reads the key; `None` if there is no such file.
fn read(path: &Path) -> std::io::Result<Option<[u8; 32]>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim(), &mut seed)
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))?;
    Ok(Some(seed))
}
