//! Collections that were asked for (02 §7.5): `gc`, and what precedes a graceful stop.
//!
//! A collection goes in rounds. What a round waits for is fixed as it goes along: the reaps it asked for and the vats
//! that were being cleaned up when it began, then the GC actions that were known once those were done. Work that comes
//! up later is not waited for, so a round ends however busy the kernel is. Another one follows while less is left
//! than after every round before, which cannot go on for ever.

use crate::effect::{Effect, Step};
use crate::fault::Corrupt;
use crate::flight::Work;
use crate::gc::Action;
use crate::host_op::{Answer, Refusal};
use crate::input::RequestId;
use crate::kernel::Kernel;
use crate::turn::transact;
use crate::{activity, cycles, gc, promise};
use capstan_model::id::{EndpointId, VatId};
use capstan_model::peer::Millis;
use capstan_store::overlay::Tx;
use capstan_store::schema::{
    Clist, Counters, GcActions, HoldKind, Holds, Objects, Promises, Reaps, Remotes, VatPhase, VatRow, Vats,
    VatsToClean,
};
use std::collections::BTreeSet;

/// A collection in progress.
#[derive(Debug)]
pub(crate) struct Collection {
    request: RequestId,
    goal: Goal,
    stage: Stage,
}

/// What a collection is for.
#[derive(Debug)]
enum Goal {
    /// To leave nothing that can be collected. `least`: how much was left after the best round so far.
    Quiescence { objects_before: u64, least: usize },
    /// To have vats that worked since they last collected do so once more before the kernel stops.
    Stop,
}

/// Where a round stands.
#[derive(Debug)]
enum Stage {
    /// Waits for reaps with lower numbers than this, and for the clean-up of these vats.
    Reaping { below: u64, cleaning: BTreeSet<VatId> },
    /// Waits for these actions, the last one first.
    Acting(BTreeSet<Action>),
}

impl Collection {
    /// Returns who is told when it ends.
    pub(crate) fn request(&self) -> RequestId {
        self.request
    }
}

impl Kernel {
    /// Begins a collection to quiescence.
    pub(crate) fn collect(&mut self, now: Millis, request: RequestId, step: &mut Step) {
        let objects_before = self.db.len::<Objects>() as u64;
        let begun = self.begin_round(now, step, |tx| {
            let handed: Vec<_> =
                tx.iter::<Holds>().filter(|((_, k), _)| *k == HoldKind::Handed).map(|(k, _)| *k).collect();
            for (kref, kind) in handed {
                promise::release_for_control(tx, kref, kind)?;
            }
            reap_vats(tx, |_, _| true);
            let remotes: Vec<_> = tx.iter::<Remotes>().map(|(rid, _)| *rid).collect();
            remotes.into_iter().for_each(|rid| gc::schedule_reap(tx, rid.into()));
            Ok(())
        });
        match begun {
            Ok(stage) => {
                let goal = Goal::Quiescence { objects_before, least: self.collectable() };
                self.volatile.collections.push(Collection { request, goal, stage });
            }
            Err(reason) => answer(step, request, Err(Refusal::Internal(reason))),
        }
    }

    /// Has vats collect once more before a graceful stop.
    pub(crate) fn prepare_stop(&mut self, now: Millis, request: RequestId, step: &mut Step) {
        let lanes = self.volatile.lanes.iter().filter(|(_, lane)| !lane.flight.is_empty());
        let busy: BTreeSet<VatId> = lanes.map(|(vat, _)| *vat).collect();
        let begun = self.begin_round(now, step, |tx| {
            activity::note_activity(tx, now);
            reap_vats(tx, |vat, row| row.deliveries > 0 || busy.contains(&vat));
            Ok(())
        });
        match begun {
            Ok(stage) => self.volatile.collections.push(Collection { request, goal: Goal::Stop, stage }),
            Err(reason) => answer(step, request, Err(Refusal::Internal(reason))),
        }
    }

    fn begin_round(
        &mut self,
        now: Millis,
        step: &mut Step,
        ask: impl FnOnce(&mut Tx<'_>) -> Result<(), Corrupt>,
    ) -> Result<Stage, String> {
        let item = || "a round of a collection".to_owned();
        transact(&mut self.db, &self.config, now, step, item, |turn| ask(&mut turn.tx))?;
        let below = self.db.get::<Counters>(&"reap".into()).copied().unwrap_or(1);
        let cleaning = self.db.iter::<VatsToClean>().map(|(vat, ())| *vat).collect();
        Ok(Stage::Reaping { below, cleaning })
    }

    /// A measure of what is left to collect: everything that collection can do makes it smaller.
    fn collectable(&self) -> usize {
        let reachable = self.db.iter::<Clist>().filter(|(_, row)| row.reachable).count();
        self.db.len::<Objects>() + self.db.len::<Promises>() + self.db.len::<Clist>() + reachable
    }

    /// A vat has performed GC actions: nobody waits for them any more, also if the same become due again.
    pub(crate) fn note_performed(&mut self, vat: VatId, work: &Work) {
        let Work::Gc { kind, objects } = work else { return };
        for collection in &mut self.volatile.collections {
            if let Stage::Acting(actions) = &mut collection.stage {
                for ko in objects {
                    actions.remove(&(vat.into(), *kind, *ko));
                }
            }
        }
    }

    /// Takes collections further whose round has nothing left to wait for; returns whether that made new work.
    pub(crate) fn advance_collections(&mut self, now: Millis, step: &mut Step) -> bool {
        let mut progress = false;
        for mut collection in std::mem::take(&mut self.volatile.collections) {
            match self.next_stage(now, &mut collection, step) {
                Next::Wait => self.volatile.collections.push(collection),
                Next::Go => {
                    progress = true;
                    self.volatile.collections.push(collection);
                }
                Next::End(outcome) => answer(step, collection.request, outcome),
            }
        }
        progress
    }

    fn next_stage(&mut self, now: Millis, collection: &mut Collection, step: &mut Step) -> Next {
        match &mut collection.stage {
            Stage::Reaping { below, cleaning } => {
                if self.db.range::<Reaps>(..*below).any(|(_, endpoint)| self.can_be_told(*endpoint)) {
                    return Next::Wait;
                }
                if let Goal::Stop = collection.goal {
                    return Next::End(Ok(Answer::Done));
                }
                cleaning.retain(|vat| {
                    let left = self.db.get::<VatsToClean>(vat).is_some();
                    left && !self.volatile.uncleanable.contains(vat)
                });
                if !cleaning.is_empty() {
                    return Next::Wait;
                }
                let due = self.db.iter::<GcActions>().map(|(action, ())| *action);
                collection.stage = Stage::Acting(due.collect());
                Next::Go
            }
            Stage::Acting(actions) => {
                while let Some(action) = actions.last() {
                    if self.db.get::<GcActions>(action).is_some() && self.can_be_told(action.0) {
                        return Next::Wait;
                    }
                    actions.pop_last();
                }
                self.end_round(now, collection, step)
            }
        }
    }

    fn end_round(&mut self, now: Millis, collection: &mut Collection, step: &mut Step) -> Next {
        let item = || "a search for promises that hold each other".to_owned();
        // If it fails it was set aside, and the collection is done without.
        let _ = transact(&mut self.db, &self.config, now, step, item, |turn| cycles::collect(&mut turn.tx));
        let left = self.collectable();
        let objects_after = self.db.len::<Objects>() as u64;
        match &mut collection.goal {
            Goal::Stop => Next::End(Ok(Answer::Done)),
            Goal::Quiescence { objects_before, least } if left >= *least => {
                Next::End(Ok(Answer::Collected { objects_before: *objects_before, objects_after }))
            }
            Goal::Quiescence { least, .. } => {
                *least = left;
                let begun = self.begin_round(now, step, |tx| {
                    reap_vats(tx, |_, _| true);
                    Ok(())
                });
                match begun {
                    Ok(stage) => {
                        collection.stage = stage;
                        Next::Go
                    }
                    Err(reason) => Next::End(Err(Refusal::Internal(reason))),
                }
            }
        }
    }

    /// Whether what is to be said to the endpoint will be said to it, sooner or later.
    fn can_be_told(&self, endpoint: EndpointId) -> bool {
        match endpoint {
            EndpointId::Vat(vat) => {
                self.db.get::<Vats>(&vat).is_some_and(|row| !matches!(row.phase, VatPhase::Failed(_)))
            }
            EndpointId::Remote(_) => true,
        }
    }
}

/// What becomes of a collection.
enum Next {
    /// It waits.
    Wait,
    /// It is a stage further.
    Go,
    /// It is over.
    End(Result<Answer, Refusal>),
}

fn reap_vats(tx: &mut Tx<'_>, which: impl Fn(VatId, &VatRow) -> bool) {
    let vats = tx.iter::<Vats>().filter(|(vat, row)| row.phase == VatPhase::Running && which(**vat, row));
    let vats: Vec<_> = vats.map(|(vat, _)| *vat).collect();
    vats.into_iter().for_each(|vat| gc::schedule_reap(tx, vat.into()));
}

fn answer(step: &mut Step, request: RequestId, answer: Result<Answer, Refusal>) {
    step.effects.push(Effect::Answer { request, answer });
}
