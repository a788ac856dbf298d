//! `identity show|backup|restore`.

use super::super::ctx::Ctx;
use super::super::printer::Output;
use crate::cluster::read_text;
use crate::error::{CliError, Code};
use capstan_host::HostError;
use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;

/// More than 24 words and the space between them.
const PHRASE_BYTES_MAX: u64 = 4096;

/// `identity …`
#[derive(Debug, Subcommand)]
pub enum IdentityCommand {
    /// Print the peer id
    Show,
    /// Print the words that the identity can be made from again; once, then they are deleted here
    Backup,
    /// Make the identity of an empty home from such words; needs no daemon and starts none
    Restore {
        /// File with the words [default: standard input]
        #[arg(long, value_name = "F")]
        mnemonic_file: Option<PathBuf>,
    },
}

/// Who a kernel is.
#[derive(Debug, Deserialize, Serialize)]
struct Identity {
    #[serde(rename = "peerId")]
    peer: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.peer)
    }
}

/// The words.
#[derive(Deserialize, Serialize)]
struct Phrase {
    mnemonic: String,
}

impl fmt::Display for Phrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.mnemonic)
    }
}

pub(super) async fn run(ctx: &mut Ctx, command: IdentityCommand) -> Result<Box<dyn Output>, CliError> {
    Ok(match command {
        IdentityCommand::Show => Box::new(ctx.call_as::<Identity>("daemonStatus", json!([])).await?),
        IdentityCommand::Backup => Box::new(ctx.call_as::<Phrase>("takeRecoveryPhrase", json!([])).await?),
        IdentityCommand::Restore { mnemonic_file } => Box::new(restore(ctx, mnemonic_file).await?),
    })
}

async fn restore(ctx: &Ctx, file: Option<PathBuf>) -> Result<Identity, CliError> {
    let home = ctx.home.clone();
    let read = tokio::task::spawn_blocking(move || words(file)).await;
    let words = read.map_err(|error| CliError::internal(error.to_string()))??;
    home.create()?;
    let _turn = home.turn().await?;
    let restored =
        tokio::task::spawn_blocking(move || capstan_host::restore_identity(home.dir(), &words)).await;
    let restored = restored.map_err(|error| CliError::internal(error.to_string()))?;
    let peer = restored.map_err(|error| match error {
        HostError::Identity(why) => CliError::new(Code::Usage, why),
        error => CliError::new(Code::Io, crate::daemon::with_sources(&error)),
    })?;
    Ok(Identity { peer: peer.as_str().to_owned() })
}

/// Reads the words, with any space between them. Blocks.
fn words(file: Option<PathBuf>) -> Result<String, CliError> {
    let text = match file {
        Some(file) => read_text(&file)?,
        None => {
            let mut text = String::new();
            let read = std::io::stdin().take(PHRASE_BYTES_MAX).read_to_string(&mut text);
            read.map_err(|error| CliError::io("standard input", error))?;
            text
        }
    };
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}
