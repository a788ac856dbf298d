// What may cross a boundary: pass styles, remotables, tagged values, exos.
import { host, harden, create, getPrototypeOf, setPrototypeOf, getOwnPropertyDescriptor, defineProperty, isFrozen, isObject, ownKeys, apply } from 'capstan:lockdown';

export const PASS_STYLE = Symbol.for('passStyle');
const TAG = Symbol.toStringTag;

const alleged = iface => (iface === 'Remotable' || iface.startsWith('Alleged: ') ? iface : `Alleged: ${iface}`);
const prototypes = new Map(); // interface -> shared prototype
export const remotablePrototype = name => {
  const iface = alleged(name);
  let prototype = prototypes.get(iface);
  if (prototype === undefined) {
    prototype = harden(create(Object.prototype, { [PASS_STYLE]: { value: 'remotable' }, [TAG]: { value: iface } }));
    // Interface names come from messages too; a bound keeps them from filling the heap.
    if (prototypes.size < 1000) prototypes.set(iface, prototype);
  }
  return prototype;
};

// What says how an object passes must be data: a getter could say something else the next time.
const markedStyle = value => {
  for (let o = value; o !== null; o = getPrototypeOf(o)) {
    const mark = getOwnPropertyDescriptor(o, PASS_STYLE);
    if (mark !== undefined) return mark.value;
  }
  return undefined;
};
export const isRemotable = value => isObject(value) && value[PASS_STYLE] === 'remotable' && isFrozen(value) && markedStyle(value) === 'remotable';
export const getInterfaceOf = value => (isRemotable(value) ? String(value[TAG]) : undefined);
export const isPromise = value => value instanceof Promise && getPrototypeOf(value) === Promise.prototype;

// Sorted names of everything callable on a remotable, inherited names included.
export const methodNames = value => {
  const names = new Set();
  for (let o = value; isObject(o) && o !== Object.prototype && o !== Function.prototype; o = getPrototypeOf(o)) {
    for (const key of ownKeys(o)) if (typeof key === 'string' && key !== 'constructor' && typeof getOwnPropertyDescriptor(o, key).value === 'function') names.add(key);
  }
  return harden([...names].sort());
};
const addMethodNames = object => {
  if (!Object.hasOwn(object, '__getMethodNames__')) {
    defineProperty(object, '__getMethodNames__', { value: { __getMethodNames__() { return methodNames(object); } }.__getMethodNames__ });
  }
};

export const Far = (name, object = {}) => {
  if (typeof name !== 'string') throw TypeError('Far: the interface name must be a string');
  if (!isObject(object) || Array.isArray(object)) throw TypeError('Far: an object with methods is needed');
  if (object[PASS_STYLE] !== undefined) throw TypeError('Far: the object is already a remotable');
  if (isFrozen(object)) throw TypeError(`Remotable ${name} is already frozen`);
  if (typeof object === 'object') {
    for (const key of ownKeys(object)) {
      if (typeof getOwnPropertyDescriptor(object, key).value !== 'function') throw TypeError(`cannot serialize Remotables with non-methods like ${JSON.stringify(String(key))}`);
    }
    addMethodNames(object);
    setPrototypeOf(object, remotablePrototype(name));
  } else {
    setPrototypeOf(object, harden(create(Function.prototype, { [PASS_STYLE]: { value: 'remotable' }, [TAG]: { value: alleged(name) } })));
  }
  return harden(object);
};

export const makeTagged = (tag, payload) => {
  if (typeof tag !== 'string') throw TypeError('a tag must be a string');
  return harden(create(Object.prototype, { [PASS_STYLE]: { value: 'tagged' }, [TAG]: { value: tag }, payload: { value: payload, enumerable: true } }));
};

const isGenuine = promise => {
  try {
    host.promiseState(promise);
    return true;
  } catch {
    return false;
  }
};

const DEPTH_MAX = 500;
const plain = (value, depth) => {
  const keys = ownKeys(value);
  const list = Array.isArray(value);
  for (let k = 0; k < keys.length; k += 1) {
    const key = keys[k];
    if (list && key === 'length') continue;
    const { enumerable, value: inner, get } = getOwnPropertyDescriptor(value, key);
    if (typeof key !== 'string' || !enumerable || get || (list && `${key >>> 0}` !== key)) {
      throw TypeError(`not passable: property ${String(key)} of ${list ? 'an array' : 'a record'}`);
    }
    styleOf(inner, depth + 1);
  }
  if (list && keys.length !== value.length + 1) throw TypeError('not passable: array with holes');
};
const styleOf = (value, depth) => {
  if (depth > DEPTH_MAX) throw TypeError('not passable: nested too deeply, or cyclic');
  switch (typeof value) {
    case 'undefined': case 'boolean': case 'number': case 'bigint': case 'string': return typeof value;
    case 'symbol':
      if (symbolName(value) === undefined) throw TypeError(`not passable: unregistered ${String(value)}`);
      return 'symbol';
    case 'function':
      if (!isRemotable(value)) throw TypeError(`not passable: function ${JSON.stringify(value.name)}; only Far functions are`);
      return 'remotable';
    default:
  }
  if (value === null) return 'null';
  if (!isFrozen(value)) throw TypeError('not passable: not frozen; use harden()');
  if (isPromise(value)) {
    if (ownKeys(value).length > 0 || !isGenuine(value)) throw TypeError('not passable: not a plain promise');
    return 'promise';
  }
  const prototype = getPrototypeOf(value);
  if (Array.isArray(value)) {
    if (prototype !== Array.prototype) throw TypeError('not passable: array with another prototype');
    plain(value, depth);
    return 'copyArray';
  }
  const style = value[PASS_STYLE];
  if (style === 'remotable' && markedStyle(value) === style) return 'remotable';
  if (style === 'tagged') {
    styleOf(value.payload, depth + 1);
    return 'tagged';
  }
  if (value instanceof Error) return 'error';
  if (prototype !== Object.prototype && prototype !== null) {
    throw TypeError(`not passable: instance of ${String(value.constructor?.name ?? 'a class')}`);
  }
  plain(value, depth);
  return 'copyRecord';
};

// Says in which style a hardened value passes, or throws saying why it does not.
export const passStyleOf = value => styleOf(value, 0);

// The wire name of a registered or well-known symbol.
const wellKnown = new Map(ownKeys(Symbol).filter(k => typeof k === 'string' && typeof Symbol[k] === 'symbol').map(k => [Symbol[k], `@@${k}`]));
export const symbolName = symbol => {
  const known = wellKnown.get(symbol);
  if (known !== undefined) return known;
  const key = Symbol.keyFor(symbol);
  return key !== undefined && key.startsWith('@@') ? `@@${key}` : key;
};
export const symbolNamed = name => {
  if (!name.startsWith('@@')) return Symbol.for(name);
  if (name.startsWith('@@@@')) return Symbol.for(name.slice(2));
  const symbol = Symbol[name.slice(2)];
  if (typeof symbol !== 'symbol') throw TypeError(`unknown symbol ${JSON.stringify(name)}`);
  return symbol;
};
