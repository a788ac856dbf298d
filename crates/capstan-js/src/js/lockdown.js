// Takes what the runtime needs from the fresh realm, then freezes the realm for the vat's code.
// Evaluated first; everything later imports its primordials from here.
export const host = globalThis.__host;
delete globalThis.__host;

export const { freeze, isFrozen, getPrototypeOf, setPrototypeOf, getOwnPropertyDescriptor, defineProperty, create, keys } = Object;
export const { ownKeys, apply } = Reflect;
export const RealWeakRef = WeakRef;
export const RealWeakMap = WeakMap;
export const RealWeakSet = WeakSet;
export const Finalizer = FinalizationRegistry;
export const uncurry = method => Function.prototype.call.bind(method);
export const then = uncurry(Promise.prototype.then);
export const isObject = x => (typeof x === 'object' && x !== null) || typeof x === 'function';

const wasHardened = new WeakSet();
const isHardened = uncurry(WeakSet.prototype.has);
const noteHardened = uncurry(WeakSet.prototype.add);

// What was hardened while the realm was still open: it reaches the intrinsics, which are not ready to freeze.
let deferred = [];

const typedTag = getOwnPropertyDescriptor(getPrototypeOf(Int8Array.prototype), Symbol.toStringTag).get;
const isTyped = object => apply(typedTag, object, []) !== undefined;
// The elements of a typed array cannot be frozen; all else of it can.
const close = object => {
  if (!isTyped(object)) {
    freeze(object);
    return;
  }
  Object.preventExtensions(object);
  for (const key of ownKeys(object)) {
    const property = getOwnPropertyDescriptor(object, key);
    if (typeof key === 'string' && `${key >>> 0}` === key) continue;
    defineProperty(object, key, 'value' in property ? { writable: false, configurable: false } : { configurable: false });
  }
};

// Freezes everything reachable through properties and prototypes; primitives pass through.
export const harden = root => {
  if (deferred !== undefined) {
    deferred.push(root);
    return root;
  }
  if (!isObject(root) || isHardened(wasHardened, root)) return root;
  const todo = [root];
  const seen = new Set(todo);
  const visit = value => {
    if (isObject(value) && !seen.has(value) && !isHardened(wasHardened, value)) {
      seen.add(value);
      todo.push(value);
    }
  };
  for (let i = 0; i < todo.length; i += 1) {
    const object = todo[i];
    close(object);
    visit(getPrototypeOf(object));
    for (const key of ownKeys(object)) {
      const property = getOwnPropertyDescriptor(object, key);
      if ('value' in property) visit(property.value);
      else {
        visit(property.get);
        visit(property.set);
      }
    }
  }
  for (let i = 0; i < todo.length; i += 1) noteHardened(wasHardened, todo[i]);
  return root;
};

// The same while no code of the vat has run: whatever the walk meets is the engine's or the runtime's, and what it asks
// of the realm is as the engine made it.
const hardenOwn = root => {
  const todo = [];
  const visit = value => {
    if (((typeof value === 'object' && value !== null) || typeof value === 'function') && !wasHardened.has(value)) {
      wasHardened.add(value);
      todo[todo.length] = value;
    }
  };
  visit(root);
  for (let i = 0; i < todo.length; i += 1) {
    const object = todo[i];
    visit(getPrototypeOf(object));
    const names = ownKeys(object);
    // Most are functions with nothing but a length and a name.
    if (typeof object !== 'function' || names.length !== 2 || names[0] !== 'length' || names[1] !== 'name') {
      for (let k = 0; k < names.length; k += 1) {
        const { value, get, set } = getOwnPropertyDescriptor(object, names[k]);
        visit(value);
        visit(get);
        visit(set);
      }
    }
    freeze(object);
  }
};

// The only names of the engine that a vat may see; anything the engine adds later is absent until listed.
const ALLOWED = new Set([
  'Object', 'Function', 'Array', 'Number', 'Boolean', 'String', 'Symbol', 'BigInt', 'Math', 'Date', 'RegExp', 'JSON', 'Reflect', 'Proxy',
  'Promise', 'Map', 'Set', 'WeakMap', 'WeakSet', 'Error', 'TypeError', 'RangeError', 'SyntaxError', 'ReferenceError', 'EvalError', 'URIError',
  'AggregateError', 'ArrayBuffer', 'DataView', 'Int8Array', 'Uint8Array', 'Uint8ClampedArray', 'Int16Array', 'Uint16Array', 'Int32Array',
  'Uint32Array', 'BigInt64Array', 'BigUint64Array', 'Float16Array', 'Float32Array', 'Float64Array', 'Iterator', 'globalThis', 'undefined',
  'NaN', 'Infinity', 'parseInt', 'parseFloat', 'isNaN', 'isFinite', 'eval', 'encodeURI', 'encodeURIComponent', 'decodeURI',
  'decodeURIComponent', 'escape', 'unescape',
]);

const refuse = what => {
  throw TypeError(`secure mode: ${what} is not available`);
};

// Without a clock, what would read it throws.
const tameDate = clock => {
  const RealDate = Date;
  const prototype = RealDate.prototype;
  const now = what => (clock ? clock() : refuse(what));
  const TamedDate = function Date(...args) {
    if (!new.target) return new RealDate(now('Date()')).toString();
    if (args.length === 0) args[0] = now('new Date()');
    return Reflect.construct(RealDate, args, new.target);
  };
  defineProperty(TamedDate, 'prototype', { value: prototype, writable: false });
  for (const name of ['parse', 'UTC']) defineProperty(TamedDate, name, { value: RealDate[name] });
  defineProperty(TamedDate, 'now', { value: { now: () => now('Date.now()') }.now });
  defineProperty(prototype, 'constructor', { value: TamedDate, configurable: true, writable: true });
  defineProperty(globalThis, 'Date', { value: TamedDate, configurable: true, writable: true });
};

// A frozen data property on a prototype forbids assignment on its heirs ("override mistake"). For the
// names that programs do assign, an accessor takes the place of the property.
const enableOverride = (prototype, name) => {
  const property = getOwnPropertyDescriptor(prototype, name);
  if (!property || !('value' in property) || !property.configurable) return;
  const { value, enumerable } = property;
  const { get, set } = getOwnPropertyDescriptor({
    get [name]() { return value; },
    set [name](replacement) {
      if (this === prototype) throw TypeError(`cannot assign to property ${String(name)} of an intrinsic`);
      defineProperty(this, name, { value: replacement, writable: true, enumerable: true, configurable: true });
    },
  }, name);
  defineProperty(prototype, name, { get, set, enumerable, configurable: false });
};
const OVERRIDDEN = ['constructor', 'toString', 'toLocaleString', 'valueOf', 'hasOwnProperty', 'name', 'message', 'then', 'catch', 'finally',
  'toJSON', 'next', 'bind', 'call', 'apply', 'length'];

// Intrinsics that no global names.
const hiddenIntrinsics = () => {
  const generator = function* () {};
  const asyncGenerator = async function* () {};
  const asyncFunction = async function () {};
  const thrower = getOwnPropertyDescriptor((function () { return arguments; })(), 'callee').get;
  return [generator, asyncGenerator, asyncFunction, generator(), asyncGenerator(), thrower, getPrototypeOf(Int8Array),
    [][Symbol.iterator](), new Map().entries(), new Set().values(), ''[Symbol.iterator](), 'x'.matchAll(/x/g),
    [].values().map(x => x), Iterator.from({ next() { return { done: true }; } })];
};

// Closes the realm. `additions` are the globals of the vat's world; `now` and `random` its clock and chance, if it has any.
export const lockdown = (additions, { now, random }) => {
  const G = globalThis;
  const hidden = hiddenIntrinsics();
  tameDate(now);
  defineProperty(Math, 'random', { value: { random: () => (random ? random() : refuse('Math.random()')) }.random });
  for (const name of ['prepareStackTrace', 'stackTraceLimit', 'captureStackTrace']) delete Error[name];
  for (const name of ownKeys(G)) if (!ALLOWED.has(name)) delete G[name];
  const errors = [Error, TypeError, RangeError, SyntaxError, ReferenceError, EvalError, URIError, AggregateError];
  const prototypes = [Object, Function, Array, Promise, Date, RegExp, Map, Set, ...errors].map(C => C.prototype);
  for (const prototype of prototypes) for (const name of OVERRIDDEN) enableOverride(prototype, name);
  const waiting = deferred;
  deferred = undefined;
  for (const object of [...waiting, ...hidden]) hardenOwn(object);
  for (const name of ownKeys(G)) {
    const property = getOwnPropertyDescriptor(G, name);
    if (property.value === G || !property.configurable) continue;
    hardenOwn(property.value);
    defineProperty(G, name, { value: property.value, writable: false, enumerable: false, configurable: false });
  }
  for (const name of ownKeys(additions)) {
    hardenOwn(additions[name]);
    defineProperty(G, name, { value: additions[name], writable: true, enumerable: false, configurable: true });
  }
  defineProperty(G, 'global', { value: G, writable: true, configurable: true });
  defineProperty(G, 'exports', { value: {}, writable: true, configurable: true });
};
