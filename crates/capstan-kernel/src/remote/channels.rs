//! What is known of open channels: dies with the process, rebuilt from nothing.
//!
//! **Invariant:** at most one channel per peer is bound, and a bound channel carries the name of the session it was
//! bound to; whatever it brings while another session is current is dropped unseen (law L8).

use super::quota::{Lines, NameBudget};
use crate::effect::{Effect, LogLevel, Step};
use capstan_model::peer::{ChannelId, Epoch, Hint, Incarnation, Millis, PeerId, Seq};
use capstan_wire::facts::Facts;
use capstan_wire::seam::LinkOrder;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Alarms kept; more of them say nothing new.
const ALARMS_MAX: usize = 16;

/// What is known of open channels.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Channels {
    pub(super) open: BTreeMap<ChannelId, Channel>,
    /// Our own confirmed listen addresses.
    pub(super) listen: Vec<Hint>,
    /// What the links were last asked for, by peer: whether it was for a send. Only saves repetition.
    pub(super) asked: BTreeMap<PeerId, bool>,
    /// Peers that have closed us by intent, until one of us dials again.
    pub(super) declined: BTreeSet<PeerId>,
    /// What each peer may still introduce.
    pub(super) names: BTreeMap<PeerId, NameBudget>,
    /// What its frames may still say in the log.
    pub(super) lines: Lines,
    /// What somebody must look into, each once.
    pub(super) alarms: Vec<Arc<str>>,
}

/// One channel, from the moment the kernel is asked what to say on it.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Channel {
    pub(super) peer: PeerId,
    pub(super) dialed: bool,
    /// What we said in this exchange.
    pub(super) said: Facts,
    /// Our rows at that moment, whatever generation was spoken.
    pub(super) rows: Facts,
    /// What the peer said, once read.
    pub(super) theirs: Option<Facts>,
    /// The dialler's confirm has been read.
    pub(super) confirmed: bool,
    pub(super) bound: Option<Bound>,
}

/// Names one session: both lives and the epoch (law L8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionName {
    pub(super) ours: Incarnation,
    pub(super) theirs: Incarnation,
    pub(super) epoch: Epoch,
}

/// What a registered channel is doing.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Bound {
    pub(super) name: SessionName,
    /// One of the two ends speaks the classic generation here: one frame at a time, awaited (03 S12).
    pub(super) classic: bool,
    /// The next number to write here.
    pub(super) next: Seq,
    /// The highest acknowledgement written here, or said in the handshake behind everything.
    pub(super) told: Seq,
    /// Numbered frames read since then.
    pub(super) unanswered: u32,
    pub(super) ack_due: Option<Millis>,
    /// Until then only a first helping of frames is written: the responder may still be committing.
    pub(super) helping_until: Option<Millis>,
    pub(super) helped_bytes: usize,
    pub(super) helped_frames: usize,
    /// Classic: the number whose write has not ended.
    pub(super) awaited: Option<Seq>,
    /// Classic: when unacknowledged frames are written again.
    pub(super) resend_at: Option<Millis>,
    /// Classic: how often they were, without an acknowledgement.
    pub(super) retries: u32,
}

impl Bound {
    pub(super) fn new(name: SessionName, classic: bool, next: Seq, told: Seq) -> Self {
        Bound {
            name,
            classic,
            next,
            told,
            unanswered: 0,
            ack_due: None,
            helping_until: None,
            helped_bytes: 0,
            helped_frames: 0,
            awaited: None,
            resend_at: None,
            retries: 0,
        }
    }
}

impl Channels {
    /// Raises an alarm, with a line in the log, unless it was raised already.
    pub(super) fn raise(&mut self, text: String, step: &mut Step) {
        if self.alarms.len() < ALARMS_MAX && !self.alarms.iter().any(|alarm| **alarm == *text) {
            self.alarms.push(text.as_str().into());
            step.effects.push(Effect::Log { level: LogLevel::Error, text });
        }
    }

    /// Returns the channel bound to a session with this peer.
    pub(super) fn bound_to(&self, peer: &PeerId) -> Option<ChannelId> {
        let bound = |channel: &Channel| channel.bound.is_some() && &channel.peer == peer;
        self.open.iter().find(|(_, channel)| bound(channel)).map(|(id, _)| *id)
    }

    pub(super) fn bound_mut(&mut self, channel: ChannelId) -> Option<&mut Bound> {
        self.open.get_mut(&channel)?.bound.as_mut()
    }

    /// Closes every channel to the peer but `keep`, and forgets it: what it still brings is nobody's.
    pub(super) fn close_others(&mut self, peer: &PeerId, keep: ChannelId, reason: &str, step: &mut Step) {
        self.close_where(|id, channel| id != keep && &channel.peer == peer, reason, step);
    }

    /// Closes every channel but `keep`.
    pub(super) fn close_all_but(&mut self, keep: ChannelId, reason: &str, step: &mut Step) {
        self.close_where(|id, _| id != keep, reason, step);
    }

    /// Forgets every channel to the peer; the links close them by another order.
    pub(super) fn forget_peer(&mut self, peer: &PeerId) {
        self.open.retain(|_, channel| &channel.peer != peer);
        self.asked.remove(peer);
        self.declined.remove(peer);
        self.names.remove(peer);
    }

    fn close_where(&mut self, lost: impl Fn(ChannelId, &Channel) -> bool, reason: &str, step: &mut Step) {
        self.open.retain(|id, channel| {
            let lost = lost(*id, channel);
            if lost {
                let order = LinkOrder::CloseChannel { channel: *id, reason: reason.into() };
                step.effects.push(Effect::Link(order));
            }
            !lost
        });
    }
}
