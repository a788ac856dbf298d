//! Dropping and retiring references (04 §6.9).

use crate::world::{Vat, cap};
use capstan_model::capdata::{Message, Resolution};
use capstan_model::refs::VRef;
use capstan_model::vat::*;

const SOURCE: &str = "import { Far, E } from '@endo/far';
export const buildRootObject = () => { let held; const seen = new WeakMap(); let mine = Far('mine', {}); return Far('root', {
  hold: x => { held = x; seen.set(x, 1); }, drop: () => { held = undefined; }, cycle: x => { const c = { x }; c.c = c; return 1; },
  known: x => seen.has(x), give: () => mine, lose: () => { mine = undefined; }, make: () => Far('thing', {}),
  ask: async x => { const a = await E(x).q(); return a; }, once: () => Far('once', { fail: x => E(x).q().then(() => () => {}) }) }); };";

fn refs(list: &[&str]) -> Vec<VRef> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn bring_out_your_dead_finds_dropped_presences() {
    let mut vat = Vat::start(SOURCE);
    for n in [12, 3, 7] {
        vat.call(r##"#["hold",["$0"]]"##, &[&format!("o-{n}")]);
    }
    let reply = vat.deliver(VatDelivery::BringOutYourDead);
    assert_eq!(
        reply.syscalls,
        [VatSyscall::DropImports(refs(&["o-3", "o-12"])), VatSyscall::RetireImports(refs(&["o-3", "o-12"]))]
    );
    assert_eq!(vat.answer(r##"#["known",["$0"]]"##, &["o-7"]).1, "#true");
    assert_eq!(vat.deliver(VatDelivery::BringOutYourDead).syscalls, []);
    vat.call(r##"#["drop",[]]"##, &[]);
    assert_eq!(vat.deliver(VatDelivery::BringOutYourDead).syscalls.len(), 2);
}

#[test]
fn a_presence_seen_again_before_the_collection_is_not_dropped() {
    let mut vat = Vat::start(SOURCE);
    vat.call(r##"#["hold",["$0"]]"##, &["o-1"]);
    vat.call(r##"#["drop",[]]"##, &[]);
    vat.call(r##"#["hold",["$0"]]"##, &["o-1"]);
    assert_eq!(vat.deliver(VatDelivery::BringOutYourDead).syscalls, []);
}

#[test]
fn a_dropped_export_that_dies_is_retired_and_a_living_one_comes_back() {
    let mut vat = Vat::start(SOURCE);
    assert_eq!(vat.answer(r##"#["give",[]]"##, &[]).2, ["o+10"]);
    vat.deliver(VatDelivery::DropExports(refs(&["o+10"])));
    assert_eq!(vat.deliver(VatDelivery::BringOutYourDead).syscalls, [], "the vat itself holds it");
    assert_eq!(vat.answer(r##"#["give",[]]"##, &[]).2, ["o+10"]);
    vat.deliver(VatDelivery::DropExports(refs(&["o+10"])));
    vat.call(r##"#["lose",[]]"##, &[]);
    assert_eq!(
        vat.deliver(VatDelivery::BringOutYourDead).syscalls,
        [VatSyscall::RetireExports(refs(&["o+10"]))]
    );
}

#[test]
fn a_call_whose_object_has_died_meanwhile_still_fails_by_its_name() {
    let mut vat = Vat::start(SOURCE);
    assert_eq!(vat.answer(r##"#["once",[]]"##, &[]).2, ["o+10"]);
    let methargs = cap(r##"#["fail",["$0"]]"##, &["o-5"]);
    let message = Message { methargs, result: Some("p-7".parse().unwrap()) };
    let reply = vat.deliver(VatDelivery::Message { target: "o+10".parse().unwrap(), message });
    let [VatSyscall::Send { message, .. }, VatSyscall::Subscribe(_)] = reply.syscalls.as_slice() else {
        panic!("{reply:?}")
    };
    let promise = message.result.unwrap();
    vat.deliver(VatDelivery::DropExports(refs(&["o+10"])));
    let dead = vat.deliver(VatDelivery::BringOutYourDead).syscalls;
    assert!(dead.contains(&VatSyscall::RetireExports(refs(&["o+10"]))), "{dead:?}");
    let reply = vat.deliver(VatDelivery::Notify(vec![Resolution {
        promise,
        rejected: false,
        value: cap("#1", &[]),
    }]));
    let [VatSyscall::Resolve(batch)] = reply.syscalls.as_slice() else { panic!("{reply:?}") };
    assert!(batch[0].rejected && batch[0].value.body.contains(r#"In \"fail\" method of (once): result: "#));
}

#[test]
fn a_retired_export_gets_a_new_number() {
    let mut vat = Vat::start(SOURCE);
    vat.answer(r##"#["give",[]]"##, &[]);
    vat.deliver(VatDelivery::DropExports(refs(&["o+10"])));
    vat.deliver(VatDelivery::RetireExports(refs(&["o+10"])));
    assert_eq!(vat.answer(r##"#["give",[]]"##, &[]).2, ["o+11"]);
    assert_eq!(vat.deliver(VatDelivery::RetireImports(refs(&["o-1"]))).outcome, Ok(()));
}

#[test]
fn k76_a_stale_notify_is_ignored_and_a_known_one_is_forgotten() {
    let mut vat = Vat::start(SOURCE);
    let reply = vat.call(r##"#["ask",["$0"]]"##, &["o-1"]);
    assert_eq!(reply.syscalls.len(), 2, "send and subscribe: {reply:?}");
    let settled = |p: &str| {
        VatDelivery::Notify(vec![Resolution {
            promise: p.parse().unwrap(),
            rejected: false,
            value: cap("#1", &[]),
        }])
    };
    assert_eq!(vat.deliver(settled("p-77")).syscalls, []);
    assert!(matches!(&vat.deliver(settled("p+5")).syscalls[..], [VatSyscall::Resolve(_)]));
    assert_eq!(vat.deliver(settled("p+5")).syscalls, []);
}

#[test]
fn an_unknown_export_is_a_delivery_error() {
    let mut vat = Vat::start(SOURCE);
    let message = Message { methargs: cap("#[\"x\",[]]", &[]), result: None };
    let reply = vat.deliver(VatDelivery::Message { target: "o+10".parse().unwrap(), message });
    assert_eq!(reply.outcome, Err(VatFault::Runtime("I don't remember allocating \"o+10\"".into())));
}
