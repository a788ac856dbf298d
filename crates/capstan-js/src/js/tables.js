// What the parts of the runtime share: names of values, numbers, and what is in memory of each.
import { host, RealWeakMap, RealWeakRef, Finalizer } from 'capstan:lockdown';

export const vrefs = new RealWeakMap(); // value -> vref
export const reachable = new Map(); // o+N -> object, while the kernel may name it
export const held = new Map(); // o+N -> object, while virtual data names it
export const weak = new Map(); // o-N, or an o+N that nothing above holds -> WeakRef
export const maybeDead = new Set(); // o-N and o+N that something let go of
export const recognized = new Set(); // o+N that the kernel dropped and may still recognise
export const tokens = new Map(); // vref -> what stands for it as a key in the vat's WeakMaps
export const finalizer = new Finalizer(vref => maybeDead.add(vref));

export const watchOver = (vref, object) => {
  weak.set(vref, new RealWeakRef(object));
  finalizer.register(object, vref);
};

// ---- Forms of a vref.
export const isImport = vref => vref[1] === '-';
export const isDurable = vref => vref[2] === 'd';
export const isVirtual = vref => vref[2] === 'v';
export const isEphemeral = vref => vref[0] === 'o' && vref[1] === '+' && vref[2] !== 'd' && vref[2] !== 'v';
// Facets of one instance share a base.
export const baseOf = vref => {
  const colon = vref.indexOf(':');
  return colon < 0 ? vref : vref.slice(0, colon);
};
const byParts = (a, b) => {
  const [left, right] = [a.match(/\d+/g), b.match(/\d+/g)];
  for (let i = 0; i < left.length && i < right.length; i += 1) {
    if (left[i] !== right[i]) return BigInt(left[i]) < BigInt(right[i]) ? -1 : 1;
  }
  return left.length - right.length;
};
export const inOrder = list => list.sort(byParts);

// ---- Numbers. A block is claimed in the store before its first number is used, so that a later
// incarnation starts past whatever this one may have said.
export const BLOCK = 256;
const counters = { exportID: 10, collectionID: 4, promiseID: 5 };
let claimed = { ...counters };
const claim = () => host.storeSet('idCounters', JSON.stringify(claimed));
export const take = name => {
  const number = counters[name];
  counters[name] += 1;
  if (counters[name] > claimed[name]) {
    claimed[name] = number + BLOCK;
    claim();
  }
  return number;
};
export const loadCounters = () => {
  const stored = host.storeGet('idCounters');
  if (stored === undefined) claim();
  else {
    claimed = JSON.parse(stored);
    Object.assign(counters, claimed);
  }
};

// ---- Kinds: number -> { facets?, exists(base), revive(base), destroy(base, budget) }, entered by those who define them.
export const kinds = new Map();
const instances = new Map(); // base -> WeakRef of the one object, or of the record of facets
let sweepAt = 1024;
const sweep = () => {
  for (const [base, ref] of instances) if (ref.deref() === undefined) instances.delete(base);
  sweepAt = 2 * instances.size + 1024;
};
export const register = (base, cohort) => {
  if (instances.size >= sweepAt) sweep();
  instances.set(base, new RealWeakRef(cohort));
  return cohort;
};
export const isLive = base => {
  const ref = instances.get(base);
  if (ref === undefined) return false;
  if (ref.deref() !== undefined) return true;
  instances.delete(base);
  return false;
};
const kindOf = base => kinds.get(base.slice(3, base.indexOf('/')));
export const kindOfBase = base => {
  const kind = kindOf(base);
  if (kind === undefined) throw Error(`the kind of ${JSON.stringify(base)} is not defined`);
  return kind;
};
export const instance = vref => {
  const base = baseOf(vref);
  const kind = kindOf(base);
  const cohort = instances.get(base)?.deref() ?? (kind?.exists(base) ? register(base, kind.revive(base)) : undefined);
  const object = base === vref ? kind?.facets === undefined && cohort : cohort?.[kind.facets?.[vref.slice(base.length + 1)]];
  if (!object) throw Error(`I don't remember allocating ${JSON.stringify(vref)}`);
  return object;
};
