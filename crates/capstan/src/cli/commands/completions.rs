//! `completions`.

use super::super::printer::Printer;
use clap::Args;
use clap_complete::Shell;
use std::process::ExitCode;

/// `completions`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  capstan completions bash > ~/.local/share/bash-completion/completions/capstan
  capstan completions zsh > ~/.zfunc/_capstan")]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(printer: &mut Printer, args: CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::cli::command(), "capstan", &mut script);
    printer.raw(&String::from_utf8_lossy(&script))
}
