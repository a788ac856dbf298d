//! Links that die while their kernel runs on, as those in a process of their own may (03 D.9).

use crate::pairs::{PAIRS, pair, strangers};
use capstan_kernel::host_op::{Answer, HostOp};
use capstan_kernel::kernel::Generation;
use capstan_model::peer::ChannelId;
use capstan_sim::world::{Batching, World};
use capstan_wire::seam::{LinkEvent, LinkOrder};

#[test]
fn r142_links_that_die_at_any_moment_of_a_call_cost_nothing_but_time() {
    for generations in PAIRS {
        for anns in [true, false] {
            let mut pair = pair(142, generations);
            pair.world.set_batching(Batching::EachInput);
            let (ann, bob) = (pair.ann, pair.bob);
            let victim = if anns { ann } else { bob };
            let object = pair.world.redeem(ann, &pair.url);
            for moment in 0..40_i32 {
                let call = pair.world.start_call(ann, object, "bump", vec![]);
                pair.world.advance(moment.unsigned_abs().into());
                pair.world.restart_links(victim);
                if moment % 3 == 0 {
                    pair.world.advance(2);
                    pair.world.restart_links(victim);
                }
                // A classic kernel sends again when its timer says so.
                pair.world.advance(12_000);
                pair.world.back_to(call).fulfils(moment + 1);
            }
            for (one, other) in [(ann, bob), (bob, ann)] {
                let remote = pair.world.remote_of(one, other);
                let row = pair.world.db(one).get::<capstan_store::schema::Remotes>(&remote).unwrap();
                assert_eq!(row.restarts_seen, 0, "{generations:?}");
            }
            pair.world.assert_quiescent();
        }
    }
}

#[test]
fn r142_new_links_are_told_whom_the_user_closed_and_who_is_wanted() {
    for generations in PAIRS {
        let mut meeting = strangers(142, generations);
        meeting.connect_until_registered();
        meeting.target = meeting.redeem();
        meeting.dee_calls("#[\"keep\",[\"dee\",\"$0\"]]", &["ro+1"], None);
        meeting.world.orders(meeting.bob);
        let peer = meeting.dee.peer.clone();
        let (bob, restarted) = (meeting.bob, LinkEvent::Restarted);
        meeting.world.tell(bob, restarted.clone());
        let orders = meeting.world.orders(bob);
        let wanted =
            |order: &&LinkOrder| matches!(order, LinkOrder::Want { peer: whom, .. } if *whom == peer);
        assert_eq!(orders.iter().filter(wanted).count(), 1, "{orders:?}");
        // What comes from a channel of the old links is nobody's.
        let event = LinkEvent::FramesRead { channel: ChannelId(1), frames: vec!["rubbish".into()] };
        meeting.world.tell(bob, event);
        assert_eq!(meeting.world.orders(bob), []);
        meeting.connect_until_registered();
        assert_eq!(meeting.world.ask(bob, HostOp::PeerClose(peer.clone())), Ok(Answer::Done));
        meeting.world.orders(bob);
        meeting.world.tell(bob, restarted);
        assert_eq!(meeting.world.orders(bob), [LinkOrder::ClosePeer { peer }]);
    }
}

/// The one who is closed cannot undo that, and must not look as if it were about to.
#[test]
fn r49_whoever_is_closed_by_intent_shows_that_until_the_peer_is_back() {
    let mut pair = pair(49, (Generation::Session, Generation::Session));
    let (ann, bob) = (pair.ann, pair.bob);
    pair.world.call(ann, &pair.url, "bump").fulfils(1);
    let states = |world: &mut World| {
        [ann, bob].map(|kernel| match world.ask(kernel, HostOp::ListRemotes) {
            Ok(Answer::Remotes(remotes)) => remotes[0].state.to_string(),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(states(&mut pair.world), ["connected", "connected"]);
    let (anns, bobs) = (pair.world.peer(ann), pair.world.peer(bob));
    assert_eq!(pair.world.ask(bob, HostOp::PeerClose(anns.clone())), Ok(Answer::Done));
    pair.world.advance(1_000);
    assert_eq!(states(&mut pair.world), ["closed", "closed"]);
    // Trying changes nothing: the other side says so again.
    let again = HostOp::PeerReconnect { peer: bobs, hints: Vec::new() };
    assert_eq!(pair.world.ask(ann, again), Ok(Answer::Done));
    pair.world.advance(10_000);
    assert_eq!(states(&mut pair.world), ["closed", "closed"]);
    let back = HostOp::PeerReconnect { peer: anns, hints: Vec::new() };
    assert_eq!(pair.world.ask(bob, back), Ok(Answer::Done));
    pair.world.advance(10_000);
    assert_eq!(states(&mut pair.world), ["connected", "connected"]);
}

#[test]
fn r154_without_a_verdict_the_outbox_stays_and_is_delivered_later() {
    for generations in PAIRS {
        for anns in [true, false] {
            for lost in 1..6 {
                let mut pair = pair(154, generations);
                let (ann, bob) = (pair.ann, pair.bob);
                let object = pair.world.redeem(ann, &pair.url);
                pair.world.drop_streams(ann, bob);
                pair.world.lose_verdicts(if anns { ann } else { bob }, lost);
                let calls: Vec<_> =
                    (0..3).map(|_| pair.world.start_call(ann, object, "bump", vec![])).collect();
                pair.world.advance(15);
                assert!(pair.world.outbox_len(ann) > 0, "{generations:?}");
                pair.world.advance(60_000);
                for (number, call) in (1..).zip(calls) {
                    pair.world.back_to(call).fulfils(number);
                }
                let remote = pair.world.remote_of(ann, bob);
                let row = pair.world.db(ann).get::<capstan_store::schema::Remotes>(&remote).unwrap();
                assert_eq!(row.restarts_seen, 0, "{generations:?}");
                pair.world.assert_quiescent();
            }
        }
    }
}

#[test]
fn r154_a_restart_whose_verdict_is_lost_is_concluded_once_and_the_fresh_life_is_heard() {
    for generations in PAIRS {
        for lost in 1..4 {
            let mut pair = pair(154, generations);
            let (ann, bob) = (pair.ann, pair.bob);
            pair.world.call(ann, &pair.url, "bump").fulfils(1);
            pair.world.restart(ann, capstan_sim::world::Restart::Wipe);
            pair.world.lose_verdicts(bob, lost);
            let call = pair.world.start_call(ann, &pair.url, "bump", vec![]);
            pair.world.advance(60_000);
            pair.world.back_to(call).fulfils(2);
            let remote = pair.world.remote_of(bob, ann);
            let row = pair.world.db(bob).get::<capstan_store::schema::Remotes>(&remote).unwrap();
            assert_eq!(row.restarts_seen, 1, "{generations:?} {lost}");
        }
    }
}
