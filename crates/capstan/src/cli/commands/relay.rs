//! `relay`.

use super::super::ctx::Ctx;
use super::super::printer::Printer;
use crate::daemon::with_sources;
use crate::error::{CliError, Code};
use clap::Args;
use serde::Serialize;
use std::fmt;
use std::net::Ipv4Addr;
use std::process::ExitCode;

/// `relay`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  capstan relay --listen /ip4/0.0.0.0/tcp/9002 --public-ip 192.0.2.7
  capstan daemon start --relay /ip4/192.0.2.7/tcp/9002/p2p/12D3…")]
pub struct RelayArgs {
    /// Address to listen on; repeatable [default: a free TCP port of every interface]
    #[arg(long, value_name = "MULTIADDR", default_value = "/ip4/0.0.0.0/tcp/0", hide_default_value = true)]
    listen: Vec<String>,
    /// The address under which this machine is known outside
    #[arg(long, value_name = "IP")]
    public_ip: Option<Ipv4Addr>,
}

/// What is said at the start.
#[derive(Debug, Serialize)]
struct Serving {
    #[serde(rename = "peerId")]
    peer: String,
    listen: Vec<String>,
}

impl fmt::Display for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Relay {} serves at", self.peer)?;
        self.listen.iter().try_for_each(|address| writeln!(f, "  {address}"))
    }
}

/// Serves until it is told to stop.
pub(super) async fn run(ctx: &mut Ctx, printer: &mut Printer, args: RelayArgs) -> Result<ExitCode, CliError> {
    if let Some(address) = args.listen.iter().find(|address| !address.starts_with('/')) {
        let message = format!("--listen {address}: not a multiaddr such as /ip4/0.0.0.0/tcp/9002");
        return Err(CliError::new(Code::Usage, message));
    }
    let relay = capstan_host::relay(ctx.home.dir(), args.listen, args.public_ip).await;
    let relay = relay.map_err(|error| CliError::new(Code::Io, with_sources(&error)))?;
    printer.result(&Serving { peer: relay.peer(), listen: relay.addresses().to_vec() })?;
    let signal = |kind| tokio::signal::unix::signal(kind).map_err(|error| CliError::io("signals", error));
    let mut terminated = signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        () = relay.run() => {}
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(ExitCode::SUCCESS)
}
