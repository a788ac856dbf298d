//! Our own limits: whatever they hold back comes later, and nothing is lost (03 B-33, B-35, B-36, B-44).

use crate::link_bench::*;
use capstan_model::peer::{ChannelId, Millis, Seq};
use capstan_wire::handshake::{HandshakeKind, encode_handshake};
use capstan_wire::link::{Action, DialFault, FaultCode, LinkFact, LinkOptions, WriteToken};
use capstan_wire::seam::{LinkEvent, LinkOrder, OutFrame, SendFault, Verdict};
use std::num::NonZeroU32;

fn connections(max: usize) -> Bench {
    Bench::new(LinkOptions { connections_max: max, ..LinkOptions::default() })
}

fn transient(text: &str) -> LinkEvent {
    LinkEvent::SendFailed { peer: peer("c"), fault: SendFault::Transient(text.into()) }
}

fn dialled(actions: &[Action]) -> Vec<String> {
    let peer = |action: &Action| match action {
        Action::Dial { peer, .. } => Some(peer.to_string()),
        Action::Write { .. } | Action::Close { .. } | Action::Report(_) => None,
    };
    actions.iter().filter_map(peer).collect()
}

fn connect(b: &mut Bench, channel: u64, name: &str) {
    assert_eq!(dialled(&b.want(name, true)), [name]);
    b.dial_to_verdict(channel, name, "l");
    b.answer(channel, Verdict::Register);
    assert_eq!(b.links.registered(&peer(name)), Some(ChannelId(channel)));
}

fn connect_session(b: &mut Bench, channel: u64, name: &str) {
    b.want(name, true);
    b.up(channel, name, true);
    b.greet(channel, session("mine"));
    b.read(channel, &encode_handshake(HandshakeKind::HandshakeAck, &session("l")));
    b.answer(channel, Verdict::Register);
    assert_eq!(b.links.registered(&peer(name)), Some(ChannelId(channel)));
}

fn fail(b: &mut Bench, name: &str, code: FaultCode) -> Vec<Action> {
    b.fact(LinkFact::DialFailed { peer: peer(name), error: DialFault::new(code, "x") })
}

#[test]
fn r43_beyond_the_limit_a_dial_waits_and_what_comes_in_is_closed() {
    let mut b = connections(2);
    connect(&mut b, 1, "a");
    connect(&mut b, 2, "b");
    let actions = b.want("c", true);
    assert_eq!(reports(&actions), [transient("Connection limit reached: 2/2 concurrent connections")]);
    assert_eq!(dialled(&actions), [] as [&str; 0]);
    assert_eq!(dialled(&b.want("d", true)), [] as [&str; 0]);
    assert_eq!(closes(&b.up(3, "z", false)), [3], "before its handshake");
    // A peer that has a channel may replace it, and whoever waited goes first when one is gone.
    assert_eq!(closes(&b.up(4, "a", false)), [] as [u64; 0]);
    assert_eq!(dialled(&b.down(2)), ["c"]);
    assert_eq!(dialled(&b.down(1)), ["d"]);
    assert_eq!([b.tick(), b.tick()].map(|actions| dials(&actions)), [0, 0], "those who were lost wait again");
}

#[test]
fn r43_a_silent_channel_that_nobody_needs_makes_room() {
    let mut b = connections(1);
    b.accept_to_verdict(1, "z", "l");
    b.answer(1, Verdict::Register);
    b.want("c", true);
    assert_eq!(b.links.next_deadline(), Some(Millis(6_000)));
    let actions = b.tick();
    assert_eq!((closes(&actions), dialled(&actions)), (vec![1], vec!["c".to_owned()]));
    // One that we want does not.
    let mut b = connections(1);
    connect(&mut b, 1, "a");
    b.want("c", true);
    b.now = Millis(60_000);
    assert_eq!(b.fact(LinkFact::Tick), []);
}

#[test]
fn r44_a_limit_met_while_dialling_closes_what_was_dialled() {
    let mut b = connections(1);
    assert_eq!(dials(&b.want("c", true)), 1);
    b.accept_to_verdict(1, "z", "l");
    b.answer(1, Verdict::Register);
    let actions = b.up(2, "c", true);
    assert_eq!((closes(&actions), dials(&actions)), (vec![2], 0));
    // The same where the limit is met between the dial and its verdict.
    let mut b = connections(1);
    b.want("c", true);
    b.dial_to_verdict(1, "c", "l");
    b.accept_to_verdict(2, "z", "l");
    b.answer(2, Verdict::Register);
    let actions = b.answer(1, Verdict::Register);
    let reason = "Connection limit reached: 1/1 concurrent connections".to_owned();
    assert!(reports(&actions).contains(&LinkEvent::ChannelClosed { channel: ChannelId(1), reason }));
    assert_eq!((closes(&actions), b.links.registered(&peer("c"))), (vec![1], None));
    assert_eq!(dialled(&b.down(2)), [] as [&str; 0], "under back-off as ever");
    assert_eq!(dialled(&b.tick()), ["c"]);
}

#[test]
fn r64_a_refusal_by_our_own_limits_is_no_attempt() {
    let minute = LinkOptions {
        dials_per_minute: NonZeroU32::new(2).unwrap(),
        max_retry_attempts: 3,
        ..LinkOptions::default()
    };
    let mut b = Bench::new(minute);
    assert_eq!(dials(&b.want("c", false)), 1);
    fail(&mut b, "c", FaultCode::TimedOut);
    assert_eq!(dials(&b.tick()), 1);
    fail(&mut b, "c", FaultCode::TimedOut);
    // The third dial of this minute waits for the next one: several times refused, not counted.
    let actions = b.tick();
    assert_eq!((dials(&actions), reports(&actions)), (0, vec![]));
    for hint in ["/x", "/y", "/z"] {
        let again = LinkOrder::Want { peer: peer("c"), hints: vec![hint.into()], for_send: true };
        assert_eq!(b.order(again), []);
    }
    assert_eq!(b.links.next_deadline(), Some(Millis(61_000)));
    assert_eq!(dials(&b.tick()), 1);
    assert!(b.now >= Millis(61_000));
    let third = fail(&mut b, "c", FaultCode::TimedOut);
    assert_eq!(reports(&third), [LinkEvent::GaveUp { peer: peer("c") }], "after three dials");

    // A connection limit does not count either.
    let options = LinkOptions { connections_max: 1, max_retry_attempts: 1, ..LinkOptions::default() };
    let mut b = Bench::new(options);
    b.want("c", false);
    b.accept_to_verdict(1, "z", "l");
    b.answer(1, Verdict::Register);
    assert_eq!(reports(&b.up(2, "c", true)), []);
    b.tick();
    assert_eq!(dialled(&b.down(1)), ["c"]);
}

#[test]
fn r60_a_permanent_error_gives_up_at_once_and_a_retryable_one_does_not() {
    for (code, given_up) in
        [(FaultCode::NoAddress, true), (FaultCode::Malformed, true), (FaultCode::Reset, false)]
    {
        let mut b = Bench::new(LinkOptions { max_retry_attempts: 50, ..LinkOptions::default() });
        b.want("c", false);
        let gave_up = reports(&fail(&mut b, "c", code)).contains(&LinkEvent::GaveUp { peer: peer("c") });
        assert_eq!((gave_up, b.links.next_deadline().is_none()), (given_up, given_up));
    }
    // Where nothing is ever given up it is told once, and tried again seldom or when something new is known.
    let mut b = Bench::new(LinkOptions::default());
    b.want("c", false);
    assert_eq!(reports(&fail(&mut b, "c", FaultCode::NoAddress)), [transient("NoAddressError: x")]);
    assert_eq!(b.links.next_deadline(), Some(Millis(31_000)));
    b.tick();
    assert_eq!(reports(&fail(&mut b, "c", FaultCode::NoAddress)), []);
    b.fact(LinkFact::HintsSeen { peer: peer("c"), hints: vec!["/new".into()] });
    assert_eq!(b.links.next_deadline(), Some(b.now));
    assert_eq!(dials(&b.tick()), 1);
}

#[test]
fn r62_five_refusals_in_a_row_say_that_the_peer_is_down_and_end_nothing() {
    use FaultCode::*;
    let run = |codes: &[FaultCode]| {
        let mut b = Bench::new(LinkOptions::default());
        let mut all = b.want("c", false);
        for code in codes {
            all.extend(fail(&mut b, "c", *code));
            all.extend(b.tick());
        }
        let pause = b.now.0;
        all.extend(fail(&mut b, "c", *codes.last().unwrap()));
        (reports(&all), dials(&all), b.links.next_deadline().unwrap().0 - pause)
    };
    for code in [Refused, HostUnreachable, NetUnreachable, NotFound] {
        let told = transient(&format!("{}: x", code.name()));
        assert_eq!(run(&[code; 5]), (vec![told.clone()], 6, 999), "at once the longest pause");
        assert_eq!(run(&[code; 50]), (vec![told], 51, 999), "told once, and never given up");
        assert_eq!(run(&[code; 3]).0, []);
    }
    assert_eq!(run(&[Reset; 5]), (vec![], 6, 399));
    assert_eq!(run(&[Refused, Refused, TimedOut, Refused, Refused, Refused]).0, []);
    // A success in between clears the count.
    let mut b = Bench::new(LinkOptions::default());
    let mut all = b.want("c", false);
    for round in 1..=3 {
        for _ in 0..4 {
            all.extend(fail(&mut b, "c", Refused));
            all.extend(b.tick());
        }
        b.dial_to_verdict(round, "c", "l");
        b.answer(round, Verdict::Register);
        b.down(round);
        all.extend(b.tick());
    }
    let told = reports(&all).into_iter().filter(|event| matches!(event, LinkEvent::SendFailed { .. }));
    assert_eq!(told.collect::<Vec<_>>(), []);
}

#[test]
fn r75_a_thousand_sends_in_a_second_are_written_in_order_as_the_limit_allows() {
    let options = LinkOptions { messages_per_second: NonZeroU32::new(100), ..LinkOptions::default() };
    let mut b = Bench::new(options);
    connect_session(&mut b, 1, "c");
    let (mut texts, mut times) = (Vec::new(), Vec::new());
    let mut note = |actions: &[Action], now: Millis| {
        let new = written(actions);
        times.extend(new.iter().map(|_| now.0));
        texts.extend(new);
    };
    for n in 0..1_000 {
        b.now = Millis(1_000 + n);
        let frame = OutFrame { seq: Some(Seq(n + 1)), text: n.to_string().into() };
        let order = LinkOrder::Send { channel: ChannelId(1), frames: vec![frame], awaited: n == 999 };
        note(&b.order(order), b.now);
    }
    let mut tokens = Vec::new();
    for _ in 0..1_000 {
        let actions = b.tick();
        note(&actions, b.now);
        tokens.extend(actions.iter().filter_map(|action| match action {
            Action::Write { token, .. } => *token,
            _ => None,
        }));
    }
    assert!(texts.iter().eq((0..1_000).map(|n| n.to_string()).collect::<Vec<_>>().iter()), "{}", texts.len());
    let fastest = times.windows(101).map(|window| window[100] - window[0]).min();
    assert_eq!(fastest, Some(1_000));
    assert!(times[999] < 11_000, "slower, and no slower than the limit: {}", times[999]);
    assert_eq!(tokens, [WriteToken(Some(Seq(1_000)))]);
}

#[test]
fn r75_without_a_limit_nothing_is_held_back_between_session_kernels() {
    let mut b = Bench::new(LinkOptions::default());
    connect_session(&mut b, 1, "c");
    let frames: Vec<_> = (0..1_000).map(|n| OutFrame { seq: Some(Seq(n)), text: "x".into() }).collect();
    let order = LinkOrder::Send { channel: ChannelId(1), frames, awaited: false };
    assert_eq!(written(&b.order(order)).len(), 1_000);
}

/// A kernel of the reference sends no more than 100 frames in a second to one peer, and loses what it would send beyond
/// that. What makes it send is what it gets.
#[test]
fn r75_a_kernel_of_the_reference_gets_fewer_frames_in_any_second_than_it_may_send_itself() {
    let mut b = Bench::new(LinkOptions::default());
    connect(&mut b, 1, "c");
    let (mut texts, mut times) = (Vec::new(), Vec::new());
    let mut note = |actions: &[Action], now: Millis| {
        let new = written(actions);
        times.extend(new.iter().map(|_| now.0));
        texts.extend(new);
    };
    // Numbered frames one at a time, as the kernel sends them to such a peer, and acknowledgements in between.
    for n in 0..300 {
        let mut order = |text: String, seq: Option<Seq>| {
            let frames = vec![OutFrame { seq, text: text.into() }];
            let order = LinkOrder::Send { channel: ChannelId(1), frames, awaited: seq.is_some() };
            note(&b.order(order), b.now);
        };
        order(n.to_string(), Some(Seq(n + 1)));
        if n % 3 == 0 {
            order(format!("ack of {n}"), None);
        }
    }
    let mut tokens = 0;
    while texts.len() < 400 {
        let before = b.now;
        let actions = b.tick();
        assert!(b.now > before, "a tick that is due has something to do");
        tokens +=
            actions.iter().filter(|action| matches!(action, Action::Write { token: Some(_), .. })).count();
        let new = written(&actions);
        times.extend(new.iter().map(|_| b.now.0));
        texts.extend(new);
    }
    let expected = (0..300).flat_map(|n| {
        let ack = (n % 3 == 0).then(|| format!("ack of {n}"));
        [Some(n.to_string()), ack].into_iter().flatten()
    });
    assert!(texts.iter().eq(expected.collect::<Vec<_>>().iter()));
    let most =
        times.iter().map(|from| times.iter().filter(|at| (*from..from + 1_000).contains(at)).count()).max();
    assert!(most.is_some_and(|most| (80..100).contains(&most)), "{most:?}");
    assert!(times[399] - times[0] < 5_000, "no slower than the rate: {}", times[399] - times[0]);
    assert_eq!(tokens, 300 - 12, "those of the burst were told of at once");
    // The limit is the peer's and not the channel's: a new one begins with no burst of its own.
    b.down(1);
    b.tick();
    b.dial_to_verdict(2, "c", "l");
    b.answer(2, Verdict::Register);
    let frames: Vec<_> = (0..16).map(|_| OutFrame { seq: None, text: "x".into() }).collect();
    let order = LinkOrder::Send { channel: ChannelId(2), frames, awaited: false };
    assert!(written(&b.order(order)).len() < 16);
}

#[test]
fn a_classic_peer_that_came_by_our_own_name_is_not_held_back() {
    let mut b = Bench::new(LinkOptions::default());
    b.want("c", true);
    b.fact(LinkFact::ChannelUp { channel: ChannelId(1), peer: peer("c"), dialed: true, reference: false });
    b.greet(1, classic("mine"));
    b.read(1, &ack("l"));
    b.answer(1, Verdict::Register);
    let frames = (0..300).map(|n| OutFrame { seq: Some(Seq(n + 1)), text: n.to_string().into() }).collect();
    let sent = b.order(LinkOrder::Send { channel: ChannelId(1), frames, awaited: false });
    assert_eq!(written(&sent).len(), 300);
}
