//! Our own limits, and the end of what is silent or forgotten: how many channels, how fast, how long (03 B-7, B-36,
//! B-46). Whatever a limit holds back waits here; nothing is dropped by one.

use super::policy::{CLASSIC_BURST, CLASSIC_FRAMES_PER_SECOND, INACTIVITY_MIN};
use super::rate::{MINUTE, SECOND, TokenBucket};
use super::{Action, Channel, Links, Peer, RateLimiter, Stage, WriteToken};
use capstan_model::peer::{ChannelId, Millis, PeerId};
use std::sync::Arc;

impl Links {
    pub(super) fn dial_limiter(&self) -> RateLimiter {
        RateLimiter::new("connectionRate", self.options.dials_per_minute, MINUTE)
    }

    fn in_use(&self) -> usize {
        self.channels.values().filter(|open| open.stage == Stage::Registered).count()
    }

    /// Whether no further channel may come into use.
    pub(super) fn is_full(&self) -> bool {
        self.in_use() >= self.options.connections_max
    }

    /// Whether one more may be dialled: what we dial already counts as if it were in use.
    pub(super) fn has_room(&self) -> bool {
        let dialled = |open: &&Channel| open.dialed.is_some() || open.stage == Stage::Registered;
        let dialing = self.peers.values().filter(|peer| peer.dialing.is_some()).count();
        self.channels.values().filter(dialled).count() + dialing < self.options.connections_max
    }

    /// Dials those who waited, as far as there is room. The channel that has been silent longest, of those we do not
    /// need, makes room.
    pub(super) fn fill_room(&mut self, now: Millis) {
        while let Some(peer) = self.room.front().cloned() {
            let purpose = self.peers.get(&peer).filter(|known| known.wanted).and_then(|known| known.queued);
            let Some(purpose) = purpose else {
                self.leave_queue(&peer);
                continue;
            };
            if !self.has_room() {
                let spare = self.spare().filter(|(at, _)| *at <= now);
                let Some((_, spare)) = spare else { return };
                self.close(spare, "another peer needs the room", true);
            }
            self.leave_queue(&peer);
            self.dial(now, &peer, purpose);
        }
    }

    fn leave_queue(&mut self, peer: &PeerId) {
        self.room.retain(|other| other != peer);
        if let Some(known) = self.peers.get_mut(peer) {
            known.queued = None;
        }
    }

    /// The channel that can be spared first, and from when on.
    fn spare(&self) -> Option<(Millis, ChannelId)> {
        let spare = |open: &&Channel| {
            open.stage == Stage::Registered && self.peers.get(&open.peer).is_some_and(|known| !known.wanted)
        };
        let in_use = self.channels.iter().filter(|(_, open)| spare(open));
        in_use.map(|(id, open)| (open.last_active.after(INACTIVITY_MIN), *id)).min()
    }

    pub(super) fn alive(&mut self, now: Millis, peer: &PeerId) {
        for open in self.channels.values_mut().filter(|open| &open.peer == peer) {
            open.last_active = now;
        }
    }

    /// When something is to be done about a channel: a step of its handshake is late, the rate limit lets something
    /// go, or others may have its room.
    pub(super) fn channel_deadline(&self, open: &Channel) -> Option<Millis> {
        if open.stage != Stage::Registered {
            return open.deadline;
        }
        let paced = open.paced.front().and_then(|_| {
            let known = self.peers.get(&open.peer)?;
            let limited = known.messages.as_ref().map(|limiter| limiter.next(open.last_active));
            let paced = known.classic.as_ref().filter(|_| open.is_paced());
            limited.max(paced.map(TokenBucket::due))
        });
        let spared = (!self.room.is_empty()).then(|| open.last_active.after(INACTIVITY_MIN));
        let spared = spared.filter(|_| self.peers.get(&open.peer).is_some_and(|known| !known.wanted));
        paced.into_iter().chain(spared).min()
    }

    /// Ends channels on which neither side has said anything for too long.
    pub(super) fn end_silence(&mut self, now: Millis) {
        let limit = self.options.silence_max();
        let silent = |open: &Channel| open.stage == Stage::Registered && open.last_active.after(limit) <= now;
        let silent: Vec<ChannelId> =
            self.channels.iter().filter(|(_, open)| silent(open)).map(|(id, _)| *id).collect();
        for channel in silent {
            self.close(channel, &format!("silent for {}ms", limit.0), false);
        }
    }

    /// When a peer may be forgotten: never while it has a channel, is wanted, or one of us has closed the other.
    pub(super) fn stale_at(&self, known: &Peer) -> Option<Millis> {
        let busy = known.dialing.is_some() || known.registered.is_some();
        let kept = (known.wanted && !known.gave_up) || known.closed || known.declined;
        (!busy && !kept).then(|| known.last_active.after(self.options.stale_timeout))
    }

    pub(super) fn forget_stale(&mut self, now: Millis) {
        let stale = |known: &Peer| self.stale_at(known).is_some_and(|at| at <= now);
        let stale: Vec<PeerId> =
            self.peers.iter().filter(|(_, known)| stale(known)).map(|(id, _)| id.clone()).collect();
        for peer in stale.iter().filter(|peer| self.channels.values().all(|open| open.peer != **peer)) {
            self.peers.remove(peer);
        }
    }

    /// Writes frames on a registered channel, at once or as the rate limits allow. A peer of the reference always has one.
    pub(super) fn send(
        &mut self,
        now: Millis,
        channel: ChannelId,
        texts: Vec<Arc<str>>,
        token: Option<WriteToken>,
    ) {
        let limit = self.options.messages_per_second;
        let Some(open) = self.channels.get_mut(&channel) else { return };
        if open.stage != Stage::Registered || texts.is_empty() {
            return;
        }
        open.last_active = now;
        open.awaited.extend(token);
        if limit.is_none() && !open.is_paced() {
            self.actions.push(Action::Write { channel, texts, token });
            return;
        }
        let last = texts.len().saturating_sub(1);
        let texts = texts.into_iter().enumerate();
        open.paced.extend(texts.map(|(at, text)| (text, token.filter(|_| at == last))));
        self.release_paced(now);
    }

    /// Writes what waited for a rate limit, as far as it allows.
    pub(super) fn release_paced(&mut self, now: Millis) {
        let limit = self.options.messages_per_second;
        for (id, open) in self.channels.iter_mut().filter(|(_, open)| !open.paced.is_empty()) {
            let Some(known) = self.peers.get_mut(&open.peer) else { continue };
            let mut limiter = limit.map(|limit| {
                known.messages.get_or_insert_with(|| RateLimiter::new("messageRate", limit, SECOND))
            });
            let mut bucket = open.is_paced().then(|| {
                let fresh = || TokenBucket::new(CLASSIC_FRAMES_PER_SECOND, CLASSIC_BURST);
                known.classic.get_or_insert_with(fresh)
            });
            let mut may_go = || {
                bucket.as_ref().is_none_or(|bucket| bucket.has_one(now))
                    && limiter.as_mut().is_none_or(|limiter| limiter.allow(now).is_ok())
                    && bucket.as_mut().is_none_or(|bucket| bucket.take(now))
            };
            let mut texts = Vec::new();
            while !open.paced.is_empty() && may_go() {
                let Some((text, token)) = open.paced.pop_front() else { break };
                texts.push(text);
                if token.is_some() || open.paced.is_empty() {
                    let texts = std::mem::take(&mut texts);
                    self.actions.push(Action::Write { channel: *id, texts, token });
                }
            }
            if !texts.is_empty() {
                self.actions.push(Action::Write { channel: *id, texts, token: None });
            }
        }
    }
}
