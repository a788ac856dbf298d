//! Restarts at bad moments: crashes within the transition, late frames, both sides at once (03 D.3, D-14, D-15).

use crate::pairs::{PAIRS, Pair, meeting, pair};
use capstan_kernel::host_op::{Answer, HostOp, Refusal};
use capstan_kernel::kernel::Generation;
use capstan_model::error::{
    IntentionalCloseError, NetworkStoppedError, PeerRestartedError, is_terminal_send_error,
};
use capstan_model::id::{EndpointId, KRef, ObjectId};
use capstan_model::peer::Seq;
use capstan_sim::passable::Passable;
use capstan_sim::scripted;
use capstan_sim::world::Restart::{self, Keep, Wipe};
use capstan_sim::world::{Batching, KernelId, Strike, World};
use capstan_store::schema::{Clist, Outbox, PeerIncarnations, Remotes, Sessions};
use capstan_wire::seam::{LinkEvent, SendFault, Verdict};

#[test]
fn r143_r144_the_three_terminal_errors_are_known_by_name() {
    let names = [PeerRestartedError::NAME, IntentionalCloseError::NAME, NetworkStoppedError::NAME];
    for name in names {
        let mut meeting = meeting(143, (Generation::Session, Generation::Session));
        assert!(is_terminal_send_error(name));
        let rows = meeting.world.rows(meeting.bob);
        let (peer, fault) = (meeting.dee.peer.clone(), SendFault::Terminal(name.into()));
        meeting.dee.tell(&mut meeting.world, LinkEvent::SendFailed { peer, fault });
        // With nothing under way there is nothing to end.
        assert_eq!(meeting.world.rows(meeting.bob), rows, "{name}");
        let told = meeting.world.log(meeting.bob).iter().filter(|line| line.contains(name)).count();
        assert_eq!(told, 1, "{name}");
    }
    assert!(!is_terminal_send_error("AbortError"));
}

#[test]
fn r145_a_forgotten_peer_leaves_nothing_but_its_epoch() {
    for generations in PAIRS {
        let mut meeting = meeting(145, generations);
        let bob = meeting.bob;
        meeting.dee_calls("#[\"keep\",[\"dee\",\"$0\"]]", &["ro+1"], Some("rp+1"));
        meeting.world.advance(50);
        let epoch = meeting.session_row().epoch;
        let commits = meeting.world.commits(bob);
        meeting.world.set_batching(Batching::EachInput);
        assert_eq!(meeting.world.ask(bob, HostOp::PeerForget(meeting.dee.peer.clone())), Ok(Answer::Done));
        let db = meeting.world.db(bob);
        let left = (db.len::<Remotes>(), db.len::<Outbox>(), db.len::<PeerIncarnations>());
        assert_eq!(left, (0, 0, 0), "{generations:?}");
        assert_eq!(meeting.world.commits(bob), commits + 1, "in one transaction");
        let row = db.get::<Sessions>(&meeting.dee.peer).unwrap();
        assert_eq!((row.epoch, row.una, row.sent, row.recv), (epoch, Seq(1), Seq(0), Seq(0)));
        // What comes next is a first contact.
        meeting.dee.wipe("dee-2");
        assert_eq!(meeting.connect(false), Verdict::Register, "{generations:?}");
        meeting.target = meeting.redeem();
        assert_eq!(meeting.remote().restarts_seen, 0);
        meeting.world.assert_quiescent();
    }
}

/// Ann's puppet waits for an answer of Bob's puppet and watches it; then Bob is wiped. Nobody has noticed yet.
fn before_the_transition(seed: u64, generations: (Generation, Generation)) -> (Pair, ObjectId) {
    let mut pair = pair(seed, generations);
    let (ann, bob) = (pair.ann, pair.bob);
    pair.world.set_batching(Batching::EachInput);
    let asked = pair.world.vat(bob, scripted::puppet());
    let waits = pair.world.vat(ann, scripted::puppet());
    let url = pair.world.issue(bob, asked);
    let object = pair.world.redeem(ann, &url);
    pair.world.call_with(ann, waits, "keep", vec!["bob".value(), object.value()]).fulfils(());
    for name in ["one", "two"] {
        let args = vec!["bob".value(), "hang".value(), name.value(), name.value()];
        pair.world.call_with(ann, waits, "begin", args).succeeds();
    }
    pair.world.run_until_quiet();
    pair.world.cut(ann, bob);
    pair.world.restart(bob, Wipe);
    let args = vec!["bob".value(), "hang".value(), "three".value(), "three".value()];
    pair.world.call_with(ann, waits, "begin", args).succeeds();
    pair.world.heal(ann, bob);
    (pair, waits)
}

#[track_caller]
fn after_the_transition(mut pair: Pair, waits: ObjectId, why: &str) {
    let (ann, bob) = (pair.ann, pair.bob);
    pair.world.run_until_quiet();
    for name in ["one", "two", "three"] {
        let seen = pair.world.stored(ann, waits, &format!("seen.{name}"));
        let seen = seen.unwrap_or_else(|| panic!("{why}: {name} is lost\n{}", pair.world.trace(60)));
        assert!(seen.starts_with("rejected [Error: [KERNEL:PEER_RESTARTED] "), "{why} {name}: {seen}");
        assert_eq!(pair.world.stored(ann, waits, &format!("twice.{name}")), None, "{why}");
    }
    let counter = pair.world.vat(bob, scripted::counter());
    let url = pair.world.issue(bob, counter);
    pair.world.call(ann, &url, "bump").fulfils(1);
    pair.world.assert_quiescent();
}

#[test]
fn r146_a_crash_between_any_two_commits_of_the_transition_loses_nothing() {
    for generations in PAIRS {
        for strike in [Strike::BeforeCommit, Strike::AfterCommit] {
            for ann_dies in [true, false] {
                for step in 0.. {
                    let (mut pair, waits) = before_the_transition(146, generations);
                    let victim = if ann_dies { pair.ann } else { pair.bob };
                    let at = pair.world.commits(victim) + step;
                    pair.world.strike_at(victim, at, strike);
                    pair.world.run_until_quiet();
                    let over = pair.world.spare(victim);
                    assert_eq!(over, pair.world.is_up(victim));
                    pair.world.start(victim);
                    let why = format!("{generations:?} {strike:?} {ann_dies} {step}");
                    after_the_transition(pair, waits, &why);
                    if over {
                        assert!(step > 1, "{why}: nothing was struck");
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn r147_frames_of_the_old_channel_are_discarded() {
    for generations in PAIRS {
        let mut pair = pair(147, generations);
        let (ann, bob) = (pair.ann, pair.bob);
        let counter = pair.world.vat(ann, scripted::counter());
        let url = pair.world.issue(ann, counter);
        let object = pair.world.redeem(bob, &url);
        pair.world.freeze(bob, ann);
        for _ in 0..3 {
            pair.world.start_call(bob, object, "bump", vec![]);
        }
        pair.world.advance(300);
        pair.world.restart(bob, Wipe);
        pair.world.call_with(bob, &url, "note", vec!["fresh".value()]).fulfils(1);
        pair.world.thaw();
        pair.world.call(bob, &url, "total").fulfils(0);
        assert_eq!(pair.world.stored(ann, counter, "sum"), None, "{generations:?}");
        pair.world.assert_quiescent();
    }
}

#[test]
fn r147_frames_told_on_an_old_channel_are_nobodys() {
    for generations in PAIRS {
        let mut meeting = meeting(1472, generations);
        let old = meeting.dee.channel;
        meeting.dee.wipe("dee-2");
        meeting.connect_until_registered();
        let before = meeting.session_row();
        for text in ["{\"seq\":1,\"method\":\"deliver\",\"params\":[\"bringOutYourDead\"]}", "{\"ack\":40}"] {
            let event = LinkEvent::FramesRead { channel: old, frames: vec![text.into()] };
            meeting.dee.tell(&mut meeting.world, event);
        }
        assert_eq!(meeting.session_row(), before, "{generations:?}");
        assert_eq!(meeting.redeem(), meeting.target);
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r148_what_was_queued_before_the_reset_never_reaches_the_fresh_peer() {
    for generations in PAIRS {
        let mut pair = pair(148, generations);
        let (ann, bob) = (pair.ann, pair.bob);
        let object = pair.world.redeem(ann, &pair.url);
        pair.world.cut(ann, bob);
        let call = pair.world.call_with(ann, object, "note", vec!["of old".value()]).pending();
        pair.world.restart(bob, Wipe);
        pair.world.forget_frames();
        pair.world.heal(ann, bob);
        pair.world.back_to(call).rejects("[KERNEL:PEER_RESTARTED]");
        let counter = pair.world.vat(bob, scripted::counter());
        let url = pair.world.issue(bob, counter);
        pair.world.call_with(ann, &url, "note", vec!["new".value()]).fulfils(1);
        let frames = pair.world.frames(ann, bob);
        assert!(!frames.iter().any(|text| text.contains("of old")), "{generations:?} {frames:?}");
        pair.world.assert_quiescent();
    }
}

#[test]
fn r149_a_late_error_does_not_touch_what_was_queued_since() {
    for generations in PAIRS {
        let mut meeting = meeting(149, generations);
        let bob = meeting.bob;
        meeting.dee.hang_up(&mut meeting.world);
        meeting.dee.wipe("dee-2");
        let verdict = meeting.connect(true);
        let url = format!("ocap:zAny@{}", meeting.dee.peer);
        let request = meeting.world.start_redeem(bob, &url);
        meeting.world.advance(50);
        let rows = meeting.world.rows(bob);
        assert_eq!((rows.outbox.len(), meeting.session_row().una), (1, Seq(1)), "{generations:?}");
        for _ in 0..2 {
            let fault = SendFault::Terminal(PeerRestartedError::NAME.into());
            let peer = meeting.dee.peer.clone();
            meeting.dee.tell(&mut meeting.world, LinkEvent::SendFailed { peer, fault });
            assert_eq!(meeting.world.rows(bob), rows);
        }
        assert_eq!(meeting.world.answer(request), None);
        if verdict == Verdict::Restarted {
            assert_eq!(meeting.connect(true), Verdict::Register);
        }
        let heard = meeting.dee.heard(&mut meeting.world);
        assert!(
            heard.iter().any(|text| text.starts_with("{\"seq\":1,\"method\":\"redeemURL\"")),
            "{heard:?}"
        );
        meeting.dee.send(&mut meeting.world, "redeemURLReply", serde_json::json!([false, "?", "no"]));
    }
}

/// Restarts both and checks that calls in both directions work and count on where state was kept.
fn both(seed: u64, generations: (Generation, Generation), ann_how: Restart, bob_how: Restart) {
    let mut pair = pair(seed, generations);
    let (ann, bob) = (pair.ann, pair.bob);
    let at_ann = pair.world.vat(ann, scripted::counter());
    let url_ann = pair.world.issue(ann, at_ann);
    pair.world.call(ann, &pair.url, "bump").fulfils(1);
    pair.world.call(bob, &url_ann, "bump").fulfils(1);
    for (kernel, how) in [(ann, ann_how), (bob, bob_how)] {
        pair.world.kill(kernel);
        pair.world.swap_disk(kernel, how);
    }
    pair.world.start(ann);
    pair.world.start(bob);
    let mut settled = |kernel: KernelId, how: Restart, url: &str, caller: KernelId| {
        let (url, expected) = if how == Keep {
            (url.to_owned(), 2)
        } else {
            let counter = pair.world.vat(kernel, scripted::counter());
            (pair.world.issue(kernel, counter), 1)
        };
        pair.world.call(caller, &url, "bump").fulfils(expected);
        pair.world.call(caller, &url, "bump").fulfils(expected + 1);
    };
    let url_bob = pair.url.clone();
    settled(bob, bob_how, &url_bob, ann);
    settled(ann, ann_how, &url_ann, bob);
    pair.world.assert_quiescent();
}

#[test]
fn r150_both_restart_and_converge() {
    for generations in PAIRS {
        for seed in 0..5 {
            both(1500 + seed, generations, Wipe, Wipe);
            both(1510 + seed, generations, Keep, Wipe);
            both(1520 + seed, generations, Wipe, Keep);
            both(1530 + seed, generations, Keep, Keep);
        }
    }
}

/// The session peer tells the restored kernel that its state is old; the classic one cannot, and would take the frames
/// of the new life for the old ones' duplicates, and be taken so.
#[test]
fn a_restored_kernel_begins_anew_with_its_classic_peers_too() {
    let mut world = capstan_sim::world::World::seeded(175);
    let (ann, bob) = (world.kernel("ann"), world.kernel("bob"));
    let zoe = world.kernel_of("zoe", Generation::Classic);
    let counter = world.vat(bob, scripted::counter());
    let (at_bob, theirs) = (world.issue(bob, counter), world.vat(zoe, scripted::counter()));
    let at_zoe = world.issue(zoe, theirs);
    let (from_ann, from_zoe) = (world.redeem(ann, &at_bob), world.redeem(zoe, &at_bob));
    let from_bob = world.redeem(bob, &at_zoe);
    let backup = world.snapshot(bob);
    for _ in 0..3 {
        world.call(ann, from_ann, "bump").succeeds();
        world.call(zoe, from_zoe, "bump").succeeds();
        world.call(bob, from_bob, "bump").succeeds();
    }
    world.restart(bob, Restart::RestoreSnapshot(backup));
    world.run_until_quiet();

    let again = world.redeem(ann, &at_bob);
    world.call(ann, again, "bump").fulfils(1);
    let again = world.redeem(bob, &at_zoe);
    world.call(bob, again, "bump").fulfils(4);
    let again = world.redeem(zoe, &at_bob);
    world.call(zoe, again, "bump").fulfils(2);
    world.assert_quiescent();
}

/// Who was forgotten does not keep for ever what the other side held of it (03 D-9).
#[test]
fn what_a_peer_held_is_released_when_it_has_forgotten_us() {
    let mut world = capstan_sim::world::World::seeded(683);
    let (ann, bob) = (world.kernel("ann"), world.kernel("bob"));
    let puppet = world.vat(bob, scripted::puppet());
    let url = world.issue(bob, puppet);
    let (far, thing) = (world.redeem(ann, &url), world.vat(ann, scripted::counter()));
    world.call_with(ann, far, "keep", vec!["thing".value(), KRef::Object(thing).value()]).succeeds();
    let held = |world: &capstan_sim::world::World| {
        let remote = EndpointId::Remote(world.remote_of(ann, bob));
        world.db(ann).get::<Clist>(&(remote, KRef::Object(thing))).is_some()
    };
    assert!(held(&world));
    assert_eq!(world.ask(bob, HostOp::PeerForget(world.peer(ann))), Ok(Answer::Done));
    // The first word finds out and is refused.
    assert_eq!(world.try_redeem(ann, &url), Err(Refusal::PeerRestarted));
    let again = world.redeem(ann, &url);
    world.call_with(ann, again, "object", vec!["o".value()]).succeeds();
    assert!(!held(&world));
    world.assert_quiescent();
}

#[test]
fn what_only_a_url_kept_of_a_dead_lifes_goes_with_the_url() {
    let mut world = World::seeded(1273);
    let (ann, bob) = (world.kernel("ann"), world.kernel("bob"));
    let (counter, other) = (world.vat(bob, scripted::counter()), world.vat(bob, scripted::counter()));
    let (url, other_url) = (world.issue(bob, counter), world.issue(bob, other));
    world.call(ann, &url, "bump").fulfils(1);
    world.restart(ann, Wipe);
    world.call(ann, &other_url, "bump").fulfils(1);
    let endpoint = EndpointId::Remote(world.remote_of(bob, ann));
    let knows =
        |world: &World, object| world.db(bob).get::<Clist>(&(endpoint, KRef::Object(object))).is_some();
    assert!(knows(&world, counter) && knows(&world, other));
    let Ok(Answer::Grants(grants)) = world.ask(bob, HostOp::ListUrls) else { panic!("no list") };
    for grant in grants {
        assert_eq!(world.ask(bob, HostOp::RevokeUrl(grant.grant)), Ok(Answer::Done));
    }
    assert!(!knows(&world, counter), "the fresh life never heard of it");
    assert!(knows(&world, other), "this it was given");
    world.assert_quiescent();
}
