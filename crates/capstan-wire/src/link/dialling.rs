//! Wanting, dialling, trying again, closing by intent.

use super::policy::{HINTS_MAX, delay};
use super::{Action, Links, Peer, Purpose, Stage, terminal};
use crate::seam::LinkEvent;
use capstan_model::peer::{ChannelId, Hint, Millis, PeerId};

impl Links {
    pub(super) fn want(&mut self, peer: PeerId, hints: Vec<Hint>, for_send: bool) {
        if peer == self.own {
            return;
        }
        let known = self.peers.entry(peer.clone()).or_default();
        let news = known.learn(hints);
        if known.closed {
            if for_send {
                self.report(LinkEvent::SendFailed { peer, fault: terminal("IntentionalCloseError") });
            }
            return;
        }
        let fresh = !known.wanted || known.held || known.gave_up;
        known.wanted = true;
        known.held = false;
        if std::mem::take(&mut known.gave_up) {
            known.attempt = 0;
        }
        if fresh || news {
            known.retry_at = None;
            let purpose = if for_send { Purpose::Send } else { Purpose::Reconnect };
            self.dial(&peer, purpose);
        }
    }

    pub(super) fn unwant(&mut self, peer: &PeerId) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.wanted = false;
            known.held = false;
            known.gave_up = false;
            known.retry_at = None;
        }
    }

    pub(super) fn close_peer(&mut self, peer: PeerId) {
        self.unwant(&peer);
        self.peers.entry(peer.clone()).or_default().closed = true;
        self.close_all(&peer, "closed by intent");
    }

    pub(super) fn reopen(&mut self, peer: PeerId, hints: Vec<Hint>) {
        if peer == self.own {
            return;
        }
        let known = self.peers.entry(peer.clone()).or_default();
        known.learn(hints);
        known.closed = false;
        known.held = false;
        known.gave_up = false;
        known.wanted = true;
        known.attempt = 0;
        known.retry_at = None;
        self.dial(&peer, Purpose::Reconnect);
    }

    /// A peer that was given up is wanted again only if somebody still wants it.
    pub(super) fn woke(&mut self, now: Millis) {
        for known in self.peers.values_mut() {
            known.attempt = 0;
            let surrendered = std::mem::take(&mut known.gave_up) && known.wanted;
            if surrendered || known.retry_at.is_some() {
                known.retry_at = Some(now);
            }
        }
    }

    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.close_all(peer, "peer forgotten");
        let Some(known) = self.peers.remove(peer) else { return };
        // A dial in flight still has to be answered: without its entry a second could start beside it.
        if known.dialing.is_some() {
            let fresh = Peer { dialing: known.dialing, ..Peer::default() };
            self.peers.insert(peer.clone(), fresh);
        }
    }

    pub(super) fn hints_seen(&mut self, peer: PeerId, hints: Vec<Hint>) {
        // Strangers are not remembered: their number has no bound.
        if !hints.is_empty()
            && let Some(known) = self.peers.get_mut(&peer)
        {
            known.learn(hints.clone());
            self.report(LinkEvent::HintsLearned { peer, hints });
        }
    }

    pub(super) fn dial_failed(&mut self, peer: &PeerId) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.dialing = None;
        }
    }

    /// Dials unless there is a channel, a dial or a handshake already.
    fn dial(&mut self, peer: &PeerId, purpose: Purpose) {
        if self.occupied(peer) {
            return;
        }
        let Some(known) = self.peers.get_mut(peer) else { return };
        known.attempt = known.attempt.saturating_add(1);
        known.retry_at = None;
        known.dialing = Some(purpose);
        self.actions.push(Action::Dial { peer: peer.clone(), hints: known.hints.clone() });
    }

    /// Whether a channel exists or may be about to. A peer's stream that has said nothing yet does not count.
    fn occupied(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|known| known.dialing.is_some() || known.registered.is_some())
            || self
                .channels
                .values()
                .any(|channel| &channel.peer == peer && channel.stage != Stage::AwaitHello)
    }

    /// Handshakes that ran out of time, and retries that are due.
    pub(super) fn expire(&mut self, now: Millis) {
        let late = |channel: &super::Channel| channel.deadline.is_some_and(|deadline| deadline <= now);
        let overdue: Vec<ChannelId> =
            self.channels.iter().filter(|(_, channel)| late(channel)).map(|(id, _)| *id).collect();
        for channel in overdue {
            self.close(channel, "Handshake read timed out", false);
        }
        let is_due = |peer: &Peer| peer.retry_at.is_some_and(|at| at <= now);
        let due: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| is_due(peer)).map(|(id, _)| id.clone()).collect();
        for peer in due {
            if let Some(known) = self.peers.get_mut(&peer) {
                known.retry_at = None;
            }
            self.dial(&peer, Purpose::Reconnect);
        }
    }

    /// After every input: parked channels go on where nothing is before them any more, and every wanted peer
    /// without a channel has a dial, a handshake or a retry ahead of it.
    pub(super) fn settle(&mut self, now: Millis, chance: u64) {
        self.unpark(now);
        let waiting: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| {
                peer.wanted && !peer.closed && !peer.held && !peer.gave_up && peer.retry_at.is_none()
            })
            .map(|(id, _)| id.clone())
            .collect();
        for peer in waiting {
            if self.occupied(&peer) {
                continue;
            }
            let limit = self.options.max_retry_attempts;
            let Some(known) = self.peers.get_mut(&peer) else { continue };
            if limit != 0 && known.attempt >= limit {
                known.gave_up = true;
                self.report(LinkEvent::GaveUp { peer });
            } else {
                known.retry_at = Some(now.after(delay(&self.options, known.attempt.max(1), chance)));
            }
        }
    }

    pub(super) fn close_all(&mut self, peer: &PeerId, reason: &str) {
        let theirs: Vec<ChannelId> =
            self.channels.iter().filter(|(_, channel)| &channel.peer == peer).map(|(id, _)| *id).collect();
        for channel in theirs {
            self.close(channel, reason, true);
        }
    }
}

impl Peer {
    /// Whether forgetting it would change nothing.
    pub(super) fn is_blank(&self) -> bool {
        let quiet = self.dialing.is_none() && self.registered.is_none() && self.retry_at.is_none();
        quiet && !self.wanted && !self.closed && self.last_incarnation.is_none()
    }

    /// Adds addresses; says whether any was new. The oldest give way.
    fn learn(&mut self, hints: Vec<Hint>) -> bool {
        let before = self.hints.len();
        let mut news = false;
        for hint in hints.into_iter().take(HINTS_MAX) {
            if !self.hints.contains(&hint) {
                self.hints.push(hint);
                news = true;
            }
        }
        let excess = self.hints.len().saturating_sub(HINTS_MAX);
        self.hints.drain(..excess.min(before));
        news
    }
}
