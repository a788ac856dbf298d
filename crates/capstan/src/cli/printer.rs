//! The one place that writes to standard output.

use crate::error::{CliError, Code};
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

/// What a command has to say: for scripts by `Serialize`, for people by `Display`.
pub(super) trait Output {
    /// The document of `--json`.
    fn document(&self) -> Result<String, serde_json::Error>;
    /// The text for people; may be empty, which prints nothing.
    fn text(&self) -> String;
}

impl<T: Serialize + Display> Output for T {
    fn document(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
    fn text(&self) -> String {
        self.to_string()
    }
}

/// Writes results to standard output, and what went wrong to standard error.
pub(super) struct Printer {
    json: bool,
}

impl Printer {
    pub(super) fn new(json: bool) -> Printer {
        Printer { json }
    }

    /// Prints the result of a command.
    pub(super) fn result(&mut self, output: &dyn Output) -> Result<ExitCode, CliError> {
        let text = if self.json {
            output.document().map_err(|error| CliError::internal(error.to_string()))?
        } else {
            output.text()
        };
        self.line(&text)
    }

    /// Prints a text as it is, with a line end if it lacks one.
    pub(super) fn line(&mut self, text: &str) -> Result<ExitCode, CliError> {
        if text.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let end = if text.ends_with('\n') { "" } else { "\n" };
        match write(&format!("{text}{end}")) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            // Whoever read us has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            Err(error) => Err(CliError::io("standard output", error)),
        }
    }

    /// Shows on standard error how far long work has come, if somebody watches; each text takes the place of the
    /// last, an empty one of all.
    pub(super) fn progress(&mut self, text: &str) {
        let mut stderr = io::stderr().lock();
        if stderr.is_terminal() {
            // Nobody misses what cannot be shown.
            let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
        }
    }

    /// Prints help, a version or completions.
    pub(super) fn raw(&mut self, text: &str) -> ExitCode {
        self.line(text).unwrap_or(ExitCode::FAILURE)
    }

    /// Reports that the command line was not understood. `message` replaces the parser's in the document.
    pub(super) fn usage(&mut self, error: &clap::Error, message: Option<&str>) -> ExitCode {
        if !self.json {
            let _ = error.print();
            return ExitCode::from(Code::Usage.exit());
        }
        let text = error.render().to_string();
        let what = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
        let what = what.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        let what = message.unwrap_or(what.trim_start_matches("error: "));
        self.failure(&CliError::new(Code::Usage, what))
    }

    /// Reports a failure, and returns what to exit with.
    pub(super) fn failure(&mut self, error: &CliError) -> ExitCode {
        if self.json {
            let _ = write(&format!("{}\n", error.document()));
        } else {
            let stderr = io::stderr();
            let coloured = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let (red, plain) = if coloured { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
            let mut stderr = stderr.lock();
            let _ = writeln!(stderr, "{red}error:{plain} {} [{}]", error.message, error.code);
            for hint in &error.hints {
                let _ = writeln!(stderr, "  {hint}");
            }
        }
        ExitCode::from(error.code.exit())
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
