//! How fast: starting a vat, trivial deliveries in batches, calls between two vats are left to the kernel's bench.
//! `cargo bench -p capstan-js`
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement for people to read")]

use capstan_js::{VatEvent, Workers};
use capstan_model::capdata::{CapData, Message};
use capstan_model::id::VatId;
use capstan_model::refs::{Side, VRef};
use capstan_model::vat::*;
use std::sync::mpsc::channel;
use std::time::Instant;

const SOURCE: &str = "import { Far, E } from '@endo/far';
export const buildRootObject = () => Far('root', { add: (a, b) => a + b, ping: x => E(x).pong(1) });";

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
    for (what, body, slots, batch) in [
        ("add(1,2), batches of 64", r##"#["add",[1,2]]"##, vec![], 64),
        ("add(1,2), one at a time", r##"#["add",[1,2]]"##, vec![], 1),
        ("E(x).pong(1), batches of 64", r##"#["ping",["$0.Alleged: x"]]"##, vec!["o-1".parse().unwrap()], 64),
    ] {
        let since = Instant::now();
        let count = 20_000 / batch * batch;
        for first in (0..count).step_by(batch) {
            let one = |n: usize| {
                let methargs = CapData { body: body.into(), slots: slots.clone() };
                let message = Message { methargs, result: Some(VRef::Promise(Side::Import, n as u64)) };
                (DeliveryId(n as u64), VatDelivery::Message { target: VRef::ROOT, message })
            };
            workers.deliver(VatId(0), incarnation, (first..first + batch).map(one).collect()).unwrap();
            let VatEvent::Replied { replies, .. } = events.recv().unwrap() else { panic!("no reply") };
            assert!(replies.iter().all(|(_, reply)| reply.outcome.is_ok()));
        }
        println!("{what}: {:.1} µs each", since.elapsed().as_secs_f64() * 1e6 / count as f64);
    }
}
