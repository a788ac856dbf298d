//! What stops a vat that takes too much (04 §8).

use crate::world::{Vat, start_of};
use capstan_model::vat::*;

const SOURCE: &str = "import { Far, E } from '@endo/far';
export const buildRootObject = (_p, _q, baggage) => Far('root', {
  loop() { for (;;); }, unending() { const more = () => new Proxy({}, { getPrototypeOf: more }); try { harden(more()); } catch { for (;;); } }, caught() { try { for (;;); } catch {} finally { for (;;); } }, async turns() { for (;;) await 0; },
  eat() { const a = []; for (;;) a.push('x'.repeat(100000) + a.length); },
  eatCaught() { let a = []; try { for (;;) a.push('x'.repeat(100000) + a.length); } catch { a = undefined; } return 'survived'; },
  deep() { const f = n => 1 + f(n); return f(1); }, json: () => JSON.parse('['.repeat(200000)),
  many(x) { for (let i = 0; i < 2000; i += 1) E.sendOnly(x).m(); }, big(x) { return E(x).m('y'.repeat(20000)); },
  bigAnswer: () => 'y'.repeat(20000), store: () => baggage.init('k', 'y'.repeat(3000)),
  native: () => { let a = []; for (let i = 0; i < 28; i += 1) a = [a, a]; return a.flat(Infinity).length; }, ok: () => 1 });";

fn limits() -> VatLimits {
    VatLimits {
        crank_deadline_ms: 300,
        memory_bytes_max: 16 << 20,
        syscalls_max: 1000,
        body_units_max: 10_000,
        slots_max: 100,
        store_bytes_max: 2000,
        ..VatLimits::default()
    }
}

fn vat() -> Vat {
    Vat::try_start(start_of(1, SOURCE, limits(), Vec::new())).unwrap()
}

/// Where the time is not what is tried, a busy machine must not decide.
fn patient() -> Vat {
    let limits = VatLimits { crank_deadline_ms: 60_000, ..limits() };
    Vat::try_start(start_of(1, SOURCE, limits, Vec::new())).unwrap()
}

fn fault(method: &str, slots: &[&str]) -> String {
    fault_of(vat(), method, slots)
}

fn fault_of(mut vat: Vat, method: &str, slots: &[&str]) -> String {
    let args = if slots.is_empty() { "" } else { "\"$0\"" };
    match vat.call(&format!("#[\"{method}\",[{args}]]"), slots).outcome {
        Err(VatFault::Limit(text)) => text,
        other => panic!("{method}: {other:?}"),
    }
}

#[test]
fn k133_endless_work_meets_the_deadline() {
    for method in ["loop", "caught", "turns", "unending"] {
        assert_eq!(fault(method, &[]), "crank deadline of 300 ms exceeded");
    }
}

#[test]
fn a_memory_eater_is_stopped_even_if_it_catches_the_error() {
    for method in ["eat", "eatCaught"] {
        assert_eq!(fault_of(patient(), method, &[]), "memory limit of 16777216 bytes exceeded");
    }
}

#[test]
fn deep_recursion_is_the_programs_own_error() {
    let mut vat = patient();
    for method in ["deep", "json"] {
        let (rejected, body, _) = vat.answer(&format!("#[\"{method}\",[]]"), &[]);
        assert!(rejected, "{body}");
    }
    assert_eq!(vat.answer(r##"#["ok",[]]"##, &[]).1, "#1");
}

#[test]
fn syscalls_and_the_store_are_bounded() {
    assert_eq!(fault_of(patient(), "many", &["o-1"]), "limit of 1000 syscalls per crank exceeded");
    assert_eq!(fault_of(patient(), "store", &[]), "vat store limit of 2000 bytes exceeded");
}

#[test]
fn too_large_a_send_throws_and_too_large_an_answer_ends_the_vat() {
    let (rejected, body, _) = patient().answer(r##"#["big",["$0"]]"##, &["o-1"]);
    assert!(rejected && body.contains("syscall capdata too large"), "{body}");
    let reply = patient().call(r##"#["bigAnswer",[]]"##, &[]);
    assert!(
        matches!(&reply.syscalls[..], [VatSyscall::Exit { failure: true, info }] if info.body.contains("too large")),
        "{reply:?}"
    );
}

#[test]
fn a_vat_stuck_in_a_native_loop_is_given_up() {
    assert_eq!(fault("native", &[]), "crank deadline of 300 ms exceeded");
}

#[test]
fn a_vat_that_loops_while_starting_fails_to_start() {
    let start = start_of(1, "for (;;);", limits(), Vec::new());
    assert_eq!(Vat::try_start(start).err().unwrap(), "crank deadline of 300 ms exceeded");
}

#[test]
fn k133_the_neighbours_of_a_stuck_vat_are_reported_and_can_start_again() {
    use capstan_js::{OrderError, VatEvent, Workers};
    use capstan_model::capdata::Message;
    use capstan_model::id::VatId;
    use std::time::Duration;
    let (tx, events) = std::sync::mpsc::channel();
    let workers = Workers::new(1, move |event| drop(tx.send(event)));
    let next = || events.recv_timeout(Duration::from_secs(20)).unwrap();
    for id in [1, 2] {
        workers.start(start_of(id, SOURCE, limits(), Vec::new())).unwrap();
        assert!(matches!(next(), VatEvent::Started { result: Ok(_), .. }));
    }
    let call = |method: &str| {
        let methargs = crate::world::cap(&format!("#[\"{method}\",[]]"), &[]);
        let message = Message { methargs, result: Some("p-1".parse().unwrap()) };
        vec![(DeliveryId(1), VatDelivery::Message { target: "o+0".parse().unwrap(), message })]
    };
    workers.deliver(VatId(1), VatIncarnation(1), call("native")).unwrap();
    assert!(matches!(next(), VatEvent::Died { vat: VatId(1), fault: VatFault::Limit(_), .. }));
    assert!(matches!(next(), VatEvent::Died { vat: VatId(2), fault: VatFault::WorkerDied(_), .. }));
    let mut again = start_of(2, SOURCE, limits(), Vec::new());
    again.incarnation = VatIncarnation(2);
    workers.start(again).unwrap();
    assert!(matches!(next(), VatEvent::Started { result: Ok(_), .. }));
    assert_eq!(
        workers.deliver(VatId(2), VatIncarnation(1), call("ok")),
        Err(OrderError::NotLoaded(VatId(2)))
    );
    workers.deliver(VatId(2), VatIncarnation(2), call("ok")).unwrap();
    let VatEvent::Replied { incarnation, replies, .. } = next() else { panic!("no reply") };
    assert_eq!((incarnation, replies.len()), (VatIncarnation(2), 1));
}

#[test]
fn nothing_runs_after_a_fault() {
    use capstan_js::{VatEvent, Workers};
    use capstan_model::id::VatId;
    use std::time::Duration;
    let (tx, events) = std::sync::mpsc::channel();
    let workers = Workers::new(1, move |event| drop(tx.send(event)));
    let next = || events.recv_timeout(Duration::from_secs(20)).unwrap();
    workers.start(start_of(1, SOURCE, limits(), Vec::new())).unwrap();
    assert!(matches!(next(), VatEvent::Started { result: Ok(_), .. }));
    let message = |method: &str| {
        let methargs = crate::world::cap(&format!("#[\"{method}\",[]]"), &[]);
        let message = capstan_model::capdata::Message { methargs, result: None };
        VatDelivery::Message { target: "o+0".parse().unwrap(), message }
    };
    let batch =
        ["ok", "loop", "ok"].iter().zip(1..).map(|(method, id)| (DeliveryId(id), message(method))).collect();
    workers.deliver(VatId(1), VatIncarnation(1), batch).unwrap();
    let VatEvent::Replied { replies, .. } = next() else { panic!("no reply") };
    let outcomes: Vec<_> = replies.iter().map(|(id, reply)| (id.0, reply.outcome.is_ok())).collect();
    assert_eq!(outcomes, [(1, true), (2, false)]);
}

#[test]
fn k145_orders_out_of_turn_are_errors() {
    use capstan_js::{OrderError, VatEvent, Workers};
    use capstan_model::id::VatId;
    use std::time::Duration;
    let (tx, events) = std::sync::mpsc::channel();
    let workers = Workers::new(1, move |event| drop(tx.send(event)));
    let next = || events.recv_timeout(Duration::from_secs(20)).unwrap();
    let wake = || vec![(DeliveryId(1), VatDelivery::Wake)];
    let early = workers.deliver(VatId(1), VatIncarnation(1), wake());
    assert_eq!(early.unwrap_err().to_string(), "cannot deliver before vat is loaded: v1");
    workers.start(start_of(1, SOURCE, limits(), Vec::new())).unwrap();
    let again = workers.start(start_of(1, SOURCE, limits(), Vec::new()));
    assert_eq!(again, Err(OrderError::StartedBefore(VatId(1))));
    // The first start stands, and is told of once.
    workers.deliver(VatId(1), VatIncarnation(1), wake()).unwrap();
    assert!(matches!(next(), VatEvent::Started { result: Ok(_), .. }));
    assert!(matches!(next(), VatEvent::Replied { .. }));
    // What was ended is not there; ending it again does nothing.
    workers.stop(VatId(1), VatIncarnation(1));
    workers.stop(VatId(1), VatIncarnation(1));
    assert_eq!(workers.deliver(VatId(1), VatIncarnation(1), wake()), Err(OrderError::NotLoaded(VatId(1))));
    // What no vat understands does not reach one.
    let unknown = serde_json::json!({"ChangeVatOptions": {}});
    let why = serde_json::from_value::<VatDelivery>(unknown).unwrap_err().to_string();
    assert!(why.starts_with("unknown variant `ChangeVatOptions`"), "{why}");
}
