//! From the command line to an exit code.

pub mod args;
mod commands;
mod ctx;
mod interrupt;
mod printer;
mod text;

use args::{Args, Globals};
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};
use ctx::Ctx;
use printer::Printer;
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use crate::error::{CliError, Code};

/// The process of one vat, started by a daemon. It is no command: it has no options and no runtime, and gives up all
/// rights before the vat's code is read.
pub(crate) const VAT_WORKER: &str = "vat-worker";

/// Runs the command of this process' arguments.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == VAT_WORKER) {
        return vat_worker();
    }
    let mut printer = Printer::new(arguments.iter().any(|argument| argument == "--json"));
    let args = match parse(&arguments) {
        Ok(args) => args,
        Err(error) => return refused(&mut printer, &error),
    };
    printer = Printer::new(args.globals.json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return printer.failure(&CliError::io("the runtime", error)),
    };
    let outcome = runtime.block_on(run(args, &mut printer));
    // A blocked read of a file must not keep the process.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(error) => printer.failure(&error),
    }
}

fn vat_worker() -> ExitCode {
    match capstan_host::serve_vat(io::stdin().lock(), io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE, // nobody reads its standard error
    }
}

/// The command line as clap sees it, for parsing, help and completions.
pub fn command() -> clap::Command {
    Args::command()
}

fn parse(arguments: &[OsString]) -> Result<Args, clap::Error> {
    Args::from_arg_matches(&command().try_get_matches_from(arguments)?)
}

fn refused(printer: &mut Printer, error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => printer.raw(&error.render().to_string()),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            printer.usage(error, Some("a command is missing: see --help"))
        }
        _ => printer.usage(error, None),
    }
}

async fn run(args: Args, printer: &mut Printer) -> Result<ExitCode, CliError> {
    let Args { globals, command } = args;
    let Globals { timeout, .. } = globals;
    let waits = command.waits();
    let mut ctx = Ctx::new(globals)?;
    let work = commands::run(command, &mut ctx, printer);
    if !waits {
        return work.await;
    }
    let limit = timeout.0;
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let message = format!("no answer within {} s", limit.as_secs_f64());
            Err(CliError::new(Code::Timeout, message).hint("wait longer with --timeout SECONDS"))
        }
    }
}
