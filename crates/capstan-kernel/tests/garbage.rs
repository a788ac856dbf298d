//! Garbage collection (02 §7).

use crate::harness::*;
use capstan_kernel::host_op::{Answer, HostOp};
use capstan_model::capdata::CapData;
use capstan_model::id::{EndpointId, KRef, ObjectId};
use capstan_model::vat::{VatDelivery, VatSyscall};
use capstan_store::schema::{Clist, GcActions, GcKind, Objects, Promises, Reaps};

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
fn k100_k104_drops_come_before_retirements_and_each_kind_is_one_sorted_delivery() {
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
    // Sorted by object: bob was told of `o+11` first.
    let both = vec![vref("o+11"), vref("o+10")];
    let told: Vec<_> = world.delivered("alice").split_off(1);
    assert_eq!(told, [VatDelivery::DropExports(both.clone()), VatDelivery::RetireExports(both)]);
}

#[test]
fn k41_reaps_are_performed_while_idle_and_once() {
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
fn k106_a_vat_is_reaped_after_a_hundred_deliveries() {
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
fn k113_a_collection_finds_promises_that_only_hold_each_other() {
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

/// Which vats were asked to collect garbage, in order.
fn reaped(world: &World) -> Vec<String> {
    let reaps = world.log.iter().filter(|(_, delivery)| *delivery == VatDelivery::BringOutYourDead);
    reaps.map(|(name, _)| name.clone()).collect()
}

#[test]
fn k106_reaps_are_durable_and_each_is_performed_once() {
    use capstan_model::peer::PeerId;
    use capstan_store::schema::{Counters, Outbox};
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    let peer = PeerId::new("12D3KooWother");
    world.request(HostOp::PeerHint { peer, hints: Vec::new() }).expect("a remote");
    let rid = capstan_model::id::RemoteId(1);
    let (alice, bob) = (vats.vat("alice").into(), vats.vat("bob").into());
    let world = world.reboot_changed(|tx| {
        for (number, endpoint) in [(4, bob), (5, rid.into()), (6, alice)] {
            tx.put::<Reaps>(number, endpoint);
        }
        tx.put::<Counters>("reap".into(), 7);
    });
    assert_eq!(reaped(&world), ["alice", "bob"]); // in the order in which they came up
    let frames = |world: &World| world.rows::<Outbox>();
    assert_eq!((world.rows::<Reaps>(), frames(&world)), (0, 1));
}

#[test]
fn k106_vats_that_worked_collect_before_a_graceful_stop() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.request(HostOp::Collect).expect("collected");
    world.call(vats.root("bob"), "x", &[]);
    world.log.clear();
    assert_eq!(world.request(HostOp::PrepareStop), Ok(Answer::Done));
    assert_eq!(reaped(&world), ["bob"]);
    // One that does not answer is waited for: how long, the host decides.
    world.hold("alice");
    world.send(vats.root("alice"), "x", &[]);
    world.run();
    world.call(vats.root("bob"), "x", &[]);
    let request = world.ask(HostOp::PrepareStop);
    world.run();
    assert!(!world.answers.contains_key(&request));
    world.release("alice");
    assert_eq!(world.answers.get(&request), Some(&Ok(Answer::Done)));
    assert_eq!(reaped(&world), ["bob", "bob", "alice"]);
}

/// Alice gives bob this many objects; he forgets them all when he is told to.
fn many_to_forget(count: u64, mut world: World) -> (World, Launched) {
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", move |delivery| match method(delivery).as_deref() {
        Some("give") => {
            let bob = message(delivery).unwrap().methargs.slots[0].to_string();
            let mut out = returns(delivery, CapData::data("#1"));
            for first in (0..count).step_by(1000) {
                let things = (first..count.min(first + 1000)).map(|i| vref(&format!("o+{}", i + 10)));
                out.push(send(&bob, "take", &things.collect::<Vec<_>>(), None));
            }
            ok(out)
        }
        _ => obliging(delivery),
    });
    let mut known = Vec::new();
    world.script("bob", move |delivery| match method(delivery).as_deref() {
        Some("take") => {
            known.extend(message(delivery).unwrap().methargs.slots.iter().copied());
            ok(vec![])
        }
        Some("forget") => {
            let known = std::mem::take(&mut known);
            let mut out = returns(delivery, CapData::data("#1"));
            out.push(VatSyscall::DropImports(known.clone()));
            out.push(VatSyscall::RetireImports(known));
            ok(out)
        }
        _ => obliging(delivery),
    });
    world.call(vats.root("alice"), "give", &[vats.root("bob").into()]);
    (world, vats)
}

#[test]
fn k104_many_actions_make_several_deliveries_of_bounded_size() {
    let (mut world, vats) = many_to_forget(2500, World::unaudited());
    let before = world.rows::<Objects>();
    world.log.clear();
    world.call(vats.root("bob"), "forget", &[]);
    let sizes: Vec<_> = world
        .delivered("alice")
        .iter()
        .filter_map(|delivery| match delivery {
            VatDelivery::DropExports(refs) => Some((GcKind::DropExport, refs.len())),
            VatDelivery::RetireExports(refs) => Some((GcKind::RetireExport, refs.len())),
            _ => None,
        })
        .collect();
    let kinds = [GcKind::DropExport, GcKind::RetireExport];
    let expected: Vec<_> = kinds.iter().flat_map(|kind| [1000, 1000, 500].map(|n| (*kind, n))).collect();
    assert_eq!(sizes, expected);
    assert_eq!((world.rows::<Objects>(), world.rows::<GcActions>()), (before - 2500, 0));
    assert!(capstan_kernel::audit::audit(world.kernel.db().tables()).is_empty());
}

#[test]
fn k104_others_are_served_between_the_deliveries() {
    let (mut world, vats) = many_to_forget(2500, World::unaudited());
    world.hold("alice");
    world.call(vats.root("bob"), "forget", &[]);
    assert_eq!(world.kept("alice").len(), 1);
    assert!(!world.call(vats.root("bob"), "x", &[]).0);
    let mut world = world.reboot();
    world.release("alice");
    assert_eq!(world.rows::<GcActions>(), 0);
}

/// Alice works on a message for ever: while she answers one, the next has come.
fn steady(world: &mut World, root: ObjectId, rounds: usize, until: u64) -> Option<usize> {
    for round in 0..rounds {
        world.send(root, "work", &[]);
        if world.answers.contains_key(&until) {
            return Some(round);
        }
        world.execute_one();
    }
    None
}

#[test]
fn a_collection_ends_although_work_never_does() {
    let (mut world, vats, thing) = shared();
    world.script("alice", |delivery| match method(delivery).as_deref() {
        // Each answer makes an object for the host, and so more rows.
        Some("work") => ok(returns(delivery, reference(vref("o+d9/1")))),
        _ => obliging(delivery),
    });
    world.script("bob", |delivery| match delivery {
        VatDelivery::BringOutYourDead => {
            let known = vec![vref("o-1")];
            ok(vec![VatSyscall::DropImports(known.clone()), VatSyscall::RetireImports(known)])
        }
        _ => obliging(delivery),
    });
    world.send(vats.root("alice"), "work", &[]);
    world.send(vats.root("alice"), "work", &[]);
    let collection = world.ask(HostOp::Collect);
    let ended = steady(&mut world, vats.root("alice"), 100, collection);
    assert!(ended.is_some(), "it goes on for ever");
    assert_eq!(counts(&world, thing), None);
    assert!(!world.kernel.db().is_empty::<capstan_store::schema::RunQueue>());
}

#[test]
fn a_collection_follows_a_long_chain_to_its_end() {
    // Each vat holds the next one's object by its own: one round frees one link.
    const LINKS: u64 = 30;
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.request(HostOp::Collect).expect("collected");
    let before = world.rows::<Objects>();
    // Links are exported by alice and bob in turn; whoever is told that link n is retired forgets link n + 1.
    for name in ["alice", "bob"] {
        let mut held: std::collections::BTreeMap<String, capstan_model::refs::VRef> = Default::default();
        let mut dead = Vec::new();
        world.script(name, move |delivery| match delivery {
            VatDelivery::Message { message, .. } => {
                let slots = message.methargs.slots.clone();
                let mut out = returns(delivery, CapData::data("#1"));
                // `link n peer inner`: export link n, which holds `inner`, and hand it on.
                if let Some(n) = method(delivery).and_then(|m| m.strip_prefix("link")?.parse::<u64>().ok()) {
                    let own = vref(&format!("o+{}", 100 + n));
                    match slots.get(1) {
                        Some(inner) if n < LINKS => drop(held.insert(own.to_string(), *inner)),
                        Some(head) => dead.push(*head), // nothing holds the last link: it is forgotten
                        None => {}
                    }
                    let back = format!("link{}", n + 1);
                    if n < LINKS {
                        out.push(send(&slots[0].to_string(), &back, &[vref("o+0"), own], None));
                    }
                }
                ok(out)
            }
            VatDelivery::RetireExports(gone) => {
                dead.extend(gone.iter().filter_map(|name| held.remove(&name.to_string())));
                ok(vec![])
            }
            VatDelivery::BringOutYourDead => {
                let all = std::mem::take(&mut dead);
                ok(vec![VatSyscall::DropImports(all.clone()), VatSyscall::RetireImports(all)])
            }
            _ => ok(vec![]),
        });
    }
    world.call(vats.root("alice"), "link1", &[vats.root("bob").into()]);
    let whole = world.rows::<Objects>();
    assert_eq!(whole, before + LINKS as usize - 1);
    let Ok(Answer::Collected { objects_before, objects_after }) = world.request(HostOp::Collect) else {
        panic!("not collected")
    };
    assert_eq!((objects_before, objects_after), (whole as u64, before as u64));
}
