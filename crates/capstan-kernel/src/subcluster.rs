//! Subclusters: launched all or nothing, over several inputs (02 §10.1), and ended.

use crate::effect::{Effect, Step};
use crate::fault::Corrupt;
use crate::flight::Launch;
use crate::host_op::{Answer, LaunchConfig, Refusal};
use crate::input::RequestId;
use crate::kernel::Kernel;
use crate::notify;
use crate::promise;
use crate::queue;
use crate::service;
use crate::turn::{Turn, transact};
use crate::vat;
use capstan_model::capdata::CapData;
use capstan_model::id::{KRef, PromiseId, SubclusterId, VatId};
use capstan_model::peer::Millis;
use capstan_model::smallcaps::{Value, decode, encode};
use capstan_store::overlay::Tx;
use capstan_store::schema::{HoldKind, SendItem, SubclusterRow, Subclusters, Vats};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Kernel {
    /// Begins a launch; it is answered when `bootstrap` has settled.
    /// `system`: the name of a system subcluster.
    pub(crate) fn launch(
        &mut self,
        now: Millis,
        request: RequestId,
        config: &LaunchConfig,
        system: Option<Arc<str>>,
        step: &mut Step,
    ) {
        let item = || format!("launch for request {}", request.0);
        let begun = transact(&mut self.db, &self.config, now, step, item, |turn| begin(turn, config, system));
        match begun {
            Ok(Ok((subcluster, vats, bootstrap))) => {
                let launch = Launch {
                    request,
                    services: config.services.iter().cloned().collect(),
                    starting: vats,
                    bootstrap,
                    optional: config.bootstrap_optional,
                    has_bootstrap: false,
                    result: None,
                };
                self.volatile.launches.insert(subcluster, launch);
            }
            Ok(Err(refusal)) => answer(step, request, Err(refusal)),
            Err(reason) => answer(step, request, Err(Refusal::Internal(reason))),
        }
    }

    /// A vat of a launch is up.
    pub(crate) fn launched_vat(&mut self, subcluster: SubclusterId, vat: VatId, root_methods: &[String]) {
        if let Some(launch) = self.volatile.launches.get_mut(&subcluster) {
            launch.starting.remove(&vat);
            if vat == launch.bootstrap {
                launch.has_bootstrap = root_methods.iter().any(|method| method == "bootstrap");
            }
        }
    }

    /// Undoes a launch and says why.
    pub(crate) fn fail_launch(
        &mut self,
        now: Millis,
        subcluster: SubclusterId,
        refusal: Refusal,
        step: &mut Step,
    ) {
        let Some(launch) = self.volatile.launches.remove(&subcluster) else { return };
        let result = launch.result;
        self.remove_subcluster(now, subcluster, "launch failed", step);
        let item = || format!("end of the launch of {subcluster}");
        let released = transact(&mut self.db, &self.config, now, step, item, |turn| {
            if let Refusal::BootstrapRejected(value) = &refusal {
                value.slots.iter().try_for_each(|&slot| promise::hand_out(&mut turn.tx, slot))?;
            }
            release_result(turn, result)
        });
        let refusal = released.map_or_else(Refusal::Internal, |()| refusal);
        answer(step, launch.request, Err(refusal));
    }

    /// A vat has ended: a launch that has not yet come to `bootstrap` fails with it (02 §10.1).
    pub(crate) fn fail_launch_of(&mut self, now: Millis, vat: VatId, why: &str, step: &mut Step) {
        let Some(row) = self.db.get::<Vats>(&vat) else { return };
        let (subcluster, name) = (row.subcluster, row.name.clone());
        if self.volatile.launches.get(&subcluster).is_some_and(|launch| launch.result.is_none()) {
            let text = format!("Failed to launch vat {vat} ({name}): {why}");
            self.fail_launch(now, subcluster, Refusal::LaunchFailed(text), step);
        }
    }

    /// Terminates all vats of a subcluster, the last launched first, and removes its record.
    pub(crate) fn remove_subcluster(
        &mut self,
        now: Millis,
        subcluster: SubclusterId,
        detail: &str,
        step: &mut Step,
    ) {
        let turn = Turn::begin(&mut self.db, &self.config, now);
        let members = vat::members(&turn.tx, subcluster);
        drop(turn);
        let item = || format!("end of {subcluster}");
        let _ = transact(&mut self.db, &self.config, now, step, item, |turn| {
            for &vat in members.iter().rev() {
                vat::terminate(turn, vat, detail)?;
            }
            turn.tx.delete::<Subclusters>(&subcluster);
            Ok(())
        });
        for vat in members {
            self.mourn(vat, step);
        }
    }

    /// Calls `bootstrap` where all vats are up, and ends launches whose `bootstrap` has settled.
    pub(crate) fn advance_launches(&mut self, now: Millis, step: &mut Step) -> bool {
        let mut progress = false;
        let pending: Vec<_> = self.volatile.launches.keys().copied().collect();
        for subcluster in pending {
            let Some(launch) = self.volatile.launches.get(&subcluster) else { continue };
            match launch.result {
                Some(kp) => progress |= self.finish_launch(now, subcluster, kp, step),
                None if !launch.starting.is_empty() => {}
                None if launch.optional && !launch.has_bootstrap => {
                    self.succeed(now, subcluster, None, step);
                    progress = true;
                }
                None => {
                    self.call_bootstrap(now, subcluster, step);
                    progress = true;
                }
            }
        }
        progress
    }

    fn call_bootstrap(&mut self, now: Millis, subcluster: SubclusterId, step: &mut Step) {
        let Some(launch) = self.volatile.launches.get(&subcluster) else { return };
        let (bootstrap, services) = (launch.bootstrap, launch.services.clone());
        let item = || format!("bootstrap of {subcluster}");
        let called = transact(&mut self.db, &self.config, now, step, item, |turn| {
            send_bootstrap(turn, subcluster, bootstrap, &services)
        });
        match called {
            Ok(Err(refusal)) => self.fail_launch(now, subcluster, refusal, step),
            Ok(Ok(kp)) => {
                if let Some(launch) = self.volatile.launches.get_mut(&subcluster) {
                    launch.result = Some(kp);
                }
            }
            Err(reason) => self.fail_launch(now, subcluster, Refusal::Internal(reason), step),
        }
    }

    fn finish_launch(
        &mut self,
        now: Millis,
        subcluster: SubclusterId,
        kp: PromiseId,
        step: &mut Step,
    ) -> bool {
        let turn = Turn::begin(&mut self.db, &self.config, now);
        let settled = match notify::value_of(&turn.tx, kp) {
            Ok(settled) => settled.map(|(rejected, value)| (rejected, value.clone())),
            Err(_) => None,
        };
        drop(turn);
        let Some((rejected, value)) = settled else { return false };
        if rejected || matches!(decode(&value), Ok(Value::Error { .. })) {
            self.fail_launch(now, subcluster, Refusal::BootstrapRejected(value), step);
        } else {
            self.succeed(now, subcluster, Some(value), step);
        }
        true
    }

    fn succeed(
        &mut self,
        now: Millis,
        subcluster: SubclusterId,
        value: Option<CapData<KRef>>,
        step: &mut Step,
    ) {
        let Some(launch) = self.volatile.launches.remove(&subcluster) else { return };
        let item = || format!("end of the launch of {subcluster}");
        let done = transact(&mut self.db, &self.config, now, step, item, |turn| {
            for &slot in value.iter().flat_map(|value| &value.slots) {
                promise::hand_out(&mut turn.tx, slot)?;
            }
            release_result(turn, launch.result)?;
            let mut vats = Vec::new();
            for vat in vat::members(&turn.tx, subcluster) {
                let root = vat::root(&turn.tx, vat).ok_or(Corrupt::NoEndpoint(vat.into()))?;
                promise::hand_out(&mut turn.tx, KRef::Object(root))?;
                vats.push((vat::row(&turn.tx, vat)?.name.clone(), vat, root));
            }
            let root = vats.iter().find(|(_, vat, _)| *vat == launch.bootstrap).map(|(_, _, root)| *root);
            if root.is_some() {
                turn.tx.update::<Subclusters, _>(&subcluster, |row| row.launching = false);
            }
            Ok((root, vats))
        });
        match done {
            Ok((Some(root), vats)) => {
                let launched = Answer::Launched { subcluster, root, bootstrap_result: value, vats };
                answer(step, launch.request, Ok(launched));
            }
            // The bootstrap vat ended itself while it answered: nothing is left to hand out.
            Ok((None, _)) => {
                self.remove_subcluster(now, subcluster, "launch failed", step);
                let refusal = Refusal::LaunchFailed("the bootstrap vat has ended".into());
                answer(step, launch.request, Err(refusal));
            }
            Err(reason) => answer(step, launch.request, Err(Refusal::Internal(reason))),
        }
    }
}

fn answer(step: &mut Step, request: RequestId, answer: Result<Answer, Refusal>) {
    step.effects.push(Effect::Answer { request, answer });
}

fn release_result(turn: &mut Turn<'_>, result: Option<PromiseId>) -> Result<(), Corrupt> {
    result
        .map_or(Ok(()), |kp| promise::release_for_control(&mut turn.tx, KRef::Promise(kp), HoldKind::Waiting))
}

type Begun = (SubclusterId, BTreeSet<VatId>, VatId);

fn begin(
    turn: &mut Turn<'_>,
    config: &LaunchConfig,
    system: Option<Arc<str>>,
) -> Result<Result<Begun, Refusal>, Corrupt> {
    if let Some(name) = &system
        && turn.tx.iter::<Subclusters>().any(|(_, row)| row.system.as_ref() == Some(name))
    {
        return Ok(Err(Refusal::BadConfig(format!("there is a system subcluster {name:?} already"))));
    }
    let names: BTreeSet<_> = config.vats.iter().map(|vat| vat.name.clone()).collect();
    if names.len() != config.vats.len() {
        return Ok(Err(Refusal::BadConfig("invalid cluster config: two vats have one name".into())));
    }
    if !names.contains(&config.bootstrap) {
        let text = format!("invalid bootstrap vat name {:?}", config.bootstrap);
        return Ok(Err(Refusal::BadConfig(text)));
    }
    if let Err(refusal) = check_services(&turn.tx, &config.services, system.is_some()) {
        return Ok(Err(refusal));
    }
    let subcluster = SubclusterId(turn.next_number("subcluster"));
    let row = SubclusterRow {
        bootstrap: config.bootstrap.clone(),
        config: config.text.clone(),
        launching: true,
        system,
    };
    turn.tx.put::<Subclusters>(subcluster, row);
    let mut vats = BTreeSet::new();
    let mut bootstrap = None;
    for vat_config in &config.vats {
        let vat = vat::create(turn, subcluster, vat_config)?;
        vats.insert(vat);
        if vat_config.name == config.bootstrap {
            bootstrap = Some(vat);
        }
    }
    let bootstrap = bootstrap.ok_or(Corrupt::Impossible("no bootstrap vat"))?;
    Ok(Ok((subcluster, vats, bootstrap)))
}

fn send_bootstrap(
    turn: &mut Turn<'_>,
    subcluster: SubclusterId,
    bootstrap: VatId,
    services: &BTreeSet<Arc<str>>,
) -> Result<Result<PromiseId, Refusal>, Corrupt> {
    let system = turn.tx.get::<Subclusters>(&subcluster).is_some_and(|row| row.system.is_some());
    if let Err(refusal) = check_services(&turn.tx, services, system) {
        return Ok(Err(refusal));
    }
    let mut roots: Vec<(String, Value<KRef>)> = Vec::new();
    for vat in vat::members(&turn.tx, subcluster) {
        let name = turn.tx.get::<Vats>(&vat).map(|row| row.name.clone()).unwrap_or_else(|| Arc::from(""));
        if let Some(root) = vat::root(&turn.tx, vat) {
            let slot = KRef::Object(root);
            roots.push((name.to_string(), Value::Object { slot, iface: Some("vatRoot".into()) }));
        }
    }
    let mut given: Vec<(String, Value<KRef>)> = Vec::new();
    for name in services {
        let slot = KRef::Object(service::object(&mut turn.tx, name)?);
        given.push((name.to_string(), Value::Object { slot, iface: Some("KernelService".into()) }));
    }
    let arguments = Value::Array(vec![Value::Record(roots), Value::Record(given)]);
    let methargs = encode(&Value::Array(vec![Value::String("bootstrap".into()), arguments]));
    let target = vat::root(&turn.tx, bootstrap).ok_or(Corrupt::NoEndpoint(bootstrap.into()))?;
    let kp = send_for_control(turn, target, methargs)?;
    promise::hold_for_control(&mut turn.tx, KRef::Promise(kp), HoldKind::Waiting)?;
    Ok(Ok(kp))
}

/// Every service asked for must have code in this process, and be meant for such a subcluster.
fn check_services<'s>(
    tx: &Tx<'_>,
    names: impl IntoIterator<Item = &'s Arc<str>>,
    system: bool,
) -> Result<(), Refusal> {
    match names.into_iter().find(|name| !service::is_offered(tx, name, system)) {
        Some(name) => Err(Refusal::BadConfig(format!("no registered kernel service '{name}'"))),
        None => Ok(()),
    }
}

/// Queues a message of the control surface; nobody decides its result until delivery.
pub(crate) fn send_for_control(
    turn: &mut Turn<'_>,
    target: impl Into<KRef>,
    methargs: CapData<KRef>,
) -> Result<PromiseId, Corrupt> {
    let kp = promise::create(&mut turn.tx, None);
    let item = SendItem { target: target.into(), methargs, result: Some(kp) };
    queue::enqueue_send(&mut turn.tx, item)?;
    Ok(kp)
}
