//! What one more vat costs: time until it is ready, processor time, and memory of the process.
//! `cargo bench -p capstan-js --bench launch`; with the file of a bundle behind `--`, vats of that bundle.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints and may fail")]

use capstan_js::{VatEvent, Workers};
use capstan_model::id::VatId;
use capstan_model::vat::{CodeFormat, VatCode, VatIncarnation, VatLimits, VatStart};
use std::time::Instant;

const VATS: u32 = 300;
const SOURCE: &str = "import { Far } from '@endo/far';
export const buildRootObject = (_powers, _parameters, baggage) => Far('root', {
  bump() { const n = (baggage.has('n') ? baggage.get('n') : 0) + 1; if (n === 1) baggage.init('n', n); else baggage.set('n', n); return n; } });";

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or_default()
}

/// Processor time of all threads, ms; in the kernel's ticks of 10 ms.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).flat_map(str::parse::<u64>);
    ticks.sum::<u64>() * 10
}

fn main() {
    let bundle = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let (format, text) = match &bundle {
        Some(file) => (CodeFormat::Bundle, std::fs::read_to_string(file).unwrap()),
        None => (CodeFormat::Module, SOURCE.to_owned()),
    };
    let (events, told) = std::sync::mpsc::channel();
    let workers = Workers::new(1, move |event| drop(events.send(event)));
    let mut launch = |vat| {
        let since = Instant::now();
        let code = VatCode { format, name: "v.js".into(), text: text.as_str().into() };
        workers
            .start(VatStart {
                vat: VatId(vat),
                incarnation: VatIncarnation(1),
                code,
                parameters: None,
                store: vec![],
                limits: VatLimits::default(),
                endowments: Default::default(),
            })
            .unwrap();
        loop {
            if let VatEvent::Started { result, .. } = told.recv().unwrap() {
                break drop(result.unwrap());
            }
        }
        since.elapsed()
    };
    // The first compiles for all.
    println!("the first: {:.1} ms", launch(0).as_secs_f64() * 1000.0);
    let (before, cpu_before) = (resident_kib(), cpu_ms());
    let mut times: Vec<_> = (1..=VATS).map(&mut launch).collect();
    let kib = (resident_kib() - before) / u64::from(VATS);
    let cpu = (cpu_ms() - cpu_before) as f64 / f64::from(VATS);
    times.sort();
    let at = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1000.0;
    println!(
        "{VATS} vats: {:.2} ms at best, {:.2} ms at the median, {:.2} ms at 90 %; {cpu:.2} ms of processor time and {kib} KiB each",
        at(0),
        at(50),
        at(90)
    );
}
