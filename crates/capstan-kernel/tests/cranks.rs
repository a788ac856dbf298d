//! One item at a time, all of it or nothing (02 §2, §3), and names that never come twice (01 §2).

use crate::harness::*;
use capstan_kernel::host_op::{Answer, HostOp};
use capstan_kernel::input::Input;
use capstan_model::capdata::CapData;
use capstan_model::id::{KRef, VatId};
use capstan_model::vat::{VatDelivery, VatFault, VatSyscall};
use capstan_store::schema::{RunQueue, Vats};
use std::collections::BTreeSet;

#[test]
fn k31_two_items_are_two_cranks_also_when_they_are_handed_over_together() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.hold("alice");
    world.send(vats.root("alice"), "zero", &[]);
    // These wait for the first, and go together once it is answered.
    let (one, two) = (world.send(vats.root("alice"), "one", &[]), world.send(vats.root("alice"), "two", &[]));
    world.run();
    assert_eq!((world.kept("alice").len(), world.rows::<RunQueue>()), (1, 3));
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("two") => fault(VatFault::Limit("memory".into())),
        _ => obliging(delivery),
    });
    world.release("alice");
    // What the first crank did stands, although the second was undone and ended the vat.
    assert!(!world.settled(one).0);
    let (rejected, value) = world.settled(two);
    assert_eq!((rejected, code(&value).as_str()), (true, "INTERNAL_ERROR"));
}

#[test]
fn k32_gc_work_comes_first_then_the_reap_then_the_message() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("make") => ok(returns(delivery, reference(vref("o+10")))),
        _ => obliging(delivery),
    });
    world.call(vats.root("alice"), "make", &[]);
    world.hold("alice");
    world.send(vats.root("alice"), "busy", &[]);
    world.run();
    world.send(vats.root("alice"), "late", &[]);
    let collection = world.ask(HostOp::Collect);
    world.run();
    world.log.clear();
    world.release("alice");
    let shown = world.delivered("alice").into_iter().map(|delivery| match &delivery {
        VatDelivery::Message { .. } => method(&delivery).unwrap_or_default(),
        VatDelivery::DropExports(_) => "dropExports".into(),
        VatDelivery::RetireExports(_) => "retireExports".into(),
        VatDelivery::BringOutYourDead => "bringOutYourDead".into(),
        other => format!("{other:?}"),
    });
    let shown: Vec<_> = shown.take(5).collect();
    assert_eq!(shown, ["busy", "dropExports", "retireExports", "bringOutYourDead", "late"]);
    assert!(matches!(world.answers.get(&collection), Some(Ok(Answer::Collected { .. }))));
}

#[test]
fn k33_an_item_whose_crank_was_undone_is_tried_again_before_the_next() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    let mut deaths = 1;
    world.script("alice", move |delivery| {
        let mut reply = ok(vec![send("o-1", "hello", &[], None)]);
        reply.syscalls.extend(returns(delivery, CapData::data("#1")));
        if deaths > 0 {
            deaths -= 1;
            reply.outcome = Err(VatFault::WorkerDied("gone".into()));
        }
        reply
    });
    world.hold("alice");
    let bob = KRef::from(vats.root("bob"));
    let waits =
        [world.send(vats.root("alice"), "one", &[bob]), world.send(vats.root("alice"), "two", &[bob])];
    world.run();
    world.log.clear();
    world.release("alice");
    assert_eq!(world.methods("alice"), ["one", "one", "two"]);
    assert_eq!(world.methods("bob"), ["hello", "hello"], "the undone crank has sent nothing");
    assert!(waits.iter().all(|wait| !world.settled(*wait).0));
}

#[test]
fn k34_a_fatal_crank_rejects_the_hosts_wait_and_ends_the_vat_at_once() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |_| ok(vec![send("o-77", "x", &[], None)]));
    world.hold("alice");
    let wait = world.send(vats.root("alice"), "boom", &[]);
    world.run();
    let [(id, delivery)] = &world.kept("alice")[..] else { panic!("{:?}", world.kept("alice")) };
    let reply = (world.scripts.get_mut("alice").unwrap())(delivery);
    let (vat, id) = (vats.vat("alice"), *id);
    let incarnation = world.kernel.db().get::<Vats>(&vat).unwrap().incarnation;
    // One input: the wait is over, the worker is stopped, and the vat takes nothing any more.
    world.input(Input::VatReplied { vat, incarnation, replies: vec![(id, reply)] });
    assert!(world.settled(wait).1.body.contains("[KERNEL:VAT_FATAL:ILLEGAL_SYSCALL]"));
    assert!(world.request(HostOp::PingVat(vat)).is_err());
    world.lose("alice");
    assert_eq!((world.stops.last(), world.rows::<RunQueue>()), (Some(&(vat, incarnation)), 0));
}

#[test]
fn k36_k37_messages_that_come_while_a_crank_aborts_and_after_are_all_delivered() {
    for faults in [VatFault::Limit("memory".into()), VatFault::WorkerDied("gone".into())] {
        let mut world = World::new();
        let vats = world.launch(&["alice", "bob"]);
        let mut fault_once = Some(faults.clone());
        world.script("alice", move |delivery| match fault_once.take() {
            Some(once) => fault(once),
            None => obliging(delivery),
        });
        world.hold("alice");
        world.send(vats.root("alice"), "boom", &[]);
        world.run();
        let during: Vec<_> = (0..3).map(|_| world.send(vats.root("bob"), "during", &[])).collect();
        world.release("alice");
        assert!(during.iter().all(|wait| !world.settled(*wait).0), "{faults}");
        let after: Vec<_> = (0..5).map(|_| world.send(vats.root("bob"), "after", &[])).collect();
        world.run();
        assert!(after.iter().all(|wait| !world.settled(*wait).0), "{faults}");
        assert_eq!((world.methods("bob").len(), world.rows::<RunQueue>()), (8, 0));
    }
}

/// The reference lets callers wait for the end of the crank in progress. Here an input is handled to its end before
/// the next, so there is nothing to wait for: whoever asks while a vat works sees the last boundary at once.
#[test]
fn k30_nobody_waits_for_a_crank_and_its_end_answers_all_who_wait_for_its_result() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |_| ok(vec![]));
    let promise = {
        world.script("bob", |delivery| match method(delivery).as_deref() {
            Some("make") => ok(returns(delivery, reference(vref("p+5")))),
            Some("settle") => ok(vec![fulfil(vref("p+5"), reference(vref("o+10")))]),
            _ => obliging(delivery),
        });
        world.call(vats.root("bob"), "make", &[]).1.slots[0]
    };
    world.hold("bob");
    world.send(vats.root("bob"), "settle", &[]);
    world.run();
    let waits: Vec<_> = (0..3).map(|_| world.send(promise, "x", &[])).collect();
    for op in [HostOp::Status, HostOp::ListVats, HostOp::PingVat(vats.vat("bob"))] {
        let request = world.ask(op);
        assert!(matches!(world.answers.get(&request), Some(Ok(_))), "not at once");
    }
    assert!(waits.iter().all(|wait| !world.answers.contains_key(wait)));
    world.release("bob");
    assert!(waits.iter().all(|wait| !world.settled(*wait).0));
}

/// A small generator, so that a run can be told by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[test]
fn names_never_come_twice_whatever_is_undone_restarted_or_killed() {
    for seed in 1..=12 {
        let mut dice = Dice(seed);
        let mut world = World::new();
        let mut seen: BTreeSet<KRef> = BTreeSet::new();
        let mut vats_seen: BTreeSet<VatId> = BTreeSet::new();
        let mut current: Option<Launched> = None;
        let mut made = 9;
        for _ in 0..60 {
            let vats = match current.take() {
                Some(vats) => vats,
                None => {
                    world.scripts.remove("alice");
                    let vats = world.launch(&["alice"]);
                    assert!(vats_seen.insert(vats.vat("alice")), "seed {seed}: {:?}", vats.vat("alice"));
                    assert!(seen.insert(vats.root("alice").into()), "seed {seed}: the root");
                    vats
                }
            };
            let (vat, root) = (vats.vat("alice"), vats.root("alice"));
            made += 2;
            let names = (vref(&format!("o+{made}")), vref(&format!("p+{made}")));
            let fatal = dice.roll(5) == 0;
            world.script("alice", move |delivery| {
                let slots = vec![names.0, names.1];
                let mut out = returns(delivery, CapData { body: "#[\"$0\",\"&1\"]".into(), slots });
                if fatal && message(delivery).is_some() {
                    out.push(VatSyscall::Subscribe(vref("p-999")));
                }
                ok(out)
            });
            let (rejected, value) = world.call(root, "make", &[]);
            assert_eq!(rejected, fatal, "seed {seed}: {value:?}");
            for slot in value.slots {
                assert!(seen.insert(slot), "seed {seed}: {slot} came twice");
            }
            match dice.roll(6) {
                _ if fatal => continue,
                0 => drop(world.request(HostOp::RestartVat(vat)).expect("restarted")),
                1 => world = world.reboot(),
                2 => {
                    world.request(HostOp::TerminateVat(vat)).expect("terminated");
                    continue;
                }
                3 => drop(world.request(HostOp::Collect).expect("collected")),
                _ => {}
            }
            current = Some(vats);
        }
    }
}
