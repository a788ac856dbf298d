//! The process of a daemon's network: this program again, told everything over the socket that is its standard input.

use super::log;
use crate::error::CliError;
use capstan_host::{Program, network_worker};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// The command by which this program is the network of a daemon.
const COMMAND: &str = "net-worker";

/// What runs as the network of a kernel in this process.
pub(crate) fn program(log_filter: &str) -> Result<Program, CliError> {
    super::this_program([COMMAND, "--log", log_filter])
}

/// Serves until the daemon is gone. What is logged goes to standard error, which the daemon reads.
pub async fn run(log_filter: &str) -> Result<(), CliError> {
    log::to_stderr(log_filter)?;
    let failed = |error: io::Error| CliError::io("the daemon's socket", error);
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    // Refuses to serve a terminal or a pipe.
    stream.local_addr().map_err(failed)?;
    network_worker(stream).await.map_err(failed)
}
