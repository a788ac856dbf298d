//! What one peer may cost us (03 G.1, I19): names in our c-list, handshakes in flight, lines in the log, and the records
//! of strangers. What is on its way to a peer is limited in `facts::is_full`.
//!
//! Only counts that die with the process are kept here; they are made again from the rows when they are used up.

use super::channels::Channels;
use super::{facts, forget, restart};
use crate::clist;
use crate::effect::Effect;
use crate::turn::Turn;
use capstan_model::capdata::CapData;
use capstan_model::id::{EndpointId, RemoteId};
use capstan_model::peer::{Millis, PeerId};
use capstan_model::refs::{RRef, RefKind, Side};
use capstan_store::overlay::Tx;
use capstan_store::schema::{ClistByEref, PeerIncarnations, Redemptions, RemoteRow, Remotes, Sessions};
use capstan_wire::frame::Frame;
use std::collections::BTreeMap;

/// Handshakes that may be under way with one peer; an honest one has two, when both dial.
pub(super) const HANDSHAKES_MAX: usize = 8;
/// Lines about one peer's frames in the log, per minute.
const LINES_MAX: u32 = 20;
const MINUTE: Millis = Millis(60_000);
/// Peers whose lines are counted.
const COUNTED_MAX: usize = 1024;

/// What a peer may still introduce before its names are counted again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NameBudget {
    left: u64,
    /// Refused since the last count, which is not repeated for each.
    refused: u64,
    held: u64,
}

impl NameBudget {
    /// Takes what the frame introduces from the budget; `Err`: it would be more than may be, with the number held.
    pub(super) fn take(&mut self, turn: &Turn<'_>, rid: RemoteId, frame: &Frame) -> Result<(), u64> {
        let wanted = introduced(&turn.tx, rid, frame);
        if wanted > self.left {
            // A count is worth its while once per thousandth of what is counted.
            if self.refused > 0 && self.refused <= self.held / 1000 {
                self.refused = self.refused.saturating_add(1);
                return Err(self.held);
            }
            self.held = held(&turn.tx, rid);
            self.left = turn.config.peer_names_max.saturating_sub(self.held);
            self.refused = 0;
            if wanted > self.left || self.left < self.held / 1000 {
                self.left = 0;
                self.refused = 1;
                return Err(self.held);
            }
        }
        self.left = self.left.saturating_sub(wanted);
        Ok(())
    }

    /// Whether a refused call is still told so, which takes a name itself until the peer acknowledges.
    pub(super) fn may_answer(&self, turn: &Turn<'_>) -> bool {
        self.held.saturating_add(self.refused) < turn.config.peer_names_max.saturating_mul(2)
    }
}

/// How many names the frame introduces.
fn introduced(tx: &Tx<'_>, rid: RemoteId, frame: &Frame) -> u64 {
    let is_new = |name: &&RRef| {
        name.side == Side::Export && clist::kref_of(tx, EndpointId::Remote(rid), (**name).into()).is_none()
    };
    let of_value = |value: &CapData<RRef>| value.slots.iter().filter(is_new).count();
    let count = match frame {
        Frame::Message { target, message } => {
            let own = std::iter::once(target).chain(&message.result).filter(is_new).count();
            own.saturating_add(of_value(&message.methargs))
        }
        Frame::Notify(resolutions) => resolutions.iter().map(|told| of_value(&told.value)).sum(),
        Frame::RedeemUrlReply { outcome: Ok(name), .. } => usize::from(is_new(&name)),
        Frame::RedeemUrlReply { outcome: Err(_), .. }
        | Frame::RedeemUrl { .. }
        | Frame::DropExports(_)
        | Frame::RetireExports(_)
        | Frame::RetireImports(_)
        | Frame::BringOutYourDead => 0,
    };
    count as u64
}

/// How many names in its c-list the peer introduced.
fn held(tx: &Tx<'_>, rid: RemoteId) -> u64 {
    let of_kind = |kind| {
        let name = |index| RRef { kind, side: Side::Export, index };
        let all = (rid.into(), name(0).into())..=(rid.into(), name(u64::MAX).into());
        tx.range::<ClistByEref>(all).count() as u64
    };
    of_kind(RefKind::Object).saturating_add(of_kind(RefKind::Promise))
}

/// Whether the peer may begin one more handshake.
pub(super) fn may_shake_hands(channels: &Channels, peer: &PeerId) -> bool {
    let under_way = |open: &&super::channels::Channel| open.bound.is_none() && &open.peer == peer;
    channels.open.values().filter(under_way).count() < HANDSHAKES_MAX
}

/// Lines about peers' frames in the log of this minute.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines(BTreeMap<PeerId, (Millis, u32)>);

impl Lines {
    /// Removes from `effects`, from `first` on, the lines beyond what one peer's frames may cause in a minute.
    pub(super) fn limit(&mut self, peer: &PeerId, now: Millis, effects: &mut Vec<Effect>, first: usize) {
        let logged = |effect: &Effect| matches!(effect, Effect::Log { .. });
        if !effects.iter().skip(first).any(logged) {
            return;
        }
        // The clock may have been set back.
        let over = |since: Millis| now.0.abs_diff(since.0) >= MINUTE.0;
        if self.0.len() >= COUNTED_MAX {
            self.0.retain(|_, (since, _)| !over(*since));
        }
        let (since, count) = self.0.entry(peer.clone()).or_insert((now, 0));
        if over(*since) {
            (*since, *count) = (now, 0);
        }
        let later = effects.split_off(first);
        for effect in later {
            let Effect::Log { level, text } = effect else {
                effects.push(effect);
                continue;
            };
            *count = count.saturating_add(1);
            if *count < LINES_MAX {
                effects.push(Effect::Log { level, text });
            } else if *count == LINES_MAX {
                let text =
                    format!("{text} (more about frames of {} is not logged for a minute)", peer.short());
                effects.push(Effect::Log { level, text });
            }
        }
    }
}

/// Makes room for the record of a life of a peer that has no remote: of those the oldest are forgotten.
pub(super) fn make_room_for_stranger(turn: &mut Turn<'_>, peer: &PeerId) {
    if facts::remote_of(&turn.tx, peer).is_some() || turn.tx.get::<PeerIncarnations>(peer).is_some() {
        return;
    }
    let rows = turn.tx.iter::<PeerIncarnations>();
    let strangers = rows.filter(|(whose, _)| facts::remote_of(&turn.tx, whose).is_none());
    let mut strangers: Vec<(Millis, PeerId)> =
        strangers.map(|(whose, row)| (row.seen, whose.clone())).collect();
    if strangers.len() < turn.config.strangers_max {
        return;
    }
    strangers.sort();
    let surplus = strangers.len().saturating_sub(turn.config.strangers_max).saturating_add(1);
    for (_, oldest) in strangers.into_iter().take(surplus) {
        turn.tx.delete::<PeerIncarnations>(&oldest);
        turn.tx.delete::<Sessions>(&oldest);
    }
}

/// Makes room for the remote of a stranger: where there are as many as may be, that of the peer we have known longest
/// among those with whom nothing is shared is forgotten. `false`: there is none.
pub(super) fn make_room_for_remote(turn: &mut Turn<'_>) -> bool {
    if turn.tx.iter::<Remotes>().count() < turn.config.peers_max {
        return true;
    }
    let idle = turn.tx.iter::<Remotes>().filter(|(rid, row)| shares_nothing(&turn.tx, **rid, row));
    let known = |peer: &PeerId| turn.tx.get::<PeerIncarnations>(peer).map(|row| row.seen);
    let oldest = idle.map(|(rid, row)| (known(&row.peer), *rid, row.peer.clone())).min();
    let Some((_, rid, peer)) = oldest else { return false };
    restart::clear_sequence(turn, Some(rid), &peer);
    forget::delete_remote_info(turn, rid);
    turn.tx.delete::<Sessions>(&peer);
    true
}

fn shares_nothing(tx: &Tx<'_>, rid: RemoteId, row: &RemoteRow) -> bool {
    let empty = clist::is_empty(tx, rid.into());
    empty && !row.closed && !tx.iter::<Redemptions>().any(|(_, redemption)| redemption.remote == rid)
}
