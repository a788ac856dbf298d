//! A vat's program: read, compiled once for all vats that run it, evaluated.

use crate::engine::{placed_text, settled};
use crate::limits::Fuse;
use crate::modules::is_ours;
use crate::places::Places;
use capstan_model::vat::{CodeFormat, VatCode};
use rquickjs::context::EvalOptions;
use rquickjs::module::{Declared, WriteOptions};
use rquickjs::{CatchResultExt, Ctx, Function, Module, Value};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// The module that fetches for a bundle what it leaves to the runtime.
const IMPORTS: &str = "vat/imports";
/// Compiled programs that are kept, bytes.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// Evaluates a vat's program; returns its `buildRootObject`, whatever that is. From here on nothing can be imported.
pub(crate) fn load<'js>(
    ctx: &Ctx<'js>,
    code: &VatCode,
    places: &Places,
    closed: &AtomicBool,
    fuse: &Fuse,
) -> Result<Value<'js>, String> {
    let text = |caught| placed_text(caught, places);
    // A program cannot pass for one of the runtime's own modules.
    let name = if is_ours(&code.name) || code.name.starts_with("capstan:") {
        format!("vat/{}", code.name)
    } else {
        code.name.to_string()
    };
    match code.format {
        CodeFormat::Module => {
            let declared = compiled(ctx, &name, &code.text).catch(ctx).map_err(text)?;
            closed.store(true, Relaxed);
            let (module, done) = declared.eval().catch(ctx).map_err(text)?;
            settled(ctx, &done, fuse, places, "the vat's module never finished loading")?;
            let namespace = module.namespace().catch(ctx).map_err(text)?;
            namespace.get("buildRootObject").catch(ctx).map_err(text)
        }
        CodeFormat::Bundle => {
            let Bundle { code, external, source_map } = Bundle::parse(&code.text)?;
            if let Some(map) = source_map {
                places.learn(&name, map);
            }
            let imports = imports(ctx, &external).catch(ctx).map_err(text)?;
            closed.store(true, Relaxed);
            let run = || {
                let program = bundle_function(ctx, &name, &code)?;
                program.call::<_, Value<'js>>((imports,))
            };
            let exports = run().catch(ctx).map_err(text)?;
            let Some(exports) = exports.into_object() else { return Ok(Value::new_undefined(ctx.clone())) };
            exports.get("buildRootObject").catch(ctx).map_err(text)
        }
    }
}

/// A bundle (04 §4), as far as it is run.
struct Bundle {
    code: String,
    external: Vec<String>,
    source_map: Option<Json>,
}

impl Bundle {
    fn parse(text: &str) -> Result<Bundle, String> {
        let bundle: Json = serde_json::from_str(text).map_err(|why| format!("Invalid bundle: {why}"))?;
        let Json::Object(mut bundle) = bundle else { return Err("Invalid bundle: must be an object".into()) };
        match bundle.get("moduleFormat") {
            Some(Json::String(format)) if format == "iife" => {}
            Some(Json::String(format)) => return Err(format!("Unknown bundle format: {format}")),
            other => {
                let shown = other.map_or("undefined".to_owned(), ToString::to_string);
                return Err(format!("Unknown bundle format: {shown}"));
            }
        }
        let code = match bundle.remove("code") {
            None => return Err("Invalid bundle: missing code".to_owned()),
            Some(Json::String(code)) => code,
            Some(_) => return Err("Invalid bundle: code must be a string".to_owned()),
        };
        let external = match bundle.remove("external") {
            None => Vec::new(),
            Some(list) => serde_json::from_value(list)
                .map_err(|_| "Invalid bundle: external must be a list of strings".to_owned())?,
        };
        Ok(Bundle { code, external, source_map: bundle.remove("sourceMap") })
    }
}

/// Returns the function by which a bundle gets the served modules that it needs, and no others.
fn imports<'js>(ctx: &Ctx<'js>, external: &[String]) -> rquickjs::Result<Function<'js>> {
    let quoted = |name: &String| Json::from(name.as_str()).to_string();
    let mut source = String::new();
    let mut table = String::new();
    for (index, name) in external.iter().enumerate() {
        source += &format!("import * as m{index} from {};\n", quoted(name));
        table += &format!(", [{}]: m{index}", quoted(name));
    }
    source +=
        &format!("const modules = {{ __proto__: null{table} }};\nexport default name => modules[name];");
    let (module, done) = Module::declare(ctx.clone(), IMPORTS, source)?.eval()?;
    done.finish::<()>()?;
    module.get("default")
}

/// The function that a bundle's code is the body of. It is strict, as a module is.
fn bundle_function<'js>(ctx: &Ctx<'js>, name: &str, code: &str) -> rquickjs::Result<Function<'js>> {
    let function = format!("(function (__vatImports__) {{ {code}\n; return __vatExports__; }})");
    match compiled(ctx, name, &format!("export default {function};")) {
        Ok(module) => {
            let (module, done) = module.eval()?;
            done.finish::<()>()?;
            module.get("default")
        }
        // A few words mean something in modules only.
        Err(_) => {
            ctx.catch();
            let mut options = EvalOptions::default();
            options.strict = true;
            options.filename = Some(name.to_owned());
            ctx.eval_with_options(function, options)
        }
    }
}

/// Bytecode by the hash of name and source, the oldest first to go.
#[derive(Default)]
struct Kept {
    programs: BTreeMap<[u8; 32], Arc<[u8]>>,
    order: VecDeque<[u8; 32]>,
    bytes: usize,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { programs: BTreeMap::new(), order: VecDeque::new(), bytes: 0 });

impl Kept {
    fn keep(&mut self, key: [u8; 32], code: Vec<u8>) {
        if code.len() > KEPT_BYTES_MAX || self.programs.contains_key(&key) {
            return;
        }
        self.bytes += code.len();
        self.programs.insert(key, code.into());
        self.order.push_back(key);
        while self.bytes > KEPT_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.bytes -= self.programs.remove(&oldest).map_or(0, |code| code.len());
        }
    }
}

/// Declares a module, compiling it only if no vat of this process did before.
#[expect(unsafe_code, reason = "loading bytecode is sound for bytes that this process compiled itself")]
fn compiled<'js>(ctx: &Ctx<'js>, name: &str, source: &str) -> rquickjs::Result<Module<'js, Declared>> {
    let key: [u8; 32] =
        Sha256::new().chain_update(name).chain_update([0]).chain_update(source).finalize().into();
    let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let known = kept().programs.get(&key).cloned();
    if let Some(code) = known {
        // SAFETY: only what `Module::write` returned below is kept.
        return unsafe { Module::load(ctx.clone(), &code) };
    }
    let module = Module::declare(ctx.clone(), name, source)?;
    // Functions show their source, however often their vat was started.
    let options = WriteOptions { strip_source: false, strip_debug: false, ..WriteOptions::default() };
    let code = module.write(options)?;
    kept().keep(key, code);
    Ok(module)
}
