//! Scenarios of 03 F.2 and F.4 that one machine decides.

use crate::link_bench::*;
use capstan_model::peer::{ChannelId, Incarnation, Millis, Seq};
use capstan_wire::decide::channel_verdict;
use capstan_wire::link::{Action, LinkFact, LinkOptions, WriteToken, delay};
use capstan_wire::seam::{LinkEvent, LinkOrder, OutFrame, SendFault, Verdict};

fn bench() -> Bench {
    Bench::new(LinkOptions::default())
}
fn terminal(name: &str) -> SendFault {
    SendFault::Terminal(name.into())
}
fn failed(name: &str, fault: &str) -> LinkEvent {
    LinkEvent::SendFailed { peer: peer(name), fault: terminal(fault) }
}

#[test]
fn r34_outbound_handshake_precedes_every_frame() {
    let mut b = bench();
    assert_eq!(dials(&b.want("a", true)), 1);
    let asked = LinkEvent::FactsWanted { channel: ChannelId(1), peer: peer("a"), dialed: true };
    assert_eq!(reports(&b.up(1, "a", true)), [asked]);
    assert_eq!(written(&b.greet(1, classic("mine"))), [hello("mine")]);
    let theirs = classic("theirs");
    let read = LinkEvent::HandshakeRead { channel: ChannelId(1), theirs, note_changed: false };
    assert_eq!(reports(&b.read(1, &ack("theirs"))), [read]);
    assert_eq!(frames(&b.read(1, "early")), [] as [std::sync::Arc<str>; 0]);
    assert_eq!(frames(&b.answer(1, Verdict::Register)), ["early".into()]);
    assert_eq!(frames(&b.read(1, "later")), ["later".into()]);
}

#[test]
fn r35_inbound_handshake_is_acknowledged_with_our_incarnation() {
    let mut b = bench();
    b.up(1, "z", false);
    let asked = LinkEvent::FactsWanted { channel: ChannelId(1), peer: peer("z"), dialed: false };
    assert_eq!(reports(&b.read(1, &hello("theirs"))), [asked]);
    assert_eq!(written(&b.greet(1, classic("mine"))), [ack("mine")]);
    b.answer(1, Verdict::Register);
    assert_eq!(frames(&b.read(1, "x")), ["x".into()]);
}

#[test]
fn r36_anything_but_a_handshake_first_closes_the_channel() {
    for text in
        ["{}", "not json", "null", r#"{"method":"handshake","params":{"incarnationId":7}}"#, &ack("x")]
    {
        let mut b = bench();
        b.up(1, "z", false);
        let actions = b.read(1, text);
        assert_eq!((closes(&actions), reports(&actions)), (vec![1], vec![]), "{text}");
    }
}

#[test]
fn r39_frames_without_a_handshake_are_nobodys_and_are_not_acknowledged() {
    let frame = r#"{"seq":1,"method":"deliver","params":["bringOutYourDead"]}"#;
    for dialed in [false, true] {
        let mut b = bench();
        if dialed {
            b.want("z", true);
        }
        b.up(1, "z", dialed);
        if dialed {
            b.greet(1, classic("mine"));
        }
        let actions = b.read(1, frame);
        assert_eq!((closes(&actions), written(&actions)), (vec![1], vec![]), "{actions:?}");
        assert_eq!(frames(&actions), [] as [std::sync::Arc<str>; 0]);
        assert_eq!(b.links.registered(&peer("z")), None);
        // The channel is gone; what it still brings is not looked at.
        assert_eq!(b.read(1, frame), []);
    }
}

#[test]
fn r37_wrong_answer_names_what_came() {
    let mut b = bench();
    b.want("a", false);
    b.up(1, "a", true);
    b.greet(1, classic("mine"));
    let actions = b.read(1, &hello("x"));
    let reason = "Expected handshakeAck, got: handshake".to_owned();
    assert_eq!(reports(&actions), [LinkEvent::ChannelClosed { channel: ChannelId(1), reason }]);
    assert_eq!(dials(&b.tick()), 1);
}

#[test]
fn r31_r32_an_open_channel_is_used_again_and_each_peer_has_its_own() {
    let mut b = bench();
    assert_eq!(dials(&b.want("a", true)), 1);
    b.dial_to_verdict(1, "a", "l");
    b.answer(1, Verdict::Register);
    let text = |to: u64, text: &str| LinkOrder::Send {
        channel: ChannelId(to),
        frames: vec![OutFrame { seq: None, text: text.into() }],
        awaited: false,
    };
    assert_eq!(written(&b.order(text(1, "one"))), ["one"]);
    let again = b.want("a", true);
    assert_eq!((dials(&again), reports(&again)), (0, vec![]));
    assert_eq!(written(&b.order(text(1, "two"))), ["two"]);
    assert_eq!(dials(&b.want("c", true)), 1);
    b.dial_to_verdict(2, "c", "l");
    b.answer(2, Verdict::Register);
    let channels = ["a", "c"].map(|name| b.links.registered(&peer(name)));
    assert_eq!(channels, [Some(ChannelId(1)), Some(ChannelId(2))]);
}

#[test]
fn r33_hints_are_dialled_and_merged_as_a_set() {
    let mut b = bench();
    let want = |hints: &[&str]| LinkOrder::Want {
        peer: peer("a"),
        hints: hints.iter().map(|hint| (*hint).into()).collect(),
        for_send: false,
    };
    let dialled = |actions: &[Action]| {
        let hints = |action: &Action| match action {
            Action::Dial { hints, .. } => Some(hints.iter().map(ToString::to_string).collect::<Vec<_>>()),
            _ => None,
        };
        actions.iter().find_map(hints)
    };
    assert_eq!(dialled(&b.order(want(&["/x", "/y"]))), Some(vec!["/x".into(), "/y".into()]));
    assert_eq!(dialled(&b.order(want(&["/y", "/z", "/x"]))), None);
    b.fact(LinkFact::DialFailed { peer: peer("a"), error: "refused".into() });
    assert_eq!(dialled(&b.tick()), Some(vec!["/x".into(), "/y".into(), "/z".into()]));
}

#[test]
fn r48_a_reset_is_a_loss_and_is_dialled_again() {
    let mut b = bench();
    b.want("a", true);
    b.dial_to_verdict(1, "a", "l");
    b.answer(1, Verdict::Register);
    let lost = b.down(1);
    let reason = "cut".to_owned();
    assert_eq!(reports(&lost), [LinkEvent::ChannelClosed { channel: ChannelId(1), reason }]);
    assert_eq!(b.links.registered(&peer("a")), None);
    assert_eq!(dials(&b.tick()), 1);
}

#[test]
fn r51_only_the_loss_of_the_channel_in_use_of_a_wanted_peer_is_followed_by_a_dial() {
    let mut b = bench();
    b.want("a", false);
    b.dial_to_verdict(1, "a", "l");
    b.answer(1, Verdict::Register);
    // A second channel that comes and goes does not matter while the first is in use.
    b.up(2, "a", false);
    b.down(2);
    assert_eq!(b.links.next_deadline(), None);
    b.down(1);
    assert!(b.links.next_deadline().is_some());
    // A stranger's loss starts nothing.
    let mut b = bench();
    b.accept_to_verdict(1, "z", "l");
    b.answer(1, Verdict::Register);
    b.down(1);
    assert_eq!(b.links.next_deadline(), None);
    // Nor does one during a stop.
    let mut b = bench();
    b.want("a", false);
    b.dial_to_verdict(1, "a", "l");
    b.answer(1, Verdict::Register);
    b.links.stop();
    b.down(1);
    assert_eq!(b.links.next_deadline(), None);
}

#[test]
fn r63_a_peer_given_up_is_revived_by_a_send_or_a_reconnect_and_not_by_a_loss() {
    let given_up = || {
        let mut b = Bench::new(LinkOptions { max_retry_attempts: 1, ..LinkOptions::default() });
        b.want("a", false);
        let failed = b.fact(LinkFact::DialFailed { peer: peer("a"), error: "refused".into() });
        assert_eq!(reports(&failed), [LinkEvent::GaveUp { peer: peer("a") }]);
        b
    };
    let mut b = given_up();
    b.accept_to_verdict(1, "a", "l");
    b.down(1);
    assert_eq!(b.links.next_deadline(), None);
    assert_eq!(dials(&b.want("a", true)), 1);
    let mut b = given_up();
    assert_eq!(dials(&b.order(LinkOrder::Reopen { peer: peer("a"), hints: vec![] })), 1);
}

#[test]
fn r52_a_dial_that_comes_second_is_dropped() {
    let mut b = bench();
    b.want("a", false);
    b.accept_to_verdict(1, "a", "l");
    b.answer(1, Verdict::Register);
    assert_eq!(closes(&b.up(2, "a", true)), [2]);
    assert_eq!(b.links.registered(&peer("a")), Some(ChannelId(1)));
}

#[test]
fn r53_a_newer_inbound_channel_replaces_the_registered_one() {
    let mut b = bench();
    b.accept_to_verdict(1, "a", "l");
    b.answer(1, Verdict::Register);
    b.accept_to_verdict(2, "a", "l");
    assert_eq!(closes(&b.answer(2, Verdict::Register)), [1]);
    assert_eq!(b.links.registered(&peer("a")), Some(ChannelId(2)));
}

#[test]
fn r56_r57_closed_peer_is_refused_until_reopened() {
    let mut b = bench();
    b.want("a", true);
    b.dial_to_verdict(1, "a", "l");
    b.answer(1, Verdict::Register);
    let actions = b.order(LinkOrder::ClosePeer { peer: peer("a") });
    assert_eq!((closes(&actions), dials(&actions)), (vec![1], 0));
    assert_eq!(reports(&b.want("a", true)), [failed("a", "IntentionalCloseError")]);
    assert_eq!(closes(&b.up(2, "a", false)), [2]);
    assert_eq!(b.links.next_deadline(), None);
    assert_eq!(dials(&b.order(LinkOrder::Reopen { peer: peer("a"), hints: vec![] })), 1);
}

#[test]
fn r58_backoff_doubles_to_the_cap_and_jitter_stays_below() {
    let options = LinkOptions { retry_base: Millis(100), retry_cap: Millis(1_000), ..LinkOptions::default() };
    let half: Vec<u64> = (1..=6).map(|n| delay(&options, n, 1 << 63).0).collect();
    assert_eq!(half, [50, 100, 200, 400, 500, 500]);
    assert_eq!(delay(&options, 3, 0), Millis(0));
    assert_eq!(delay(&options, 1, u64::MAX), Millis(99));
    assert_eq!(delay(&options, u32::MAX, u64::MAX), Millis(999));
}

#[test]
fn r59_gives_up_once_when_attempts_are_limited_and_never_otherwise() {
    for limit in [0, 3] {
        let mut b = Bench::new(LinkOptions { max_retry_attempts: limit, ..LinkOptions::default() });
        let mut all = b.want("a", false);
        for _ in 0..20 {
            all.extend(b.fact(LinkFact::DialFailed { peer: peer("a"), error: "refused".into() }));
            all.extend(b.tick());
        }
        let gave_up = reports(&all).iter().filter(|event| matches!(event, LinkEvent::GaveUp { .. })).count();
        assert_eq!((gave_up, dials(&all)), if limit == 0 { (0, 21) } else { (1, 3) });
    }
}

#[test]
fn r66_a_wake_tries_again_at_once_what_waited_or_was_given_up() {
    for limit in [0, 3] {
        let options = LinkOptions {
            retry_base: Millis(1_000_000),
            retry_cap: Millis(1_000_000),
            max_retry_attempts: limit,
            ..LinkOptions::default()
        };
        let mut b = Bench::new(options);
        b.want("a", false);
        let refused = || LinkFact::DialFailed { peer: peer("a"), error: "refused".into() };
        for _ in 0..3 {
            b.fact(refused());
            b.tick();
        }
        b.fact(refused());
        b.order(LinkOrder::Woke);
        assert_eq!(dials(&b.fact(LinkFact::Tick)), 1, "without waiting");
        // The attempts are counted anew.
        assert!(!reports(&b.fact(refused())).iter().any(|event| matches!(event, LinkEvent::GaveUp { .. })));
        // What nobody wants is not dialled.
        b.order(LinkOrder::Unwant { peer: peer("a") });
        b.order(LinkOrder::Woke);
        assert_eq!(dials(&b.fact(LinkFact::Tick)), 0);
    }
}

#[test]
fn r65_failed_handshake_in_the_loop_is_tried_again() {
    let mut b = bench();
    b.want("a", false);
    b.dial_to_verdict(1, "a", "l");
    assert_eq!(closes(&b.answer(1, Verdict::Refuse("store".into()))), [1]);
    assert_eq!(dials(&b.tick()), 1);
}

/// The reference's cold burst: a handshake for each message, all on one stream.
#[test]
fn r74_a_classic_dialler_may_greet_again() {
    let mut b = bench();
    b.up(1, "a", false);
    for _ in 0..200 {
        assert!(closes(&b.read(1, &hello("l"))).is_empty());
    }
    assert_eq!(written(&b.greet(1, session("mine"))).len(), 1);
    let up = b.answer(1, Verdict::Register);
    assert!(frames(&up).is_empty() && written(&up).is_empty());
    let texts = [hello("l"), r#"{"seq":1}"#.to_owned(), hello("l")].map(Into::into).to_vec();
    let more = b.fact(LinkFact::TextsRead { channel: ChannelId(1), texts });
    assert_eq!(frames(&more), [r#"{"seq":1}"#.into()]);

    // Another life on the same stream is another matter, and so is a channel that we dialled.
    assert_eq!(frames(&b.read(1, &hello("other"))).len(), 1);
    b.want("b", false);
    b.dial_to_verdict(2, "b", "l");
    b.answer(2, Verdict::Register);
    assert_eq!(frames(&b.read(2, &hello("l"))).len(), 1);
}

#[test]
fn r74_cold_burst_makes_one_handshake() {
    let mut b = bench();
    let all: Vec<_> = (0..5).flat_map(|_| b.want("a", true)).collect();
    assert_eq!(dials(&all), 1);
    b.up(1, "a", true);
    assert_eq!(dials(&b.want("a", true)), 0);
}

#[test]
fn r129_restarted_for_a_send_closes_and_fails_without_redial() {
    let mut b = bench();
    b.want("a", true);
    b.dial_to_verdict(1, "a", "new");
    let actions = b.answer(1, Verdict::Restarted);
    assert_eq!((closes(&actions), dials(&actions)), (vec![1], 0));
    assert!(reports(&actions).contains(&failed("a", "PeerRestartedError")));
    assert!(b.read(1, "late").is_empty());
    assert_eq!(b.links.next_deadline(), None);
    assert_eq!(dials(&b.want("a", true)), 1);
}

#[test]
fn r130_restarted_dial_leaves_an_inbound_channel_in_use() {
    let mut b = bench();
    b.want("a", true);
    b.dial_to_verdict(1, "a", "new");
    // The peer has the smaller id: its own dial goes ahead beside ours.
    b.accept_to_verdict(2, "a", "new");
    let actions = b.answer(1, Verdict::Restarted);
    assert!(reports(&actions).contains(&failed("a", "PeerRestartedError")));
    b.answer(2, Verdict::Register);
    assert_eq!(b.links.registered(&peer("a")), Some(ChannelId(2)));
    assert_eq!(frames(&b.read(2, "x")), ["x".into()]);
}

#[test]
fn r131_restarted_inbound_is_closed_and_a_wanted_link_tried_again() {
    let mut b = bench();
    b.accept_to_verdict(1, "a", "new");
    b.read(1, "never");
    let actions = b.answer(1, Verdict::Restarted);
    assert_eq!((closes(&actions), frames(&actions)), (vec![1], vec![]));
    assert_eq!(b.links.next_deadline(), None);
    b.accept_to_verdict(2, "a", "new");
    b.want("a", false);
    b.answer(2, Verdict::Restarted);
    assert_eq!(dials(&b.tick()), 1);
}

#[test]
fn r134_a_changed_note_alone_refuses_a_classic_channel_once() {
    let mut b = bench();
    b.want("a", false);
    b.dial_to_verdict(1, "a", "old");
    b.answer(1, Verdict::Register);
    b.down(1);
    b.tick();
    let theirs = classic("new");
    let read = LinkEvent::HandshakeRead { channel: ChannelId(2), theirs, note_changed: true };
    assert_eq!(reports(&b.dial_to_verdict(2, "a", "new")), [read]);
    assert_eq!(closes(&b.answer(2, Verdict::Register)), [2]);
    b.tick();
    b.dial_to_verdict(3, "a", "new");
    b.answer(3, Verdict::Register);
    assert_eq!(b.links.registered(&peer("a")), Some(ChannelId(3)));
    let product = [(false, false), (true, false), (false, true), (true, true)];
    assert_eq!(product.map(|(note, kernel)| channel_verdict(note, kernel)), [false, true, true, true]);
}

#[test]
fn r135_restarted_in_the_loop_is_closed_and_the_next_turn_registers() {
    let mut b = bench();
    b.want("a", false);
    b.dial_to_verdict(1, "a", "new");
    let actions = b.answer(1, Verdict::Restarted);
    assert!(!reports(&actions).iter().any(|event| matches!(event, LinkEvent::SendFailed { .. })));
    assert_eq!(dials(&b.tick()), 1);
    b.dial_to_verdict(2, "a", "new");
    b.answer(2, Verdict::Register);
    assert_eq!(b.links.registered(&peer("a")), Some(ChannelId(2)));
}

#[test]
fn session_dialler_confirms_first_and_responder_waits_for_it() {
    let (mut a, mut z) = (bench(), bench());
    a.want("x", false);
    a.up(1, "x", true);
    let greeting = written(&a.greet(1, session("a")));
    z.up(1, "y", false);
    z.read(1, &greeting[0]);
    let answer = written(&z.greet(1, session("z")));
    let theirs = session("z");
    let read = LinkEvent::HandshakeRead { channel: ChannelId(1), theirs, note_changed: false };
    assert_eq!(reports(&a.read(1, &answer[0])), [read]);
    assert_eq!(reports(&z.answer(1, Verdict::AwaitConfirm)), []);
    let confirm = written(&a.answer(1, Verdict::Register));
    assert_eq!(reports(&z.read(1, &confirm[0])), [LinkEvent::Confirmed { channel: ChannelId(1) }]);
    z.read(1, "data");
    assert_eq!(frames(&z.answer(1, Verdict::Register)), ["data".into()]);
}

#[test]
fn a_session_note_change_is_for_the_log_only() {
    let mut b = bench();
    b.accept_to_verdict(1, "a", "old");
    b.answer(1, Verdict::Register);
    b.down(1);
    b.up(2, "a", false);
    let mut far = bench();
    far.want("x", false);
    far.up(1, "x", true);
    let greeting = written(&far.greet(1, session("new")));
    b.read(2, &greeting[0]);
    b.greet(2, session("mine"));
    b.answer(2, Verdict::Register);
    assert_eq!(b.links.registered(&peer("a")), Some(ChannelId(2)));
    assert_ne!(Incarnation::new("old"), Incarnation::new("new"));
}

#[test]
fn silent_peer_times_out() {
    let mut b = bench();
    b.want("a", false);
    b.up(1, "a", true);
    b.greet(1, classic("mine"));
    assert_eq!(b.links.next_deadline(), Some(Millis(11_000)));
    let actions = b.tick();
    let reason = "Handshake read timed out".to_owned();
    assert_eq!(reports(&actions), [LinkEvent::ChannelClosed { channel: ChannelId(1), reason }]);
}

#[test]
fn frames_before_the_verdict_are_bounded() {
    let mut b = bench();
    b.want("a", false);
    b.dial_to_verdict(1, "a", "l");
    let closed: Vec<u64> = (0..257).flat_map(|_| closes(&b.read(1, "x"))).collect();
    assert_eq!(closed, [1]);
}

#[test]
fn awaited_sends_are_reported_when_written_or_lost() {
    let mut b = bench();
    b.want("a", false);
    b.dial_to_verdict(1, "a", "l");
    b.answer(1, Verdict::Register);
    let (channel, seq) = (ChannelId(1), Some(Seq(4)));
    let frame = OutFrame { seq, text: "x".into() };
    let order = LinkOrder::Send { channel, frames: vec![frame], awaited: true };
    assert_eq!(written(&b.order(order.clone())), ["x"]);
    let done = b.fact(LinkFact::Written { channel, token: WriteToken(seq), outcome: Ok(()) });
    assert_eq!(reports(&done), [LinkEvent::Sent { channel, seq, outcome: Ok(()) }]);
    b.order(order);
    let lost = LinkEvent::Sent { channel, seq, outcome: Err(SendFault::Transient("cut".into())) };
    assert_eq!(reports(&b.down(1)).first(), Some(&lost));
}

#[test]
fn r68_stop_closes_gracefully_and_fails_later_sends() {
    let mut b = bench();
    b.want("a", false);
    b.dial_to_verdict(1, "a", "l");
    b.answer(1, Verdict::Register);
    assert_eq!(closes(&b.links.stop()), [1]);
    assert_eq!(closes(&b.links.stop()), [] as [u64; 0]);
    assert_eq!(reports(&b.want("a", true)), [failed("a", "NetworkStoppedError")]);
    assert_eq!(b.links.next_deadline(), None);
}
