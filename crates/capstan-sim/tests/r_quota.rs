//! What one peer may cost the others: strangers, names, handshakes, bytes and lines (03 G.1, I17 and I19).

use crate::pairs::{Meeting, PAIRS, meeting, pair, strangers};
use capstan_kernel::host_op::HostOp;
use capstan_kernel::kernel::{Generation, KernelConfig};
use capstan_model::id::KRef;
use capstan_sim::passable::Passable;
use capstan_sim::scripted;
use capstan_sim::stranger::{Stranger, message};
use capstan_sim::world::{KernelId, World};
use capstan_store::schema::{
    ChangeSet, DeadLetters, Objects, Outbox, PeerIncarnations, Promises, Remotes, RunQueue, Sessions,
};
use capstan_wire::seam::{LinkEvent, LinkOrder, Verdict};
use serde_json::json;

const BOTH: [Generation; 2] = [Generation::Session, Generation::Classic];

/// Starts Bob again under other limits.
fn reconfigure(world: &mut World, bob: KernelId, change: impl FnOnce(&mut KernelConfig)) {
    world.reconfigure(bob, change);
    world.kill(bob);
    world.start(bob);
    world.advance(100);
}

/// A stranger who has shaken hands and said nothing.
fn visitor(world: &mut World, bob: KernelId, number: u64, generation: Generation) -> Stranger {
    let mut visitor = Stranger::new(&format!("visitor-{number:03}"), generation == Generation::Session, bob);
    assert_eq!(visitor.connect(world, 1_000 + number, false), Verdict::Register);
    visitor
}

#[test]
fn of_strangers_who_only_shake_hands_the_oldest_are_forgotten() {
    for generation in BOTH {
        let mut world = World::seeded(1901);
        let bob = world.bare_kernel("bob", generation);
        reconfigure(&mut world, bob, |config| config.strangers_max = 5);
        let visitors: Vec<_> = (0..8).map(|number| visitor(&mut world, bob, number, generation)).collect();
        let db = world.db(bob);
        assert_eq!((db.len::<Remotes>(), db.len::<PeerIncarnations>(), db.len::<Sessions>()), (0, 5, 5));
        let known = |at: usize| db.get::<PeerIncarnations>(&visitors[at].peer).is_some();
        assert_eq!([0, 2, 3, 7].map(known), [false, false, true, true], "{generation:?}");
        world.assert_quiescent();
    }
}

#[test]
fn a_stranger_takes_the_place_of_a_peer_with_whom_nothing_is_shared() {
    for generation in BOTH {
        let mut world = World::seeded(1902);
        let bob = world.bare_kernel("bob", generation);
        reconfigure(&mut world, bob, |config| config.peers_max = 3);
        let puppet = world.vat(bob, scripted::puppet());
        let url = world.issue(bob, puppet);
        let mut visitors = Vec::new();
        for number in 0..5 {
            let mut one = visitor(&mut world, bob, number, generation);
            // The first is given something; the others ask for what there is not.
            let asked = if number == 0 { url.clone() } else { "ocap:zNothing@peer-bob".to_owned() };
            one.send(&mut world, "redeemURL", json!([asked, "key"]));
            one.heard(&mut world);
            one.acknowledge(&mut world);
            visitors.push(one);
        }
        let has = |world: &World, at: usize| world.remote(bob, &visitors[at].peer).is_some();
        let kept = [0, 1, 2, 3, 4].map(|at| has(&world, at));
        assert_eq!(kept, [true, false, false, true, true], "{generation:?}");
        // Who was forgotten is met as if for the first time.
        let mut again = Stranger::new("visitor-001", generation == Generation::Session, bob);
        assert_eq!(again.connect(&mut world, 2_000, false), Verdict::Register);
        world.assert_quiescent();
    }
}

#[test]
fn where_everybody_shares_something_one_more_stranger_is_turned_away() {
    for generation in BOTH {
        let mut world = World::seeded(1903);
        let bob = world.bare_kernel("bob", generation);
        reconfigure(&mut world, bob, |config| config.peers_max = 2);
        let puppet = world.vat(bob, scripted::puppet());
        let url = world.issue(bob, puppet);
        for number in 0..3 {
            let mut one = visitor(&mut world, bob, number, generation);
            one.send(&mut world, "redeemURL", json!([url, "key"]));
            let orders = one.orders(&mut world);
            let closed = orders.iter().find_map(|order| match order {
                LinkOrder::CloseChannel { reason, .. } => Some(reason.clone()),
                _ => None,
            });
            let crowded =
                closed.is_some_and(|reason| reason.contains("there are 2 peers, as many as may be"));
            assert_eq!(crowded, number == 2, "{generation:?} {number}");
        }
        assert_eq!(world.db(bob).len::<Remotes>(), 2);
    }
}

#[test]
fn a_peer_has_few_handshakes_in_flight() {
    let mut meeting = strangers(1904, PAIRS[0]);
    for channel in 1..=8 {
        meeting.dee.greet(&mut meeting.world, channel, false);
    }
    let event = |channel| LinkEvent::FactsWanted {
        channel: capstan_model::peer::ChannelId(channel),
        peer: meeting.dee.peer.clone(),
        dialed: false,
    };
    let ninth = event(9);
    meeting.dee.tell(&mut meeting.world, ninth);
    let orders = meeting.dee.orders(&mut meeting.world);
    let refused = orders.iter().any(|order| {
        matches!(order, LinkOrder::CloseChannel { channel, reason }
            if channel.0 == 9 && reason.contains("handshakes in flight"))
    });
    assert!(refused, "{orders:?}");
    // Another peer is not concerned, nor this one when a channel is gone.
    let bob = meeting.bob;
    visitor(&mut meeting.world, bob, 1, Generation::Session);
    meeting.dee.hang_up(&mut meeting.world);
    meeting.dee.greet(&mut meeting.world, 10, false);
}

/// Dee gives the puppet objects of hers, under one name each.
fn gives(meeting: &mut Meeting, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let body = format!("#[\"keep\",[\"n{n}\",\"$0\"]]");
        meeting.dee_calls(&body, &[&format!("ro+{n}")], Some(&format!("rp+{n}")));
    }
}

#[test]
fn a_peer_that_holds_as_many_names_as_it_may_is_told_so() {
    for generations in [PAIRS[0], PAIRS[2]] {
        let mut meeting = meeting(1905, generations);
        let bob = meeting.bob;
        reconfigure(&mut meeting.world, bob, |config| config.peer_names_max = 30);
        assert_eq!(meeting.connect(false), Verdict::Register);
        // Results count until they are retired.
        gives(&mut meeting, 1..25);
        let heard = meeting.dee.heard(&mut meeting.world);
        let refusals = heard.iter().filter(|text| text.contains("the peer holds")).count();
        assert!(refusals > 0 && refusals < 24, "{generations:?} {heard:#?}");
        let refusal = heard.iter().find(|text| text.contains("the peer holds")).expect("a refusal");
        assert!(refusal.contains("[KERNEL:DELIVERY_FAILED]") && refusal.contains("limit 30"), "{refusal}");
        let objects = meeting.world.db(bob).len::<Objects>();
        assert!(objects < 35, "{objects}");
        // Frames that introduce nothing are heard; whoever lets go may go on.
        meeting.dee.acknowledge(&mut meeting.world);
        let retired: Vec<_> = (1..10).map(|n| format!("ro+{n}")).collect();
        meeting.dee.send(&mut meeting.world, "deliver", json!(["retireImports", retired]));
        for _ in 0..3 {
            // A classic peer's results are forgotten after some collections.
            meeting.dee.send(&mut meeting.world, "deliver", json!(["bringOutYourDead"]));
        }
        let before = meeting.dee.sent;
        meeting.dee_calls("#[\"keep\",[\"more\",\"$0\"]]", &["ro+99"], Some("rp+99"));
        assert_eq!(meeting.session_row().recv, before.next());
        assert!(meeting.kref("ro+99").is_some(), "{generations:?}");
        let other = meeting.world.vat(bob, scripted::counter());
        meeting.world.call(bob, other, "bump").fulfils(1);
        meeting.settle();
    }
}

#[test]
fn refused_calls_that_nobody_acknowledges_take_no_more_names() {
    let mut meeting = meeting(1906, PAIRS[0]);
    let bob = meeting.bob;
    reconfigure(&mut meeting.world, bob, |config| config.peer_names_max = 10);
    assert_eq!(meeting.connect(false), Verdict::Register);
    gives(&mut meeting, 1..200);
    let db = meeting.world.db(bob);
    assert!(db.len::<Promises>() + db.len::<Objects>() < 60);
    assert!(meeting.world.outbox_len(bob) < 60);
    assert_eq!(meeting.session_row().recv, meeting.dee.sent);
}

#[test]
fn what_is_on_its_way_to_a_peer_is_bounded_in_bytes() {
    for generations in PAIRS {
        let mut pair = pair(1907, generations);
        let (ann, bob) = (pair.ann, pair.bob);
        let object = pair.world.redeem(ann, &pair.url.clone());
        reconfigure(&mut pair.world, ann, |config| config.outbox_bytes_max = 50_000);
        pair.world.run_until_quiet();
        pair.world.cut(ann, bob);
        let text = "x".repeat(10_000);
        let calls: Vec<_> = (0..20)
            .map(|_| pair.world.start_call(ann, object, "note", vec![text.as_str().value()]))
            .collect();
        pair.world.advance(100);
        let bytes: usize = pair.world.db(ann).iter::<Outbox>().map(|(_, row)| row.text.len()).sum();
        assert!((50_000..70_000).contains(&bytes), "{generations:?} {bytes}");
        assert!(pair.world.db(ann).len::<RunQueue>() > 10, "the rest waits");
        pair.world.heal(ann, bob);
        pair.world.run_until_quiet();
        for (n, call) in calls.into_iter().enumerate() {
            pair.world.back_to(call).fulfils(i32::try_from(n).unwrap() + 1);
        }
        pair.world.assert_quiescent();
    }
}

/// Everything durable at Bob but how much he has received, and what wears off.
fn rows(meeting: &Meeting) -> ChangeSet {
    let mut rows = meeting.world.rows(meeting.bob);
    rows.sessions.clear();
    rows.counters.clear();
    rows.meta.clear();
    rows
}

#[test]
fn a_hundred_thousand_hostile_frames_harm_nobody() {
    for generations in BOTH.map(|generation| (generation, generation)) {
        let mut meeting = strangers(1908, generations);
        let bob = meeting.bob;
        reconfigure(&mut meeting.world, bob, |config| config.audit_every_transaction = false);
        meeting.connect_until_registered();
        meeting.target = meeting.redeem();
        let counter = meeting.world.vat(bob, scripted::counter());
        meeting.world.advance(100);
        let (before, lines) = (rows(&meeting), meeting.world.log(bob).len());
        let target = meeting.target.clone();
        for round in 0..100 {
            let frames = (0..1000).map(|n| {
                let (method, params) = match n % 8 {
                    0 => ("deliver", json!(["frob"])),
                    1 => ("deliver", message("ro+1", "#[\"evil\",[]]", &[], None)),
                    2 => ("deliver", message("rp+5", "evil", &["o+1"], Some("rp+1"))),
                    3 => ("deliver", json!(["notify", [["rp+7", false, {"body": "#1", "slots": []}]]])),
                    4 => ("deliver", json!(["retireExports", [target]])),
                    5 => ("redeemURLReply", json!([true, "nobody", "ro+5"])),
                    6 => ("redeemURLReply", json!([false, "nobody", "x".repeat(100)])),
                    _ => ("deliver", json!(["retireImports", ["ro+9"]])),
                };
                meeting.dee.next_frame(method, params).into()
            });
            let frames = frames.collect();
            let event = LinkEvent::FramesRead { channel: meeting.dee.channel, frames };
            meeting.dee.tell(&mut meeting.world, event);
            meeting.dee.orders(&mut meeting.world);
            if round % 25 == 0 {
                meeting.world.call(bob, counter, "bump").fulfils(round / 25 + 1);
            }
        }
        assert_eq!(meeting.session_row().recv, meeting.dee.sent, "{generations:?}: all were read");
        meeting.world.advance(1_000);
        assert!(meeting.world.ask(bob, HostOp::Collect).is_ok());
        meeting.dee.heard(&mut meeting.world);
        meeting.dee.acknowledge(&mut meeting.world);
        let after = rows(&meeting);
        assert_eq!(after.objects.len(), before.objects.len());
        assert_eq!(after.clist.len(), before.clist.len());
        assert_eq!(after.promises.len(), before.promises.len());
        let db = meeting.world.db(bob);
        assert_eq!((db.len::<DeadLetters>(), db.len::<Remotes>()), (0, 1));
        // A minute has twenty lines at most; these took a few of them.
        let (said, minutes) = (meeting.world.log(bob).len() - lines, 5);
        assert!(said <= 25 * minutes, "{said}");
        assert!(meeting.kref("ro-1").is_some_and(|kref| kref == KRef::Object(meeting.puppet)));
    }
}

#[test]
fn strangers_make_no_remote_by_shaking_hands_or_talking_nonsense() {
    for generations in PAIRS {
        let mut meeting = strangers(1909, generations);
        meeting.connect_until_registered();
        for text in ["{\"ack\":0}", "nonsense", "{\"seq\":1,\"method\":\"frob\",\"params\":[]}"] {
            meeting.dee.say(&mut meeting.world, text);
            let db = meeting.world.db(meeting.bob);
            let rows = (db.len::<Remotes>(), db.len::<PeerIncarnations>());
            assert_eq!(rows, (0, 1), "{generations:?} {text}");
            if text.contains("seq") {
                continue;
            }
            meeting.connect_until_registered();
        }
    }
}
