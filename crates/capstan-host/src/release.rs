//! Executes effects whose batch is durable: the only place from which anything leaves (law L3).

use crate::driver::Post;
use crate::log;
use crate::network::Network;
use crate::services::{Order, Registry};
use capstan_kernel::effect::Effect;
use capstan_kernel::host_op::{Answer, Refusal};
use capstan_kernel::input::RequestId;
use capstan_model::peer::Incarnation;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use tokio::sync::{oneshot, watch};

/// How a request is answered.
pub(crate) type Waiter = oneshot::Sender<Result<Answer, Refusal>>;

/// Something to be done once its batch is durable.
#[derive(Debug)]
pub(crate) enum Held {
    /// An order of the kernel.
    Effect(Effect),
    /// The kernel began a new life.
    Life(Incarnation),
}

impl Held {
    /// Whether somebody waits for it.
    pub(crate) fn is_pressing(&self) -> bool {
        !matches!(self, Held::Effect(Effect::Log { .. }))
    }
}

/// Those who are told.
pub(crate) struct Outlets {
    pub(crate) network: Option<Arc<Network>>,
    pub(crate) waiters: BTreeMap<RequestId, Waiter>,
    pub(crate) life: watch::Sender<Incarnation>,
    pub(crate) services: Registry,
    /// To answer calls of services that are gone.
    pub(crate) inbox: Sender<Post>,
}

impl Outlets {
    /// Executes one effect. Never blocks; who is gone is not told.
    pub(crate) fn execute(&mut self, held: Held) {
        match held {
            Held::Effect(Effect::Answer { request, answer }) => {
                if let Some(waiter) = self.waiters.remove(&request) {
                    let _ = waiter.send(answer);
                }
            }
            Held::Effect(Effect::Link(order)) => {
                if let Some(network) = &self.network {
                    network.order(order);
                }
            }
            Held::Effect(Effect::ServiceCall { call, service, methargs }) => {
                if !self.services.pass(&service, Order { call, methargs }) {
                    let outcome = Err(format!("kernel service '{service}' is gone"));
                    let _ = self.inbox.send(Post::Served { call, outcome });
                }
            }
            // Done by the driver, which knows whether the vat still lives.
            Held::Effect(Effect::Fetch { .. } | Effect::Look { .. }) => {}
            Held::Effect(Effect::Log { level, text }) => log::kernel(level, &text),
            Held::Life(life) => {
                self.life.send_replace(life);
            }
        }
    }

    /// Tells all who still wait that nothing will come.
    pub(crate) fn refuse_all(&mut self, why: &str) {
        for waiter in std::mem::take(&mut self.waiters).into_values() {
            let _ = waiter.send(Err(Refusal::Internal(why.to_owned())));
        }
    }
}
