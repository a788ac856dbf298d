//! From an open stream to a registered channel (03 B.3, B.4, D.6).

use super::policy::{
    CROSSING, HANDSHAKES_PER_PEER_MAX, INBOUND_HANDSHAKES_MAX, KEPT_BYTES_MAX, KEPT_FRAMES_MAX,
};
use super::{Action, Channel, Links, Purpose, Stage, terminal};
use crate::decide::channel_verdict;
use crate::facts::Facts;
use crate::handshake::{
    CLOSED, CONFIRM, HandshakeError, HandshakeKind, decode_handshake, encode_handshake, is_closed, is_confirm,
};
use crate::seam::{LinkEvent, Verdict};
use capstan_model::peer::{ChannelId, Millis, PeerId};
use std::collections::VecDeque;
use std::sync::Arc;

impl Links {
    pub(super) fn channel_up(
        &mut self,
        now: Millis,
        channel: ChannelId,
        peer: PeerId,
        dialed: bool,
        reference: bool,
    ) {
        let purpose = match self.peers.get_mut(&peer) {
            Some(known) if dialed => known.dialing.take(),
            Some(_) | None => None,
        };
        let dialed = dialed.then(|| purpose.unwrap_or(Purpose::Reconnect));
        if !self.admits(&peer, dialed.is_some()) {
            if dialed.is_none() && self.peers.get(&peer).is_some_and(|known| known.closed) {
                self.actions.push(Action::Write { channel, texts: vec![CLOSED.into()], token: None });
            }
            self.actions.push(Action::Close { channel, graceful: true });
            // What was dialled in vain for a reason of our own is not held against the peer.
            if let Some(known) = self.peers.get_mut(&peer).filter(|_| dialed.is_some()) {
                known.attempt = known.attempt.saturating_sub(1);
            }
            return;
        }
        if dialed.is_none() {
            self.peer_mut(now, &peer).last_active = now;
        }
        let stage = if dialed.is_some() { Stage::Parked } else { Stage::AwaitHello };
        let deadline = Some(now.after(self.options.handshake_timeout));
        let fresh = Channel {
            peer,
            dialed,
            reference,
            stage,
            announced: false,
            ours_session: false,
            theirs: None,
            note_changed: false,
            confirm_due: false,
            kept: VecDeque::new(),
            kept_bytes: 0,
            deadline,
            registered_at: now,
            last_active: now,
            awaited: VecDeque::new(),
            paced: VecDeque::new(),
        };
        self.channels.insert(channel, fresh);
    }

    /// Whether a new stream may begin its handshake.
    fn admits(&self, peer: &PeerId, dialed: bool) -> bool {
        let known = self.peers.get(peer);
        if self.stopped || peer == &self.own || known.is_some_and(|known| known.closed) {
            return false;
        }
        // A dial is for nothing once a channel is registered (03 B-21), or nobody remembers why it was made.
        if dialed && known.is_none_or(|known| known.registered.is_some()) {
            return false;
        }
        if self.is_full() && known.is_none_or(|known| known.registered.is_none()) {
            return false;
        }
        let young = |channel: &&Channel| channel.stage != Stage::Registered;
        let of_peer = self.channels.values().filter(young).filter(|channel| &channel.peer == peer).count();
        let inbound = self.channels.values().filter(young).filter(|channel| channel.dialed.is_none()).count();
        of_peer < HANDSHAKES_PER_PEER_MAX && (dialed || inbound < INBOUND_HANDSHAKES_MAX)
    }

    pub(super) fn texts_read(&mut self, now: Millis, channel: ChannelId, texts: Vec<Arc<str>>) {
        let Some(open) = self.channels.get_mut(&channel) else { return };
        open.last_active = now;
        if open.stage == Stage::Registered && !open.confirm_due {
            return self.deliver(channel, texts);
        }
        open.kept_bytes = texts.iter().fold(open.kept_bytes, |sum, text| sum.saturating_add(text.len()));
        open.kept.extend(texts);
        // One frame may be as large as the driver lets it; only what piles up behind it is bounded here.
        let too_much =
            open.kept.len() > KEPT_FRAMES_MAX || (open.kept.len() > 1 && open.kept_bytes > KEPT_BYTES_MAX);
        self.advance(now, channel);
        if too_much && self.channels.get(&channel).is_some_and(|open| open.stage != Stage::Registered) {
            self.close(channel, "too many frames before the verdict", false);
        }
    }

    fn deliver(&mut self, channel: ChannelId, mut frames: Vec<Arc<str>>) {
        if let Some(known) = self.channels.get(&channel).and_then(|open| self.peers.get_mut(&open.peer)) {
            known.attempt = 0;
        }
        let closed = frames.last().is_some_and(|text| is_closed(text));
        if closed {
            frames.pop();
        }
        frames.retain(|text| !self.greeted_again(channel, text));
        if !frames.is_empty() {
            self.report(LinkEvent::FramesRead { channel, frames });
        }
        if closed {
            self.declined(channel);
        }
    }

    /// Whether this is the handshake of a classic dialler once more: nothing to act on, and no fault.
    ///
    /// The reference says one for each message of a cold burst, all on one stream, and hears one answer (03 G.2, H1).
    fn greeted_again(&self, channel: ChannelId, text: &str) -> bool {
        let Some(open) = self.channels.get(&channel).filter(|open| open.dialed.is_none()) else {
            return false;
        };
        let Some(theirs) = open.theirs.as_ref().filter(|theirs| theirs.session.is_none()) else {
            return false;
        };
        // Cheaper than reading every frame twice: a message begins with its number.
        text.starts_with(r#"{"method""#) && expect(HandshakeKind::Handshake, text).as_ref() == Ok(theirs)
    }

    /// The peer has closed us by intent.
    fn declined(&mut self, channel: ChannelId) {
        let Some(peer) = self.channels.get(&channel).map(|open| open.peer.clone()) else { return };
        if let Some(known) = self.peers.get_mut(&peer) {
            known.declined = true;
            known.retry_at = None;
        }
        self.close(channel, "the peer has closed the connection by intent", true);
        self.report(LinkEvent::Declined { peer });
    }

    /// Uses kept frames as far as the channel's stage allows.
    fn advance(&mut self, now: Millis, channel: ChannelId) {
        let Some(open) = self.channels.get(&channel) else { return };
        match open.stage {
            Stage::AwaitHello => self.hello(channel),
            Stage::AwaitAck => self.ack(channel),
            Stage::AwaitConfirm => {
                if self.take_confirm(channel) {
                    self.set_stage(channel, Stage::AwaitVerdict, None);
                    self.report(LinkEvent::Confirmed { channel });
                }
            }
            Stage::Registered => {
                if open.confirm_due && !self.take_confirm(channel) {
                    return;
                }
                let Some(open) = self.channels.get_mut(&channel) else { return };
                open.kept_bytes = 0;
                let frames = std::mem::take(&mut open.kept).into();
                self.deliver(channel, frames);
            }
            Stage::Parked => self.start(now, channel),
            Stage::AwaitFacts | Stage::AwaitVerdict => {}
        }
    }

    /// Lets every channel go on that only another one held back.
    pub(super) fn unpark(&mut self, now: Millis) {
        let held: Vec<ChannelId> = self
            .channels
            .iter()
            .filter(|(_, open)| {
                matches!(open.stage, Stage::Parked)
                    || (!open.kept.is_empty() && open.stage != Stage::Registered)
            })
            .map(|(id, _)| *id)
            .collect();
        for channel in held {
            self.advance(now, channel);
        }
    }

    /// Our own dial begins, unless the peer's is under way.
    fn start(&mut self, _now: Millis, channel: ChannelId) {
        let Some(open) = self.channels.get(&channel) else { return };
        let peer = open.peer.clone();
        if self.in_progress(&peer, false).is_none() {
            self.announce(channel, peer, true);
        }
    }

    /// A channel of this peer, dialled by the given side, whose handshake is under way.
    fn in_progress(&self, peer: &PeerId, dialed: bool) -> Option<ChannelId> {
        let busy = |open: &Channel| match open.stage {
            Stage::AwaitFacts | Stage::AwaitAck | Stage::AwaitVerdict | Stage::AwaitConfirm => true,
            Stage::Parked | Stage::AwaitHello | Stage::Registered => false,
        };
        let mine = |open: &Channel| &open.peer == peer && open.dialed.is_some() == dialed && busy(open);
        self.channels.iter().find(|(_, open)| mine(open)).map(|(id, _)| *id)
    }

    fn announce(&mut self, channel: ChannelId, peer: PeerId, dialed: bool) {
        if let Some(open) = self.channels.get_mut(&channel) {
            open.announced = true;
        }
        self.set_stage(channel, Stage::AwaitFacts, None);
        self.report(LinkEvent::FactsWanted { channel, peer, dialed });
    }

    /// The peer's `handshake` is read, if it is its turn.
    fn hello(&mut self, channel: ChannelId) {
        let Some(open) = self.channels.get(&channel) else { return };
        let Some(text) = open.kept.front() else { return };
        let decoded = expect(HandshakeKind::Handshake, text);
        let peer = open.peer.clone();
        let theirs = match decoded {
            Ok(theirs) => theirs,
            Err(reason) => return self.close(channel, &reason, false),
        };
        if self.own < peer {
            if self.in_progress(&peer, true).is_some() {
                return;
            }
            if self.crossed(&peer, channel) {
                return self.close(channel, "crossed a dial of ours", true);
            }
        }
        // The peer dialled again: it has given up the earlier one.
        if let Some(older) = self.in_progress(&peer, false).filter(|older| *older < channel) {
            self.close(older, "replaced by a newer dial of the peer", true);
        }
        self.take_text(channel);
        self.note(channel, theirs);
        self.announce(channel, peer, false);
    }

    /// Whether our own dial was registered so lately that the peer's must have crossed it.
    fn crossed(&self, peer: &PeerId, newer: ChannelId) -> bool {
        let Some(registered) = self.registered(peer).and_then(|id| self.channels.get(&id)) else {
            return false;
        };
        let Some(up) = self.channels.get(&newer).and_then(|open| open.deadline) else { return false };
        let up = up.0.saturating_sub(self.options.handshake_timeout.0);
        registered.dialed.is_some() && up <= registered.registered_at.after(CROSSING).0
    }

    /// The peer's `handshakeAck` is read, if it is its turn.
    fn ack(&mut self, channel: ChannelId) {
        let Some(open) = self.channels.get(&channel) else { return };
        let Some(text) = open.kept.front() else { return };
        if is_closed(text) {
            return self.declined(channel);
        }
        let decoded = expect(HandshakeKind::HandshakeAck, text);
        let peer = open.peer.clone();
        if peer < self.own && self.in_progress(&peer, false).is_some() {
            return;
        }
        match decoded {
            Err(reason) => self.close(channel, &reason, false),
            Ok(theirs) => {
                self.take_text(channel);
                self.note(channel, theirs);
                self.ask(channel);
            }
        }
    }

    fn take_text(&mut self, channel: ChannelId) -> Option<Arc<str>> {
        let open = self.channels.get_mut(&channel)?;
        let text = open.kept.pop_front()?;
        open.kept_bytes = open.kept_bytes.saturating_sub(text.len());
        Some(text)
    }

    /// Compares with the note and updates it, before the kernel is asked (03 D.6).
    fn note(&mut self, channel: ChannelId, theirs: Facts) {
        let Some(open) = self.channels.get_mut(&channel) else { return };
        if let Some(known) = self.peers.get_mut(&open.peer) {
            let before = known.last_incarnation.replace(theirs.incarnation.clone());
            open.note_changed = before.is_some_and(|before| before != theirs.incarnation);
        }
        open.theirs = Some(theirs);
    }

    pub(super) fn greet(&mut self, now: Millis, channel: ChannelId, facts: &Facts) {
        let Some(open) = self.channels.get_mut(&channel).filter(|open| open.stage == Stage::AwaitFacts)
        else {
            return;
        };
        open.ours_session = facts.session.is_some();
        let dialed = open.dialed.is_some();
        let greeting = if dialed { HandshakeKind::Handshake } else { HandshakeKind::HandshakeAck };
        let texts = vec![encode_handshake(greeting, facts).into()];
        self.actions.push(Action::Write { channel, texts, token: None });
        if dialed {
            self.set_stage(channel, Stage::AwaitAck, Some(now.after(self.options.handshake_timeout)));
        } else {
            let open = self.channels.get_mut(&channel);
            if let Some(open) = open.filter(|open| open.is_session()) {
                open.confirm_due = true;
            }
            self.ask(channel);
        }
    }

    fn ask(&mut self, channel: ChannelId) {
        self.set_stage(channel, Stage::AwaitVerdict, None);
        let Some(open) = self.channels.get(&channel) else { return };
        let Some(theirs) = open.theirs.clone() else { return };
        let note_changed = open.note_changed;
        self.report(LinkEvent::HandshakeRead { channel, theirs, note_changed });
    }

    pub(super) fn answer(&mut self, now: Millis, chance: u64, channel: ChannelId, verdict: Verdict) {
        let Some(open) = self.channels.get(&channel).filter(|open| open.stage == Stage::AwaitVerdict) else {
            return;
        };
        let (peer, dialed) = (open.peer.clone(), open.dialed);
        match verdict {
            Verdict::Register if !open.is_session() && channel_verdict(open.note_changed, false) => {
                self.close(channel, "the peer's incarnation changed; a new handshake is needed", true);
            }
            Verdict::Register => self.register(now, channel),
            Verdict::AwaitConfirm if open.confirm_due => {
                self.set_stage(channel, Stage::AwaitConfirm, Some(now.after(self.options.handshake_timeout)));
                self.advance(now, channel);
            }
            Verdict::AwaitConfirm => self.close(channel, "no confirm is due on this channel", true),
            Verdict::Restarted => {
                self.close(channel, "the peer restarted; a new handshake is needed", true);
                if dialed == Some(Purpose::Send) {
                    if let Some(known) = self.peers.get_mut(&peer) {
                        known.held = true;
                        // The dial was answered; only failures count toward back-off.
                        known.attempt = known.attempt.saturating_sub(1);
                    }
                    self.report(LinkEvent::SendFailed { peer, fault: terminal("PeerRestartedError") });
                }
            }
            Verdict::Refuse(reason) => self.close(channel, &reason, true),
        }
        self.settle(now, chance);
    }

    fn register(&mut self, now: Millis, channel: ChannelId) {
        let peer = self.channels.get(&channel).and_then(|open| self.peers.get(&open.peer));
        if self.is_full() && peer.is_some_and(|known| known.registered.is_none()) {
            let limit = self.options.connections_max;
            let reason = format!("Connection limit reached: {limit}/{limit} concurrent connections");
            self.not_an_attempt(channel);
            return self.close(channel, &reason, true);
        }
        let Some(open) = self.channels.get_mut(&channel) else { return };
        open.stage = Stage::Registered;
        open.deadline = None;
        open.registered_at = now;
        let (peer, dialed) = (open.peer.clone(), open.dialed.is_some());
        if dialed && open.is_session() {
            self.actions.push(Action::Write { channel, texts: vec![CONFIRM.into()], token: None });
        }
        let known = self.peer_mut(now, &peer);
        known.retry_at = None;
        known.attempt = 0;
        known.held = false;
        known.gave_up = false;
        known.declined = false;
        known.fault = None;
        known.queued = None;
        known.last_active = now;
        let replaced = known.registered.replace(channel);
        if let Some(older) = replaced.filter(|older| *older != channel) {
            self.close(older, "replaced by a newer channel", true);
        }
        // What our side dialled beside it is for nothing now; so is what waited for our own dial.
        let beside = |id: ChannelId, open: &Channel| {
            id != channel
                && open.peer == peer
                && match open.stage {
                    Stage::Registered => false,
                    Stage::AwaitHello => dialed && !open.kept.is_empty(),
                    Stage::Parked | Stage::AwaitFacts | Stage::AwaitAck => open.dialed.is_some(),
                    Stage::AwaitVerdict | Stage::AwaitConfirm => open.dialed.is_some() != dialed,
                }
        };
        let losers: Vec<ChannelId> =
            self.channels.iter().filter(|(id, open)| beside(**id, open)).map(|(id, _)| *id).collect();
        for loser in losers {
            self.close(loser, "another channel was registered", true);
        }
        self.advance(now, channel);
    }

    /// Whether `confirm` was the first kept frame; another frame in its place ends the channel.
    fn take_confirm(&mut self, channel: ChannelId) -> bool {
        let Some(text) = self.take_text(channel) else { return false };
        if !is_confirm(&text) {
            self.close(channel, "expected confirm", false);
            return false;
        }
        if let Some(open) = self.channels.get_mut(&channel) {
            open.confirm_due = false;
        }
        true
    }

    /// What was dialled in vain for a reason of our own is not held against the peer.
    fn not_an_attempt(&mut self, channel: ChannelId) {
        let Some(open) = self.channels.get(&channel).filter(|open| open.dialed.is_some()) else { return };
        if let Some(known) = self.peers.get_mut(&open.peer) {
            known.attempt = known.attempt.saturating_sub(1);
        }
    }

    fn set_stage(&mut self, channel: ChannelId, stage: Stage, deadline: Option<Millis>) {
        if let Some(open) = self.channels.get_mut(&channel) {
            open.stage = stage;
            open.deadline = deadline;
        }
    }
}

impl Channel {
    /// Whether the other end loses what it would send beyond its own limit, so that we must not ask for much at once.
    pub(super) fn is_paced(&self) -> bool {
        self.reference && !self.is_session()
    }

    /// Whether both sides spoke the session generation.
    pub(super) fn is_session(&self) -> bool {
        self.ours_session && self.theirs.as_ref().is_some_and(|theirs| theirs.session.is_some())
    }
}

/// What a handshake frame of the expected kind says; the error is the text of 03 B-14.
fn expect(kind: HandshakeKind, text: &str) -> Result<Facts, String> {
    let wrong = |got: &str| format!("Expected {}, got: {got}", kind.method());
    match decode_handshake(text) {
        Ok((got, facts)) if got == kind => Ok(facts),
        Ok((got, _)) => Err(wrong(got.method())),
        Err(HandshakeError::NotHandshake(got)) => Err(wrong(&got)),
        Err(error @ (HandshakeError::BadFacts | HandshakeError::TooLong)) => Err(error.to_string()),
    }
}
