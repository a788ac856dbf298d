//! Numbers, acknowledgements, retransmission, and frames that make no sense (03 C.2 to C.7).

use crate::pairs::{Meeting, PAIRS, meeting, pair, strangers};
use capstan_kernel::host_op::{Answer, HostOp, Refusal};
use capstan_kernel::input::RequestId;
use capstan_kernel::kernel::Generation::{self, Classic, Session};
use capstan_model::id::KRef;
use capstan_model::peer::Seq;
use capstan_sim::passable::Passable;
use capstan_sim::scripted;
use capstan_sim::stranger::{message, notify};
use capstan_sim::world::Restart::Keep;
use capstan_sim::world::{Batching, Strike};
use capstan_store::schema::{Outbox, Redemptions, Vats};
use capstan_wire::seam::{LinkEvent, LinkOrder, SendFault, Verdict};
use serde_json::json;

/// Bob asks Dee for an object; nothing is sent yet.
fn ask_dee(meeting: &mut Meeting) -> RequestId {
    let url = format!("ocap:zAny@{}", meeting.dee.peer);
    let request = meeting.world.start_redeem(meeting.bob, &url);
    meeting.world.advance(30);
    request
}

/// The frames that Bob orders to be written, with whether he waits for the end of the write.
fn writes(meeting: &mut Meeting) -> Vec<(Option<Seq>, bool)> {
    let orders = meeting.dee.orders(&mut meeting.world);
    let frames = orders.into_iter().filter_map(|order| match order {
        LinkOrder::Send { frames, awaited, .. } => Some((frames, awaited)),
        _ => None,
    });
    frames.flat_map(|(frames, awaited)| frames.into_iter().map(move |frame| (frame.seq, awaited))).collect()
}

fn numbered(heard: &[std::sync::Arc<str>]) -> Vec<&str> {
    heard.iter().map(AsRef::as_ref).filter(|text: &&str| text.starts_with("{\"seq\":")).collect()
}

#[test]
fn r77_deliveries_as_they_are_written() {
    for generations in PAIRS {
        let mut pair = pair(77, generations);
        pair.world.call(pair.ann, &pair.url, "bump").fulfils(1);
        pair.world.run_until_quiet();
        let to_bob = pair.world.numbered(pair.ann, pair.bob);
        assert!(
            to_bob[0].starts_with("{\"seq\":1,\"method\":\"redeemURL\",\"params\":[\"ocap:z"),
            "{to_bob:?}"
        );
        let call = "{\"seq\":2,\"ack\":1,\"method\":\"deliver\",\"params\":[\"message\",\"ro-1\",\
                    {\"methargs\":{\"body\":\"#[\\\"bump\\\",[]]\",\"slots\":[]},\"result\":\"rp+1\"}]}";
        assert_eq!(&*to_bob[1], call, "{generations:?}");
        let to_ann = pair.world.numbered(pair.bob, pair.ann);
        let reply = "{\"seq\":1,\"ack\":1,\"method\":\"redeemURLReply\",\"params\":[true,\"key-";
        assert!(to_ann[0].starts_with(reply) && to_ann[0].ends_with("\",\"ro+1\"]}"), "{to_ann:?}");
        let told = "{\"seq\":2,\"ack\":2,\"method\":\"deliver\",\"params\":[\"notify\",\
                    [[\"rp-1\",false,{\"body\":\"#1\",\"slots\":[]}]]]}";
        assert_eq!(&*to_ann[1], told);
        pair.world.assert_quiescent();
    }
}

#[test]
fn r78_numbers_rise_and_an_acknowledgement_rides_along_once_something_came() {
    for generations in PAIRS {
        let mut meeting = strangers(78, generations);
        for _ in 0..3 {
            ask_dee(&mut meeting);
        }
        assert_eq!(meeting.connect(true), Verdict::Register);
        meeting.world.advance(50);
        let heard = meeting.dee.heard(&mut meeting.world);
        for (at, text) in numbered(&heard).into_iter().enumerate() {
            assert!(text.starts_with(&format!("{{\"seq\":{},\"method\"", at + 1)), "{generations:?} {text}");
        }
        assert_eq!(meeting.dee.recv, Seq(3));
        meeting.dee.send(&mut meeting.world, "deliver", json!(["bringOutYourDead"]));
        ask_dee(&mut meeting);
        let heard = meeting.dee.heard(&mut meeting.world);
        let last = numbered(&heard).pop().unwrap().to_owned();
        assert!(last.starts_with("{\"seq\":4,\"ack\":1,"), "{last}");
    }
}

#[test]
fn r79_r99_the_mark_and_the_effect_are_durable_together_and_a_repeated_frame_is_dropped() {
    for generations in PAIRS {
        for strike in [Strike::BeforeCommit, Strike::AfterCommit] {
            let mut meeting = meeting(79, generations);
            let bob = meeting.bob;
            meeting.world.set_batching(Batching::EachInput);
            let before = meeting.world.rows(bob);
            let call = meeting
                .dee
                .next_frame("deliver", message("ro-1", "#[\"object\",[\"o\"]]", &[], Some("rp+1")));
            let at = meeting.world.commits(bob);
            meeting.world.strike_at(bob, at, strike);
            meeting.dee.say(&mut meeting.world, &call);
            assert!(!meeting.world.is_up(bob));
            let rows = meeting.world.rows(bob);
            if strike == Strike::BeforeCommit {
                assert_eq!(rows, before, "{generations:?}");
            } else {
                assert_eq!(rows.sessions[&meeting.dee.peer].as_ref().unwrap().recv, meeting.dee.sent);
                assert_eq!(rows.run_queue.len(), 1, "{generations:?}");
            }
            meeting.world.start(bob);
            // Nothing was acknowledged, so Dee says it again.
            assert_eq!(meeting.connect(false), Verdict::Register);
            meeting.dee.say(&mut meeting.world, &call);
            let heard = meeting.dee.heard(&mut meeting.world);
            assert!(
                heard.iter().any(|text| text.contains(&format!("\"ack\":{}", meeting.dee.sent))),
                "{heard:?}"
            );
            let made = meeting.world.stored(bob, meeting.puppet, "next.object");
            assert_eq!(made.as_deref(), Some("1"), "{generations:?} {strike:?}");
            meeting.settle();
        }
    }
}

#[test]
fn r80_r102_an_illegal_frame_has_no_effect_and_does_not_stop_the_next() {
    for generations in PAIRS {
        let mut meeting = meeting(80, generations);
        meeting.dee_calls("#[\"keep\",[\"dee\",\"$0\"]]", &["ro+1"], Some("rp+1"));
        meeting.dee_calls("#[\"hang\",[\"h\"]]", &[], Some("rp+2"));
        meeting.puppet("begin", &["dee", "hello", "answer"]);
        meeting.world.advance(50);
        meeting.dee.heard(&mut meeting.world);
        // The first settlement would be good; the second is of a promise that the puppet decides.
        let value = json!({"body": "#1", "slots": []});
        let name = meeting.answer_name();
        let both = json!(["notify", [[name, false, value], ["rp+2", false, value]]]);
        meeting.dee.send(&mut meeting.world, "deliver", both);
        assert_eq!(meeting.session_row().recv, meeting.dee.sent, "{generations:?}: consumed");
        assert_eq!(meeting.seen("answer"), None, "{generations:?}: no effect");
        meeting.dee.send(&mut meeting.world, "deliver", notify(&name, false, "#2", &[]));
        meeting.world.advance(50);
        assert_eq!(meeting.seen("answer").as_deref(), Some("fulfilled 2"), "{generations:?}");
        meeting.puppet("fulfil", &["h", "x"]);
        meeting.settle();
    }
}

impl Meeting {
    /// How Dee writes the result of the puppet's call to her.
    fn answer_name(&self) -> String {
        let clist = self.world.db(self.bob).iter::<capstan_store::schema::Clist>();
        let own = clist
            .filter(|((endpoint, kref), _)| *endpoint == self.endpoint() && matches!(kref, KRef::Promise(_)));
        let names: Vec<String> = own.map(|(_, row)| row.eref.to_string()).collect();
        names.into_iter().rfind(|name| name.starts_with("rp-")).expect("a result of ours")
    }
}

#[test]
fn r81_r82_a_duplicate_is_acknowledged_again_and_an_acknowledgement_is_not_answered() {
    for generations in PAIRS {
        let mut meeting = meeting(81, generations);
        let call =
            meeting.dee.next_frame("deliver", message("ro-1", "#[\"object\",[\"o\"]]", &[], Some("rp+1")));
        meeting.dee.say(&mut meeting.world, &call);
        meeting.dee.heard(&mut meeting.world);
        assert_eq!(meeting.world.outbox_len(meeting.bob), 1, "{generations:?}");
        meeting.dee.acknowledge(&mut meeting.world);
        assert_eq!(meeting.world.outbox_len(meeting.bob), 0);
        assert_eq!(meeting.session_row().una, meeting.session_row().sent.next());
        assert_eq!(meeting.dee.heard(&mut meeting.world).len(), 0, "an acknowledgement is not answered");
        let rows = meeting.world.rows(meeting.bob);
        meeting.dee.say(&mut meeting.world, &call);
        assert_eq!(meeting.world.rows(meeting.bob), rows);
        let again = meeting.dee.heard(&mut meeting.world);
        assert_eq!(again.len(), 1, "{generations:?} {again:?}");
        assert_eq!(&*again[0], format!("{{\"ack\":{}}}", meeting.dee.sent));
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r83_an_acknowledgement_waits_for_company() {
    for generations in PAIRS {
        let mut meeting = meeting(83, generations);
        meeting.dee.send(&mut meeting.world, "deliver", json!(["bringOutYourDead"]));
        let heard = meeting.dee.heard(&mut meeting.world);
        let acks =
            |heard: &[std::sync::Arc<str>]| heard.iter().filter(|text| text.starts_with("{\"ack\"")).count();
        assert_eq!((acks(&heard), numbered(&heard).len()), (1, 0), "{generations:?} {heard:?}");
        meeting.dee_calls("#[\"object\",[\"o\"]]", &[], Some("rp+1"));
        let heard = meeting.dee.heard(&mut meeting.world);
        // The answer carried it.
        assert_eq!((acks(&heard), numbered(&heard).len()), (0, 1), "{generations:?} {heard:?}");
        meeting.settle();
    }
}

#[test]
fn r84_r85_what_was_pending_at_a_crash_is_sent_again_as_it_was() {
    for generations in PAIRS {
        let mut meeting = meeting(84, generations);
        let bob = meeting.bob;
        meeting.dee_calls("#[\"object\",[\"o\"]]", &[], Some("rp+1"));
        meeting.dee.orders(&mut meeting.world);
        let pending: Vec<_> =
            meeting.world.db(bob).iter::<Outbox>().map(|(_, row)| row.text.clone()).collect();
        assert_eq!(pending.len(), 1, "{generations:?}");
        meeting.world.restart(bob, Keep);
        meeting.world.advance(50);
        assert_eq!(meeting.connect(false), Verdict::Register);
        let heard = meeting.dee.heard(&mut meeting.world);
        assert_eq!(numbered(&heard), vec![&*pending[0]], "{generations:?}");
        meeting.settle();
    }
}

/// Two frames wait for Dee, who speaks the classic generation; the first is being written.
fn two_pending(seed: u64, bob: Generation) -> Meeting {
    let mut meeting = strangers(seed, (bob, Classic));
    ask_dee(&mut meeting);
    ask_dee(&mut meeting);
    assert_eq!(meeting.connect(true), Verdict::Register);
    meeting
}

#[test]
fn r86_the_second_frame_waits_for_the_end_of_the_first() {
    for bob in [Session, Classic] {
        let mut meeting = two_pending(86, bob);
        assert_eq!(writes(&mut meeting), vec![(Some(Seq(1)), true)], "{bob:?}");
        meeting.world.advance(1_000);
        assert_eq!(writes(&mut meeting), vec![], "{bob:?}: still blocked");
        let channel = meeting.dee.channel;
        let event = LinkEvent::Sent { channel, seq: Some(Seq(1)), outcome: Ok(()) };
        meeting.dee.tell(&mut meeting.world, event);
        assert_eq!(writes(&mut meeting), vec![(Some(Seq(2)), true)]);
    }
    // Toward a session peer they share one write: the verdict came before the channel.
    let mut meeting = strangers(86, (Session, Session));
    ask_dee(&mut meeting);
    ask_dee(&mut meeting);
    assert_eq!(meeting.connect(true), Verdict::Register);
    assert_eq!(writes(&mut meeting), vec![(Some(Seq(1)), false), (Some(Seq(2)), false)]);
}

#[test]
fn r86_an_acknowledgement_during_a_write_skips_no_frame() {
    for bob in [Session, Classic] {
        let mut meeting = two_pending(862, bob);
        assert_eq!(writes(&mut meeting), vec![(Some(Seq(1)), true)]);
        ask_dee(&mut meeting);
        // Dee has read frame 1 and says so before Bob hears that its write has ended.
        meeting.dee.recv = Seq(1);
        meeting.dee.acknowledge(&mut meeting.world);
        let channel = meeting.dee.channel;
        let event = LinkEvent::Sent { channel, seq: Some(Seq(1)), outcome: Ok(()) };
        meeting.dee.tell(&mut meeting.world, event);
        assert_eq!(writes(&mut meeting), vec![(Some(Seq(2)), true)], "{bob:?}");
    }
}

#[test]
fn r87_a_terminal_failure_stops_the_rest() {
    for bob in [Session, Classic] {
        let mut meeting = two_pending(87, bob);
        assert_eq!(writes(&mut meeting).len(), 1);
        let rows = meeting.world.rows(meeting.bob);
        let fault = SendFault::Terminal("PeerRestartedError".into());
        meeting.dee.fail_write(&mut meeting.world, Some(Seq(1)), fault);
        assert_eq!(writes(&mut meeting), vec![], "{bob:?}");
        // Give-up is called once, and has nothing to write: what ended the session came before (C-24a).
        let told = meeting.world.log(meeting.bob).iter().filter(|line| line.contains("PeerRestartedError"));
        assert_eq!(told.count(), 1);
        assert_eq!(meeting.world.rows(meeting.bob), rows);
    }
}

#[test]
fn r88_a_transient_failure_goes_on_with_the_second_and_gives_nothing_up() {
    for bob in [Session, Classic] {
        let mut meeting = two_pending(88, bob);
        assert_eq!(writes(&mut meeting).len(), 1);
        let fault = SendFault::Transient("Message send timed out after 10000ms".into());
        meeting.dee.fail_write(&mut meeting.world, Some(Seq(1)), fault);
        assert_eq!(writes(&mut meeting), vec![(Some(Seq(2)), true)], "{bob:?}");
        assert_eq!(meeting.world.outbox_len(meeting.bob), 2);
        assert!(!meeting.world.log(meeting.bob).iter().any(|line| line.contains("failed")));
        // What is missing is written again by the timer, in order.
        let channel = meeting.dee.channel;
        let event = LinkEvent::Sent { channel, seq: Some(Seq(2)), outcome: Ok(()) };
        meeting.dee.tell(&mut meeting.world, event);
        meeting.world.advance(3_000);
        assert_eq!(writes(&mut meeting), vec![(Some(Seq(1)), true)], "{bob:?}");
    }
}

#[test]
fn r89_a_restarted_peer_has_ended_everything_before_the_error_comes() {
    for generations in PAIRS {
        let mut meeting = meeting(89, generations);
        let request = ask_dee(&mut meeting);
        meeting.dee.hang_up(&mut meeting.world);
        meeting.dee.wipe("dee-2");
        meeting.connect(true);
        let told = Err(Refusal::PeerRestarted);
        assert_eq!(meeting.world.answer(request), Some(&told), "{generations:?}");
        assert_eq!(meeting.world.outbox_len(meeting.bob), 0);
    }
}

#[test]
fn r89_an_intentional_close_ends_the_session_and_tells_everybody() {
    for generations in PAIRS {
        let mut meeting = meeting(89, generations);
        let bob = meeting.bob;
        meeting.dee_calls("#[\"keep\",[\"dee\",\"$0\"]]", &["ro+1"], Some("rp+1"));
        meeting.puppet("begin", &["dee", "hello", "answer"]);
        let request = ask_dee(&mut meeting);
        assert_eq!(meeting.world.ask(bob, HostOp::PeerClose(meeting.dee.peer.clone())), Ok(Answer::Done));
        let told = Err(Refusal::Redemption("Message delivery failed after intentional close".into()));
        assert_eq!(meeting.world.answer(request), Some(&told), "{generations:?}");
        assert_eq!(meeting.world.outbox_len(bob), 0);
        meeting.world.run_until_quiet();
        let seen = meeting.seen("answer").unwrap();
        assert!(seen.starts_with("rejected [Error: [KERNEL:CONNECTION_LOST] "), "{seen}");
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r89_a_stopped_network_keeps_the_session_and_tells_only_those_who_redeem() {
    for generations in PAIRS {
        let mut meeting = meeting(89, generations);
        let bob = meeting.bob;
        meeting.dee_calls("#[\"keep\",[\"dee\",\"$0\"]]", &["ro+1"], Some("rp+1"));
        meeting.puppet("begin", &["dee", "hello", "answer"]);
        let request = ask_dee(&mut meeting);
        let outbox = meeting.world.rows(bob).outbox;
        assert!(!outbox.is_empty());
        let (peer, fault) = (meeting.dee.peer.clone(), SendFault::Terminal("NetworkStoppedError".into()));
        meeting.dee.tell(&mut meeting.world, LinkEvent::SendFailed { peer, fault });
        let told = Err(Refusal::PeerUnreachable("Network stopped".into()));
        assert_eq!(meeting.world.answer(request), Some(&told), "{generations:?}");
        assert_eq!(meeting.world.rows(bob).outbox, outbox, "kept for the next start");
        assert_eq!(meeting.seen("answer"), None, "still pending");
        assert_eq!(meeting.world.db(bob).len::<Redemptions>(), 0);
    }
}

#[test]
fn r98_a_crank_that_aborts_takes_nothing_received_with_it() {
    for generations in PAIRS {
        let mut meeting = meeting(98, generations);
        let bob = meeting.bob;
        meeting.dee_calls("#[\"keep\",[\"dee\",\"$0\"]]", &["ro+1"], Some("rp+9"));
        let counter = meeting.world.vat(bob, scripted::counter());
        meeting.url = meeting.world.issue(bob, counter);
        let target = meeting.redeem();
        meeting.world.pause(bob, meeting.puppet);
        let doomed =
            meeting.world.start_call(bob, meeting.puppet, "misbehave", vec!["dee".value(), "hello".value()]);
        meeting.world.advance(20);
        meeting.dee.call(&mut meeting.world, &target, "bump", Some("rp+1"));
        meeting.world.resume(bob, meeting.puppet);
        meeting.world.advance(50);
        assert_eq!(meeting.world.stored(bob, counter, "sum").as_deref(), Some("1"), "{generations:?}");
        meeting.world.back_to(doomed).rejects("[KERNEL:VAT_FATAL:ILLEGAL_SYSCALL]");
        meeting.settle();
    }
}

#[test]
fn r100_a_crank_that_aborts_has_sent_nothing_and_used_no_number() {
    for generations in PAIRS {
        let mut meeting = meeting(100, generations);
        let bob = meeting.bob;
        meeting.dee_calls("#[\"keep\",[\"dee\",\"$0\"]]", &["ro+1"], Some("rp+1"));
        meeting.dee.heard(&mut meeting.world);
        meeting.dee.acknowledge(&mut meeting.world);
        let sent = meeting.session_row().sent;
        let args = vec!["dee".value(), "hello".value()];
        meeting
            .world
            .call_with(bob, meeting.puppet, "misbehave", args)
            .rejects("[KERNEL:VAT_FATAL:ILLEGAL_SYSCALL]");
        let heard = meeting.dee.heard(&mut meeting.world);
        assert!(!heard.iter().any(|text| text.contains("hello")), "{generations:?} {heard:?}");
        ask_dee(&mut meeting);
        let rows = meeting.world.rows(bob).outbox;
        assert!(rows.keys().any(|(_, seq)| *seq == sent.next()), "{generations:?} {rows:?}");
        let running = meeting.world.db(bob).len::<Vats>();
        assert_eq!(running, 0, "the vat is gone");
    }
}
