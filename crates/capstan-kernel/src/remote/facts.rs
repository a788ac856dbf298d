//! Rows as facts, and the sequence row of a peer (03 G.3).

use super::channels::SessionName;
use crate::fault::Corrupt;
use crate::kernel::{Generation, KernelConfig};
use crate::turn::Turn;
use capstan_model::id::RemoteId;
use capstan_model::peer::{Digest, Epoch, Hint, Incarnation, PeerId, Seq};
use capstan_store::overlay::{Db, Tx};
use capstan_store::schema::{
    Meta, Outbox, PeerIncarnationRow, PeerIncarnations, RemoteRow, Remotes, RemotesByPeer, SessionRow,
    Sessions,
};
use capstan_wire::facts::{Facts, Left, SessionFacts};

/// The frame limit of a classic peer, bytes (03 B-33a).
pub(super) const CLASSIC_FRAME_BYTES_MAX: u64 = 1 << 20;
/// What a session peer that said nothing else accepts, bytes (03 B-33a).
const SESSION_FRAME_BYTES_MAX: u64 = 16 << 20;
/// Addresses kept per peer.
const HINTS_MAX: usize = 16;

/// The sequence row of a peer never spoken to.
pub(super) fn blank_session() -> SessionRow {
    SessionRow {
        epoch: Epoch(0),
        base: Epoch(0),
        una: Seq(1),
        sent: Seq(0),
        una_digest: Digest::default(),
        recv: Seq(0),
        recv_digest: Digest::default(),
        left: None,
        classic_born: false,
        outbox_bytes: 0,
    }
}

/// Our own life, as this peer is told it (see [`rename_life`]).
pub(super) fn own_life(tx: &Tx<'_>, peer: &PeerId) -> Incarnation {
    let life = tx.get::<Meta>(&"incarnation".into()).cloned().unwrap_or_else(|| "".into());
    match tx.get::<Meta>(&renamed_key(peer)) {
        None => Incarnation::new(life),
        Some(times) => Incarnation::new(format!("{life}.{times}")),
    }
}

/// Whether our life is told to this peer as `said`.
pub(super) fn is_own_life(db: &Db, peer: &PeerId, said: &Incarnation) -> bool {
    let life = db.get::<Meta>(&"incarnation".into()).map_or("", |life| life);
    let rest = said.as_str().strip_prefix(life);
    match db.get::<Meta>(&renamed_key(peer)) {
        None => rest == Some(""),
        Some(times) => rest.and_then(|rest| rest.strip_prefix('.')) == Some(&**times),
    }
}

fn renamed_key(peer: &PeerId) -> std::sync::Arc<str> {
    format!("lifeRenamed {peer}").into()
}

/// Gives our life another name toward this peer. To a classic peer nothing else says that we ended the session and count
/// from the beginning: it would take our next frames for duplicates for ever.
pub(super) fn rename_life(turn: &mut Turn<'_>, peer: &PeerId) {
    let key = renamed_key(peer);
    let times = turn.tx.get::<Meta>(&key).and_then(|times| times.parse::<u64>().ok()).unwrap_or(0);
    turn.tx.put::<Meta>(key, times.saturating_add(1).to_string().into());
}

pub(super) fn session(tx: &Tx<'_>, peer: &PeerId) -> SessionRow {
    tx.get::<Sessions>(peer).cloned().unwrap_or_else(blank_session)
}

/// The life of the peer on record.
pub(super) fn believes(tx: &Tx<'_>, peer: &PeerId) -> Option<Incarnation> {
    tx.get::<PeerIncarnations>(peer).and_then(|row| row.incarnation.clone())
}

pub(super) fn record_life(turn: &mut Turn<'_>, peer: &PeerId, incarnation: Option<Incarnation>) {
    if incarnation.is_some() {
        super::quota::make_room_for_stranger(turn, peer);
    }
    let row = PeerIncarnationRow { incarnation, seen: turn.now };
    turn.tx.put::<PeerIncarnations>(peer.clone(), row);
}

/// The current session with the peer; none while we are nascent toward it.
pub(super) fn session_name(tx: &Tx<'_>, peer: &PeerId) -> Option<SessionName> {
    let theirs = believes(tx, peer)?;
    Some(SessionName { ours: own_life(tx, peer), theirs, epoch: session(tx, peer).epoch })
}

/// Whether both ends are known to have used the session.
pub(super) fn confirmed(row: &SessionRow) -> bool {
    row.una > Seq(1) || row.recv > Seq(0)
}

/// What we say to this peer at this moment.
pub(super) fn facts(tx: &Tx<'_>, config: &KernelConfig, listen: &[Hint], peer: &PeerId) -> Facts {
    let incarnation = own_life(tx, peer);
    if config.generation == Generation::Classic {
        return Facts { incarnation, session: None };
    }
    Facts { incarnation, session: Some(session_facts(tx, config, listen, peer)) }
}

/// The session part of [`facts`], whatever generation is spoken.
pub(super) fn session_facts(
    tx: &Tx<'_>,
    config: &KernelConfig,
    listen: &[Hint],
    peer: &PeerId,
) -> SessionFacts {
    let row = session(tx, peer);
    SessionFacts {
        believes: believes(tx, peer),
        epoch: row.epoch,
        base: row.base,
        una: row.una,
        sent: row.sent,
        recv: row.recv,
        digest: row.recv_digest,
        left: row.left.map(|(life, epoch)| Left { life, epoch }),
        classic_born: row.classic_born,
        frame_bytes_max: config.frame_bytes_max,
        credit: config.window_frames,
        words: vec!["pipeline".into()],
        listen: listen.iter().take(HINTS_MAX).cloned().collect(),
    }
}

/// The digest of our frames `1..=n`; `None` where it is not kept.
pub(super) fn digest_at(tx: &Tx<'_>, rid: Option<RemoteId>, row: &SessionRow, n: Seq) -> Option<Digest> {
    if n.next() == row.una {
        return Some(row.una_digest);
    }
    if n < row.una {
        return None;
    }
    tx.get::<Outbox>(&(rid?, n)).map(|entry| entry.digest)
}

pub(super) fn remote_of(tx: &Tx<'_>, peer: &PeerId) -> Option<RemoteId> {
    tx.get::<RemotesByPeer>(peer).copied()
}

/// Finds the peer's remote, or makes one: record and counters in one go (03 C-31).
pub(super) fn ensure_remote(turn: &mut Turn<'_>, peer: &PeerId, hints: &[Hint]) -> Result<RemoteId, Corrupt> {
    if let Some(rid) = remote_of(&turn.tx, peer) {
        learn(turn, rid, hints);
        return Ok(rid);
    }
    let number = turn.next_number("remote").try_into();
    let rid = RemoteId(number.map_err(|_| Corrupt::Impossible("remote numbers are used up"))?);
    let row = RemoteRow {
        peer: peer.clone(),
        hints: Vec::new(),
        next_object: 1,
        next_promise: 1,
        closed: false,
        restarts_seen: 0,
    };
    turn.tx.put::<Remotes>(rid, row);
    turn.tx.put::<RemotesByPeer>(peer.clone(), rid);
    if turn.tx.get::<Sessions>(peer).is_none() {
        turn.tx.put::<Sessions>(peer.clone(), blank_session());
    }
    learn(turn, rid, hints);
    Ok(rid)
}

/// Adds addresses to a remote's record; the newest are the most useful, the oldest give way.
pub(super) fn learn(turn: &mut Turn<'_>, rid: RemoteId, hints: &[Hint]) {
    let Some(row) = turn.tx.get::<Remotes>(&rid) else { return };
    let mut merged: Vec<Hint> = Vec::new();
    for hint in hints.iter().chain(&row.hints) {
        if merged.len() < HINTS_MAX && !merged.contains(hint) {
            merged.push(hint.clone());
        }
    }
    if merged != row.hints {
        turn.tx.update::<Remotes, _>(&rid, |row| row.hints = merged);
    }
}

/// Whether as much is on its way to the peer as it takes, so that what comes next waits in the run queue (03 C-10).
/// One that is closed or unknown is never full: it refuses.
pub(crate) fn is_full(tx: &Tx<'_>, config: &KernelConfig, rid: RemoteId) -> bool {
    let Some(row) = tx.get::<Remotes>(&rid).filter(|row| !row.closed) else { return false };
    let Some(session) = tx.get::<Sessions>(&row.peer) else { return false };
    if session.outbox_bytes >= config.outbox_bytes_max {
        return true;
    }
    let under_way = session.sent.next().0.saturating_sub(session.una.0);
    under_way >= credit(tx, &row.peer).unwrap_or(u64::MAX).min(config.window_frames).max(1)
}

fn credit_key(peer: &PeerId) -> std::sync::Arc<str> {
    format!("peerCredit {peer}").into()
}

/// How many frames the peer takes beyond what it has received, if it ever said so.
fn credit(tx: &Tx<'_>, peer: &PeerId) -> Option<u64> {
    tx.get::<Meta>(&credit_key(peer)).and_then(|text| text.parse().ok())
}

/// Keeps what the peer takes; only where it is less than we would send anyway.
pub(super) fn record_credit(turn: &mut Turn<'_>, peer: &PeerId, said: Option<u64>) {
    match said.filter(|said| *said < turn.config.window_frames) {
        None => turn.tx.delete::<Meta>(&credit_key(peer)).map_or((), drop),
        same if same == credit(&turn.tx, peer) => {}
        Some(said) => turn.tx.put::<Meta>(credit_key(peer), said.to_string().into()),
    }
}

fn limit_key(peer: &PeerId) -> std::sync::Arc<str> {
    format!("peerFrameBytesMax {peer}").into()
}

/// The longest frame the peer accepts, as it last said.
pub(super) fn frame_limit(tx: &Tx<'_>, peer: &PeerId) -> usize {
    let said = tx.get::<Meta>(&limit_key(peer)).and_then(|text| text.parse().ok());
    usize::try_from(said.unwrap_or(SESSION_FRAME_BYTES_MAX)).unwrap_or(usize::MAX)
}

pub(super) fn record_frame_limit(turn: &mut Turn<'_>, peer: &PeerId, limit: u64) {
    let key = limit_key(peer);
    if limit == SESSION_FRAME_BYTES_MAX {
        turn.tx.delete::<Meta>(&key);
    } else if frame_limit(&turn.tx, peer) as u64 != limit {
        turn.tx.put::<Meta>(key, limit.to_string().into());
    }
}

/// Forgets what the peer said of itself.
pub(super) fn forget_limits(turn: &mut Turn<'_>, peer: &PeerId) {
    turn.tx.delete::<Meta>(&limit_key(peer));
    turn.tx.delete::<Meta>(&credit_key(peer));
}

/// Every remote with its peer, as of the last transaction.
pub(super) fn remotes(db: &Db) -> Vec<(RemoteId, PeerId)> {
    db.iter::<Remotes>().map(|(rid, row)| (*rid, row.peer.clone())).collect()
}
