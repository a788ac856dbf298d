//! Remote communications inside the core: sessions as rows, outbox, receive, the handshake's consequence,
//! redemption, restart (03 A, C, D). The pure rules are in `capstan-wire`; here they meet transactions.
//!
//! **Invariant:** nothing here knows a socket or a multiaddr; a channel is a number, a hint an opaque text.

mod channels;
mod facts;
mod forget;
mod fork;
mod handshake;
mod outbox;
mod quota;
mod receive;
mod redeem;
mod relays;
mod restart;
mod sending;
mod settled;
#[cfg(test)]
mod tests;
mod unconfirmed;

use crate::effect::{Effect, LogLevel, Step};
use crate::fault::Corrupt;
use crate::host_op::{HostOp, RemoteView};
use crate::input::Input;
use crate::kernel::KernelConfig;
use crate::turn::{Turn, transact};
use capstan_model::id::{ObjectId, PromiseId, RemoteId};
use capstan_model::peer::{ChannelId, Hint, Incarnation, Millis, PeerId};
use capstan_store::overlay::Db;
use capstan_store::schema::{Remotes, RemotesByPeer, SendItem};
use capstan_wire::seam::{LinkEvent, LinkOrder};
use std::collections::BTreeSet;

pub(crate) use channels::Channels;
pub(crate) use facts::is_full;
pub(crate) use forget::{peer_close, peer_forget, peer_hint, peer_reconnect};
pub(crate) use redeem::{grants, issue_url, redeem_url, redemption_abandoned, revoke_url};
pub(crate) use relays::{given as give_relays, url_hints};
pub(crate) use settled::age as age_settled_names;

/// One delivery to a peer, in kernel terms.
#[derive(Clone, Debug)]
pub(crate) enum RemoteDelivery {
    /// A message; its result's decider is the remote already.
    Message(SendItem),
    /// These settled promises, as one batch (02 §4.2).
    Notify(Vec<PromiseId>),
    /// We no longer reach these objects of the peer's.
    DropExports(Vec<ObjectId>),
    /// We no longer recognise these objects of the peer's.
    RetireExports(Vec<ObjectId>),
    /// These objects, which the peer imports, are gone.
    RetireImports(Vec<ObjectId>),
    /// Collect your garbage toward us.
    BringOutYourDead,
}

/// What became of a delivery to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// It is in the outbox.
    Queued,
    /// It cannot be said to this peer, with the reason: its result is rejected `DELIVERY_FAILED`.
    Refused(String),
}

/// Translates a delivery and appends it to the outbox. Never waits for the network.
///
/// Only says it to the peer: what a GC delivery means for our own rows (03 E-5) is the caller's, afterwards, since the
/// names are looked up here. Names without an entry are left out.
pub(crate) fn deliver(
    turn: &mut Turn<'_>,
    rid: RemoteId,
    delivery: RemoteDelivery,
) -> Result<Delivered, Corrupt> {
    outbox::deliver(turn, rid, delivery)
}

/// Handles one fact from the links, each frame in a transaction of its own.
pub(crate) fn link_event(
    db: &mut Db,
    channels: &mut Channels,
    config: &KernelConfig,
    now: Millis,
    event: LinkEvent,
    fresh: Incarnation,
    step: &mut Step,
) {
    match event {
        LinkEvent::FactsWanted { channel, peer, dialed } => {
            channels.declined.remove(&peer);
            handshake::facts_wanted(db, channels, config, channel, peer, dialed, step);
        }
        LinkEvent::HandshakeRead { channel, theirs, note_changed } => {
            if let Some(open) = channels.open.get_mut(&channel) {
                if note_changed {
                    let text = format!("peer {} shows another incarnation", open.peer.short());
                    step.effects.push(Effect::Log { level: LogLevel::Info, text });
                }
                open.theirs = Some(theirs);
                handshake::conclude(db, channels, config, now, channel, fresh, step);
            }
        }
        LinkEvent::Confirmed { channel } => {
            if let Some(open) = channels.open.get_mut(&channel) {
                open.confirmed = true;
                handshake::conclude(db, channels, config, now, channel, fresh, step);
            }
        }
        LinkEvent::FramesRead { channel, frames } => {
            receive::frames_read(db, channels, config, now, channel, frames, step);
        }
        LinkEvent::Sent { channel, seq, outcome } => {
            if let Some((peer, fault)) = sending::sent(channels, channel, seq, outcome, step) {
                sending::send_failed(db, channels, config, now, &peer, &fault, step);
            }
        }
        LinkEvent::SendFailed { peer, fault } => {
            sending::send_failed(db, channels, config, now, &peer, &fault, step);
        }
        LinkEvent::ChannelClosed { channel, .. } => sending::channel_closed(db, channels, channel, step),
        LinkEvent::Declined { peer } => {
            // Strangers are not remembered.
            if db.get::<RemotesByPeer>(&peer).is_some() {
                channels.declined.insert(peer);
            }
        }
        LinkEvent::GaveUp { peer } => sending::gave_up(db, channels, config, now, &peer, None, step),
        LinkEvent::HintsLearned { peer, hints } => {
            let item = || format!("addresses of {peer}");
            let _set_aside = transact(db, config, now, step, item, |turn| {
                if let Some(rid) = facts::remote_of(&turn.tx, &peer) {
                    facts::learn(turn, rid, &hints);
                }
                Ok(())
            });
        }
        LinkEvent::Listening { addresses } => channels.listen = addresses,
        LinkEvent::Restarted => {
            channels.open.clear();
            channels.asked.clear();
            channels.declined.clear();
            standing_orders(db, channels, step);
        }
    }
}

/// Does what is due: acknowledgements, retransmissions to classic peers, redemption deadlines.
pub(crate) fn time_came(
    db: &mut Db,
    channels: &mut Channels,
    config: &KernelConfig,
    now: Millis,
    step: &mut Step,
) {
    sending::time_came(db, channels, config, now, step);
}

/// Returns when [`time_came`] next has something to do.
pub(crate) fn next_deadline(db: &Db, channels: &Channels) -> Option<Millis> {
    sending::next_deadline(db, channels)
}

/// At the start of a life: forgets redemptions of dead waiters, asks for every wanted link.
pub(crate) fn boot(
    db: &mut Db,
    channels: &mut Channels,
    config: &KernelConfig,
    now: Millis,
    step: &mut Step,
) {
    let item = || "redemptions of a dead process".to_owned();
    let _set_aside = transact(db, config, now, step, item, redeem::forget_all);
    let item = || "what a restored state shared with peers".to_owned();
    let _set_aside = transact(db, config, now, step, item, fork::at_boot);
    relays::at_start(db, config, now, step);
    standing_orders(db, channels, step);
}

/// What links without any memory have to know: who is closed by intent, and who is wanted.
fn standing_orders(db: &mut Db, channels: &mut Channels, step: &mut Step) {
    relays::use_all(db, step);
    for (rid, peer) in facts::remotes(db) {
        let tx = db.begin();
        let Some(row) = tx.get::<Remotes>(&rid) else { continue };
        if row.closed {
            step.effects.push(Effect::Link(LinkOrder::ClosePeer { peer }));
        } else if outbox::wanted(&tx, rid) {
            let for_send = outbox::pending(&tx, rid);
            channels.asked.insert(peer.clone(), for_send);
            step.effects.push(Effect::Link(LinkOrder::Want { peer, hints: row.hints.clone(), for_send }));
        } else if outbox::is_held(&tx, rid) {
            // It may have waited for our return, and need not find out by its own next attempt.
            step.effects.push(Effect::Link(LinkOrder::Knock { peer, hints: row.hints.clone() }));
        }
    }
}

/// Releases what we had exported to lives that are gone (03 D-9).
pub(crate) fn release_unconfirmed(db: &mut Db, config: &KernelConfig, now: Millis, step: &mut Step) {
    while unconfirmed::release(db, config, now, step) {}
}

/// Which channels an input may have given something to do. With hundreds of peers, looking at all of them after every
/// step would take longer than the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Any.
    All,
    /// Those of peers whose sequence row was written, and this one.
    Changed(Option<ChannelId>),
}

impl Reach {
    /// Only the inputs of which there are many are known not to reach further than the rows they write.
    pub(crate) fn of(input: &Input) -> Reach {
        match input {
            Input::Link {
                event: LinkEvent::FramesRead { channel, .. } | LinkEvent::Sent { channel, .. },
                ..
            } => Reach::Changed(Some(*channel)),
            Input::Requested {
                op: HostOp::Send { .. } | HostOp::IssueUrl { .. } | HostOp::RedeemUrl { .. },
                ..
            }
            | Input::VatReplied { .. }
            | Input::VatWoken { .. }
            | Input::ServiceReplied { .. }
            | Input::RequestAbandoned { .. } => Reach::Changed(None),
            Input::Booted
            | Input::Requested { .. }
            | Input::VatStarted { .. }
            | Input::VatDied { .. }
            | Input::Link { .. }
            | Input::Woke
            | Input::TimeCame => Reach::All,
        }
    }
}

/// At the end of every step: hands newly written outbox rows to registered channels, asks for links that are wanted.
pub(crate) fn transmit(
    db: &mut Db,
    channels: &mut Channels,
    config: &KernelConfig,
    now: Millis,
    reach: Reach,
    step: &mut Step,
) {
    sending::transmit(db, channels, config, now, reach, step);
}

/// Lists the remotes.
pub(crate) fn remotes(db: &Db, channels: &Channels) -> Vec<RemoteView> {
    let view = |(rid, row): (&RemoteId, &capstan_store::schema::RemoteRow)| {
        let session = db.get::<capstan_store::schema::Sessions>(&row.peer);
        let session = session.cloned().unwrap_or_else(facts::blank_session);
        let life = db.get::<capstan_store::schema::PeerIncarnations>(&row.peer);
        let open = channels.open.values().any(|channel| channel.peer == row.peer);
        let state = if row.closed {
            "closed"
        } else if channels.bound_to(&row.peer).is_some() {
            "connected"
        } else if channels.declined.contains(&row.peer) {
            "closed"
        } else if open || channels.asked.contains_key(&row.peer) {
            "connecting"
        } else {
            "disconnected"
        };
        let acked = session.una.0.saturating_sub(1);
        RemoteView {
            remote: *rid,
            peer: row.peer.clone(),
            state: state.into(),
            peer_incarnation: life.and_then(|row| row.incarnation.clone()),
            restarts_seen: row.restarts_seen,
            sent: session.sent,
            acked: capstan_model::peer::Seq(acked),
            received: session.recv,
            pending: session.sent.0.saturating_sub(acked),
            hints: row.hints.clone(),
        }
    };
    db.iter::<Remotes>().map(view).collect()
}

/// Every peer that a row or a channel speaks of.
pub(crate) fn known_peers(db: &Db, channels: &Channels) -> BTreeSet<PeerId> {
    let rows = db.iter::<Remotes>().map(|(_, row)| row.peer.clone());
    rows.chain(channels.open.values().map(|channel| channel.peer.clone())).collect()
}

/// Ends every link, and all memory of the peers in it: the rows are gone.
pub(crate) fn forget_everyone(channels: &mut Channels, peers: BTreeSet<PeerId>, step: &mut Step) {
    for peer in peers {
        channels.forget_peer(&peer);
        step.effects.push(Effect::Link(LinkOrder::ForgetPeer { peer }));
    }
}

/// Returns what somebody must look into.
pub(crate) fn alarms(channels: &Channels) -> Vec<std::sync::Arc<str>> {
    channels.alarms.clone()
}

/// Returns our own confirmed listen addresses.
pub(crate) fn listening(channels: &Channels) -> Vec<Hint> {
    channels.listen.clone()
}
