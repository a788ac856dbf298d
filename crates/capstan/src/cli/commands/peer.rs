//! `peer hint|close|reconnect|forget`.

use super::super::ctx::Ctx;
use super::super::text::Done;
use crate::error::{CliError, Code};
use clap::Subcommand;
use serde_json::json;

/// `peer …`
#[derive(Debug, Subcommand)]
pub enum PeerCommand {
    /// Remember where a peer can be dialled
    Hint {
        /// The peer id, e.g. 12D3Koo…
        peer: String,
        /// Addresses, the most useful first
        #[arg(value_name = "MULTIADDR", required = true)]
        hints: Vec<String>,
    },
    /// Close the link to a peer and keep it closed
    Close {
        /// The peer id, e.g. 12D3Koo…
        peer: String,
    },
    /// Undo a close, and dial
    Reconnect {
        /// The peer id, e.g. 12D3Koo…
        peer: String,
        /// Address to try first; repeatable
        #[arg(long = "hint", value_name = "MULTIADDR")]
        hints: Vec<String>,
    },
    /// Delete the remote and all that is kept about it
    Forget {
        /// The peer id, e.g. 12D3Koo…
        peer: String,
    },
}

pub(super) async fn run(ctx: &mut Ctx, command: PeerCommand) -> Result<Done, CliError> {
    let (method, peer, hints, done) = match command {
        PeerCommand::Hint { peer, hints } => {
            ("registerLocationHints", peer, Some(hints), "can be dialled there")
        }
        PeerCommand::Close { peer } => ("closePeer", peer, None, "is closed"),
        PeerCommand::Reconnect { peer, hints } => ("reconnectPeer", peer, Some(hints), "is dialled again"),
        PeerCommand::Forget { peer } => ("forgetPeer", peer, None, "is forgotten"),
    };
    check_peer(&peer)?;
    check_hints(hints.as_deref().unwrap_or_default())?;
    let params = match hints {
        Some(hints) => json!({"peerId": peer, "hints": hints}),
        None => json!({"peerId": peer}),
    };
    ctx.call(method, params).await?;
    Ok(Done::new(format!("{peer} {done}")))
}

/// A peer id is base58: 46 digits in the oldest form, 52 in today's.
fn check_peer(peer: &str) -> Result<(), CliError> {
    let base58 = |b: u8| b.is_ascii_alphanumeric() && !matches!(b, b'0' | b'O' | b'I' | b'l');
    if (40..=70).contains(&peer.len()) && peer.bytes().all(base58) {
        return Ok(());
    }
    let shown: String = peer.chars().take(80).collect();
    Err(CliError::new(Code::BadReference, format!("{shown:?} is not a peer id such as 12D3Koo…")))
}

fn check_hints(hints: &[String]) -> Result<(), CliError> {
    match hints.iter().find(|hint| !hint.starts_with('/')) {
        None => Ok(()),
        Some(hint) => {
            let message = format!("{hint}: not a multiaddr such as /ip4/127.0.0.1/tcp/4001");
            Err(CliError::new(Code::Usage, message))
        }
    }
}
