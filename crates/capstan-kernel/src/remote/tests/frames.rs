//! Frames that should not be there, and names that are on their way out.

use super::world::{Disk, World};
use crate::input::Input;
use crate::kernel::Generation;
use capstan_model::id::{EndpointId, ObjectId};
use capstan_model::peer::{ChannelId, Incarnation};
use capstan_model::refs::{RRef, RefKind, Side};
use capstan_store::schema::{Clist, ClistByEref, Decider, Outbox, PromiseState, Promises, Remotes, Sessions};
use capstan_wire::seam::LinkEvent;

const ANN: usize = 0;
const BOB: usize = 1;

fn pair() -> (World, ObjectId) {
    let mut world = World::new(&["ann", "bob"], Generation::Session);
    let root = world.vat(BOB);
    let url = world.url(BOB, root);
    let object = world.redeem(ANN, &url);
    (world, object)
}

/// Bob reads this on his channel to Ann.
fn inject(world: &mut World, text: &str) {
    let ann = world.sides[ANN].name.clone();
    let channel = world.sides[BOB].kernel.channels.bound_to(&ann).expect("a channel");
    inject_on(world, channel, text);
}

fn inject_on(world: &mut World, channel: ChannelId, text: &str) {
    let event = LinkEvent::FramesRead { channel, frames: vec![text.into()] };
    world.input(BOB, Input::Link { event, fresh: Incarnation::new("unused") });
}

fn received(world: &World) -> u64 {
    let ann = world.sides[ANN].name.clone();
    world.db(BOB).get::<Sessions>(&ann).unwrap().recv.0
}

#[test]
fn duplicates_and_gaps_change_nothing() {
    let (mut world, object) = pair();
    let recv = received(&world);
    for seq in [1, recv, recv + 2, (1 << 53) - 1, u64::MAX] {
        let text = format!(
            r##"{{"seq":{seq},"method":"deliver","params":["message","ro-1",{{"methargs":{{"body":"#[\"evil\",[]]","slots":[]}}}}]}}"##
        );
        inject(&mut world, &text);
        world.pass(1_000);
        assert_eq!((received(&world), world.calls(BOB, "evil")), (recv, 0), "{seq}");
    }
    assert_eq!(world.call(ANN, object, "greet"), (false, "#\"greet done\"".into()));
}

#[test]
fn r39_frames_on_a_channel_without_a_verdict_change_nothing() {
    let (mut world, object) = pair();
    let ann = world.sides[ANN].name.clone();
    let (asked, unheard) = (ChannelId(700), ChannelId(701));
    let event = LinkEvent::FactsWanted { channel: asked, peer: ann, dialed: false };
    world.input(BOB, Input::Link { event, fresh: Incarnation::new("unused") });
    let recv = received(&world);
    let before = format!("{:?}", world.db(BOB).tables().snapshot());
    for channel in [asked, unheard] {
        let seq = recv + 1;
        let text = format!(
            r##"{{"seq":{seq},"method":"deliver","params":["message","ro-1",{{"methargs":{{"body":"#[\"evil\",[]]","slots":[]}}}}]}}"##
        );
        inject_on(&mut world, channel, &text);
        world.run();
        assert_eq!((received(&world), world.calls(BOB, "evil")), (recv, 0), "{channel}");
    }
    assert_eq!(format!("{:?}", world.db(BOB).tables().snapshot()), before);
    assert_eq!(world.call(ANN, object, "greet"), (false, "#\"greet done\"".into()));
}

#[test]
fn k12_a_promise_that_a_peer_introduces_is_decided_and_awaited_by_it() {
    let (mut world, _) = pair();
    let seq = received(&world) + 1;
    let text = format!(
        r##"{{"seq":{seq},"method":"deliver","params":["message","ro-1",{{"methargs":{{"body":"#[\"keep\",[\"&0\"]]","slots":["rp+40"]}}}}]}}"##
    );
    inject(&mut world, &text);
    let ann = EndpointId::Remote(world.remote(BOB).remote);
    let name = RRef { kind: RefKind::Promise, side: Side::Export, index: 40 };
    let kref = *world.db(BOB).get::<ClistByEref>(&(ann, name.into())).expect("introduced");
    let row = world.db(BOB).get::<Promises>(&kref.promise().expect("a promise")).expect("a record");
    let PromiseState::Unresolved { decider, subscribers } = &row.state else { panic!("{row:?}") };
    assert_eq!(*decider, Some(Decider::Endpoint(ann)));
    assert!(subscribers.contains(&ann), "{subscribers:?}");
}

#[test]
fn a_peer_cannot_give_one_result_to_two_messages() {
    let (mut world, object) = pair();
    let recv = received(&world);
    let message = |seq: u64, method: &str| -> std::sync::Arc<str> {
        let text = format!(
            r##"{{"seq":{seq},"method":"deliver","params":["message","ro-1",{{"methargs":{{"body":"#[\"{method}\",[]]","slots":[]}},"result":"rp+40"}}]}}"##
        );
        text.into()
    };
    let ann = world.sides[ANN].name.clone();
    let channel = world.sides[BOB].kernel.channels.bound_to(&ann).expect("a channel");
    let frames = vec![message(recv + 1, "one"), message(recv + 2, "evil")];
    world.input(
        BOB,
        Input::Link { event: LinkEvent::FramesRead { channel, frames }, fresh: Incarnation::new("unused") },
    );
    assert_eq!((world.calls(BOB, "one"), world.calls(BOB, "evil")), (1, 0));
    // Whoever answered the first would have been ended for answering what another decides by then.
    assert_eq!((received(&world), world.db(BOB).len::<capstan_store::schema::Vats>()), (recv + 2, 1));
    let _unused = object;
}

#[test]
fn poison_is_consumed_and_traffic_goes_on() {
    let bodies = [
        r#""method":"deliver","params":["frob"]"#,
        r#""method":"deliver","params":["message","o+7",{"methargs":{"body":"","slots":[]}}]"#,
        r##""method":"deliver","params":["message","ro+1",{"methargs":{"body":"#[\"evil\",[]]","slots":[]}}]"##,
        r##""method":"deliver","params":["message","ro-1",{"methargs":{"body":"#[\"evil\",[]]","slots":["ro-99"]}}]"##,
        r##""method":"deliver","params":["notify",[["rp-99",false,{"body":"#1","slots":[]}]]]"##,
        r#""method":"deliver","params":["retireExports",["ro-1"]]"#,
        r#""method":"redeemURLReply","params":[true,"nobody","ro+5"]"#,
    ];
    for body in bodies {
        let (mut world, _) = pair();
        let recv = received(&world);
        inject(&mut world, &format!(r#"{{"seq":{},{body}}}"#, recv + 1));
        assert_eq!((received(&world), world.calls(BOB, "evil")), (recv + 1, 0), "{body}");
    }
}

#[test]
fn what_a_peer_has_dropped_it_cannot_name_until_it_is_told_again() {
    let (mut world, _) = pair();
    world.pass(1_000);
    let (recv, sent) = (received(&world), {
        let ann = world.sides[ANN].name.clone();
        world.db(BOB).get::<Sessions>(&ann).unwrap().sent.0
    });
    let drop = format!(
        r#"{{"seq":{},"ack":{sent},"method":"deliver","params":["dropExports",["ro-1"]]}}"#,
        recv + 1
    );
    inject(&mut world, &drop);
    let call = format!(
        r##"{{"seq":{},"ack":{sent},"method":"deliver","params":["message","ro-1",{{"methargs":{{"body":"#[\"evil\",[]]","slots":[]}},"result":"rp+1"}}]}}"##,
        recv + 2
    );
    inject(&mut world, &call);
    assert_eq!((received(&world), world.calls(BOB, "evil")), (recv + 2, 0));
}

#[test]
fn acknowledgements_of_the_unsent_close_the_channel() {
    let (mut world, object) = pair();
    let rows = world.db(BOB).len::<Outbox>();
    inject(&mut world, r#"{"ack":4000}"#);
    let ann = world.sides[ANN].name.clone();
    assert!(world.sides[BOB].kernel.channels.bound_to(&ann).is_none());
    assert_eq!(world.db(BOB).len::<Outbox>(), rows);
    world.pass(5_000);
    assert_eq!(world.call(ANN, object, "greet"), (false, "#\"greet done\"".into()));
}

#[test]
fn r147_frames_of_a_channel_that_is_nobodys_are_discarded() {
    let (mut world, _) = pair();
    let ann = world.sides[ANN].name.clone();
    let old = world.sides[BOB].kernel.channels.bound_to(&ann).unwrap();
    world.restart(ANN, Disk::Wipe);
    world.pass(5_000);
    let recv = received(&world);
    let text = r##"{"seq":1,"method":"deliver","params":["message","ro-1",{"methargs":{"body":"#[\"evil\",[]]","slots":[]}}]}"##;
    inject_on(&mut world, old, text);
    assert_eq!((received(&world), world.calls(BOB, "evil")), (recv, 0));
}

#[test]
fn strangers_who_say_nothing_valid_make_no_remote() {
    let mut world = World::new(&["ann", "bob"], Generation::Session);
    let ann = world.sides[ANN].name.clone();
    let bob = world.sides[BOB].name.clone();
    let want = capstan_wire::seam::LinkOrder::Want { peer: bob, hints: vec![], for_send: false };
    world.order(ANN, want);
    world.run();
    assert!(world.sides[BOB].kernel.channels.bound_to(&ann).is_some());
    inject(&mut world, r#"{"seq":1,"method":"frob","params":[]}"#);
    assert_eq!(world.db(BOB).len::<Remotes>(), 0);
}

#[test]
fn a_peer_may_go_on_naming_a_promise_until_it_knows_that_it_is_settled() {
    let (mut world, object) = pair();
    // Ann's promise, kept by Bob and named by both, settles while the link is down.
    let waiting = world.send(ANN, object, "keep", &[]);
    world.pass(1_000);
    for n in 0..3 {
        world.severed = true;
        world.cut();
        world.run();
        let more = world.send(ANN, object, "greet", &[]);
        world.run();
        world.severed = false;
        world.pass(5_000);
        assert_eq!(world.settled(ANN, more), (false, "#\"greet done\"".into()), "{n}");
    }
    let done = world.send(ANN, object, "release", &[]);
    world.pass(5_000);
    assert!(!world.settled(ANN, done).0);
    assert_eq!(world.settled(ANN, waiting), (false, "#\"late\"".into()));
}

#[test]
fn a_settled_promise_named_again_is_another_promise_with_the_same_value() {
    let mut world = World::new(&["ann", "bob"], Generation::Session);
    let (theirs, mine) = (world.vat(BOB), world.vat(ANN));
    let (to_bob, to_ann) = (world.url(BOB, theirs), world.url(ANN, mine));
    let bob = world.redeem(ANN, &to_bob);
    let ann = world.redeem(BOB, &to_ann);
    // Bob asks Ann to relay: Ann's answer is a promise that Bob himself decides.
    let slot = theirs.into();
    for _ in 0..3 {
        let asked = world.send(BOB, ann, "relay", &[slot]);
        world.pass(5_000);
        let (rejected, body) = world.settled(BOB, asked);
        assert!(!rejected, "{body}");
    }
    assert!(!world.call(ANN, bob, "greet").0);
    world.pass(5_000);
    assert_eq!((world.db(ANN).len::<Outbox>(), world.db(BOB).len::<Outbox>()), (0, 0));
}

#[test]
fn cuts_at_every_moment_lose_and_repeat_nothing() {
    for moment in 0..60 {
        let (mut world, object) = pair();
        let asked: Vec<u64> = (0..5).map(|n| world.send(ANN, object, &format!("m{n}"), &[])).collect();
        for _ in 0..moment {
            world.turn();
        }
        world.cut();
        world.pass(20_000);
        for (n, request) in asked.iter().enumerate() {
            assert_eq!(world.settled(ANN, *request), (false, format!("#\"m{n} done\"")), "{moment}");
            assert_eq!(world.calls(BOB, &format!("m{n}")), 1, "{moment}");
        }
        for at in [ANN, BOB] {
            assert_eq!(world.db(at).len::<Outbox>(), 0, "{moment}");
        }
        let _rows = (world.db(ANN).len::<Clist>(), world.db(ANN).len::<Promises>());
    }
}

/// Both sides call each other, and a cut comes between. Whoever hears by a handshake that its word of a settlement
/// arrived keeps the name until an acknowledgement comes behind all that was on its way to it: one must come, though
/// nobody has anything more to say.
#[test]
fn names_of_settled_promises_go_wherever_a_cut_comes() {
    let quiet = |moment: Option<usize>| {
        let (mut world, object) = pair();
        let mine = world.vat(ANN);
        let url = world.url(ANN, mine);
        let theirs = world.redeem(BOB, &url);
        world.send(ANN, object, "greet", &[]);
        world.send(BOB, theirs, "greet", &[]);
        if let Some(moment) = moment {
            for _ in 0..moment {
                world.turn();
            }
            world.cut();
        }
        world.pass(20_000);
        [ANN, BOB].map(|at| (world.db(at).len::<Outbox>(), world.db(at).len::<Clist>()))
    };
    let uncut = quiet(None);
    for moment in 0..20 {
        assert_eq!(quiet(Some(moment)), uncut, "{moment}");
    }
}

#[test]
fn crashes_at_every_moment_lose_and_repeat_nothing() {
    for moment in 0..60 {
        for who in [ANN, BOB] {
            let (mut world, object) = pair();
            for n in 0..5 {
                world.send(ANN, object, &format!("m{n}"), &[]);
            }
            for _ in 0..moment {
                world.turn();
            }
            world.restart(who, Disk::Keep);
            world.pass(20_000);
            for n in 0..5 {
                assert_eq!(world.calls(BOB, &format!("m{n}")), 1, "{who} at {moment}");
            }
        }
    }
}
