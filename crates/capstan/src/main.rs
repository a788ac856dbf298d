//! `capstan`, the command.

use std::process::ExitCode;

fn main() -> ExitCode {
    capstan::cli::main()
}
