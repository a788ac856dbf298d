//! Freezing all that a value reaches: the walk behind `harden` and behind the closing of a realm.
//!
//! It is native because a fresh realm has more than a thousand objects to freeze, which was most of a vat's launch.

use crate::limits::Fuse;
use rquickjs::function::This;
use rquickjs::{Array, Ctx, Error, Exception, Function, Object, Result, Value, qjs};
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, OnceLock};

/// Objects frozen between two looks at the vat's limits.
const OBJECTS_PER_LOOK: usize = 256;
const NAMES: i32 = (qjs::JS_GPN_STRING_MASK | qjs::JS_GPN_SYMBOL_MASK) as i32;

/// Adds the two walks to the object through which the runtime reaches its host.
///
/// - `freezeRealm(roots, closeTyped)` freezes what these objects reach, once, while no code of the vat has run. It returns
///   all that was frozen, which the realm must keep as long as it lives.
/// - `freezeDeep(root, closeTyped, frozen, has, add)` freezes what this object reaches, but nothing beyond the realm's own
///   objects and those in the `WeakSet` that is asked by `has`, and tells it by `add` what was frozen.
///
/// `closeTyped` is for typed arrays, whose elements cannot be frozen.
pub(crate) fn natives<'js>(ctx: &Ctx<'js>, host: &Object<'js>, fuse: &Arc<Fuse>) -> Result<()> {
    let closed = Arc::new(OnceLock::new());
    let (noted, meter) = (closed.clone(), fuse.clone());
    let realm = move |ctx: Ctx<'js>, roots: Array<'js>, close_typed: Function<'js>| -> Result<Array<'js>> {
        let mut walk = Walk::new(&ctx, &meter, &close_typed, None);
        for root in roots.iter::<Value>() {
            walk.visit(root?)?;
        }
        walk.freeze()?;
        let kept = Array::new(ctx.clone())?;
        for (index, object) in walk.met.iter().enumerate() {
            kept.set(index, object.clone())?;
        }
        // A realm is closed once.
        let _ = noted.set(walk.seen);
        Ok(kept)
    };
    host.set("freezeRealm", Function::new(ctx.clone(), realm)?)?;
    let meter = fuse.clone();
    let deep = move |ctx: Ctx<'js>,
                     root: Value<'js>,
                     close_typed: Function<'js>,
                     frozen: Value<'js>,
                     has: Function<'js>,
                     add: Function<'js>|
          -> Result<()> {
        let before = Before { realm: closed.get(), frozen: &frozen, has: &has };
        let mut walk = Walk::new(&ctx, &meter, &close_typed, Some(before));
        walk.visit(root)?;
        walk.freeze()?;
        // Only now: where a walk ended half way, something below may be open.
        walk.met.iter().try_for_each(|object| add.call::<_, ()>((This(frozen.clone()), object.clone())))
    };
    host.set("freezeDeep", Function::new(ctx.clone(), deep)?)
}

/// What was frozen before.
struct Before<'a, 'js> {
    /// Where the realm's own objects are. It keeps them, so that no address comes to be another object's.
    realm: Option<&'a Addresses>,
    frozen: &'a Value<'js>,
    has: &'a Function<'js>,
}

struct Walk<'a, 'js> {
    ctx: &'a Ctx<'js>,
    fuse: &'a Fuse,
    close_typed: &'a Function<'js>,
    before: Option<Before<'a, 'js>>,
    /// The objects of this walk, in the order in which they are frozen.
    met: Vec<Value<'js>>,
    /// Where they are.
    seen: Addresses,
}

#[expect(unsafe_code, reason = "property descriptors are not in the engine's safe interface")]
impl<'a, 'js> Walk<'a, 'js> {
    fn new(
        ctx: &'a Ctx<'js>,
        fuse: &'a Fuse,
        close_typed: &'a Function<'js>,
        before: Option<Before<'a, 'js>>,
    ) -> Self {
        Walk { ctx, fuse, close_typed, before, met: Vec::new(), seen: Addresses::default() }
    }

    /// Freezes what was visited, and all that it reaches.
    fn freeze(&mut self) -> Result<()> {
        let mut next = 0;
        while let Some(object) = self.met.get(next).cloned() {
            if next % OBJECTS_PER_LOOK == 0 && self.fuse.must_stop() {
                return Err(Exception::throw_message(self.ctx, "interrupted"));
            }
            next += 1;
            self.close(&object)?;
            // SAFETY: both are alive.
            let prototype = unsafe { qjs::JS_GetPrototype(self.ctx.as_raw().as_ptr(), object.as_raw()) };
            let prototype = self.own(prototype)?;
            self.visit(prototype)?;
            self.visit_properties(&object)?;
        }
        Ok(())
    }

    fn close(&self, object: &Value<'js>) -> Result<()> {
        // SAFETY: `object` is alive.
        if unsafe { qjs::JS_GetTypedArrayType(object.as_raw()) } >= 0 {
            return self.close_typed.call((object.clone(),));
        }
        // SAFETY: both are alive.
        let done = unsafe { qjs::JS_FreezeObject(self.ctx.as_raw().as_ptr(), object.as_raw()) };
        if done < 0 { Err(Error::Exception) } else { Ok(()) }
    }

    fn visit_properties(&mut self, object: &Value<'js>) -> Result<()> {
        let raw = self.ctx.as_raw().as_ptr();
        let (mut names, mut count) = (std::ptr::null_mut(), 0);
        // SAFETY: all are alive; the names are freed below.
        if unsafe { qjs::JS_GetOwnPropertyNames(raw, &mut names, &mut count, object.as_raw(), NAMES) } < 0 {
            return Err(Error::Exception);
        }
        let mut outcome = Ok(());
        for index in 0..count as usize {
            // SAFETY: the engine made an array of `count` names.
            let name = unsafe { (*names.add(index)).atom };
            outcome = self.visit_property(object, name);
            if outcome.is_err() {
                break;
            }
        }
        // SAFETY: as it was made, once.
        unsafe { qjs::JS_FreePropertyEnum(raw, names, count) };
        outcome
    }

    fn visit_property(&mut self, object: &Value<'js>, name: qjs::JSAtom) -> Result<()> {
        let nothing = qjs::JS_UNDEFINED;
        let mut found =
            qjs::JSPropertyDescriptor { flags: 0, value: nothing, getter: nothing, setter: nothing };
        let raw = self.ctx.as_raw().as_ptr();
        // SAFETY: all are alive.
        match unsafe { qjs::JS_GetOwnProperty(raw, &mut found, object.as_raw(), name) } {
            // A proxy that names what it does not have.
            0 => Ok(()),
            1.. => {
                let (value, getter, setter) =
                    (self.own(found.value)?, self.own(found.getter)?, self.own(found.setter)?);
                self.visit(value)?;
                self.visit(getter)?;
                self.visit(setter)
            }
            _ => Err(Error::Exception),
        }
    }

    /// Takes a reference that the engine gave.
    fn own(&self, raw: qjs::JSValue) -> Result<Value<'js>> {
        // SAFETY: `raw` is a value of this context, and its one reference is given away here.
        let value = unsafe { Value::from_raw(self.ctx.clone(), raw) };
        // SAFETY: looks at the tag only.
        if unsafe { qjs::JS_IsException(raw) } { Err(Error::Exception) } else { Ok(value) }
    }

    /// Adds a value to this walk if it is an object that was not met before.
    fn visit(&mut self, value: Value<'js>) -> Result<()> {
        let raw = value.as_raw();
        // SAFETY: looks at the tag, and takes the address only of what has one.
        let address = unsafe { qjs::JS_IsObject(raw).then(|| qjs::JS_VALUE_GET_PTR(raw) as usize) };
        let Some(address) = address else { return Ok(()) };
        if self.seen.contains(&address) {
            return Ok(());
        }
        if let Some(Before { realm, frozen, has }) = &self.before
            && (realm.is_some_and(|realm| realm.contains(&address))
                || has.call((This((*frozen).clone()), value.clone()))?)
        {
            return Ok(());
        }
        self.seen.insert(address);
        self.met.push(value);
        Ok(())
    }
}

type Addresses = HashSet<usize, BuildHasherDefault<AddressHasher>>;

/// Addresses are as good as random, but for the low bits.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        // A multiplier without structure moves what differs to the high bits, the rotation down again.
        self.0 = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}
