//! Runs the kernel's random workload for as long as wanted:
//!
//! ```text
//! cargo run --release -p capstan-sim --bin soak -- [--minutes N] [--seed S] [--replay FILE]
//! ```
//!
//! Seeds are tried from S upwards. A failing one is cut down and printed with its acts as JSON, which `--replay` performs again.
#![expect(clippy::print_stdout, reason = "a program for people")]
#![expect(
    clippy::disallowed_methods,
    reason = "how long to run is this program's own affair, nothing in a run sees it"
)]

use capstan_sim::soak::act::{Act, Weather};
use capstan_sim::soak::{Failure, run, run_seed};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often progress is shown.
const PROGRESS: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let (mut minutes, mut seed, mut replay) = (1, 0, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        let number = value.parse::<u64>();
        match (flag.as_str(), number) {
            ("--minutes", Ok(number)) => minutes = number,
            ("--seed", Ok(number)) => seed = number,
            ("--replay", _) => replay = Some(value),
            _ => {
                println!("usage: soak [--minutes N] [--seed S] [--replay FILE]");
                return ExitCode::from(2);
            }
        }
    }
    match replay {
        Some(file) => perform(&file),
        None => soak(seed, Duration::from_secs(60 * minutes)),
    }
}

fn perform(file: &str) -> ExitCode {
    let acts = std::fs::read_to_string(file).map_err(|error| error.to_string());
    let acts =
        acts.and_then(|text| serde_json::from_str::<Vec<Act>>(&text).map_err(|error| error.to_string()));
    match acts {
        Ok(acts) => match run(Weather::Rough, &acts) {
            Ok(hash) => {
                println!("nothing is wrong (trace {hash:016x})");
                ExitCode::SUCCESS
            }
            Err(failure) => report(&acts, &failure),
        },
        Err(error) => {
            println!("{file}: {error}");
            ExitCode::from(2)
        }
    }
}

fn soak(first: u64, time: Duration) -> ExitCode {
    let began = Instant::now();
    let mut shown = began;
    let mut seed = first;
    while began.elapsed() < time {
        if let Err((acts, failure)) = run_seed(seed) {
            println!("seed {seed} fails");
            return report(&acts, &failure);
        }
        seed += 1;
        if shown.elapsed() >= PROGRESS {
            shown = Instant::now();
            println!("{:>6} s  seeds {first} to {seed}: nothing is wrong", began.elapsed().as_secs());
        }
    }
    println!("{} seeds from {first}: nothing is wrong", seed - first);
    ExitCode::SUCCESS
}

fn report(acts: &[Act], failure: &Failure) -> ExitCode {
    println!("{}\n{}", failure.trace, failure.what);
    println!("{}", serde_json::to_string(acts).unwrap_or_default());
    ExitCode::FAILURE
}
