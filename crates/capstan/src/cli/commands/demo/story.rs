//! What happened, told as it happens.

use super::super::super::printer::Printer;
use crate::error::CliError;
use serde::Serialize;
use std::fmt;
use std::time::Instant;

/// One thing that was done, and what was seen.
#[derive(Debug, Serialize)]
struct Step {
    #[serde(rename = "step")]
    what: String,
    saw: String,
    ms: u128,
}

/// All steps so far.
#[derive(Debug, Serialize)]
pub(super) struct Story {
    ok: bool,
    steps: Vec<Step>,
    #[serde(skip)]
    silent: bool,
    #[serde(skip)]
    since: Instant,
    #[serde(skip)]
    begun: Instant,
}

/// Its last line; the others were printed as they happened.
impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.begun.elapsed().as_secs_f64();
        write!(f, "\nAll of it held: {} steps in {seconds:.1} s.", self.steps.len())
    }
}

impl Story {
    /// A silent story is only told at its end, as JSON.
    pub(super) fn new(silent: bool) -> Story {
        let now = Instant::now();
        Story { ok: true, steps: Vec::new(), silent, since: now, begun: now }
    }

    /// Starts the clock of a step.
    pub(super) fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// Tells of a step that held.
    pub(super) fn tell(&mut self, printer: &mut Printer, what: &str, saw: String) -> Result<(), CliError> {
        let ms = self.since.elapsed().as_millis();
        let number = self.steps.len() + 1;
        self.steps.push(Step { what: what.to_owned(), saw: saw.clone(), ms });
        self.begin();
        if self.silent {
            return Ok(());
        }
        printer.line(&format!("{number:2}. {what}  ({ms} ms)\n      {saw}")).map(drop)
    }

    /// Adds to an error how far the story had come.
    pub(super) fn failure(&self, error: CliError) -> CliError {
        let after = match self.steps.last() {
            Some(step) => format!("the demo failed after step {} ({}): ", self.steps.len(), step.what),
            None => "the demo failed at its start: ".to_owned(),
        };
        CliError { message: format!("{after}{}", error.message), ..error }
    }
}
