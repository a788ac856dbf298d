//! Gaps, late answers, redemptions, and deliveries while nobody is connected (03 C-11, C-29, C-30, C.7).

use crate::pairs::{Meeting, PAIRS, meeting, pair};
use capstan_kernel::host_op::{Answer, Refusal};
use capstan_kernel::input::RequestId;
use capstan_model::peer::Seq;
use capstan_sim::passable::Passable;
use capstan_sim::stranger::message;
use capstan_sim::world::Restart::Keep;
use capstan_store::schema::{Outbox, Promises, Redemptions};
use capstan_wire::seam::Verdict;
use serde_json::{Value, json};

/// Bob asks Dee for an object; returns the request and the key of the question.
fn ask_dee(meeting: &mut Meeting) -> (RequestId, String) {
    let url = format!("ocap:zAny@{}", meeting.dee.peer);
    let request = meeting.world.start_redeem(meeting.bob, &url);
    meeting.world.advance(30);
    let heard = meeting.dee.heard(&mut meeting.world);
    let asked = heard.iter().rev().find(|text| text.contains("\"redeemURL\"")).expect("a question");
    let asked: Value = serde_json::from_str(asked).unwrap();
    (request, asked["params"][1].as_str().unwrap().to_owned())
}

#[test]
fn r97_a_frame_ahead_of_its_turn_waits_for_the_one_before() {
    for generations in PAIRS {
        let mut meeting = meeting(97, generations);
        let bob = meeting.bob;
        let call = |name: &str, n: u64| {
            message("ro-1", &format!("#[\"object\",[\"{name}\"]]"), &[], Some(&format!("rp+{n}")))
        };
        let first = meeting.dee.next_frame("deliver", call("first", 1));
        let second = meeting.dee.next_frame("deliver", call("second", 2));
        let before = meeting.session_row();
        meeting.dee.say(&mut meeting.world, &second);
        assert_eq!(meeting.session_row(), before, "{generations:?}: not beyond the gap");
        let heard = meeting.dee.heard(&mut meeting.world);
        let beyond = format!("\"ack\":{}", meeting.dee.sent);
        assert!(!heard.iter().any(|text| text.contains(&beyond)), "{heard:?}");
        if meeting.session {
            // The channel was closed; the session is resumed on another.
            assert_eq!(meeting.connect(false), Verdict::Register);
        }
        meeting.dee.say(&mut meeting.world, &first);
        meeting.dee.say(&mut meeting.world, &second);
        assert_eq!(meeting.session_row().recv, meeting.dee.sent);
        let kept = |name: &str| meeting.world.stored(bob, meeting.puppet, &format!("held.{name}"));
        assert_eq!(kept("first").as_deref(), Some("o+d1/1"), "{generations:?}");
        assert_eq!(kept("second").as_deref(), Some("o+d1/2"));
        meeting.settle();
    }
}

#[test]
fn r97_a_number_out_of_all_reason_poisons_nothing() {
    for generations in PAIRS {
        let mut meeting = meeting(97, generations);
        let text = "{\"seq\":9007199254740991,\"method\":\"deliver\",\"params\":[\"bringOutYourDead\"]}";
        meeting.dee.say(&mut meeting.world, text);
        if meeting.session {
            assert_eq!(meeting.connect(false), Verdict::Register);
        }
        assert_eq!(meeting.redeem(), meeting.target, "{generations:?}");
        meeting.settle();
    }
}

#[test]
fn r101_a_settlement_without_a_connection_is_told_later() {
    for generations in PAIRS {
        let mut meeting = meeting(101, generations);
        let bob = meeting.bob;
        meeting.dee_calls("#[\"promise\",[\"p\"]]", &[], Some("rp+1"));
        meeting.dee.heard(&mut meeting.world);
        meeting.dee.acknowledge(&mut meeting.world);
        meeting.dee.hang_up(&mut meeting.world);
        meeting.puppet("fulfil", &["p", "while you were out"]);
        meeting.world.restart(bob, Keep);
        meeting.world.advance(50);
        assert_eq!(meeting.world.db(bob).len::<Outbox>(), 1, "{generations:?}");
        assert_eq!(meeting.connect(false), Verdict::Register);
        let heard = meeting.dee.heard(&mut meeting.world);
        assert!(heard.iter().any(|text| text.contains("while you were out")), "{generations:?} {heard:?}");
        meeting.settle();
    }
}

#[test]
fn r101_a_notify_on_the_run_queue_at_boot_reaches_the_outbox() {
    for generations in PAIRS {
        let mut pair = pair(101, generations);
        let (ann, bob) = (pair.ann, pair.bob);
        let puppet = pair.world.vat(bob, capstan_sim::scripted::puppet());
        let url = pair.world.issue(bob, puppet);
        let object = pair.world.redeem(ann, &url);
        let call = pair.world.call_with(ann, object, "hang", vec!["h".value()]).pending();
        pair.world.cut(ann, bob);
        pair.world.start_call(bob, puppet, "fulfil", vec!["h".value(), 9.value()]);
        pair.world.run_until(|world| world.outbox_len(bob) > 0);
        pair.world.restart(bob, Keep);
        pair.world.heal(ann, bob);
        // Where the crash undid the settlement, the restarted vat's promise is rejected; either way it is told.
        pair.world.run_until_quiet();
        assert!(pair.world.outcome(call).is_some(), "{generations:?}\n{}", pair.world.trace(40));
        pair.world.assert_quiescent();
    }
}

#[test]
fn r103_a_late_redemption_reply_is_ignored_and_acknowledged() {
    for generations in PAIRS {
        let mut meeting = meeting(103, generations);
        let (request, key) = ask_dee(&mut meeting);
        meeting.world.advance(9_000);
        let told = Err(Refusal::RedemptionTimeout("URL redemption timed out after 8000ms".into()));
        assert_eq!(meeting.world.answer(request), Some(&told), "{generations:?}");
        meeting.dee.send(&mut meeting.world, "redeemURLReply", json!([true, key, "ro+5"]));
        let heard = meeting.dee.heard(&mut meeting.world);
        let ack = format!("\"ack\":{}", meeting.dee.sent);
        assert!(heard.iter().any(|text| text.contains(&ack)), "{generations:?} {heard:?}");
        assert_eq!(meeting.redeem(), meeting.target, "the connection is unaffected");
        meeting.settle();
    }
}

#[test]
fn r104_a_stale_reply_never_answers_another_question() {
    for generations in PAIRS {
        let mut meeting = meeting(104, generations);
        let (_, first) = ask_dee(&mut meeting);
        meeting.world.restart(meeting.bob, Keep);
        meeting.world.advance(20);
        assert_eq!(meeting.connect(false), Verdict::Register, "{generations:?}");
        let (request, second) = ask_dee(&mut meeting);
        assert_ne!(first, second);
        meeting.dee.send(&mut meeting.world, "redeemURLReply", json!([true, first, "ro+1"]));
        assert_eq!(meeting.world.answer(request), None, "{generations:?}");
        meeting.dee.send(&mut meeting.world, "redeemURLReply", json!([true, second, "ro+2"]));
        let object = meeting.kref("ro+2").and_then(capstan_model::id::KRef::object).unwrap();
        assert_eq!(meeting.world.answer(request), Some(&Ok(Answer::Redeemed { object })));
        meeting.settle();
    }
}

#[test]
fn r105_a_redemption_that_is_not_answered_ends_in_time_and_leaves_nothing() {
    for generations in PAIRS {
        let mut meeting = meeting(105, generations);
        let bob = meeting.bob;
        // Answered in time: nothing is left to run out.
        let (request, key) = ask_dee(&mut meeting);
        meeting.dee.send(&mut meeting.world, "redeemURLReply", json!([true, key, "ro+5"]));
        assert!(matches!(meeting.world.answer(request), Some(Ok(Answer::Redeemed { .. }))));
        assert_eq!(meeting.world.db(bob).len::<Redemptions>(), 0, "{generations:?}");
        let promises = meeting.world.db(bob).len::<Promises>();
        let (request, _) = ask_dee(&mut meeting);
        meeting.world.advance(7_000);
        assert_eq!(meeting.world.answer(request), None);
        meeting.world.advance(2_000);
        let told = Err(Refusal::RedemptionTimeout("URL redemption timed out after 8000ms".into()));
        assert_eq!(meeting.world.answer(request), Some(&told), "{generations:?}");
        let db = meeting.world.db(bob);
        assert_eq!((db.len::<Redemptions>(), db.len::<Promises>()), (0, promises));
        meeting.settle();
    }
}

#[test]
fn k47_what_an_endpoint_refuses_is_rejected_and_the_next_item_goes_on() {
    for generations in PAIRS {
        let mut meeting = meeting(47, generations);
        let bob = meeting.bob;
        meeting.dee_calls("#[\"keep\",[\"dee\",\"$0\"]]", &["ro+1"], Some("rp+1"));
        meeting.dee.heard(&mut meeting.world);
        meeting.dee.acknowledge(&mut meeting.world);
        let sent = meeting.session_row().sent;
        let long = "x".repeat(17 << 20);
        let object = meeting.kref("ro+1").unwrap();
        meeting
            .world
            .call_with(bob, object, "hello", vec![long.as_str().value()])
            .rejects("[KERNEL:DELIVERY_FAILED]");
        assert_eq!(meeting.session_row().sent, sent, "{generations:?}: no number is used");
        meeting.puppet("tell", &["dee", "hello"]);
        meeting.world.advance(50);
        let heard = meeting.dee.heard(&mut meeting.world);
        assert!(heard.iter().any(|text| text.contains("hello")), "{generations:?} {heard:?}");
        assert_eq!(meeting.dee.recv, Seq(sent.0 + 1));
        meeting.settle();
    }
}
