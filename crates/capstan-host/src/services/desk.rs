//! Where calls wait for their service, and the task that serves them.

use super::{Answer, Call, Server, ServiceError};
use crate::driver::Post;
use crate::host::Inner;
use crate::start::Phase;
use capstan_kernel::input::CallId;
use capstan_model::capdata::CapData;
use capstan_model::id::KRef;
use capstan_model::smallcaps::encode;
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

/// A call on its way to its service. The kernel bounds how many there are.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) call: CallId,
    pub(crate) methargs: CapData<KRef>,
}

/// The services with code in this process, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry(Arc<Mutex<BTreeMap<Arc<str>, UnboundedSender<Order>>>>);

impl Registry {
    fn names(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, UnboundedSender<Order>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a place for the calls of a service; `None` if the name is taken.
    pub(crate) fn add(&self, name: &Arc<str>, server: Arc<dyn Server>) -> Option<Desk> {
        let (sender, orders) = unbounded_channel();
        let mut names = self.names();
        if names.contains_key(name) {
            return None;
        }
        names.insert(name.clone(), sender);
        Some(Desk { name: name.clone(), server, orders })
    }

    /// Takes no more calls for a service; those under way are finished.
    pub(crate) fn remove(&self, name: &str) {
        self.names().remove(name);
    }

    /// Passes a call on; `false`: there is no such service any more.
    pub(crate) fn pass(&self, service: &str, order: Order) -> bool {
        self.names().get(service).is_some_and(|sender| sender.send(order).is_ok())
    }
}

/// One service and the calls that wait for it.
pub(crate) struct Desk {
    name: Arc<str>,
    server: Arc<dyn Server>,
    orders: UnboundedReceiver<Order>,
}

impl Desk {
    /// Serves until the service is removed and its last call answered, or the host stops: then what is under way is
    /// dropped where it stands.
    pub(crate) fn open(self, host: Weak<Inner>, inbox: Sender<Post>, mut phase: watch::Receiver<Phase>) {
        tokio::spawn(async move {
            tokio::select! {
                () = self.serve(host, inbox) => {}
                _ = phase.wait_for(|phase| !matches!(phase, Phase::Running)) => {}
            }
        });
    }

    async fn serve(mut self, host: Weak<Inner>, inbox: Sender<Post>) {
        let mut calls = FuturesUnordered::new();
        let mut open = true;
        loop {
            tokio::select! {
                order = self.orders.recv(), if open => match order {
                    Some(order) => calls.push(one(self.name.clone(), self.server.clone(), host.clone(), order)),
                    None => open = false,
                },
                Some((call, outcome)) = calls.next(), if !calls.is_empty() => {
                    // Without a loop nobody needs to know.
                    let _ = inbox.send(Post::Served { call, outcome });
                }
                else => return,
            }
        }
    }
}

/// Serves one call; a panic of the service is its failure.
async fn one(
    name: Arc<str>,
    server: Arc<dyn Server>,
    host: Weak<Inner>,
    order: Order,
) -> (CallId, Result<CapData<KRef>, String>) {
    let Order { call, methargs } = order;
    let serving = async {
        let call = Call::new(name.clone(), &methargs, host)?;
        server.serve(call).await
    };
    let answer: Answer = AssertUnwindSafe(serving)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Err(ServiceError(format!("kernel service '{name}' failed"))));
    (call, answer.map(|value| encode(&value)).map_err(|error| error.to_string()))
}
