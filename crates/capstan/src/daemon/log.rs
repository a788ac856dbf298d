//! The daemon's log: lines with a time and a level, rotated by size.

use crate::error::{CliError, Code};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// A log that has grown to this is set aside as `daemon.log.1`, bytes.
const LOG_BYTES_MAX: u64 = 8 << 20;

/// Sends everything that is traced in this process to the log at `path`. Panics go there too.
pub(super) fn start(path: &Path, filter: &str) -> Result<(), CliError> {
    let filter = parse(filter)?;
    let log = Log::open(path).map_err(|error| CliError::io(path.display(), error))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || log.clone())
        .event_format(Lines { timed: true })
        .finish();
    // A second daemon within one process, as tests may start it, writes into the log of the first.
    let _ = tracing::subscriber::set_global_default(subscriber);
    std::panic::set_hook(Box::new(|panic| tracing::error!("panic: {panic}")));
    Ok(())
}

/// Sends everything that is traced in this process to standard error, without times: whoever reads it adds those.
pub(super) fn to_stderr(filter: &str) -> Result<(), CliError> {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(parse(filter)?)
        .with_writer(io::stderr)
        .event_format(Lines { timed: false })
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
    std::panic::set_hook(Box::new(|panic| tracing::error!("panic: {panic}")));
    Ok(())
}

fn parse(filter: &str) -> Result<EnvFilter, CliError> {
    EnvFilter::try_new(filter)
        .map_err(|error| CliError::new(Code::Usage, format!("log filter {filter:?}: {error}")))
}

/// `[time] [level] target: message fields…`
struct Lines {
    timed: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        if self.timed {
            writer.write_char('[')?;
            SystemTime.format_time(&mut writer)?;
            writer.write_str("] ")?;
        }
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        write!(writer, "[{level}] {}: ", event.metadata().target())?;
        let mut fields = String::new();
        context.field_format().format_fields(Writer::new(&mut fields), event)?;
        // One event is one line, whatever a vat says.
        writeln!(writer, "{}", fields.replace('\n', "\\n").replace('\r', "\\r"))
    }
}

#[derive(Clone)]
struct Log(Arc<Mutex<Open>>);

struct Open {
    path: PathBuf,
    file: File,
    bytes: u64,
}

fn append(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

impl Log {
    fn open(path: &Path) -> io::Result<Log> {
        let file = append(path)?;
        let bytes = file.metadata()?.len();
        Ok(Log(Arc::new(Mutex::new(Open { path: path.to_owned(), file, bytes }))))
    }
}

impl Open {
    /// Sets the log aside and begins a new one; if that fails the old one just grows on.
    fn rotate(&mut self) {
        let mut aside = self.path.clone().into_os_string();
        aside.push(".1");
        if std::fs::rename(&self.path, aside).is_ok()
            && let Ok(file) = append(&self.path)
        {
            self.file = file;
        }
        self.bytes = 0;
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.bytes >= LOG_BYTES_MAX {
            open.rotate();
        }
        let written = open.file.write(bytes)?;
        open.bytes += u64::try_from(written).unwrap_or(u64::MAX);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_has_grown_is_set_aside() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("daemon.log");
        let mut log = Log::open(&path)?;
        log.write_all(b"first\n")?;
        log.0.lock().unwrap_or_else(PoisonError::into_inner).bytes = LOG_BYTES_MAX;
        log.write_all(b"second\n")?;
        assert_eq!(std::fs::read_to_string(&path)?, "second\n");
        assert_eq!(std::fs::read_to_string(dir.path().join("daemon.log.1"))?, "first\n");
        assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        Ok(())
    }
}
