//! Peers that lose their state, in both generations of the handshake.

use super::world::{Disk, World};
use crate::host_op::{HostOp, Refusal};
use crate::kernel::Generation;
use capstan_model::id::{EndpointId, ObjectId};
use capstan_store::schema::{Clist, Meta, Objects, Outbox, PeerIncarnations, Promises, Remotes};

const ANN: usize = 0;
const BOB: usize = 1;
const BOTH: [Generation; 2] = [Generation::Session, Generation::Classic];

fn pair(generation: Generation) -> (World, ObjectId) {
    let mut world = World::new(&["ann", "bob"], generation);
    let root = world.vat(BOB);
    let url = world.url(BOB, root);
    let object = world.redeem(ANN, &url);
    assert_eq!(world.call(ANN, object, "greet"), (false, "#\"greet done\"".into()));
    (world, object)
}

/// Bob exports something new; Ann redeems it and calls.
fn meets_again(world: &mut World) {
    let root = world.vat(BOB);
    let url = world.url(BOB, root);
    let object = world.redeem(ANN, &url);
    let before = world.calls(BOB, "again");
    assert_eq!(world.call(ANN, object, "again"), (false, "#\"again done\"".into()));
    assert_eq!(world.calls(BOB, "again"), before + 1);
}

#[test]
fn r136_wiped_sender_is_heard_by_a_restarted_receiver() {
    for generation in BOTH {
        let (mut world, _) = pair(generation);
        let url = {
            let root = world.vat(BOB);
            world.url(BOB, root)
        };
        world.kill(ANN);
        world.restart(BOB, Disk::Keep);
        world.start(ANN, Disk::Wipe, None);
        world.run();
        let object = world.redeem(ANN, &url);
        assert_eq!(world.call(ANN, object, "first"), (false, "#\"first done\"".into()), "{generation:?}");
        assert_eq!(world.calls(BOB, "first"), 1);
        assert_eq!(world.remote(BOB).restarts_seen, 1);
    }
}

#[test]
fn r117_calls_in_flight_reject_when_the_survivor_notices() {
    for generation in BOTH {
        let (mut world, object) = pair(generation);
        let waiting = world.send(ANN, object, "keep", &[]);
        world.pass(100);
        assert_eq!(world.calls(BOB, "keep"), 1);
        world.restart(BOB, Disk::Wipe);
        world.pass(10_000);
        let (rejected, text) = world.settled(ANN, waiting);
        assert!(rejected && text.contains("[KERNEL:PEER_RESTARTED] Remote peer restarted"), "{text}");
        let (rejected, text) = world.call(ANN, object, "greet");
        assert!(rejected && text.contains("[KERNEL:OBJECT_DELETED]"), "{text}");
        assert_eq!(world.remote(ANN).restarts_seen, 1);
        meets_again(&mut world);
    }
}

#[test]
fn r121_a_redemption_in_flight_is_refused() {
    for generation in BOTH {
        let (mut world, _) = pair(generation);
        world.severed = true;
        world.cut();
        world.run();
        let asked = world.ask_redeem(ANN, "ocap:zNothing@bob,/somewhere");
        world.run();
        world.kill(BOB);
        world.start(BOB, Disk::Wipe, None);
        world.severed = false;
        world.pass(10_000);
        let refusal = Refusal::PeerRestarted;
        assert_eq!(world.answer(ANN, asked), Err(refusal), "{generation:?}");
    }
}

#[test]
fn r150_either_side_or_both_come_back_fresh() {
    for generation in BOTH {
        for (ann, bob) in [
            (Disk::Wipe, Disk::Wipe),
            (Disk::Keep, Disk::Wipe),
            (Disk::Wipe, Disk::Keep),
            (Disk::Keep, Disk::Keep),
        ] {
            let (mut world, object) = pair(generation);
            world.kill(ANN);
            world.kill(BOB);
            world.start(ANN, ann, None);
            world.start(BOB, bob, None);
            world.pass(5_000);
            if (ann, bob) == (Disk::Keep, Disk::Keep) {
                assert_eq!(world.call(ANN, object, "greet"), (false, "#\"greet done\"".into()));
                assert_eq!(world.remote(ANN).restarts_seen, 0);
            }
            meets_again(&mut world);
        }
    }
}

#[test]
fn r149_what_is_queued_after_the_reset_survives_the_late_error() {
    let (mut world, object) = pair(Generation::Classic);
    world.severed = true;
    world.cut();
    world.run();
    let lost = world.send(ANN, object, "lost", &[]);
    world.run();
    world.kill(BOB);
    world.start(BOB, Disk::Wipe, None);
    let root = world.vat(BOB);
    let url = world.url(BOB, root);
    world.severed = false;
    world.pass(10_000);
    assert!(world.settled(ANN, lost).0);
    assert_eq!(world.calls(BOB, "lost"), 0);
    let object = world.redeem(ANN, &url);
    let asked = world.send(ANN, object, "greet", &[]);
    world.run();
    let fault = capstan_wire::seam::SendFault::Terminal("PeerRestartedError".into());
    let peer = world.sides[BOB].name.clone();
    let rows = world.db(ANN).len::<Outbox>();
    let fresh = capstan_model::peer::Incarnation::new("unused");
    let event = capstan_wire::seam::LinkEvent::SendFailed { peer, fault };
    world.input(ANN, crate::input::Input::Link { event, fresh });
    assert_eq!(world.db(ANN).len::<Outbox>(), rows);
    world.pass(10_000);
    assert_eq!(world.settled(ANN, asked), (false, "#\"greet done\"".into()));
}

#[test]
fn a_restored_backup_comes_back_as_another_life() {
    let (mut world, object) = pair(Generation::Session);
    let backup = world.commits(BOB);
    for n in 0..3 {
        assert_eq!(world.call(ANN, object, "greet"), (false, "#\"greet done\"".into()), "{n}");
    }
    let life = world.db(BOB).get::<Meta>(&"incarnation".into()).cloned();
    world.kill(BOB);
    world.start(BOB, Disk::Keep, Some(backup));
    world.pass(10_000);
    assert_ne!(world.db(BOB).get::<Meta>(&"incarnation".into()).cloned(), life);
    assert_eq!(world.remote(ANN).restarts_seen, 1);
    meets_again(&mut world);
}

#[test]
fn r145_forgetting_ends_the_session_for_both() {
    for generation in BOTH {
        let (mut world, object) = pair(generation);
        let waiting = world.send(ANN, object, "keep", &[]);
        world.pass(1_000);
        let ann = world.sides[ANN].name.clone();
        for times in 1..=2 {
            assert!(world.request(BOB, HostOp::PeerForget(ann.clone())).is_ok());
            assert_eq!(world.db(BOB).len::<Remotes>(), 0, "{generation:?}");
            assert!(world.db(BOB).get::<PeerIncarnations>(&ann).is_none());
            assert_eq!(world.db(BOB).len::<Outbox>(), 0);
            world.pass(10_000);
            if times == 1 {
                // A classic peer learns it when it next has something to say.
                let (rejected, text) = match generation {
                    Generation::Session => world.settled(ANN, waiting),
                    Generation::Classic => {
                        let more = world.send(ANN, object, "greet", &[]);
                        world.pass(30_000);
                        assert!(world.settled(ANN, more).0);
                        world.settled(ANN, waiting)
                    }
                };
                assert!(rejected, "{generation:?} {text}");
            }
            meets_again(&mut world);
            meets_again(&mut world);
        }
    }
}

#[test]
fn a_closed_peer_is_refused_until_it_is_reopened() {
    for generation in BOTH {
        let (mut world, object) = pair(generation);
        let bob = world.sides[BOB].name.clone();
        let waiting = world.send(ANN, object, "keep", &[]);
        world.pass(100);
        assert!(world.request(ANN, HostOp::PeerClose(bob.clone())).is_ok());
        let (rejected, text) = world.settled(ANN, waiting);
        assert!(rejected && text.contains("[KERNEL:CONNECTION_LOST]"), "{text}");
        let asked = world.ask_redeem(ANN, "ocap:zNothing@bob");
        world.pass(1_000);
        let refusal = Refusal::Redemption("Message delivery failed after intentional close".into());
        assert_eq!(world.answer(ANN, asked), Err(refusal));
        assert_eq!(world.remote(ANN).state, "closed");
        world.restart(ANN, Disk::Keep);
        assert_eq!(world.remote(ANN).state, "closed");
        assert!(world.request(ANN, HostOp::PeerReconnect { peer: bob, hints: vec![] }).is_ok());
        world.pass(5_000);
        meets_again(&mut world);
    }
}

#[test]
fn r153_a_flapping_peer_leaves_nothing_behind() {
    let (mut world, _) = pair(Generation::Session);
    let mut baseline = None;
    for n in 0..20 {
        world.restart(BOB, Disk::Wipe);
        // Without anything held of each other no link is wanted: the first question finds the restart.
        world.ask_redeem(ANN, "ocap:zNothing@bob,/somewhere");
        world.pass(5_000);
        meets_again(&mut world);
        world.request(ANN, HostOp::Collect).unwrap();
        world.pass(5_000);
        let tables = world.db(ANN).tables();
        let rows =
            (tables.clist.iter().count(), tables.promises.iter().count(), tables.outbox.iter().count());
        assert_eq!(*baseline.get_or_insert(rows), rows, "{n}");
    }
}

#[test]
fn d9_what_the_dead_life_was_given_is_released_once_the_fresh_one_is_heard() {
    let mut world = World::new(&["ann", "bob"], Generation::Session);
    let root = world.vat(BOB);
    let url = world.url(BOB, root);
    let far = world.redeem(ANN, &url);
    let before = (world.db(BOB).len::<Objects>(), world.db(BOB).len::<Promises>());
    // An object behind no URL, and a promise that nobody settles.
    assert!(!world.call(ANN, far, "fresh").0);
    let own = world.vat(ANN);
    world.send(ANN, far, "relay", &[own.into()]);
    world.pass(1_000);
    assert!(world.db(BOB).len::<Objects>() > before.0);
    world.restart(ANN, Disk::Wipe);
    world.pass(1_000);
    let again = world.redeem(ANN, &url);
    world.pass(1_000);
    let bob_kept: Vec<String> = world
        .db(BOB)
        .iter::<Clist>()
        .filter(|((endpoint, _), _)| matches!(endpoint, EndpointId::Remote(_)))
        .map(|((_, kref), row)| format!("{kref} {}", row.eref))
        .collect();
    assert_eq!(bob_kept, [format!("{root} ro-1")]);
    assert_eq!(world.call(ANN, again, "greet"), (false, "#\"greet done\"".into()));
    for at in [BOB, ANN, BOB] {
        world.request(at, HostOp::Collect).unwrap();
        world.pass(1_000);
    }
    // Bob's vat still holds what Ann's dead life passed it, an orphan now.
    let orphans = world.db(BOB).iter::<Objects>().filter(|(_, row)| row.owner.is_none()).count();
    assert_eq!(orphans, 1);
    assert_eq!((world.db(BOB).len::<Objects>() - orphans, world.db(BOB).len::<Promises>()), before);
}
