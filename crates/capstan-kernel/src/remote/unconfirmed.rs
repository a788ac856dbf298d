//! What we had exported to a peer's dead life and its fresh life has not heard of again (03 D-9).
//!
//! The restart leaves those pairs alone, or a fresh life that redeems the same URL would get another name. But nobody
//! will ever drop them. Once the fresh session is in use, a later transaction releases every pair that was not
//! mentioned in it and stands behind no URL: the fresh life cannot name what it was never told.

use super::{facts, forget};
use crate::clist;
use crate::effect::Step;
use crate::fault::Corrupt;
use crate::kernel::KernelConfig;
use crate::turn::{Turn, transact};
use capstan_model::id::{EndpointId, KRef, ObjectId, RemoteId};
use capstan_model::peer::{Millis, Seq};
use capstan_model::refs::Side;
use capstan_store::overlay::{Db, Tx};
use capstan_store::schema::{Clist, Grants, Meta, Remotes};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Pairs released in one transaction.
const SLICE: usize = 10_000;

const MARK: &str = "unconfirmedExports ";

fn mark(rid: RemoteId) -> Arc<str> {
    format!("{MARK}{rid}").into()
}

/// At the peer's restart: nothing that we exported to it was mentioned in the session that begins now.
pub(super) fn begin(turn: &mut Turn<'_>, rid: RemoteId) {
    let endpoint = EndpointId::Remote(rid);
    let exports =
        clist::entries(&turn.tx, endpoint).into_iter().filter(|(_, row)| row.eref.side() == Side::Import);
    let exports: Vec<KRef> = exports.map(|(kref, _)| kref).collect();
    if exports.is_empty() {
        return;
    }
    for kref in exports {
        turn.tx.update::<Clist, _>(&(endpoint, kref), |row| row.last_mention = Seq(0));
    }
    turn.tx.put::<Meta>(mark(rid), "1".into());
}

/// Forgets the mark, with the remote.
pub(super) fn forget(turn: &mut Turn<'_>, rid: RemoteId) {
    turn.tx.delete::<Meta>(&mark(rid));
}

/// A remote with exports to release, whose fresh session is in use.
fn due(tx: &Tx<'_>) -> Option<RemoteId> {
    let marked = tx.range::<Meta>(Arc::from(MARK)..).take_while(|(key, _)| key.starts_with(MARK));
    let mut remotes = marked.filter_map(|(key, _)| key.strip_prefix(MARK)?.parse::<RemoteId>().ok());
    remotes.find(|rid| {
        let peer = tx.get::<Remotes>(rid).map(|row| &row.peer);
        peer.is_none_or(|peer| facts::confirmed(&facts::session(tx, peer)))
    })
}

/// Whether any remote has such exports; a quick look, since there is nearly always none.
fn any(db: &Db) -> bool {
    db.range::<Meta>(Arc::from(MARK)..).next().is_some_and(|(key, _)| key.starts_with(MARK))
}

/// Does one slice, if there is one to do; returns whether more may follow.
pub(super) fn release(db: &mut Db, config: &KernelConfig, now: Millis, step: &mut Step) -> bool {
    if !any(db) {
        return false;
    }
    let item = || "exports to a peer's dead life".to_owned();
    transact(db, config, now, step, item, |turn| match due(&turn.tx) {
        Some(rid) => slice(turn, rid).map(|()| true),
        None => Ok(false),
    })
    .unwrap_or(false)
}

/// A URL that stood for the object is no more: what was kept for it alone goes too, once the fresh session is in use.
pub(super) fn grant_ended(turn: &mut Turn<'_>, object: ObjectId) -> Result<(), Corrupt> {
    if behind_urls(&turn.tx).contains(&object) {
        return Ok(());
    }
    let remotes: Vec<RemoteId> = turn.tx.iter::<Remotes>().map(|(rid, _)| *rid).collect();
    for rid in remotes {
        let endpoint = EndpointId::Remote(rid);
        let kept = clist::entry(&turn.tx, endpoint, KRef::Object(object));
        let unconfirmed =
            kept.is_some_and(|row| row.eref.side() == Side::Import && row.last_mention == Seq(0));
        if unconfirmed && turn.tx.get::<Meta>(&mark(rid)).is_none() {
            clist::remove(&mut turn.tx, endpoint, KRef::Object(object))?;
        }
    }
    Ok(())
}

fn behind_urls(tx: &Tx<'_>) -> BTreeSet<ObjectId> {
    tx.iter::<Grants>().filter(|(_, row)| !row.revoked).map(|(_, row)| row.object).collect()
}

fn slice(turn: &mut Turn<'_>, rid: RemoteId) -> Result<(), Corrupt> {
    let endpoint = EndpointId::Remote(rid);
    let behind_urls = behind_urls(&turn.tx);
    let unconfirmed = clist::entries(&turn.tx, endpoint).into_iter().filter(|(kref, row)| {
        let is_kept = matches!(kref, KRef::Object(ko) if behind_urls.contains(ko));
        row.eref.side() == Side::Import && row.last_mention == Seq(0) && !is_kept
    });
    let slice: Vec<KRef> = unconfirmed.map(|(kref, _)| kref).take(SLICE).collect();
    if slice.len() < SLICE {
        forget(turn, rid);
    }
    for kref in slice {
        if let KRef::Promise(kp) = kref {
            forget::unsubscribe(turn, kp, endpoint);
        }
        clist::remove(&mut turn.tx, endpoint, kref)?;
    }
    Ok(())
}
