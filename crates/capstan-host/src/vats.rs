//! Where vats run: on threads of this process, or each in its own.

use crate::config::Isolation;
use capstan_jail::Processes;
use capstan_js::{OrderError, Surroundings, VatEvent, Workers};
use capstan_model::fetch::FetchOutcome;
use capstan_model::file::FileOutcome;
use capstan_model::id::VatId;
use capstan_model::vat::{DeliveryId, VatDelivery, VatIncarnation, VatStart};
use std::sync::Arc;
use tokio::runtime::Handle;

/// All vats of a host.
pub(crate) enum VatPool {
    Threads(Workers),
    Processes(Processes),
}

impl VatPool {
    /// Nothing runs yet. Must be called within a runtime.
    pub(crate) fn new(
        isolation: Isolation,
        threads: usize,
        allowed_globals: Option<Vec<Arc<str>>>,
        sink: impl Fn(VatEvent) + Send + Sync + 'static,
    ) -> Self {
        match isolation {
            Isolation::Threads => {
                let allowed_globals = allowed_globals.map(Into::into);
                let surroundings = Surroundings { allowed_globals, ..Surroundings::default() };
                VatPool::Threads(Workers::among(surroundings, threads, sink))
            }
            Isolation::Processes(program) => {
                VatPool::Processes(Processes::new(Handle::current(), program, allowed_globals, sink))
            }
        }
    }

    pub(crate) fn start(&self, start: VatStart) {
        match self {
            VatPool::Threads(workers) => told(workers.start(start)),
            VatPool::Processes(processes) => processes.start(start),
        }
    }

    pub(crate) fn deliver(
        &self,
        vat: VatId,
        incarnation: VatIncarnation,
        batch: Vec<(DeliveryId, VatDelivery)>,
    ) {
        match self {
            VatPool::Threads(workers) => told(workers.deliver(vat, incarnation, batch)),
            VatPool::Processes(processes) => processes.deliver(vat, incarnation, batch),
        }
    }

    pub(crate) fn fetched(&self, vat: VatId, incarnation: VatIncarnation, id: u64, outcome: FetchOutcome) {
        match self {
            VatPool::Threads(workers) => workers.fetched(vat, incarnation, id, outcome),
            VatPool::Processes(processes) => processes.fetched(vat, incarnation, id, outcome),
        }
    }

    pub(crate) fn looked(&self, vat: VatId, incarnation: VatIncarnation, id: u64, outcome: FileOutcome) {
        match self {
            VatPool::Threads(workers) => workers.looked(vat, incarnation, id, outcome),
            VatPool::Processes(processes) => processes.looked(vat, incarnation, id, outcome),
        }
    }

    pub(crate) fn stop(&self, vat: VatId, incarnation: VatIncarnation) {
        match self {
            VatPool::Threads(workers) => workers.stop(vat, incarnation),
            VatPool::Processes(processes) => processes.stop(vat, incarnation),
        }
    }
}

/// The kernel starts a run once and delivers to runs that it started, though it may not know yet that one has died.
fn told(order: Result<(), OrderError>) {
    if let Err(error) = order {
        tracing::debug!(%error, "an order to the vats' workers was not taken");
    }
}
