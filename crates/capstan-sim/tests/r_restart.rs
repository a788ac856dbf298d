//! A restarted peer, end to end: what happens on the links and between real kernels (03 D.6, D.7).

use crate::pairs::{Meeting, PAIRS, handshakes, meeting, pair};
use capstan_kernel::kernel::Generation;
use capstan_model::id::{KRef, PromiseId};
use capstan_model::peer::{Incarnation, Seq};
use capstan_model::refs::ERef;
use capstan_sim::passable::Passable;
use capstan_sim::scripted;
use capstan_sim::world::Restart::{Keep, RestoreSnapshot, Wipe};
use capstan_sim::world::{KernelId, World};
use capstan_store::schema::{ChangeSet, ClistRow, Meta, PeerIncarnations};
use capstan_wire::seam::{LinkEvent, LinkOrder, SendFault, Verdict};

fn life(world: &World, kernel: KernelId) -> Incarnation {
    Incarnation::new(world.db(kernel).get::<Meta>(&"incarnation".into()).unwrap().clone())
}

fn on_file(world: &World, kernel: KernelId, other: KernelId) -> Option<Incarnation> {
    world.db(kernel).get::<PeerIncarnations>(&world.peer(other))?.incarnation.clone()
}

/// A frame of Dee on a channel that was refused is nobody's.
#[track_caller]
fn assert_unread(meeting: &mut Meeting) {
    let (before, sent) = (meeting.session_row(), meeting.dee.sent);
    meeting.dee.call(&mut meeting.world, "ro-1", "whoami", None);
    assert_eq!(meeting.session_row(), before);
    meeting.dee.sent = sent;
}

#[test]
fn r129_r131_a_classic_handshake_that_shows_a_restart_is_refused_once() {
    for pair in PAIRS {
        for dialed in [true, false] {
            let mut meeting = meeting(129, pair);
            meeting.dee.hang_up(&mut meeting.world);
            meeting.dee.wipe("dee-2");
            let verdict = meeting.connect(dialed);
            if meeting.session {
                // Both ends compute the new session from the one handshake.
                assert_eq!(verdict, Verdict::Register);
            } else {
                assert_eq!(verdict, Verdict::Restarted, "{pair:?} {dialed}");
                assert_unread(&mut meeting);
                assert_eq!(meeting.connect(dialed), Verdict::Register);
            }
            assert_eq!(meeting.remote().restarts_seen, 1);
            assert_eq!(meeting.redeem(), meeting.target);
            meeting.world.assert_quiescent();
        }
    }
}

#[test]
fn r130_the_refused_dial_leaves_an_inbound_channel_in_use() {
    for pair in PAIRS {
        let mut meeting = meeting(130, pair);
        meeting.dee.hang_up(&mut meeting.world);
        meeting.dee.wipe("dee-2");
        let dial = meeting.connect(true);
        assert_eq!(dial == Verdict::Restarted, !meeting.session, "{pair:?}");
        meeting.dee.orders(&mut meeting.world);
        if dial == Verdict::Restarted {
            assert_eq!(meeting.connect(false), Verdict::Register);
        }
        let channel = meeting.dee.channel;
        let rows = meeting.world.rows(meeting.bob);
        let late = SendFault::Terminal("PeerRestartedError".into());
        let peer = meeting.dee.peer.clone();
        meeting.dee.tell(&mut meeting.world, LinkEvent::SendFailed { peer, fault: late });
        // No second dial, nothing written, the channel goes on.
        let orders = meeting.dee.orders(&mut meeting.world);
        let dials =
            |order: &&LinkOrder| matches!(order, LinkOrder::Want { .. } | LinkOrder::CloseChannel { .. });
        assert_eq!(orders.iter().filter(dials).count(), 0, "{orders:?}");
        assert_eq!(meeting.world.rows(meeting.bob), rows);
        assert_eq!(meeting.dee.channel, channel);
        assert_eq!(meeting.redeem(), meeting.target);
        assert!(!meeting.world.log(meeting.bob).iter().any(|line| line.starts_with("Error")));
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r132_every_handshake_is_judged_by_the_kernel() {
    for pair in PAIRS {
        let mut meeting = meeting(132, pair);
        for life in ["dee-1", "dee-2", "dee-2", "dee-3"] {
            for dialed in [true, false] {
                meeting.dee.hang_up(&mut meeting.world);
                if meeting.dee.life.as_str() != life {
                    meeting.dee.wipe(life);
                }
                let verdict = meeting.connect(dialed);
                assert!(matches!(verdict, Verdict::Register | Verdict::Restarted), "{pair:?} {verdict:?}");
                let row = meeting.world.db(meeting.bob).get::<PeerIncarnations>(&meeting.dee.peer).unwrap();
                assert_eq!(row.incarnation, Some(Incarnation::new(life)));
            }
        }
        assert_eq!(meeting.remote().restarts_seen, 2);
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r134_a_note_that_changed_refuses_once_though_the_kernel_sees_no_restart() {
    let classic = Generation::Classic;
    let mut pair = pair(134, (classic, classic));
    let (ann, bob) = (pair.ann, pair.bob);
    pair.world.call(ann, &pair.url, "bump").fulfils(1);
    let backup = pair.world.snapshot(bob);
    // Ann's records contradict themselves, so that she cannot follow Bob's next life: her note of it stays.
    let rid = pair.world.remote_of(ann, bob);
    let row =
        ClistRow { eref: ERef::Remote("rp+99".parse().unwrap()), reachable: true, last_mention: Seq(0) };
    let key = (rid.into(), KRef::Promise(PromiseId(999)));
    pair.world.reconfigure(ann, |config| config.audit_every_transaction = false);
    pair.world.kill(ann);
    pair.world.tamper(ann, &ChangeSet { clist: [(key, Some(row))].into(), ..ChangeSet::default() });
    let first = on_file_at(&pair.world, ann, bob);
    pair.world.start(ann);
    pair.world.run_until_quiet();
    pair.world.kill(bob);
    pair.world.swap_disk(bob, Wipe);
    pair.world.start(bob);
    pair.world.advance(3_000);
    assert_eq!(on_file(&pair.world, ann, bob), first, "the reset did not fail");
    pair.world.forget_frames();
    pair.world.restart(bob, RestoreSnapshot(backup));
    pair.world.run_until_quiet();
    // Bob's own dial, which ends by the note, and the one after it.
    let both = handshakes(&pair.world, bob, ann) + handshakes(&pair.world, ann, bob);
    assert_eq!(both, 2, "{}", pair.world.trace(60));
    pair.world.call(ann, &pair.url, "bump").fulfils(2);
}

#[test]
fn r134_the_kernel_judges_by_what_is_on_file_whatever_the_note_says() {
    for pair in PAIRS {
        let mut meeting = meeting(1342, pair);
        meeting.dee.note_changed = true;
        meeting.dee.hang_up(&mut meeting.world);
        let rows = meeting.world.rows(meeting.bob);
        // Toward a classic peer the link refuses the channel by itself; between session kernels it is used.
        assert_eq!(meeting.connect(false), Verdict::Register, "{pair:?}");
        assert_eq!(meeting.world.rows(meeting.bob), rows);
        meeting.world.assert_quiescent();
    }
}

/// What is on the disk of a dead kernel about its peer.
fn on_file_at(world: &World, kernel: KernelId, other: KernelId) -> Option<Incarnation> {
    let rows = world.rows(kernel).peer_incarnations;
    rows.get(&world.peer(other)).cloned().flatten().and_then(|row| row.incarnation)
}

#[test]
fn r135_a_restart_found_while_reconnecting_is_refused_and_the_next_turn_registers() {
    for generations in PAIRS {
        let mut pair = pair(135, generations);
        let (ann, bob) = (pair.ann, pair.bob);
        let object = pair.world.redeem(ann, &pair.url);
        pair.world.call(ann, object, "bump").fulfils(1);
        pair.world.kill(bob);
        pair.world.advance(500);
        pair.world.swap_disk(bob, Wipe);
        pair.world.forget_frames();
        pair.world.start(bob);
        pair.world.run_until_quiet();
        let expected = if pair.session { 1 } else { 2 };
        assert_eq!(handshakes(&pair.world, ann, bob), expected, "{generations:?}\n{}", pair.world.trace(60));
        assert_eq!(on_file(&pair.world, ann, bob), Some(life(&pair.world, bob)));
        assert_eq!(on_file(&pair.world, bob, ann), Some(life(&pair.world, ann)));
        pair.world.call(ann, object, "bump").rejects("[KERNEL:OBJECT_DELETED]");
        let counter = pair.world.vat(bob, scripted::counter());
        let url = pair.world.issue(bob, counter);
        pair.world.call(ann, &url, "bump").fulfils(1);
        pair.world.assert_quiescent();
    }
}

#[test]
fn r136_wiped_sender_is_heard_by_a_restarted_receiver() {
    for generations in PAIRS {
        let mut pair = pair(136, generations);
        let (ann, bob) = (pair.ann, pair.bob);
        pair.world.call(ann, &pair.url, "bump").fulfils(1);
        pair.world.assert_quiescent();

        pair.world.restart(bob, Keep);
        pair.world.restart(ann, Wipe);
        pair.world.call(ann, &pair.url, "bump").fulfils(2); // number 1 of a new life, not a duplicate
        pair.world.assert_quiescent(); // nobody waits, nothing leaked
    }
}

#[test]
fn r136_also_when_they_restart_the_other_way_round() {
    for generations in PAIRS {
        let mut pair = pair(1362, generations);
        let (ann, bob) = (pair.ann, pair.bob);
        pair.world.call(ann, &pair.url, "bump").fulfils(1);
        pair.world.restart(ann, Wipe);
        pair.world.restart(bob, Keep);
        pair.world.call(ann, &pair.url, "bump").fulfils(2);
        pair.world.call(ann, &pair.url, "bump").fulfils(3);
        pair.world.assert_quiescent();
    }
}

#[test]
fn r137_a_reset_store_keeps_the_name_and_changes_the_life() {
    for generations in PAIRS {
        let mut pair = pair(137, generations);
        let (ann, bob) = (pair.ann, pair.bob);
        pair.world.call(ann, &pair.url, "bump").fulfils(1);
        let (name, before) = (pair.world.peer(ann), life(&pair.world, ann));
        pair.world.restart(ann, Wipe);
        assert_eq!(pair.world.peer(ann), name);
        assert_ne!(life(&pair.world, ann), before);
        pair.world.call(ann, &pair.url, "bump").fulfils(2);
        assert_eq!(on_file(&pair.world, bob, ann), Some(life(&pair.world, ann)));
        pair.world.assert_quiescent();
    }
}

#[test]
fn r138_a_peer_that_is_replaced_by_another_is_given_up_where_that_is_allowed() {
    for (ann, bob) in PAIRS {
        let mut world = World::seeded(138);
        let ann = world.kernel_with("ann", |config, options| {
            config.generation = ann;
            config.max_retry_attempts = 3;
            options.max_retry_attempts = 3;
        });
        let bob = world.kernel_of("bob", bob);
        let puppet = world.vat(bob, scripted::puppet());
        let url = world.issue(bob, puppet);
        let object = world.redeem(ann, &url);
        let call = world.call_with(ann, object, "hang", vec!["h".value()]).pending();
        world.kill(bob);
        let carl = world.kernel("carl");
        world.back_to(call).rejects("[KERNEL:CONNECTION_LOST] Remote connection lost");
        let echo = world.vat(carl, scripted::echo());
        let url = world.issue(carl, echo);
        world.call_with(ann, &url, "echo", vec![1.value()]).fulfils(1);
        world.assert_quiescent();
    }
}
