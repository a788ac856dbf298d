//! What durable state costs: instances of a kind in memory, a restart with a large baggage, a cursor over it, a launch
//! with patterns. `cargo bench -p capstan-js --bench durable`
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement for people to read")]

use capstan_js::{VatEvent, Workers};
use capstan_model::capdata::{CapData, Message};
use capstan_model::id::VatId;
use capstan_model::refs::{Side, VRef};
use capstan_model::vat::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

const SOURCE: &str = "import { Far } from '@endo/far';
export const buildRootObject = (_powers, _parameters, baggage) => {
  if (!baggage.has('kind')) { baggage.init('kind', VatData.makeKindHandle('item')); baggage.init('all', VatData.makeScalarBigMapStore('all', { durable: true })); }
  const make = VatData.defineDurableKind(baggage.get('kind'), n => ({ n, text: 'some text' }), { bump: ({ state }) => { state.n += 1; return state.n; } });
  return Far('root', {
    instances(n) { const all = baggage.get('all'); for (let i = 0; i < n; i += 1) all.init(i, make(i)); },
    bumpAll() { let sum = 0; for (const item of baggage.get('all').values()) sum += item.bump(); return sum; },
    fill(n) { for (let i = 0; i < n; i += 1) baggage.init(`entry ${i}`, { i, text: 'some text' }); },
    walk() { let n = 0; for (const _ of baggage.keys()) n += 1; return n; },
  });
};";
const PLAIN: &str = "import { Far } from '@endo/far'; export const buildRootObject = () => Far('root', {});";
const GUARDED: &str = "import { makeExo } from '@endo/exo'; import { M } from '@endo/patterns';
export const buildRootObject = () => makeExo('root', M.interface('Root', { a: M.call(M.number()).returns(M.number()) }), { a: n => n });";

type Rows = BTreeMap<Arc<str>, Arc<str>>;

struct Bench {
    workers: Workers,
    events: Receiver<VatEvent>,
    rows: Rows,
    run: u64,
}

impl Bench {
    fn start(&mut self, source: &str) {
        self.run += 1;
        let limits =
            VatLimits { memory_bytes_max: 64 << 20, crank_deadline_ms: 600_000, ..VatLimits::default() };
        let code = VatCode { format: CodeFormat::Module, name: "v.js".into(), text: source.into() };
        let store = self.rows.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let (vat, incarnation) = (VatId(1), VatIncarnation(self.run));
        self.workers
            .start(VatStart {
                vat,
                incarnation,
                code,
                parameters: None,
                store,
                limits,
                endowments: Default::default(),
            })
            .unwrap();
        let VatEvent::Started { result, .. } = self.events.recv().unwrap() else { panic!("no start") };
        let changes = result.unwrap().store;
        self.apply(changes);
    }

    fn apply(&mut self, changes: StoreChanges) {
        self.rows.extend(changes.sets);
        for key in &changes.deletes {
            self.rows.remove(key);
        }
    }

    fn call(&mut self, what: &str, methargs: &str) {
        let since = Instant::now();
        let message = Message {
            methargs: CapData { body: methargs.into(), slots: vec![] },
            result: Some(VRef::Promise(Side::Import, 1)),
        };
        let delivery = VatDelivery::Message { target: VRef::ROOT, message };
        self.deliver(what, delivery, since);
    }

    fn deliver(&mut self, what: &str, delivery: VatDelivery, since: Instant) {
        self.workers.deliver(VatId(1), VatIncarnation(self.run), vec![(DeliveryId(1), delivery)]).unwrap();
        let VatEvent::Replied { replies, .. } = self.events.recv().unwrap() else { panic!("no reply") };
        println!("{what}: {:?}, {:?}", since.elapsed(), replies[0].1.outcome);
        let changes = replies.into_iter().next().unwrap().1.store;
        self.apply(changes);
    }
}

fn main() {
    let (tx, events) = channel();
    let workers = Workers::new(1, move |event| drop(tx.send(event)));
    let mut bench = Bench { workers, events, rows: Rows::new(), run: 0 };
    for (what, source) in [("plain", PLAIN), ("with patterns and exos", GUARDED)] {
        let since = Instant::now();
        for _ in 0..100 {
            bench.rows.clear();
            bench.start(source);
        }
        println!("launch, {what}: {:?}", since.elapsed() / 100);
    }
    bench.rows.clear();
    bench.start(SOURCE);
    bench.call("100000 instances in one delivery, heap of 64 MiB", r##"#["instances",[100000]]"##);
    let since = Instant::now();
    bench.start(SOURCE);
    println!("restart with them, {} rows: {:?}", bench.rows.len(), since.elapsed());
    bench.call("one call to each", r##"#["bumpAll",[]]"##);
    bench.deliver("bringOutYourDead", VatDelivery::BringOutYourDead, Instant::now());
    bench.rows.clear();
    bench.start(SOURCE);
    bench.call("100000 entries of baggage in one delivery", r##"#["fill",[100000]]"##);
    let since = Instant::now();
    bench.start(SOURCE);
    println!("restart with them: {:?}", since.elapsed());
    bench.call("a cursor over them", r##"#["walk",[]]"##);
}
