//! The host of scripted vats for one process life: executes dispatches, makes the inputs that answer them.

use crate::scripted::{Call, Desk, Script, program};
use capstan_kernel::effect::Dispatch;
use capstan_kernel::input::Input;
use capstan_model::id::VatId;
use capstan_model::refs::VRef;
use capstan_model::smallcaps::{Value, decode};
use capstan_model::vat::{DeliveryId, VatDelivery, VatFault, VatIncarnation, VatReply, VatStart, VatStarted};
use std::collections::BTreeMap;
use std::sync::Arc;

/// All running vats of one process.
#[derive(Debug, Default)]
pub(crate) struct Vats {
    running: BTreeMap<VatId, Running>,
    /// What the desks of its vats say.
    lineage: u64,
}

#[derive(Debug)]
struct Running {
    incarnation: VatIncarnation,
    script: Box<dyn Script>,
    store: BTreeMap<Arc<str>, Arc<str>>,
    /// Deliveries that wait until the vat is resumed; `None`: it runs.
    paused: Option<Vec<(DeliveryId, VatDelivery)>>,
    lineage: u64,
}

impl Vats {
    /// No vats yet; their desks will say which `lineage` it is.
    pub(crate) fn of(lineage: u64) -> Self {
        Vats { lineage, ..Vats::default() }
    }

    /// Executes one dispatch; what it returns is to reach the kernel later, in this order.
    pub(crate) fn execute(&mut self, dispatch: Dispatch) -> Vec<Input> {
        match dispatch {
            Dispatch::Start(start) => vec![self.start(start)],
            Dispatch::Deliver { vat, incarnation, batch } => {
                let Some(running) = self.running.get_mut(&vat).filter(|run| run.incarnation == incarnation)
                else {
                    return Vec::new();
                };
                if let Some(waiting) = &mut running.paused {
                    waiting.extend(batch);
                    return Vec::new();
                }
                running.answer(vat, batch)
            }
            Dispatch::Stop { vat, incarnation } => {
                if self.running.get(&vat).is_some_and(|run| run.incarnation == incarnation) {
                    self.running.remove(&vat);
                }
                Vec::new()
            }
        }
    }

    fn start(&mut self, start: VatStart) -> Input {
        let VatStart { vat, incarnation, code, store, .. } = start;
        let Some(program) = program(&code.text) else {
            return Input::VatStarted { vat, incarnation, result: Err(format!("no script {}", code.text)) };
        };
        let store = store.into_iter().collect();
        let lineage = self.lineage;
        let running = Running { incarnation, script: (program.make)(), store, paused: None, lineage };
        self.running.insert(vat, running);
        let started =
            VatStarted { syscalls: Vec::new(), store: Default::default(), root_methods: Vec::new() };
        Input::VatStarted { vat, incarnation, result: Ok(started) }
    }

    /// Keeps the vat's deliveries unanswered.
    pub(crate) fn pause(&mut self, vat: VatId) {
        if let Some(running) = self.running.get_mut(&vat) {
            running.paused.get_or_insert_default();
        }
    }

    /// Answers what waited.
    pub(crate) fn resume(&mut self, vat: VatId) -> Vec<Input> {
        let Some(running) = self.running.get_mut(&vat) else { return Vec::new() };
        let waiting = running.paused.take().unwrap_or_default();
        running.answer(vat, waiting)
    }

    /// Ends the vat's worker without an answer.
    pub(crate) fn kill(&mut self, vat: VatId, why: &str) -> Option<Input> {
        let running = self.running.remove(&vat)?;
        let fault = VatFault::WorkerDied(why.to_owned());
        Some(Input::VatDied { vat, incarnation: running.incarnation, fault })
    }
}

impl Running {
    fn answer(&mut self, vat: VatId, batch: Vec<(DeliveryId, VatDelivery)>) -> Vec<Input> {
        let incarnation = self.incarnation;
        let mut inputs = Vec::new();
        for (id, delivery) in batch {
            let (reply, wakes) = self.deliver(delivery);
            inputs.push(Input::VatReplied { vat, incarnation, replies: vec![(id, reply)] });
            if wakes {
                inputs.push(Input::VatWoken { vat, incarnation });
            }
        }
        inputs
    }

    /// Runs one delivery; says whether the vat then wants to be woken.
    fn deliver(&mut self, delivery: VatDelivery) -> (VatReply, bool) {
        let mut desk = Desk::over(&mut self.store, self.lineage);
        match delivery {
            VatDelivery::Message { target, message } => {
                let (method, args) = match decode(&message.methargs) {
                    Ok(Value::Array(parts)) => {
                        let mut parts = parts.into_iter();
                        match (parts.next(), parts.next()) {
                            (Some(Value::String(method)), Some(Value::Array(args))) => (method, args),
                            _ => (String::new(), Vec::new()),
                        }
                    }
                    Ok(_) | Err(_) => (String::new(), Vec::new()),
                };
                self.script.called(&mut desk, Call { target, method, args, result: message.result });
            }
            VatDelivery::Notify(settled) => self.script.notified(&mut desk, settled),
            VatDelivery::Wake => self.script.woken(&mut desk),
            VatDelivery::RetireImports(gone) => {
                forget(&mut desk, &gone);
                note(&mut desk, "retired", &gone);
                self.script.retired(&mut desk, &gone);
            }
            VatDelivery::DropExports(names) => note(&mut desk, "dropped there", &names),
            VatDelivery::RetireExports(names) => note(&mut desk, "retired there", &names),
            VatDelivery::BringOutYourDead => note(&mut desk, "reaped", &[]),
        }
        let wakes = desk.wakes;
        let (syscalls, store) = desk.done();
        (VatReply { syscalls, store, outcome: Ok(()) }, wakes)
    }
}

/// Appends what the vat was told about garbage to what it was told before.
fn note(desk: &mut Desk<'_>, what: &str, names: &[VRef]) {
    let told = desk.get("garbage");
    let names = names.iter().map(|name| format!(" {name}")).collect::<String>();
    let more = told.map_or(String::new(), |told| format!("{told}, "));
    desk.set("garbage", &format!("{more}{what}{names}"));
}

/// Counts what was retired, so that a test can see it.
fn forget(desk: &mut Desk<'_>, gone: &[VRef]) {
    for vref in gone {
        desk.set(&format!("retired.{vref}"), "yes");
    }
}
