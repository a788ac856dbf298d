//! What happened, in order: a hash of all of it, the last lines in words.

use capstan_model::peer::Millis;
use std::collections::VecDeque;
use std::fmt;

/// Lines kept for a failure report.
const LINES_MAX: usize = 400;
/// Characters of a line kept for a failure report; the hash covers all of it.
const LINE_MAX: usize = 300;

/// The running record of a world.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    lines: VecDeque<String>,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Trace { hash: 0xcbf2_9ce4_8422_2325, lines: VecDeque::new() }
    }

    pub(crate) fn say(&mut self, now: Millis, what: fmt::Arguments<'_>) {
        let mut line = format!("{:>6} {what}", now.0);
        // FNV-1a: it need not resist anybody, only differ when the run does.
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some((end, _)) = line.char_indices().nth(LINE_MAX) {
            line.truncate(end);
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn tail(&self, lines: usize) -> String {
        let skip = self.lines.len().saturating_sub(lines);
        self.lines.iter().skip(skip).map(|line| format!("{line}\n")).collect()
    }
}
