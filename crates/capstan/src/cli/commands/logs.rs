//! `daemon logs`.

use super::super::ctx::Ctx;
use super::super::printer::Printer;
use crate::error::{CliError, Code};
use capstan_model::id::VatId;
use clap::Args;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::time::Duration;

/// How often a log that is followed is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How much of the log is shown, bytes: its end.
const SHOWN_BYTES_MAX: u64 = 16 << 20;

/// `daemon logs`
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Go on showing what is added
    #[arg(short, long)]
    pub follow: bool,
    /// Only lines about this vat
    #[arg(long, value_name = "ID")]
    vat: Option<String>,
}

#[derive(serde::Serialize)]
struct LogLines {
    lines: Vec<String>,
}

impl fmt::Display for LogLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

pub(crate) async fn run(ctx: &Ctx, printer: &mut Printer, args: LogsArgs) -> Result<ExitCode, CliError> {
    if args.follow && ctx.json {
        return Err(CliError::new(Code::Usage, "--follow never ends, so it does not go with --json"));
    }
    if let Some(vat) = &args.vat {
        vat.parse::<VatId>().map_err(|error| CliError::new(Code::BadReference, error.to_string()))?;
    }
    let failed = |error: io::Error| CliError::io(ctx.home.log().display(), error);
    let mut log = match Tail::open(ctx) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !args.follow => return Err(ctx.no_daemon()),
        Err(error) => return Err(failed(error)),
    };
    loop {
        let lines = log.read_lines().map_err(failed)?;
        let wanted = |line: &String| args.vat.as_ref().is_none_or(|vat| mentions(line, vat));
        let lines: Vec<String> = lines.into_iter().filter(wanted).collect();
        if !args.follow {
            return printer.result(&LogLines { lines });
        }
        printer.line(&LogLines { lines }.to_string())?;
        tokio::time::sleep(LOOK_AGAIN).await;
        // The log may have been set aside, and a new one begun.
        if log.is_replaced(ctx) {
            log = Tail::open(ctx).map_err(failed)?;
        }
    }
}

/// Whether a line has the vat's id as a word, and not as part of something like `quic-v1`.
fn mentions(line: &str, vat: &str) -> bool {
    line.match_indices(vat).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + vat.len()..].chars().next();
        before.is_none_or(|c| c.is_whitespace() || "=:,([\"'".contains(c))
            && after.is_none_or(|c| !c.is_alphanumeric() && !"-_/".contains(c))
    })
}

struct Tail {
    file: File,
    partial: Vec<u8>,
}

impl Tail {
    fn open(ctx: &Ctx) -> io::Result<Tail> {
        let mut file = File::open(ctx.home.log())?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(SHOWN_BYTES_MAX)))?;
        Ok(Tail { file, partial: Vec::new() })
    }

    fn is_replaced(&self, ctx: &Ctx) -> bool {
        let current = std::fs::metadata(ctx.home.log()).map(|metadata| metadata.ino());
        current.is_ok_and(|current| self.file.metadata().is_ok_and(|ours| ours.ino() != current))
    }

    /// Returns the complete lines added since the last call.
    fn read_lines(&mut self) -> io::Result<Vec<String>> {
        (&self.file).take(2 * SHOWN_BYTES_MAX).read_to_end(&mut self.partial)?;
        let end = self.partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let rest = self.partial.split_off(end);
        let complete = std::mem::replace(&mut self.partial, rest);
        Ok(String::from_utf8_lossy(&complete).lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::mentions;

    #[test]
    fn a_vat_is_found_as_a_word() {
        assert!(mentions("[t] [info] vat: hello vat=v1", "v1") && mentions("v1: x", "v1"));
        assert!(mentions("[t] [warn] kernel: terminated (v1)", "v1") && mentions("v12 v1", "v1"));
        assert!(!mentions("vat=v12 mv1 v1x /udp/1/quic-v1/p2p v1-2", "v1"));
    }
}
