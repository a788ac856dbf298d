//! What one more vat costs: time until it is ready, and memory of the process.
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

fn main() {
    let (events, told) = std::sync::mpsc::channel();
    let workers = Workers::new(1, move |event| drop(events.send(event)));
    let mut launch = |vat| {
        let since = Instant::now();
        let code = VatCode { format: CodeFormat::Module, name: "v.js".into(), text: SOURCE.into() };
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
        while !matches!(told.recv().unwrap(), VatEvent::Started { result: Ok(_), .. }) {}
        since.elapsed()
    };
    // The first compiles for all.
    launch(0);
    let before = resident_kib();
    let mut times: Vec<_> = (1..=VATS).map(&mut launch).collect();
    let kib = (resident_kib() - before) / u64::from(VATS);
    times.sort();
    let at = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1000.0;
    println!(
        "{VATS} vats: {:.2} ms at best, {:.2} ms at the median, {:.2} ms at 90 %; {kib} KiB each",
        at(0),
        at(50),
        at(90)
    );
}
