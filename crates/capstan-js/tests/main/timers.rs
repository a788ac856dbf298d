//! Timers: what a vat does between its deliveries (02 §6, 04 §2).

use crate::world::{Vat, start_of};
use capstan_js::{VatEvent, Workers};
use capstan_model::id::VatId;
use capstan_model::vat::*;
use std::time::Duration;

const TIMERS: [&str; 4] = ["setTimeout", "clearTimeout", "setInterval", "clearInterval"];
const SOURCE: &str = "import { Far, E } from '@endo/far';
export const buildRootObject = (powers, _q, baggage) => Far('root', {
  later(target, ms) { setTimeout((...args) => E.sendOnly(target).ring(...args), ms, 'a', 1); },
  two(target) { setTimeout(async () => { E.sendOnly(target).one(); await null; E.sendOnly(target).two(); }, 0);
    setTimeout(() => E.sendOnly(target).three(), 0); },
  tick(target) { let n = 0; const id = setInterval(() => { E.sendOnly(target).tick(n += 1); if (n === 3) clearInterval(id); }, 1); },
  nested(target) { setTimeout(() => setTimeout(() => E.sendOnly(target).inner(), 0), 0); },
  cleared(target) { const id = setTimeout(() => E.sendOnly(target).ring(), 0); clearTimeout(id); setTimeout(() => E.sendOnly(target).other(), 0); },
  clearing(target) { let b; setTimeout(() => clearTimeout(b), 0); b = setTimeout(() => E.sendOnly(target).ring(), 0); },
  keep() { setTimeout(() => baggage.init('k', 1), 0); }, exit() { setTimeout(() => powers.exitVatWithFailure('enough'), 0); },
  fails() { setTimeout(() => { throw Error('in a timer'); }, 0); }, loop() { setTimeout(() => { for (;;); }, 0); },
  long() { return setTimeout(() => {}, 1e12); }, text() { setTimeout('1 + 1', 0); }, guess(id) { clearTimeout(id); clearInterval(id); },
  many() { for (let i = 0; i < 20000; i += 1) setTimeout(() => {}, 1e6); } });";

fn vat() -> Vat {
    Vat::endowed(SOURCE, &TIMERS)
}

/// The bodies of what a reply sends.
fn sent(reply: &VatReply) -> Vec<String> {
    assert_eq!(reply.outcome, Ok(()));
    let body = |syscall: &VatSyscall| match syscall {
        VatSyscall::Send { message, .. } => message.methargs.body.to_string(),
        other => panic!("unexpected {other:?}"),
    };
    reply.syscalls.iter().map(body).collect()
}

#[test]
fn a_timer_is_a_crank_of_its_own() {
    let mut vat = vat();
    let reply = vat.call(r##"#["later",["$0",0]]"##, &["o-1"]);
    assert!(matches!(reply.syscalls[..], [VatSyscall::Resolve(_)]), "{reply:?}");
    assert_eq!(sent(&vat.wake()), [r##"#["ring",["a",1]]"##]);
    assert_eq!(sent(&vat.deliver(VatDelivery::Wake)), [""; 0], "woken for nothing");
}

#[test]
fn what_is_due_together_is_one_crank_and_each_timer_runs_to_its_end() {
    let mut vat = vat();
    vat.call(r##"#["two",["$0"]]"##, &["o-1"]);
    assert_eq!(sent(&vat.wake()), [r##"#["one",[]]"##, r##"#["two",[]]"##, r##"#["three",[]]"##]);
}

#[test]
fn an_interval_goes_on_until_it_is_cleared() {
    let mut vat = vat();
    vat.call(r##"#["tick",["$0"]]"##, &["o-1"]);
    for n in 1..=3 {
        assert_eq!(sent(&vat.wake()), [format!("#[\"tick\",[{n}]]")]);
    }
    assert!(!vat.rings_within(Duration::from_millis(30)));
}

#[test]
fn a_timer_set_by_a_timer_waits_for_the_next_crank() {
    let mut vat = vat();
    vat.call(r##"#["nested",["$0"]]"##, &["o-1"]);
    assert_eq!(sent(&vat.wake()), [""; 0]);
    assert_eq!(sent(&vat.wake()), [r##"#["inner",[]]"##]);
}

#[test]
fn a_cleared_timer_never_fires() {
    let mut vat = vat();
    vat.call(r##"#["cleared",["$0"]]"##, &["o-1"]);
    assert_eq!(sent(&vat.wake()), [r##"#["other",[]]"##]);
    vat.call(r##"#["clearing",["$0"]]"##, &["o-1"]);
    assert_eq!(sent(&vat.wake()), [""; 0], "cleared by one that was due with it");
}

#[test]
fn an_asynchronous_crank_has_the_powers_and_the_limits_of_any_other() {
    let mut one = vat();
    one.call(r##"#["keep",[]]"##, &[]);
    assert!(one.wake().store.sets.iter().any(|(key, _)| &**key == "vc.1.sk"));
    one.call(r##"#["exit",[]]"##, &[]);
    assert!(matches!(one.wake().syscalls[..], [VatSyscall::Exit { failure: true, .. }]));
    one.call(r##"#["fails",[]]"##, &[]);
    assert_eq!(one.wake().outcome, Ok(()));
    assert!(one.logs.iter().any(|line| line.contains("in a timer")), "{:?}", one.logs);
    let mut start = start_of(1, SOURCE, VatLimits { crank_deadline_ms: 200, ..VatLimits::default() }, vec![]);
    start.endowments.globals = TIMERS.map(Into::into).to_vec();
    let mut one = Vat::try_start(start).unwrap();
    one.call(r##"#["loop",[]]"##, &[]);
    assert_eq!(one.wake().outcome, Err(VatFault::Limit("crank deadline of 200 ms exceeded".into())));
}

#[test]
fn timers_are_bounded_and_take_no_program_texts() {
    let mut vat = vat();
    assert_eq!(vat.answer(r##"#["long",[]]"##, &[]).1, "#1");
    let (rejected, body, _) = vat.answer(r##"#["text",[]]"##, &[]);
    assert!(rejected && body.contains("a timer needs a function"), "{body}");
    let (rejected, body, _) = vat.answer(r##"#["many",[]]"##, &[]);
    assert!(rejected && body.contains("too many timers"), "{body}");
}

#[test]
fn k139_timers_belong_to_one_vat_and_end_with_it() {
    let (tx, events) = std::sync::mpsc::channel();
    let workers = Workers::new(1, move |event| drop(tx.send(event)));
    let next = || events.recv_timeout(Duration::from_secs(20)).unwrap();
    for id in [1, 2] {
        let mut start = start_of(id, SOURCE, VatLimits::default(), Vec::new());
        start.endowments.globals = TIMERS.map(Into::into).to_vec();
        workers.start(start).unwrap();
        assert!(matches!(next(), VatEvent::Started { result: Ok(_), .. }));
    }
    let call = |id: u32, body: &str, slots: &[&str]| {
        let message =
            capstan_model::capdata::Message { methargs: crate::world::cap(body, slots), result: None };
        let delivery = VatDelivery::Message { target: "o+0".parse().unwrap(), message };
        workers.deliver(VatId(id), VatIncarnation(1), vec![(DeliveryId(id.into()), delivery)]).unwrap();
    };
    // The same number in both: the other's is not touched.
    call(1, r##"#["later",["$0",60]]"##, &["o-1"]);
    call(2, r##"#["later",["$0",1000000]]"##, &["o-1"]);
    call(2, r##"#["guess",[1]]"##, &[]);
    for _ in 0..3 {
        assert!(matches!(next(), VatEvent::Replied { .. }));
    }
    assert!(matches!(next(), VatEvent::Woken { vat: VatId(1), .. }));
    // What is pending at a vat's end never comes due.
    call(2, r##"#["later",["$0",10]]"##, &["o-1"]);
    workers.stop(VatId(2), VatIncarnation(1));
    assert!(matches!(next(), VatEvent::Replied { vat: VatId(2), .. }));
    workers.deliver(VatId(1), VatIncarnation(1), vec![(DeliveryId(9), VatDelivery::Wake)]).unwrap();
    assert!(matches!(next(), VatEvent::Replied { vat: VatId(1), .. }));
    assert!(events.recv_timeout(Duration::from_millis(60)).is_err());
}
