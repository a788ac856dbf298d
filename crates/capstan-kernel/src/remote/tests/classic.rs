//! Toward a classic peer frames go one at a time, each awaited (03 S12, C-19, C-20).

use super::super::{Reach, RemoteDelivery, deliver, time_came, transmit};
use super::verdict::{Lone, bob};
use crate::effect::{Effect, Step};
use capstan_model::id::RemoteId;
use capstan_model::peer::{ChannelId, Millis, Seq};
use capstan_store::schema::{Outbox, Sessions};
use capstan_wire::seam::{LinkEvent, LinkOrder, SendFault, Verdict};

/// A kernel with two frames for bob and a registered classic channel.
fn two_pending() -> (Lone, RemoteId) {
    let mut lone = Lone::new();
    let rid = lone.remote();
    assert_eq!(lone.greet("A", true).0, Verdict::Register);
    for _ in 0..2 {
        lone.with(|turn| deliver(turn, rid, RemoteDelivery::BringOutYourDead).unwrap());
    }
    (lone, rid)
}

/// The numbers written at this moment.
fn written(lone: &mut Lone, now: u64) -> Vec<u64> {
    let mut step = Step::default();
    let Lone { db, channels, config, .. } = lone;
    time_came(db, channels, config, Millis(now), &mut step);
    transmit(db, channels, config, Millis(now), Reach::All, &mut step);
    let sends = step.effects.into_iter().filter_map(|effect| match effect {
        Effect::Link(LinkOrder::Send { frames, awaited, .. }) => {
            assert_eq!(awaited, frames.iter().any(|frame| frame.seq.is_some()));
            Some(frames)
        }
        _ => None,
    });
    sends.flatten().filter_map(|frame| Some(frame.seq?.0)).collect()
}

fn ended(lone: &mut Lone, seq: u64, outcome: Result<(), SendFault>) {
    lone.event(LinkEvent::Sent { channel: ChannelId(1), seq: Some(Seq(seq)), outcome });
}

#[test]
fn r86_the_second_waits_for_the_first() {
    let (mut lone, _) = two_pending();
    assert_eq!(written(&mut lone, 10), [1]);
    assert_eq!(written(&mut lone, 20), [] as [u64; 0]);
    ended(&mut lone, 1, Ok(()));
    assert_eq!(written(&mut lone, 30), [2]);
}

#[test]
fn r87_after_a_terminal_error_nothing_more_is_written_there() {
    for name in ["PeerRestartedError", "NetworkStoppedError"] {
        let (mut lone, _) = two_pending();
        assert_eq!(written(&mut lone, 10), [1]);
        ended(&mut lone, 1, Err(SendFault::Terminal(name.into())));
        assert_eq!(written(&mut lone, 20), [] as [u64; 0]);
        assert_eq!(lone.db.len::<Outbox>(), 2, "the session is alive, so its rows are kept");
    }
}

#[test]
fn r88_after_a_transient_error_the_next_is_tried_and_all_is_sent_again_later() {
    let (mut lone, _) = two_pending();
    assert_eq!(written(&mut lone, 10), [1]);
    ended(&mut lone, 1, Err(SendFault::Transient("write failed".into())));
    assert_eq!(written(&mut lone, 20), [2]);
    ended(&mut lone, 2, Ok(()));
    assert_eq!(written(&mut lone, 30), [] as [u64; 0]);
    let later = 30 + lone.config.ack_timeout.0;
    assert_eq!(written(&mut lone, later), [1]);
}

#[test]
fn c19_the_outbox_is_given_up_only_where_the_operator_says_so() {
    for limit in [0, 1] {
        let (mut lone, _) = two_pending();
        lone.config.max_retry_attempts = limit;
        let mut now = 10;
        for _ in 0..10 {
            for seq in written(&mut lone, now) {
                ended(&mut lone, seq, Ok(()));
            }
            for seq in written(&mut lone, now) {
                ended(&mut lone, seq, Ok(()));
            }
            written(&mut lone, now);
            now += lone.config.ack_timeout.0;
        }
        let row = lone.db.get::<Sessions>(&bob()).unwrap();
        let kept = (lone.db.len::<Outbox>(), row.sent);
        assert_eq!(kept, if limit == 0 { (2, Seq(2)) } else { (0, Seq(0)) });
    }
}

#[test]
fn an_acknowledgement_takes_frames_out() {
    let (mut lone, rid) = two_pending();
    let frames = vec![r#"{"ack":1}"#.into()];
    lone.event(LinkEvent::FramesRead { channel: ChannelId(1), frames });
    assert_eq!(lone.db.len::<Outbox>(), 1);
    assert!(lone.db.get::<Outbox>(&(rid, Seq(2))).is_some());
    assert_eq!(written(&mut lone, 10), [2]);
}

/// A resumed channel starts with a frame that the peer may have acknowledged already; the one behind it must not wait
/// for the timer.
#[test]
fn an_acknowledgement_during_a_write_skips_no_frame() {
    for outcome in [Ok(()), Err(SendFault::Transient("write failed".into()))] {
        let (mut lone, _) = two_pending();
        assert_eq!(written(&mut lone, 10), [1]);
        let frames = vec![r#"{"ack":1}"#.into()];
        lone.event(LinkEvent::FramesRead { channel: ChannelId(1), frames });
        assert_eq!(written(&mut lone, 20), [] as [u64; 0]);
        ended(&mut lone, 1, outcome);
        assert_eq!(written(&mut lone, 30), [2]);
    }
}
