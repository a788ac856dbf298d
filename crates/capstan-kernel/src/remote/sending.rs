//! From outbox rows to channels: what may be written, what waits, and when to try again (03 C.4, C.5, S12).
//!
//! An acknowledgement by itself is written only behind every row there is, so that on a session channel it proves
//! that whatever was written before it has been sent (03 E-10, see `outbox`).

use super::channels::{Bound, Channels};
use super::restart::{Ending, refuse_redemptions};
use super::{Reach, facts, forget, outbox, redeem};
use crate::effect::{Effect, LogLevel, Step};
use crate::host_op::Refusal;
use crate::kernel::KernelConfig;
use crate::turn::transact;
use capstan_model::error::{KernelError, NetworkStoppedError, PeerRestartedError};
use capstan_model::id::RemoteId;
use capstan_model::peer::{ChannelId, Millis, PeerId, Seq};
use capstan_store::overlay::Db;
use capstan_store::schema::{
    Outbox, PeerIncarnations, Redemptions, RemoteRow, Remotes, RemotesByPeer, SessionRow, Sessions,
};
use capstan_wire::frame::encode_ack;
use capstan_wire::seam::{LinkOrder, OutFrame, SendFault};
use std::collections::BTreeSet;
use std::sync::Arc;

/// So many numbered frames are acknowledged at once rather than after the delay.
const ACK_EVERY: u32 = 64;
/// What a channel is given before its other end has spoken: it keeps no more while it commits.
const HELPING_FRAMES: usize = 32;
/// The same in bytes; one frame may be longer.
const HELPING_BYTES: usize = 512 << 10;

/// Hands newly written rows to bound channels, and asks for links that are missing.
pub(super) fn transmit(
    db: &mut Db,
    channels: &mut Channels,
    config: &KernelConfig,
    now: Millis,
    reach: Reach,
    step: &mut Step,
) {
    let changed: Option<BTreeSet<PeerId>> = match reach {
        Reach::All => None,
        Reach::Changed(_) => Some(db.changed::<Sessions>().cloned().collect()),
    };
    let touched = match reach {
        Reach::Changed(touched) => touched,
        Reach::All => None,
    };
    for (channel, open) in &mut channels.open {
        if changed.as_ref().is_some_and(|changed| !changed.contains(&open.peer)) && touched != Some(*channel)
        {
            continue;
        }
        let Some(bound) = &mut open.bound else { continue };
        let Some(row) = db.get::<Sessions>(&open.peer) else { continue };
        if !is_current(db, &open.peer, bound, row) {
            continue;
        }
        let rid = db.get::<RemotesByPeer>(&open.peer).copied();
        let frames = match rid {
            Some(rid) if bound.classic => one(db, rid, row, bound),
            Some(rid) => many(db, rid, row, bound, now),
            None => Vec::new(),
        };
        let awaited = bound.classic;
        if !frames.is_empty() {
            let order = LinkOrder::Send { channel: *channel, frames, awaited };
            step.effects.push(Effect::Link(order));
        }
        if let Some(ack) = acknowledgement(row, bound, now) {
            let order = LinkOrder::Send { channel: *channel, frames: vec![ack], awaited: false };
            step.effects.push(Effect::Link(order));
        }
        if bound.classic && row.una <= row.sent && bound.awaited.is_none() {
            bound.resend_at.get_or_insert(now.after(config.ack_timeout));
        }
    }
    ask_for_links(db, channels, changed.as_ref(), step);
}

fn is_current(db: &Db, peer: &PeerId, bound: &Bound, row: &SessionRow) -> bool {
    let life = db.get::<PeerIncarnations>(peer).and_then(|row| row.incarnation.as_ref());
    life == Some(&bound.name.theirs)
        && row.epoch == bound.name.epoch
        && facts::is_own_life(db, peer, &bound.name.ours)
}

/// The next frame of a classic channel, if none is being written.
fn one(db: &Db, rid: RemoteId, row: &SessionRow, bound: &mut Bound) -> Vec<OutFrame> {
    bound.next = bound.next.max(row.una);
    if bound.awaited.is_some() || bound.next > row.sent {
        return Vec::new();
    }
    let Some(entry) = db.get::<Outbox>(&(rid, bound.next)) else { return Vec::new() };
    bound.awaited = Some(bound.next);
    bound.told = bound.told.max(ack_in(&entry.text));
    vec![OutFrame { seq: Some(bound.next), text: entry.text.clone() }]
}

/// All frames that a session channel has not been given.
fn many(db: &Db, rid: RemoteId, row: &SessionRow, bound: &mut Bound, now: Millis) -> Vec<OutFrame> {
    bound.next = bound.next.max(row.una);
    if bound.helping_until.is_some_and(|until| until <= now) {
        bound.helping_until = None;
    }
    let mut frames = Vec::new();
    if bound.next > row.sent {
        return frames;
    }
    for ((_, seq), entry) in db.range::<Outbox>((rid, bound.next)..=(rid, row.sent)) {
        let full = bound.helped_frames >= HELPING_FRAMES || bound.helped_bytes >= HELPING_BYTES;
        if bound.helping_until.is_some() && full {
            break;
        }
        bound.helped_frames = bound.helped_frames.saturating_add(1);
        bound.helped_bytes = bound.helped_bytes.saturating_add(entry.text.len());
        bound.told = bound.told.max(ack_in(&entry.text));
        bound.next = seq.next();
        frames.push(OutFrame { seq: Some(*seq), text: entry.text.clone() });
    }
    frames
}

/// The acknowledgement inside the text of a numbered frame of ours; 0: none.
fn ack_in(text: &str) -> Seq {
    let number = |text: &str| {
        let digits = text.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    };
    let after_seq =
        text.strip_prefix(r#"{"seq":"#).map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    let ack = after_seq.and_then(|rest| rest.strip_prefix(r#","ack":"#)).and_then(number);
    Seq(ack.unwrap_or(0))
}

/// An acknowledgement by itself, if it is due and behind every row.
fn acknowledgement(row: &SessionRow, bound: &mut Bound, now: Millis) -> Option<OutFrame> {
    if row.recv <= bound.told {
        bound.ack_due = None;
        bound.unanswered = 0;
        return None;
    }
    let due = bound.ack_due.is_some_and(|due| due <= now) || bound.unanswered >= ACK_EVERY;
    if !due || (!bound.classic && bound.next <= row.sent) {
        return None;
    }
    bound.told = row.recv;
    bound.ack_due = None;
    bound.unanswered = 0;
    Some(OutFrame { seq: None, text: encode_ack(row.recv).into() })
}

fn ask_for_links(db: &Db, channels: &mut Channels, changed: Option<&BTreeSet<PeerId>>, step: &mut Step) {
    let all = changed.is_none().then(|| db.iter::<Remotes>().map(|(_, row)| row)).into_iter().flatten();
    let some = changed.into_iter().flatten().filter_map(|peer| {
        let rid = db.get::<RemotesByPeer>(peer)?;
        db.get::<Remotes>(rid)
    });
    let lacking: Vec<(PeerId, Vec<Arc<str>>)> = all
        .chain(some)
        .filter(|row| !row.closed && channels.asked.get(&row.peer) != Some(&true))
        .filter(|row| db.get::<Sessions>(&row.peer).is_some_and(|session| session.una <= session.sent))
        .filter(|row| channels.bound_to(&row.peer).is_none())
        .map(|row: &RemoteRow| (row.peer.clone(), row.hints.clone()))
        .collect();
    for (peer, hints) in lacking {
        channels.asked.insert(peer.clone(), true);
        step.effects.push(Effect::Link(LinkOrder::Want { peer, hints, for_send: true }));
    }
}

/// An awaited write ended (03 S12, C-20).
pub(super) fn sent(
    channels: &mut Channels,
    channel: ChannelId,
    seq: Option<Seq>,
    outcome: Result<(), SendFault>,
    step: &mut Step,
) -> Option<(PeerId, SendFault)> {
    let open = channels.open.get_mut(&channel)?;
    let bound = open.bound.as_mut()?;
    let written = bound.awaited.filter(|awaited| seq == Some(*awaited))?;
    bound.awaited = None;
    match outcome {
        // After a transient fault the others are tried all the same; what is missing is sent again by the timer. An
        // acknowledgement that came meanwhile may have moved `next` already: counting from there would skip a frame.
        Ok(()) | Err(SendFault::Transient(_)) => bound.next = bound.next.max(written.next()),
        Err(SendFault::Terminal(name)) => {
            let peer = open.peer.clone();
            channels.open.remove(&channel);
            let reason = format!("sending failed: {name}");
            step.effects.push(Effect::Link(LinkOrder::CloseChannel { channel, reason }));
            return Some((peer, SendFault::Terminal(name)));
        }
    }
    None
}

/// Sending to the peer failed. After a restart the session is gone already, and what was queued since belongs to the
/// next one: nothing is written. When the network stops, only this process's waiters are told (03 C-24a, D-15).
pub(super) fn send_failed(
    db: &mut Db,
    channels: &mut Channels,
    config: &KernelConfig,
    now: Millis,
    peer: &PeerId,
    fault: &SendFault,
    step: &mut Step,
) {
    let (SendFault::Terminal(name) | SendFault::Transient(name)) = fault;
    let text = format!("sending to {} failed: {name}", peer.short());
    step.effects.push(Effect::Log { level: LogLevel::Info, text });
    if name == PeerRestartedError::NAME {
        // The next send dials again, and is accepted.
        channels.asked.remove(peer);
    }
    if name == NetworkStoppedError::NAME {
        let refusal = Refusal::PeerUnreachable(NetworkStoppedError::MESSAGE.into());
        let ending = Ending { error: KernelError::connection_lost(peer), refusal };
        let item = || format!("redemptions at {peer}");
        let _set_aside = transact(db, config, now, step, item, |turn| {
            let Some(rid) = facts::remote_of(&turn.tx, peer) else { return Ok(()) };
            let refused = refuse_redemptions(turn, rid, &ending)?;
            let told = refused.into_iter().map(|(request, why)| Effect::Answer { request, answer: Err(why) });
            turn.effects.extend(told);
            Ok(())
        });
    }
}

/// The link to the peer is given up, where the operator allows that: the session ends (03 C-22, C-24).
pub(super) fn gave_up(
    db: &mut Db,
    channels: &mut Channels,
    config: &KernelConfig,
    now: Millis,
    peer: &PeerId,
    reason: Option<String>,
    step: &mut Step,
) {
    channels.asked.remove(peer);
    if config.max_retry_attempts == 0 {
        return;
    }
    let lost = KernelError::connection_lost(peer);
    let refusal = Refusal::PeerUnreachable(reason.unwrap_or_else(|| lost.detail.clone()));
    let ending = Ending { error: lost, refusal };
    let item = || format!("the end of the session with {peer}");
    let _set_aside = transact(db, config, now, step, item, |turn| match facts::remote_of(&turn.tx, peer) {
        Some(rid) => forget::end_and_tell(turn, rid, peer, &ending),
        None => Ok(()),
    });
    if let Some(channel) = channels.bound_to(peer) {
        channels.open.remove(&channel);
        let order = LinkOrder::CloseChannel { channel, reason: "given up".into() };
        step.effects.push(Effect::Link(order));
    }
}

/// A channel is gone: says whether a link is still worth having.
pub(super) fn channel_closed(db: &mut Db, channels: &mut Channels, channel: ChannelId, step: &mut Step) {
    let Some(open) = channels.open.remove(&channel) else { return };
    if open.bound.is_none() {
        return;
    }
    let peer = open.peer;
    channels.asked.remove(&peer);
    let tx = db.begin();
    let rid = facts::remote_of(&tx, &peer);
    let order = match rid.and_then(|rid| Some((rid, tx.get::<Remotes>(&rid)?))) {
        Some((rid, row)) if outbox::wanted(&tx, rid) => {
            let for_send = outbox::pending(&tx, rid);
            channels.asked.insert(peer.clone(), for_send);
            LinkOrder::Want { peer, hints: row.hints.clone(), for_send }
        }
        Some(_) | None => LinkOrder::Unwant { peer },
    };
    step.effects.push(Effect::Link(order));
}

/// Does what is due; acknowledgements are left to [`transmit`].
pub(super) fn time_came(
    db: &mut Db,
    channels: &mut Channels,
    config: &KernelConfig,
    now: Millis,
    step: &mut Step,
) {
    if db.iter::<Redemptions>().any(|(_, row)| row.deadline <= now) {
        let item = || "redemptions that ran out of time".to_owned();
        let _set_aside = transact(db, config, now, step, item, redeem::expire);
    }
    let mut exhausted = Vec::new();
    for open in channels.open.values_mut() {
        let Some(bound) = open.bound.as_mut().filter(|bound| bound.classic && bound.awaited.is_none()) else {
            continue;
        };
        if bound.resend_at.is_none_or(|at| at > now) {
            continue;
        }
        bound.resend_at = None;
        let Some(row) = db.get::<Sessions>(&open.peer).filter(|row| row.una <= row.sent) else { continue };
        if config.max_retry_attempts != 0 && bound.retries >= config.ack_retries_max {
            exhausted.push(open.peer.clone());
            continue;
        }
        bound.retries = bound.retries.saturating_add(1);
        bound.next = row.una;
    }
    for peer in exhausted {
        let reason = format!("not acknowledged after {} retries", config.ack_retries_max);
        gave_up(db, channels, config, now, &peer, Some(reason), step);
    }
}

/// When [`time_came`] or [`transmit`] next has something to do.
pub(super) fn next_deadline(db: &Db, channels: &Channels) -> Option<Millis> {
    let redemptions = db.iter::<Redemptions>().map(|(_, row)| row.deadline);
    let of_channels = channels.open.values().filter_map(|open| {
        let bound = open.bound.as_ref()?;
        let timed = bound.ack_due.or(bound.helping_until).or(bound.resend_at);
        // Most channels have nothing to wait for: their rows need not be looked up.
        let row = timed.and_then(|_| db.get::<Sessions>(&open.peer))?;
        let held_back = !bound.classic && bound.next <= row.sent && row.una <= row.sent;
        let ack = bound.ack_due.filter(|_| !held_back && row.recv > bound.told);
        let helping = bound.helping_until.filter(|_| held_back);
        let resend = bound.resend_at.filter(|_| bound.awaited.is_none() && row.una <= row.sent);
        [ack, helping, resend].into_iter().flatten().min()
    });
    redemptions.chain(of_channels).min()
}
