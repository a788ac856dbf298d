//! What must hold after every batch and every frame, judged from what became durable and what was written.

use super::agent::{DID, LOST, WRONG};
use crate::node::Mark;
use crate::world::{KernelId, Record};
use capstan_model::id::RemoteId;
use capstan_model::peer::{Digest, Epoch, Incarnation, PeerId, Seq};
use capstan_store::schema::{ChangeSet, OutboxRow, QueueItem, SessionRow};
use capstan_wire::window::digest_extend;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What was found wrong, in words.
pub(super) type Wrong = String;

/// The rows of one disk that say what was sent and received.
#[derive(Debug, Default)]
struct Mirror {
    own: Option<Incarnation>,
    remotes: BTreeMap<RemoteId, PeerId>,
    sessions: BTreeMap<PeerId, SessionRow>,
    lives: BTreeMap<PeerId, Option<Incarnation>>,
    outbox: BTreeMap<(RemoteId, Seq), OutboxRow>,
}

/// A frame that was once durable at its sender; its digest covers all before it.
#[derive(Debug)]
struct Sent {
    seq: Seq,
    before: Digest,
    /// By which lives it was sent, and to which: none is whoever comes first.
    between: BTreeSet<(Incarnation, Option<Incarnation>)>,
}

/// The last frame sent in a session.
#[derive(Clone, Debug)]
struct Tail {
    seq: Seq,
    digest: Digest,
    between: (Incarnation, Option<Incarnation>),
}

/// What a kernel's sessions were before a batch.
type Before = BTreeMap<PeerId, (SessionRow, Option<Tail>)>;

/// From whom, to whom.
type Pair = (PeerId, PeerId);
/// What a number stands for: in the session of two lives with that epoch.
type Number = (Pair, Incarnation, Incarnation, Epoch, Seq);

/// The account of everything that left the processes.
#[derive(Debug, Default)]
pub(super) struct Watch {
    peers: BTreeMap<KernelId, PeerId>,
    mirrors: BTreeMap<KernelId, Mirror>,
    sent: BTreeMap<(Pair, Digest), Sent>,
    numbers: BTreeMap<Number, Digest>,
    texts: BTreeSet<(Pair, Arc<str>)>,
    /// By sender and receiver: what the receiver has durably acted on.
    processed: BTreeSet<(Pair, Digest)>,
    /// Sessions that ended in the last batch of their kernel, with the last frame that was durable.
    just_ended: BTreeMap<(KernelId, PeerId), Tail>,
    /// What each kernel's life was before its last batch.
    owns: BTreeMap<KernelId, Incarnation>,
    executed: BTreeMap<String, KernelId>,
    /// Messages that a disk which was set back holds once more.
    excused: BTreeSet<String>,
    /// Whether anything has ended a session or a life so far.
    pub(super) ended: bool,
    /// Whether a vat was restarted or ended by its host.
    pub(super) vats_ended: bool,
    /// Peers whose state was set back or copied: they may use a number again until they notice.
    forked: BTreeSet<PeerId>,
    /// Copies, whose executions count for themselves.
    copies: BTreeSet<KernelId>,
}

impl Watch {
    /// Takes note of a kernel and of what is on its disk at first.
    pub(super) fn begin(&mut self, kernel: KernelId, peer: PeerId, rows: &ChangeSet) {
        self.peers.insert(kernel, peer);
        self.apply(kernel, rows);
    }

    fn peer(&self, kernel: KernelId) -> PeerId {
        self.peers.get(&kernel).cloned().unwrap_or_else(|| PeerId::new("nobody"))
    }

    /// Takes note of a disk that was replaced. `back`: by an older state of the same.
    pub(super) fn replaced(&mut self, kernel: KernelId, rows: &ChangeSet, back: bool) {
        self.ended = true;
        let done: BTreeSet<&str> =
            rows.vat_store.keys().filter_map(|(_, key)| key.strip_prefix(DID)).collect();
        if back {
            self.forked.insert(self.peer(kernel));
            self.executed.retain(|id, at| *at != kernel || done.contains(id.as_str()));
            let queued = rows.run_queue.values().flatten().filter_map(|item| match item {
                QueueItem::Send(item) => Some(item),
                QueueItem::Notify { .. } | QueueItem::Unreadable(_) => None,
            });
            let parked = rows.promise_queue.values().flatten();
            let waiting = queued.chain(parked).filter_map(|item| id_in(&item.methargs.body));
            self.excused.extend(waiting);
        }
        self.mirrors.insert(kernel, Mirror::default());
        self.apply(kernel, rows);
    }

    /// Takes note of a second machine with a copy of a disk.
    pub(super) fn copied(&mut self, kernel: KernelId, copy: KernelId, rows: &ChangeSet) {
        self.peers.insert(copy, self.peer(kernel));
        self.copies.insert(copy);
        self.replaced(copy, rows, true);
    }

    /// Judges what was entered in the journal.
    pub(super) fn read(&mut self, records: Vec<Record>, calm: bool) -> Result<(), Wrong> {
        for record in records {
            match record {
                Record::Committed { kernel, changes, marks } => {
                    self.vats(kernel, &changes, calm)?;
                    let own = self.mirrors.get(&kernel).and_then(|mirror| mirror.own.clone());
                    self.owns.extend(own.map(|own| (kernel, own)));
                    let before = self.apply(kernel, &changes);
                    self.sessions(kernel, &before)?;
                    self.enter_sent(kernel)?;
                    let news = |mark: &&Mark| {
                        before.get(&mark.peer).is_none_or(|(old, _)| old.recv_digest != mark.digest)
                    };
                    marks.iter().filter(news).try_for_each(|mark| self.received(kernel, mark))?;
                    self.acknowledged(kernel, &before)?;
                }
                Record::Wrote { from, to, text, beside } => self.wrote(from, to, &text, beside)?,
            }
        }
        Ok(())
    }

    /// Applies changes to the mirror; returns the sessions as they were.
    fn apply(&mut self, kernel: KernelId, changes: &ChangeSet) -> Before {
        let mirror = self.mirrors.entry(kernel).or_default();
        let before = mirror.before();
        if let Some(Some(own)) = changes.meta.get("incarnation") {
            mirror.own = Some(Incarnation::new(own.clone()));
        }
        for (key, row) in &changes.remotes {
            put(&mut mirror.remotes, key, row.as_ref().map(|row| row.peer.clone()));
        }
        for (key, row) in &changes.sessions {
            put(&mut mirror.sessions, key, row.clone());
        }
        for (key, row) in &changes.peer_incarnations {
            put(&mut mirror.lives, key, row.as_ref().map(|row| row.incarnation.clone()));
        }
        for (key, row) in &changes.outbox {
            put(&mut mirror.outbox, key, row.clone());
        }
        before
    }

    /// A session with anything in it ends only where something was ended (I7).
    fn sessions(&mut self, kernel: KernelId, before: &Before) -> Result<(), Wrong> {
        self.just_ended.retain(|(other, _), _| *other != kernel);
        let Some(mirror) = self.mirrors.get(&kernel) else { return Ok(()) };
        for (peer, (old, tail)) in before {
            let new = mirror.sessions.get(peer);
            // The next one may be as far by the end of the batch.
            let life = mirror.lives.get(peer).and_then(Option::as_ref);
            let others = tail.as_ref().is_some_and(|Tail { between: (own, to), .. }| {
                mirror.own.as_ref() != Some(own) || (to.is_some() && to.as_ref() != life)
            });
            let back = |new: &SessionRow| new.recv < old.recv || new.sent < old.sent || new.una < old.una;
            if others || new.is_none_or(back) {
                if !self.ended {
                    return Err(format!(
                        "I7: {} ended its session with {peer} for no reason",
                        self.peer(kernel)
                    ));
                }
                if let Some(tail) = tail {
                    self.just_ended.insert((kernel, peer.clone()), tail.clone());
                }
            }
        }
        Ok(())
    }

    /// Enters what is in the outbox now; a number stands for one text (I22).
    fn enter_sent(&mut self, kernel: KernelId) -> Result<(), Wrong> {
        let from = self.peer(kernel);
        let Some(mirror) = self.mirrors.get(&kernel) else { return Ok(()) };
        let Some(own) = mirror.own.clone() else { return Ok(()) };
        let mut before = Digest::default();
        for ((rid, seq), row) in &mirror.outbox {
            let Some(to) = mirror.remotes.get(rid) else { continue };
            let Some(session) = mirror.sessions.get(to) else { continue };
            if *seq == session.una {
                before = session.una_digest;
            }
            let (pair, life) = ((from.clone(), to.clone()), mirror.lives.get(to).cloned().flatten());
            if *seq >= session.una {
                let known = self.sent.entry((pair.clone(), row.digest));
                let known = known.or_insert_with(|| Sent { seq: *seq, before, between: BTreeSet::new() });
                known.between.insert((own.clone(), life.clone()));
                self.texts.insert((pair.clone(), row.text.clone()));
            }
            before = row.digest;
            let Some(life) = life else { continue };
            let number = (pair, own.clone(), life, session.epoch, *seq);
            let other = self.numbers.insert(number, row.digest).filter(|other| *other != row.digest);
            if other.is_some() && !self.forked.contains(&from) {
                return Err(format!("I22: {from} uses number {seq} to {to} for two texts"));
            }
        }
        Ok(())
    }

    /// What was received is a beginning of what was sent (I1, I2, I10).
    fn received(&mut self, kernel: KernelId, mark: &Mark) -> Result<(), Wrong> {
        if mark.recv == Seq(0) {
            return Ok(());
        }
        let (at, pair) = (self.peer(kernel), (mark.peer.clone(), self.peer(kernel)));
        let Some(sent) = self.sent.get(&(pair.clone(), mark.digest)).filter(|sent| sent.seq == mark.recv)
        else {
            return Err(format!(
                "I1: {at} has received {} frames that are no beginning of what {} sent",
                mark.recv, mark.peer
            ));
        };
        let meant = |(life, to): &(Incarnation, Option<Incarnation>)| {
            Some(life) == mark.life.as_ref() && to.as_ref().is_none_or(|to| *to == mark.own)
        };
        if !sent.between.iter().any(meant) {
            return Err(format!(
                "I2: {at}, life {}, has received frames of {} in a session with its life {:?}, sent between {:?}",
                mark.own, mark.peer, mark.life, sent.between
            ));
        }
        let mut digest = mark.digest;
        while digest != Digest::default() && self.processed.insert((pair.clone(), digest)) {
            match self.sent.get(&(pair.clone(), digest)) {
                Some(sent) => digest = sent.before,
                None => break,
            }
        }
        Ok(())
    }

    /// What is held acknowledged was durably received (I3).
    fn acknowledged(&self, kernel: KernelId, before: &Before) -> Result<(), Wrong> {
        let Some(mirror) = self.mirrors.get(&kernel) else { return Ok(()) };
        for (peer, session) in &mirror.sessions {
            let same = before.get(peer).is_some_and(|(old, _)| old.una_digest == session.una_digest);
            let pair = (self.peer(kernel), peer.clone());
            if session.una > Seq(1) && !same && !self.processed.contains(&(pair, session.una_digest)) {
                let acked = session.una.0 - 1;
                let own = self.peer(kernel);
                return Err(format!(
                    "I3: {own} holds {acked} frames acknowledged that {peer} has not received"
                ));
            }
        }
        Ok(())
    }

    /// What is written was durable (I5), and is written on one channel at a time (I11): which of two that were opened at
    /// once is used first is chance, but the one is ended before the other is used.
    fn wrote(&mut self, from: KernelId, to: KernelId, text: &Arc<str>, beside: bool) -> Result<(), Wrong> {
        if !text.starts_with("{\"seq\":") {
            return Ok(());
        }
        let pair = (self.peer(from), self.peer(to));
        if !self.texts.contains(&(pair.clone(), text.clone())) && !self.went(from, &pair, text) {
            return Err(format!("I5: {} wrote what it had not stored: {text}", pair.0));
        }
        if beside {
            return Err(format!("I11: {} writes to {} on two channels", pair.0, pair.1));
        }
        Ok(())
    }

    /// Whether the frame may be a row that came and went with its session in one batch: it leaves all the same, as if
    /// its session had ended in the next.
    fn went(&mut self, from: KernelId, pair: &Pair, text: &Arc<str>) -> bool {
        let Some(mirror) = self.mirrors.get(&from).filter(|_| self.ended) else { return false };
        let Some(own) = self.owns.get(&from).cloned() else { return false };
        // A session that began in that batch as well has left no row at all; it was of the life before, what is there
        // now is for the next.
        let nascent = mirror.lives.get(&pair.1).is_none_or(Option::is_none);
        let none = nascent || mirror.sessions.get(&pair.1).is_none_or(|row| row.sent == Seq(0));
        let first = Tail { seq: Seq(0), digest: Digest::default(), between: (own, None) };
        let key = (from, pair.1.clone());
        let is = |seq: Seq| text.starts_with(&format!("{{\"seq\":{seq},"));
        // Two may have ended in one batch.
        if nascent && is(Seq(1)) {
            self.just_ended.insert(key.clone(), first);
        } else if none {
            self.just_ended.entry(key.clone()).or_insert(first);
        }
        let Some(tail) = self.just_ended.get_mut(&key) else { return false };
        let seq = tail.seq.next();
        if !is(seq) {
            return false;
        }
        let before = tail.digest;
        tail.digest = digest_extend(before, text);
        tail.seq = seq;
        let known = self.sent.entry((pair.clone(), tail.digest));
        let known = known.or_insert_with(|| Sent { seq, before, between: BTreeSet::new() });
        known.between.insert(tail.between.clone());
        true
    }

    /// What the vats noticed, executed and lost.
    fn vats(&mut self, kernel: KernelId, changes: &ChangeSet, calm: bool) -> Result<(), Wrong> {
        for ((vat, key), value) in &changes.vat_store {
            let Some(value) = value else { continue };
            if key.starts_with(WRONG) {
                return Err(format!("I9: {vat} of {}: {value}", self.peer(kernel)));
            }
            if let Some(about) = key.strip_prefix(LOST) {
                self.may_be_lost(value, calm)
                    .map_err(|why| format!("{why}: {about} was rejected: {value}"))?;
            }
            if let Some(id) = key.strip_prefix(DID)
                && !self.copies.contains(&kernel)
                && let Some(other) = self.executed.insert(id.to_owned(), kernel)
                && !self.excused.contains(id)
            {
                return Err(format!(
                    "I1: {id} was executed at {} and at {}",
                    self.peer(other),
                    self.peer(kernel)
                ));
            }
        }
        Ok(())
    }

    /// Whether a call may be rejected so by now.
    pub(super) fn may_be_lost(&self, why: &str, calm: bool) -> Result<(), Wrong> {
        let of_vats = why.contains("vat restarted") || why.contains("BAD_PROMISE_RESOLUTION");
        let of_their_end = why.contains("VAT_TERMINATED") || why.contains("OBJECT_DELETED");
        let fine = of_vats || self.ended || (self.vats_ended && !calm && of_their_end);
        if fine { Ok(()) } else { Err("I7".to_owned()) }
    }

    /// Whether the kernel's disk was set back or copied at any time.
    pub(super) fn was_set_back(&self, kernel: KernelId) -> bool {
        self.forked.contains(&self.peer(kernel))
    }

    /// Whether a message was executed.
    pub(super) fn was_executed(&self, id: &str) -> bool {
        self.executed.contains_key(id)
    }
}

impl Mirror {
    fn before(&self) -> Before {
        let session =
            |(peer, row): (&PeerId, &SessionRow)| (peer.clone(), (row.clone(), self.tail(peer, row)));
        self.sessions.iter().map(session).collect()
    }

    fn tail(&self, peer: &PeerId, row: &SessionRow) -> Option<Tail> {
        let between = (self.own.clone()?, self.lives.get(peer).cloned().flatten());
        // A session may be agreed on before there is a remote.
        let rid = self.remotes.iter().find(|(_, of)| *of == peer).map(|(rid, _)| *rid);
        let last = rid.and_then(|rid| self.outbox.get(&(rid, row.sent))).map(|row| row.digest);
        Some(Tail { seq: row.sent, digest: last.unwrap_or(row.una_digest), between })
    }
}

fn put<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, key: &K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key.clone(), value)),
        None => drop(map.remove(key)),
    }
}

/// The name of the message in its text.
fn id_in(body: &str) -> Option<String> {
    let (_, rest) = body.split_once(r#"{\"id\":\""#)?;
    rest.split_once(r#"\""#).map(|(id, _)| id.to_owned())
}
