//! `daemon start|stop|status|purge`.

use super::super::ctx::Ctx;
use super::super::printer::Printer;
use super::super::text::Fields;
use super::logs::LogsArgs;
use crate::cluster::LimitsSpec;
use crate::daemon::ready::Announcement;
use crate::daemon::system::System;
use crate::daemon::{self, DaemonOptions, LOG_FILTER, NetworkPlace, control};
use crate::error::{CliError, Code};
use crate::limit::Limit;
use crate::links::{LinkLimits, LinkRules};
use crate::rpc::client::Client;
use crate::rules::{self, VatRules};
use capstan_kernel::kernel::Generation;
use capstan_model::vat::VatLimits;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::{Value as Json, json};
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

/// `daemon …`
#[derive(Debug, Subcommand)]
pub enum DaemonCommand {
    /// Start the daemon, or confirm that one runs
    ///
    /// Returns when it accepts commands and its listeners are bound.
    #[command(after_help = "Examples:
  capstan daemon start
  capstan daemon start --listen /ip4/127.0.0.1/tcp/0
  capstan daemon start --relay /ip4/192.0.2.7/tcp/9002/p2p/12D3…
  capstan --home /tmp/two daemon start --handshake classic")]
    Start(StartArgs),
    /// Stop the daemon cleanly; its state is kept
    Stop,
    /// Show the running daemon; exits with 3 when none runs
    Status,
    /// Stop the daemon and delete its state, identity included
    Purge(PurgeArgs),
    /// Show the log
    Logs(LogsArgs),
}

/// `daemon start`
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Stay in the foreground instead of detaching
    #[arg(long)]
    pub foreground: bool,
    /// Address to listen on; repeatable [default: a free TCP and a free QUIC port of the loopback]
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// TCP address to listen on for kernels of the reference; repeatable
    #[arg(long, value_name = "MULTIADDR")]
    listen_reference: Vec<String>,
    /// Circuit relay to be reachable through, ending in /p2p/ and its peer id; repeatable
    #[arg(long, value_name = "MULTIADDR")]
    relay: Vec<String>,
    /// Handshake to speak with other kernels
    #[arg(long, value_enum, default_value_t = Handshake::Session)]
    handshake: Handshake,
    /// Give a peer up after this many dials in vain: its session ends; 0: never
    #[arg(long, default_value_t = 0, value_name = "N")]
    max_retry_attempts: u32,
    /// Limit of the links with other kernels; repeatable
    ///
    /// Names: maxConcurrentConnections, maxConnectionAttemptsPerMinute, maxMessagesPerSecond, maxMessageSizeBytes,
    /// maxUrlRelayHints, maxKnownRelays, reconnectionBaseDelayMs, reconnectionMaxDelayMs, handshakeTimeoutMs,
    /// writeTimeoutMs, ackTimeoutMs, streamInactivityTimeoutMs, stalePeerTimeoutMs.
    #[arg(long, value_name = "NAME=NUMBER")]
    link_limit: Vec<Limit<LinkLimits>>,
    /// Host that may be dialled by WebSocket without TLS, besides near ones and given relays; repeatable
    #[arg(long, value_name = "HOST")]
    ws_host: Vec<String>,
    /// Where the network runs
    #[arg(long, value_enum, default_value_t = Place::InProcess)]
    network: Place,
    /// Where vats run
    #[arg(long, value_enum, default_value_t = Isolation::Thread)]
    isolation: Isolation,
    /// Run without any network
    #[arg(long, conflicts_with_all = ["listen", "listen_reference", "relay", "network"])]
    no_network: bool,
    /// System subclusters to run from now on: a JSON list of {"name", "config"}
    ///
    /// Each is launched once and restored at every later start, also without this option; one that is left out of the
    /// file is removed. Paths are relative to the file.
    #[arg(long, value_name = "FILE")]
    system: Option<PathBuf>,
    /// Limit of all vats that have none of their own; repeatable
    ///
    /// Names as in a vat's configuration: crankDeadlineMs, memoryBytesMax, syscallsMax, bodyUnitsMax, slotsMax,
    /// storeBytesMax, queuedMax.
    #[arg(long, value_name = "NAME=NUMBER")]
    limit: Vec<Limit<LimitsSpec>>,
    /// The globals that vats may ask for, with commas between them; an empty list allows none [default: all]
    #[arg(long, value_name = "NAMES")]
    allowed_globals: Option<Globals>,
    /// What to log, e.g. info or capstan_net=debug
    #[arg(long, env = "CAPSTAN_LOG", hide_env_values = true, default_value = LOG_FILTER, value_name = "FILTER")]
    log: String,
    /// Tell readiness on standard input, which is the starter's socket.
    #[arg(long, hide = true, requires = "foreground")]
    announce: bool,
}

/// A list of globals.
#[derive(Clone, Debug)]
struct Globals(Vec<String>);

impl FromStr for Globals {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        rules::allowed_globals(text).map(Globals)
    }
}

/// Which handshake to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Handshake {
    /// One handshake computes the session; nothing is refused needlessly
    Session,
    /// The reference's two frames: refuse, close, dial again
    Classic,
}

impl From<Handshake> for Generation {
    fn from(handshake: Handshake) -> Generation {
        match handshake {
            Handshake::Session => Generation::Session,
            Handshake::Classic => Generation::Classic,
        }
    }
}

/// Where the network runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    /// In the daemon's process
    InProcess,
    /// In a process of its own, started again when it dies
    Worker,
}

/// `net-worker`
#[derive(Debug, Args)]
pub struct NetWorkerArgs {
    /// What to log
    #[arg(long, default_value = LOG_FILTER, value_name = "FILTER")]
    log: String,
}

/// Is the network of the daemon that started this process.
pub(crate) async fn net_worker(args: NetWorkerArgs) -> Result<ExitCode, CliError> {
    daemon::net_worker::run(&args.log).await.map(|()| ExitCode::SUCCESS)
}

/// Where vats run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Isolation {
    /// On a few threads of the daemon
    Thread,
    /// Each in a process of its own, which can open no file and no connection
    Process,
}

/// `daemon purge`
#[derive(Debug, Args)]
pub struct PurgeArgs {
    /// Do it; nothing can bring the state back
    #[arg(long)]
    force: bool,
    /// Keep the keys, so that the peer id stays; the incarnation is new all the same
    #[arg(long)]
    keep_identity: bool,
}

#[derive(Debug, Serialize)]
struct Stopped {
    stopped: bool,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Daemon stopped.")
    }
}

#[derive(Debug, Serialize)]
struct Purged {
    purged: bool,
}

impl fmt::Display for Purged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("All daemon state deleted.")
    }
}

pub(crate) async fn run(
    ctx: &mut Ctx,
    printer: &mut Printer,
    command: DaemonCommand,
) -> Result<ExitCode, CliError> {
    match command {
        DaemonCommand::Start(args) => start(ctx, printer, args).await,
        DaemonCommand::Stop => match control::stop(&ctx.home).await? {
            true => printer.result(&Stopped { stopped: true }),
            false => Err(ctx.no_daemon()),
        },
        DaemonCommand::Status => {
            let status = running_status(ctx).await?;
            printer.result(&Fields(status))
        }
        DaemonCommand::Purge(args) if !args.force => Err(CliError::new(
            Code::Usage,
            format!("this deletes everything under {}", ctx.home.dir().display()),
        )
        .hint("to do it: capstan daemon purge --force")),
        DaemonCommand::Purge(args) => {
            control::purge(&ctx.home, args.keep_identity).await?;
            printer.result(&Purged { purged: true })
        }
        DaemonCommand::Logs(args) => super::logs::run(ctx, printer, args).await,
    }
}

/// The status of the daemon that runs; none is started. One that holds the home but is still starting or hangs is
/// waited for.
async fn running_status(ctx: &mut Ctx) -> Result<Json, CliError> {
    const LOOK_AGAIN: Duration = Duration::from_millis(50);
    loop {
        if let Some(mut client) = Client::connect_alive(&ctx.home).await? {
            return client.call("daemonStatus", json!([])).await;
        }
        let held = ctx.home.holder().map_err(|error| CliError::io(ctx.home.dir().display(), error))?;
        if held.is_none() {
            return Err(ctx.no_daemon());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn start(ctx: &mut Ctx, printer: &mut Printer, args: StartArgs) -> Result<ExitCode, CliError> {
    let all = args.listen.iter().chain(&args.listen_reference);
    if let Some(address) = all.into_iter().find(|address| !address.starts_with('/')) {
        let message = format!("{address}: not a multiaddr such as /ip4/127.0.0.1/tcp/0");
        return Err(CliError::new(Code::Usage, message));
    }
    if let Some(address) = args.relay.iter().find(|address| !address.contains("/p2p/")) {
        let message = format!("--relay {address}: it must end in /p2p/ and the relay's peer id");
        return Err(CliError::new(Code::Usage, message));
    }
    let options = DaemonOptions {
        home: ctx.home.clone(),
        listen: args.listen,
        relays: args.relay,
        listen_reference: args.listen_reference,
        generation: args.handshake.into(),
        max_retry_attempts: args.max_retry_attempts,
        links: LinkRules { limits: args.link_limit, ws_hosts: args.ws_host },
        network: match args.network {
            _ if args.no_network => NetworkPlace::Nowhere,
            Place::InProcess => NetworkPlace::InProcess,
            Place::Worker => NetworkPlace::Worker,
        },
        vat_processes: args.isolation == Isolation::Process,
        system: system_file(args.system)?,
        rules: VatRules {
            limits: args.limit,
            allowed_globals: args.allowed_globals.map(|globals| globals.0),
        },
        log_filter: args.log,
    };
    if !args.foreground {
        let mut client = ctx.start(&options).await?;
        let status = client.call("daemonStatus", json!([])).await?;
        return printer.result(&Fields(without_uptime(status)));
    }
    if !args.announce {
        daemon::run(options, |status| {
            let _ = printer.result(&Fields(without_uptime(status.clone())));
        })
        .await?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut announcement = Some(Announcement::take().map_err(|error| CliError::io("standard input", error))?);
    let outcome = daemon::run(options, |status| {
        if let Some(announcement) = announcement.take() {
            announcement.ready(status);
        }
    })
    .await;
    if let (Err(error), Some(announcement)) = (&outcome, announcement) {
        announcement.failed(error);
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

/// The file as the daemon will find it; one that is unsound starts no daemon.
fn system_file(file: Option<PathBuf>) -> Result<Option<PathBuf>, CliError> {
    let Some(file) = file else { return Ok(None) };
    System::read(&file, VatLimits::default())?;
    std::path::absolute(&file).map(Some).map_err(|error| CliError::io(file.display(), error))
}

fn without_uptime(mut status: Json) -> Json {
    if let Some(status) = status.as_object_mut() {
        status.shift_remove("uptimeSeconds");
    }
    status
}
