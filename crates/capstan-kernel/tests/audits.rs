//! The audit: each invariant of 01 §8, broken once in a store that is otherwise sound.

use crate::harness::*;
use capstan_kernel::audit::{Invariant, Problem};
use capstan_kernel::host_op::HostOp;
use capstan_model::id::{EndpointId, GrantId, KRef, ObjectId, PromiseId, RemoteId, SubclusterId, VatId};
use capstan_model::peer::{PeerId, Seq};
use capstan_model::refs::ERef;
use capstan_store::overlay::Tx;
use capstan_store::schema::{
    Clist, ClistRow, Code, Counters, Decider, GcActions, GcKind, Grants, HoldKind, Holds, ObjectRow, Objects,
    Outbox, OutboxRow, Pins, PromiseQueue, PromiseState, Promises, QueueItem, Reaps, Remotes, RunQueue,
    Services, Subclusters, VatPhase, VatStore, Vats,
};
use std::collections::BTreeSet;

/// Alice and bob with some of everything: a message parked, one on the queue, a promise settled to an object, a URL,
/// a peer.
fn furnished() -> (World, Launched) {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("promise") => ok(returns(delivery, reference(vref("p+5")))),
        Some("object") => {
            let mut out = returns(delivery, reference(vref("p+6")));
            out.push(fulfil(vref("p+6"), reference(vref("o+10"))));
            ok(out)
        }
        _ => obliging(delivery),
    });
    let promise = world.call(vats.root("alice"), "promise", &[]).1.slots[0];
    world.call(vats.root("alice"), "object", &[]);
    world.send(promise, "parked", &[vats.root("bob").into()]);
    world.run();
    world.hold("bob");
    world.send(vats.root("bob"), "queued", &[vats.root("alice").into()]);
    world.run();
    world.request(HostOp::IssueUrl { object: vats.root("bob"), secret: [7; 32] }).expect("issued");
    world.request(HostOp::PeerHint { peer: PeerId::new("12D3KooWother"), hints: vec![] }).expect("a remote");
    (world, vats)
}

const ALICE: VatId = VatId(1);
const BOB: VatId = VatId(2);

/// Damages a furnished store in one place and returns the one problem that this is.
#[track_caller]
fn one_problem(damage: impl Fn(&mut Tx<'_>)) -> Problem {
    let (world, vats) = furnished();
    assert_eq!((vats.vat("alice"), vats.vat("bob")), (ALICE, BOB));
    assert_eq!(world.damaged(|_| {}), []);
    match &world.damaged(damage)[..] {
        [problem] => problem.clone(),
        problems => panic!("{problems:#?}"),
    }
}

#[track_caller]
fn finds(damage: impl Fn(&mut Tx<'_>), invariant: Invariant, text: &str) {
    let problem = one_problem(damage);
    assert_eq!((problem.invariant, problem.to_string().as_str()), (invariant, text));
}

fn root_of(tx: &Tx<'_>, vat: VatId) -> ObjectId {
    let name = (EndpointId::Vat(vat), ERef::Vat(vref("o+0")));
    // The mirror is empty in a copy of the durable rows.
    let entry = tx.iter::<Clist>().find(|((endpoint, _), row)| (*endpoint, row.eref) == name);
    entry.and_then(|((_, kref), _)| kref.object()).expect("a root")
}

fn any<T>(mut found: impl Iterator<Item = T>) -> T {
    found.next().expect("one")
}

fn count_more(tx: &mut Tx<'_>, ko: ObjectId, reachable: u64, recognizable: u64) {
    tx.update::<Objects, _>(&ko, |row| {
        row.reachable += reachable;
        row.recognizable += recognizable;
    })
    .expect("an object");
}

#[test]
fn invariant_0_two_grants_with_one_secret() {
    let damage = |tx: &mut Tx<'_>| {
        let (_, row) = any(tx.iter::<Grants>());
        let (row, ko) = (row.clone(), row.object);
        tx.put::<Grants>(GrantId(9), row);
        count_more(tx, ko, 1, 1);
    };
    finds(
        damage,
        Invariant::File,
        "invariant 0: table grants_by_hash: it does not mirror its table, or two rows there are alike",
    );
}

#[test]
fn invariant_1_an_entry_for_what_does_not_exist() {
    let damage = |tx: &mut Tx<'_>| {
        let row = ClistRow { eref: vref("o-7").into(), reachable: true, last_mention: Seq(0) };
        tx.put::<Clist>((ALICE.into(), ObjectId(999).into()), row);
        tx.update::<Vats, _>(&ALICE, |row| row.next_object = 9).expect("alice");
    };
    finds(
        damage,
        Invariant::Clists,
        "invariant 1: c-list entry of v1 for ko999: the object or promise does not exist",
    );
}

#[test]
fn invariant_1_a_name_of_the_wrong_kind() {
    let damage = |tx: &mut Tx<'_>| {
        let entry = tx
            .iter::<Clist>()
            .find(|((_, kref), row)| kref.promise().is_some() && row.eref == ERef::Vat(vref("p+5")));
        let (key, mut row) = entry.map(|(key, row)| (*key, row.clone())).expect("an entry");
        row.eref = vref("o+d7/1").into();
        tx.put::<Clist>(key, row);
    };
    assert_eq!(one_problem(damage).invariant, Invariant::Clists);
}

#[test]
fn invariant_2_an_object_whose_owner_does_not_know_it() {
    let damage = |tx: &mut Tx<'_>| {
        let object = tx.iter::<Clist>().find(|(_, row)| row.eref == ERef::Vat(vref("o+10")));
        let key = object.map(|(key, _)| *key).expect("o+10");
        tx.delete::<Clist>(&key);
    };
    let problem = one_problem(damage);
    assert_eq!(problem.invariant, Invariant::Owners);
    assert_eq!(problem.what, "owned by v1, exported by nobody");
}

#[test]
fn invariant_3_counts_of_an_object_that_its_sources_do_not_give() {
    let damage = |tx: &mut Tx<'_>| {
        let bob = root_of(tx, BOB);
        count_more(tx, bob, 0, 1);
    };
    let problem = one_problem(damage);
    assert_eq!(problem.invariant, Invariant::ObjectCounts);
    assert!(problem.what.starts_with("counts "), "{problem}");
}

#[test]
fn invariant_3_more_reach_an_object_than_recognise_it() {
    let damage = |tx: &mut Tx<'_>| {
        let bob = root_of(tx, BOB);
        count_more(tx, bob, 1, 0);
    };
    assert_eq!(one_problem(damage).invariant, Invariant::ObjectCounts);
}

#[test]
fn invariant_4_a_count_of_a_promise_that_its_sources_do_not_give() {
    let damage = |tx: &mut Tx<'_>| {
        let kp = any(tx.iter::<Promises>().map(|(kp, _)| *kp));
        tx.update::<Promises, _>(&kp, |row| row.count += 1).expect("a promise");
    };
    assert_eq!(one_problem(damage).invariant, Invariant::Promises);
}

#[test]
fn invariant_4_a_message_parked_on_a_settled_promise() {
    let damage = |tx: &mut Tx<'_>| {
        let settled = tx.iter::<Promises>().find(|(_, row)| matches!(row.state, PromiseState::Fulfilled(_)));
        let settled = settled.map(|(kp, _)| *kp).expect("one");
        let (key, item) = any(tx.iter::<PromiseQueue>().map(|(key, item)| (*key, item.clone())));
        tx.delete::<PromiseQueue>(&key);
        let item = capstan_store::schema::SendItem { target: settled.into(), ..item };
        tx.put::<PromiseQueue>((settled, key.1), item);
        tx.update::<Promises, _>(&settled, |row| row.count += 1).expect("settled");
        tx.update::<Promises, _>(&key.0, |row| row.count -= 1).expect("unresolved");
    };
    let problem = one_problem(damage);
    assert_eq!(problem.invariant, Invariant::Promises);
    assert_eq!(problem.what, "it waits on something that is not unresolved");
}

#[test]
fn invariant_5_numbers_above_their_counters() {
    finds(
        |tx| tx.put::<Counters>("object".into(), 1),
        Invariant::Counters,
        "invariant 5: counter object: the last one has a number that was not given out yet",
    );
    let damage = |tx: &mut Tx<'_>| {
        tx.update::<Vats, _>(&ALICE, |row| row.next_object = 1).expect("alice");
    };
    let problem = one_problem(damage);
    assert_eq!(
        (problem.invariant, problem.what.as_str()),
        (Invariant::Counters, "the name o-1 was not given out yet",)
    );
}

#[test]
fn invariant_6_a_queued_message_that_names_what_does_not_exist() {
    let missing = KRef::Object(ObjectId(999));
    let damage = |tx: &mut Tx<'_>| {
        let queued = tx.iter::<RunQueue>().map(|(at, item)| (*at, item.clone()));
        let (at, QueueItem::Send(mut item)) = any(queued) else { panic!("no message") };
        item.methargs.slots.push(missing);
        tx.put::<RunQueue>(at, QueueItem::Send(item));
    };
    let problem = one_problem(damage);
    assert_eq!((problem.invariant, problem.what.as_str()), (Invariant::Queues, "ko999 does not exist"));
    let damage = |tx: &mut Tx<'_>| {
        let (key, mut item) = any(tx.iter::<PromiseQueue>().map(|(key, item)| (*key, item.clone())));
        item.methargs.slots.push(missing);
        tx.put::<PromiseQueue>(key, item);
    };
    assert_eq!(one_problem(damage).invariant, Invariant::Queues);
}

#[test]
fn invariant_7_vats_without_program_root_or_place_and_a_place_without_vats() {
    let damage = |tx: &mut Tx<'_>| {
        tx.delete::<Code>(&"hash of bob".into());
    };
    finds(damage, Invariant::Vats, "invariant 7: v2: its program is missing");
    let damage = |tx: &mut Tx<'_>| {
        let row = any(tx.iter::<Subclusters>().map(|(_, row)| row.clone()));
        tx.put::<Subclusters>(SubclusterId(2), row);
        tx.put::<Counters>("subcluster".into(), 3);
    };
    finds(damage, Invariant::Vats, "invariant 7: s2: it has no vats");
    let damage = |tx: &mut Tx<'_>| {
        tx.update::<Vats, _>(&BOB, |row| row.subcluster = SubclusterId(7)).expect("bob");
    };
    finds(damage, Invariant::Vats, "invariant 7: v2: it belongs to s7, which does not exist");
    let damage = |tx: &mut Tx<'_>| {
        tx.update::<Vats, _>(&BOB, |row| row.name = "alice".into()).expect("bob");
    };
    finds(damage, Invariant::Vats, "invariant 7: v2: another vat of s1 is called \"alice\" too");
    let damage = |tx: &mut Tx<'_>| {
        let root = root_of(tx, BOB);
        let key = (EndpointId::Vat(BOB), KRef::Object(root));
        tx.update::<Clist, _>(&key, |row| row.eref = vref("o+77").into()).expect("bob's root");
        tx.update::<Objects, _>(&root, |row| {
            row.reachable -= 1;
            row.recognizable -= 1;
        })
        .expect("bob's root");
    };
    finds(damage, Invariant::Vats, "invariant 7: v2: it has no root");
}

#[test]
fn invariant_8_a_terminated_vat_that_is_to_do_something() {
    // Bob decides nothing. His root is no root any more.
    let terminate = |tx: &mut Tx<'_>| {
        tx.update::<Vats, _>(&BOB, |row| row.phase = VatPhase::Terminated).expect("bob");
        let root = root_of(tx, BOB);
        tx.update::<Objects, _>(&root, |row| {
            row.reachable -= 1;
            row.recognizable -= 1;
        })
        .expect("bob's root");
        root
    };
    let (world, _) = furnished();
    assert_eq!(world.damaged(|tx| assert!(terminate(tx).0 > 0)), []);
    let damage = |tx: &mut Tx<'_>| {
        let root = terminate(tx);
        tx.put::<GcActions>((BOB.into(), GcKind::DropExport, root), ());
    };
    finds(damage, Invariant::Terminated, "invariant 8: v2: it is terminated and has a GC action");
    let damage = |tx: &mut Tx<'_>| {
        terminate(tx);
        tx.put::<Reaps>(1, BOB.into());
        tx.put::<Counters>("reap".into(), 2);
    };
    finds(damage, Invariant::Terminated, "invariant 8: v2: it is terminated and is to collect garbage");
    let damage = |tx: &mut Tx<'_>| {
        terminate(tx);
        let by_alice = |row: &PromiseState| match row {
            PromiseState::Unresolved { decider, .. } => *decider == Some(Decider::Endpoint(ALICE.into())),
            PromiseState::Fulfilled(_) | PromiseState::Rejected(_) => false,
        };
        let kp = tx.iter::<Promises>().find(|(_, row)| by_alice(&row.state)).map(|(kp, _)| *kp).expect("one");
        tx.update::<Promises, _>(&kp, |row| {
            let subscribers = BTreeSet::new();
            row.state =
                PromiseState::Unresolved { decider: Some(Decider::Endpoint(BOB.into())), subscribers };
        })
        .expect("one");
    };
    let problem = one_problem(damage);
    assert_eq!((problem.invariant, problem.place.as_str()), (Invariant::Terminated, "v2"));
}

#[test]
fn invariant_9_a_store_without_a_vat() {
    finds(
        |tx| tx.put::<VatStore>((VatId(9), "key".into()), "value".into()),
        Invariant::VatStores,
        "invariant 9: store of v9: v9 has no record",
    );
}

#[test]
fn invariant_10_a_gc_action_for_nobody() {
    finds(
        |tx| tx.put::<GcActions>((VatId(9).into(), GcKind::RetireImport, ObjectId(1)), ()),
        Invariant::GcActions,
        "invariant 10: RetireImport of ko1 for v9: v9 has no record",
    );
}

#[test]
fn invariant_11_a_pin_of_nothing() {
    finds(
        |tx| tx.put::<Pins>(ObjectId(999), 1),
        Invariant::Pins,
        "invariant 11: pin of ko999: ko999 does not exist",
    );
    let damage = |tx: &mut Tx<'_>| {
        let bob = root_of(tx, BOB);
        tx.put::<Pins>(bob, 2);
    };
    let problem = one_problem(damage);
    assert_eq!(problem.invariant, Invariant::ObjectCounts, "a pin counts: {problem}");
}

#[test]
fn invariant_12_rows_that_refer_to_what_has_no_record() {
    let nobody = RemoteId(9);
    let row = || OutboxRow { text: "x".into(), digest: Default::default(), retires: vec![] };
    finds(
        |tx| tx.put::<Outbox>((nobody, Seq(1)), row()),
        Invariant::References,
        "invariant 12: outbox of r9: r9 has no record",
    );
    finds(
        |tx| tx.put::<Services>("clock".into(), ObjectId(999)),
        Invariant::References,
        "invariant 12: service clock: ko999 does not exist",
    );
    finds(
        |tx| tx.put::<Holds>((KRef::Promise(PromiseId(999)), HoldKind::Handed), 1),
        Invariant::References,
        "invariant 12: hold of kp999: kp999 does not exist",
    );
    let damage = |tx: &mut Tx<'_>| {
        let grant = any(tx.iter::<Grants>().map(|(grant, _)| *grant));
        let was = tx.update::<Grants, _>(&grant, |row| std::mem::replace(&mut row.object, ObjectId(999)));
        tx.update::<Objects, _>(&was.expect("a grant"), |row| {
            row.reachable -= 1;
            row.recognizable -= 1;
        })
        .expect("its object");
    };
    assert_eq!(one_problem(damage).what, "ko999 does not exist");
    let damage = |tx: &mut Tx<'_>| {
        let rid = any(tx.iter::<Remotes>().map(|(rid, _)| *rid));
        tx.delete::<Remotes>(&rid);
        let row = ClistRow {
            eref: "ro+1".parse::<capstan_model::refs::RRef>().unwrap().into(),
            reachable: true,
            last_mention: Seq(0),
        };
        let ko = ObjectId(500);
        let owner = Some(capstan_store::schema::Owner::Endpoint(rid.into()));
        tx.put::<Objects>(ko, ObjectRow { owner, reachable: 0, recognizable: 0, revoked: false });
        tx.put::<Counters>("object".into(), 501);
        tx.put::<Clist>((rid.into(), ko.into()), row);
    };
    assert_eq!(one_problem(damage).what, "r1 has no record");
    let damage = |tx: &mut Tx<'_>| {
        let kp = tx.iter::<Promises>().find(|(_, row)| matches!(row.state, PromiseState::Unresolved { .. }));
        let kp = kp.map(|(kp, _)| *kp).expect("one");
        tx.update::<Promises, _>(&kp, |row| {
            if let PromiseState::Unresolved { subscribers, .. } = &mut row.state {
                subscribers.insert(VatId(9).into());
            }
        })
        .expect("one");
    };
    assert_eq!(one_problem(damage).what, "v9 has no record");
}

#[test]
fn every_invariant_has_a_number_and_advice() {
    let numbers: Vec<u8> = Invariant::ALL.iter().map(|invariant| invariant.number()).collect();
    assert_eq!(numbers, (0..=12).collect::<Vec<_>>());
    assert!(Invariant::ALL.iter().all(|invariant| !invariant.advice().is_empty()));
}
