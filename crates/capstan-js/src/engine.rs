//! One vat: an engine with its realm, brought up, given deliveries one by one.

use crate::desk::{self, Desk, SharedDesk};
use crate::endow::{self, SharedTimers};
use crate::limits::{CountingAllocator, Fuse};
use crate::modules::{Gate, Shelf, is_ours};
use crate::places::Places;
use crate::program::load;
use crate::rejections;
use crate::workers::Report;
use capstan_model::capdata::{Message, Resolution};
use capstan_model::fetch::{FetchOutcome, FetchResponse};
use capstan_model::file::FileOutcome;
use capstan_model::refs::VRef;
use capstan_model::vat::{Endowments, VatDelivery, VatFault, VatReply, VatStart, VatStarted};
use rquickjs::function::IntoArgs;
use rquickjs::promise::PromiseState;
use rquickjs::{
    CatchResultExt, CaughtError, Context, Ctx, Function, Module, Object, Persistent, Promise, Runtime,
    TypedArray, Value,
};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// The tiny source module that links the compiled ones.
pub(crate) const BOOT: &str = "capstan:boot";

/// Depth of the engine's stack, within the worker thread's.
const STACK_BYTES: usize = 6 << 20;
/// A fresh vat's heap is below this, so that short-lived vats never collect.
const GC_THRESHOLD_BYTES: usize = 1 << 20;
/// Collections in one `bringOutYourDead`; each can only uncover what the one before let go.
const COLLECTIONS_MAX: usize = 16;

/// What came of a request that went out: when, of which.
type Answer = (Instant, u64, Came);

/// The answer itself.
pub(crate) enum Came {
    /// Of the web.
    Fetched(FetchOutcome),
    /// Of the disk.
    Looked(FileOutcome),
}

/// A running vat. After a reply with a fault it must be dropped.
pub(crate) struct Engine {
    // Before `context`: it must be released while the realm lives.
    runtime_side: Persistent<Object<'static>>,
    context: Context,
    runtime: Runtime,
    fuse: Arc<Fuse>,
    desk: SharedDesk,
    timers: SharedTimers,
    /// What was answered, until the vat is woken.
    answers: VecDeque<Answer>,
}

impl Engine {
    /// Brings a vat up: realm, code, `buildRootObject`. The text of an error is the reason as users see it.
    pub(crate) fn start(start: VatStart, report: &Report) -> Result<(Engine, VatStarted), String> {
        endow::check(start.vat, &start.endowments, report.surroundings.allowed_globals.as_deref())?;
        let fuse = Fuse::new(start.limits);
        let timers = SharedTimers::default();
        let places = Places::default();
        let desk = Desk::new(fuse.clone(), start.store);
        let failed = |why: rquickjs::Error| format!("cannot make an engine: {why}");
        let runtime = Runtime::new_with_alloc(CountingAllocator(fuse.clone())).map_err(failed)?;
        runtime.set_max_stack_size(STACK_BYTES);
        runtime.set_gc_threshold(GC_THRESHOLD_BYTES);
        let closed = Arc::new(AtomicBool::new(false));
        runtime.set_loader(Gate { closed: closed.clone() }, Shelf);
        let meter = fuse.clone();
        runtime.set_interrupt_handler(Some(Box::new(move || meter.must_stop())));
        rejections::watch(&runtime);
        let context = Context::full(&runtime).map_err(failed)?;
        fuse.arm();
        let started = context.with(|ctx| {
            let _emptied = rejections::Emptied;
            let host = desk::host_object(&ctx, &desk, start.vat, report, &places).map_err(failed)?;
            endow::natives(&ctx, &host, &start.endowments, &timers, &report.surroundings.exists)
                .map_err(failed)?;
            let bring_up = || {
                let text = |caught| placed_text(caught, &places);
                let side = boot(&ctx, host, &start.endowments)?;
                let build = load(&ctx, &start.code, &places, &closed, &fuse)?;
                let start_vat: Function = side.get("start").catch(&ctx).map_err(text)?;
                let parameters = start.parameters.as_deref();
                let promise: Promise =
                    start_vat.call((build, parameters_value(&ctx, parameters)?)).catch(&ctx).map_err(text)?;
                let names = settled(&ctx, &promise, &fuse, &places, "buildRootObject unresolved");
                rejections::report(&ctx, &side);
                let names: String = names?.get().catch(&ctx).map_err(text)?;
                Ok((Persistent::save(&ctx, side), names))
            };
            let outcome = bring_up();
            match fuse.violation() {
                Some(limit) => Err(limit),
                None => outcome,
            }
        });
        fuse.disarm();
        let (runtime_side, names) = started?;
        let (syscalls, store) = Desk::take(&desk);
        let root_methods = names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Ok((
            Engine { runtime_side, context, runtime, fuse, desk, timers, answers: VecDeque::new() },
            VatStarted { syscalls, store, root_methods },
        ))
    }

    /// Executes one delivery until the vat has nothing left to do.
    pub(crate) fn deliver(&mut self, delivery: VatDelivery) -> VatReply {
        let answers =
            if delivery == VatDelivery::Wake { std::mem::take(&mut self.answers) } else { VecDeque::new() };
        self.fuse.arm();
        let outcome = self.context.with(|ctx| {
            let _emptied = rejections::Emptied;
            let side = self.runtime_side.clone().restore(&ctx).map_err(|why| why.to_string())?;
            let done = match delivery {
                VatDelivery::Wake => self.wake(&ctx, &side, answers),
                delivery => apply(&ctx, &side, &self.fuse, delivery),
            };
            drain(&ctx, &self.fuse);
            rejections::report(&ctx, &side);
            drain(&ctx, &self.fuse);
            done
        });
        self.fuse.disarm();
        let outcome = match (self.fuse.violation(), outcome) {
            (Some(limit), _) => Err(VatFault::Limit(limit)),
            (None, Err(why)) => Err(VatFault::Runtime(why)),
            (None, Ok(())) => Ok(()),
        };
        let (syscalls, store) = Desk::take(&self.desk);
        VatReply { syscalls, store, outcome }
    }

    /// Runs what is due, each to the end before the next. What comes due meanwhile waits for the next time, so that
    /// a timer that sets another without delay holds up nobody.
    fn wake<'js>(&self, ctx: &Ctx<'js>, side: &Object<'js>, answers: VecDeque<Answer>) -> Result<(), String> {
        for (_, id, came) in answers {
            match came {
                Came::Fetched(outcome) => fetched(ctx, side, id, outcome)?,
                Came::Looked(outcome) => looked(ctx, side, id, outcome)?,
            }
            drain(ctx, &self.fuse);
        }
        let due = endow::lock(&self.timers).due(Instant::now());
        due.into_iter().try_for_each(|id| {
            call(ctx, side, "fire", (id,))?;
            drain(ctx, &self.fuse);
            Ok(())
        })
    }

    /// Returns when the vat next has something to do by itself.
    pub(crate) fn next_alarm(&self) -> Option<Instant> {
        match self.answers.front() {
            Some((came, ..)) => Some(*came),
            None => endow::lock(&self.timers).next(),
        }
    }

    /// What its heap takes now.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.fuse.heap_bytes()
    }

    /// Its timers, which are to be cleared when it ends.
    pub(crate) fn timers(&self) -> SharedTimers {
        self.timers.clone()
    }

    /// Keeps an answer until the vat is woken.
    pub(crate) fn keep(&mut self, id: u64, came: Came) {
        self.answers.push_back((Instant::now(), id, came));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Finalisers and queued jobs of a vat that is going away must not run; only memory is given back.
        self.runtime.set_interrupt_handler(None);
    }
}

fn boot<'js>(ctx: &Ctx<'js>, host: Object<'js>, endowments: &Endowments) -> Result<Object<'js>, String> {
    // What a vat is given must be offered before the realm is closed.
    let mut source = String::new();
    for module in endow::modules(endowments) {
        source += &format!("export * from '{module}'; ");
    }
    source += "export * from 'capstan:liveslots';";
    let run = || {
        ctx.globals().set("__host", host)?;
        let (module, done) = Module::declare(ctx.clone(), BOOT, source)?.eval()?;
        done.finish::<()>()?;
        module.namespace()
    };
    run().catch(ctx).map_err(text)
}

fn parameters_value<'js>(ctx: &Ctx<'js>, parameters: Option<&str>) -> Result<Value<'js>, String> {
    use rquickjs::IntoJs as _;
    match parameters {
        Some(json) => json.into_js(ctx).catch(ctx).map_err(text),
        None => Ok(Value::new_undefined(ctx.clone())),
    }
}

/// Runs the vat until it is idle, then takes what `promise` came to.
pub(crate) fn settled<'js>(
    ctx: &Ctx<'js>,
    promise: &Promise<'js>,
    fuse: &Fuse,
    places: &Places,
    unresolved: &str,
) -> Result<Value<'js>, String> {
    drain(ctx, fuse);
    rejections::heard(ctx, promise);
    match promise.state() {
        PromiseState::Pending => Err(unresolved.to_owned()),
        PromiseState::Resolved | PromiseState::Rejected => {
            let result = promise.result::<Value>().unwrap_or(Err(rquickjs::Error::WouldBlock));
            result.catch(ctx).map_err(|caught| placed_text(caught, places))
        }
    }
}

fn drain(ctx: &Ctx<'_>, fuse: &Fuse) {
    while !fuse.must_stop() && ctx.execute_pending_job() {}
}

fn apply<'js>(ctx: &Ctx<'js>, side: &Object<'js>, fuse: &Fuse, delivery: VatDelivery) -> Result<(), String> {
    match delivery {
        VatDelivery::Message { target, message: Message { methargs, result } } => {
            let result = result.map_or_else(String::new, |vref| vref.to_string());
            call(ctx, side, "message", (target.to_string(), &*methargs.body, joined(&methargs.slots), result))
        }
        VatDelivery::Notify(batch) => {
            for Resolution { promise, rejected, value } in batch {
                call(
                    ctx,
                    side,
                    "noticeOne",
                    (promise.to_string(), rejected, &*value.body, joined(&value.slots)),
                )?;
            }
            call(ctx, side, "notice", ())
        }
        // Done by `Engine::wake`, which has the timers.
        VatDelivery::Wake => Ok(()),
        VatDelivery::DropExports(list) => call(ctx, side, "dropExports", (joined(&list),)),
        VatDelivery::RetireExports(list) => call(ctx, side, "retireExports", (joined(&list),)),
        VatDelivery::RetireImports(list) => call(ctx, side, "retireImports", (joined(&list),)),
        VatDelivery::BringOutYourDead => {
            let count = || -> Result<u32, String> {
                ctx.run_gc();
                drain(ctx, fuse);
                side.get::<_, Function>("deadCount").and_then(|count| count.call(())).catch(ctx).map_err(text)
            };
            let mut before = count()?;
            for _ in 0..COLLECTIONS_MAX {
                let now = count()?;
                if now == before {
                    break;
                }
                before = now;
            }
            call(ctx, side, "buryDead", ())
        }
    }
}

fn call<'js>(ctx: &Ctx<'js>, side: &Object<'js>, name: &str, args: impl IntoArgs<'js>) -> Result<(), String> {
    let function: Function = side.get(name).catch(ctx).map_err(text)?;
    function.call::<_, ()>(args).catch(ctx).map_err(text)
}

/// Tells the vat what came of a request.
fn fetched<'js>(ctx: &Ctx<'js>, side: &Object<'js>, id: u64, outcome: FetchOutcome) -> Result<(), String> {
    let id = id as f64;
    let FetchResponse { status, url, redirected, headers, body } = match outcome {
        Ok(response) => response,
        Err(why) => return call(ctx, side, "failed", (id, why)),
    };
    let headers: Vec<String> =
        headers.iter().flat_map(|(name, value)| [name.to_string(), value.to_string()]).collect();
    let body = TypedArray::new_copy(ctx.clone(), body).catch(ctx).map_err(text)?;
    call(ctx, side, "fetched", (id, status, url, redirected, headers, body))
}

/// Tells the vat what was found of a file.
fn looked<'js>(ctx: &Ctx<'js>, side: &Object<'js>, id: u64, outcome: FileOutcome) -> Result<(), String> {
    let (bytes, why) = outcome.map_or_else(|why| (Vec::new(), why), |bytes| (bytes, String::new()));
    let bytes = TypedArray::new_copy(ctx.clone(), bytes).catch(ctx).map_err(text)?;
    call(ctx, side, "looked", (id as f64, bytes, why))
}

fn joined(vrefs: &[VRef]) -> String {
    let mut list = String::new();
    for (i, vref) in vrefs.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(list, "{}{vref}", if i == 0 { "" } else { "," });
    }
    list
}

/// What a thrown value says: an error's message, anything else as text.
fn text(caught: CaughtError<'_>) -> String {
    match caught {
        CaughtError::Exception(exception) => {
            exception.message().unwrap_or_else(|| "unknown error".to_owned())
        }
        CaughtError::Value(value) => {
            value.as_string().and_then(|text| text.to_string().ok()).unwrap_or_else(|| format!("{value:?}"))
        }
        CaughtError::Error(why) => why.to_string(),
    }
}

/// The same with the place in the vat's sources where an error was made.
pub(crate) fn placed_text(caught: CaughtError<'_>, places: &Places) -> String {
    let stack = match &caught {
        CaughtError::Exception(exception) => exception.stack(),
        CaughtError::Value(_) | CaughtError::Error(_) => None,
    };
    let text = text(caught);
    match stack.and_then(|stack| first_place(&places.traced(&stack))) {
        Some(place) => format!("{text} ({place})"),
        None => text,
    }
}

/// The first `file:line:column` of a stack that is not the runtime's own.
fn first_place(stack: &str) -> Option<String> {
    let mut places = stack.lines().filter_map(|line| {
        let place = line.trim_end().trim_end_matches(')');
        let place = place.rsplit_once('(').or_else(|| place.rsplit_once("at "))?.1;
        let mut parts = place.rsplitn(3, ':');
        let numbers = [parts.next()?, parts.next()?];
        let file = parts.next()?;
        let is_number = |text: &str| text.parse::<u32>().is_ok_and(|number| number > 0);
        let ours = file.starts_with("capstan:") || is_ours(file);
        (numbers.into_iter().all(is_number) && !ours).then(|| place.to_owned())
    });
    places.next()
}
