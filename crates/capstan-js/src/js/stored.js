// References in stored data: who is named by it, how often, and what goes when nobody names it any more.
//
// Rows of durable data survive; rows with `~` in front belong to virtual data and end with the run.
//   vom.rc.<base>, ~rc.<base>       in how many stored values an object is named
//   vom.es.<base>, ~es.<base>       what the kernel knows of an instance, a letter per facet: reach, see, nothing
//   vom.zero.<base>, ~zero.<base>   an instance that neither stored data nor the kernel reaches: only memory may
//   vom.ir.<vref>|<n>, ~ir.<vref>|<n>   the weak collections that have this key
import { host } from 'capstan:lockdown';
import { encode, decode } from 'capstan:smallcaps';
import { getInterfaceOf, isPromise } from 'capstan:passable';
import {
  vrefs, reachable, held, weak, maybeDead, recognized, tokens, watchOver, isImport, isDurable, isVirtual, isEphemeral, baseOf, take,
  kindOfBase, isLive, instance,
} from 'capstan:tables';

export const BAGGAGE = 'o+d6/1';
const { storeGet, storeSet, storeDelete, storeNext } = host;
const countRow = (base, durable) => `${durable ? 'vom.rc.' : '~rc.'}${base}`;
const exportRow = base => `${isVirtual(base) ? '~es.' : 'vom.es.'}${base}`;
const zeroRow = base => `${isVirtual(base) ? '~zero.' : 'vom.zero.'}${base}`;
const isInstance = base => isDurable(base) || isVirtual(base);
export const isNamed = base => storeGet(countRow(base, true)) !== undefined || storeGet(countRow(base, false)) !== undefined;

// ---- The set of instances that only memory may hold.
let fresh; // while burying: those that joined the set
const mayDie = base => {
  if (base === BAGGAGE || base.startsWith('o+d1/')) return; // the baggage and handles of kinds stay
  storeSet(zeroRow(base), '');
  fresh?.push(base);
};
export const born = mayDie;
const lives = base => storeDelete(zeroRow(base));
const kernelReaches = base => storeGet(exportRow(base))?.includes('r') ?? false;
// Whether the set is the place for it. What virtual data alone holds of durable instances ends with the run.
const isZero = base => storeGet(countRow(base, isDurable(base))) === undefined && !kernelReaches(base);

// ---- Counts.
const retainOne = (vref, durable) => {
  const base = baseOf(vref);
  const row = countRow(base, durable);
  const before = storeGet(row);
  storeSet(row, before === undefined ? '1' : `${Number(before) + 1}`);
  if (before !== undefined) return;
  if (isInstance(base)) {
    if (durable === isDurable(base)) lives(base);
  } else if (isEphemeral(base)) held.set(base, ephemeral(base));
};
const releaseOne = (vref, durable) => {
  const base = baseOf(vref);
  const row = countRow(base, durable);
  const left = Number(storeGet(row)) - 1;
  if (left > 0) {
    storeSet(row, `${left}`);
    return;
  }
  storeDelete(row);
  if (isInstance(base)) {
    if (isZero(base)) mayDie(base);
  } else if (!isNamed(base)) letGo(base);
};
export const retain = (slots, durable) => {
  for (const vref of slots) retainOne(vref, durable);
};
export const release = (slots, durable) => {
  for (const vref of slots) releaseOne(vref, durable);
};
const ephemeral = vref => reachable.get(vref) ?? held.get(vref) ?? weak.get(vref)?.deref();
// No stored data names this import or ephemeral object any more.
const letGo = vref => {
  if (isEphemeral(vref)) {
    const object = held.get(vref);
    held.delete(vref);
    if (object !== undefined && !reachable.has(vref)) watchOver(vref, object);
  } else if (weak.get(vref)?.deref() === undefined) maybeDead.add(vref);
};

// ---- Values.
const nameIn = (item, durable, what) => {
  if (isPromise(item)) throw TypeError(`${what} is not ${durable ? 'durable' : 'storable'}: a promise`);
  let vref = vrefs.get(item);
  if (durable && (vref === undefined || isEphemeral(vref) || isVirtual(vref))) {
    throw TypeError(`${what} is not durable: ${String(getInterfaceOf(item))}`);
  }
  if (vref === undefined) {
    vref = `o+${take('exportID')}`;
    vrefs.set(item, vref);
    watchOver(vref, item);
  }
  return vref;
};
// Names a key or value that is one object. Nothing is counted yet.
export const nameOf = nameIn;
// Encodes for the store without changing anything there.
export const pack = (value, durable) => {
  try {
    return encode(value, item => nameIn(item, durable, 'value'));
  } catch (error) {
    const { message } = error;
    throw message.startsWith('value is not ') ? error : TypeError(`value is not ${durable ? 'durable' : 'storable'}: ${message}`);
  }
};
let makePresence;
export const setPresenceMaker = maker => {
  makePresence = maker;
};
// Finds or makes the object a vref names.
export const objectOf = (vref, iface) => {
  if (isImport(vref)) return weak.get(vref)?.deref() ?? makePresence(vref, iface);
  if (!isEphemeral(vref)) return instance(vref);
  const object = ephemeral(vref);
  if (object === undefined) throw Error(`I don't remember allocating ${JSON.stringify(vref)}`);
  return object;
};
export const unpack = ({ body, slots }) => decode(body, slots, objectOf);
export const canBeDurable = value => {
  try {
    pack(value, true);
    return true;
  } catch {
    return false;
  }
};

// ---- What the kernel knows of instances.
export const markExported = vref => {
  const base = baseOf(vref);
  const row = exportRow(base);
  const facet = base === vref ? 0 : Number(vref.slice(base.length + 1));
  const before = storeGet(row) ?? '';
  if (before[facet] === 'r') return;
  const count = kindOfBase(base).facets?.length ?? 1;
  storeSet(row, before.padEnd(count, 'n').replace(/./g, (letter, i) => (i === facet ? 'r' : letter)));
  lives(base);
};
const unmark = (vref, letter) => {
  const base = baseOf(vref);
  const row = exportRow(base);
  const facet = base === vref ? 0 : Number(vref.slice(base.length + 1));
  const before = storeGet(row);
  if (before === undefined) return;
  const now = before.replace(/./g, (old, i) => (i === facet ? letter : old));
  if (/[rs]/.test(now)) storeSet(row, now);
  else storeDelete(row);
  if (isZero(base)) mayDie(base);
};
export const exportDropped = vref => unmark(vref, 's');
export const exportRetired = vref => unmark(vref, 'n');

// ---- Keys of weak collections.
export const recognize = (vref, collection, durable) => storeSet(`${durable ? 'vom.ir.' : '~ir.'}${vref}|${collection}`, '');
export const unrecognize = (vref, collection, durable) => {
  storeDelete(`${durable ? 'vom.ir.' : '~ir.'}${vref}|${collection}`);
  if (isImport(vref) && weak.get(vref)?.deref() === undefined) maybeDead.add(vref);
};
export const isRecognized = vref => ['vom.ir.', '~ir.'].some(prefix => storeNext(`${prefix}${vref}|`, `${prefix}${vref}|`) !== undefined);
let dropKey;
export const setKeyDropper = dropper => {
  dropKey = dropper;
};
// The key is gone for good.
export const forgetKey = vref => {
  tokens.delete(vref);
  for (const durable of [true, false]) {
    const prefix = `${durable ? 'vom.ir.' : '~ir.'}${vref}|`;
    for (let row = storeNext(prefix, prefix); row !== undefined; row = storeNext(row, prefix)) {
      storeDelete(row);
      dropKey(vref, row.slice(prefix.length), durable);
    }
  }
};

// ---- Burying. What is left over when the budget is spent waits in its rows for the next time.
const ROWS_MAX = 20000;
let budget = ROWS_MAX;
let buried = 0;
let retired = []; // exports of what was buried that the kernel may still recognise
const bury = base => {
  const spent = kindOfBase(base).destroy(base, budget);
  budget -= spent;
  if (budget < 0) return false; // not all of it is gone yet
  buried += 1;
  const status = storeGet(exportRow(base)) ?? '';
  const { facets } = kindOfBase(base);
  for (let facet = 0; facet < (facets?.length ?? 1); facet += 1) {
    const vref = facets === undefined ? base : `${base}:${facet}`;
    if (status[facet] === 's') retired.push(vref);
    forgetKey(vref);
  }
  storeDelete(exportRow(base));
  lives(base);
  return true;
};
// Removes instances that nothing reaches, and what only they reached. Returns how many were removed since the start.
export const buryInstances = () => {
  const visit = base => {
    if (storeGet(zeroRow(base)) === undefined || isNamed(base) || isLive(base)) return true;
    return budget > 0 && bury(base);
  };
  fresh = [];
  try {
    for (const prefix of ['~zero.', 'vom.zero.']) {
      for (let row = storeNext(prefix, prefix); row !== undefined; row = storeNext(row, prefix)) {
        if (!visit(row.slice(prefix.length))) return buried;
        while (fresh.length > 0) if (!visit(fresh.pop())) return buried;
      }
    }
  } finally {
    fresh = undefined;
  }
  return buried;
};
export const takeRetired = () => {
  const list = retired;
  retired = [];
  budget = ROWS_MAX;
  return list;
};
// An ephemeral object or import that died: whether stored data still has a say.
export const isGone = vref => !isNamed(vref) && !held.has(vref) && !reachable.has(vref) && weak.get(vref)?.deref() === undefined;
export const wasRecognized = vref => recognized.delete(vref);
