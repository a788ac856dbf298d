//! The command line: which commands there are, and what all of them take.

use super::commands::{
    backup, bench, bundle, completions, daemon, demo, identity, launch, logs, peer, query, relay, rpc, send,
    subcluster, types, url, vat,
};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A durable object-capability kernel: vats that survive crashes and talk across machines
#[derive(Debug, Parser)]
#[command(name = "capstan", version, disable_help_subcommand = true, max_term_width = 100)]
#[command(after_help = "Examples:
  capstan launch counter.js
  capstan send ko3 bump 5
  capstan url issue ko3
  capstan --home /tmp/other send ocap:… bump
  capstan demo

Exit codes: 0 done, 1 failed or rejected, 2 not understood, 3 no daemon, 4 timed out.")]
pub struct Args {
    /// What every command takes.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes, before or after its name.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Directory of the daemon to talk to [default: the platform's data directory]
    #[arg(long, global = true, env = "CAPSTAN_HOME", hide_env_values = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Print exactly one JSON document on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// How long to wait, in seconds
    #[arg(long, global = true, default_value = "60", value_name = "SECONDS")]
    pub timeout: Seconds,
    /// Do not start a daemon when none runs
    #[arg(long, global = true)]
    pub no_spawn: bool,
}

/// A length of time as written on the command line: a positive number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl FromStr for Seconds {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = text.parse().ok().filter(|seconds: &f64| *seconds > 0.0);
        let length = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        // Beyond a century the clock's arithmetic is no longer safe.
        let length = length.map(|length| length.min(Duration::from_secs(3_000_000_000)));
        length.map(Seconds).ok_or_else(|| "not a positive number of seconds".to_owned())
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start, stop or look at the daemon
    #[command(subcommand)]
    Daemon(daemon::DaemonCommand),
    /// Launch a vat from its source, or a cluster of vats from a configuration
    Launch(launch::LaunchArgs),
    /// Send one message to an object and print what it answers
    Send(send::SendArgs),
    /// Issue, redeem, list or revoke ocap: URLs
    #[command(subcommand)]
    Url(url::UrlCommand),
    /// Show everything at a glance
    Status,
    /// List the vats
    Vats,
    /// List the subclusters
    Subclusters,
    /// List the remotes: the kernels this one has talked to
    Remotes,
    /// Restart, terminate or ping a vat
    #[command(subcommand)]
    Vat(vat::VatCommand),
    /// Terminate a subcluster
    #[command(subcommand)]
    Subcluster(subcluster::SubclusterCommand),
    /// Refuse all further messages to an object, for good
    Revoke(vat::RevokeArgs),
    /// Collect garbage until nothing is left to collect
    ///
    /// First releases every reference that earlier results handed out on the command line.
    Gc,
    /// Tell where a peer is, close, reconnect or forget it
    #[command(subcommand)]
    Peer(peer::PeerCommand),
    /// Run one read-only SQL statement over the kernel's database
    Query(query::QueryArgs),
    /// Check every invariant of the store, running or stopped
    Fsck,
    /// Write a consistent copy of the store, identity included, while the kernel goes on
    Backup(backup::FileArgs),
    /// Put a backup into an empty home; needs no daemon
    Restore(backup::FileArgs),
    /// List the items that were set aside, with reasons
    DeadLetters,
    /// Make one raw JSON-RPC 2.0 call to the daemon
    Rpc(rpc::RpcArgs),
    /// Show who this kernel is, or keep that by twelve words
    #[command(subcommand)]
    Identity(identity::IdentityCommand),
    /// Make one self-contained bundle of a vat's sources, TypeScript or JavaScript
    ///
    /// What they import goes in, from files beside them and from node_modules; what the vat runtime serves stays out.
    Bundle(bundle::BundleArgs),
    /// Print the TypeScript declarations of what a vat's source may use, or write them
    Types(types::TypesArgs),
    /// Run a circuit relay in the foreground, for kernels that cannot reach each other
    Relay(relay::RelayArgs),
    /// Print shell completions
    Completions(completions::CompletionsArgs),
    /// Measure this machine: calls between vats and between kernels, launches, memory
    ///
    /// Runs kernels of its own on temporary homes for about half a minute. A call counts when its answer is on the disk.
    Bench(bench::BenchArgs),
    /// See two kernels talk, one of them killed and wiped meanwhile
    Demo(demo::DemoArgs),
    /// Be the network of a daemon, which talks on standard input
    #[command(hide = true)]
    NetWorker(daemon::NetWorkerArgs),
}

impl Command {
    /// Whether `--timeout` applies: not to what runs until it is stopped.
    pub(super) fn waits(&self) -> bool {
        match self {
            Command::Daemon(daemon::DaemonCommand::Start(start)) => !start.foreground,
            Command::Daemon(daemon::DaemonCommand::Logs(logs::LogsArgs { follow, .. })) => !follow,
            Command::Relay(_) | Command::NetWorker(_) => false,
            _ => true,
        }
    }
}
