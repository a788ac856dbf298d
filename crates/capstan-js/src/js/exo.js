// Exos (04 §1, §9): objects whose methods get `{ self, state }` or `{ facets, state }` as `this`, checked by guards.
// These live in memory; the durable ones are kinds.
import { harden, freeze, create, keys, isObject, ownKeys, RealWeakMap } from 'capstan:lockdown';
import { makeTagged } from 'capstan:passable';
import { facetPrototype } from 'capstan:kinds';
import { mustMatch } from 'capstan:shapes';

const define = (tag, prototypesFor, init, options = {}) => {
  const { finish = undefined, stateShape = undefined, receiveInstanceTester = undefined, receiveAmplifier = undefined } = options;
  const contexts = new RealWeakMap();
  const prototypes = prototypesFor(contexts);
  const isKit = Array.isArray(prototypes);
  receiveInstanceTester?.(harden((object, facet = undefined) => {
    const context = isObject(object) ? contexts.get(object) : undefined;
    return context !== undefined && (facet === undefined || context.facets?.[facet] === object);
  }));
  if (receiveAmplifier !== undefined) {
    if (!isKit) throw TypeError(`${tag}: only facets of a kit can be amplified`);
    receiveAmplifier(harden(facet => {
      const context = isObject(facet) ? contexts.get(facet) : undefined;
      if (context === undefined) throw TypeError(`Must be a facet of ${JSON.stringify(tag)}`);
      return context.facets;
    }));
  }
  return harden((...args) => {
    const state = Object.seal({ ...(init === undefined ? {} : init(...args)) });
    if (stateShape !== undefined) mustMatch(harden({ ...state }), stateShape, `state of ${JSON.stringify(tag)}`);
    const context = { state };
    const one = prototype => {
      const object = freeze(create(prototype));
      contexts.set(object, context);
      return object;
    };
    const made = isKit ? freeze(Object.fromEntries(prototypes.map(([name, prototype]) => [name, one(prototype)]))) : one(prototypes);
    context[isKit ? 'facets' : 'self'] = made;
    freeze(context);
    finish?.(context);
    return made;
  });
};
// Without a guard, arguments and results must be passable.
export const makeDefaultInterface = name => makeTagged('guard:interfaceGuard', { interfaceName: name, methodGuards: {}, defaultGuards: 'passable' });
const prototypeOf = (tag, guard, methods, contexts) => facetPrototype(tag, methods, contexts, { thisfulMethods: true, interfaceGuard: guard, passable: true });

export const defineExoClass = (tag, guard, init, methods, options) => define(tag, contexts => prototypeOf(tag, guard, methods, contexts), init, options);
export const defineExoClassKit = (tag, guards, init, methodsKit, options) => {
  const names = ownKeys(methodsKit).sort();
  if (names.length < 2) throw TypeError('A multi-facet object must have multiple facets');
  if (guards !== undefined) {
    const unguarded = names.filter(name => !Object.hasOwn(guards, name));
    if (unguarded.length > 0) throw TypeError(`Facets ${JSON.stringify(unguarded)} of ${JSON.stringify(tag)} not guarded by interfaces`);
    const missing = keys(guards).filter(name => !names.includes(name));
    if (missing.length > 0) throw TypeError(`Interfaces ${JSON.stringify(missing)} not implemented by ${JSON.stringify(tag)}`);
  }
  return define(tag, contexts => names.map(name => [name, prototypeOf(`${tag} ${name}`, guards?.[name], methodsKit[name], contexts)]), init, options);
};
export const makeExo = (tag, guard, methods, options) => defineExoClass(tag, guard, undefined, methods, options)();
export const makeDefaultExo = (name, methods, guard = undefined) => makeExo(name, guard, methods);

// An exo that tells what its methods are for: all of them, or those asked about.
export const makeDiscoverableExo = (name, methods, schemas, guard = undefined) => {
  if ('__getDescription__' in methods) throw TypeError('the method name __getDescription__ is reserved');
  harden(schemas);
  const one = method => {
    if (!Object.hasOwn(schemas, method)) throw TypeError(`no description of method ${JSON.stringify(String(method))}`);
    return [method, schemas[method]];
  };
  const described = { ...methods, __getDescription__: (...names) => (names.length === 0 ? schemas : harden(Object.fromEntries(names.map(one)))) };
  // What a guard says of the methods, it says of those that are the vat's.
  const wider = guard && makeTagged('guard:interfaceGuard', { ...guard.payload, defaultGuards: guard.payload.defaultGuards ?? 'passable' });
  return makeDefaultExo(name, described, wider);
};

harden([makeExo, defineExoClass, defineExoClassKit, makeDefaultExo, makeDefaultInterface, makeDiscoverableExo]);
