//! Where messages go (02 §4.1).

use crate::harness::*;
use capstan_kernel::host_op::{Answer, HostOp, Refusal};
use capstan_model::capdata::CapData;
use capstan_model::id::{EndpointId, KRef, ObjectId, PromiseId};
use capstan_model::vat::{VatDelivery, VatSyscall};
use capstan_store::schema::{
    Clist, Decider, Objects, PromiseQueue, PromiseState, Promises, RunQueue, VatPhase, Vats,
};

/// Alice exports `o+10` to the host and forwards nothing else.
fn exporting(world: &mut World) -> (Launched, KRef) {
    let vats = world.launch(&["boss", "alice", "bob"]);
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("make") => ok(returns(delivery, reference(vref("o+10")))),
        _ => obliging(delivery),
    });
    let (_, value) = world.call(vats.root("alice"), "make", &[]);
    (vats, value.slots[0])
}

#[test]
fn k43_target_and_slots_are_translated_and_the_queue_releases_them() {
    let mut world = World::new();
    let (vats, thing) = exporting(&mut world);
    let before = world.kernel.db().get::<Objects>(&thing.object().unwrap()).cloned();
    let (bob, own) = (KRef::from(vats.root("bob")), KRef::from(vats.root("alice")));
    world.hold("alice");
    let request = world.send(thing, "take", &[bob, own]);
    world.run();
    let kept = world.kept("alice");
    let [(_, VatDelivery::Message { target, message })] = kept.as_slice() else { panic!("{kept:?}") };
    assert_eq!(*target, vref("o+10"));
    assert_eq!(message.methargs, vcall("take", &[vref("o-1"), vref("o+0")]));
    assert!(world.kernel.db().iter::<Clist>().all(|(key, _)| *key != (vats.vat("alice").into(), bob)));
    world.release("alice");
    assert!(!world.settled(request).0);
    assert_eq!(world.kernel.db().get::<Objects>(&thing.object().unwrap()).cloned(), before);
    assert_eq!(world.rows::<RunQueue>(), 0);
}

#[test]
fn k43_the_receiver_decides_the_result() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    world.script("alice", |_| ok(vec![]));
    world.send(vats.root("alice"), "never", &[]);
    world.run();
    let deciders: Vec<_> = world
        .kernel
        .db()
        .iter::<Promises>()
        .filter_map(|(_, row)| match row.state {
            PromiseState::Unresolved { decider, .. } => Some(decider),
            PromiseState::Fulfilled(_) | PromiseState::Rejected(_) => None,
        })
        .collect();
    assert_eq!(deciders, [Some(Decider::Endpoint(EndpointId::Vat(vats.vat("alice"))))]);
}

#[test]
fn k44_a_revoked_target_is_refused_without_a_delivery() {
    let mut world = World::new();
    let (_, thing) = exporting(&mut world);
    let waiting = {
        world.hold("alice");
        world.send(thing, "first", &[]);
        world.send(thing, "second", &[])
    };
    assert_eq!(world.request(HostOp::Revoke(thing)), Ok(Answer::Done));
    assert_eq!(world.request(HostOp::Revoke(thing)), Ok(Answer::Done));
    world.log.clear();
    world.release("alice");
    // The first was in flight, the second not yet delivered.
    assert_eq!(world.methods("alice"), ["first"]);
    assert_eq!(code(&world.settled(waiting).1), "OBJECT_REVOKED");
    let (rejected, value) = world.call(thing, "third", &[]);
    assert_eq!((rejected, code(&value).as_str()), (true, "OBJECT_REVOKED"));
}

#[test]
fn k45_k54_unknown_targets_are_deleted_objects() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    for target in [KRef::Object(ObjectId(999)), KRef::Promise(PromiseId(999))] {
        let (rejected, value) = world.call(target, "x", &[]);
        assert_eq!((rejected, code(&value).as_str()), (true, "OBJECT_DELETED"));
    }
    assert!(!world.call(vats.root("alice"), "still", &[]).0);
    let op = HostOp::Send {
        target: vats.root("alice").into(),
        methargs: call("x", &[KRef::Object(ObjectId(999))]),
    };
    assert_eq!(world.request(op), Err(Refusal::BadReference("ko999".into())));
}

#[test]
fn k46_an_owner_that_does_not_run_is_unreachable() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.broken.insert("bob".into(), "no".into());
    assert_eq!(world.request(HostOp::RestartVat(vats.vat("bob"))), Err(Refusal::VatNotRunning("no".into())));
    let (rejected, value) = world.call(vats.root("bob"), "x", &[]);
    assert_eq!((rejected, code(&value).as_str()), (true, "ENDPOINT_UNREACHABLE"));
    let phase = world.kernel.db().get::<Vats>(&vats.vat("bob")).map(|row| row.phase.clone());
    assert_eq!(phase, Some(VatPhase::Failed("no".into())));
}

#[test]
fn k48_a_message_to_an_unresolved_promise_is_parked_with_its_references() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("promise") => ok(returns(delivery, reference(vref("p+5")))),
        _ => ok(vec![]),
    });
    let (_, value) = world.call(vats.root("alice"), "promise", &[]);
    world.log.clear();
    world.send(value.slots[0], "later", &[vats.root("alice").into()]);
    world.run();
    assert_eq!((world.rows::<PromiseQueue>(), world.rows::<RunQueue>()), (1, 0));
    assert_eq!(world.methods("alice"), Vec::<String>::new());
}

/// Alice fulfils `p+5` with the given value, then the host sends to it.
fn sent_to_fulfilled(value: CapData<capstan_model::refs::VRef>, rejected: bool) -> (bool, CapData<KRef>) {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    world.script("alice", move |delivery| match method(delivery).as_deref() {
        Some("promise") => ok(returns(delivery, reference(vref("p+5")))),
        Some("settle") if rejected => ok(vec![reject(vref("p+5"), "because")]),
        Some("settle") => ok(vec![fulfil(vref("p+5"), value.clone())]),
        _ => obliging(delivery),
    });
    let (_, promise) = world.call(vats.root("alice"), "promise", &[]);
    world.send(vats.root("alice"), "settle", &[]);
    world.run();
    world.call(promise.slots[0], "x", &[])
}

#[test]
fn k49_a_promise_of_a_non_object_takes_no_messages() {
    let (rejected, value) = sent_to_fulfilled(CapData::data("#3"), false);
    assert_eq!((rejected, code(&value).as_str()), (true, "BAD_PROMISE_RESOLUTION"));
    let list = CapData { body: "#[\"$0\"]".into(), slots: vec![vref("o+0")] };
    assert_eq!(code(&sent_to_fulfilled(list, false).1), "BAD_PROMISE_RESOLUTION");
    assert!(!sent_to_fulfilled(reference(vref("o+0")), false).0);
}

#[test]
fn k50_a_rejected_target_passes_its_reason_on() {
    let (rejected, value) = sent_to_fulfilled(CapData::data("#3"), true);
    assert_eq!((rejected, &*value.body), (true, "#{\"#error\":\"because\",\"name\":\"Error\"}"));
}

#[test]
fn k51_a_message_without_result_is_dropped_silently() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| {
        let Some(bob) = message(delivery).and_then(|m| m.methargs.slots.first()) else {
            return obliging(delivery);
        };
        let mut out = vec![send(&bob.to_string(), "quiet", &[vref("o+10")], None)];
        out.extend(returns(delivery, CapData::data("#1")));
        ok(out)
    });
    world.request(HostOp::Revoke(vats.root("bob").into())).unwrap();
    assert!(!world.call(vats.root("alice"), "go", &[vats.root("bob").into()]).0);
    assert_eq!((world.methods("bob"), world.rows::<RunQueue>()), (vec![], 0));
}

#[test]
fn k52_k64_a_chain_of_settled_promises_leads_to_its_object() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("chain") => {
            let mut out = vec![fulfil(vref("p+6"), reference(vref("o+10")))];
            out.push(fulfil(vref("p+5"), reference(vref("p+6"))));
            ok(out)
        }
        Some("make") => ok(returns(
            delivery,
            CapData { body: "#[\"&0\",\"&1\"]".into(), slots: vec![vref("p+5"), vref("p+6")] },
        )),
        _ => obliging(delivery),
    });
    let (_, made) = world.call(vats.root("alice"), "make", &[]);
    world.send(vats.root("alice"), "chain", &[]);
    world.run();
    world.log.clear();
    assert!(!world.call(made.slots[0], "end", &[]).0);
    let [VatDelivery::Message { target, .. }, ..] = &world.delivered("alice")[..] else { panic!() };
    assert_eq!(*target, vref("o+10"));
}

#[test]
fn k53_promises_fulfilled_with_each_other_take_no_messages() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("make") => {
            let both = CapData { body: "#[\"&0\",\"&1\"]".into(), slots: vec![vref("p+5"), vref("p+6")] };
            ok(returns(delivery, both))
        }
        Some("cycle") => ok(vec![VatSyscall::Resolve(vec![
            capstan_model::capdata::Resolution {
                promise: vref("p+5"),
                rejected: false,
                value: reference(vref("p+6")),
            },
            capstan_model::capdata::Resolution {
                promise: vref("p+6"),
                rejected: false,
                value: reference(vref("p+5")),
            },
        ])]),
        _ => obliging(delivery),
    });
    let (_, made) = world.call(vats.root("alice"), "make", &[]);
    world.send(vats.root("alice"), "cycle", &[]);
    world.run();
    let (rejected, value) = world.call(made.slots[0], "x", &[]);
    assert_eq!((rejected, code(&value).as_str()), (true, "BAD_PROMISE_RESOLUTION"));
}

#[test]
fn k55_an_object_of_the_kernel_without_a_service_behind_it_is_a_deleted_object() {
    use capstan_store::schema::{Counters, ObjectRow, Owner, Services};
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    let ko = ObjectId(100);
    let mut world = world.reboot_changed(|tx| {
        tx.put::<Counters>("object".into(), 101);
        let owner = Some(Owner::Kernel);
        tx.put::<Objects>(ko, ObjectRow { owner, reachable: 1, recognizable: 1, revoked: false });
        tx.put::<Services>("gone".into(), ko);
    });
    assert_eq!(code(&world.call(ko, "x", &[]).1), "OBJECT_DELETED");
    assert!(!world.call(vats.root("alice"), "next", &[]).0);
}

#[test]
fn k56_promises_cannot_be_revoked_and_unknown_objects_neither() {
    let mut world = World::new();
    let refused = world.request(HostOp::Revoke(KRef::Promise(PromiseId(3))));
    assert_eq!(refused, Err(Refusal::CannotRevoke(PromiseId(3))));
    let refused = world.request(HostOp::Revoke(KRef::Object(ObjectId(3))));
    assert_eq!(refused, Err(Refusal::BadReference("ko3".into())));
    world.launch(&["alice"]);
}

#[test]
fn a_busy_vat_delays_only_itself_and_keeps_its_order() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.hold("alice");
    for i in 0..200 {
        world.send(vats.root("alice"), &format!("m{i}"), &[]);
    }
    assert!(!world.call(vats.root("bob"), "prompt", &[]).0);
    assert_eq!(world.kept("alice").len(), 1);
    world.release("alice");
    let expected: Vec<_> = (0..200).map(|i| format!("m{i}")).collect();
    assert_eq!(world.methods("alice"), expected);
}

#[test]
fn k47_what_a_closed_peer_refuses_rejects_with_the_text_and_the_next_item_is_processed() {
    use capstan_model::id::RemoteId;
    use capstan_model::peer::{PeerId, Seq};
    use capstan_model::refs::{RRef, RefKind, Side};
    use capstan_store::schema::{ClistRow, Counters, HoldKind, Holds, ObjectRow, Owner};
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    let peer = PeerId::new("12D3KooWother");
    world.request(HostOp::PeerHint { peer: peer.clone(), hints: Vec::new() }).expect("a remote");
    world.request(HostOp::PeerClose(peer)).expect("closed");
    let ko = ObjectId(100);
    let mut world = world.reboot_changed(|tx| {
        let endpoint = EndpointId::Remote(RemoteId(1));
        let owner = Some(Owner::Endpoint(endpoint));
        tx.put::<Counters>("object".into(), 101);
        tx.put::<Objects>(ko, ObjectRow { owner, reachable: 1, recognizable: 1, revoked: false });
        let eref = RRef { kind: RefKind::Object, side: Side::Export, index: 9 }.into();
        tx.put::<Clist>((endpoint, ko.into()), ClistRow { eref, reachable: true, last_mention: Seq(0) });
        tx.put::<Holds>((ko.into(), HoldKind::Handed), 1);
    });
    let counts = |world: &World| world.kernel.db().get::<Objects>(&vats.root("alice")).cloned();
    let before = counts(&world);
    let (rejected, value) = world.call(ko, "x", &[vats.root("alice").into()]);
    assert_eq!((rejected, code(&value).as_str()), (true, "DELIVERY_FAILED"));
    assert!(value.body.contains("intentional"), "{}", value.body);
    assert_eq!((counts(&world), world.rows::<RunQueue>()), (before, 0));
    assert!(!world.call(vats.root("alice"), "next", &[]).0);
}

#[test]
fn two_thousand_messages_wait_for_a_busy_vat_while_others_talk() {
    let mut world = World::unaudited();
    let vats = world.launch(&["alice", "bob", "carol"]);
    world.script("bob", |delivery| {
        let Some(carol) = message(delivery).and_then(|m| m.methargs.slots.first()) else {
            return ok(vec![]);
        };
        let mut out = vec![send(&carol.to_string(), "relayed", &[vref("o+10")], None)];
        out.extend(returns(delivery, CapData::data("#1")));
        ok(out)
    });
    world.hold("alice");
    let busy = world.send(vats.root("alice"), "busy", &[]);
    for i in 0..2000_u32 {
        world.send(vats.root("alice"), &format!("m{i}"), &[vats.root("bob").into()]);
        if i % 100 == 0 {
            assert!(!world.call(vats.root("bob"), "talk", &[vats.root("carol").into()]).0);
        }
    }
    // Nothing but the one message is in flight; all others are on the queue, in their order.
    assert_eq!((world.kept("alice").len(), world.rows::<RunQueue>()), (1, 2001));
    assert_eq!((world.methods("bob").len(), world.methods("carol").len()), (20, 20));
    world.release("alice");
    assert!(!world.settled(busy).0);
    let expected: Vec<_> =
        std::iter::once("busy".to_owned()).chain((0..2000).map(|i| format!("m{i}"))).collect();
    assert_eq!(world.methods("alice"), expected);
    assert_eq!(world.rows::<RunQueue>(), 0);
    let found = capstan_kernel::audit::audit(world.kernel.db().tables());
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_revoked_orphan_is_revoked() {
    let mut world = World::new();
    let (vats, thing) = exporting(&mut world);
    world.script("alice", |_| ok(vec![VatSyscall::AbandonExports(vec![vref("o+10")])]));
    world.request(HostOp::Revoke(thing)).expect("revoked");
    world.send(vats.root("alice"), "abandon", &[]);
    world.run();
    let (rejected, value) = world.call(thing, "x", &[]);
    assert_eq!((rejected, code(&value).as_str()), (true, "OBJECT_REVOKED"));
}
