//! How long channels and the memory of peers live, and what an intentional close means at both ends (03 B-7, B-46,
//! B-48).

use crate::link_bench::*;
use capstan_model::peer::{ChannelId, Millis, Seq};
use capstan_wire::handshake::CLOSED;
use capstan_wire::link::{Action, LinkFact, LinkOptions, WriteToken};
use capstan_wire::seam::{LinkEvent, LinkOrder, OutFrame, Verdict};

fn accepted(b: &mut Bench, channel: u64, name: &str) {
    b.accept_to_verdict(channel, name, "l");
    b.answer(channel, Verdict::Register);
}

/// A channel of the session generation that `name` dialled.
fn accepted_session(b: &mut Bench, channel: u64, name: &str) {
    let mut far = Bench::new(LinkOptions::default());
    far.want("x", false);
    far.up(1, "x", true);
    let greeting = written(&far.greet(1, session("l")));
    b.up(channel, name, false);
    b.read(channel, &greeting[0]);
    b.greet(channel, session("mine"));
    b.answer(channel, Verdict::Register);
    b.read(channel, r#"{"method":"handshakeConfirm"}"#);
}

/// Lets time pass, and the machine look at it.
fn pass(b: &mut Bench, length: u64) -> Vec<Action> {
    b.now = Millis(b.now.0 + length);
    b.fact(LinkFact::Tick)
}

fn write(b: &mut Bench, channel: u64) {
    let frame = OutFrame { seq: None, text: "x".into() };
    b.order(LinkOrder::Send { channel: ChannelId(channel), frames: vec![frame], awaited: false });
}

#[test]
fn r54_a_channel_that_is_silent_both_ways_is_lost_after_two_minutes_or_as_told() {
    for (told, silence) in [(None, 120_000), (Some(30_000), 30_000), (Some(1), 5_000)] {
        let mut options = LinkOptions::default();
        options.inactivity_timeout = told.map_or(options.inactivity_timeout, Millis);
        let mut b = Bench::new(options);
        accepted(&mut b, 1, "z");
        // Whatever is heard, said, or known to be alive puts the end off.
        for turn in 1..=3 {
            b.now = Millis(b.now.0 + silence - 1);
            match turn {
                1 => drop(b.read(1, "frame")),
                2 => write(&mut b, 1),
                _ => drop(b.fact(LinkFact::Alive { peer: peer("z") })),
            }
            assert_eq!(b.fact(LinkFact::Tick), []);
        }
        let actions = pass(&mut b, silence);
        let reason = format!("silent for {silence}ms");
        assert_eq!(reports(&actions), [LinkEvent::ChannelClosed { channel: ChannelId(1), reason }]);
        assert_eq!(closes(&actions), [1]);
    }
}

#[test]
fn r55_after_idleness_the_next_send_dials() {
    let mut b = Bench::new(LinkOptions::default());
    accepted(&mut b, 1, "z");
    assert_eq!(closes(&pass(&mut b, 120_000)), [1]);
    assert_eq!((dials(&pass(&mut b, 120_000)), b.links.next_deadline()), (0, None), "nobody wants it");
    assert_eq!(dials(&b.want("z", true)), 1);
    b.dial_to_verdict(2, "z", "l");
    b.answer(2, Verdict::Register);
    let frame = OutFrame { seq: Some(Seq(1)), text: "call".into() };
    let order = LinkOrder::Send { channel: ChannelId(2), frames: vec![frame], awaited: false };
    assert_eq!(written(&b.order(order)), ["call"]);
    // A link that is wanted is dialled again by itself.
    pass(&mut b, 120_000);
    assert_eq!(dials(&b.tick()), 1);
}

#[test]
fn r67_a_peer_idle_for_an_hour_is_forgotten_and_no_other() {
    let note = |b: &mut Bench, channel: u64, name: &str| {
        let seen = b.accept_to_verdict(channel, name, "another");
        reports(&seen)
            .iter()
            .any(|event| matches!(event, LinkEvent::HandshakeRead { note_changed: true, .. }))
    };
    let mut b = Bench::new(LinkOptions::default());
    for (channel, name) in [(1, "p"), (2, "q"), (3, "r"), (4, "s"), (5, "t")] {
        accepted(&mut b, channel, name);
    }
    b.order(LinkOrder::ClosePeer { peer: peer("q") }); // H24: a close is never forgotten
    b.want("r", true); // nor is who has messages waiting
    b.now = Millis(100_000);
    b.down(1);
    b.down(3);
    b.down(4);
    b.now = Millis(3_000_000);
    b.fact(LinkFact::Alive { peer: peer("t") });
    b.now = Millis(3_601_000);
    b.fact(LinkFact::Alive { peer: peer("t") });
    b.fact(LinkFact::Tick);
    assert!(!note(&mut b, 11, "p"), "its note is gone");
    assert_eq!(closes(&b.up(12, "q", false)), [12]);
    assert!(note(&mut b, 13, "r"));
    assert!(!note(&mut b, 14, "s"));
    assert!(note(&mut b, 15, "t"), "it has a channel");
    // A little earlier nobody is.
    let mut b = Bench::new(LinkOptions::default());
    accepted(&mut b, 1, "p");
    b.down(1);
    b.now = Millis(3_600_000);
    b.fact(LinkFact::Tick);
    assert!(note(&mut b, 2, "p"));
}

#[test]
fn r49_a_peer_that_closed_us_by_intent_is_dialled_seldom_until_it_dials_or_we_are_told() {
    let closed = || {
        let mut b = Bench::new(LinkOptions::default());
        b.want("z", false);
        b.dial_to_verdict(1, "z", "l");
        b.answer(1, Verdict::Register);
        let texts = vec!["last".into(), CLOSED.into()];
        let told = reports(&b.fact(LinkFact::TextsRead { channel: ChannelId(1), texts }));
        assert_eq!(told.last(), Some(&LinkEvent::Declined { peer: peer("z") }));
        b
    };
    let mut b = closed();
    assert_eq!(
        (b.links.registered(&peer("z")), b.links.next_deadline()),
        (None, Some(b.now.after(Millis(30_000))))
    );
    let actions = b.want("z", true);
    assert_eq!((dials(&actions), reports(&actions).len()), (0, 1));
    // It may have lost its store, and with it what it meant to do.
    assert_eq!(dials(&b.tick()), 1);
    // What it said before is heard, and a reset or an end of the stream is none of this.
    let mut b = Bench::new(LinkOptions::default());
    accepted(&mut b, 1, "z");
    let texts = vec!["last".into(), CLOSED.into()];
    assert_eq!(frames(&b.fact(LinkFact::TextsRead { channel: ChannelId(1), texts })), ["last".into()]);
    // It dials.
    let mut b = closed();
    accepted(&mut b, 2, "z");
    b.down(2);
    assert_eq!(dials(&b.tick()), 1);
    // We are told to.
    assert_eq!(dials(&closed().order(LinkOrder::Reopen { peer: peer("z"), hints: vec![] })), 1);
    // The answer to a dial may be the same word.
    let mut b = Bench::new(LinkOptions::default());
    b.want("z", false);
    b.up(1, "z", true);
    b.greet(1, session("mine"));
    assert_eq!(closes(&b.read(1, CLOSED)), [1]);
    assert_eq!(b.links.next_deadline(), Some(b.now.after(Millis(30_000))));
}

#[test]
fn r49_whoever_is_closed_by_intent_is_told() {
    let mut b = Bench::new(LinkOptions::default());
    accepted_session(&mut b, 1, "z");
    let close = LinkOrder::ClosePeer { peer: peer("z") };
    let actions = b.order(close.clone());
    assert_eq!((written(&actions), closes(&actions)), (vec![CLOSED.to_owned()], vec![1]));
    let actions = b.up(2, "z", false);
    assert_eq!((written(&actions), closes(&actions)), (vec![CLOSED.to_owned()], vec![2]));
    // A kernel of the reference would take the word for a frame.
    let mut b = Bench::new(LinkOptions::default());
    accepted(&mut b, 1, "z");
    assert_eq!(written(&b.order(close)), [] as [&str; 0]);
}

#[test]
fn r173_a_closed_peer_that_keeps_talking_is_not_heard() {
    let mut b = Bench::new(LinkOptions::default());
    accepted(&mut b, 1, "z");
    b.order(LinkOrder::ClosePeer { peer: peer("z") });
    assert_eq!(b.read(1, "still here"), []);
    b.up(2, "z", false);
    assert_eq!(b.read(2, &hello("l")), []);
}

#[test]
fn r46_a_write_that_fails_ends_the_channel_and_starts_over() {
    let mut b = Bench::new(LinkOptions::default());
    b.want("z", true);
    b.dial_to_verdict(1, "z", "l");
    b.answer(1, Verdict::Register);
    let frame = OutFrame { seq: Some(Seq(1)), text: "x".into() };
    b.order(LinkOrder::Send { channel: ChannelId(1), frames: vec![frame], awaited: true });
    let (token, text) = (WriteToken(Some(Seq(1))), "Message send timed out after 10000ms");
    let hung = LinkFact::Written { channel: ChannelId(1), token, outcome: Err(text.into()) };
    let actions = b.fact(hung);
    assert_eq!(closes(&actions), [1]);
    assert!(
        reports(&actions).contains(&LinkEvent::ChannelClosed { channel: ChannelId(1), reason: text.into() })
    );
    assert_eq!(dials(&b.tick()), 1);
}

#[test]
fn a_knock_is_one_dial() {
    let mut b = Bench::new(LinkOptions::default());
    let knock = || LinkOrder::Knock { peer: peer("z"), hints: vec!["/here".into()] };
    assert_eq!(dials(&b.order(knock())), 1);
    assert_eq!(b.fact(LinkFact::DialFailed { peer: peer("z"), error: "refused".into() }), []);
    assert_eq!(dials(&b.order(knock())), 1);
    b.dial_to_verdict(1, "z", "l");
    b.answer(1, Verdict::Register);
    assert_eq!(dials(&b.order(knock())), 0);
    b.down(1);
    assert_eq!(b.links.next_deadline(), None, "nobody needs the link");
}

/// A stranger's stream comes up; then an earlier one of its dead process is lost, or a knock of ours fails: neither may
/// make us forget whose the new one is, or what it brings before the verdict is never read.
#[test]
fn a_peer_with_a_channel_is_not_forgotten() {
    for knocked in [false, true] {
        let mut b = Bench::new(LinkOptions::default());
        if knocked {
            b.order(LinkOrder::Knock { peer: peer("z"), hints: vec![] });
        } else {
            b.up(1, "z", false);
        }
        b.up(2, "z", false);
        if knocked {
            b.fact(LinkFact::DialFailed { peer: peer("z"), error: "refused".into() });
        } else {
            b.down(1);
        }
        b.read(2, &hello("l"));
        b.greet(2, classic("mine"));
        b.read(2, "early");
        assert_eq!(frames(&b.answer(2, Verdict::Register)), ["early".into()]);
        assert_eq!(b.links.registered(&peer("z")), Some(ChannelId(2)));
    }
}
