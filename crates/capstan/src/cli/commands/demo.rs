//! `demo`.

use super::super::ctx::Ctx;
use super::super::printer::Printer;
use super::daemon::Handshake;
use crate::error::CliError;
use clap::Args;
use std::process::ExitCode;

/// `demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Handshake that both kernels speak
    #[arg(long, value_enum, default_value_t = Handshake::Session)]
    handshake: Handshake,
}

pub(super) async fn run(_ctx: &Ctx, _printer: &Printer, args: DemoArgs) -> Result<ExitCode, CliError> {
    let _ = args.handshake;
    Err(CliError::internal("the demo cannot be shown yet"))
}
