// Kinds of objects whose state is in the store (04 §5): virtual ones, which end with the run, and durable ones.
//
//   vom.dkind.<kind>   { kindID, tag, nextInstanceID, unfaceted | facets }: a durable kind, made by makeKindHandle
//   vom.<base>, ~vom.<base>   { property: capdata }: the state of an instance
import { host, RealWeakMap, harden, freeze, create, keys, defineProperty, isObject, ownKeys, apply, getPrototypeOf, getOwnPropertyDescriptor } from 'capstan:lockdown';
import { remotablePrototype, methodNames, passStyleOf } from 'capstan:passable';
import { vrefs, kinds, take, register, BLOCK } from 'capstan:tables';
import { pack, unpack, retain, release, born } from 'capstan:stored';
import { guarded, mustMatch } from 'capstan:shapes';

const { storeGet, storeSet, storeDelete, storeNext } = host;
const quote = text => JSON.stringify(String(text));

const mustPass = (value, label) => {
  try {
    passStyleOf(harden(value));
  } catch (error) {
    throw TypeError(`${label}: ${error.message}`);
  }
};
const passing = (method, label) => (context, args) => {
  mustPass(args, label);
  const result = method(context, args);
  mustPass(result, `${label}: result`);
  return result;
};
// Methods of `behavior` on a prototype for objects that `contexts` knows. A method gets its context as `this` or as
// its first argument. Without a guard `passable` still asks that arguments and results pass.
export const facetPrototype = (iface, behavior, contexts, { thisfulMethods = false, interfaceGuard = undefined, passable = false } = {}) => {
  const prototype = create(remotablePrototype(iface));
  const found = new Map();
  for (let o = behavior; isObject(o) && o !== Object.prototype; o = getPrototypeOf(o)) {
    for (const name of ownKeys(o)) if (name !== 'constructor' && !found.has(name)) found.set(name, getOwnPropertyDescriptor(o, name).value);
  }
  const checked = interfaceGuard === undefined ? undefined : guarded(iface, interfaceGuard, [...found.keys()]);
  for (const [name, raw] of found) {
    if (typeof raw !== 'function') throw TypeError(`${iface}: ${quote(name)} is not a method`);
    const label = `In ${quote(name)} method of (${iface})`;
    const plain = thisfulMethods ? (context, args) => apply(raw, context, args) : (context, args) => raw(context, ...args);
    const run = checked !== undefined ? checked(name, plain, label) : passable ? passing(plain, label) : plain;
    const { [name]: method } = {
      [name](...args) {
        // Not of another facet either.
        const context = isObject(this) && getPrototypeOf(this) === prototype ? contexts.get(this) : undefined;
        if (context === undefined) throw TypeError(`${label} may only be applied to a valid instance`);
        return run(context, args);
      },
    };
    defineProperty(prototype, name, { value: method, enumerable: true });
  }
  const add = (name, method) => {
    if (!found.has(name)) defineProperty(prototype, name, { value: method });
  };
  add('__getMethodNames__', { __getMethodNames__() { return methodNames(this); } }.__getMethodNames__);
  if (checked !== undefined) add('__getInterfaceGuard__', { __getInterfaceGuard__() { return interfaceGuard; } }.__getInterfaceGuard__);
  return harden(prototype);
};

// ---- State. A few rows stay parsed; whoever writes one writes through.
const KEPT_ROWS = 32;
const KEPT_UNITS = 4096;
const parsed = new Map();
const readRow = row => {
  let record = parsed.get(row);
  if (record === undefined) {
    const text = storeGet(row);
    record = JSON.parse(text);
    keepRow(row, record, text);
  }
  return record;
};
const keepRow = (row, record, text) => {
  if (text.length > KEPT_UNITS) {
    parsed.delete(row);
    return;
  }
  if (parsed.size >= KEPT_ROWS && !parsed.has(row)) parsed.delete(parsed.keys().next().value);
  parsed.set(row, record);
};
const writeRow = (row, record) => {
  const text = JSON.stringify(record);
  storeSet(row, text);
  keepRow(row, record, text);
};
const stateOf = (row, durable, shape, tag) => {
  const state = {};
  for (const name of keys(readRow(row))) {
    defineProperty(state, name, {
      enumerable: true,
      get: () => unpack(readRow(row)[name]),
      set: value => {
        const capdata = pack(value, durable);
        if (shape !== undefined) mustMatch(value, shape[name], `state of ${quote(tag)}: ${name}`);
        const record = readRow(row);
        const before = record[name].slots;
        retain(capdata.slots, durable);
        writeRow(row, { ...record, [name]: capdata });
        release(before, durable);
      },
    });
  }
  return freeze(state);
};

// ---- Definition.
const slotsOf = record => keys(record).flatMap(name => record[name].slots);
const define = ({ id, tag, durable, init, behavior, facets, options, nextInstance }) => {
  const { finish = undefined, stateShape = undefined, thisfulMethods = false, interfaceGuard = undefined, interfaceGuardKit = undefined } = options;
  harden(stateShape);
  const letter = durable ? 'd' : 'v';
  const rowOf = base => `${durable ? 'vom.' : '~vom.'}${base}`;
  const contexts = new RealWeakMap(); // facet -> context; an entry keeps all facets while one lives
  const protoFor = (iface, methods, guard) => facetPrototype(iface, methods, contexts, { thisfulMethods, interfaceGuard: guard });
  const prototypes = facets === undefined
    ? protoFor(tag, behavior, interfaceGuard)
    : Object.fromEntries(facets.map(name => [name, protoFor(`${tag} ${name}`, behavior[name], interfaceGuardKit?.[name])]));
  const build = base => {
    const row = rowOf(base);
    let state;
    const context = { get state() { return (state ??= stateOf(row, durable, stateShape, tag)); } };
    const one = (prototype, vref) => {
      const object = freeze(create(prototype));
      vrefs.set(object, vref);
      contexts.set(object, context);
      return object;
    };
    if (facets === undefined) context.self = one(prototypes, base);
    else context.facets = freeze(Object.fromEntries(facets.map((name, i) => [name, one(prototypes[name], `${base}:${i}`)])));
    freeze(context);
    return context;
  };
  const cohortOf = context => context.self ?? context.facets;
  kinds.set(id, {
    facets,
    exists: base => storeGet(rowOf(base)) !== undefined,
    revive: base => cohortOf(build(base)),
    destroy: base => {
      const row = rowOf(base);
      const record = readRow(row);
      parsed.delete(row);
      storeDelete(row);
      release(slotsOf(record), durable);
      return 1;
    },
  });
  const make = (...args) => {
    const initial = init === undefined ? {} : init(...args);
    if (!isObject(initial) || Array.isArray(initial)) throw TypeError(`${tag}: the initial state must be a record`);
    const record = {};
    for (const name of ownKeys(initial)) {
      if (typeof name !== 'string') throw TypeError(`${tag}: a property of the state must be named by a string`);
      record[name] = pack(initial[name], durable);
    }
    if (stateShape !== undefined) mustMatch(harden({ ...initial }), stateShape, `state of ${quote(tag)}`);
    const base = `o+${letter}${id}/${nextInstance()}`;
    retain(slotsOf(record), durable);
    writeRow(rowOf(base), record);
    born(base);
    const context = build(base);
    register(base, cohortOf(context));
    if (finish !== undefined) finish(context);
    return cohortOf(context);
  };
  const isInstance = (object, facet = undefined) => {
    const context = isObject(object) ? contexts.get(object) : undefined;
    return context !== undefined && (facet === undefined || context.facets?.[facet] === object);
  };
  options.receiveInstanceTester?.(harden(isInstance));
  if (options.receiveAmplifier !== undefined) {
    if (facets === undefined) throw TypeError(`${tag}: only facets of a kit can be amplified`);
    options.receiveAmplifier(harden(facet => {
      const context = isObject(facet) ? contexts.get(facet) : undefined;
      if (context === undefined) throw TypeError('Must be a facet of this kind');
      return context.facets;
    }));
  }
  return harden(make);
};
const facetNames = (tag, behavior) => {
  const names = ownKeys(behavior).sort();
  if (names.length < 2) throw TypeError(`${tag}: a kind with facets must have more than one`);
  return names;
};

// ---- Virtual kinds.
const defineVirtual = (tag, init, behavior, options, facets) => {
  let last = 0;
  const nextInstance = () => (last += 1);
  return define({ id: `${take('exportID')}`, tag, durable: false, init, behavior, facets, options, nextInstance });
};
export const defineKind = (tag, init, behavior, options = {}) => defineVirtual(tag, init, behavior, options, undefined);
export const defineKindMulti = (tag, init, behavior, options = {}) => defineVirtual(tag, init, behavior, options, facetNames(tag, behavior));

// ---- Durable kinds.
const HANDLE = '1'; // the kind of handles; the instance number of one is the number of the kind it stands for
const kindRow = id => `vom.dkind.${id}`;
const handlePrototype = harden(create(remotablePrototype('kind')));
const makeHandle = base => {
  const handle = freeze(create(handlePrototype));
  vrefs.set(handle, base);
  return handle;
};
const idOf = base => base.slice(base.indexOf('/') + 1);
kinds.set(HANDLE, { exists: base => storeGet(kindRow(idOf(base))) !== undefined, revive: makeHandle, destroy: () => 0 });

export const makeKindHandle = tag => {
  if (typeof tag !== 'string') throw TypeError('the tag of a kind must be a string');
  const id = take('exportID');
  storeSet(kindRow(id), JSON.stringify({ kindID: `${id}`, tag, nextInstanceID: 1 }));
  const base = `o+d${HANDLE}/${id}`;
  return register(base, makeHandle(base));
};
const defined = new Set();
export const tagOfHandle = handle => {
  const vref = isObject(handle) ? vrefs.get(handle) : undefined;
  if (vref === undefined || !vref.startsWith(`o+d${HANDLE}/`)) throw TypeError('a handle made by makeKindHandle is needed');
  return { id: idOf(vref), vref };
};
const defineDurable = (handle, init, behavior, options, wanted) => {
  const { id } = tagOfHandle(handle);
  const record = JSON.parse(storeGet(kindRow(id)));
  const { tag } = record;
  if (defined.has(id)) throw Error(`redefinition of durable kind ${quote(tag)}`);
  if (wanted !== undefined && record.unfaceted) throw Error(`durable kind ${quote(tag)} had no facets before`);
  if (wanted === undefined && record.facets !== undefined) throw Error(`durable kind ${quote(tag)} had facets before`);
  // Facets keep their numbers; new ones come after.
  const old = record.facets ?? [];
  const missing = wanted === undefined ? [] : old.filter(name => !wanted.includes(name));
  if (missing.length > 0) throw Error(`durable kind ${quote(tag)} lacks the facets ${missing.join(', ')} it had before`);
  const facets = wanted && [...old, ...wanted.filter(name => !old.includes(name))];
  let next = record.nextInstanceID;
  let claimed = next;
  const save = () => storeSet(kindRow(id), JSON.stringify({ kindID: id, tag, nextInstanceID: claimed, ...(facets ? { facets } : { unfaceted: true }) }));
  const make = define({
    id, tag, durable: true, init, behavior, facets, options,
    nextInstance: () => {
      const number = next;
      next += 1;
      if (next > claimed) {
        claimed = number + BLOCK;
        save();
      }
      return number;
    },
  });
  defined.add(id);
  save();
  return make;
};
export const defineDurableKind = (handle, init, behavior, options = {}) => defineDurable(handle, init, behavior, options, undefined);
export const defineDurableKindMulti = (handle, init, behavior, options = {}) => {
  const { id } = tagOfHandle(handle);
  return defineDurable(handle, init, behavior, options, facetNames(id, behavior));
};
// Tags of kinds that an earlier incarnation defined and this one did not.
export const undefinedKinds = () => {
  const tags = [];
  const prefix = 'vom.dkind.';
  for (let row = storeNext(prefix, prefix); row !== undefined; row = storeNext(row, prefix)) {
    const { kindID, tag, unfaceted, facets } = JSON.parse(storeGet(row));
    if ((unfaceted || facets) && !defined.has(kindID)) tags.push(tag);
  }
  return tags;
};
