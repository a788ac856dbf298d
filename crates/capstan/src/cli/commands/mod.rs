//! One file a command; a group of commands shares one.

pub(super) mod backup;
pub(super) mod bench;
pub(super) mod bundle;
pub(super) mod completions;
pub(super) mod daemon;
pub(super) mod demo;
mod fsck;
pub(super) mod identity;
pub(super) mod launch;
pub(super) mod logs;
pub(super) mod peer;
pub(super) mod query;
pub(super) mod relay;
pub(super) mod rpc;
pub(super) mod send;
mod show;
pub(super) mod subcluster;
pub(super) mod types;
pub(super) mod url;
pub(super) mod vat;

use super::args::Command;
use super::ctx::Ctx;
use super::printer::{Output, Printer};
use crate::error::CliError;
use std::process::ExitCode;

/// Runs a command and prints what it has to say.
pub(super) async fn run(
    command: Command,
    ctx: &mut Ctx,
    printer: &mut Printer,
) -> Result<ExitCode, CliError> {
    let output: Box<dyn Output> = match command {
        Command::Daemon(daemon::DaemonCommand::Logs(args)) => return logs::run(ctx, printer, args).await,
        Command::NetWorker(args) => return daemon::net_worker(args).await,
        Command::Daemon(command) => return daemon::run(ctx, printer, command).await,
        Command::Launch(args) => Box::new(launch::run(ctx, args).await?),
        Command::Send(args) => Box::new(send::run(ctx, args).await?),
        Command::Url(command) => url::run(ctx, command).await?,
        Command::Status => Box::new(show::status(ctx).await?),
        Command::Vats => Box::new(show::vats(ctx).await?),
        Command::Subclusters => Box::new(show::subclusters(ctx).await?),
        Command::Remotes => Box::new(show::remotes(ctx).await?),
        Command::Vat(command) => Box::new(vat::run(ctx, command).await?),
        Command::Subcluster(command) => Box::new(subcluster::run(ctx, command).await?),
        Command::Revoke(args) => Box::new(vat::revoke(ctx, args).await?),
        Command::Gc => Box::new(show::gc(ctx).await?),
        Command::Peer(command) => Box::new(peer::run(ctx, command).await?),
        Command::Query(args) => Box::new(query::run(ctx, args).await?),
        Command::Fsck => return fsck::run(ctx, printer).await,
        Command::Backup(args) => Box::new(backup::backup(ctx, args).await?),
        Command::Restore(args) => Box::new(backup::restore(ctx, args).await?),
        Command::DeadLetters => Box::new(show::dead_letters(ctx).await?),
        Command::Rpc(args) => Box::new(rpc::run(ctx, args).await?),
        Command::Identity(command) => identity::run(ctx, command).await?,
        Command::Bundle(args) => Box::new(bundle::run(args)?),
        Command::Types(args) => Box::new(types::run(&args)?),
        Command::Relay(args) => return relay::run(ctx, printer, args).await,
        Command::Completions(args) => return Ok(completions::run(printer, args)),
        Command::Bench(args) => return bench::run(printer, args).await,
        Command::Demo(args) => return demo::run(ctx, printer, args).await,
    };
    printer.result(output.as_ref())
}
