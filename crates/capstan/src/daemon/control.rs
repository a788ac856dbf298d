//! Stopping and purging a daemon from outside.

use crate::error::{CliError, Code};
use crate::home::{Holder, Home};
use crate::rpc::client::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::time::Duration;

/// How long the daemon may take to answer `shutdown`.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to end after it was asked or told to.
const END_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take to end after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// Stops the daemon of a home, by force if need be; `false` if none runs.
pub async fn stop(home: &Home) -> Result<bool, CliError> {
    let held = home.holder().map_err(|error| CliError::io(home.dir().display(), error))?;
    let Some(holder) = held else { return Ok(false) };
    let asked = tokio::time::timeout(ANSWER_LIMIT, ask(home)).await.is_ok_and(|asked| asked);
    if asked && holder.ends_within(END_LIMIT).await {
        return Ok(true);
    }
    for (signal, limit) in [(Signal::TERM, END_LIMIT), (Signal::KILL, KILL_LIMIT)] {
        send(&holder, signal);
        if holder.ends_within(limit).await {
            return Ok(true);
        }
    }
    let message = format!("Daemon did not stop within timeout. (pid {})", holder.pid);
    Err(CliError::new(Code::Io, message))
}

async fn ask(home: &Home) -> bool {
    match Client::connect(home).await {
        Ok(Some(mut client)) => client.call("shutdown", json!([])).await.is_ok(),
        Ok(None) | Err(_) => false,
    }
}

/// Signals the process that holds the home's lock at this moment, and no other.
fn send(holder: &Holder, signal: Signal) {
    let pid = i32::try_from(holder.pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid
        && !holder.is_gone()
    {
        let _ = kill_process(pid, signal);
    }
}

/// Stops the daemon of a home, if one runs, and deletes its state.
pub async fn purge(home: &Home, keep_identity: bool) -> Result<(), CliError> {
    if !home.dir().exists() {
        return Ok(());
    }
    home.create()?;
    let _turn = home.turn().await?;
    stop(home).await?;
    let running = home.holder().map_err(|error| CliError::io(home.dir().display(), error))?;
    if running.is_some() {
        let message = "Refusing to delete state while the daemon is still running.";
        return Err(CliError::new(Code::Io, message));
    }
    let dir = home.dir().to_owned();
    let purged = tokio::task::spawn_blocking(move || capstan_host::purge(&dir, keep_identity)).await;
    let purged = purged.map_err(|error| CliError::internal(error.to_string()))?;
    purged.map_err(|error| CliError::new(Code::Io, super::with_sources(&error)))?;
    // Where it can be found belongs to who it is.
    if !keep_identity {
        super::address::forget(home);
    }
    super::system::forget(home);
    Ok(())
}
