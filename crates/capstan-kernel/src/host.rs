//! What the control surface asks (02 §12).

use crate::effect::{Effect, Step};
use crate::fault::Corrupt;
use crate::host_op::{Answer, DeadLetterView, HostOp, Phrase, Refusal, Status, SubclusterView, VatView};
use crate::input::RequestId;
use crate::kernel::Kernel;
use crate::turn::{Turn, transact};
use crate::{gc, pin, promise, remote, reset, service, subcluster, system, vat};
use capstan_model::capdata::CapData;
use capstan_model::error::KernelError;
use capstan_model::id::{EndpointId, KRef, PromiseId, SubclusterId, VatId};
use capstan_model::peer::{Incarnation, Millis};
use capstan_store::overlay::{Db, Tx};
use capstan_store::schema::{
    DeadLetters, HoldKind, Meta, Objects, PromiseQueue, Promises, Remotes, RunQueue, Subclusters, VatPhase,
    Vats, Waiters,
};

/// What a request comes to within one transaction; `None`: it is answered later or was answered already.
type Reply = Option<Result<Answer, Refusal>>;

impl Kernel {
    /// Handles one request of the control surface.
    pub(crate) fn requested(&mut self, now: Millis, request: RequestId, op: HostOp, step: &mut Step) {
        let answer = match op {
            HostOp::Launch(config) => return self.launch(now, request, &config, None, step),
            HostOp::LaunchSystem { name, config } => {
                return self.launch(now, request, &config, Some(name), step);
            }
            HostOp::Reset { life } => return self.reset(now, request, &life, step),
            HostOp::TerminateAllVats => return self.terminate_all_vats(now, request, step),
            HostOp::RestartVat(vat) => return self.restart_vat(now, request, vat, step),
            HostOp::TerminateVat(vat) => return self.terminate_vat(now, request, vat, step),
            HostOp::TerminateSubcluster(id) => return self.terminate_subcluster(now, request, id, step),
            HostOp::Collect => return self.collect(now, request, step),
            HostOp::PrepareStop => return self.prepare_stop(now, request, step),
            HostOp::PingVat(_)
            | HostOp::SystemRoot(_)
            | HostOp::IsRevoked(_)
            | HostOp::ListUrls
            | HostOp::Status
            | HostOp::Overview
            | HostOp::ListVats
            | HostOp::ListSubclusters
            | HostOp::ListRemotes
            | HostOp::ListDeadLetters => view(&self.db, &self.channels, &op),
            HostOp::Send { .. }
            | HostOp::Await(_)
            | HostOp::IssueUrl { .. }
            | HostOp::RedeemUrl { .. }
            | HostOp::RevokeUrl(_)
            | HostOp::Revoke(_)
            | HostOp::Pin(_)
            | HostOp::Unpin(_)
            | HostOp::PinRoot(_)
            | HostOp::UnpinRoot(_)
            | HostOp::RegisterService { .. }
            | HostOp::UnregisterService { .. }
            | HostOp::PeerHint { .. }
            | HostOp::PeerClose(_)
            | HostOp::PeerReconnect { .. }
            | HostOp::Reap(_)
            | HostOp::TakePhrase
            | HostOp::PeerForget(_) => self.change(now, request, op, step),
        };
        if let Some(answer) = answer {
            step.effects.push(Effect::Answer { request, answer });
        }
    }

    /// Requests that are one transaction.
    fn change(&mut self, now: Millis, request: RequestId, op: HostOp, step: &mut Step) -> Reply {
        let Kernel { db, config, channels, .. } = self;
        let item = || format!("request {}", request.0);
        let outcome = transact(db, config, now, step, item, |turn| {
            let done = |outcome: Result<(), Refusal>| Some(outcome.map(|()| Answer::Done));
            Ok(match op {
                HostOp::Send { target, methargs } => return send(turn, request, target, methargs),
                HostOp::Await(promise) if is_held(&turn.tx, promise.into()) => {
                    promise::wait(turn, promise, request)?;
                    None
                }
                HostOp::Await(promise) => Some(Err(Refusal::BadReference(promise.to_string()))),
                HostOp::Revoke(kref) => done(revoke(turn, kref)),
                HostOp::Pin(object) => done(pin::pin(&mut turn.tx, object)?),
                HostOp::Unpin(object) => {
                    pin::unpin(&mut turn.tx, object)?;
                    Some(Ok(Answer::Done))
                }
                HostOp::PinRoot(vat) => Some(pin::pin_root(&mut turn.tx, vat)?),
                HostOp::UnpinRoot(vat) => Some(pin::unpin_root(&mut turn.tx, vat)?),
                HostOp::RegisterService { name, system_only, holds } => {
                    match service::register(&mut turn.tx, &name, system_only, holds)? {
                        Ok(()) => {
                            let object = service::object(&mut turn.tx, &name)?;
                            Some(Ok(Answer::Object { object }))
                        }
                        Err(refusal) => Some(Err(refusal)),
                    }
                }
                HostOp::UnregisterService { name } => {
                    service::unregister(&mut turn.tx, &name)?;
                    Some(Ok(Answer::Done))
                }
                HostOp::IssueUrl { object, secret } => {
                    if turn.tx.get::<Objects>(&object).is_none() {
                        return Ok(Some(Err(Refusal::BadReference(object.to_string()))));
                    }
                    let issued = remote::issue_url(turn, object, secret)?;
                    let hints = remote::url_hints(&turn.tx, turn.config, channels);
                    Some(issued.map(|grant| Answer::Url { grant, hints }))
                }
                HostOp::RedeemUrl { url, reply_key } => {
                    remote::redeem_url(turn, channels, request, &url, &reply_key)?;
                    None
                }
                HostOp::RevokeUrl(grant) => done(remote::revoke_url(turn, grant)?),
                HostOp::TakePhrase => {
                    let words = turn.tx.delete::<Meta>(&reset::PHRASE.into());
                    Some(Ok(Answer::Phrase(words.map(Phrase))))
                }
                HostOp::Reap(endpoints) => {
                    for endpoint in endpoints {
                        if gc::lives(&turn.tx, endpoint) {
                            gc::schedule_reap(&mut turn.tx, endpoint);
                        }
                    }
                    Some(Ok(Answer::Done))
                }
                HostOp::PeerHint { peer, hints } => done(remote::peer_hint(turn, &peer, hints)?),
                HostOp::PeerClose(peer) => done(remote::peer_close(turn, channels, &peer)?),
                HostOp::PeerReconnect { peer, hints } => done(remote::peer_reconnect(turn, &peer, hints)?),
                HostOp::PeerForget(peer) => done(remote::peer_forget(turn, channels, &peer)?),
                HostOp::Launch(_)
                | HostOp::LaunchSystem { .. }
                | HostOp::Reset { .. }
                | HostOp::RestartVat(_)
                | HostOp::TerminateVat(_)
                | HostOp::TerminateAllVats
                | HostOp::TerminateSubcluster(_)
                | HostOp::Collect
                | HostOp::PrepareStop
                | HostOp::PingVat(_)
                | HostOp::SystemRoot(_)
                | HostOp::IsRevoked(_)
                | HostOp::ListUrls
                | HostOp::Status
                | HostOp::Overview
                | HostOp::ListVats
                | HostOp::ListSubclusters
                | HostOp::ListRemotes
                | HostOp::ListDeadLetters => return Err(Corrupt::Impossible("not a change")),
            })
        });
        outcome.unwrap_or_else(|reason| Some(Err(Refusal::Internal(reason))))
    }

    /// Nobody waits for a request any more.
    pub(crate) fn abandoned(&mut self, now: Millis, request: RequestId, step: &mut Step) {
        remote::redemption_abandoned(&mut self.channels, request);
        for waiting in self.volatile.restarts.values_mut() {
            waiting.retain(|other| *other != request);
        }
        self.volatile.collections.retain(|collection| collection.request() != request);
        let awaited: Vec<PromiseId> = self
            .db
            .iter::<Waiters>()
            .filter(|((_, other), ())| *other == request.0)
            .map(|((kp, _), ())| *kp)
            .collect();
        if awaited.is_empty() {
            return;
        }
        let item = || format!("abandoned request {}", request.0);
        let _ = transact(&mut self.db, &self.config, now, step, item, |turn| {
            for &kp in &awaited {
                turn.tx.delete::<Waiters>(&(kp, request.0));
                promise::release_for_control(&mut turn.tx, KRef::Promise(kp), HoldKind::Waiting)?;
            }
            Ok(())
        });
    }

    fn restart_vat(&mut self, now: Millis, request: RequestId, vat: VatId, step: &mut Step) {
        let phase = self.db.get::<Vats>(&vat).map(|row| row.phase.clone());
        let refusal = match phase {
            None | Some(VatPhase::Terminated) => Some(Refusal::VatNotFound(vat)),
            Some(VatPhase::Launching) => Some(Refusal::VatNotRunning(format!("{vat} is being launched"))),
            Some(VatPhase::Starting | VatPhase::Running | VatPhase::Failed(_)) => None,
        };
        let restarted = match refusal {
            Some(refusal) => Err(refusal),
            None => self.restart(now, vat, step).map_err(Refusal::Internal),
        };
        match restarted {
            Ok(()) => self.volatile.restarts.entry(vat).or_default().push(request),
            Err(refusal) => step.effects.push(Effect::Answer { request, answer: Err(refusal) }),
        }
    }

    fn terminate_vat(&mut self, now: Millis, request: RequestId, vat: VatId, step: &mut Step) {
        let live = self.db.get::<Vats>(&vat).is_some_and(|row| row.phase != VatPhase::Terminated);
        let answer = if live {
            let item = || format!("termination of {vat}");
            let ended = transact(&mut self.db, &self.config, now, step, item, |turn| {
                vat::terminate(turn, vat, "Vat was deleted.")
            });
            self.ended(now, vat, "Vat was deleted.", step);
            ended.map(|()| Answer::Done).map_err(Refusal::Internal)
        } else {
            Err(Refusal::VatNotFound(vat))
        };
        step.effects.push(Effect::Answer { request, answer });
    }

    /// Launches in progress fail; then the vats end, the last started first, each in a transaction of its own.
    fn terminate_all_vats(&mut self, now: Millis, request: RequestId, step: &mut Step) {
        for subcluster in self.volatile.launches.keys().copied().collect::<Vec<_>>() {
            self.fail_launch(now, subcluster, Refusal::LaunchFailed("Vat was deleted.".into()), step);
        }
        let mut answer = Ok(Answer::Done);
        for vat in live_vats(&self.db).map(|(vat, _)| vat).collect::<Vec<_>>().into_iter().rev() {
            let item = || format!("termination of {vat}");
            let ended = transact(&mut self.db, &self.config, now, step, item, |turn| {
                vat::terminate(turn, vat, "Vat was deleted.")
            });
            self.mourn(vat, step);
            answer = ended.map_err(Refusal::Internal).and(answer);
        }
        step.effects.push(Effect::Answer { request, answer });
    }

    fn terminate_subcluster(&mut self, now: Millis, request: RequestId, id: SubclusterId, step: &mut Step) {
        let answer = if self.volatile.launches.contains_key(&id) {
            let refusal = Refusal::LaunchFailed("Vat was deleted.".into());
            self.fail_launch(now, id, refusal, step);
            Ok(Answer::Done)
        } else if self.db.get::<Subclusters>(&id).is_some() {
            self.remove_subcluster(now, id, "Vat was deleted.", step);
            Ok(Answer::Done)
        } else {
            Err(Refusal::SubclusterNotFound(id))
        };
        step.effects.push(Effect::Answer { request, answer });
    }
}

fn send(
    turn: &mut Turn<'_>,
    request: RequestId,
    target: KRef,
    methargs: CapData<KRef>,
) -> Result<Reply, Corrupt> {
    if let Some(slot) = methargs.slots.iter().find(|slot| !is_held(&turn.tx, **slot)) {
        return Ok(Some(Err(Refusal::BadReference(slot.to_string()))));
    }
    if !is_held(&turn.tx, target) {
        let value = KernelError::object_deleted().to_capdata();
        return Ok(Some(Ok(Answer::Settled { rejected: true, value })));
    }
    let kp = subcluster::send_for_control(turn, target, methargs)?;
    promise::wait(turn, kp, request)?;
    Ok(None)
}

/// Whether somebody still reaches it. What nobody reaches is being collected and must not be raised again.
pub(crate) fn is_held(tx: &Tx<'_>, kref: KRef) -> bool {
    match kref {
        KRef::Object(ko) => tx.get::<Objects>(&ko).is_some_and(|row| row.reachable > 0),
        KRef::Promise(kp) => tx.get::<Promises>(&kp).is_some(),
    }
}

fn revoke(turn: &mut Turn<'_>, kref: KRef) -> Result<(), Refusal> {
    let ko = match kref {
        KRef::Object(ko) => ko,
        KRef::Promise(kp) => return Err(Refusal::CannotRevoke(kp)),
    };
    let revoked = turn.tx.update::<Objects, _>(&ko, |row| row.revoked = true);
    revoked.ok_or_else(|| Refusal::BadReference(ko.to_string()))
}

/// Requests that only look; `None`: it is another kind.
fn view(db: &Db, channels: &remote::Channels, op: &HostOp) -> Reply {
    let answer = match op {
        HostOp::PingVat(vat) => match db.get::<Vats>(vat).map(|row| &row.phase) {
            None | Some(VatPhase::Terminated) => return Some(Err(Refusal::VatNotFound(*vat))),
            Some(VatPhase::Running) => Answer::Done,
            Some(VatPhase::Failed(why)) => return Some(Err(Refusal::VatNotRunning(why.clone()))),
            Some(VatPhase::Launching | VatPhase::Starting) => {
                return Some(Err(Refusal::VatNotRunning(format!("{vat} is starting"))));
            }
        },
        HostOp::SystemRoot(name) => match system::system_root(db, name) {
            Ok(object) => Answer::Root { object },
            Err(refusal) => return Some(Err(refusal)),
        },
        HostOp::IsRevoked(kref) => {
            let row = kref.object().and_then(|ko| db.get::<Objects>(&ko));
            Answer::Revoked(row.is_some_and(|row| row.revoked))
        }
        HostOp::ListUrls => Answer::Grants(remote::grants(db)),
        HostOp::ListRemotes => Answer::Remotes(remote::remotes(db, channels)),
        HostOp::Status => Answer::Status(status(db, channels)),
        HostOp::Overview => Answer::Overview { vats: vats(db), subclusters: subclusters(db) },
        HostOp::ListVats => Answer::Vats(vats(db)),
        HostOp::ListSubclusters => Answer::Subclusters(subclusters(db)),
        HostOp::ListDeadLetters => Answer::DeadLetters(dead_letters(db)),
        HostOp::Launch(_)
        | HostOp::LaunchSystem { .. }
        | HostOp::Reset { .. }
        | HostOp::TerminateAllVats
        | HostOp::Send { .. }
        | HostOp::Await(_)
        | HostOp::IssueUrl { .. }
        | HostOp::RedeemUrl { .. }
        | HostOp::RevokeUrl(_)
        | HostOp::RestartVat(_)
        | HostOp::TerminateVat(_)
        | HostOp::TerminateSubcluster(_)
        | HostOp::Revoke(_)
        | HostOp::Pin(_)
        | HostOp::Unpin(_)
        | HostOp::PinRoot(_)
        | HostOp::UnpinRoot(_)
        | HostOp::RegisterService { .. }
        | HostOp::UnregisterService { .. }
        | HostOp::Collect
        | HostOp::Reap(_)
        | HostOp::TakePhrase
        | HostOp::PeerHint { .. }
        | HostOp::PeerClose(_)
        | HostOp::PeerReconnect { .. }
        | HostOp::PeerForget(_)
        | HostOp::PrepareStop => return None,
    };
    Some(Ok(answer))
}

fn live_vats(db: &Db) -> impl Iterator<Item = (VatId, &capstan_store::schema::VatRow)> {
    db.iter::<Vats>().filter(|(_, row)| row.phase != VatPhase::Terminated).map(|(vat, row)| (*vat, row))
}

fn status(db: &Db, channels: &remote::Channels) -> Status {
    let incarnation = db.get::<Meta>(&"incarnation".into()).cloned().unwrap_or_else(|| "".into());
    Status {
        incarnation: Incarnation::new(incarnation),
        vats: live_vats(db).count() as u64,
        subclusters: db.len::<Subclusters>() as u64,
        remotes: db.len::<Remotes>() as u64,
        objects: db.len::<Objects>() as u64,
        promises: db.len::<Promises>() as u64,
        queued: (db.len::<RunQueue>() + db.len::<PromiseQueue>()) as u64,
        listen: remote::listening(channels),
        alarms: remote::alarms(channels),
    }
}

fn vats(db: &Db) -> Vec<VatView> {
    use capstan_model::refs::VRef;
    use capstan_store::schema::{ClistByEref, Code};
    let view = |(vat, row): (VatId, &capstan_store::schema::VatRow)| {
        let (phase, failure) = match &row.phase {
            VatPhase::Launching => ("launching", None),
            VatPhase::Starting => ("starting", None),
            VatPhase::Running => ("running", None),
            VatPhase::Failed(why) => ("failed", Some(why.clone())),
            VatPhase::Terminated => ("terminated", None),
        };
        let root = db.get::<ClistByEref>(&(EndpointId::Vat(vat), VRef::ROOT.into()));
        VatView {
            vat,
            name: row.name.clone(),
            subcluster: row.subcluster,
            phase: phase.to_owned(),
            failure,
            root: root.and_then(|kref| kref.object()),
            source: db.get::<Code>(&row.code).map_or_else(|| "".into(), |code| code.name.clone()),
            incarnation: row.incarnation.0,
        }
    };
    live_vats(db).map(view).collect()
}

fn subclusters(db: &Db) -> Vec<SubclusterView> {
    let view = |(id, row): (&SubclusterId, &capstan_store::schema::SubclusterRow)| {
        let own = live_vats(db).filter(|(_, vat)| vat.subcluster == *id);
        SubclusterView {
            subcluster: *id,
            bootstrap: row.bootstrap.clone(),
            system: row.system.clone(),
            config: row.config.clone(),
            vats: own.map(|(vat, row)| (row.name.clone(), vat)).collect(),
        }
    };
    db.iter::<Subclusters>().map(view).collect()
}

fn dead_letters(db: &Db) -> Vec<DeadLetterView> {
    let rows = db.iter::<DeadLetters>();
    rows.map(|(number, row)| DeadLetterView {
        number: *number,
        at: row.at,
        item: row.item.clone(),
        reason: row.reason.clone(),
    })
    .collect()
}
