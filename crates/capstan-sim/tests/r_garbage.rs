//! Collection across kernels, redemptions served, and messages without a result (03 C.2, C.7, Part E).

use crate::pairs::{Meeting, PAIRS, meeting, pair};
use capstan_kernel::host_op::HostOp;
use capstan_kernel::kernel::{Generation, KernelConfig};
use capstan_model::id::{EndpointId, KRef};
use capstan_model::refs::ERef;
use capstan_sim::passable::Passable;
use capstan_sim::scripted;
use capstan_sim::world::{KernelId, World};
use capstan_store::schema::{Clist, Objects, Promises};
use capstan_wire::link::LinkOptions;
use serde_json::{Value, json};

/// The numbered frames among those that Dee hears, decoded.
fn heard(meeting: &mut Meeting) -> Vec<Value> {
    let texts = meeting.dee.heard(&mut meeting.world);
    let frames = texts.iter().map(|text| serde_json::from_str::<Value>(text).unwrap());
    frames.filter(|frame| frame.get("seq").is_some()).collect()
}

/// What Bob has of the puppet: (reachable, recognizable).
fn counts(meeting: &Meeting) -> (u64, u64) {
    let row = meeting.world.db(meeting.bob).get::<Objects>(&meeting.puppet).unwrap();
    (row.reachable, row.recognizable)
}

/// How Bob's c-list for Dee calls the puppet.
fn puppet_at_dee(meeting: &Meeting) -> Option<ERef> {
    let key = (meeting.endpoint(), KRef::Object(meeting.puppet));
    meeting.world.db(meeting.bob).get::<Clist>(&key).map(|row| row.eref)
}

/// Objects, promises and c-list entries.
fn rows(world: &World, kernel: KernelId) -> (usize, usize, usize) {
    let db = world.db(kernel);
    (db.len::<Objects>(), db.len::<Promises>(), db.len::<Clist>())
}

/// The puppet makes an object and passes it to Dee's object kept as `via`, in no settlement; returns what it is, here and
/// as Dee writes it.
fn dee_is_given_x(meeting: &mut Meeting, via: &str) -> (KRef, String) {
    meeting.dee_calls("#[\"object\",[\"x\"]]", &[], None);
    meeting.puppet("tell", &[via, "look", "$x"]);
    let frames = heard(meeting);
    let look = frames.iter().rev().find(|frame| frame["params"][0] == "message").expect("a message");
    let name = look["params"][2]["methargs"]["slots"][0].as_str().expect("an object").replace('+', "-");
    (meeting.kref(&name).expect("known there"), name)
}

fn collect(world: &mut World, kernel: KernelId) {
    assert!(world.ask(kernel, HostOp::Collect).is_ok());
    world.run_until_quiet();
}

#[test]
fn r106_redemptions_at_the_same_time_are_apart() {
    for generations in PAIRS {
        let mut pair = pair(106, generations);
        let puppet = pair.world.vat(pair.bob, scripted::puppet());
        let other = pair.world.issue(pair.bob, puppet);
        let nobody = "ocap:zNobody@".to_owned() + pair.world.peer(pair.bob).as_str();
        let asked = [&pair.url.clone(), &other, &nobody].map(|url| pair.world.start_redeem(pair.ann, url));
        pair.world.run_until_quiet();
        let answers = asked.map(|request| pair.world.answer(request).cloned().expect("an answer"));
        assert!(answers[0].is_ok() && answers[1].is_ok(), "{generations:?} {answers:?}");
        assert_ne!(answers[0], answers[1]);
        assert!(answers[2].is_err(), "{answers:?}");
    }
}

#[test]
fn r107_a_redemption_is_answered_by_a_numbered_frame_after_its_commit() {
    for generations in PAIRS {
        let mut meeting = meeting(107, generations);
        let url = meeting.url.clone();
        let asked = meeting.dee.sent.next();
        meeting.dee.send(&mut meeting.world, "redeemURL", json!([url, "good"]));
        let reply = heard(&mut meeting).pop().expect("a reply");
        assert_eq!(reply["method"], "redeemURLReply", "{generations:?}");
        assert_eq!(reply["params"], json!([true, "good", "ro+1"]));
        assert_eq!((&reply["seq"], &reply["ack"]), (&json!(meeting.session_row().sent.0), &json!(asked.0)));
        meeting.dee.send(&mut meeting.world, "redeemURL", json!(["ocap:zAny@nobody", "bad"]));
        let reply = heard(&mut meeting).pop().expect("a reply");
        assert_eq!((&reply["params"][0], &reply["params"][1]), (&json!(false), &json!("bad")));
        assert!(reply["params"][2].is_string(), "{reply}");
        meeting.settle();
    }
}

/// The kinds of delivery among numbered frames.
fn kinds(frames: &[Value]) -> Vec<&str> {
    frames.iter().filter_map(|frame| frame["params"][0].as_str()).collect()
}

#[test]
fn r155_a_request_to_collect_is_a_numbered_frame() {
    for generations in PAIRS {
        let mut meeting = meeting(155, generations);
        let (sent, rid) = (meeting.session_row().sent, meeting.rid());
        let asked = HostOp::Reap(vec![rid.into()]);
        assert!(meeting.world.ask(meeting.bob, asked).is_ok());
        assert_eq!(meeting.session_row().sent, sent.next(), "{generations:?}");
        assert_eq!(meeting.world.outbox_len(meeting.bob), 1, "it is kept until it is acknowledged");
        let frames = heard(&mut meeting);
        assert_eq!(kinds(&frames), ["bringOutYourDead"]);
        assert_eq!(
            (&frames[0]["seq"], &frames[0]["params"]),
            (&json!(sent.next().0), &json!(["bringOutYourDead"]))
        );
        meeting.settle();
    }
}

#[test]
fn r156_a_request_to_collect_is_not_echoed_but_acted_on() {
    for generations in PAIRS {
        let mut meeting = meeting(156, generations);
        // A local holder of Dee's object forgets it: at its next collection the kernel hears of it.
        let idle = meeting.world.vat(meeting.bob, scripted::puppet());
        meeting.world.call(meeting.bob, idle, "seen").succeeds();
        let sent = meeting.session_row().sent;
        meeting.dee.send(&mut meeting.world, "deliver", json!(["bringOutYourDead"]));
        meeting.world.advance(200);
        let frames = heard(&mut meeting);
        assert!(frames.is_empty(), "{generations:?} {frames:?}");
        assert_eq!((meeting.session_row().recv, meeting.session_row().sent), (meeting.dee.sent, sent));
        let told = |meeting: &Meeting| meeting.world.stored(meeting.bob, idle, "garbage");
        assert_eq!(told(&meeting).as_deref(), Some("reaped"), "vats that worked collect as well");
        // Once more: nobody has worked since. Only the first of our own requests that follow is not ours to send.
        meeting.dee.send(&mut meeting.world, "deliver", json!(["bringOutYourDead"]));
        assert_eq!(told(&meeting).as_deref(), Some("reaped"));
        let ours = HostOp::Reap(vec![meeting.endpoint()]);
        assert!(meeting.world.ask(meeting.bob, ours).is_ok());
        meeting.world.advance(200);
        assert_eq!(kinds(&heard(&mut meeting)), ["bringOutYourDead"], "{generations:?}");
        meeting.settle();
    }
}

#[test]
fn r157_both_ask_at_once_and_it_ends() {
    for generations in PAIRS {
        let mut pair = pair(157, generations);
        let (ann, bob) = (pair.ann, pair.bob);
        let object = pair.world.redeem(ann, &pair.url.clone());
        pair.world.run_until_quiet();
        pair.world.forget_frames();
        let remotes = [(ann, bob), (bob, ann)].map(|(from, to)| (from, pair.world.remote_of(from, to)));
        for (kernel, rid) in remotes {
            pair.world.request(kernel, HostOp::Reap(vec![rid.into()]));
        }
        pair.world.run_until_quiet();
        for (from, to) in [(ann, bob), (bob, ann)] {
            let asked = pair.world.numbered(from, to);
            let asked = asked.iter().filter(|text| text.contains("bringOutYourDead")).count();
            assert_eq!(asked, 1, "{generations:?}");
        }
        pair.world.call(ann, object, "bump").fulfils(1);
        pair.world.assert_quiescent();
    }
}

#[test]
fn r158_r159_drops_and_retirements_received() {
    for generations in PAIRS {
        let mut meeting = meeting(158, generations);
        let name = meeting.target.clone();
        let (reachable, recognizable) = counts(&meeting);
        // What is still reachable there cannot be retired.
        meeting.dee.send(&mut meeting.world, "deliver", json!(["retireExports", [name]]));
        assert_eq!(counts(&meeting), (reachable, recognizable), "{generations:?}");
        assert!(puppet_at_dee(&meeting).is_some());
        // A promise among what is dropped stays as it was.
        meeting.dee_calls("#[\"promise\",[\"later\"]]", &[], Some("rp+1"));
        let told = heard(&mut meeting).pop().expect("a settlement");
        let promise = told["params"][1][0][2]["slots"][0].as_str().expect("a promise").replace('+', "-");
        let kept = meeting.kref(&promise).expect("known there");
        let state = |meeting: &Meeting| {
            let row = meeting.world.db(meeting.bob).get::<Promises>(&kept.promise().unwrap());
            row.map(|row| row.state.clone())
        };
        let before = state(&meeting);
        meeting.dee.send(&mut meeting.world, "deliver", json!(["dropExports", [promise, name]]));
        assert_eq!(counts(&meeting), (reachable - 1, recognizable), "{generations:?}");
        assert_eq!((state(&meeting), meeting.kref(&promise)), (before, Some(kept)));
        assert!(puppet_at_dee(&meeting).is_some());
        meeting.dee.send(&mut meeting.world, "deliver", json!(["retireExports", [name]]));
        assert_eq!(counts(&meeting), (reachable - 1, recognizable - 1), "{generations:?}");
        assert_eq!(puppet_at_dee(&meeting), None);
        meeting.settle();
    }
}

#[test]
fn r160_retirements_of_imports_received() {
    for generations in PAIRS {
        let mut meeting = meeting(160, generations);
        meeting.dee_calls("#[\"keep\",[\"dee\",\"$0\"]]", &["ro+1"], Some("rp+1"));
        heard(&mut meeting);
        meeting.dee.acknowledge(&mut meeting.world);
        let kref = meeting.kref("ro+1").expect("introduced");
        meeting.puppet("drop", &["dee"]);
        meeting.world.advance(200);
        let frames = heard(&mut meeting);
        let kinds: Vec<_> = frames.iter().filter_map(|frame| frame["params"][0].as_str()).collect();
        assert!(kinds.contains(&"dropExports"), "{generations:?} {frames:?}");
        // Dee may retire it on her side as well, late or not: afterwards neither half is left.
        meeting.dee.send(&mut meeting.world, "deliver", json!(["retireImports", ["ro+1"]]));
        assert_eq!(meeting.kref("ro+1"), None, "{generations:?}");
        assert!(meeting.world.db(meeting.bob).get::<Clist>(&(meeting.endpoint(), kref)).is_none());
        meeting.settle();
    }
}

#[test]
fn r163_an_object_exported_dropped_and_retired_there_is_gone_here() {
    for generations in PAIRS {
        let mut pair = pair(163, generations);
        let (ann, bob) = (pair.ann, pair.bob);
        let (near, far) = (pair.world.vat(ann, scripted::puppet()), pair.world.vat(bob, scripted::puppet()));
        let url = pair.world.issue(bob, far);
        let far_here = pair.world.redeem(ann, &url);
        pair.world
            .call_with(ann, near, "keep", vec!["far".value(), KRef::Object(far_here).value()])
            .succeeds();
        let cycle = |world: &mut World| {
            world.call_with(ann, near, "object", vec!["x".value()]).succeeds();
            let args = ["far", "keep", "x", "$x"].map(|arg| arg.value());
            world.call_with(ann, near, "call", args.to_vec()).succeeds();
            world.call_with(bob, far, "drop", vec!["x".value()]).succeeds();
            collect(world, bob);
            collect(world, ann);
            collect(world, bob);
        };
        cycle(&mut pair.world);
        // In the classic generation the names of the calls' results outlive some collections.
        let collected = |world: &mut World| {
            (0..3).for_each(|_| collect(world, ann));
            (rows(world, ann), rows(world, bob))
        };
        let before = collected(&mut pair.world);
        for _ in 0..3 {
            cycle(&mut pair.world);
            assert_eq!(collected(&mut pair.world), before, "{generations:?}");
        }
        pair.world.assert_quiescent();
        pair.world.assert_names_match(ann, bob);
    }
}

#[test]
fn r166_after_ten_thousand_far_calls_the_rows_are_as_many_as_before() {
    for (of_ann, of_bob) in PAIRS {
        let mut world = World::seeded(166);
        let quick = |generation| {
            move |config: &mut KernelConfig, _: &mut LinkOptions| {
                config.generation = generation;
                config.audit_every_transaction = false;
            }
        };
        let ann = world.kernel_with("ann", quick(of_ann));
        let bob = world.kernel_with("bob", quick(of_bob));
        let counter = world.vat(bob, scripted::counter());
        let url = world.issue(bob, counter);
        let object = world.redeem(ann, &url);
        let collected = |world: &mut World| {
            // In the classic generation a settled promise's name outlives some collections.
            (0..3).for_each(|_| collect(world, ann));
            [ann, bob].map(|kernel| rows(world, kernel))
        };
        let before = collected(&mut world);
        let session = of_ann == Generation::Session && of_bob == Generation::Session;
        for round in 1..=10 {
            let calls: Vec<_> =
                (0..1000).map(|_| world.start_call(ann, object, "bump", Vec::new())).collect();
            world.run_until_quiet();
            assert!(calls.iter().all(|call| world.outcome(*call).is_some()), "{of_ann:?} {of_bob:?} {round}");
            // Without being asked for, collections keep the rest bounded.
            let kept = if session { 0 } else { 4_100 };
            for kernel in [ann, bob] {
                let now = rows(&world, kernel);
                assert!(now.1 <= kept && now.2 <= before[0].2.max(before[1].2) + kept, "{now:?} {round}");
            }
        }
        assert_eq!(collected(&mut world), before, "{of_ann:?} {of_bob:?}");
        world.assert_quiescent();
        world.assert_names_match(ann, bob);
    }
}

#[test]
fn r172_a_message_without_a_result_crosses() {
    for generations in PAIRS {
        let mut meeting = meeting(172, generations);
        meeting.dee_calls("#[\"keep\",[\"dee\",\"$0\"]]", &["ro+1"], None);
        assert_eq!(meeting.session_row().recv, meeting.dee.sent, "{generations:?}");
        assert!(meeting.kref("ro+1").is_some());
        meeting.puppet("tell", &["dee", "hello"]);
        meeting.world.advance(50);
        let frames = heard(&mut meeting);
        let told = frames.iter().find(|frame| frame["params"][0] == "message").expect("a message");
        assert_eq!(told["params"][1], "ro-1", "{generations:?}");
        // The classic generation takes no message without a result: it is given one that nobody awaits.
        let result = told["params"][2].get("result");
        assert_eq!(result.is_none(), meeting.session, "{generations:?} {told}");
        meeting.settle();
    }
}

#[test]
fn r174_a_peer_that_is_away_for_a_minute_loses_nothing() {
    for generations in PAIRS {
        let mut pair = pair(174, generations);
        let (ann, bob) = (pair.ann, pair.bob);
        let object = pair.world.redeem(ann, &pair.url.clone());
        pair.world.kill(bob);
        let calls: Vec<_> = (0..5).map(|_| pair.world.start_call(ann, object, "bump", Vec::new())).collect();
        pair.world.advance(60_000);
        assert_eq!(pair.world.outbox_len(ann), 5, "{generations:?}");
        pair.world.start(bob);
        pair.world.run_until_quiet();
        for (n, call) in calls.into_iter().enumerate() {
            pair.world.back_to(call).fulfils(i32::try_from(n).unwrap() + 1);
        }
        pair.world.assert_quiescent();
    }
}

#[test]
fn r161_actions_toward_a_peer_are_filtered_and_ordered() {
    for generations in PAIRS {
        let mut meeting = meeting(161, generations);
        let keeper = meeting.world.vat(meeting.bob, scripted::puppet());
        for (n, name) in ["a", "b", "kept"].into_iter().enumerate() {
            let (slot, result) = (format!("ro+{}", 9 - n), format!("rp+{}", n + 1));
            meeting.dee_calls(&format!("#[\"keep\",[\"{name}\",\"$0\"]]"), &[&slot], Some(&result));
        }
        let kept = meeting.kref("ro+7").expect("introduced");
        meeting.world.call_with(meeting.bob, keeper, "keep", vec!["it".value(), kept.value()]).succeeds();
        let (_, weak) = dee_is_given_x(&mut meeting, "kept");
        meeting.dee.send(&mut meeting.world, "deliver", json!(["dropExports", [weak]]));
        meeting.dee.acknowledge(&mut meeting.world);
        // In one transaction its imports are let go of and its exports orphaned: drops, then retirements; what somebody
        // else still holds is left alone; each list is sorted by the kernel's own names.
        let vat = meeting.world.vat_of(meeting.bob, meeting.puppet);
        assert!(meeting.world.ask(meeting.bob, HostOp::TerminateVat(vat)).is_ok());
        meeting.world.advance(200);
        let frames = heard(&mut meeting);
        let told: Vec<_> = frames.iter().map(|frame| frame["params"].clone()).collect();
        let expected = [
            json!(["dropExports", ["ro-9", "ro-8"]]),
            json!(["retireExports", ["ro-9", "ro-8"]]),
            json!(["retireImports", [weak.replace('-', "+")]]),
        ];
        assert_eq!(told, expected, "{generations:?}");
        assert_eq!(meeting.kref("ro+7"), Some(kept));
        meeting.settle();
    }
}

#[test]
fn r162_all_some_or_no_remotes_are_reaped() {
    let mut world = World::seeded(162);
    let names = ["ann", "bob", "cat"];
    let kernels = names.map(|name| world.kernel(name));
    let [ann, bob, cat] = kernels;
    for other in [bob, cat] {
        let counter = world.vat(other, scripted::counter());
        let url = world.issue(other, counter);
        world.redeem(ann, &url);
    }
    let remotes = [bob, cat].map(|other| world.remote_of(ann, other).into());
    let gone = EndpointId::Remote(capstan_model::id::RemoteId(77));
    let cases = [
        (remotes.to_vec(), [1, 1]),
        (vec![gone, remotes[1]], [0, 1]),
        (vec![gone], [0, 0]),
        (vec![], [0, 0]),
    ];
    for (endpoints, expected) in cases {
        world.run_until_quiet();
        world.forget_frames();
        assert!(world.ask(ann, HostOp::Reap(endpoints.clone())).is_ok());
        world.run_until_quiet();
        let asked = |to| {
            let frames = world.numbered(ann, to);
            frames.iter().filter(|text| text.contains("bringOutYourDead")).count()
        };
        assert_eq!([bob, cat].map(asked), expected, "{endpoints:?}");
    }
    world.assert_quiescent();
}

#[test]
fn r162_peers_are_asked_to_collect_from_time_to_time() {
    let mut pair = pair(1162, PAIRS[0]);
    let (ann, bob) = (pair.ann, pair.bob);
    let object = pair.world.redeem(ann, &pair.url.clone());
    pair.world.forget_frames();
    for _ in 0..25 {
        for _ in 0..100 {
            pair.world.start_call(ann, object, "bump", Vec::new());
        }
        pair.world.run_until_quiet();
    }
    let frames = pair.world.numbered(ann, bob);
    let asked: Vec<_> = frames.iter().filter(|text| text.contains("bringOutYourDead")).collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    pair.world.assert_quiescent();
}

#[test]
fn r164_a_drop_that_crosses_a_new_mention_is_stale() {
    for generations in PAIRS {
        let mut meeting = meeting(164, generations);
        meeting.dee_calls("#[\"keep\",[\"dee\",\"$0\"]]", &["ro+1"], Some("rp+1"));
        let (x, name) = dee_is_given_x(&mut meeting, "dee");
        let written = name.replace('-', "+");
        let ko = x.object().expect("an object");
        let reachable = |meeting: &Meeting| {
            let row = meeting.world.db(meeting.bob).get::<Objects>(&ko).expect("a record");
            (row.reachable, puppet_entry(meeting, ko))
        };
        assert_eq!(reachable(&meeting), (1, Some(true)), "{generations:?}");
        // While Bob mentions it again, Dee, who has not heard that, lets go of it.
        let drop = meeting.dee.next_frame("deliver", json!(["dropExports", [name]]));
        meeting.puppet("tell", &["dee", "look", "$x"]);
        meeting.dee.say(&mut meeting.world, &drop);
        assert_eq!(reachable(&meeting), (1, Some(true)), "{generations:?}: the drop is stale");
        let heard_now = heard(&mut meeting);
        assert!(heard_now.iter().any(|frame| frame["params"][2]["methargs"]["slots"] == json!([written])));
        // Nor may she retire what she was told of meanwhile.
        meeting.dee.send(&mut meeting.world, "deliver", json!(["dropExports", [name]]));
        assert_eq!(reachable(&meeting), (0, Some(false)), "{generations:?}");
        meeting.settle();
    }
}

/// The reachable flag of Dee's entry for an object of Bob's.
fn puppet_entry(meeting: &Meeting, ko: capstan_model::id::ObjectId) -> Option<bool> {
    let key = (meeting.endpoint(), KRef::Object(ko));
    meeting.world.db(meeting.bob).get::<Clist>(&key).map(|row| row.reachable)
}

#[test]
fn r165_the_owner_is_told_when_neither_a_vat_nor_a_peer_holds_the_object() {
    for peer_first in [false, true] {
        for generations in PAIRS {
            let mut meeting = meeting(165, generations);
            let local = meeting.world.vat(meeting.bob, scripted::puppet());
            meeting.dee_calls("#[\"keep\",[\"dee\",\"$0\"]]", &["ro+1"], Some("rp+1"));
            let (x, name) = dee_is_given_x(&mut meeting, "dee");
            meeting.world.call_with(meeting.bob, local, "keep", vec!["x".value(), x.value()]).succeeds();
            let garbage = |meeting: &Meeting| {
                let told = meeting.world.stored(meeting.bob, meeting.puppet, "garbage");
                told.map_or(0, |told| told.matches("dropped there").count())
            };
            let peer = |meeting: &mut Meeting| {
                meeting.dee.send(&mut meeting.world, "deliver", json!(["dropExports", [name]]));
            };
            let vat = |meeting: &mut Meeting| {
                meeting.world.call_with(meeting.bob, local, "drop", vec!["x".value()]).succeeds();
            };
            if peer_first {
                peer(&mut meeting)
            } else {
                vat(&mut meeting)
            }
            assert_eq!(garbage(&meeting), 0, "{generations:?} {peer_first}");
            if peer_first {
                vat(&mut meeting)
            } else {
                peer(&mut meeting)
            }
            meeting.world.advance(100);
            assert_eq!(garbage(&meeting), 1, "{generations:?} {peer_first}");
            meeting.settle();
            assert_eq!(garbage(&meeting), 1);
        }
    }
}

#[test]
fn r166_a_name_that_a_classic_peer_uses_late_stands_for_the_same_settlement_or_is_rejected() {
    for generations in [PAIRS[1], PAIRS[2]] {
        let mut meeting = meeting(1166, generations);
        // Dee's call with the result `rp+1` is settled; she names it in a call written before she acted on that.
        meeting.dee_calls("#[\"object\",[\"x\"]]", &[], Some("rp+1"));
        heard(&mut meeting);
        let settled = meeting.kref("rp+1");
        assert!(settled.is_some(), "{generations:?}");
        meeting.dee_calls("#[\"keep\",[\"late\",\"&0\"]]", &["rp+1"], Some("rp+2"));
        assert_eq!(meeting.kref("rp+1"), settled);
        // A promise of ours that is told, and forgotten some collections later.
        meeting.dee_calls("#[\"promise\",[\"p\"]]", &[], Some("rp+3"));
        let told = heard(&mut meeting).pop().expect("a settlement");
        let name = told["params"][1][0][2]["slots"][0].as_str().expect("a promise").replace('+', "-");
        meeting.puppet("fulfil", &["p", "done"]);
        meeting.world.advance(50);
        for _ in 0..4 {
            heard(&mut meeting);
            meeting.dee.send(&mut meeting.world, "deliver", json!(["bringOutYourDead"]));
            heard(&mut meeting);
            let ours = HostOp::Reap(vec![meeting.endpoint()]);
            assert!(meeting.world.ask(meeting.bob, ours).is_ok());
        }
        heard(&mut meeting);
        assert_eq!((meeting.kref("rp+1"), meeting.kref(&name)), (None, None), "{generations:?}");
        meeting.dee_calls("#[\"begin\",[\"late\",\"x\",\"y\"]]", &[], Some("rp+8"));
        meeting.dee_calls("#[\"keep\",[\"gone\",\"&0\"]]", &[&name], Some("rp+9"));
        assert_eq!(meeting.session_row().recv, meeting.dee.sent);
        meeting.puppet("watch", &["gone"]);
        let seen = meeting.seen("gone").expect("a settlement");
        assert!(seen.starts_with("rejected") && seen.contains("was settled long ago"), "{seen}");
        meeting.settle();
    }
}
