//! Frames from a peer: judged by number, checked by reference, applied in a transaction each (03 C.6).
//!
//! A frame that cannot be acted on is consumed all the same: its effects are undone, the mark moves, the log says why
//! (03 C-30). So a poison frame is neither sent again nor able to stop what comes after it.

use super::channels::Channels;
use super::outbox::{self, Acknowledged};
use super::quota::{self, NameBudget};
use super::{facts, forget, handshake, redeem, settled};
use crate::clist::{self, ForeignName};
use crate::effect::{Effect, LogLevel, Step};
use crate::fault::Corrupt;
use crate::kernel::KernelConfig;
use crate::promise::{self, SettleError};
use crate::queue;
use crate::turn::{Turn, transact};
use capstan_model::capdata::{CapData, Message, Resolution};
use capstan_model::error::KernelError;
use capstan_model::id::{EndpointId, KRef, ObjectId, PromiseId, RemoteId};
use capstan_model::peer::{ChannelId, Millis, PeerId, Seq};
use capstan_model::refs::{RRef, RefKind, Side};
use capstan_store::overlay::Db;
use capstan_store::schema::{
    Clist, Decider, Objects, Owner, PromiseState, Remotes, RemotesByPeer, SendItem, Sessions,
};
use capstan_wire::frame::{Frame, FrameLimits, Incoming, decode};
use capstan_wire::seam::LinkOrder;
use capstan_wire::window::{Arrival, ReceiveMark};
use std::sync::Arc;

/// Why a frame was not acted on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// It makes no sense here; nothing else does harm.
    #[error("{0}")]
    Poison(String),
    /// The peer names what it was never given: its c-list and ours differ.
    #[error("it names {0}, which it was never given")]
    Unknown(RRef),
    /// The peer has introduced as many names as it may.
    #[error("the peer holds {held} names here, limit {limit}")]
    Names {
        /// How many there are.
        held: u64,
        /// How many may be.
        limit: u64,
    },
    /// A stranger, and there are as many peers as may be.
    #[error("there are {0} peers, as many as may be")]
    Crowded(usize),
    /// Ours, not theirs.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// What the channel goes through after a frame.
enum After {
    Unnumbered,
    Numbered,
    /// Acknowledge again, whatever was said before.
    Again,
    Close(String),
}

/// Frames arrived on a channel.
pub(super) fn frames_read(
    db: &mut Db,
    channels: &mut Channels,
    config: &KernelConfig,
    now: Millis,
    channel: ChannelId,
    frames: Vec<Arc<str>>,
    step: &mut Step,
) {
    let Some(peer) = channels.open.get(&channel).map(|open| open.peer.clone()) else { return };
    for text in frames {
        let first = step.effects.len();
        read_one(db, channels, config, now, channel, &text, step);
        channels.lines.limit(&peer, now, &mut step.effects, first);
    }
}

/// Reads one frame, if the channel is still bound.
fn read_one(
    db: &mut Db,
    channels: &mut Channels,
    config: &KernelConfig,
    now: Millis,
    channel: ChannelId,
    text: &str,
    step: &mut Step,
) {
    let Some(open) = channels.open.get(&channel) else { return };
    let Some(bound) = &open.bound else { return };
    let peer = open.peer.clone();
    // Only a first contact still needs what the peer said of itself.
    let known = db.get::<RemotesByPeer>(&peer).is_some();
    let theirs = if known { None } else { open.theirs.clone() };
    if !handshake::current(&db.begin(), &peer, &bound.name) {
        return close(channels, channel, "it belongs to another session", step);
    }
    let classic = bound.classic;
    let item = || format!("frame of {peer}: {}", text.chars().take(1000).collect::<String>());
    let mut budget = channels.names.remove(&peer).unwrap_or_default();
    let done = transact(db, config, now, step, item, |turn| {
        frame(turn, &peer, theirs.as_ref(), classic, &mut budget, text)
    });
    channels.names.insert(peer.clone(), budget);
    let after = match done {
        Ok((after, acknowledged)) => {
            note_acknowledged(channels, channel, acknowledged, now, config);
            after
        }
        Err(reason) => {
            pass_over(db, config, now, &peer, text, step);
            After::Close(format!("a frame could not be processed: {reason}"))
        }
    };
    let Some(bound) = channels.bound_mut(channel) else { return };
    bound.helping_until = None;
    match after {
        After::Unnumbered => {}
        After::Numbered => bound.unanswered = bound.unanswered.saturating_add(1),
        After::Again => bound.told = Seq(0),
        After::Close(reason) => return close(channels, channel, &reason, step),
    }
    if let Some(bound) = channels.bound_mut(channel)
        && !matches!(after, After::Unnumbered)
    {
        bound.ack_due.get_or_insert(now.after(config.ack_delay));
    }
}

fn close(channels: &mut Channels, channel: ChannelId, reason: &str, step: &mut Step) {
    if let Some(open) = channels.open.remove(&channel) {
        channels.asked.remove(&open.peer);
        let text = format!("channel {channel} to {} is closed: {reason}", open.peer.short());
        step.effects.push(Effect::Log { level: LogLevel::Warn, text });
        step.effects.push(Effect::Link(LinkOrder::CloseChannel { channel, reason: reason.into() }));
    }
}

fn note_acknowledged(
    channels: &mut Channels,
    channel: ChannelId,
    acknowledged: Acknowledged,
    now: Millis,
    config: &KernelConfig,
) {
    if let Some(bound) = channels.bound_mut(channel)
        && acknowledged == Acknowledged::Moved
    {
        bound.retries = 0;
        bound.resend_at = bound.resend_at.map(|_| now.after(config.ack_timeout));
    }
}

/// Moves the mark past a frame that met a fault of ours and was set aside.
fn pass_over(db: &mut Db, config: &KernelConfig, now: Millis, peer: &PeerId, text: &str, step: &mut Step) {
    let Ok(Incoming { seq: Some(seq), .. }) = decode(text, &limits(config)) else { return };
    let item = || format!("the mark past frame {seq} of {peer}");
    let _set_aside = transact(db, config, now, step, item, |turn| {
        if facts::session(&turn.tx, peer).recv.next() == seq {
            advance(turn, peer, text);
        }
        Ok(())
    });
}

fn limits(config: &KernelConfig) -> FrameLimits {
    let frame_bytes_max = usize::try_from(config.frame_bytes_max).unwrap_or(usize::MAX);
    FrameLimits { frame_bytes_max, ..FrameLimits::default() }
}

fn advance(turn: &mut Turn<'_>, peer: &PeerId, text: &str) {
    let mut session = facts::session(&turn.tx, peer);
    let mark = ReceiveMark { recv: session.recv, digest: session.recv_digest }.advance(text);
    (session.recv, session.recv_digest) = (mark.recv, mark.digest);
    turn.tx.put::<Sessions>(peer.clone(), session);
}

/// One frame, up to the commit.
fn frame(
    turn: &mut Turn<'_>,
    peer: &PeerId,
    theirs: Option<&capstan_wire::facts::Facts>,
    classic: bool,
    budget: &mut NameBudget,
    text: &str,
) -> Result<(After, Acknowledged), Corrupt> {
    let incoming = match decode(text, &limits(turn.config)) {
        Ok(incoming) => incoming,
        Err(error) => return Ok((After::Close(error.to_string()), Acknowledged::Old)),
    };
    let session = facts::session(&turn.tx, peer);
    let mark = ReceiveMark { recv: session.recv, digest: session.recv_digest };
    let arrival = incoming.seq.map(|seq| mark.judge(seq));
    if let Some(Arrival::Gap { expected }) = arrival {
        let text = format!("{} sent a frame ahead of number {expected}", peer.short());
        turn.log(LogLevel::Warn, text.clone());
        // A classic peer sends again by its timer; a session peer when the session is resumed.
        let after = if classic { After::Again } else { After::Close(text) };
        return Ok((after, Acknowledged::Old));
    }
    let mut acknowledged = Acknowledged::Old;
    if let Some(n) = incoming.ack {
        let rid = facts::remote_of(&turn.tx, peer);
        acknowledged = outbox::acknowledge(turn, rid, peer, n, true)?;
        if acknowledged == Acknowledged::BeyondSent {
            let text = format!("{} acknowledged frame {n}, which was never sent", peer.short());
            turn.log(LogLevel::Error, text.clone());
            if !classic {
                return Ok((After::Close(text), acknowledged));
            }
        }
    }
    let Some(body) = incoming.body else { return Ok((After::Unnumbered, acknowledged)) };
    if arrival == Some(Arrival::Duplicate) {
        return Ok((After::Again, acknowledged));
    }
    advance(turn, peer, text);
    let mark = turn.mark();
    let mut result = None;
    let done = match body {
        Err(error) => Err(Fault::Poison(error.to_string())),
        Ok(body) => first_contact(turn, peer, theirs).and_then(|rid| {
            if let Frame::Message { message, .. } = &body {
                result = message.result;
            }
            budget
                .take(turn, rid, &body)
                .map_err(|held| Fault::Names { held, limit: turn.config.peer_names_max })?;
            apply(turn, rid, body, incoming.ack.unwrap_or_default())
        }),
    };
    let after = match done {
        Ok(()) => After::Numbered,
        Err(Fault::Corrupt(corrupt)) => return Err(corrupt),
        Err(fault) => {
            turn.rollback_to(mark);
            let text = format!("a frame of {} is ignored: {fault}", peer.short());
            turn.log(LogLevel::Warn, text.clone());
            if let (Fault::Names { .. }, Some(name)) = (&fault, result)
                && budget.may_answer(turn)
            {
                refuse(turn, peer, name, &fault)?;
            }
            let ends = matches!(fault, Fault::Unknown(_) | Fault::Crowded(_));
            if ends { After::Close(text) } else { After::Numbered }
        }
    };
    Ok((after, acknowledged))
}

/// Rejects the result of a call that was not accepted.
fn refuse(turn: &mut Turn<'_>, peer: &PeerId, name: RRef, why: &Fault) -> Result<(), Corrupt> {
    let Some(rid) = facts::remote_of(&turn.tx, peer) else { return Ok(()) };
    match accept_result(turn, rid, name) {
        Ok(kp) => {
            promise::reject_as_decider(turn, kp, KernelError::delivery_failed(why.to_string()).to_capdata())
        }
        Err(Fault::Corrupt(corrupt)) => Err(corrupt),
        Err(_) => Ok(()),
    }
}

/// The peer's remote; its first valid numbered frame makes it (03 C-31).
fn first_contact(
    turn: &mut Turn<'_>,
    peer: &PeerId,
    theirs: Option<&capstan_wire::facts::Facts>,
) -> Result<RemoteId, Fault> {
    if let Some(rid) = facts::remote_of(&turn.tx, peer) {
        return Ok(rid);
    }
    if !quota::make_room_for_remote(turn) {
        return Err(Fault::Crowded(turn.config.peers_max));
    }
    let rid = facts::ensure_remote(turn, peer, &[])?;
    if let Some(theirs) = theirs {
        handshake::note_peer(turn, peer, rid, theirs);
    }
    Ok(rid)
}

/// Acts on one frame. `ack`: what the peer had processed of ours when it wrote it.
fn apply(turn: &mut Turn<'_>, rid: RemoteId, frame: Frame, ack: Seq) -> Result<(), Fault> {
    match frame {
        Frame::Message { target, message } => accept_message(turn, rid, target, message),
        Frame::Notify(resolutions) => accept_notify(turn, rid, resolutions),
        Frame::DropExports(names) => each_object(turn, rid, &names, ack, |turn, ko| {
            Ok(clist::set_reachable(&mut turn.tx, EndpointId::Remote(rid), ko, false)?)
        }),
        Frame::RetireExports(names) => each_object(turn, rid, &names, ack, |turn, ko| {
            let key = (EndpointId::Remote(rid), KRef::Object(ko));
            if turn.tx.get::<Clist>(&key).is_some_and(|row| row.reachable) {
                return Err(Fault::Poison(format!("{ko} is retired before it is dropped")));
            }
            clist::remove(&mut turn.tx, key.0, key.1)?;
            Ok(())
        }),
        Frame::RetireImports(names) => accept_gone(turn, rid, &names),
        Frame::BringOutYourDead => {
            crate::gc::schedule_reaps_toward(&mut turn.tx, rid);
            forget::set_echo(turn, rid);
            Ok(())
        }
        Frame::RedeemUrl { url, reply_key } => redeem::serve(turn, rid, &url, reply_key),
        Frame::RedeemUrlReply { reply_key, outcome } => {
            let found = match outcome {
                Ok(name) => Ok(translate(turn, rid, name)?),
                Err(text) => Err(text),
            };
            redeem::replied(turn, rid, &reply_key, found)
        }
    }
}

/// What the peer's name stands for. One of ours that was retired while the frame was on its way is an object that
/// nobody owns any more: calls to it are rejected, and nothing is a protocol error (03 E.3).
fn translate(turn: &mut Turn<'_>, rid: RemoteId, name: RRef) -> Result<KRef, Fault> {
    match clist::export(turn, EndpointId::Remote(rid), name.into()) {
        Ok(kref) => Ok(kref),
        Err(ForeignName::Corrupt(corrupt)) => Err(corrupt.into()),
        Err(ForeignName::Unknown(_) | ForeignName::Dropped(_)) => {
            if name.kind == RefKind::Object && was_given(turn, rid, name) {
                return Ok(KRef::Object(clist::new_object(&mut turn.tx, None)));
            }
            let peer = turn.tx.get::<Remotes>(&rid).map(|row| row.peer.clone());
            if was_given(turn, rid, name) && peer.is_some_and(|peer| outbox::keeps_names(turn, &peer)) {
                return Ok(settled::stand_in(turn, name)?);
            }
            Err(Fault::Unknown(name))
        }
    }
}

/// Whether a `-` name was once allocated for this peer.
fn was_given(turn: &Turn<'_>, rid: RemoteId, name: RRef) -> bool {
    let Some(row) = turn.tx.get::<Remotes>(&rid) else { return false };
    let next = if name.kind == RefKind::Object { row.next_object } else { row.next_promise };
    name.side == Side::Import && (1..next).contains(&name.index)
}

fn value(turn: &mut Turn<'_>, rid: RemoteId, value: &CapData<RRef>) -> Result<CapData<KRef>, Fault> {
    value.try_map(|name| translate(turn, rid, *name))
}

fn accept_message(
    turn: &mut Turn<'_>,
    rid: RemoteId,
    target: RRef,
    message: Message<RRef>,
) -> Result<(), Fault> {
    if target.kind == RefKind::Object && target.side == Side::Export {
        return Err(Fault::Poison(format!("{target} is the sender's own object")));
    }
    let target = translate(turn, rid, target)?;
    let methargs = value(turn, rid, &message.methargs)?;
    let result = match message.result {
        None => None,
        Some(name) => Some(accept_result(turn, rid, name)?),
    };
    Ok(queue::enqueue_send(&mut turn.tx, SendItem { target, methargs, result })?)
}

/// The peer's result promise: unresolved, and the peer's to hand over.
fn accept_result(turn: &mut Turn<'_>, rid: RemoteId, name: RRef) -> Result<PromiseId, Fault> {
    let kref = translate(turn, rid, name)?;
    let kp = kref.promise().ok_or_else(|| Fault::Poison(format!("{name} is no promise")))?;
    match &promise::row(&turn.tx, kp)?.state {
        PromiseState::Unresolved { decider, .. }
            if *decider == Some(Decider::Endpoint(EndpointId::Remote(rid))) =>
        {
            if queue::is_result(&turn.tx, kp) {
                return Err(Fault::Poison(format!("{name} is the result of another message")));
            }
            Ok(kp)
        }
        PromiseState::Unresolved { .. } | PromiseState::Fulfilled(_) | PromiseState::Rejected(_) => {
            Err(Fault::Poison(format!("{name} is not the sender's to decide")))
        }
    }
}

fn accept_notify(
    turn: &mut Turn<'_>,
    rid: RemoteId,
    resolutions: Vec<Resolution<RRef>>,
) -> Result<(), Fault> {
    let endpoint = EndpointId::Remote(rid);
    let decider = Decider::Endpoint(endpoint);
    let mut settled = Vec::new();
    for resolution in resolutions {
        let name = resolution.promise;
        let Some(kref) = clist::kref_of(&turn.tx, endpoint, name.into()) else {
            // Not known any more, or never: of the peer's own names nothing is made (03 C-25).
            if name.side == Side::Import && !was_given(turn, rid, name) {
                return Err(Fault::Unknown(name));
            }
            continue;
        };
        let kp = kref.promise().ok_or_else(|| Fault::Poison(format!("{name} is no promise")))?;
        if promise::is_settled(&turn.tx, kp)? {
            continue;
        }
        let value = value(turn, rid, &resolution.value)?;
        settled.push((kp, resolution.rejected, value));
    }
    let peer = turn.tx.get::<Remotes>(&rid).map(|row| row.peer.clone());
    let sent = peer.as_ref().map_or(Seq(0), |peer| facts::session(&turn.tx, peer).sent);
    let keep = peer.is_none_or(|peer| outbox::keeps_names(turn, &peer));
    for (kp, rejected, value) in &settled {
        forget::unsubscribe(turn, *kp, endpoint);
        match promise::settle(turn, *kp, Some(decider), *rejected, value.clone()) {
            Ok(()) => {}
            Err(SettleError::Corrupt(corrupt)) => return Err(corrupt.into()),
            Err(error @ (SettleError::AlreadySettled(_) | SettleError::NotDecider(..))) => {
                return Err(Fault::Poison(error.to_string()));
            }
        }
    }
    if keep {
        for (kp, ..) in settled {
            settled::told(turn, rid, kp, sent);
        }
    } else {
        settled.into_iter().try_for_each(|(kp, ..)| outbox::retire(turn, rid, kp))?;
    }
    Ok(())
}

/// Does something for each object of ours in a GC list, unless the list was written before the peer knew that we had
/// mentioned the object again (03 E.3), or names what the peer does not have (E-18).
fn each_object(
    turn: &mut Turn<'_>,
    rid: RemoteId,
    names: &[RRef],
    ack: Seq,
    mut act: impl FnMut(&mut Turn<'_>, ObjectId) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let endpoint = EndpointId::Remote(rid);
    for name in names {
        let kref = clist::kref_of(&turn.tx, endpoint, (*name).into());
        let entry = kref.and_then(|kref| Some((kref.object()?, clist::entry(&turn.tx, endpoint, kref)?)));
        match entry {
            None => turn.log(LogLevel::Warn, format!("{endpoint} gives up {name}, which it does not have")),
            Some((_, row)) if ack < row.last_mention => {}
            Some((ko, _)) => act(turn, ko)?,
        }
    }
    Ok(())
}

/// Objects of the peer are gone: whoever still holds them holds orphans.
fn accept_gone(turn: &mut Turn<'_>, rid: RemoteId, names: &[RRef]) -> Result<(), Fault> {
    let endpoint = EndpointId::Remote(rid);
    for name in names {
        let ko = clist::kref_of(&turn.tx, endpoint, (*name).into()).and_then(KRef::object);
        let owner = ko.and_then(|ko| turn.tx.get::<Objects>(&ko)).map(|row| row.owner);
        match (ko, owner) {
            (Some(ko), Some(Some(Owner::Endpoint(owner)))) if owner == endpoint => {
                clist::disown(&mut turn.tx, ko)?;
            }
            (Some(_) | None, _) => {
                turn.log(LogLevel::Warn, format!("{endpoint} retires {name}, which it does not own"));
            }
        }
    }
    Ok(())
}
