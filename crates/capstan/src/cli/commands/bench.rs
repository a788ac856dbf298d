//! `bench`: what kernels do on this machine, on temporary homes.

use super::super::args::Seconds;
use super::super::interrupt::unless_interrupted;
use super::super::printer::Printer;
use super::daemon::Place;
use crate::daemon::{LOG_FILTER, net_worker, with_sources};
use crate::error::{CliError, Code};
use crate::rpc::error::RpcError;
use capstan_host::measure::{Line, one_more_vat, processor_time, resident_kib};
use capstan_host::{Host, HostConfig};
use capstan_kernel::host_op::Refusal;
use clap::Args;
use serde::Serialize;
use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Handle;

/// `bench`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  capstan bench
  capstan --json bench --seconds 10
  capstan bench --in-flight 1,16,1024
  capstan bench --network worker")]
pub struct BenchArgs {
    /// How long calls of each kind are made
    #[arg(long, default_value = "3", value_name = "SECONDS")]
    seconds: Seconds,
    /// How many calls are kept in flight, one measurement for each
    #[arg(long, value_delimiter = ',', default_value = "64,1,256", value_name = "COUNTS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=4096))]
    in_flight: Vec<u32>,
    /// Where the networks of the kernels run
    #[arg(long, value_enum, default_value_t = Place::InProcess)]
    network: Place,
}

/// Vats launched for the average, after one that warms up.
const VATS: u32 = 50;
/// Calls of one round, and how many of them follow one another where fewer are in flight.
const ROUND: u32 = 1000;
const ROUND_EACH: u32 = 100;
/// Calls made alone, one after another, unless their time is over before.
const LONE_CALLS: usize = 1000;

/// How fast calls are: with the first of the counts in flight, and one alone.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Calls {
    calls: u64,
    per_second: u64,
    #[serde(rename = "p50us")]
    p50_us: u64,
    #[serde(rename = "p99us")]
    p99_us: u64,
    /// The same for each of the counts.
    by_in_flight: Vec<Rate>,
}

/// How fast calls are with so many in flight.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rate {
    in_flight: u32,
    calls: u64,
    per_second: u64,
    /// What a call takes of the processors, all threads and both ends together.
    #[serde(rename = "cpuUs", skip_serializing_if = "Option::is_none")]
    cpu_us: Option<u64>,
}

/// What one more vat costs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Launch {
    vats: u32,
    ms_per_vat: f64,
    kib_per_vat: u64,
}

/// All of it.
#[derive(Debug, Serialize)]
struct Figures {
    local: Calls,
    remote: Calls,
    launch: Launch,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Every answer was on the disk first (synchronous=FULL).\n")?;
        for (name, calls) in [("between two vats", &self.local), ("between two kernels", &self.remote)] {
            let mut name = name;
            for Rate { in_flight, per_second, cpu_us, .. } in &calls.by_in_flight {
                let of_cpu = cpu_us.map_or_else(String::new, |us| format!(", {us} µs of a processor each"));
                writeln!(f, "{name:<20} {per_second:>7} calls/s, {in_flight} in flight{of_cpu}")?;
                name = "";
            }
            let Calls { p50_us, p99_us, .. } = calls;
            writeln!(f, "{:<20} {p50_us:>7} µs for one alone; 99 of 100 within {p99_us} µs", "")?;
        }
        let Launch { vats, ms_per_vat, kib_per_vat } = &self.launch;
        write!(f, "{:<20} {ms_per_vat:>7.1} ms and {kib_per_vat} KiB each ({vats} of them)", "one more vat")
    }
}

pub(super) async fn run(printer: &mut Printer, args: BenchArgs) -> Result<ExitCode, CliError> {
    let figures = unless_interrupted(measure(printer, &args)).await;
    printer.progress("");
    printer.result(&figures?)
}

async fn measure(printer: &mut Printer, args: &BenchArgs) -> Result<Figures, CliError> {
    let calling = args.seconds.0;
    let launch = launches(printer).await?;
    let (ann, bob) = (Scratch::new(args.network).await?, Scratch::new(args.network).await?);
    printer.progress("starting two kernels");
    let near = Line::within(&ann.host).await.map_err(refused)?;
    let counts = &args.in_flight;
    let local = calls(&near, calling, counts, "calls between two vats", printer).await?;
    let far = Line::across(&ann.host, &bob.host).await.map_err(refused)?;
    let remote = calls(&far, calling, counts, "calls between two kernels over loopback", printer).await?;
    Ok(Figures { local, remote, launch })
}

async fn launches(printer: &mut Printer) -> Result<Launch, CliError> {
    let scratch = Scratch::new(Place::InProcess).await?;
    one_more_vat(&scratch.host).await.map_err(refused)?;
    let before = resident_kib().unwrap_or(0);
    let mut took = Duration::ZERO;
    for number in 1..=VATS {
        printer.progress(&format!("vats: {number} of {VATS}"));
        took += one_more_vat(&scratch.host).await.map_err(refused)?;
    }
    let grown = resident_kib().unwrap_or(0).saturating_sub(before);
    let ms = took.as_secs_f64() * 1e3 / f64::from(VATS);
    Ok(Launch { vats: VATS, ms_per_vat: (ms * 100.0).round() / 100.0, kib_per_vat: grown / u64::from(VATS) })
}

async fn calls(
    line: &Line,
    calling: Duration,
    counts: &[u32],
    what: &str,
    printer: &mut Printer,
) -> Result<Calls, CliError> {
    let mut by_in_flight = Vec::new();
    for &in_flight in counts {
        by_in_flight.push(rate(line, calling, in_flight, what, printer).await?);
    }
    let (mut alone, since) = (Vec::new(), Instant::now());
    while alone.len() < LONE_CALLS && since.elapsed() < calling {
        alone.push(line.call().await.map_err(refused)?.as_micros());
        if alone.len().is_multiple_of(100) {
            printer.progress(&format!("{what}, one at a time: {}", alone.len()));
        }
    }
    alone.sort_unstable();
    let at = |percent: usize| alone.get(alone.len() * percent / 100).copied().unwrap_or_default();
    let (calls, per_second) = by_in_flight.first().map_or((0, 0), |first| (first.calls, first.per_second));
    Ok(Calls { calls, per_second, p50_us: whole(at(50)), p99_us: whole(at(99)), by_in_flight })
}

async fn rate(
    line: &Line,
    calling: Duration,
    in_flight: u32,
    what: &str,
    printer: &mut Printer,
) -> Result<Rate, CliError> {
    printer.progress(&format!("{what}, {in_flight} in flight"));
    // Few in flight take longer, and are counted as often.
    let round = ROUND.min(in_flight.saturating_mul(ROUND_EACH)).max(in_flight);
    line.calls(round, in_flight).await.map_err(refused)?; // The first round warms up.
    let (mut made, mut took, before) = (0, Duration::ZERO, processor_time());
    while took < calling {
        took += line.calls(round, in_flight).await.map_err(refused)?;
        made += u64::from(round);
        printer.progress(&format!("{what}, {in_flight} in flight: {made}"));
    }
    let spent = before.and_then(|before| Some(processor_time()?.saturating_sub(before)));
    let cpu_us = spent.map(|spent| whole(spent.as_micros() / u128::from(made.max(1))));
    let per_second = whole(u128::from(made) * 1_000_000 / took.as_micros().max(1));
    Ok(Rate { in_flight, calls: made, per_second, cpu_us })
}

fn whole(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn refused(refusal: Refusal) -> CliError {
    RpcError::from(refusal).into_cli()
}

/// A kernel in this process on a temporary home. It is stopped before its home is removed, however it ends.
struct Scratch {
    host: Host,
    _home: TempDir,
}

impl Scratch {
    async fn new(network: Place) -> Result<Scratch, CliError> {
        let home = tempfile::Builder::new().prefix("capstan-bench-").tempdir();
        let home = home.map_err(|error| CliError::io("a temporary directory", error))?;
        let mut config = HostConfig::new(home.path());
        if network == Place::Worker {
            config.network_program = Some(net_worker::program(LOG_FILTER)?);
        }
        let host = Host::start(config).await;
        let host = host.map_err(|error| CliError::new(Code::Io, with_sources(&error)))?;
        Ok(Scratch { host, _home: home })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        tokio::task::block_in_place(|| Handle::current().block_on(self.host.stop()));
    }
}
