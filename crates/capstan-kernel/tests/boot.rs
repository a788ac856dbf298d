//! The start of a life over the state of an earlier one (02 §14).

use crate::harness::*;
use capstan_kernel::host_op::{Answer, HostOp};
use capstan_model::vat::{StoreChanges, VatIncarnation, VatReply};
use capstan_store::schema::{HoldKind, Holds, Objects, RunQueue, Subclusters, Vats};

#[test]
fn k148_k152_vats_come_back_with_their_stores_and_roots() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| VatReply {
        store: StoreChanges { sets: vec![("k".into(), "v".into())], deletes: vec![] },
        ..obliging(delivery)
    });
    world.call(vats.root("alice"), "write", &[]);
    let mut world = world.reboot();
    let starts: Vec<_> = world.starts.iter().map(|s| (s.vat, s.incarnation, s.store.len())).collect();
    let second = VatIncarnation(2);
    assert_eq!(starts, [(vats.vat("alice"), second, 1), (vats.vat("bob"), second, 0)]);
    assert!(world.log.is_empty());
    assert!(!world.call(vats.root("alice"), "x", &[vats.root("bob").into()]).0);
}

#[test]
fn k151_k196_queued_messages_are_processed_after_a_stop_before_new_ones_and_nobody_waits() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    world.hold("alice");
    world.send(vats.root("alice"), "one", &[]);
    world.send(vats.root("alice"), "two", &[]);
    world.run();
    let mut world = world.reboot();
    world.call(vats.root("alice"), "three", &[]);
    assert_eq!(world.methods("alice"), ["one", "two", "three"]);
    assert_eq!(world.rows::<RunQueue>(), 0);
    assert!(world.kernel.db().iter::<Holds>().all(|((_, kind), _)| *kind == HoldKind::Handed));
}

#[test]
fn k169_a_half_launched_subcluster_is_removed() {
    let mut world = World::new();
    world.hold("a");
    world.ask(World::launch_op(&["a", "b"]));
    world.run();
    assert_eq!(world.rows::<Subclusters>(), 1);
    let mut world = world.reboot();
    world.request(HostOp::Collect).expect("collected");
    assert_eq!((world.rows::<Subclusters>(), world.rows::<Vats>(), world.rows::<Objects>()), (0, 0, 0));
    assert!(world.starts.is_empty());
}

#[test]
fn k197_one_vat_that_does_not_start_does_not_stop_the_others() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.broken.insert("alice".into(), "gone".into());
    let mut world = world.reboot();
    assert!(!world.call(vats.root("bob"), "x", &[]).0);
    assert_eq!(code(&world.call(vats.root("alice"), "x", &[]).1), "ENDPOINT_UNREACHABLE");
    world.broken.clear();
    assert_eq!(world.request(HostOp::RestartVat(vats.vat("alice"))), Ok(Answer::Done));
    assert!(!world.call(vats.root("alice"), "x", &[]).0);
}
