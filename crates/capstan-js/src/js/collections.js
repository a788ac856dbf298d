// Maps and sets whose entries are in the store (04 §5), the baggage among them.
//
//   vc.<n>.<key>          an entry: capdata, or nothing for a set
//   vc.<n>.|<vref>        the ordinal of an object that is a key: objects are kept in the order in which they came
//   vc.<n>.|nextOrdinal   the next one
//   vc.<n>.|schemata      capdata of { label, keyShape?, valueShape? }; the baggage has none
// Those of virtual collections have `~` in front. A key is a letter for its type and then text that sorts as the
// values do: b booleans, f numbers, n and p bigints, r objects, s strings, v null, y symbols, z undefined.
import { host, RealWeakMap, harden, freeze, create, isObject } from 'capstan:lockdown';
import { remotablePrototype, methodNames, passStyleOf, symbolName, symbolNamed } from 'capstan:passable';
import { vrefs, kinds, register, take } from 'capstan:tables';
import { pack, unpack, retain, release, born, nameOf, objectOf, recognize, unrecognize, setKeyDropper, BAGGAGE } from 'capstan:stored';
import { mustMatch, matches, assertPattern } from 'capstan:shapes';

const { storeGet, storeSet, storeDelete, storeNext, storeCount } = host;
const quote = value => (typeof value === 'string' ? JSON.stringify(value) : isObject(value) ? `[${String(value[Symbol.toStringTag] ?? 'object')}]` : typeof value === 'bigint' ? `${value}n` : String(value));

// ---- Keys as text.
const view = new DataView(new ArrayBuffer(8));
const FIRST_BIT = 1n << 63n;
const ALL_BITS = (1n << 64n) - 1n;
const numberText = number => {
  view.setFloat64(0, number === 0 ? 0 : number); // no -0
  const bits = Number.isNaN(number) ? ALL_BITS : view.getBigUint64(0);
  const sorted = Number.isNaN(number) ? bits : bits & FIRST_BIT ? ~bits & ALL_BITS : bits | FIRST_BIT;
  return sorted.toString(16).padStart(16, '0');
};
const textNumber = text => {
  const sorted = BigInt(`0x${text}`);
  if (sorted === ALL_BITS) return NaN;
  view.setBigUint64(0, sorted & FIRST_BIT ? sorted & ~FIRST_BIT : ~sorted & ALL_BITS);
  return view.getFloat64(0);
};
// Digits behind their number; for negative ones both turned round.
const turned = digits => digits.replace(/\d/g, d => `${9 - Number(d)}`);
const bigintText = bigint => {
  const digits = `${bigint < 0n ? -bigint : bigint}`;
  const text = `${`${digits.length}`.padStart(10, '0')}:${digits}`;
  return bigint < 0n ? `n${turned(text)}` : `p${text}`;
};
const scalarText = key => {
  switch (typeof key) {
    case 'string':
      if (!key.isWellFormed()) throw TypeError('a key must be a well-formed string');
      return `s${key}`;
    case 'number': return `f${numberText(key)}`;
    case 'bigint': return bigintText(key);
    case 'boolean': return `b${key}`;
    case 'undefined': return 'z';
    case 'symbol': {
      const name = symbolName(key);
      if (name === undefined) throw TypeError('a key must be a registered symbol');
      return `y${name}`;
    }
    default: return key === null ? 'v' : undefined;
  }
};
const keyOfText = text => {
  const rest = text.slice(1);
  switch (text[0]) {
    case 's': return rest;
    case 'f': return textNumber(rest);
    case 'p': return BigInt(rest.slice(11));
    case 'n': return -BigInt(turned(rest.slice(11)));
    case 'b': return rest === 'true';
    case 'v': return null;
    case 'z': return undefined;
    case 'y': return symbolNamed(rest);
    default: return objectOf(rest.slice(rest.indexOf(':') + 1));
  }
};

// ---- One collection's rows.
const prefixOf = (number, durable) => `${durable ? 'vc.' : '~vc.'}${number}.`;
const open = (type, number) => {
  const prefix = prefixOf(number, type.durable);
  const text = storeGet(`${prefix}|schemata`);
  const shapes = text === undefined ? { label: 'baggage' } : unpack(JSON.parse(text));
  return { ...type, number, prefix, size: undefined, ...shapes };
};
const complain = (c, key, what) => {
  throw Error(`key ${quote(key)} ${what} in collection ${quote(c.label)}`);
};
// The row of a key; `undefined` for an object that is none yet.
const rowOf = (c, key) => {
  const text = scalarText(key);
  if (text !== undefined) return c.prefix + text;
  harden(key);
  if (passStyleOf(key) !== 'remotable') throw TypeError(`invalid key type for collection ${quote(c.label)}: ${passStyleOf(key)}`);
  const vref = vrefs.get(key);
  const ordinal = vref === undefined ? undefined : storeGet(`${c.prefix}|${vref}`);
  return ordinal === undefined ? undefined : `${c.prefix}r${ordinal}:${vref}`;
};
const has = (c, key) => {
  const row = rowOf(c, key);
  return row !== undefined && storeGet(row) !== undefined;
};
const check = (c, key, value) => {
  if (c.stringKeys && typeof key !== 'string') throw TypeError(`invalid key type for collection ${quote(c.label)}: a string is needed`);
  if (c.keyShape !== undefined) mustMatch(harden(key), c.keyShape, `invalid key type for collection ${quote(c.label)}`);
  if (c.valueShape !== undefined) mustMatch(harden(value), c.valueShape, `invalid value type for collection ${quote(c.label)}`);
};
// Encodes before anything is written, so that a refused key or value changes nothing.
const add = (c, key, value) => {
  check(c, key, value);
  const capdata = c.isMap ? pack(value, c.durable) : undefined;
  let row = rowOf(c, key);
  if (row === undefined) {
    const vref = nameOf(key, c.durable, 'key');
    const ordinal = storeGet(`${c.prefix}|nextOrdinal`) ?? '1';
    storeSet(`${c.prefix}|nextOrdinal`, `${Number(ordinal) + 1}`);
    const padded = ordinal.padStart(10, '0');
    storeSet(`${c.prefix}|${vref}`, padded);
    row = `${c.prefix}r${padded}:${vref}`;
    if (c.isWeak) recognize(vref, c.number, c.durable);
    else retain([vref], c.durable);
  }
  storeSet(row, capdata === undefined ? '' : JSON.stringify(capdata));
  if (capdata !== undefined) retain(capdata.slots, c.durable);
  if (c.size !== undefined) c.size += 1;
};
const replace = (c, key, value) => {
  const row = rowOf(c, key);
  const before = row === undefined ? undefined : storeGet(row);
  if (before === undefined) complain(c, key, 'not found');
  check(c, key, value);
  const capdata = pack(value, c.durable);
  retain(capdata.slots, c.durable);
  storeSet(row, JSON.stringify(capdata));
  release(JSON.parse(before).slots, c.durable);
};
const removeRow = (c, row) => {
  const text = storeGet(row);
  storeDelete(row);
  const name = row.slice(c.prefix.length);
  if (name[0] === 'r') {
    const vref = name.slice(name.indexOf(':') + 1);
    storeDelete(`${c.prefix}|${vref}`);
    if (c.isWeak) unrecognize(vref, c.number, c.durable);
    else release([vref], c.durable);
  }
  if (text !== '') release(JSON.parse(text).slots, c.durable);
  if (c.size !== undefined) c.size -= 1;
};
const remove = (c, key) => {
  if (!has(c, key)) complain(c, key, 'not found');
  removeRow(c, rowOf(c, key));
};
const read = (c, key) => {
  const row = rowOf(c, key);
  const text = row === undefined ? undefined : storeGet(row);
  if (text === undefined) complain(c, key, 'not found');
  return unpack(JSON.parse(text));
};
// A cursor: what changes behind it is not seen, what changes before it is.
const rows = function* (c) {
  const { prefix } = c;
  const end = `${prefix}|`;
  for (let row = storeNext(prefix, prefix); row !== undefined && row < end; row = storeNext(row, prefix)) yield row;
};
const walk = function* (c, keyPattern, valuePattern, select) {
  for (const row of rows(c)) {
    const key = keyOfText(row.slice(c.prefix.length));
    if (keyPattern !== undefined && !matches(key, keyPattern)) continue;
    const value = () => (c.isMap ? unpack(JSON.parse(storeGet(row))) : key);
    if (valuePattern !== undefined && !matches(value(), valuePattern)) continue;
    yield select(key, value, row);
  }
};
const sizeOf = (c, keyPattern, valuePattern) => {
  if (keyPattern === undefined && valuePattern === undefined) return (c.size ??= storeCount(c.prefix, `${c.prefix}|`));
  let size = 0;
  for (const _ of walk(c, keyPattern, valuePattern, () => 1)) size += 1;
  return size;
};
const destroyed = (type, base, budget) => {
  const c = open(type, base.slice(base.indexOf('/') + 1));
  let spent = 0;
  for (const row of rows(c)) {
    if (spent >= budget) return budget + 1;
    removeRow(c, row);
    spent += 1;
  }
  const text = storeGet(`${c.prefix}|schemata`);
  if (text !== undefined) release(JSON.parse(text).slots, c.durable);
  for (const name of ['|nextOrdinal', '|schemata']) storeDelete(c.prefix + name);
  return spent + 1;
};
setKeyDropper((vref, number, durable) => {
  const prefix = prefixOf(number, durable);
  const ordinal = storeGet(`${prefix}|${vref}`);
  const row = `${prefix}r${ordinal}:${vref}`;
  const text = storeGet(row);
  storeDelete(row);
  storeDelete(`${prefix}|${vref}`);
  if (text) release(JSON.parse(text).slots, durable);
});

// ---- The objects.
const contexts = new RealWeakMap();
const opened = (object, kind) => {
  const c = isObject(object) ? contexts.get(object) : undefined;
  if (c === undefined || c.name !== kind) throw TypeError(`not a ${kind}`);
  return c;
};
const methodsOf = type => {
  const { isMap, isWeak, name } = type;
  const of = object => opened(object, name);
  const both = {
    has(key) { return has(of(this), key); },
    delete(key) { remove(of(this), key); },
  };
  const forMaps = {
    get(key) { return read(of(this), key); },
    init(key, value) {
      if (has(of(this), key)) complain(of(this), key, 'already registered');
      add(of(this), key, value);
    },
    set(key, value) { replace(of(this), key, value); },
    addAll(entries) {
      const c = of(this);
      for (const [key, value] of entries) {
        if (has(c, key)) replace(c, key, value);
        else add(c, key, value);
      }
    },
  };
  const forSets = {
    add(key) { if (!has(of(this), key)) add(of(this), key); },
    addAll(list) {
      const c = of(this);
      for (const key of list) if (!has(c, key)) add(c, key);
    },
  };
  const forStrong = {
    keys(keyPattern, valuePattern) { return walk(of(this), keyPattern, valuePattern, key => key); },
    values(keyPattern, valuePattern) { return walk(of(this), keyPattern, valuePattern, (_, value) => value()); },
    entries(keyPattern, valuePattern) { return walk(of(this), keyPattern, valuePattern, (key, value) => harden([key, value()])); },
    getSize(keyPattern, valuePattern) { return sizeOf(of(this), keyPattern, valuePattern); },
    clear(keyPattern, valuePattern) {
      const c = of(this);
      for (const row of walk(c, keyPattern, valuePattern, (_key, _value, at) => at)) removeRow(c, row);
    },
  };
  return { ...both, ...(isMap ? forMaps : forSets), ...(isWeak ? {} : forStrong) };
};
const NAMES = ['MapStore', 'WeakMapStore', 'SetStore', 'WeakSetStore'];
const define = (id, name, durable) => {
  const type = { name: `${durable ? 'durable' : 'virtual'}${name}`, durable, isMap: name.includes('Map'), isWeak: name.includes('Weak') };
  const prototype = create(remotablePrototype(`scalar${durable ? 'Durable' : ''}${name}`));
  const methods = methodsOf(type);
  for (const method of Object.keys(methods)) Object.defineProperty(prototype, method, { value: methods[method], enumerable: true });
  Object.defineProperty(prototype, '__getMethodNames__', { value: { __getMethodNames__() { return methodNames(this); } }.__getMethodNames__ });
  harden(prototype);
  const letter = durable ? 'd' : 'v';
  const revive = base => {
    const object = freeze(create(prototype));
    vrefs.set(object, base);
    contexts.set(object, { ...open(type, base.slice(base.indexOf('/') + 1)), stringKeys: base === BAGGAGE });
    return object;
  };
  kinds.set(`${id}`, {
    exists: base => base === BAGGAGE || storeGet(`${prefixOf(base.slice(base.indexOf('/') + 1), durable)}|schemata`) !== undefined,
    revive,
    destroy: (base, budget) => destroyed(type, base, budget),
  });
  return (label, { keyShape = undefined, valueShape = undefined } = {}) => {
    if (typeof label !== 'string') throw TypeError('the label of a collection must be a string');
    const shapes = { label };
    for (const [part, shape] of [['keyShape', keyShape], ['valueShape', valueShape]]) {
      if (shape === undefined) continue;
      assertPattern(harden(shape));
      shapes[part] = shape;
    }
    const capdata = pack(harden(shapes), durable);
    const base = `o+${letter}${id}/${take('collectionID')}`;
    retain(capdata.slots, durable);
    storeSet(`${prefixOf(base.slice(base.indexOf('/') + 1), durable)}|schemata`, JSON.stringify(capdata));
    born(base);
    return register(base, revive(base));
  };
};
const makers = {};
NAMES.forEach((name, i) => {
  const [virtual, durable] = [define(2 + i, name, false), define(6 + i, name, true)];
  makers[`makeScalarBig${name}`] = (label = name, options = {}) => (options.durable ? durable : virtual)(label, options);
});
export const { makeScalarBigMapStore, makeScalarBigWeakMapStore, makeScalarBigSetStore, makeScalarBigWeakSetStore } = makers;

// The first run of a vat whose store has no counts yet: its baggage is counted once.
export const countBaggage = () => {
  const c = open({ durable: true, isMap: true }, 1);
  for (const row of rows(c)) retain(JSON.parse(storeGet(row)).slots, true);
};
