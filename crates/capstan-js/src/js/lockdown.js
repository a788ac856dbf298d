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
const { has: weakHas, add: weakAdd } = WeakSet.prototype;
const isHardened = uncurry(weakHas);

// What was hardened while the realm was still open: it reaches the intrinsics, which are not ready to freeze.
let deferred = [];
// What was frozen when it was closed. It stays in memory, for the walks know it by address.
let ofRealm;

// The elements of a typed array cannot be frozen; all else of it can.
const closeTyped = array => {
  Object.preventExtensions(array);
  for (const key of ownKeys(array)) {
    const property = getOwnPropertyDescriptor(array, key);
    if (typeof key === 'string' && `${key >>> 0}` === key) continue;
    defineProperty(array, key, 'value' in property ? { writable: false, configurable: false } : { configurable: false });
  }
};

// Freezes everything reachable through properties and prototypes; primitives pass through.
export const harden = root => {
  if (deferred !== undefined) {
    deferred.push(root);
    return root;
  }
  if (isObject(root) && !isHardened(wasHardened, root)) host.freezeDeep(root, closeTyped, wasHardened, weakHas, weakAdd);
  return root;
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

// What programs for other engines set and call on `Error` has no effect: stacks are as they are.
const tameError = () => {
  for (const name of ['prepareStackTrace', 'stackTraceLimit']) {
    delete Error[name];
    defineProperty(Error, name, { get: () => undefined, set: () => {}, configurable: true });
  }
  const stackOf = target => {
    if (!(target instanceof Error)) defineProperty(target, 'stack', { value: Error().stack, writable: true, configurable: true });
  };
  defineProperty(Error, 'captureStackTrace', { value: { captureStackTrace(target) { stackOf(target); } }.captureStackTrace });
};

// A frozen data property on a prototype forbids assignment on its heirs ("override mistake"). For the
// names that programs do assign, an accessor takes the place of the property.
// Whom it is assigned to gets a property of its own; whoever is frozen, an intrinsic too, throws.
const setters = new Map();
const setterOf = name => {
  let set = setters.get(name);
  if (set === undefined) {
    ({ set } = { set(value) { defineProperty(this, name, { value, writable: true, enumerable: true, configurable: true }); } });
    setters.set(name, set);
  }
  return set;
};
const enableOverride = (prototype, name) => {
  const property = getOwnPropertyDescriptor(prototype, name);
  if (!property || !('value' in property) || !property.configurable) return;
  const { value, enumerable } = property;
  defineProperty(prototype, name, { get: () => value, set: setterOf(name), enumerable, configurable: false });
};
const OVERRIDDEN = ['constructor', 'toString', 'toLocaleString', 'valueOf', 'hasOwnProperty', 'name', 'message', 'then', 'catch', 'finally',
  'toJSON', 'next', 'bind', 'call', 'apply', 'length'];
// Where programs assign more than these: heirs of `Map` and buffers of bytes define their methods so.
const coverOverrides = (prototypes, wholes) => {
  for (const prototype of prototypes) for (const name of OVERRIDDEN) enableOverride(prototype, name);
  for (const name of ['push', 'concat', Symbol.iterator]) enableOverride(Array.prototype, name);
  for (const prototype of wholes) for (const name of ownKeys(prototype)) enableOverride(prototype, name);
};

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
  tameError();
  for (const name of ownKeys(G)) if (!ALLOWED.has(name)) delete G[name];
  const errors = [Error, TypeError, RangeError, SyntaxError, ReferenceError, EvalError, URIError, AggregateError];
  const prototypes = [Function, Array, String, Promise, Date, RegExp, Iterator, ...errors].map(C => C.prototype);
  coverOverrides(prototypes, [Object, Map, Set, getPrototypeOf(Int8Array)].map(C => C.prototype));
  const names = ownKeys(G).filter(name => G[name] !== G && getOwnPropertyDescriptor(G, name).configurable);
  ofRealm = host.freezeRealm([...deferred, ...hidden, ...names.map(name => G[name]), ...ownKeys(additions).map(name => additions[name])], closeTyped);
  deferred = undefined;
  for (const name of names) defineProperty(G, name, { value: G[name], writable: false, enumerable: false, configurable: false });
  for (const name of ownKeys(additions)) defineProperty(G, name, { value: additions[name], writable: true, enumerable: false, configurable: true });
  defineProperty(G, 'global', { value: G, writable: true, configurable: true });
  defineProperty(G, 'exports', { value: {}, writable: true, configurable: true });
};
