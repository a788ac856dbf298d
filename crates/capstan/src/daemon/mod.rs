//! The daemon process: one kernel, its control socket, its log.

use crate::cli::VAT_WORKER;
use crate::cluster::Cluster;
use crate::daemon::system::System;
use crate::error::{CliError, Code};
use crate::home::Home;
use crate::links::LinkRules;
use crate::rpc::server;
use crate::rules::VatRules;
use capstan_host::{Host, HostConfig, HostError, Isolation, Loader, Program};
use capstan_kernel::kernel::Generation;
use capstan_model::vat::VatLimits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value as Json, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

mod address;
pub mod control;
mod log;
pub mod net_worker;
pub mod ready;
pub mod spawn;
pub(crate) mod system;

/// How long the kernel is given to stop in order.
const STOP_LIMIT: Duration = Duration::from_secs(8);

/// The filter of the daemon's log unless another is given.
pub(crate) const LOG_FILTER: &str = "info,libp2p=warn,libp2p_swarm=warn";

/// What a daemon is told at its start.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// Where everything is kept.
    pub home: Home,
    /// Multiaddrs to listen on; none: the default listeners.
    pub listen: Vec<String>,
    /// Circuit relays to be reachable through.
    pub relays: Vec<String>,
    /// Multiaddrs to listen on for kernels of the reference.
    pub listen_reference: Vec<String>,
    /// Which handshake to speak.
    pub generation: Generation,
    /// Dials in vain after which a peer is given up; 0: never.
    pub max_retry_attempts: u32,
    /// What holds for all its links.
    pub links: LinkRules,
    /// Where the network runs.
    pub network: NetworkPlace,
    /// Whether each vat runs in a process of its own.
    pub vat_processes: bool,
    /// The file of its system subclusters, absolute; none: those of its last start.
    pub system: Option<PathBuf>,
    /// What holds for all its vats.
    pub rules: VatRules,
    /// What to log, as a filter such as `info` or `capstan_net=debug`.
    pub log_filter: String,
}

impl DaemonOptions {
    /// Those of a daemon of which nothing is said.
    pub fn new(home: Home) -> Self {
        DaemonOptions {
            home,
            listen: Vec::new(),
            relays: Vec::new(),
            listen_reference: Vec::new(),
            generation: Generation::Session,
            max_retry_attempts: 0,
            links: LinkRules::default(),
            network: NetworkPlace::InProcess,
            vat_processes: false,
            system: None,
            rules: VatRules::default(),
            log_filter: LOG_FILTER.to_owned(),
        }
    }
}

/// Where the network of a daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkPlace {
    /// There is none.
    Nowhere,
    /// In the daemon's process.
    InProcess,
    /// In a process of its own, `capstan net-worker`.
    Worker,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Stopping,
    Stopped,
}

/// A running daemon, as its connections see it.
pub(crate) struct Daemon {
    host: Host,
    home: Home,
    started: Instant,
    limits: VatLimits,
    phase: watch::Sender<Phase>,
}

impl Daemon {
    /// The kernel.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// The limits of vats that have none of their own.
    pub(crate) fn limits(&self) -> VatLimits {
        self.limits
    }

    /// What `daemon status` prints.
    pub(crate) fn status(&self) -> Json {
        json!({
            "pid": std::process::id(), "peerId": self.host.peer(), "listen": self.host.listen(),
            "incarnation": self.host.incarnation(), "home": self.home.dir().to_string_lossy(),
            "uptimeSeconds": self.started.elapsed().as_secs(),
        })
    }

    /// Begins to stop, once; everyone who asks shares the one shutdown.
    pub(crate) fn begin_stop(&self) {
        self.phase.send_if_modified(|phase| {
            let first = *phase == Phase::Running;
            if first {
                *phase = Phase::Stopping;
            }
            first
        });
    }

    /// Waits until stopping has begun: nothing new is accepted.
    pub(crate) async fn stopping(&self) {
        let _ = self.phase.subscribe().wait_for(|phase| *phase >= Phase::Stopping).await;
    }

    /// Waits until the kernel has stopped: whoever still waits for an answer gets what there is.
    pub(crate) async fn stopped(&self) {
        let _ = self.phase.subscribe().wait_for(|phase| *phase >= Phase::Stopped).await;
    }

    /// How long stopping the kernel takes at most.
    pub(crate) fn stop_limit(&self) -> Duration {
        STOP_LIMIT
    }
}

/// Runs a daemon until it is told to stop. `ready` is told once, when commands are accepted and listeners are
/// bound.
pub async fn run(options: DaemonOptions, ready: impl FnOnce(&Json)) -> Result<(), CliError> {
    let home = options.home.clone();
    home.create()?;
    let claim = home.claim().await.map_err(|error| CliError::io(home.dir().display(), error))?;
    let claim = claim.ok_or_else(|| already_running(&home))?;
    log::start(&home.log(), &options.log_filter)?;
    open_all_the_files_allowed();
    let outcome = serve(options, ready).await;
    match &outcome {
        Ok(()) => tracing::info!("Daemon stopped."),
        Err(error) => tracing::error!("Daemon failed: {error}"),
    }
    let _ = fs::remove_file(home.socket());
    claim.remove_file();
    outcome
}

/// A connection is a file, and the usual limit is far below the peers that a daemon may have.
fn open_all_the_files_allowed() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit.
    if current.is_none() || current == maximum {
        return;
    }
    let before = current.unwrap_or_default();
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::info!(before, now = maximum, "more files may be open"),
        Err(error) => tracing::warn!(before, %error, "the limit of open files stays"),
    }
}

fn already_running(home: &Home) -> CliError {
    let pid =
        home.holder().ok().flatten().map_or_else(String::new, |holder| format!(" (pid {})", holder.pid));
    CliError::new(Code::Io, format!("another daemon is running on {}{pid}", home.dir().display()))
        .hint("stop it first: capstan daemon stop")
}

async fn serve(options: DaemonOptions, ready: impl FnOnce(&Json)) -> Result<(), CliError> {
    let system = |error| CliError::io("signals", error);
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(system)?;
    let home = options.home.clone();
    let limits = options.rules.limits();
    let (system, given) = match &options.system {
        Some(file) => (System::read(file, limits)?, true),
        None => (System::recall(&home, limits)?, false),
    };
    let mut config = host_config(options)?;
    config.system = system.subclusters();
    address::recall(&home, &mut config.listen);
    // A system subcluster may take for ever to launch: the start can be called off.
    let host = tokio::select! {
        host = Host::start(config) => host.map_err(start_failed)?,
        _ = terminate.recv() => return Err(called_off()),
        _ = interrupt.recv() => return Err(called_off()),
        _ = hangup.recv() => return Err(called_off()),
    };
    if given {
        system.keep(&home)?;
    }
    let bound: Vec<String> = host.listen().iter().map(ToString::to_string).collect();
    if !bound.is_empty() {
        address::remember(&home, &bound);
    }
    let listener = listen(&home).map_err(|error| CliError::io(home.socket().display(), error))?;
    let (phase, _) = watch::channel(Phase::Running);
    let daemon = Arc::new(Daemon { host, home, started: Instant::now(), limits, phase });
    let server = tokio::spawn(server::serve(listener, daemon.clone()));
    let status = daemon.status();
    tracing::info!("Daemon started. Socket: {} {status}", daemon.home.socket().display());
    ready(&status);

    let fault = tokio::select! {
        () = daemon.stopping() => { tracing::info!("asked to shut down"); None }
        _ = terminate.recv() => { tracing::info!("SIGTERM"); None }
        _ = interrupt.recv() => { tracing::info!("SIGINT"); None }
        _ = hangup.recv() => { tracing::info!("SIGHUP"); None }
        fault = daemon.host.fault() => Some(fault),
    };
    daemon.begin_stop();
    if tokio::time::timeout(STOP_LIMIT, daemon.host.stop()).await.is_err() {
        tracing::warn!("the kernel did not stop in time; the next start recovers");
    }
    let _ = daemon.phase.send(Phase::Stopped);
    let _ = server.await;
    match fault {
        None => Ok(()),
        Some(fault) => Err(CliError::internal(fault.to_string())),
    }
}

fn called_off() -> CliError {
    CliError::new(Code::Io, "the start was called off by a signal")
}

fn host_config(options: DaemonOptions) -> Result<HostConfig, CliError> {
    let mut config = HostConfig::new(options.home.dir());
    config.generation = options.generation;
    config.max_retry_attempts = options.max_retry_attempts;
    options.links.apply(&mut config);
    config.network = options.network != NetworkPlace::Nowhere;
    if options.network == NetworkPlace::Worker {
        config.network_program = Some(net_worker::program(&options.log_filter)?);
    }
    let limits = options.rules.limits();
    config.allowed_globals = options.rules.allowed_globals;
    config.loader = Some(Loader::new(move |config| {
        let loaded = Cluster::parse(config).and_then(|cluster| cluster.load(false, limits));
        loaded.map_err(|error| error.message)
    }));
    config.relays = options.relays;
    config.listen_reference = options.listen_reference;
    if !options.listen.is_empty() {
        config.listen = options.listen;
    }
    if options.vat_processes {
        config.isolation = Isolation::Processes(this_program([VAT_WORKER])?);
    }
    Ok(config)
}

/// This program with other arguments: a part of a daemon runs in a process of its own.
fn this_program<const N: usize>(arguments: [&str; N]) -> Result<Program, CliError> {
    let path = std::env::current_exe().map_err(|error| CliError::io("cannot find this program", error))?;
    Ok(Program { path, arguments: arguments.map(Into::into).into() })
}

fn start_failed(error: HostError) -> CliError {
    let message = with_sources(&error);
    if error.is_locked() {
        return CliError::new(Code::Io, message).hint("stop it first: capstan daemon stop");
    }
    let code = match error {
        HostError::Failed(_) | HostError::SystemDamage(_) => Code::Internal,
        HostError::SystemSubcluster { .. } => Code::LaunchFailed,
        _ => Code::Io,
    };
    CliError::new(code, message)
}

/// The text of an error with its causes, except what the text says already.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Binds the control socket; one that a dead daemon left is replaced, for the home is ours by now.
fn listen(home: &Home) -> std::io::Result<UnixListener> {
    match fs::remove_file(home.socket()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = home.with_socket_path(|path| std::os::unix::net::UnixListener::bind(path))?;
    fs::set_permissions(home.socket(), fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}
