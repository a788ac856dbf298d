//! The parent: a child process for each vat, and the orders and events of all.

use crate::frame;
use crate::said::{Order, Told};
use capstan_js::VatEvent;
use capstan_model::fetch::FetchOutcome;
use capstan_model::file::FileOutcome;
use capstan_model::id::VatId;
use capstan_model::program::Program;
use capstan_model::vat::{
    DeliveryId, FileAccess, VatDelivery, VatFault, VatIncarnation, VatLimits, VatStart,
};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, WeakUnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;
use tokio::time::{Instant, interval};

/// The child watches its own vat. One that does not answer even so has this much after the deadlines.
const GRACE: Duration = Duration::from_secs(5);
/// How long a process may take to come up, beside the vat's own deadline.
const SPAWN_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(250);

type Sink = Arc<dyn Fn(VatEvent) + Send + Sync>;

/// One run of a vat, as long as it is wanted.
struct Run {
    incarnation: VatIncarnation,
    orders: UnboundedSender<Order>,
    /// Ends the task and with it the process.
    task: AbortHandle,
}

type Runs = Arc<Mutex<BTreeMap<VatId, Run>>>;

/// Vats in processes of their own; orders and events are those of `capstan_js::Workers`.
pub struct Processes {
    runtime: Handle,
    program: Program,
    allowed_globals: Option<Vec<Arc<str>>>,
    sink: Sink,
    runs: Runs,
}

impl Processes {
    /// Vats will run `program`, which is to call [`serve`](crate::serve) on its standard input and output, attended to by tasks of `runtime`. They may ask for no globals but `allowed_globals`;
    /// `None`: for all. The sink must not block for long and must not panic.
    pub fn new(
        runtime: Handle,
        program: Program,
        allowed_globals: Option<Vec<Arc<str>>>,
        sink: impl Fn(VatEvent) + Send + Sync + 'static,
    ) -> Self {
        Processes { runtime, program, allowed_globals, sink: Arc::new(sink), runs: Runs::default() }
    }

    /// Brings a vat up; answered by [`VatEvent::Started`]. An earlier run of the same vat is ended first.
    pub fn start(&self, start: VatStart) {
        let (vat, incarnation, limits) = (start.vat, start.incarnation, start.limits);
        let (orders, queue) = unbounded_channel();
        let files = start.endowments.files.clone().filter(|files| files.exists_sync);
        // The receiver is here.
        let _ = orders
            .send(Order::Start { start: Box::new(start), allowed_globals: self.allowed_globals.clone() });
        let answers = orders.downgrade();
        let (sink, runs) = (self.sink.clone(), self.runs.clone());
        let cell = Cell { vat, incarnation, limits, files, answers, sink, runs };
        let program = self.program.clone();
        let mut runs = lock(&self.runs);
        let task = self.runtime.spawn(cell.attend(program, queue)).abort_handle();
        if let Some(old) = runs.insert(vat, Run { incarnation, orders, task }) {
            old.task.abort();
        }
    }

    /// Gives a vat a batch of deliveries; answered by one [`VatEvent::Replied`]. For a run that is over nothing happens.
    pub fn deliver(&self, vat: VatId, incarnation: VatIncarnation, batch: Vec<(DeliveryId, VatDelivery)>) {
        self.order(vat, incarnation, Order::Deliver(batch));
    }

    /// Gives a vat the answer to a request that it made with a `Fetch`.
    pub fn fetched(&self, vat: VatId, incarnation: VatIncarnation, id: u64, outcome: FetchOutcome) {
        self.order(vat, incarnation, Order::Fetched(id, outcome));
    }

    /// The same for what a vat asked with a `Look`.
    pub fn looked(&self, vat: VatId, incarnation: VatIncarnation, id: u64, outcome: FileOutcome) {
        self.order(vat, incarnation, Order::Looked(id, outcome));
    }

    /// Ends a run of a vat. No answer.
    pub fn stop(&self, vat: VatId, incarnation: VatIncarnation) {
        let mut runs = lock(&self.runs);
        if runs.get(&vat).is_some_and(|run| run.incarnation == incarnation)
            && let Some(run) = runs.remove(&vat)
        {
            run.task.abort();
        }
    }

    fn order(&self, vat: VatId, incarnation: VatIncarnation, order: Order) {
        if let Some(run) = lock(&self.runs).get(&vat).filter(|run| run.incarnation == incarnation) {
            // A run that has just ended says so itself.
            let _ = run.orders.send(order);
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for run in lock(&self.runs).values() {
            run.task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One run, seen from its task.
struct Cell {
    vat: VatId,
    incarnation: VatIncarnation,
    limits: VatLimits,
    /// What the vat may ask about while it waits.
    files: Option<FileAccess>,
    answers: WeakUnboundedSender<Order>,
    sink: Sink,
    runs: Runs,
}

/// What the child owes an answer to.
enum Owed {
    Start,
    Replies(u32),
}

/// The answers that are owed, in order, and since when the first of them is.
struct Debts {
    owed: VecDeque<Owed>,
    since: Instant,
    has_started: bool,
}

impl Debts {
    fn add(&mut self, debt: Owed) {
        if self.owed.is_empty() {
            self.since = Instant::now();
        }
        self.owed.push_back(debt);
    }

    fn settle(&mut self) -> Option<Owed> {
        self.since = Instant::now();
        self.owed.pop_front()
    }

    fn overdue(&self, limits: &VatLimits) -> bool {
        let deadline = Duration::from_millis(limits.crank_deadline_ms);
        let allowed = match self.owed.front() {
            None => return false,
            Some(Owed::Start) => deadline.saturating_add(SPAWN_MAX),
            Some(Owed::Replies(count)) => deadline.saturating_mul(*count),
        };
        self.since.elapsed() > allowed.saturating_add(GRACE)
    }
}

/// How a run ends.
enum End {
    /// The kernel was told of a fault, which ends the run.
    Told,
    /// The pipes closed: why, the process itself tells.
    Closed,
    Fault(VatFault),
}

impl Cell {
    async fn attend(self, program: Program, queue: UnboundedReceiver<Order>) {
        let debts = Mutex::new(Debts { owed: VecDeque::new(), since: Instant::now(), has_started: false });
        let end = match spawn(&program) {
            Err(error) => broken(format!("cannot start {}: {error}", program.path.display())),
            Ok((mut child, orders, told)) => {
                let end = tokio::select! {
                    end = give(queue, orders, &debts) => end,
                    end = self.hear(told, &debts) => end,
                    end = self.watch(&debts) => end,
                };
                match end {
                    End::Closed => broken(format!("the vat's process ended: {}", farewell(&mut child).await)),
                    End::Told | End::Fault(_) => end,
                }
            }
        };
        let Cell { vat, incarnation, .. } = self;
        let mut runs = lock(&self.runs);
        if runs.get(&vat).is_some_and(|run| run.incarnation == incarnation) {
            runs.remove(&vat);
        }
        drop(runs);
        let End::Fault(fault) = end else { return };
        if lock(&debts).has_started {
            (self.sink)(VatEvent::Died { vat, incarnation, fault });
        } else {
            (self.sink)(VatEvent::Started { vat, incarnation, result: Err(fault.to_string()) });
        }
    }

    /// Passes on what the child tells, as long as it is its turn to tell it.
    async fn hear(&self, mut told: ChildStdout, debts: &Mutex<Debts>) -> End {
        let Cell { vat, incarnation, .. } = *self;
        loop {
            let said = match frame::read_async::<Told>(&mut told).await {
                Ok(Some(said)) => said,
                Ok(None) => return End::Closed,
                Err(error) => return broken(format!("the vat's process said what it may not say: {error}")),
            };
            let event = match said {
                Told::Exists(path) => {
                    let Some(files) = self.files.clone().filter(|_| !lock(debts).owed.is_empty()) else {
                        return out_of_turn();
                    };
                    let look = move || capstan_js::exists(&files, &path);
                    let found = tokio::task::spawn_blocking(look).await;
                    let found = found.unwrap_or_else(|error| Err(format!("fs.existsSync: {error}")));
                    // A run that is not wanted any more needs no answer.
                    self.answers.upgrade().map(|answers| answers.send(Order::Exists(found)));
                    continue;
                }
                Told::Log { level, console, text } => VatEvent::Log { vat, level, console, text },
                Told::Woken => VatEvent::Woken { vat, incarnation },
                // It gave its own thread up, and cannot have another.
                Told::Died(fault) => return End::Fault(fault),
                Told::Started(result) => {
                    let mut debts = lock(debts);
                    if !matches!(debts.settle(), Some(Owed::Start)) {
                        return out_of_turn();
                    }
                    match result {
                        Ok(_) => debts.has_started = true,
                        Err(why) => return End::Fault(VatFault::Runtime(why)),
                    }
                    VatEvent::Started { vat, incarnation, result }
                }
                Told::Replied(replies) => {
                    if !matches!(lock(debts).settle(), Some(Owed::Replies(_))) {
                        return out_of_turn();
                    }
                    let failed = replies.iter().any(|(_, reply)| reply.outcome.is_err());
                    (self.sink)(VatEvent::Replied { vat, incarnation, replies });
                    if failed {
                        return End::Told;
                    }
                    continue;
                }
            };
            (self.sink)(event);
        }
    }

    /// Ends when an answer is long overdue.
    async fn watch(&self, debts: &Mutex<Debts>) -> End {
        let mut ticks = interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            if lock(debts).overdue(&self.limits) {
                return broken("the vat's process does not answer");
            }
        }
    }
}

/// Writes orders to the child as it takes them.
async fn give(mut queue: UnboundedReceiver<Order>, mut orders: ChildStdin, debts: &Mutex<Debts>) -> End {
    while let Some(order) = queue.recv().await {
        match &order {
            Order::Start { .. } => lock(debts).add(Owed::Start),
            Order::Deliver(batch) => {
                lock(debts).add(Owed::Replies(u32::try_from(batch.len()).unwrap_or(u32::MAX)));
            }
            Order::Fetched(..) | Order::Looked(..) | Order::Exists(..) => {}
        }
        let written = match frame::encode(&order) {
            Ok(frame) => orders.write_all(&frame).await,
            Err(error) => return broken(format!("cannot tell the vat's process: {error}")),
        };
        if written.is_err() {
            break;
        }
    }
    // It is gone, or is being ended; what it still said is heard to the end.
    std::future::pending().await
}

fn broken(why: impl Into<String>) -> End {
    End::Fault(VatFault::WorkerDied(why.into()))
}

fn out_of_turn() -> End {
    broken("the vat's process spoke out of turn")
}

/// Starts the program with nothing but its three streams.
fn spawn(program: &Program) -> io::Result<(Child, ChildStdin, ChildStdout)> {
    let mut child = Command::new(&program.path)
        .args(&program.arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let streams = child.stdin.take().zip(child.stdout.take());
    let (orders, told) = streams.ok_or(io::ErrorKind::BrokenPipe)?;
    Ok((child, orders, told))
}

/// How the process ended, waited for a moment.
async fn farewell(child: &mut Child) -> String {
    match tokio::time::timeout(GRACE, child.wait()).await {
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it closed its pipes".to_owned(),
    }
}
