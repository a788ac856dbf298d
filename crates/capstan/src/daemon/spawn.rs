//! Starting a daemon in the background, or finding the one that runs.

use super::{DaemonOptions, NetworkPlace};
use crate::error::{CliError, Code};
use crate::home::Home;
use crate::rpc::client::Client;
use capstan_kernel::kernel::Generation;
use serde_json::Value as Json;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

/// How often a home is looked at again whose daemon is just starting or stopping.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The longest announcement that is read, bytes.
const ANNOUNCEMENT_BYTES_MAX: u64 = 1 << 20;

/// Connects to the daemon of a home, starting one if there is none. Whoever races for it shares one daemon.
///
/// Waits as long as it takes: the caller's time-out applies.
pub async fn connect_or_start(options: &DaemonOptions, executable: &Path) -> Result<Client, CliError> {
    let home = &options.home;
    if let Some(client) = Client::connect_alive(home).await? {
        return Ok(client);
    }
    home.create()?;
    let _turn = home.turn().await?;
    loop {
        if let Some(client) = Client::connect_alive(home).await? {
            return Ok(client);
        }
        let held = home.holder().map_err(|error| CliError::io(home.dir().display(), error))?;
        if held.is_none() {
            match start(options, executable).await {
                Ok(()) => continue,
                // Somebody who did not wait for a turn was faster.
                Err(_) if home.holder().is_ok_and(|holder| holder.is_some()) => {}
                Err(error) => return Err(error),
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Starts a daemon process of its own session and waits until it is ready.
async fn start(options: &DaemonOptions, executable: &Path) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::io("cannot start a daemon", error);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
    let log =
        OpenOptions::new().append(true).create(true).mode(0o600).open(options.home.log()).map_err(failed)?;
    let mut command = Command::new(executable);
    command
        .args(arguments(options))
        .current_dir(options.home.dir())
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::from(log));
    command.spawn().map_err(failed)?;
    // The command holds the other end: without this the end of a daemon that dies would not be seen.
    drop(command);
    ours.set_nonblocking(true).map_err(failed)?;
    let mut text = String::new();
    let stream = UnixStream::from_std(ours).map_err(failed)?;
    let mut stream = stream.take(ANNOUNCEMENT_BYTES_MAX);
    stream.read_to_string(&mut text).await.map_err(failed)?;
    announced(&text, &options.home)
}

fn announced(text: &str, home: &Home) -> Result<(), CliError> {
    let announcement: Json = serde_json::from_str(text).unwrap_or_default();
    if announcement.get("ready").is_some() {
        return Ok(());
    }
    let part = |key: &str| announcement.get("error").and_then(|error| error.get(key));
    let Some(code) = part("code").and_then(Json::as_str) else {
        return Err(CliError::io("the daemon", "ended before it was ready")
            .hint(format!("its log may say why: {}", home.log().display())));
    };
    let message = part("message").and_then(Json::as_str).unwrap_or_default();
    let hints = part("hints").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
    let mut error = CliError::new(Code::parse(code), message);
    error.hints = hints.map(str::to_owned).collect();
    Err(error)
}

/// The command line of the daemon process.
fn arguments(options: &DaemonOptions) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        ["daemon", "start", "--foreground", "--announce", "--home"].map(OsString::from).into();
    arguments.push(options.home.dir().into());
    for address in &options.listen {
        arguments.extend(["--listen".into(), address.into()]);
    }
    for relay in &options.relays {
        arguments.extend(["--relay".into(), relay.into()]);
    }
    for address in &options.listen_reference {
        arguments.extend(["--listen-reference".into(), address.into()]);
    }
    let generation = match options.generation {
        Generation::Session => "session",
        Generation::Classic => "classic",
    };
    arguments.extend(["--handshake", generation, "--log", &options.log_filter].map(OsString::from));
    if options.max_retry_attempts != 0 {
        arguments.extend(["--max-retry-attempts".into(), options.max_retry_attempts.to_string().into()]);
    }
    arguments.extend(options.links.arguments().into_iter().map(OsString::from));
    if options.vat_processes {
        arguments.extend(["--isolation", "process"].map(OsString::from));
    }
    if let Some(file) = &options.system {
        arguments.extend(["--system".into(), file.into()]);
    }
    arguments.extend(options.rules.arguments().into_iter().map(OsString::from));
    match options.network {
        NetworkPlace::Nowhere => arguments.push("--no-network".into()),
        NetworkPlace::InProcess => {}
        NetworkPlace::Worker => arguments.extend(["--network", "worker"].map(OsString::from)),
    }
    arguments
}
