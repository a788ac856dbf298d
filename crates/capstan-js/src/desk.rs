//! Where one vat's syscalls and store changes collect during a delivery: the native functions its runtime calls.

use crate::endow;
use crate::freeze;
use crate::limits::{Fuse, Limit};
use crate::modules::load_late;
use crate::places::Places;
use crate::rows::Rows;
use crate::workers::{Report, VatEvent};
use capstan_model::capdata::{CapData, Message, Resolution};
use capstan_model::fetch::{FetchRequest, Redirects};
use capstan_model::file::{FileRequest, FileVerb};
use capstan_model::id::VatId;
use capstan_model::refs::VRef;
use capstan_model::vat::{StoreChanges, VatSyscall};
use rquickjs::function::Opt;
use rquickjs::promise::PromiseState;
use rquickjs::{Ctx, Exception, Function, Object, Promise, Result, TypedArray, Value};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

/// One vat's outgoing tray and its store.
pub(crate) struct Desk {
    fuse: Arc<Fuse>,
    syscalls: Vec<VatSyscall>,
    resolutions: Vec<Resolution<VRef>>,
    rows: Rows,
}

pub(crate) type SharedDesk = Arc<Mutex<Desk>>;

impl Desk {
    pub(crate) fn new(fuse: Arc<Fuse>, store: Vec<(Arc<str>, Arc<str>)>) -> SharedDesk {
        let (syscalls, resolutions, rows) = (Vec::new(), Vec::new(), Rows::new(store));
        Arc::new(Mutex::new(Desk { fuse, syscalls, resolutions, rows }))
    }

    /// Empties the tray.
    pub(crate) fn take(desk: &SharedDesk) -> (Vec<VatSyscall>, StoreChanges) {
        let mut desk = lock(desk);
        let store = desk.rows.take_changes();
        (mem::take(&mut desk.syscalls), store)
    }

    fn push(&mut self, syscall: VatSyscall) {
        if self.syscalls.len() >= self.fuse.limits.syscalls_max as usize {
            self.fuse.blow(Limit::Syscalls);
        } else {
            self.syscalls.push(syscall);
        }
    }

    fn set_row(&mut self, key: &str, value: &str) {
        if !self.rows.set(key, value, self.fuse.limits.store_bytes_max) {
            self.fuse.blow(Limit::Store);
        }
    }
}

fn lock(desk: &SharedDesk) -> std::sync::MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

fn vref(ctx: &Ctx<'_>, text: &str) -> Result<VRef> {
    text.parse().map_err(|why| Exception::throw_type(ctx, &format!("{why}")))
}

fn vrefs(ctx: &Ctx<'_>, list: &str) -> Result<Vec<VRef>> {
    list.split(',').filter(|text| !text.is_empty()).map(|text| vref(ctx, text)).collect()
}

fn capdata(ctx: &Ctx<'_>, body: String, slots: &str) -> Result<CapData<VRef>> {
    Ok(CapData { body: body.into(), slots: vrefs(ctx, slots)? })
}

/// Makes the object through which the runtime inside the realm reaches this desk. Vat code never sees it.
pub(crate) fn host_object<'js>(
    ctx: &Ctx<'js>,
    desk: &SharedDesk,
    vat: VatId,
    report: &Report,
    places: &Places,
) -> Result<Object<'js>> {
    let host = Object::new(ctx.clone())?;
    let limits = lock(desk).fuse.limits;
    host.set("vat", vat.to_string())?;
    host.set("bodyUnitsMax", limits.body_units_max as f64)?;
    host.set("slotsMax", f64::from(limits.slots_max))?;
    let fuse = lock(desk).fuse.clone();
    freeze::natives(ctx, &host, &fuse)?;
    syscalls(ctx, &host, desk)?;
    store(ctx, &host, desk)?;
    let (report, places) = (report.clone(), places.clone());
    // Whatever a line says of the program, stacks above all, it says of the program's sources.
    let log = move |level: String, text: String, console: Opt<bool>| {
        let text = places.traced(&text);
        report.send(VatEvent::Log { vat, level, console: console.0.unwrap_or(false), text });
    };
    host.set("log", Function::new(ctx.clone(), log)?)?;
    host.set("promiseState", Function::new(ctx.clone(), |promise: Promise<'_>| state_number(&promise))?)?;
    host.set("loadLate", Function::new(ctx.clone(), |ctx: Ctx<'_>, name: String| load_late(&ctx, &name))?)?;
    host.set("promiseResult", Function::new(ctx.clone(), promise_result)?)?;
    Ok(host)
}

fn state_number(promise: &Promise<'_>) -> i32 {
    match promise.state() {
        PromiseState::Pending => 0,
        PromiseState::Resolved => 1,
        PromiseState::Rejected => 2,
    }
}

/// Returns the value, or throws the reason, of a settled promise.
fn promise_result(promise: Promise<'_>) -> Result<Value<'_>> {
    promise.result().unwrap_or(Err(rquickjs::Error::WouldBlock))
}

fn syscalls<'js>(ctx: &Ctx<'js>, host: &Object<'js>, desk: &SharedDesk) -> Result<()> {
    let to = desk.clone();
    let send =
        move |ctx: Ctx<'_>, target: String, body: String, slots: String, result: String| -> Result<()> {
            let methargs = capdata(&ctx, body, &slots)?;
            let result = if result.is_empty() { None } else { Some(vref(&ctx, &result)?) };
            let message = Message { methargs, result };
            lock(&to).push(VatSyscall::Send { target: vref(&ctx, &target)?, message });
            Ok(())
        };
    host.set("send", Function::new(ctx.clone(), send)?)?;
    let to = desk.clone();
    let subscribe = move |ctx: Ctx<'_>, promise: String| -> Result<()> {
        lock(&to).push(VatSyscall::Subscribe(vref(&ctx, &promise)?));
        Ok(())
    };
    host.set("subscribe", Function::new(ctx.clone(), subscribe)?)?;
    let to = desk.clone();
    let resolve_one =
        move |ctx: Ctx<'_>, promise: String, rejected: bool, body: String, slots: String| -> Result<()> {
            let resolution =
                Resolution { promise: vref(&ctx, &promise)?, rejected, value: capdata(&ctx, body, &slots)? };
            lock(&to).resolutions.push(resolution);
            Ok(())
        };
    host.set("resolveOne", Function::new(ctx.clone(), resolve_one)?)?;
    let to = desk.clone();
    let resolve_done = move || {
        let mut desk = lock(&to);
        let batch = mem::take(&mut desk.resolutions);
        desk.push(VatSyscall::Resolve(batch));
    };
    host.set("resolveDone", Function::new(ctx.clone(), resolve_done)?)?;
    let to = desk.clone();
    let exit = move |ctx: Ctx<'_>, failure: bool, body: String, slots: String| -> Result<()> {
        let info = capdata(&ctx, body, &slots)?;
        lock(&to).push(VatSyscall::Exit { failure, info });
        Ok(())
    };
    host.set("exit", Function::new(ctx.clone(), exit)?)?;
    let to = desk.clone();
    let fetch = move |id: f64,
                      method: String,
                      url: String,
                      headers: Vec<String>,
                      body: Option<TypedArray<'_, u8>>,
                      redirects: String| {
        let mut texts = headers.into_iter();
        let mut pairs = Vec::new();
        while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
            pairs.push((name.into(), value.into()));
        }
        let request = FetchRequest {
            method: method.into(),
            url: url.into(),
            headers: pairs,
            body: body.as_ref().and_then(endow::bytes),
            redirects: match redirects.as_str() {
                "follow" => Redirects::Follow,
                "error" => Redirects::Error,
                "manual" => Redirects::Manual,
                _ => Redirects::SameHost,
            },
        };
        // Numbers of requests are small integers.
        lock(&to).push(VatSyscall::Fetch { id: id as u64, request: Box::new(request) });
    };
    host.set("fetch", Function::new(ctx.clone(), fetch)?)?;
    let to = desk.clone();
    let look = move |id: f64, verb: String, path: String| {
        let verb = if verb == "access" { FileVerb::Access } else { FileVerb::ReadFile };
        let request = FileRequest { verb, path: path.into() };
        lock(&to).push(VatSyscall::Look { id: id as u64, request });
    };
    host.set("lookAt", Function::new(ctx.clone(), look)?)?;
    let to = desk.clone();
    let gc = move |ctx: Ctx<'_>, what: String, list: String| -> Result<()> {
        let list = vrefs(&ctx, &list)?;
        lock(&to).push(match what.as_str() {
            "dropImports" => VatSyscall::DropImports(list),
            "retireImports" => VatSyscall::RetireImports(list),
            _ => VatSyscall::RetireExports(list),
        });
        Ok(())
    };
    host.set("gc", Function::new(ctx.clone(), gc)?)
}

fn store<'js>(ctx: &Ctx<'js>, host: &Object<'js>, desk: &SharedDesk) -> Result<()> {
    // An absent row is `undefined` in the realm.
    fn or_undefined<'js>(ctx: &Ctx<'js>, text: Option<String>) -> Result<Value<'js>> {
        use rquickjs::IntoJs as _;
        text.map_or_else(|| Ok(Value::new_undefined(ctx.clone())), |text| text.into_js(ctx))
    }
    let to = desk.clone();
    let get = move |ctx: Ctx<'js>, key: String| -> Result<Value<'js>> {
        let value = lock(&to).rows.get(&key).map(|value| value.to_string());
        or_undefined(&ctx, value)
    };
    host.set("storeGet", Function::new(ctx.clone(), get)?)?;
    let to = desk.clone();
    let set = move |key: String, value: String| lock(&to).set_row(&key, &value);
    host.set("storeSet", Function::new(ctx.clone(), set)?)?;
    let to = desk.clone();
    let delete = move |key: String| lock(&to).rows.delete(&key);
    host.set("storeDelete", Function::new(ctx.clone(), delete)?)?;
    let to = desk.clone();
    let next = move |ctx: Ctx<'js>, key: String, prefix: String| -> Result<Value<'js>> {
        let next = lock(&to).rows.next(&key).filter(|next| next.starts_with(&prefix)).map(str::to_owned);
        or_undefined(&ctx, next)
    };
    host.set("storeNext", Function::new(ctx.clone(), next)?)?;
    let to = desk.clone();
    let count = move |from: String, to_key: String| lock(&to).rows.count(&from, &to_key) as f64;
    host.set("storeCount", Function::new(ctx.clone(), count)?)
}
