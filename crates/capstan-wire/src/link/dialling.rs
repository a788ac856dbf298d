//! Wanting, dialling, trying again, closing by intent.

use super::fault::DialFault;
use super::policy::{HINTS_MAX, HOPELESS_PAUSE, REFUSALS_DOWN, delay};
use super::{Action, Links, Peer, Purpose, Stage, terminal};
use crate::handshake::CLOSED;
use crate::seam::{LinkEvent, SendFault};
use capstan_model::peer::{ChannelId, Hint, Millis, PeerId};

impl Links {
    /// What is remembered of a peer, from now on.
    pub(super) fn peer_mut(&mut self, now: Millis, peer: &PeerId) -> &mut Peer {
        let fresh = || Peer { last_active: now, ..Peer::default() };
        self.peers.entry(peer.clone()).or_insert_with(fresh)
    }

    pub(super) fn want(&mut self, now: Millis, peer: PeerId, hints: Vec<Hint>, for_send: bool) {
        if peer == self.own {
            return;
        }
        let known = self.peer_mut(now, &peer);
        known.last_active = now;
        let news = known.learn(hints);
        let refused = known.closed || known.declined;
        if refused && for_send {
            let fault = if known.closed {
                terminal("IntentionalCloseError")
            } else {
                SendFault::Transient("the peer has closed the connection by intent".to_owned())
            };
            self.report(LinkEvent::SendFailed { peer: peer.clone(), fault });
        }
        let known = self.peer_mut(now, &peer);
        if known.closed {
            return;
        }
        let fresh = !known.wanted || known.held || known.gave_up;
        known.wanted = true;
        known.held = false;
        if std::mem::take(&mut known.gave_up) {
            known.attempt = 0;
            known.fault = None;
        }
        if fresh || news {
            known.retry_at = None;
            let purpose = if for_send { Purpose::Send } else { Purpose::Reconnect };
            self.dial(now, &peer, purpose);
        }
    }

    /// The peer may wait for us: one dial, and no more if nothing comes of it.
    pub(super) fn knock(&mut self, now: Millis, peer: PeerId, hints: Vec<Hint>) {
        if peer == self.own {
            return;
        }
        self.peer_mut(now, &peer).learn(hints);
        self.dial(now, &peer, Purpose::Reconnect);
    }

    pub(super) fn unwant(&mut self, peer: &PeerId) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.wanted = false;
            known.held = false;
            known.gave_up = false;
            known.retry_at = None;
            known.queued = None;
        }
    }

    /// A peer of the session generation is told, so that it does not dial in vain.
    pub(super) fn close_peer(&mut self, now: Millis, peer: PeerId) {
        self.unwant(&peer);
        self.peer_mut(now, &peer).closed = true;
        let registered = self.registered(&peer);
        if let Some(channel) =
            registered.filter(|id| self.channels.get(id).is_some_and(super::Channel::is_session))
        {
            self.actions.push(Action::Write { channel, texts: vec![CLOSED.into()], token: None });
        }
        self.close_all(&peer, "closed by intent");
    }

    pub(super) fn reopen(&mut self, now: Millis, peer: PeerId, hints: Vec<Hint>) {
        if peer == self.own {
            return;
        }
        let known = self.peer_mut(now, &peer);
        known.learn(hints);
        known.closed = false;
        known.declined = false;
        known.held = false;
        known.gave_up = false;
        known.wanted = true;
        known.attempt = 0;
        known.fault = None;
        known.retry_at = None;
        self.dial(now, &peer, Purpose::Reconnect);
    }

    /// A peer that was given up is wanted again only if somebody still wants it.
    pub(super) fn woke(&mut self, now: Millis) {
        for known in self.peers.values_mut() {
            known.attempt = 0;
            known.fault = None;
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

    pub(super) fn hints_seen(&mut self, now: Millis, peer: PeerId, hints: Vec<Hint>) {
        // Strangers are not remembered: their number has no bound.
        if !hints.is_empty()
            && let Some(known) = self.peers.get_mut(&peer)
        {
            let news = known.learn(hints.clone());
            if news && known.is_hopeless() && known.retry_at.is_some() {
                known.retry_at = Some(now);
            }
            self.report(LinkEvent::HintsLearned { peer, hints });
        }
    }

    /// Refusals are counted for as long as they are the same: from the fifth in a row the peer is taken to be down,
    /// which is told once. That ends nothing, since it may be starting again (03 B-44).
    pub(super) fn dial_failed(&mut self, peer: &PeerId, fault: &DialFault) {
        let Some(known) = self.peers.get_mut(peer) else { return };
        known.dialing = None;
        let again = known.fault.replace(fault.code) == Some(fault.code);
        known.faults = if again { known.faults.saturating_add(1) } else { 1 };
        let down = fault.code.is_refusal() && known.faults == REFUSALS_DOWN;
        let hopeless = !fault.code.is_retryable() && known.faults == 1;
        if known.wanted && (down || hopeless) {
            let fault = SendFault::Transient(fault.to_string());
            self.report(LinkEvent::SendFailed { peer: peer.clone(), fault });
        }
        self.forget_blank(peer);
    }

    /// Dials unless there is a channel, a dial or a handshake already. Our own limits make it wait, and are not
    /// counted as an attempt.
    pub(super) fn dial(&mut self, now: Millis, peer: &PeerId, purpose: Purpose) {
        if self.occupied(peer) {
            return;
        }
        let room = self.has_room();
        let limit = self.options.connections_max;
        let fresh_limiter = self.dial_limiter();
        let Some(known) = self.peers.get_mut(peer).filter(|known| !known.closed && !known.declined) else {
            return;
        };
        known.retry_at = None;
        if !room {
            if known.queued.replace(purpose).is_none() {
                self.room.push_back(peer.clone());
                if purpose == Purpose::Send {
                    let text = format!("Connection limit reached: {limit}/{limit} concurrent connections");
                    self.report(LinkEvent::SendFailed {
                        peer: peer.clone(),
                        fault: SendFault::Transient(text),
                    });
                }
            }
            return;
        }
        known.queued = None;
        if let Err(too_fast) = known.dials.get_or_insert(fresh_limiter).allow(now) {
            known.retry_at = Some(too_fast.until);
            return;
        }
        known.attempt = known.attempt.saturating_add(1);
        known.dialing = Some(purpose);
        self.actions.push(Action::Dial { peer: peer.clone(), hints: known.hints.clone() });
    }

    /// Whether a channel exists or may be about to. A peer's stream that has said nothing yet does not count.
    pub(super) fn occupied(&self, peer: &PeerId) -> bool {
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
        self.end_silence(now);
        self.release_paced(now);
        let is_due = |peer: &Peer| peer.retry_at.is_some_and(|at| at <= now);
        let due: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| is_due(peer)).map(|(id, _)| id.clone()).collect();
        for peer in due {
            if let Some(known) = self.peers.get_mut(&peer) {
                known.retry_at = None;
                known.declined = false;
            }
            self.dial(now, &peer, Purpose::Reconnect);
        }
        self.forget_stale(now);
    }

    /// After every input: parked channels go on where nothing is before them any more, and every wanted peer
    /// without a channel has a dial, a handshake or a retry ahead of it.
    pub(super) fn settle(&mut self, now: Millis, chance: u64) {
        self.unpark(now);
        self.fill_room(now);
        let waiting: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| peer.is_waiting()).map(|(id, _)| id.clone()).collect();
        for peer in waiting {
            if self.occupied(&peer) {
                continue;
            }
            let limit = self.options.max_retry_attempts;
            let Some(known) = self.peers.get_mut(&peer) else { continue };
            if limit != 0 && (known.attempt >= limit || known.is_hopeless()) {
                known.gave_up = true;
                self.report(LinkEvent::GaveUp { peer });
            } else {
                let attempt = if known.is_down() { u32::MAX } else { known.attempt.max(1) };
                let pause = delay(&self.options, attempt, chance);
                let seldom = known.is_hopeless() || known.declined;
                let pause = if seldom { pause.max(HOPELESS_PAUSE) } else { pause };
                known.retry_at = Some(now.after(pause));
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
    /// Whether it is to be dialled, and nothing is planned yet.
    fn is_waiting(&self) -> bool {
        let refused = self.closed || self.held || self.gave_up;
        self.wanted && !refused && self.retry_at.is_none() && self.queued.is_none()
    }

    /// Whether it has refused often enough to be taken for down.
    fn is_down(&self) -> bool {
        self.fault.is_some_and(super::FaultCode::is_refusal) && self.faults >= REFUSALS_DOWN
    }

    /// Whether the last dial failed for a reason that trying again will hardly mend.
    fn is_hopeless(&self) -> bool {
        self.fault.is_some_and(|fault| !fault.is_retryable())
    }

    /// Whether forgetting it would change nothing.
    pub(super) fn is_blank(&self) -> bool {
        let quiet = self.dialing.is_none() && self.registered.is_none() && self.retry_at.is_none();
        quiet && !self.wanted && !self.closed && !self.declined && self.last_incarnation.is_none()
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
