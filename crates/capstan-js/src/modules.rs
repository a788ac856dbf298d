//! The modules a vat may import (04 §9) and the runtime's own, compiled once per process.

use rquickjs::loader::{ImportAttributes, Loader, Resolver};
use rquickjs::module::{Declared, WriteOptions};
use rquickjs::{Context, Ctx, Error, Module, Result, Runtime};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// The runtime's own modules. A vat cannot import them.
const INNER: &[(&str, &str)] = &[
    ("capstan:lockdown", include_str!("js/lockdown.js")),
    ("capstan:strings", include_str!("js/strings.js")),
    ("capstan:passable", include_str!("js/passable.js")),
    ("capstan:smallcaps", include_str!("js/smallcaps.js")),
    ("capstan:eventual", include_str!("js/eventual.js")),
    ("capstan:assert", include_str!("js/assert.js")),
    ("capstan:tables", include_str!("js/tables.js")),
    ("capstan:stored", include_str!("js/stored.js")),
    ("capstan:weak", include_str!("js/weak.js")),
    ("capstan:shapes", include_str!("js/shapes.js")),
    ("capstan:kinds", include_str!("js/kinds.js")),
    ("capstan:patterns", include_str!("js/patterns.js")),
    ("capstan:exo", include_str!("js/exo.js")),
    ("capstan:collections", include_str!("js/collections.js")),
    ("capstan:watch", include_str!("js/watch.js")),
    ("capstan:endowments", include_str!("js/endowments.js")),
    ("capstan:timers", include_str!("js/timers.js")),
    ("capstan:codecs", include_str!("js/codecs.js")),
    ("capstan:abort", include_str!("js/abort.js")),
    ("capstan:url", include_str!("js/url.js")),
    ("capstan:crypto", include_str!("js/crypto.js")),
    ("capstan:fetch", include_str!("js/fetch.js")),
    ("capstan:files", include_str!("js/files.js")),
    ("capstan:liveslots", include_str!("js/liveslots.js")),
];

/// The modules served to vats.
const SERVED: &[(&str, &str)] = &[
    (
        "@endo/far",
        "export { E } from 'capstan:eventual'; export { Far, passStyleOf, getInterfaceOf } from 'capstan:passable';",
    ),
    ("@endo/eventual-send", "export { E, HandledPromise } from 'capstan:eventual';"),
    ("@endo/promise-kit", "export { makePromiseKit } from 'capstan:eventual';"),
    ("@endo/exo", "export { makeExo, defineExoClass, defineExoClassKit } from 'capstan:exo';"),
    ("@endo/patterns", "export { M, matches, mustMatch } from 'capstan:patterns';"),
    (
        "@metamask/kernel-utils/exo",
        "export { makeDefaultExo, makeDefaultInterface, makeDiscoverableExo } from 'capstan:exo';",
    ),
    ("@metamask/kernel-utils/discoverable", "export { makeDiscoverableExo } from 'capstan:exo';"),
    (
        "@metamask/kernel-exo",
        "export { makeDefaultExo, makeDefaultInterface, makeDiscoverableExo } from 'capstan:exo';",
    ),
    ("@endo/errors", "export { assert, Fail, makeError, q, b, X } from 'capstan:assert';"),
    (
        "capstan",
        "export { E, HandledPromise, makePromiseKit } from 'capstan:eventual'; \
         export { Far, passStyleOf, getInterfaceOf } from 'capstan:passable'; \
         export { makeExo, defineExoClass, defineExoClassKit, makeDefaultExo, makeDefaultInterface, makeDiscoverableExo } from 'capstan:exo'; \
         export { M, matches, mustMatch } from 'capstan:patterns'; \
         export { assert, Fail, makeError, q, b, X } from 'capstan:assert';",
    ),
];

fn find(table: &'static [(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == name).map(|(_, source)| *source)
}

/// The modules that a vat's source may import (04 §9), each with what it exports.
pub fn served_modules() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    SERVED.iter().map(|(name, source)| {
        // Their sources are lists of names in braces.
        let lists = source.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        (*name, lists.flat_map(|list| list.split(',').map(str::trim)).collect())
    })
}

/// Whether a module of this name is the runtime's, so that a vat's own file must be called otherwise.
pub(crate) fn is_ours(name: &str) -> bool {
    find(INNER, name).is_some() || find(SERVED, name).is_some()
}

/// Decides what an `import` may mean. Once a vat's module is linked it is `closed`: no `import()` afterwards.
pub(crate) struct Gate {
    pub(crate) closed: Arc<AtomicBool>,
}

impl Resolver for Gate {
    fn resolve<'js>(
        &mut self,
        _: &Ctx<'js>,
        base: &str,
        name: &str,
        _: Option<ImportAttributes<'js>>,
    ) -> Result<String> {
        // No module of a vat has such a name, and no code of the runtime imports what a vat names.
        let ours = is_ours(base) || base == crate::engine::BOOT;
        if self.closed.load(Relaxed) && !ours {
            return Err(Error::new_resolving_message(base, name, "a vat cannot import dynamically"));
        }
        if find(SERVED, name).is_some() || (ours && find(INNER, name).is_some()) {
            return Ok(name.to_owned());
        }
        let served: Vec<&str> = SERVED.iter().map(|(name, _)| *name).collect();
        let why = format!("a vat's source may import only {}", served.join(", "));
        Err(Error::new_resolving_message(base, name, why))
    }
}

/// Loads from the compiled table.
pub(crate) struct Shelf;

impl Loader for Shelf {
    #[expect(
        unsafe_code,
        reason = "loading bytecode is sound for bytes this process compiled itself, and no others come here"
    )]
    fn load<'js>(
        &mut self,
        ctx: &Ctx<'js>,
        name: &str,
        _: Option<ImportAttributes<'js>>,
    ) -> Result<Module<'js, Declared>> {
        let compiled = compiled()?.iter().find(|(known, _)| *known == name);
        let (_, bytes) = compiled.ok_or_else(|| Error::new_loading(name))?;
        // SAFETY: `bytes` came from `Module::write` in `compile` below.
        unsafe { Module::load(ctx.clone(), bytes) }
    }
}

/// Evaluates an inner module that the boot did not need, when the runtime finds that this vat does.
pub(crate) fn load_late(ctx: &Ctx<'_>, name: &str) -> Result<()> {
    let (module, done) = Shelf.load(ctx, name, None)?.eval()?;
    drop(module);
    // None of them awaits anything at its top level.
    done.result::<()>().unwrap_or(Err(Error::WouldBlock))
}

/// Loads from source, while compiling.
struct Sources;

impl Loader for Sources {
    fn load<'js>(
        &mut self,
        ctx: &Ctx<'js>,
        name: &str,
        _: Option<ImportAttributes<'js>>,
    ) -> Result<Module<'js, Declared>> {
        let source = find(INNER, name).ok_or_else(|| Error::new_loading(name))?;
        Module::declare(ctx.clone(), name, source)
    }
}

type Compiled = Vec<(&'static str, Vec<u8>)>;

fn compiled() -> Result<&'static Compiled> {
    static COMPILED: OnceLock<Option<Compiled>> = OnceLock::new();
    let compiled = COMPILED.get_or_init(|| compile().ok());
    compiled.as_ref().ok_or_else(|| Error::new_loading("the runtime's modules"))
}

fn compile() -> Result<Compiled> {
    let runtime = Runtime::new()?;
    runtime.set_loader(Gate { closed: Arc::default() }, Sources);
    let one = |&(name, source): &(&'static str, &'static str)| {
        // A context of its own for each: a module can be declared only once in one.
        Context::full(&runtime)?.with(|ctx| {
            let module = Module::declare(ctx, name, source)?;
            let options = WriteOptions { strip_source: true, strip_debug: false, ..WriteOptions::default() };
            Ok((name, module.write(options)?))
        })
    };
    INNER.iter().chain(SERVED).map(one).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// How often the engine asks whether to go on while it does eight hostile searches in texts of `units`: once in
    /// ten thousand calls and turns of loops of the realm's code. What the engine does by itself is never counted.
    fn polls(units: usize) -> usize {
        let runtime = Runtime::new().unwrap();
        runtime.set_loader(Gate { closed: Arc::default() }, Shelf);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        // What takes a hundred times too long ends here.
        let count_one = move || counted.fetch_add(1, Relaxed) > units;
        runtime.set_interrupt_handler(Some(Box::new(count_one)));
        Context::full(&runtime).unwrap().with(|ctx| {
            ctx.globals().set("__host", rquickjs::Object::new(ctx.clone()).unwrap()).unwrap();
            let source = "import { replaceSearches } from 'capstan:strings'; replaceSearches();";
            let (_, done) = Module::declare(ctx.clone(), crate::engine::BOOT, source).unwrap().eval().unwrap();
            done.finish::<()>().unwrap();
            let half = units / 2;
            let hostile = format!(
                "const t = 'a'.repeat({units}), n = 'a'.repeat({half}) + 'b', m = 'b' + 'a'.repeat({half}),
                   k = 'a'.repeat({half} / 2) + 'b' + 'a'.repeat({half} / 2), o = {{ toString: () => n }};
                 [t.indexOf(n), t.indexOf(k), t.lastIndexOf(m), t.lastIndexOf(k), t.includes(o), t.split(n).length,
                   t.replace(o, '') === t, t.replaceAll(n, '') === t].join()"
            );
            let before = count.load(Relaxed);
            let found: String = ctx.eval(hostile).unwrap();
            assert_eq!(found, "-1,-1,-1,-1,false,1,true,true");
            count.load(Relaxed) - before
        })
    }

    #[test]
    fn what_is_served_is_told_with_its_names() {
        let served: Vec<_> = served_modules().collect();
        assert_eq!(served[0], ("@endo/far", vec!["E", "Far", "passStyleOf", "getInterfaceOf"]));
        assert_eq!(served.len(), SERVED.len());
        let all = &served.last().unwrap().1;
        assert!(
            all.contains(&"X")
                && all.contains(&"E")
                && all.iter().all(|name| name.chars().all(char::is_alphanumeric))
        );
    }

    #[test]
    fn hostile_searches_are_counted_and_take_linear_work() {
        let (some, twice) = (polls(20_000), polls(40_000));
        // The careful search makes some twenty countable steps for each unit of a text. Fewer: the engine compared by itself,
        // in time that grows with the square.
        assert!((250..500).contains(&some), "{some}");
        assert!(twice <= some * 9 / 4, "{some}, then {twice} for texts twice as long");
    }
}
