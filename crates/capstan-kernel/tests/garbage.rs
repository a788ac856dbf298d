//! Garbage collection (02 §7).

use crate::harness::*;
use capstan_kernel::host_op::{Answer, HostOp};
use capstan_model::capdata::CapData;
use capstan_model::id::{EndpointId, KRef, ObjectId};
use capstan_model::vat::{VatDelivery, VatSyscall};
use capstan_store::schema::{Clist, GcActions, Objects, Promises, Reaps};

/// Alice exports `o+10` to the host and to bob, who keeps it until the host says what to do with it.
fn shared() -> (World, Launched, ObjectId) {
    let mut world = World::new();
    let vats = world.launch(&["boss", "alice", "bob"]);
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("make") => ok(returns(delivery, reference(vref("o+10")))),
        _ => obliging(delivery),
    });
    world.script("bob", |delivery| {
        let mut out = returns(delivery, CapData::data("#1"));
        let known = vec![vref("o-1")];
        match method(delivery).as_deref() {
            Some("drop") => out.push(VatSyscall::DropImports(known)),
            Some("retire") => out.push(VatSyscall::RetireImports(known)),
            _ => {}
        }
        ok(out)
    });
    let thing = world.call(vats.root("alice"), "make", &[]).1.slots[0];
    world.call(vats.root("bob"), "keep", &[thing]);
    world.request(HostOp::Collect).expect("collected");
    world.log.clear();
    (world, vats, thing.object().expect("an object"))
}

fn counts(world: &World, ko: ObjectId) -> Option<(u64, u64)> {
    world.kernel.db().get::<Objects>(&ko).map(|row| (row.reachable, row.recognizable))
}

#[test]
fn k96_k97_k98_k99_an_object_is_dropped_then_retired_then_gone() {
    let (mut world, vats, thing) = shared();
    assert_eq!(counts(&world, thing), Some((1, 1)));
    world.call(vats.root("bob"), "drop", &[]);
    assert_eq!(counts(&world, thing), Some((0, 1)));
    assert_eq!(world.delivered("alice"), [VatDelivery::DropExports(vec![vref("o+10")])]);
    world.call(vats.root("bob"), "retire", &[]);
    assert_eq!(world.delivered("alice").pop(), Some(VatDelivery::RetireExports(vec![vref("o+10")])));
    assert_eq!(counts(&world, thing), None);
    assert!(world.kernel.db().iter::<Clist>().all(|((_, kref), _)| *kref != KRef::Object(thing)));
    assert_eq!(world.rows::<GcActions>(), 0);
}

#[test]
fn k19_a_dropped_import_that_is_sent_again_is_reachable_again() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    let alice = KRef::from(vats.root("alice"));
    world.script("bob", |delivery| {
        let mut out = returns(delivery, CapData::data("#1"));
        if method(delivery).as_deref() == Some("drop") {
            out.push(VatSyscall::DropImports(vec![vref("o-1")]));
        }
        ok(out)
    });
    world.call(vats.root("bob"), "take", &[alice]);
    let whole = counts(&world, vats.root("alice"));
    world.call(vats.root("bob"), "drop", &[]);
    let (reachable, recognizable) = whole.expect("alice");
    assert_eq!(counts(&world, vats.root("alice")), Some((reachable - 1, recognizable)));
    world.call(vats.root("bob"), "take", &[alice]);
    assert_eq!(counts(&world, vats.root("alice")), whole);
}

#[test]
fn k100_drops_come_before_retirements_and_lower_vats_first() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| match message(delivery) {
        Some(m) => {
            let bob = m.methargs.slots[0].to_string();
            let mut out = returns(delivery, CapData::data("#1"));
            out.push(send(&bob, "x", &[vref("o+11"), vref("o+10")], None));
            ok(out)
        }
        None => ok(vec![]),
    });
    world.script("bob", |delivery| match message(delivery) {
        Some(m) => {
            let both = m.methargs.slots.clone();
            ok(vec![VatSyscall::DropImports(both.clone()), VatSyscall::RetireImports(both)])
        }
        None => ok(vec![]),
    });
    world.call(vats.root("alice"), "go", &[vats.root("bob").into()]);
    // k104: one delivery a kind, sorted by object.
    let both = vec![vref("o+11"), vref("o+10")];
    let told: Vec<_> = world.delivered("alice").split_off(1);
    assert_eq!(told, [VatDelivery::DropExports(both.clone()), VatDelivery::RetireExports(both)]);
}

#[test]
fn k106_k41_reaps_are_performed_while_idle_and_once() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    assert!(matches!(world.request(HostOp::Collect), Ok(Answer::Collected { .. })));
    let reaps = |world: &World, name: &str| {
        world.delivered(name).iter().filter(|d| **d == VatDelivery::BringOutYourDead).count()
    };
    assert!(reaps(&world, "alice") >= 1 && reaps(&world, "bob") >= 1);
    world.log.clear();
    world.hold("alice");
    world.send(vats.root("alice"), "busy", &[]);
    world.ask(HostOp::Collect);
    world.ask(HostOp::Collect);
    assert_eq!(world.kernel.db().iter::<Reaps>().filter(|(_, e)| **e == vats.vat("alice").into()).count(), 1);
    world.release("alice");
    assert_eq!(world.rows::<Reaps>(), 0);
}

#[test]
fn a_vat_is_reaped_after_a_hundred_deliveries() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    for _ in 0..250 {
        world.call(vats.root("alice"), "x", &[]);
    }
    let reaps = world.delivered("alice").iter().filter(|d| **d == VatDelivery::BringOutYourDead).count();
    assert_eq!(reaps, 2);
}

#[test]
fn k107_importers_of_an_orphan_are_told_once_and_the_record_goes() {
    let (mut world, vats, thing) = shared();
    world.call(vats.root("bob"), "drop", &[]);
    world.log.clear();
    world.request(HostOp::TerminateVat(vats.vat("alice"))).expect("terminated");
    assert_eq!(world.delivered("bob"), [VatDelivery::RetireImports(vec![vref("o-1")])]);
    assert_eq!(counts(&world, thing), None);
}

#[test]
fn k113_a_settled_promise_that_nobody_holds_releases_its_slots() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("make") => ok(returns(delivery, reference(vref("p+5")))),
        Some("settle") => ok(vec![fulfil(vref("p+5"), reference(vref("o+10")))]),
        _ => obliging(delivery),
    });
    world.call(vats.root("alice"), "make", &[]);
    world.send(vats.root("alice"), "settle", &[]);
    world.run();
    let objects = world.rows::<Objects>();
    world.request(HostOp::Collect).expect("collected");
    assert_eq!((world.rows::<Objects>(), world.rows::<Promises>()), (objects - 1, 1));
    let told = world.delivered("alice");
    assert!(told.contains(&VatDelivery::RetireExports(vec![vref("o+10")])), "{told:?}");
}

#[test]
fn k114_k115_work_for_a_vat_that_ends_ends_with_it() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("bob", |delivery| match method(delivery).as_deref() {
        Some("make") => ok(returns(delivery, reference(vref("p+5")))),
        Some("settle") => ok(vec![fulfil(vref("p+5"), CapData::data("#1"))]),
        _ => obliging(delivery),
    });
    world.script("alice", |delivery| {
        let slots = message(delivery).map(|m| m.methargs.slots.clone()).unwrap_or_default();
        ok(slots.into_iter().map(VatSyscall::Subscribe).collect())
    });
    let promise = world.call(vats.root("bob"), "make", &[]).1.slots[0];
    world.send(vats.root("alice"), "wait", &[promise]);
    world.run();
    world.hold("alice");
    world.send(vats.root("alice"), "busy", &[]);
    world.ask(HostOp::Collect);
    world.send(vats.root("bob"), "settle", &[]);
    world.run();
    world.request(HostOp::TerminateVat(vats.vat("alice"))).expect("terminated");
    world.run();
    assert_eq!((world.rows::<Reaps>(), world.rows::<GcActions>()), (0, 0));
    assert!(world.kernel.db().iter::<Clist>().all(|((e, _), _)| *e != EndpointId::Vat(vats.vat("alice"))));
    assert!(!world.call(vats.root("bob"), "fine", &[]).0);
}

#[test]
fn k116_what_the_host_was_given_stays_usable_until_it_collects() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("make") => ok(returns(delivery, reference(vref("o+10")))),
        _ => obliging(delivery),
    });
    let thing = world.call(vats.root("alice"), "make", &[]).1.slots[0];
    assert!(!world.call(thing, "use", &[]).0);
    world.request(HostOp::Collect).expect("collected");
    assert_eq!(code(&world.call(thing, "use", &[]).1), "OBJECT_DELETED");
}

/// Bob lets go of `o+10` while alice is busy; her answer to that sends it to him again.
fn let_go_while_the_owner_is_busy(how: &[&str]) -> World {
    let (mut world, vats, _) = shared();
    world.script("alice", |delivery| match message(delivery) {
        Some(m) => {
            let mut out = returns(delivery, CapData::data("#1"));
            let bob = m.methargs.slots.first().map(ToString::to_string);
            out.extend(bob.map(|bob| send(&bob, "keep", &[vref("o+10")], None)));
            ok(out)
        }
        None => ok(vec![]),
    });
    world.hold("alice");
    world.send(vats.root("alice"), "again", &[vats.root("bob").into()]);
    for method in how {
        world.call(vats.root("bob"), method, &[]);
    }
    assert_eq!(world.rows::<GcActions>(), how.len());
    world.hold("bob");
    world.release("alice");
    world
}

#[test]
fn k101_a_drop_of_what_is_reachable_again_is_not_delivered() {
    let world = let_go_while_the_owner_is_busy(&["drop"]);
    assert_eq!(world.rows::<GcActions>(), 0);
    let told = world.delivered("alice");
    assert!(told.iter().all(|delivery| !matches!(delivery, VatDelivery::DropExports(_))), "{told:?}");
}

#[test]
fn k102_a_retirement_of_what_is_counted_again_is_not_delivered() {
    let mut world = let_go_while_the_owner_is_busy(&["drop", "retire"]);
    assert_eq!(world.rows::<GcActions>(), 0);
    let told = world.delivered("alice");
    assert_eq!(told.len(), 1, "{told:?}");
    world.release("bob");
    assert_eq!(world.methods("bob").last().map(String::as_str), Some("keep"));
}

#[test]
fn k103_a_retirement_of_an_import_that_the_importer_gave_up_itself_is_skipped() {
    let (mut world, vats, thing) = shared();
    world.call(vats.root("bob"), "drop", &[]);
    world.hold("bob");
    world.send(vats.root("bob"), "retire", &[]);
    world.request(HostOp::TerminateVat(vats.vat("alice"))).expect("terminated");
    world.run();
    let kinds: Vec<_> = world.kernel.db().iter::<GcActions>().map(|(key, ())| *key).collect();
    let expected = (vats.vat("bob").into(), capstan_store::schema::GcKind::RetireImport, thing);
    assert_eq!(kinds, [expected]);
    world.log.clear();
    world.release("bob");
    assert_eq!(world.delivered("bob").len(), 1, "{:?}", world.delivered("bob"));
    assert_eq!((world.rows::<GcActions>(), counts(&world, thing)), (0, None));
}

#[test]
fn k105_actions_are_durable_and_never_doubled() {
    let (mut world, vats, thing) = shared();
    world.call(vats.root("bob"), "drop", &[]);
    world.hold("bob");
    world.send(vats.root("bob"), "busy", &[]);
    world.request(HostOp::TerminateVat(vats.vat("alice"))).expect("terminated");
    world.run();
    assert_eq!(world.rows::<GcActions>(), 1);
    let world = world.reboot();
    let told = world.delivered("bob");
    let retired = told.iter().filter(|d| matches!(d, VatDelivery::RetireImports(refs) if refs.len() == 1));
    assert_eq!(retired.count(), 1, "{told:?}");
    assert_eq!((world.rows::<GcActions>(), counts(&world, thing)), (0, None));
}

#[test]
fn k87_importers_of_an_abandoned_object_are_told_when_nobody_reaches_it() {
    let (mut world, vats, thing) = shared();
    world.script("alice", |_| ok(vec![VatSyscall::AbandonExports(vec![vref("o+10")])]));
    world.send(vats.root("alice"), "abandon", &[]);
    world.run();
    assert_eq!(counts(&world, thing), Some((1, 1)));
    world.log.clear();
    world.call(vats.root("bob"), "drop", &[]);
    assert_eq!(world.delivered("bob").pop(), Some(VatDelivery::RetireImports(vec![vref("o-1")])));
    assert_eq!((counts(&world, thing), world.delivered("alice")), (None, vec![]));
}

#[test]
fn k41_what_the_host_lets_go_is_dropped_without_other_traffic() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("make") => ok(returns(delivery, reference(vref("o+10")))),
        _ => obliging(delivery),
    });
    world.call(vats.root("alice"), "make", &[]);
    world.log.clear();
    world.request(HostOp::Collect).expect("collected");
    let told = world.delivered("alice");
    for expected in [
        VatDelivery::DropExports(vec![vref("o+10")]),
        VatDelivery::RetireExports(vec![vref("o+10")]),
        VatDelivery::BringOutYourDead,
    ] {
        assert!(told.contains(&expected), "{told:?}");
    }
}

#[test]
fn k108_a_remote_importer_of_an_orphan_is_told_as_well() {
    use capstan_model::id::RemoteId;
    use capstan_model::peer::{PeerId, Seq};
    use capstan_model::refs::{RRef, RefKind, Side};
    use capstan_store::schema::{ClistRow, Outbox, Remotes};
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    world.request(HostOp::Collect).expect("collected");
    let peer = PeerId::new("12D3KooWother");
    world.request(HostOp::PeerHint { peer, hints: Vec::new() }).expect("a remote");
    let mut world = world.reboot_changed(|tx| {
        let (rid, kref) = (RemoteId(1), KRef::Object(vats.root("alice")));
        let eref = RRef { kind: RefKind::Object, side: Side::Import, index: 1 }.into();
        tx.put::<Clist>((rid.into(), kref), ClistRow { eref, reachable: false, last_mention: Seq(0) });
        tx.update::<Remotes, _>(&rid, |row| row.next_object = 2).expect("a remote");
        tx.update::<Objects, _>(&vats.root("alice"), |row| row.recognizable += 1).expect("a root");
    });
    world.request(HostOp::TerminateVat(vats.vat("alice"))).expect("terminated");
    world.request(HostOp::Collect).expect("collected");
    let frames: Vec<_> = world.kernel.db().iter::<Outbox>().map(|(_, row)| row.text.to_string()).collect();
    assert!(frames.iter().any(|text| text.contains("\"retireImports\",[\"ro")), "{frames:?}");
    assert_eq!(counts(&world, vats.root("alice")), None);
}

/// Alice makes promises that hold each other, and an object in one of them; bob is told of them and awaits them or not.
fn promises_in_a_ring(awaited: bool) -> (World, usize) {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.request(HostOp::Collect).expect("collected");
    let before = world.rows::<Objects>();
    let ring = |slots: &[&str]| CapData {
        body: "#[\"&0\",\"&1\"]".into(),
        slots: slots.iter().map(|slot| vref(slot)).collect(),
    };
    world.script("alice", move |delivery| {
        let mut out = returns(delivery, CapData::data("#1"));
        match method(delivery).as_deref() {
            Some("tell") => {
                let bob = message(delivery).unwrap().methargs.slots[0].to_string();
                let promises = [vref("p+5"), vref("p+6"), vref("p+7")];
                out.push(send(&bob, "take", &promises, None));
            }
            Some("settle") => {
                out.push(fulfil(vref("p+5"), ring(&["p+6", "p+6"])));
                out.push(fulfil(vref("p+6"), ring(&["p+5", "p+7"])));
                out.push(fulfil(
                    vref("p+7"),
                    CapData { body: "#[\"&0\",\"$1\"]".into(), slots: vec![vref("p+7"), vref("o+10")] },
                ));
            }
            _ => {}
        }
        ok(out)
    });
    world.script("bob", move |delivery| {
        let slots = message(delivery).map(|m| m.methargs.slots.clone()).unwrap_or_default();
        let awaited = slots.into_iter().filter(|slot| awaited && !slot.is_object());
        ok(awaited.map(VatSyscall::Subscribe).collect())
    });
    world.call(vats.root("alice"), "tell", &[vats.root("bob").into()]);
    world.call(vats.root("alice"), "settle", &[]);
    (world, before)
}

#[test]
fn a_collection_finds_promises_that_only_hold_each_other() {
    let (mut world, before) = promises_in_a_ring(true);
    assert_eq!(world.rows::<Promises>(), 3);
    // Bob was told and has forgotten the promises, but he still has the object.
    world.request(HostOp::Collect).expect("collected");
    assert_eq!((world.rows::<Promises>(), world.rows::<Objects>()), (0, before + 1));
}

#[test]
fn a_collection_leaves_promises_alone_that_somebody_still_knows() {
    let (mut world, _) = promises_in_a_ring(false);
    world.request(HostOp::Collect).expect("collected");
    assert_eq!(world.rows::<Promises>(), 3);
}

#[test]
fn the_host_cannot_raise_what_is_being_collected() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("make") => ok(returns(delivery, reference(vref("o+10")))),
        _ => obliging(delivery),
    });
    world.script("bob", |delivery| match delivery {
        VatDelivery::BringOutYourDead => ok(vec![VatSyscall::DropImports(vec![vref("o-1")])]),
        _ => obliging(delivery),
    });
    let thing = world.call(vats.root("alice"), "make", &[]).1.slots[0];
    world.call(vats.root("bob"), "take", &[thing]);
    world.hold("alice");
    // Bob still recognises it, so that its record stays; nobody reaches it.
    world.ask(HostOp::Collect);
    world.run();
    assert_eq!(world.kernel.db().get::<Objects>(&thing.object().unwrap()).map(|row| row.reachable), Some(0));
    let (rejected, value) = world.call(thing, "x", &[]);
    assert_eq!((rejected, code(&value).as_str()), (true, "OBJECT_DELETED"));
}
