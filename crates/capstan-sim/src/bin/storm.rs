//! Runs random storms over several kernels:
//!
//! ```text
//! cargo run --release -p capstan-sim --bin storm -- [--seeds N] [--seed S] [--minutes M] [--kernels 2..4] [--handshakes] [--replay FILE]
//! ```
//!
//! Seeds are tried from S upwards. A failing one is cut down and printed with its plan as JSON, which `--replay` performs again;
//! `--handshakes`: storms about handshakes alone, between two kernels. `--brief` only says which seed failed and how.
#![expect(clippy::print_stdout, reason = "a program for people")]
#![expect(
    clippy::disallowed_methods,
    reason = "how long to run is this program's own affair, nothing in a run sees it"
)]

use capstan_sim::storm::{Failure, Plan, run, shrink};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often progress is shown.
const PROGRESS: Duration = Duration::from_secs(10);

struct Options {
    first: u64,
    seeds: u64,
    time: Duration,
    kernels: Option<usize>,
    replay: Option<String>,
    handshakes: bool,
    brief: bool,
}

fn options() -> Option<Options> {
    let mut options = Options {
        first: 0,
        seeds: u64::MAX,
        time: Duration::MAX,
        kernels: None,
        replay: None,
        handshakes: false,
        brief: false,
    };
    let mut limited = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let switch = match flag.as_str() {
            "--brief" => Some(&mut options.brief),
            "--handshakes" => Some(&mut options.handshakes),
            _ => None,
        };
        if let Some(switch) = switch {
            *switch = true;
            continue;
        }
        let value = arguments.next()?;
        match flag.as_str() {
            "--replay" => options.replay = Some(value),
            "--seed" => options.first = value.parse().ok()?,
            "--seeds" => (options.seeds, limited) = (value.parse().ok()?, true),
            "--minutes" => {
                (options.time, limited) = (Duration::from_secs(60 * value.parse::<u64>().ok()?), true);
            }
            "--kernels" => {
                options.kernels = Some(value.parse().ok().filter(|number| (2..=4).contains(number))?);
            }
            _ => return None,
        }
    }
    if !limited {
        options.time = Duration::from_secs(60);
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        println!(
            "usage: storm [--seeds N] [--seed S] [--minutes M] [--kernels 2..4] [--handshakes] [--replay FILE] \
             [--brief]"
        );
        return ExitCode::from(2);
    };
    // A panic is a failure like any other, and is reported as one.
    std::panic::set_hook(Box::new(|_| {}));
    match &options.replay {
        Some(file) => replay(file),
        None => storm(&options),
    }
}

fn replay(file: &str) -> ExitCode {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
    match text.and_then(|text| serde_json::from_str::<Plan>(&text).map_err(|error| error.to_string())) {
        Ok(plan) => match run(&plan) {
            Ok(hash) => {
                println!("nothing is wrong (trace {hash:016x})");
                ExitCode::SUCCESS
            }
            Err(failure) => report(&plan, &failure),
        },
        Err(error) => {
            println!("{file}: {error}");
            ExitCode::from(2)
        }
    }
}

fn storm(options: &Options) -> ExitCode {
    let began = Instant::now();
    let mut shown = began;
    let mut tried = 0;
    while tried < options.seeds && began.elapsed() < options.time {
        let seed = options.first + tried;
        let plan =
            if options.handshakes { Plan::of_handshakes(seed) } else { Plan::seeded(seed, options.kernels) };
        tried += 1;
        if let Err(failure) = run(&plan) {
            println!("seed {} fails after {tried}: {}", plan.seed, failure.what);
            if options.brief {
                return ExitCode::FAILURE;
            }
            let (plan, failure) = shrink(plan, failure);
            return report(&plan, &failure);
        }
        if !options.brief && shown.elapsed() >= PROGRESS {
            shown = Instant::now();
            println!(
                "{:>6} s  {tried} seeds from {}: nothing is wrong",
                began.elapsed().as_secs(),
                options.first
            );
        }
    }
    println!("{tried} seeds from {}: nothing is wrong", options.first);
    ExitCode::SUCCESS
}

fn report(plan: &Plan, failure: &Failure) -> ExitCode {
    println!("{}\n{}", failure.trace, failure.what);
    println!("{}", serde_json::to_string(plan).unwrap_or_default());
    ExitCode::FAILURE
}
