//! How fast: starting a vat, trivial deliveries in batches, calls between two vats are left to the kernel's bench.
//! `cargo bench -p capstan-js`
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement for people to read")]

use capstan_js::{VatEvent, Workers};
use capstan_model::capdata::{CapData, Message, Resolution};
use capstan_model::id::VatId;
use capstan_model::refs::{Side, VRef};
use capstan_model::vat::*;
use std::sync::mpsc::channel;
use std::time::Instant;

const SOURCE: &str = "import { Far, E } from '@endo/far';
export const buildRootObject = () => Far('root', { add: (a, b) => a + b, ping: x => E(x).pong(1) });";

/// Processor time of all threads, ms; in the kernel's ticks of 10 ms.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).flat_map(str::parse::<u64>);
    ticks.sum::<u64>() * 10
}

fn main() {
    let (tx, events) = channel();
    let workers = Workers::new(0, move |event| drop(tx.send(event)));
    let incarnation = VatIncarnation(1);
    let code = VatCode { format: CodeFormat::Module, name: "v.js".into(), text: SOURCE.into() };
    for round in 0..3u32 {
        let since = Instant::now();
        for id in 0..20 {
            let (vat, code) = (VatId(round * 20 + id), code.clone());
            workers
                .start(VatStart {
                    vat,
                    incarnation,
                    code,
                    parameters: None,
                    store: vec![],
                    limits: VatLimits::default(),
                    endowments: Default::default(),
                })
                .unwrap();
            assert!(matches!(events.recv().unwrap(), VatEvent::Started { result: Ok(_), .. }));
        }
        println!("start, one after another: {:?} each", since.elapsed() / 20);
    }
    let mut next = 0;
    for (what, body, slots, batch) in [
        ("add(1,2), batches of 64", r##"#["add",[1,2]]"##, vec![], 64),
        ("add(1,2), one at a time", r##"#["add",[1,2]]"##, vec![], 1),
        (
            "E(x).pong(1) and its answer, batches of 64",
            r##"#["ping",["$0.Alleged: x"]]"##,
            vec!["o-1".parse().unwrap()],
            64,
        ),
    ] {
        let (since, cpu) = (Instant::now(), cpu_ms());
        let count = 20_000 / batch * batch;
        let mut answers = Vec::new();
        for _ in 0..count / batch {
            let mut deliveries: Vec<_> = answers.drain(..).map(answer).collect();
            deliveries.extend((0..batch).map(|_| {
                next += 1;
                let methargs = CapData { body: body.into(), slots: slots.clone() };
                let message = Message { methargs, result: Some(VRef::Promise(Side::Import, next)) };
                VatDelivery::Message { target: VRef::ROOT, message }
            }));
            let numbered = deliveries.into_iter().enumerate().map(|(n, one)| (DeliveryId(n as u64), one));
            workers.deliver(VatId(0), incarnation, numbered.collect()).unwrap();
            let VatEvent::Replied { replies, .. } = events.recv().unwrap() else { panic!("no reply") };
            assert!(replies.iter().all(|(_, reply)| reply.outcome.is_ok()));
            let said = replies.into_iter().flat_map(|(_, reply)| reply.syscalls);
            answers.extend(said.filter_map(|syscall| match syscall {
                VatSyscall::Send { message, .. } => message.result,
                _ => None,
            }));
        }
        let micros = since.elapsed().as_secs_f64() * 1e6 / count as f64;
        let cpu = (cpu_ms() - cpu) as f64 * 1e3 / count as f64;
        println!("{what}: {micros:.1} µs each, {cpu:.1} µs of processor time");
    }
}

fn answer(promise: VRef) -> VatDelivery {
    let value = CapData { body: "#1".into(), slots: vec![] };
    VatDelivery::Notify(vec![Resolution { promise, rejected: false, value }])
}
