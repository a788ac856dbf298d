//! The durable outbox: deliveries become numbered frames here, acknowledgements take them out (03 C.3, C.4).
//!
//! **Names of settled promises (03 E-10).** Whoever tells of a settlement and whoever is told both retire the name, and
//! neither may use it after the other has. The one told retires it in the transaction that settles. The teller stops
//! *using* it when the notify is written (a later mention is a new promise with the same settlement), but keeps
//! *understanding* it until the peer is known to have written nothing older than the notify that is still on its way:
//! an acknowledgement inside or behind everything the peer had written. An acknowledgement of a handshake may be ahead
//! of frames that are still to come; rows it covers then stay as markers without text, below `una`.
//! Sessions born of a classic exchange keep the names for a while, since the reference does: see `settled`.

use super::{facts, forget, settled};
use crate::clist;
use crate::fault::Corrupt;
use crate::gc;
use crate::promise;
use crate::remote::{Delivered, RemoteDelivery};
use crate::turn::Turn;
use capstan_model::capdata::{CapData, Message, Resolution};
use capstan_model::error::{IntentionalCloseError, KernelError};
use capstan_model::id::{EndpointId, KRef, ObjectId, PromiseId, RemoteId};
use capstan_model::peer::{PeerId, Seq};
use capstan_model::refs::{ERef, RRef, RefKind, Side};
use capstan_store::overlay::Tx;
use capstan_store::schema::{
    Clist, ClistByEref, Decider, Outbox, OutboxRow, PromiseState, PromisesByDecider, Redemptions, Remotes,
    SendItem, Sessions,
};
use capstan_wire::frame::{Frame, encode_numbered};
use capstan_wire::window::{AckJudgement, acked, digest_extend};

/// References in one GC frame: the receiver's limit is higher.
const GC_REFS_MAX: usize = 1000;

/// So many frames to a peer, and it is asked to collect once more (03 E-16).
const FRAMES_PER_REAP: u64 = 1000;

/// A frame is longer than the peer accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong {
    got: usize,
    limit: usize,
}

/// A frame to a peer in the making: what it mentions is stamped with its number.
struct Outgoing<'t, 'a> {
    turn: &'t mut Turn<'a>,
    rid: RemoteId,
    seq: Seq,
}

/// Whether something is not yet acknowledged.
pub(super) fn pending(tx: &Tx<'_>, rid: RemoteId) -> bool {
    let session = tx.get::<Remotes>(&rid).and_then(|row| tx.get::<Sessions>(&row.peer));
    session.is_some_and(|row| row.una <= row.sent)
}

/// Whether a link to this peer is worth having (03 B-33c).
pub(super) fn wanted(tx: &Tx<'_>, rid: RemoteId) -> bool {
    let endpoint = EndpointId::Remote(rid);
    if tx.get::<Remotes>(&rid).is_none_or(|row| row.closed) {
        return false;
    }
    let decider = Decider::Endpoint(endpoint);
    let decides = tx
        .range::<PromisesByDecider>((decider, PromiseId(0))..=(decider, PromiseId(u64::MAX)))
        .next()
        .is_some();
    let imports = || {
        // By the peer's own names, so that what it imports from us is not looked through.
        let name = |index| RRef { kind: RefKind::Object, side: Side::Export, index };
        let objects = (endpoint, name(0).into())..=(endpoint, name(u64::MAX).into());
        let reached = |kref: &KRef| tx.get::<Clist>(&(endpoint, *kref)).is_some_and(|row| row.reachable);
        tx.range::<ClistByEref>(objects).any(|(_, kref)| reached(kref))
    };
    pending(tx, rid) || decides || tx.iter::<Redemptions>().any(|(_, row)| row.remote == rid) || imports()
}

/// Whether the peer holds anything of ours, so that it may have something to say.
pub(super) fn is_held(tx: &Tx<'_>, rid: RemoteId) -> bool {
    let endpoint = EndpointId::Remote(rid);
    let all = (endpoint, KRef::Object(ObjectId(0)))..=(endpoint, KRef::Promise(PromiseId(u64::MAX)));
    tx.range::<Clist>(all).next().is_some()
}

/// Translates a delivery and appends it; what the delivery means locally (bits, pairs) is the caller's.
pub(super) fn deliver(
    turn: &mut Turn<'_>,
    rid: RemoteId,
    delivery: RemoteDelivery,
) -> Result<Delivered, Corrupt> {
    let closed = match turn.tx.get::<Remotes>(&rid) {
        None => Some("no such peer".to_owned()),
        Some(row) if row.closed => Some(IntentionalCloseError::MESSAGE.to_owned()),
        Some(_) => None,
    };
    match (delivery, closed) {
        (RemoteDelivery::Message(_), Some(reason)) => return Ok(Delivered::Refused(reason)),
        (_, Some(_)) => {}
        (RemoteDelivery::Message(item), None) => return message(turn, rid, item),
        (RemoteDelivery::Notify(promises), None) => notify(turn, rid, &promises)?,
        (RemoteDelivery::DropExports(list), None) => objects(turn, rid, &list, Frame::DropExports)?,
        (RemoteDelivery::RetireExports(list), None) => objects(turn, rid, &list, Frame::RetireExports)?,
        (RemoteDelivery::RetireImports(list), None) => objects(turn, rid, &list, Frame::RetireImports)?,
        (RemoteDelivery::BringOutYourDead, None) => {
            if !forget::clear_echo(turn, rid) {
                let _fits = append(turn, rid, &Frame::BringOutYourDead, Vec::new())?;
            }
        }
    }
    Ok(Delivered::Queued)
}

fn message(turn: &mut Turn<'_>, rid: RemoteId, item: SendItem) -> Result<Delivered, Corrupt> {
    let endpoint = EndpointId::Remote(rid);
    let Some(target) = clist::entry(&turn.tx, endpoint, item.target).map(|row| row.eref) else {
        return Ok(Delivered::Refused(format!("the peer does not know {}", item.target)));
    };
    let mark = turn.mark();
    let mut out = Outgoing::begin(turn, rid)?;
    out.stamp(item.target);
    let methargs = out.value(&item.methargs)?;
    let result = match item.result {
        Some(kp) => Some(out.name(KRef::Promise(kp))?),
        None if out.is_classic()? => {
            // The reference takes no message without a result.
            let kp = promise::create(&mut out.turn.tx, Some(Decider::Endpoint(endpoint)));
            Some(out.name(KRef::Promise(kp))?)
        }
        None => None,
    };
    let frame = Frame::Message { target: remote_name(target)?, message: Message { methargs, result } };
    match append(turn, rid, &frame, Vec::new())? {
        Ok(()) => Ok(Delivered::Queued),
        Err(TooLong { got, limit }) => {
            turn.rollback_to(mark);
            Ok(Delivered::Refused(format!("Message of {got} bytes exceeds the peer's limit of {limit}")))
        }
    }
}

/// Tells of settlements, in as many frames as it takes.
fn notify(turn: &mut Turn<'_>, rid: RemoteId, promises: &[PromiseId]) -> Result<(), Corrupt> {
    let mark = turn.mark();
    let mut out = Outgoing::begin(turn, rid)?;
    let retiring = !out.is_classic()?;
    let (mut told, mut resolutions) = (Vec::new(), Vec::new());
    // Where names are kept, nothing says what was told before: each promise comes by its own subscription.
    let promises = if retiring { promises } else { promises.get(..1).unwrap_or(promises) };
    for &kp in promises {
        let Some(row) = clist::entry(&out.turn.tx, EndpointId::Remote(rid), KRef::Promise(kp)) else {
            continue; // torn down since, or told by the peer itself
        };
        let (name, known) = (remote_name(row.eref)?, !row.reachable);
        if known || told.contains(&kp) || is_retiring(&out.turn.tx, rid, kp) {
            continue;
        }
        let (rejected, value) = settlement(&out.turn.tx, kp)?;
        let value = out.value(&value)?;
        told.push(kp);
        resolutions.push(Resolution { promise: name, rejected, value });
    }
    for kp in &told {
        out.stamp(KRef::Promise(*kp));
    }
    let Some(first) = resolutions.first() else { return Ok(()) };
    let promise = first.promise;
    let retires = if retiring { told.clone() } else { Vec::new() };
    let frame = Frame::Notify(resolutions);
    let seq = out.seq;
    let Err(TooLong { got, limit }) = append(turn, rid, &frame, retires.clone())? else {
        if !retiring {
            told.iter().for_each(|kp| settled::told(turn, rid, *kp, seq));
        }
        return Ok(());
    };
    turn.rollback_to(mark);
    if told.len() > 1 {
        let (left, right) = told.split_at(told.len() / 2);
        notify(turn, rid, left)?;
        return notify(turn, rid, right);
    }
    let reason = format!("Settlement of {got} bytes exceeds the peer's limit of {limit}");
    let value = KernelError::delivery_failed(reason).to_capdata();
    let mut out = Outgoing::begin(turn, rid)?;
    told.iter().for_each(|kp| out.stamp(KRef::Promise(*kp)));
    let frame = Frame::Notify(vec![Resolution { promise, rejected: true, value }]);
    let seq = out.seq;
    let _fits = append(turn, rid, &frame, retires)?;
    if !retiring {
        told.iter().for_each(|kp| settled::told(turn, rid, *kp, seq));
    }
    Ok(())
}

fn settlement(tx: &Tx<'_>, kp: PromiseId) -> Result<(bool, CapData<KRef>), Corrupt> {
    match &promise::row(tx, kp)?.state {
        PromiseState::Unresolved { .. } => Err(Corrupt::WrongState(kp)),
        PromiseState::Fulfilled(value) => Ok((false, value.clone())),
        PromiseState::Rejected(value) => Ok((true, value.clone())),
    }
}

fn objects(
    turn: &mut Turn<'_>,
    rid: RemoteId,
    list: &[ObjectId],
    frame: impl Fn(Vec<RRef>) -> Frame,
) -> Result<(), Corrupt> {
    let entry = |ko: &ObjectId| clist::entry(&turn.tx, EndpointId::Remote(rid), KRef::Object(*ko));
    let names: Result<Vec<RRef>, Corrupt> =
        list.iter().filter_map(entry).map(|row| remote_name(row.eref)).collect();
    for names in names?.chunks(GC_REFS_MAX) {
        let _fits = append(turn, rid, &frame(names.to_vec()), Vec::new())?;
    }
    Ok(())
}

/// Gives a frame its number and puts it into the outbox; refuses, before any number is used, what is too long.
pub(super) fn append(
    turn: &mut Turn<'_>,
    rid: RemoteId,
    frame: &Frame,
    retires: Vec<PromiseId>,
) -> Result<Result<(), TooLong>, Corrupt> {
    let peer = peer_of(&turn.tx, rid)?;
    let mut session = facts::session(&turn.tx, &peer);
    let seq = session.sent.next();
    let ack = Some(session.recv).filter(|recv| *recv > Seq(0));
    let text = encode_numbered(seq, ack, frame);
    let limit = facts::frame_limit(&turn.tx, &peer);
    if text.len() > limit {
        return Ok(Err(TooLong { got: text.len(), limit }));
    }
    let before = facts::digest_at(&turn.tx, Some(rid), &session, session.sent);
    let before = before.ok_or(Corrupt::Impossible("the last outbox row is missing"))?;
    let digest = digest_extend(before, &text);
    session.outbox_bytes = session.outbox_bytes.saturating_add(text.len() as u64);
    turn.tx.put::<Outbox>((rid, seq), OutboxRow { text: text.into(), digest, retires });
    session.sent = seq;
    turn.tx.put::<Sessions>(peer, session);
    if seq.0.is_multiple_of(FRAMES_PER_REAP) {
        gc::schedule_reap(&mut turn.tx, rid.into());
    }
    Ok(Ok(()))
}

fn peer_of(tx: &Tx<'_>, rid: RemoteId) -> Result<PeerId, Corrupt> {
    let row = tx.get::<Remotes>(&rid).ok_or(Corrupt::NoEndpoint(EndpointId::Remote(rid)))?;
    Ok(row.peer.clone())
}

pub(super) fn remote_name(eref: ERef) -> Result<RRef, Corrupt> {
    match eref {
        ERef::Remote(rref) => Ok(rref),
        ERef::Vat(_) => Err(Corrupt::Impossible("a remote's c-list holds a vat's name")),
    }
}

/// Whether the peer has been, or is being, told of this promise for the last time.
fn is_retiring(tx: &Tx<'_>, rid: RemoteId, kp: PromiseId) -> bool {
    let entry = clist::entry(tx, EndpointId::Remote(rid), KRef::Promise(kp));
    let notified = entry.and_then(|row| tx.get::<Outbox>(&(rid, row.last_mention)));
    notified.is_some_and(|row| row.retires.contains(&kp))
}

impl<'t, 'a> Outgoing<'t, 'a> {
    fn begin(turn: &'t mut Turn<'a>, rid: RemoteId) -> Result<Self, Corrupt> {
        let peer = peer_of(&turn.tx, rid)?;
        let seq = facts::session(&turn.tx, &peer).sent.next();
        Ok(Outgoing { turn, rid, seq })
    }

    fn is_classic(&self) -> Result<bool, Corrupt> {
        let peer = peer_of(&self.turn.tx, self.rid)?;
        Ok(keeps_names(self.turn, &peer))
    }

    /// Returns what the peer is to call `kref`, and remembers that it was mentioned.
    fn name(&mut self, kref: KRef) -> Result<RRef, Corrupt> {
        let kref = match kref {
            KRef::Promise(kp)
                if is_retiring(&self.turn.tx, self.rid, kp)
                    || settled::is_old(&self.turn.tx, self.rid, kp) =>
            {
                KRef::Promise(self.again(kp)?)
            }
            KRef::Promise(_) | KRef::Object(_) => kref,
        };
        let eref = clist::import(self.turn, EndpointId::Remote(self.rid), kref)?;
        self.stamp(kref);
        remote_name(eref)
    }

    /// Another promise with the settlement of one whose name is being retired.
    fn again(&mut self, kp: PromiseId) -> Result<PromiseId, Corrupt> {
        let (rejected, value) = settlement(&self.turn.tx, kp)?;
        let copy = promise::create(&mut self.turn.tx, None);
        match promise::settle(self.turn, copy, None, rejected, value) {
            Ok(()) => Ok(copy),
            Err(promise::SettleError::Corrupt(corrupt)) => Err(corrupt),
            Err(promise::SettleError::AlreadySettled(_) | promise::SettleError::NotDecider(..)) => {
                Err(Corrupt::WrongState(copy))
            }
        }
    }

    fn value(&mut self, value: &CapData<KRef>) -> Result<CapData<RRef>, Corrupt> {
        value.try_map(|kref| self.name(*kref))
    }

    fn stamp(&mut self, kref: KRef) {
        let (seq, key) = (self.seq, (EndpointId::Remote(self.rid), kref));
        self.turn.tx.update::<Clist, _>(&key, |row| row.last_mention = seq);
    }
}

/// Exports an object to the peer inside a frame that is about to be appended.
pub(super) fn mention(turn: &mut Turn<'_>, rid: RemoteId, kref: KRef) -> Result<RRef, Corrupt> {
    Outgoing::begin(turn, rid)?.name(kref)
}

/// Whether names of settled promises are kept toward this peer.
pub(super) fn keeps_names(turn: &Turn<'_>, peer: &PeerId) -> bool {
    turn.config.generation == crate::kernel::Generation::Classic
        || facts::session(&turn.tx, peer).classic_born
}

/// What an acknowledgement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    Moved,
    Old,
    /// It speaks of what was never sent (03 C-14).
    BeyondSent,
}

/// Takes out what is acknowledged. `behind_all`: everything that the peer wrote before it knew of frame `n` has
/// arrived, so that names retired by frames up to `n` will not be heard again.
pub(super) fn acknowledge(
    turn: &mut Turn<'_>,
    rid: Option<RemoteId>,
    peer: &PeerId,
    n: Seq,
    behind_all: bool,
) -> Result<Acknowledged, Corrupt> {
    let mut session = facts::session(&turn.tx, peer);
    let judged = acked(session.una, session.sent, n);
    if judged == AckJudgement::BeyondSent {
        return Ok(Acknowledged::BeyondSent);
    }
    if let AckJudgement::Moves { to, .. } = judged {
        let digest = facts::digest_at(&turn.tx, rid, &session, to);
        session.una_digest = digest.ok_or(Corrupt::Impossible("an acknowledged frame is missing"))?;
        session.una = to.next();
        turn.tx.put::<Sessions>(peer.clone(), session);
    }
    if let Some(rid) = rid {
        let freed = take_out(turn, rid, n, behind_all)?;
        if freed > 0 {
            turn.tx.update::<Sessions, _>(peer, |row| {
                row.outbox_bytes = row.outbox_bytes.saturating_sub(freed);
            });
        }
    }
    Ok(if matches!(judged, AckJudgement::Moves { .. }) { Acknowledged::Moved } else { Acknowledged::Old })
}

/// Returns how many bytes went.
fn take_out(turn: &mut Turn<'_>, rid: RemoteId, n: Seq, behind_all: bool) -> Result<u64, Corrupt> {
    let rows = turn.tx.range::<Outbox>((rid, Seq(0))..=(rid, n));
    let rows: Vec<(Seq, OutboxRow)> = rows.map(|((_, seq), row)| (*seq, row.clone())).collect();
    let freed = rows.iter().map(|(_, row)| row.text.len() as u64).sum();
    for (seq, row) in rows {
        if !row.retires.is_empty() && !behind_all {
            turn.tx.put::<Outbox>((rid, seq), OutboxRow { text: "".into(), ..row });
            continue;
        }
        turn.tx.delete::<Outbox>(&(rid, seq));
        for kp in row.retires {
            retire(turn, rid, kp)?;
        }
    }
    Ok(freed)
}

/// Removes a settled promise's name from the peer's c-list.
pub(super) fn retire(turn: &mut Turn<'_>, rid: RemoteId, kp: PromiseId) -> Result<(), Corrupt> {
    let endpoint = EndpointId::Remote(rid);
    if clist::entry(&turn.tx, endpoint, KRef::Promise(kp)).is_some() {
        clist::remove(&mut turn.tx, endpoint, KRef::Promise(kp))?;
    }
    Ok(())
}
