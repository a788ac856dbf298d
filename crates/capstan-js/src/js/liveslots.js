// The vat's two-way table between values and vrefs, and what each delivery does with it (04 §6).
import { host, lockdown, harden, freeze, create, then } from 'capstan:lockdown';
import { replaceSearches } from 'capstan:strings';
import { encode, decode, errorIds } from 'capstan:smallcaps';
import { Far, remotablePrototype, isRemotable, isPromise, passStyleOf, getInterfaceOf, methodNames } from 'capstan:passable';
import { E, HandledPromise, invoke, makePromiseKit, routes, setSender } from 'capstan:eventual';
import { assert, makeConsole, makeLogger, show } from 'capstan:assert';
import {
  vrefs, reachable, held, weak, maybeDead, recognized, tokens, watchOver, isImport, isEphemeral, inOrder, take, loadCounters,
} from 'capstan:tables';
import {
  BAGGAGE, setPresenceMaker, objectOf, canBeDurable, markExported, exportDropped, exportRetired, forgetKey, isNamed, isRecognized, isGone,
  wasRecognized, buryInstances, takeRetired,
} from 'capstan:stored';
import { replaceWeak } from 'capstan:weak';
import { makeKindHandle, defineKind, defineKindMulti, defineDurableKind, defineDurableKindMulti, undefinedKinds } from 'capstan:kinds';
import { makeScalarBigMapStore, makeScalarBigWeakMapStore, makeScalarBigSetStore, makeScalarBigWeakSetStore, countBaggage } from 'capstan:collections';
import { makeWatchers, providePromiseWatcher } from 'capstan:watch';
import { offered } from 'capstan:endowments';

const awaited = new Map(); // vpid -> { promise, resolve, reject }: decided elsewhere
const decided = new Map(); // vpid -> { promise, call? }: ours to settle, and of which call it is the result

// ---- Size of one syscall's capdata.
const fits = capdatas => {
  let units = 0;
  let slots = 0;
  for (let i = 0; i < capdatas.length; i += 1) {
    units += capdatas[i].body.length;
    slots += capdatas[i].slots.length;
  }
  return units <= host.bodyUnitsMax && slots <= host.slotsMax;
};

// ---- References in.
const awaitPromise = vpid => {
  const kit = Promise.withResolvers();
  vrefs.set(kit.promise, vpid);
  awaited.set(vpid, kit);
  routes.set(kit.promise, vpid);
  return freeze(kit.promise);
};
const presence = (vref, iface) => {
  const object = freeze(create(remotablePrototype(iface ?? 'undefined')));
  vrefs.set(object, vref);
  watchOver(vref, object);
  routes.set(object, vref);
  return object;
};
setPresenceMaker(presence);
// Decodes; promises met for the first time are added to `fresh`.
const decodeWith = (body, slots, fresh) => decode(body, slots, (vref, iface) => {
  if (vref[0] !== 'p') return objectOf(vref, iface);
  const known = awaited.get(vref) ?? decided.get(vref);
  if (known) return known.promise;
  fresh.add(vref);
  return awaitPromise(vref);
});
const noNames = new Set();
const decodeSubscribing = (body, slots) => {
  if (slots.length === 0) return decodeWith(body, slots, noNames);
  const fresh = new Set();
  try {
    return decodeWith(body, slots, fresh);
  } finally {
    for (const vpid of fresh) host.subscribe(vpid);
  }
};

// ---- Errors. What leaves keeps only its name and message; the log has the rest under the same id.
let lastErrorNumber = 70000;
const withStack = error => {
  const text = show(error);
  try {
    const { stack } = error;
    return typeof stack === 'string' && stack !== '' ? `${text}\n${stack.trimEnd()}` : text;
  } catch {
    return text;
  }
};
const errorName = error => {
  const known = errorIds.get(error);
  if (known !== undefined) return known;
  lastErrorNumber += 1;
  const errorId = `error:liveSlots:${host.vat}#${lastErrorNumber}`;
  errorIds.set(error, errorId);
  host.log('debug', `${errorId}: ${withStack(error)}`);
  return errorId;
};
const described = value => (value instanceof Error ? withStack(value) : show(value));
export const unheard = reason => host.log('error', `Unhandled rejection: ${described(reason)}`);

// ---- References out. Promises mentioned for the first time are added to `fresh`; the caller follows them.
const encodeWith = (value, fresh, mentioned) => encode(value, item => {
  let vref = vrefs.get(item);
  if (vref === undefined) {
    if (isPromise(item)) {
      vref = `p+${take('promiseID')}`;
      decided.set(vref, { promise: item });
      fresh.push(vref);
    } else {
      vref = `o+${take('exportID')}`;
      reachable.set(vref, item);
    }
    vrefs.set(item, vref);
  } else if (isEphemeral(vref)) {
    if (!reachable.has(vref)) { // dropped by the kernel before, or known to stored data only
      reachable.set(vref, item);
      recognized.delete(vref);
    }
  } else if (vref[0] === 'o' && !isImport(vref)) markExported(vref);
  if (vref[0] === 'p') mentioned.push(vref);
  return vref;
}, errorName);
const abandonFresh = fresh => {
  for (const vpid of fresh) {
    vrefs.delete(decided.get(vpid).promise);
    decided.delete(vpid);
  }
};

// ---- Settling.
// The interface is that at the time of the call: whether the object is still in memory must not show in what is said.
const whereOf = ({ iface = 'promise', method }) => `In ${JSON.stringify(String(method))} method of (${iface.replace(/^Alleged: /, '')}): result: `;
const encodeOutcome = (rejected, value, call, fresh, mentioned) => {
  const mark = fresh.length;
  try {
    return { rejected, capdata: encodeWith(value, fresh, mentioned) };
  } catch (error) {
    abandonFresh(fresh.splice(mark));
    const prefix = call === undefined ? '' : whereOf(call);
    const message = error instanceof Error ? error.message : 'not passable';
    return { rejected: true, capdata: encodeWith(TypeError(`${prefix}${message}`), fresh, mentioned) };
  }
};
// Resolves one promise, and with it every settled promise of ours that its value reaches.
const settle = (first, rejected, value) => {
  if (!decided.has(first)) return; // went out with another batch
  settleAll([[first, rejected, value]]);
};
const settleAll = todo => {
  const batch = [];
  const fresh = [];
  const queued = new Set();
  for (let i = 0; i < todo.length; i += 1) queued.add(todo[i][0]);
  for (let i = 0; i < todo.length; i += 1) {
    const [vpid, rejected, value] = todo[i];
    const mentioned = [];
    batch.push({ vpid, outcome: encodeOutcome(rejected, value, decided.get(vpid)?.call, fresh, mentioned) });
    for (let k = 0; k < mentioned.length; k += 1) {
      const other = mentioned[k];
      const ours = decided.get(other);
      if (!ours || queued.has(other)) continue;
      const settled = outcomeOf(ours.promise);
      if (settled) {
        queued.add(other);
        todo.push([other, ...settled]);
      }
    }
  }
  for (let i = 0; i < batch.length; i += 1) {
    const promise = decided.get(batch[i].vpid)?.promise;
    if (promise) vrefs.delete(promise);
    decided.delete(batch[i].vpid);
  }
  if (fits(batch.map(({ outcome }) => outcome.capdata))) {
    for (let i = 0; i < batch.length; i += 1) {
      const { vpid, outcome: { rejected, capdata } } = batch[i];
      host.resolveOne(vpid, rejected, capdata.body, capdata.slots.join());
    }
    host.resolveDone();
  } else {
    const { body } = encode(Error('syscall capdata too large'), () => '', errorName);
    host.exit(true, body, '');
  }
  for (let i = 0; i < fresh.length; i += 1) follow(fresh[i]);
};
const outcomeOf = promise => {
  const state = host.promiseState(promise);
  if (state === 0) return undefined;
  try {
    return [false, host.promiseResult(promise)];
  } catch (reason) {
    return [true, reason];
  }
};
const follow = vpid => {
  const ours = decided.get(vpid);
  if (ours) then(ours.promise, value => settle(vpid, false, value), reason => settle(vpid, true, reason));
};

// ---- Sending.
const send = (target, method, args, wantsAnswer) => {
  if (target[0] === 'p' && !awaited.has(target)) throw Error('promise is settled'); // its route is gone by then
  const fresh = [];
  const mentioned = [];
  let capdata;
  try {
    capdata = encodeWith([method, args], fresh, mentioned);
    if (!fits([capdata])) throw Error('syscall capdata too large');
  } catch (error) {
    abandonFresh(fresh);
    throw error;
  }
  let answer;
  let result = '';
  if (wantsAnswer) {
    result = `p+${take('promiseID')}`;
    answer = awaitPromise(result);
  }
  host.send(target, capdata.body, capdata.slots.join(), result);
  if (mentioned.length > 0) {
    const settled = [];
    for (const vpid of new Set(mentioned)) {
      const ours = decided.get(vpid);
      const outcome = ours && outcomeOf(ours.promise);
      if (outcome) settled.push([vpid, ...outcome]);
    }
    if (settled.length > 0) settleAll(settled);
  }
  for (let i = 0; i < fresh.length; i += 1) follow(fresh[i]);
  if (wantsAnswer) host.subscribe(result);
  return answer;
};
setSender(send);

// ---- Deliveries.
const split = text => (text === '' ? [] : text.split(','));
export const message = (target, body, slots, result) => {
  const to = target[0] === 'p' ? (decided.get(target) ?? awaited.get(target))?.promise : objectOf(target);
  if (to === undefined) throw Error(`I don't remember allocating ${JSON.stringify(target)}`);
  // A body that makes no sense is its sender's fault: the answer says so, and this vat lives on.
  let method;
  let outcome;
  try {
    let args;
    [method, args] = decodeSubscribing(body, split(slots));
    if (!Array.isArray(args)) throw TypeError('a call needs a list of arguments');
    outcome = then(Promise.resolve(to), object => invoke(object, method, args));
  } catch (error) {
    outcome = Promise.reject(error);
  }
  if (result === '') {
    // Nobody waits for the answer, so the log is all that hears of a failure.
    then(outcome, undefined, reason => host.log('debug', `Rejection without a listener: ${described(reason)}`));
    return;
  }
  const call = { iface: getInterfaceOf(to), method };
  const kit = awaited.get(result);
  if (kit) { // known before: from now on ours to decide
    awaited.delete(result);
    routes.delete(kit.promise);
    kit.resolve(outcome);
    decided.set(result, { promise: kit.promise, call });
  } else {
    decided.set(result, { promise: freeze(outcome), call });
    vrefs.set(outcome, result);
  }
  follow(result);
};

let told = [];
export const noticeOne = (vpid, rejected, body, slots) => {
  told.push({ vpid, rejected, body, slots: split(slots), value: undefined });
};
export const notice = () => {
  const batch = told;
  told = [];
  const fresh = new Set();
  const all = new Map();
  // A value may be the first mention of another promise of the batch: go round until nothing is new.
  for (let before = -1; before !== all.size;) {
    before = all.size;
    for (let i = 0; i < batch.length; i += 1) {
      const one = batch[i];
      if (!awaited.has(one.vpid) || all.has(one.vpid)) continue;
      all.set(one.vpid, one);
      try {
        one.value = decodeWith(one.body, one.slots, fresh);
      } catch (error) {
        one.value = error;
        one.rejected = true;
      }
    }
  }
  all.forEach(({ rejected, value }, vpid) => {
    const kit = awaited.get(vpid);
    awaited.delete(vpid);
    vrefs.delete(kit.promise);
    routes.delete(kit.promise);
    if (rejected) {
      then(kit.promise, undefined, () => {});
      kit.reject(value);
    } else kit.resolve(value);
  });
  if (fresh.size > 0) for (const vpid of fresh) if (!all.has(vpid)) host.subscribe(vpid);
};

export const dropExports = list => {
  for (const vref of split(list)) {
    if (!isEphemeral(vref)) exportDropped(vref);
    const object = reachable.get(vref);
    if (object === undefined || vref === 'o+0') continue;
    reachable.delete(vref);
    recognized.add(vref);
    watchOver(vref, object);
  }
};
export const retireExports = list => {
  for (const vref of split(list)) {
    if (vref === 'o+0') continue;
    if (!isEphemeral(vref)) exportRetired(vref);
    else {
      const object = reachable.get(vref);
      reachable.delete(vref);
      recognized.delete(vref);
      if (!isNamed(vref)) {
        // Nobody can say the number again.
        const known = object ?? weak.get(vref)?.deref();
        weak.delete(vref);
        if (known !== undefined) vrefs.delete(known);
      } else if (object !== undefined) watchOver(vref, object);
    }
  }
};
export const retireImports = list => {
  for (const vref of split(list)) {
    forgetKey(vref);
    maybeDead.delete(vref);
    if (weak.get(vref)?.deref() === undefined) weak.delete(vref);
  }
};
// Buries what the last collection freed, and says how much has died so far: the host collects until this stays.
export const deadCount = () => buryInstances() + maybeDead.size;
export const buryDead = () => {
  const dropped = [];
  const retired = [];
  const exports = takeRetired();
  for (const vref of maybeDead) {
    if (!isGone(vref)) {
      // Not in memory, but in the store: it may come back.
      if (weak.get(vref)?.deref() === undefined) weak.delete(vref);
      continue;
    }
    weak.delete(vref);
    if (!isImport(vref)) {
      if (wasRecognized(vref)) exports.push(vref);
      forgetKey(vref);
    } else {
      dropped.push(vref);
      if (isRecognized(vref)) continue;
      retired.push(vref);
      tokens.delete(vref);
    }
  }
  maybeDead.clear();
  const say = (what, vrefs) => {
    if (vrefs.length > 0) host.gc(what, inOrder(vrefs).join());
  };
  say('dropImports', dropped);
  say('retireImports', retired);
  say('retireExports', exports);
};

// ---- Start.
const { watchPromise, resumeWatches } = makeWatchers({
  decidedElsewhere: vpid => awaited.has(vpid),
  awaitAgain: vpid => awaited.get(vpid)?.promise ?? awaitPromise(vpid),
});
const VatData = {
  makeKindHandle, defineKind, defineKindMulti, defineDurableKind, defineDurableKindMulti, canBeDurable,
  makeScalarBigMapStore, makeScalarBigWeakMapStore, makeScalarBigSetStore, makeScalarBigWeakSetStore,
  providePromiseWatcher, watchPromise,
};
const exit = failure => value => {
  const fresh = [];
  const capdata = encodeWith(value, fresh, []);
  host.exit(failure, capdata.body, capdata.slots.join());
  for (const vpid of fresh) follow(vpid);
};
export const start = async (buildRootObject, parameters) => {
  if (typeof buildRootObject !== 'function') throw Error('vat source bundle lacks buildRootObject() function');
  const isNew = host.storeGet('idCounters') === undefined;
  loadCounters();
  if (host.storeGet('baggageID') === undefined) {
    host.storeSet('baggageID', BAGGAGE);
    if (!isNew) countBaggage();
  }
  const vatPowers = harden({ exitVat: exit(false), exitVatWithFailure: exit(true), logger, VatData, WeakMap, WeakSet });
  const root = await buildRootObject(vatPowers, parameters === undefined ? undefined : harden(JSON.parse(parameters)), objectOf(BAGGAGE));
  if (!isRemotable(harden(root))) throw Error('buildRootObject() must return a remotable object with an interface');
  if (vrefs.has(root)) throw Error('buildRootObject() must return a new object of this vat');
  const missing = undefinedKinds();
  if (missing.length > 0) throw Error(`defineDurableKind not called for tags: [${missing.join(', ')}]`);
  resumeWatches();
  reachable.set('o+0', root);
  vrefs.set(root, 'o+0');
  return methodNames(root).filter(name => !(name.startsWith('__') && name.endsWith('__'))).join();
};

const say = (level, text) => host.log(level, text, true);
const console = makeConsole(say, described);
const logger = makeLogger(say, described);
for (const value of [E, Far, makePromiseKit, passStyleOf, getInterfaceOf]) harden(value);
replaceSearches();
replaceWeak();
const given = {};
for (const name of host.globals) if (name in offered) given[name] = offered[name];
if ('fs' in offered) given.fs = offered.fs;
const wants = name => host.globals.includes(name);
lockdown({ console, assert, harden, HandledPromise, VatData, ...given }, { now: wants('Date') && host.now, random: wants('Math') && host.random });
Object.defineProperty(globalThis, Symbol.for('@endo passStyleOf'), { value: passStyleOf });
