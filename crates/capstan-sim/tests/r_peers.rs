//! Who a peer is, what is served to it and refused, chains of three, giving up, backups and clones (03 A.5, C.6, C.9,
//! G.4, G.5).

use crate::pairs::{Meeting, PAIRS, meeting, pair, strangers};
use capstan_kernel::host_op::{Answer, HostOp, Refusal};
use capstan_kernel::kernel::Generation;
use capstan_model::id::{EndpointId, KRef, ObjectId};
use capstan_model::peer::{Hint, PeerId};
use capstan_sim::passable::Passable;
use capstan_sim::scripted;
use capstan_sim::world::Restart::{Keep, RestoreSnapshot, Wipe};
use capstan_sim::world::{CallId, KernelId, World};
use capstan_store::schema::{Clist, Meta, PeerIncarnations, Remotes, Sessions};
use capstan_wire::seam::{LinkOrder, Verdict};
use serde_json::{Value, json};

const BOTH: [Generation; 2] = [Generation::Session, Generation::Classic];

/// Dee asks what is behind a URL; returns the answer's parameters but for the key.
fn ask_bob(meeting: &mut Meeting, url: &str) -> (Value, Value) {
    meeting.dee.send(&mut meeting.world, "redeemURL", json!([url, "key"]));
    let heard = meeting.dee.heard(&mut meeting.world);
    let reply = heard.iter().rev().find(|text| text.contains("redeemURLReply")).expect("a reply");
    let reply: Value = serde_json::from_str(reply).unwrap();
    (reply["params"][0].clone(), reply["params"][2].clone())
}

/// The entries in Bob's c-list for Dee.
fn names(meeting: &Meeting) -> usize {
    let endpoint = meeting.endpoint();
    meeting.world.db(meeting.bob).iter::<Clist>().filter(|((whose, _), _)| *whose == endpoint).count()
}

#[test]
fn r12_a_url_of_another_host_is_not_redeemed_here() {
    for generations in PAIRS {
        let mut meeting = meeting(12, generations);
        let foreign = meeting.url.replace(&format!("@{}", meeting.world.peer(meeting.bob)), "@somebody-else");
        assert_ne!(foreign, meeting.url);
        let before = names(&meeting);
        let answer = ask_bob(&mut meeting, &foreign);
        assert_eq!(answer, (json!(false), json!("ocapURL from a host that's not me")), "{generations:?}");
        assert_eq!(names(&meeting), before);
        meeting.settle();
    }
}

#[test]
fn r30_a_url_for_what_is_gone_is_an_error_with_a_name_and_no_entry() {
    for generations in PAIRS {
        let mut meeting = strangers(30, generations);
        let bob = meeting.bob;
        meeting.connect_until_registered();
        let revoked = meeting.world.vat(bob, scripted::counter());
        let url_of_revoked = meeting.world.issue(bob, revoked);
        assert!(meeting.world.ask(bob, HostOp::Revoke(revoked.into())).is_ok());
        let vat = meeting.world.vat_of(bob, meeting.puppet);
        assert!(meeting.world.ask(bob, HostOp::TerminateVat(vat)).is_ok());
        for (url, object, what) in
            [(meeting.url.clone(), meeting.puppet, "deleted"), (url_of_revoked, revoked, "revoked")]
        {
            let expected = (json!(false), json!(format!("{object} has been {what}")));
            assert_eq!(ask_bob(&mut meeting, &url), expected, "{generations:?}");
            let here = meeting.world.try_redeem(bob, &url);
            assert_eq!(here, Err(Refusal::UrlUnknown(format!("{object} has been {what}"))));
        }
        assert_eq!(names(&meeting), 0);
        meeting.settle();
    }
}

/// Ann, who gives up after so many dials, has called Bob's counter, whose URL this is, while he was down.
fn called_while_down(
    seed: u64,
    of: (Generation, Generation),
    attempts: u32,
) -> (World, [KernelId; 2], String, CallId) {
    let mut world = World::seeded(seed);
    let ann = world.kernel_with("ann", |config, options| {
        config.generation = of.0;
        config.max_retry_attempts = attempts;
        options.max_retry_attempts = attempts;
    });
    let bob = world.kernel_of("bob", of.1);
    let counter = world.vat(bob, scripted::counter());
    let url = world.issue(bob, counter);
    let object = world.redeem(ann, &url);
    world.kill(bob);
    let call = world.start_call(ann, object, "bump", Vec::new());
    (world, [ann, bob], url, call)
}

#[test]
fn r94_where_retries_are_limited_what_waits_is_rejected_in_the_end() {
    for (of_ann, of_bob) in PAIRS {
        let (mut world, [ann, bob], url, call) = called_while_down(94, (of_ann, of_bob), 3);
        let asked = world.start_redeem(ann, &url);
        world.run_until_quiet();
        world.back_to(call).rejects("[KERNEL:CONNECTION_LOST] Remote connection lost");
        match world.answer(asked) {
            Some(Err(refusal)) => {
                let text = refusal.to_string();
                assert!(text.contains("Remote connection lost"), "{text}");
            }
            other => panic!("{of_ann:?} {of_bob:?} {other:?}"),
        }
        assert_eq!(world.outbox_len(ann), 0);
        // When it is back, a first conversation begins.
        world.start(bob);
        world.call(ann, &url, "bump").fulfils(1);
        world.assert_quiescent();
    }
}

#[test]
fn r95_a_return_before_that_resolves_the_call() {
    for (of_ann, of_bob) in PAIRS {
        let (mut world, [_, bob], _, call) = called_while_down(95, (of_ann, of_bob), 50);
        world.advance(3_000);
        assert_eq!(world.outcome(call), None, "{of_ann:?} {of_bob:?}");
        world.start(bob);
        world.run_until_quiet();
        world.back_to(call).fulfils(1);
        world.assert_quiescent();
    }
}

#[test]
fn r96_two_peers_that_are_down_and_back_at_once_both_answer() {
    for generation in BOTH {
        let mut world = World::seeded(96);
        let [ann, bob, cat] = ["ann", "bob", "cat"].map(|name| world.kernel_of(name, generation));
        let objects = [bob, cat].map(|kernel| {
            let counter = world.vat(kernel, scripted::counter());
            let url = world.issue(kernel, counter);
            world.redeem(ann, &url)
        });
        [bob, cat].into_iter().for_each(|kernel| world.kill(kernel));
        let calls = objects.map(|object| world.start_call(ann, object, "bump", Vec::new()));
        world.advance(20_000);
        [bob, cat].into_iter().for_each(|kernel| world.start(kernel));
        world.run_until_quiet();
        for call in calls {
            world.back_to(call).fulfils(1);
        }
        world.assert_quiescent();
    }
}

#[test]
fn r108_bad_verbs_methods_and_numbers_have_their_errors_and_no_effect() {
    let consumed = [
        (r#""method":"deliver","params":["frob"]"#, "unknown remote delivery method frob"),
        (r#""method":"frob","params":[]"#, "unknown remote message type frob"),
        (
            r##""method":"deliver","params":["message","ro-1",{"methargs":{"body":"#[]","slots":[]},"result":7}]"##,
            "message result must be a string",
        ),
    ];
    let unread = [
        ("0", "invalid message seq: 0"),
        ("-1", "invalid message seq: -1"),
        ("1.5", "invalid message seq: 1.5"),
        ("\"1\"", "invalid message seq: \"1\""),
    ];
    for generations in PAIRS {
        for (body, error) in consumed {
            let mut meeting = meeting(108, generations);
            let (rows, sent) = (rows_but_the_mark(&meeting), meeting.dee.sent.next());
            meeting.dee.sent = sent;
            meeting.dee.say(&mut meeting.world, &format!(r#"{{"seq":{sent},{body}}}"#));
            assert_eq!(rows_but_the_mark(&meeting), rows, "{generations:?} {body}");
            assert_eq!(meeting.session_row().recv, sent);
            assert!(logged(&meeting, error), "{generations:?} {error}");
            // The next frame is heard on the same channel.
            meeting.dee_calls("#[\"object\",[\"x\"]]", &[], None);
            assert_eq!(meeting.session_row().recv, meeting.dee.sent);
            meeting.settle();
        }
        for (seq, error) in unread {
            let mut meeting = meeting(108, generations);
            let (rows, recv) = (rows_but_the_mark(&meeting), meeting.session_row().recv);
            let text = format!(r#"{{"seq":{seq},"method":"deliver","params":["bringOutYourDead"]}}"#);
            meeting.dee.say(&mut meeting.world, &text);
            assert_eq!((rows_but_the_mark(&meeting), meeting.session_row().recv), (rows, recv), "{seq}");
            assert!(logged(&meeting, error), "{generations:?} {error}");
            assert_eq!(meeting.connect(false), Verdict::Register);
        }
    }
}

fn logged(meeting: &Meeting, text: &str) -> bool {
    meeting.world.log(meeting.bob).iter().any(|line| line.contains(text))
}

/// Everything durable at Bob but how much he has received.
fn rows_but_the_mark(meeting: &Meeting) -> capstan_store::schema::ChangeSet {
    let mut rows = meeting.world.rows(meeting.bob);
    rows.sessions.clear();
    rows
}

#[test]
fn r109_one_peer_is_one_remote() {
    let mut world = World::seeded(109);
    let (ann, bob) = (world.kernel("ann"), world.kernel("bob"));
    let (of_ann, of_bob) = (world.peer(ann), world.peer(bob));
    let hint = |text: &str| HostOp::PeerHint { peer: of_bob.clone(), hints: vec![text.into()] };
    for place in ["sim/one", "sim/two", "sim/one"] {
        assert_eq!(world.ask(ann, hint(place)), Ok(Answer::Done));
    }
    assert_eq!(
        world.ask(ann, HostOp::PeerHint { peer: of_bob.clone(), hints: Vec::new() }),
        Ok(Answer::Done)
    );
    let rid = world.remote_of(ann, bob);
    let known = world.db(ann).get::<Remotes>(&rid).expect("a record").hints.clone();
    assert_eq!(known.iter().map(|hint| &**hint).collect::<Vec<_>>(), ["sim/one", "sim/two"]);
    let counter = world.vat(bob, scripted::counter());
    let url = world.issue(bob, counter);
    world.call(ann, &url, "bump").fulfils(1);
    world.call(ann, &url, "bump").fulfils(2);
    assert_eq!((world.remote_of(ann, bob), world.db(ann).len::<Remotes>()), (rid, 1));
    // The other side was told of nothing, and has made one for whoever called.
    assert_eq!((world.db(bob).len::<Remotes>(), world.remote(bob, &of_ann).is_some()), (1, true));
    let nobody = PeerId::new("peer-nobody");
    for op in [HostOp::PeerClose(nobody.clone()), HostOp::PeerForget(nobody.clone())] {
        assert_eq!(world.ask(ann, op), Err(Refusal::PeerNotFound(nobody.clone())));
    }
    // A number is not given again.
    assert_eq!(world.ask(ann, HostOp::PeerForget(of_bob.clone())), Ok(Answer::Done));
    world.run_until_quiet();
    world.call(ann, &url, "bump").fulfils(3);
    assert!(world.remote_of(ann, bob) > rid);
    world.assert_quiescent();
}

#[test]
fn r110_hints_survive_a_restart() {
    let mut world = World::seeded(110);
    let ann = world.bare_kernel("ann", Generation::Session);
    let peer = PeerId::new("peer-far");
    let places: Vec<Hint> = vec!["sim/one".into(), "sim/two".into()];
    let asked = HostOp::PeerHint { peer: peer.clone(), hints: places.clone() };
    assert_eq!(world.ask(ann, asked), Ok(Answer::Done));
    world.restart(ann, Keep);
    let url = format!("ocap:zAny@{peer}");
    world.start_redeem(ann, &url);
    world.advance(30);
    let wanted = world.orders(ann).into_iter().find_map(|order| match order {
        LinkOrder::Want { hints, .. } => Some(hints),
        _ => None,
    });
    assert_eq!(wanted, Some(places));
}

/// Ann's host holds Bob's puppet, and Bob's puppet holds Carl's, as `carl`.
struct Chain {
    world: World,
    kernels: [KernelId; 3],
    bobs: ObjectId,
    /// Bob's puppet, at Ann.
    at_ann: ObjectId,
    carls: ObjectId,
    url_of_carl: String,
}

fn chain(seed: u64, generation: Generation) -> Chain {
    let mut world = World::seeded(seed);
    let kernels = ["ann", "bob", "carl"].map(|name| world.kernel_of(name, generation));
    let [ann, bob, carl] = kernels;
    let bobs = world.vat(bob, scripted::puppet());
    let carls = world.vat(carl, scripted::puppet());
    let (url_of_bob, url_of_carl) = (world.issue(bob, bobs), world.issue(carl, carls));
    let at_bob = world.redeem(bob, &url_of_carl);
    world.call_with(bob, bobs, "keep", vec!["carl".value(), KRef::Object(at_bob).value()]).succeeds();
    let at_ann = world.redeem(ann, &url_of_bob);
    Chain { world, kernels, bobs, at_ann, carls, url_of_carl }
}

#[test]
fn r151_in_a_chain_of_three_the_middle_restarts() {
    for generation in BOTH {
        let Chain { mut world, kernels: [ann, bob, carl], at_ann, carls, url_of_carl, .. } =
            chain(151, generation);
        // Bob is also given something that no URL leads to.
        let given = ["carl", "object", "x"].map(|arg| arg.value());
        world.call_with(ann, at_ann, "call", given.to_vec()).succeeds();
        let asked = ["carl", "hang", "h"].map(|arg| arg.value());
        let call = world.call_with(ann, at_ann, "call", asked.to_vec()).pending();
        world.restart(bob, Wipe);
        world.back_to(call).rejects("[KERNEL:PEER_RESTARTED]");
        // Carl notices nothing until Bob is heard of; then his own work goes on, and what only Bob had is let go.
        let life = world.db(carl).get::<Meta>(&"incarnation".into()).cloned();
        let anew = world.vat(bob, scripted::puppet());
        let at_bob = world.redeem(bob, &url_of_carl);
        world.call_with(bob, anew, "keep", vec!["carl".value(), KRef::Object(at_bob).value()]).succeeds();
        let done = ["carl", "fulfil", "h", "late"].map(|arg| arg.value());
        world.call_with(bob, anew, "call", done.to_vec()).succeeds();
        world.run_until_quiet();
        assert_eq!(world.db(carl).get::<Meta>(&"incarnation".into()).cloned(), life, "{generation:?}");
        let remote = EndpointId::Remote(world.remote_of(carl, bob));
        let held = world.db(carl).iter::<Clist>().filter(|((whose, kref), _)| {
            *whose == remote && matches!(kref, KRef::Object(ko) if *ko != carls)
        });
        assert_eq!(held.count(), 0, "{generation:?}: released");
        let row = world.db(ann).get::<Remotes>(&world.remote_of(ann, bob)).expect("a record");
        assert_eq!(row.restarts_seen, 1);
        world.assert_quiescent();
    }
}

#[test]
fn r152_in_a_chain_of_three_the_end_restarts() {
    for generation in BOTH {
        let Chain { mut world, kernels: [ann, bob, carl], at_ann, bobs, .. } = chain(152, generation);
        let asked = ["carl", "hang", "h"].map(|arg| arg.value());
        let call = world.call_with(ann, at_ann, "call", asked.to_vec()).pending();
        world.restart(carl, Wipe);
        world.run_until_quiet();
        // Bob's vat was told why and passed it on: to Ann it is a rejection like any other.
        world.back_to(call).rejects("[KERNEL:PEER_RESTARTED]");
        let seen = |at: KernelId, of: KernelId| {
            world.db(at).get::<Remotes>(&world.remote_of(at, of)).expect("a record").restarts_seen
        };
        assert_eq!((seen(ann, bob), seen(bob, carl)), (0, 1), "{generation:?}");
        world.call_with(ann, at_ann, "whoami", Vec::new()).succeeds();
        // What was Carl's is nobody's.
        let again = ["carl", "whoami"].map(|arg| arg.value());
        world.call_with(bob, bobs, "call", again.to_vec()).rejects("[KERNEL:OBJECT_DELETED]");
        world.assert_quiescent();
    }
}

#[test]
fn r175_a_restored_backup_is_noticed_and_nothing_is_misdelivered() {
    let mut world = World::seeded(175);
    let (ann, bob) = (world.kernel("ann"), world.kernel("bob"));
    let puppet = world.vat(bob, scripted::puppet());
    let url = world.issue(bob, puppet);
    let object = world.redeem(ann, &url);
    let first = world.call_with(ann, object, "object", vec!["before".value()]).reference();
    world.run_until_quiet();
    let backup = world.snapshot(bob);
    // Three messages that the backup knows nothing of, one of them with a name that will be used again.
    let second = world.call_with(ann, object, "object", vec!["after".value()]).reference();
    world.call_with(ann, object, "object", vec!["last".value()]).succeeds();
    let call = world.call_with(ann, object, "hang", vec!["h".value()]).pending();
    let life = world.db(bob).get::<Meta>(&"incarnation".into()).cloned();
    world.kill(bob);
    world.swap_disk(bob, RestoreSnapshot(backup));
    world.start(bob);
    world.run_until_quiet();
    world.back_to(call).rejects("[KERNEL:PEER_RESTARTED]");
    assert_ne!(world.db(bob).get::<Meta>(&"incarnation".into()).cloned(), life);
    let lost = world.log(bob).iter().any(|line| line.contains("this state is an older backup"));
    assert!(lost, "{:#?}", world.log(bob));
    match world.ask(bob, HostOp::Status) {
        Ok(Answer::Status(status)) => assert_eq!(status.alarms.len(), 1, "{status:?}"),
        other => panic!("{other:?}"),
    }
    // No old name reaches anything; a new object under the number of a lost one is another.
    let anew = world.redeem(ann, &url);
    let third = world.call_with(ann, anew, "object", vec!["anew".value()]).reference();
    for old in [first, second] {
        assert_ne!(old, third);
        world
            .call_with(ann, old.object().expect("an object"), "whoami", Vec::new())
            .rejects("[KERNEL:OBJECT_DELETED]");
    }
    world.call_with(ann, third.object().expect("an object"), "whoami", Vec::new()).succeeds();
    world.assert_quiescent();
    world.assert_names_match(ann, bob);
}

#[test]
fn r176_the_same_identity_twice_is_refused_with_an_alarm() {
    for generations in PAIRS {
        for dialed in [false, true] {
            let mut meeting = strangers(176, generations);
            let bob = meeting.bob;
            meeting.dee.peer = meeting.world.peer(bob);
            let before = (meeting.world.db(bob).len::<Remotes>(), meeting.world.db(bob).len::<Sessions>());
            for _ in 0..3 {
                let verdict = meeting.connect(dialed);
                assert!(matches!(verdict, Verdict::Refuse(_)), "{generations:?} {verdict:?}");
            }
            let db = meeting.world.db(bob);
            assert_eq!((db.len::<Remotes>(), db.len::<Sessions>()), before, "{generations:?}");
            assert_eq!(db.len::<PeerIncarnations>(), 0);
            let alarm = "our own peer id is at the other end of a channel";
            assert!(
                meeting.world.log(bob).iter().any(|line| line.starts_with("Error") && line.contains(alarm))
            );
            match meeting.world.ask(bob, HostOp::Status) {
                Ok(Answer::Status(status)) => {
                    assert_eq!(status.alarms.len(), 1, "{generations:?}: once, however often");
                    assert!(status.alarms[0].contains(alarm), "{status:?}");
                }
                other => panic!("{other:?}"),
            }
            meeting.world.assert_quiescent();
        }
    }
}

#[test]
fn r176_our_own_identity_is_no_peer() {
    let mut pair = pair(1176, PAIRS[0]);
    let own = pair.world.peer(pair.ann);
    let hinted =
        pair.world.ask(pair.ann, HostOp::PeerHint { peer: own.clone(), hints: vec!["sim/x".into()] });
    assert!(matches!(hinted, Err(Refusal::BadReference(_))), "{hinted:?}");
    assert_eq!(pair.world.remote(pair.ann, &own), None);
    pair.world.assert_quiescent();
}
