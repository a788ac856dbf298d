//! Work selection: after every input, everything that can start is started (law L4, 02 §2).
//!
//! Per idle vat: GC actions, then reaps, then its oldest items. What is for a remote or for nobody is done at once.

use crate::crank::{self, Preparation, Prepared};
use crate::effect::{Dispatch, LogLevel, Step};
use crate::fault::Corrupt;
use crate::flight::{InFlight, Lane, Staged, Work};
use crate::kernel::Kernel;
use crate::route::{self, Examined};
use crate::turn::{Turn, transact};
use crate::{gc, remote, vat};
use capstan_model::id::{EndpointId, RemoteId, VatId};
use capstan_model::peer::Millis;
use capstan_model::vat::VatDelivery;
use capstan_store::overlay::Tx;
use capstan_store::schema::{GcDue, ReapsByEndpoint, RunQueue, VatPhase, Vats, VatsToClean};

/// Deliveries of one hand-over: enough to hide the hand-over's cost, few enough that an abort discards little.
const BATCH_MAX: usize = 32;

impl Kernel {
    /// Starts all work that can start.
    pub(crate) fn pump(&mut self, now: Millis, step: &mut Step) {
        self.clean_slice(now, step);
        remote::release_unconfirmed(&mut self.db, &self.config, now, step);
        loop {
            let mut progress = self.feed_services();
            progress |= self.unblock(now, step);
            progress |= self.examine_queue(now, step);
            progress |= self.collect_garbage(now, step);
            progress |= self.dispatch_lanes(now, step);
            progress |= self.advance_launches(now, step);
            progress |= self.advance_collections(now, step);
            if !progress {
                return;
            }
        }
    }

    /// Returns a terminated vat that still has something to clean up.
    pub(crate) fn next_to_clean(&self) -> Option<VatId> {
        let mut ended = self.db.iter::<VatsToClean>().map(|(vat, ())| *vat);
        ended.find(|vat| !self.volatile.uncleanable.contains(vat))
    }

    /// Does one bounded part of the clean-up after a terminated vat.
    fn clean_slice(&mut self, now: Millis, step: &mut Step) {
        let Some(vat) = self.next_to_clean() else { return };
        let item = || format!("clean-up of {vat}");
        if transact(&mut self.db, &self.config, now, step, item, |turn| vat::clean(turn, vat)).is_err() {
            self.volatile.uncleanable.insert(vat);
        }
    }

    /// Looks at everything on the run queue that was not looked at yet.
    pub(crate) fn examine_queue(&mut self, now: Millis, step: &mut Step) -> bool {
        let mut progress = false;
        loop {
            let position = match self.volatile.recheck.pop_front() {
                Some(position) => position,
                None => match self.db.range::<RunQueue>(self.volatile.cursor..).next() {
                    None => return progress,
                    Some((&position, _)) => {
                        self.volatile.cursor = position.saturating_add(1);
                        position
                    }
                },
            };
            progress = true;
            match self.examine(now, position, true, step) {
                Some(EndpointId::Vat(vat)) => {
                    self.volatile.lanes.entry(vat).or_default().waiting.push_back(position);
                    self.volatile.ready.insert(vat);
                }
                Some(EndpointId::Remote(rid)) => {
                    self.volatile.blocked.entry(rid).or_default().push_back(position);
                }
                None => {}
            }
        }
    }

    /// Goes on with what waits for peers whose window is open again, in order.
    fn unblock(&mut self, now: Millis, step: &mut Step) -> bool {
        let mut progress = false;
        let blocked: Vec<RemoteId> = self.volatile.blocked.keys().copied().collect();
        for rid in blocked {
            let Some(mut lane) = self.volatile.blocked.remove(&rid) else { continue };
            while let Some(&position) = lane.front() {
                let turn = Turn::begin(&mut self.db, &self.config, now);
                if remote::is_full(&turn.tx, &self.config, rid) {
                    break;
                }
                drop(turn);
                lane.pop_front();
                progress = true;
                // What is routed elsewhere by now finds its place behind what is there.
                if self.examine(now, position, false, step).is_some() {
                    self.volatile.recheck.push_back(position);
                }
            }
            if !lane.is_empty() {
                self.volatile.blocked.insert(rid, lane);
            }
        }
        progress
    }

    /// Handles one item, or returns the endpoint for which it must wait: a peer also if others wait for it
    /// already and `behind` them is its place.
    fn examine(&mut self, now: Millis, position: u64, behind: bool, step: &mut Step) -> Option<EndpointId> {
        let item = self.db.get::<RunQueue>(&position).cloned();
        let shown = || format!("queue item {position}: {item:?}");
        let Kernel { db, config, volatile, .. } = self;
        let is_full = |tx: &Tx<'_>, rid| {
            (behind && volatile.blocked.contains_key(&rid)) || remote::is_full(tx, config, rid)
        };
        let waiting = |vat| volatile.lanes.get(&vat).map_or(0, |lane: &Lane| lane.waiting.len());
        match transact(db, config, now, step, shown, |turn| route::examine(turn, position, is_full, waiting))
        {
            Ok(Examined::Handled) => None,
            Ok(Examined::Waits(endpoint)) => Some(endpoint),
            Ok(Examined::Service(name)) => {
                self.volatile.service_lanes.entry(name).or_default().push_back(position);
                None
            }
            Err(_) => {
                self.discard_item(now, position, step);
                None
            }
        }
    }

    /// Removes an item that was set aside.
    fn discard_item(&mut self, now: Millis, position: u64, step: &mut Step) {
        let item = || format!("removal of queue item {position}");
        // If even this fails, the item is not looked at again in this process: the cursor is past it.
        let _ =
            transact(&mut self.db, &self.config, now, step, item, |turn| route::discard_item(turn, position));
    }

    /// Removes work of a vat that was set aside.
    pub(crate) fn discard(&mut self, now: Millis, vat: VatId, work: &Work, step: &mut Step) {
        let item = || format!("removal of {work:?}");
        let _ = transact(&mut self.db, &self.config, now, step, item, |turn| route::discard(turn, vat, work));
    }

    /// Looks at the endpoints that were given GC work: a vat does it when it is idle, a remote is told at once.
    fn collect_garbage(&mut self, now: Millis, step: &mut Step) -> bool {
        let mut progress = false;
        while let Some(endpoint) = self.next_due() {
            progress = true;
            match endpoint {
                EndpointId::Vat(vat) if vat::lives(&self.db, vat) => {
                    self.volatile.ready.insert(vat);
                }
                EndpointId::Vat(_) => self.drop_gc_work(now, endpoint, step),
                EndpointId::Remote(rid) => self.tell_remote(now, rid, step),
            }
        }
        progress
    }

    fn next_due(&mut self) -> Option<EndpointId> {
        let endpoint = *self.db.iter::<GcDue>().next()?.0;
        let mut tx = self.db.begin();
        tx.delete::<GcDue>(&endpoint);
        tx.commit();
        Some(endpoint)
    }

    fn tell_remote(&mut self, now: Millis, rid: RemoteId, step: &mut Step) {
        let item = || format!("collection toward {rid}");
        loop {
            match transact(&mut self.db, &self.config, now, step, item, |turn| gc::tell_remote(turn, rid)) {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => return self.drop_gc_work(now, rid.into(), step),
            }
        }
    }

    fn drop_gc_work(&mut self, now: Millis, endpoint: EndpointId, step: &mut Step) {
        let item = || format!("removal of GC work for {endpoint}");
        let _ = transact(&mut self.db, &self.config, now, step, item, |turn| {
            gc::forget_endpoint(&mut turn.tx, endpoint);
            Ok(())
        });
    }

    /// Hands an idle vat its next group of GC actions, if it has any.
    fn dispatch_gc(&mut self, now: Millis, vat: VatId, step: &mut Step) -> bool {
        if !gc::has_actions(&self.db, vat.into()) {
            return false;
        }
        let item = || format!("collection in {vat}");
        let prepared = transact(&mut self.db, &self.config, now, step, item, |turn| {
            let group = gc::next_group(turn, vat.into());
            group.map(|(kind, objects)| crank::prepare_gc(&turn.tx, vat, kind, objects)).transpose()
        });
        match prepared {
            Ok(Some(prepared)) => {
                self.hand_over(vat, vec![prepared], step);
                true
            }
            Ok(None) => false,
            Err(_) => {
                self.drop_gc_work(now, vat.into(), step);
                false
            }
        }
    }

    /// Asks an idle vat to collect garbage, if that is due.
    fn dispatch_reap(&mut self, vat: VatId, step: &mut Step) -> bool {
        if self.db.get::<ReapsByEndpoint>(&vat.into()).is_none() {
            return false;
        }
        let delivery = VatDelivery::BringOutYourDead;
        self.hand_over(vat, vec![Prepared { work: Work::Reap, mentions: Vec::new(), delivery }], step);
        true
    }

    /// Whether the vat runs and is idle.
    fn is_free(&self, vat: VatId) -> bool {
        let runs = self.db.get::<Vats>(&vat).is_some_and(|row| row.phase == VatPhase::Running);
        runs && self.volatile.is_idle(vat)
    }

    fn dispatch_lanes(&mut self, now: Millis, step: &mut Step) -> bool {
        let mut progress = false;
        while let Some(vat) = self.volatile.ready.pop_first() {
            if self.is_free(vat) {
                progress |= self.dispatch_gc(now, vat, step)
                    || self.dispatch_reap(vat, step)
                    || self.dispatch_lane(now, vat, step);
            }
        }
        progress
    }

    /// Hands the oldest waiting items to an idle vat, as many as can go together.
    fn dispatch_lane(&mut self, now: Millis, vat: VatId, step: &mut Step) -> bool {
        let Some(row) = self.db.get::<Vats>(&vat) else { return false };
        let mut staged = Staged::new(row);
        let mut batch = Vec::new();
        if self.volatile.woken.remove(&vat) {
            batch.push(Prepared::wake());
        }
        let mut progress = !batch.is_empty();
        while batch.len() < BATCH_MAX {
            let waiting = self.volatile.lanes.get(&vat).and_then(|lane| lane.waiting.front().copied());
            let Some(position) = waiting else { break };
            let turn = Turn::begin(&mut self.db, &self.config, now);
            let preparation = crank::prepare(&turn.tx, vat, position, &mut staged);
            drop(turn);
            match preparation {
                Ok(Preparation::Wait) => break,
                Ok(Preparation::Deliver(prepared)) => batch.push(prepared),
                Ok(Preparation::Reroute) => self.reroute(now, vat, position, step),
                Err(corrupt) => self.refuse_item(now, position, &corrupt, step),
            }
            progress = true;
            if let Some(lane) = self.volatile.lanes.get_mut(&vat) {
                lane.waiting.pop_front();
            }
        }
        self.hand_over(vat, batch, step);
        progress
    }

    /// Routes an item again that does not go to `vat` any more.
    fn reroute(&mut self, now: Millis, vat: VatId, position: u64, step: &mut Step) {
        if let Some(other) = self.examine(now, position, true, step) {
            // Routes never lead from one vat to another, so this is the same vat and a fault of ours.
            let corrupt = Corrupt::Impossible("an item has no stable route");
            step.effects.push(crate::effect::Effect::Log {
                level: LogLevel::Error,
                text: format!("queue item {position} left {vat} for {other}"),
            });
            self.refuse_item(now, position, &corrupt, step);
        }
    }

    /// Sets aside an item that cannot be translated.
    fn refuse_item(&mut self, now: Millis, position: u64, corrupt: &Corrupt, step: &mut Step) {
        let item = self.db.get::<RunQueue>(&position).cloned();
        let shown = || format!("queue item {position}: {item:?}");
        let _ = transact::<()>(&mut self.db, &self.config, now, step, shown, |_| Err(corrupt.clone()));
        self.discard_item(now, position, step);
    }

    fn hand_over(&mut self, vat: VatId, batch: Vec<Prepared>, step: &mut Step) {
        let Some(incarnation) = self.db.get::<Vats>(&vat).map(|row| row.incarnation) else { return };
        if batch.is_empty() {
            return;
        }
        let mut orders = Vec::with_capacity(batch.len());
        for Prepared { work, mentions, delivery } in batch {
            let id = self.volatile.next_delivery();
            orders.push((id, delivery));
            let flight = InFlight { id, incarnation, work, mentions };
            self.volatile.lanes.entry(vat).or_default().flight.push_back(flight);
        }
        step.dispatches.push(Dispatch::Deliver { vat, incarnation, batch: orders });
    }
}
