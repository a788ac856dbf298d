// WeakMap and WeakSet for vats. An object that lives in the store, or elsewhere, may leave memory and come back; as a
// key it is represented by a token that stays as long as the object does.
import { vrefs, tokens, isEphemeral } from 'capstan:tables';
import { uncurry, RealWeakMap, RealWeakSet } from 'capstan:lockdown';

const M = {};
for (const name of ['get', 'set', 'has', 'delete']) M[name] = uncurry(RealWeakMap.prototype[name]);
const S = {};
for (const name of ['add', 'has', 'delete']) S[name] = uncurry(RealWeakSet.prototype[name]);
const vrefOf = uncurry(RealWeakMap.prototype.get);

const known = key => {
  const vref = vrefOf(vrefs, key);
  if (vref === undefined || vref[0] !== 'o' || isEphemeral(vref)) return key;
  return tokens.get(vref);
};
const needed = key => {
  const vref = vrefOf(vrefs, key);
  if (vref === undefined || vref[0] !== 'o' || isEphemeral(vref)) return key;
  let token = tokens.get(vref);
  if (token === undefined) {
    token = {};
    tokens.set(vref, token);
  }
  return token;
};

const VatWeakMap = class WeakMap {
  #real = new RealWeakMap();
  constructor(entries = undefined) {
    if (entries === undefined || entries === null) return;
    for (const [key, value] of entries) this.set(key, value);
  }
  get(key) { return M.get(this.#real, known(key)); }
  has(key) { return M.has(this.#real, known(key)); }
  set(key, value) {
    M.set(this.#real, needed(key), value);
    return this;
  }
  delete(key) { return M.delete(this.#real, known(key)); }
};
const VatWeakSet = class WeakSet {
  #real = new RealWeakSet();
  constructor(members = undefined) {
    if (members === undefined || members === null) return;
    for (const member of members) this.add(member);
  }
  has(key) { return S.has(this.#real, known(key)); }
  add(key) {
    S.add(this.#real, needed(key));
    return this;
  }
  delete(key) { return S.delete(this.#real, known(key)); }
};
for (const C of [VatWeakMap, VatWeakSet]) Object.defineProperty(C.prototype, Symbol.toStringTag, { value: C.name, configurable: true });
export const replaceWeak = () => {
  Object.defineProperty(globalThis, 'WeakMap', { value: VatWeakMap, writable: true, configurable: true });
  Object.defineProperty(globalThis, 'WeakSet', { value: VatWeakSet, writable: true, configurable: true });
};
