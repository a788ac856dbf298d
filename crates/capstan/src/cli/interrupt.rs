//! Work that leaves nothing behind, also when somebody ends it early.

use crate::error::CliError;
use tokio::signal::unix::{SignalKind, signal};

/// Does `work` unless a signal asks for the end first; the work is dropped then, and with it what it made.
pub(super) async fn unless_interrupted<T>(
    work: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    let failed = |error| CliError::io("signals", error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => Err(CliError::internal("interrupted")),
        _ = terminate.recv() => Err(CliError::internal("terminated")),
        _ = hangup.recv() => Err(CliError::internal("hung up")),
    }
}
