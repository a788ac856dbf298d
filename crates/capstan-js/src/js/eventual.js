// Eventual sends: E, HandledPromise, promise kits.
import { harden, freeze, create, isObject, apply, then, ownKeys } from 'capstan:lockdown';
import { isPromise, methodNames } from 'capstan:passable';

// Presences and unsettled remote promises: value -> vref; those with a handler: value -> { send(method, args, wantsAnswer) }.
export const routes = new WeakMap();
let sendOut;
// `send(vref, method, args, wantsAnswer)` is how a message leaves the vat.
export const setSender = send => {
  sendOut = send;
};
const sendAlong = (route, method, args, wantsAnswer) => (typeof route === 'string' ? sendOut(route, method, args, wantsAnswer) : route.send(method, args, wantsAnswer));

// Calls a local object now. A missing method names what there is.
export const invoke = (target, method, args) => {
  if (method === undefined) {
    if (typeof target !== 'function') throw TypeError(`cannot call ${typeof target} as a function`);
    return apply(target, undefined, args);
  }
  const found = target === undefined || target === null ? undefined : target[method];
  // What every object inherits from the language is no method of this one.
  if (typeof found !== 'function' || (method in Object.prototype && found === Object.prototype[method])) {
    throw TypeError(`target has no method ${JSON.stringify(String(method))}, has ${JSON.stringify(isObject(target) ? methodNames(target) : [])}`);
  }
  return apply(found, target, args);
};

const dispatch = (target, method, args, wantsAnswer) => {
  const route = isObject(target) ? routes.get(target) : undefined;
  return route ? sendAlong(route, method, args, wantsAnswer) : invoke(target, method, args);
};
// A promise of this value. An object that calls itself a promise but has its own idea of how to be one is not asked in
// the turn of whoever calls it.
const promiseOf = value => {
  const genuine = !isPromise(value) || ownKeys(value).length === 0;
  return genuine ? Promise.resolve(value) : new Promise(resolve => resolve(value));
};
const eventually = (target, method, args, wantsAnswer = true) => {
  harden(args);
  const route = isObject(target) ? routes.get(target) : undefined;
  if (route) {
    try {
      return sendAlong(route, method, args, wantsAnswer);
    } catch (error) {
      return Promise.reject(error);
    }
  }
  return then(promiseOf(target), settled => dispatch(settled, method, args, wantsAnswer));
};
const forget = promise => {
  then(Promise.resolve(promise), undefined, () => {});
};

// Proxies whose calls are made by `call(target, method, args)`. The base of each is a function that returns its target.
const proxies = call => {
  const method = (target, name) => freeze({ [name]: (...args) => call(target, name, args) }[name]);
  const handler = freeze({
    __proto__: null,
    get: (base, name) => method(base(), name),
    apply: (base, _this, args) => call(base(), undefined, args),
    has: () => true, set: () => false, defineProperty: () => false, deleteProperty: () => false,
  });
  return target => new Proxy(freeze(() => target), handler);
};
export const E = proxies(eventually);
E.sendOnly = proxies((target, name, args) => forget(eventually(target, name, args, false)));
E.when = (target, onFulfilled, onRejected) => then(Promise.resolve(target), onFulfilled, onRejected);
E.resolve = target => Promise.resolve(target);
E.get = target => new Proxy(create(null), freeze({ get: (_base, name) => then(Promise.resolve(target), t => t[name]) }));

export const makePromiseKit = () => {
  const { promise, resolve, reject } = Promise.withResolvers();
  return harden({ promise, resolve, reject });
};

// A promise whose messages go to `handler` until it settles.
export function HandledPromise(executor, handler) {
  if (!new.target) throw TypeError('HandledPromise must be called with new');
  const { promise, resolve, reject } = Promise.withResolvers();
  const through = (h, target) => ({
    send: (name, args) => then(Promise.resolve(), () => (name === undefined ? h.applyFunction(target, args) : h.applyMethod(target, name, args))),
  });
  if (handler !== undefined) {
    routes.set(promise, through(handler, promise));
    const unroute = () => routes.delete(promise);
    then(promise, unroute, unroute);
  }
  const resolveWithPresence = (presenceHandler = handler) => {
    const presence = freeze(create(null));
    routes.set(presence, through(presenceHandler, presence));
    resolve(presence);
    return presence;
  };
  try {
    executor(resolve, reject, resolveWithPresence);
  } catch (error) {
    reject(error);
  }
  return promise;
}
HandledPromise.prototype = Promise.prototype;
HandledPromise.resolve = value => Promise.resolve(value);
HandledPromise.reject = reason => Promise.reject(reason);
HandledPromise.applyMethod = (target, name, args) => eventually(target, name, [...args]);
HandledPromise.applyMethodSendOnly = (target, name, args) => forget(eventually(target, name, [...args], false));
HandledPromise.applyFunction = (target, args) => eventually(target, undefined, [...args]);
HandledPromise.applyFunctionSendOnly = (target, args) => forget(eventually(target, undefined, [...args], false));
HandledPromise.get = (target, name) => then(Promise.resolve(target), t => t[name]);
HandledPromise.getSendOnly = (target, name) => forget(HandledPromise.get(target, name));
