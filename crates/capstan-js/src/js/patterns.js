// Patterns and guards (04 §9): what a value must look like, said in copy data. A pattern is a key, which matches its
// equals, a record or an array of patterns, or a tagged `match:…`; a guard is tagged `guard:…`.
import { harden, keys, isObject, ownKeys, then } from 'capstan:lockdown';
import { passStyleOf, makeTagged, isPromise, isRemotable, symbolName, PASS_STYLE } from 'capstan:passable';
import { provideShapes } from 'capstan:shapes';

// ---- Texts.
const plain = value => {
  if (typeof value === 'bigint') return `[${value}n]`;
  if (typeof value === 'symbol') return `[${String(value)}]`;
  if (value === undefined || (typeof value === 'number' && !Number.isFinite(value))) return `[${value}]`;
  if (!isObject(value) || Array.isArray(value)) return value;
  if (isPromise(value)) return '[Promise]';
  if (value instanceof Error) return `[${value.name}: ${value.message}]`;
  const tag = value[Symbol.toStringTag];
  return tag === undefined ? value : `[${String(tag)}]`;
};
const text = value => JSON.stringify(plain(value), (_key, inner) => plain(inner)) ?? `${value}`;

// ---- Styles of values that are known to be passable.
const tagOf = value => value[Symbol.toStringTag];
const style = value => {
  if (value === null) return 'null';
  if (!isObject(value)) return typeof value;
  if (isPromise(value)) return 'promise';
  if (Array.isArray(value)) return 'copyArray';
  if (value[PASS_STYLE] === 'tagged') return tagOf(value);
  return isRemotable(value) ? 'remotable' : value instanceof Error ? 'error' : 'copyRecord';
};
const SCALARS = ['undefined', 'null', 'boolean', 'number', 'bigint', 'string', 'symbol', 'remotable'];
const isScalar = value => SCALARS.includes(style(value));
const isKey = value => {
  switch (style(value)) {
    case 'copyArray': return value.every(isKey);
    case 'copyRecord': return keys(value).every(name => isKey(value[name]));
    case 'copySet': case 'copyBag': return value.payload.every(isKey);
    case 'copyMap': return isKey(value.payload.keys) && isKey(value.payload.values);
    default: return isScalar(value);
  }
};
// Negative, 0 or positive; NaN when the two cannot be compared.
const compare = (a, b) => {
  if (Object.is(a, b)) return 0;
  const kind = style(a);
  if (kind !== style(b)) return NaN;
  switch (kind) {
    case 'number':
      return a < b ? -1 : a > b ? 1 : a === b ? 0 : NaN;
    case 'bigint': case 'string': case 'boolean':
      return a < b ? -1 : a > b ? 1 : 0;
    case 'copyArray': {
      for (let i = 0; i < a.length && i < b.length; i += 1) {
        const one = compare(a[i], b[i]);
        if (one !== 0) return one;
      }
      return a.length - b.length;
    }
    case 'copyRecord': {
      const names = keys(a);
      if (names.length !== keys(b).length || !names.every(name => Object.hasOwn(b, name))) return NaN;
      const parts = names.map(name => compare(a[name], b[name])).filter(one => one !== 0);
      if (parts.length === 0) return 0;
      return parts.every(one => one < 0) ? -1 : parts.every(one => one > 0) ? 1 : NaN;
    }
    case 'copySet': case 'copyBag': case 'copyMap':
      return compare(a.payload, b.payload) === 0 ? 0 : NaN;
    default: return NaN;
  }
};

// ---- Matching. A mismatch is a function that tells the reason, for few are asked.
const under = (label, mismatch) => mismatch && (() => `${label}: ${mismatch()}`);
const first = (list, check) => {
  for (let i = 0; i < list.length; i += 1) {
    const mismatch = check(list[i], i);
    if (mismatch) return mismatch;
  }
  return undefined;
};
const equal = (value, key) => (isKey(value) && compare(value, key) === 0 ? undefined : () => `${text(value)} - Must be: ${text(key)}`);
const ofKind = (value, kind) => {
  if (kind === 'undefined') return equal(value, undefined);
  if (kind === 'null') return equal(value, null);
  return style(value) === kind ? undefined : () => `${style(value)} ${text(value)} - Must be a ${kind}`;
};
const LIMITS = {
  decimalDigitsLimit: 100, stringLengthLimit: 100_000, symbolNameLengthLimit: 100, numPropertiesLimit: 80, propertyNameLengthLimit: 100, arrayLengthLimit: 10_000,
};
const limit = (limits, name) => limits?.[name] ?? LIMITS[name];
const digits = (value, limits) => {
  const most = limit(limits, 'decimalDigitsLimit');
  return `${value < 0n ? -value : value}`.length <= most ? undefined : () => `bigint ${text(value)} must not have more than ${most} digits`;
};
const ordered = (sign, holds) => (value, key) => (holds(compare(value, key)) ? undefined : () => `${text(value)} - Must be ${sign} ${text(key)}`);
const isUndefinedPattern = pattern => pattern === undefined || (style(pattern) === 'match:kind' && pattern.payload === 'undefined');
const optional = (value, pattern) => (value === undefined ? undefined : mismatchOf(value, pattern));

const MATCHERS = {
  __proto__: null,
  'match:any': () => undefined,
  'match:and': (value, patterns) => first(patterns, pattern => mismatchOf(value, pattern)),
  'match:or': (value, patterns) => {
    // "this or undefined" tells what is wrong with this.
    const lone = patterns.length === 2 ? patterns.findIndex(isUndefinedPattern) : -1;
    if (lone >= 0) return optional(value, patterns[1 - lone]);
    if (patterns.some(pattern => !mismatchOf(value, pattern))) return undefined;
    return () => `${text(value)} - ${patterns.length === 0 ? 'no pattern disjuncts to match:' : 'Must match one of'} ${text(patterns)}`;
  },
  'match:not': (value, pattern) => (mismatchOf(value, pattern) ? undefined : () => `${text(value)} - Must fail negated pattern: ${text(pattern)}`),
  'match:scalar': value => (isScalar(value) ? undefined : () => `A ${text(style(value))} cannot be a scalar key: ${text(value)}`),
  'match:key': value => (isKey(value) ? undefined : () => `A ${text(style(value))} cannot be a key: ${text(value)}`),
  'match:pattern': value => flaw(value),
  'match:kind': ofKind,
  'match:bigint': (value, [limits]) => ofKind(value, 'bigint') ?? digits(value, limits),
  'match:nat': (value, [limits]) => ofKind(value, 'bigint') ?? (value < 0n ? () => `${text(value)} - Must be non-negative` : digits(value, limits)),
  'match:string': (value, [limits]) => {
    const most = limit(limits, 'stringLengthLimit');
    return ofKind(value, 'string') ?? (value.length > most ? () => `string ${text(value)} must not be bigger than ${most}` : undefined);
  },
  'match:symbol': (value, [limits]) => {
    const most = limit(limits, 'symbolNameLengthLimit');
    return ofKind(value, 'symbol') ?? (symbolName(value).length > most ? () => `Symbol name ${text(symbolName(value))} must not be bigger than ${most}` : undefined);
  },
  'match:remotable': (value, { label }) => (style(value) === 'remotable' ? undefined : () => `${text(value)} - Must be a remotable ${label}, not ${style(value)}`),
  'match:lt': ordered('<', order => order < 0),
  'match:lte': ordered('<=', order => order <= 0),
  'match:gte': ordered('>=', order => order >= 0),
  'match:gt': ordered('>', order => order > 0),
  'match:arrayOf': (value, [pattern, limits]) => {
    const most = limit(limits, 'arrayLengthLimit');
    const wrong = ofKind(value, 'copyArray');
    if (wrong) return wrong;
    if (value.length > most) return () => `Array length ${value.length} must be <= limit ${most}`;
    return first(value, (one, i) => under(`[${i}]`, mismatchOf(one, pattern)));
  },
  'match:recordOf': (value, [namePattern, pattern, limits]) => {
    const most = limit(limits, 'numPropertiesLimit');
    const wrong = ofKind(value, 'copyRecord');
    if (wrong) return wrong;
    const names = keys(value);
    if (names.length > most) return () => `Must not have more than ${most} properties: ${text(value)}`;
    const longest = limit(limits, 'propertyNameLengthLimit');
    return first(names, name => under(name, name.length > longest
      ? () => `Property name must not be longer than ${longest}`
      : under('[0]', mismatchOf(name, namePattern)) ?? under('[1]', mismatchOf(value[name], pattern))));
  },
  'match:splitArray': (value, [required, extra = [], rest = undefined]) => {
    const wrong = ofKind(value, 'copyArray');
    if (wrong) return wrong;
    if (value.length < required.length) return () => `Expected at least ${required.length} arguments: ${text(value)}`;
    const split = required.length + extra.length;
    return first(required, (pattern, i) => under(`arg ${i}`, mismatchOf(value[i], pattern)))
      ?? first(extra, (pattern, i) => under(`arg ${required.length + i}?`, optional(value[required.length + i], pattern)))
      ?? (rest === undefined ? undefined : under('...rest', mismatchOf(harden(value.slice(split)), rest)));
  },
  'match:splitRecord': (value, [required, extra = {}, rest = undefined]) => {
    const wrong = ofKind(value, 'copyRecord');
    if (wrong) return wrong;
    const missing = keys(required).filter(name => !Object.hasOwn(value, name)).sort();
    if (missing.length > 0) {
      const present = Object.fromEntries(keys(value).filter(name => Object.hasOwn(required, name)).map(name => [name, value[name]]));
      return () => `${text(present)} - Must have missing properties ${text(missing)}`;
    }
    const others = keys(value).filter(name => !Object.hasOwn(required, name));
    const more = others.filter(name => !Object.hasOwn(extra, name));
    return first(keys(required).sort(), name => under(name, mismatchOf(value[name], required[name])))
      ?? first(others.filter(name => Object.hasOwn(extra, name)), name => under(`${name}?`, optional(value[name], extra[name])))
      ?? (rest === undefined ? undefined : under('...rest', mismatchOf(harden(Object.fromEntries(more.map(name => [name, value[name]]))), rest)));
  },
};
const mismatchOf = (value, pattern) => {
  if (isKey(pattern)) return equal(value, pattern);
  const kind = style(pattern);
  if (kind === 'copyArray') {
    if (style(value) !== 'copyArray') return () => `${text(value)} - Must be a copyArray to match a copyArray pattern: ${text(pattern)}`;
    if (value.length !== pattern.length) return () => `Array ${text(value)} - Must be as long as copyArray pattern: ${text(pattern)}`;
    return first(pattern, (one, i) => under(i, mismatchOf(value[i], one)));
  }
  if (kind === 'copyRecord') {
    if (style(value) !== 'copyRecord') return () => `${text(value)} - Must be a copyRecord to match a copyRecord pattern: ${text(pattern)}`;
    const names = keys(pattern).sort();
    const missing = names.filter(name => !Object.hasOwn(value, name));
    if (missing.length > 0) return () => `${text(value)} - Must have missing properties ${text(missing)}`;
    const unexpected = keys(value).filter(name => !Object.hasOwn(pattern, name)).sort();
    if (unexpected.length > 0) return () => `${text(value)} - Must not have unexpected properties: ${text(unexpected)}`;
    return first(names, name => under(name, mismatchOf(value[name], pattern[name])));
  }
  const matcher = MATCHERS[kind];
  if (matcher === undefined) throw TypeError(`pattern expected: ${text(pattern)}`);
  return matcher(value, pattern.payload);
};

// ---- What makes no pattern.
const isArrayOfPatterns = value => style(value) === 'copyArray' && !value.some(flaw);
const isRecordOfPatterns = value => style(value) === 'copyRecord' && !keys(value).some(name => flaw(value[name]));
const areLimits = value => value === undefined || (style(value) === 'copyRecord' && keys(value).every(name => typeof value[name] === 'number'));
const limited = count => payload => style(payload) === 'copyArray' && (payload.length === count || payload.length === count + 1)
  && !payload.slice(0, count).some(flaw) && areLimits(payload[count]);
const splitOf = isPart => payload => style(payload) === 'copyArray' && payload.length >= 1 && payload.length <= 3 && isPart(payload[0])
  && (payload[1] === undefined || isPart(payload[1])) && !flaw(payload[2]);
const nothing = payload => payload === undefined;
const PAYLOADS = {
  __proto__: null,
  'match:any': nothing, 'match:scalar': nothing, 'match:key': nothing, 'match:pattern': nothing,
  'match:and': isArrayOfPatterns, 'match:or': isArrayOfPatterns, 'match:not': payload => !flaw(payload),
  'match:kind': payload => typeof payload === 'string',
  'match:bigint': limited(0), 'match:nat': limited(0), 'match:string': limited(0), 'match:symbol': limited(0),
  'match:remotable': payload => style(payload) === 'copyRecord' && typeof payload.label === 'string',
  'match:lt': isKey, 'match:lte': isKey, 'match:gte': isKey, 'match:gt': isKey,
  'match:arrayOf': limited(1), 'match:recordOf': limited(2),
  'match:splitArray': splitOf(isArrayOfPatterns), 'match:splitRecord': splitOf(isRecordOfPatterns),
};
const flaw = value => {
  if (isKey(value)) return undefined;
  const kind = style(value);
  if (kind === 'copyArray') return first(value, flaw);
  if (kind === 'copyRecord') return first(keys(value), name => flaw(value[name]));
  if (PAYLOADS[kind]?.(value.payload)) return undefined;
  return () => `A passable of kind ${text(kind)} is not a pattern: ${text(value)}`;
};
// Patterns found good once are not looked at again.
const good = new WeakSet();
export const assertPattern = pattern => {
  if (isObject(pattern) && good.has(pattern)) return;
  passStyleOf(harden(pattern));
  const wrong = flaw(pattern);
  if (wrong) throw TypeError(wrong());
  if (isObject(pattern)) good.add(pattern);
};

export const matches = (value, pattern) => {
  assertPattern(pattern);
  try {
    passStyleOf(harden(value));
  } catch {
    return false;
  }
  return mismatchOf(value, pattern) === undefined;
};
export const mustMatch = (value, pattern, label = undefined) => {
  assertPattern(pattern);
  const prefix = label === undefined ? '' : `${label}: `;
  try {
    passStyleOf(harden(value));
  } catch (error) {
    throw TypeError(`${prefix}${error.message}`);
  }
  const mismatch = mismatchOf(value, pattern);
  if (mismatch) throw Error(prefix + mismatch());
};

// ---- The vocabulary.
const matcher = (tag, payload) => {
  const pattern = makeTagged(tag, payload);
  assertPattern(pattern);
  return pattern;
};
const withLimits = (tag, parts, limits) => matcher(tag, limits === undefined ? parts : [...parts, limits]);
const kind = name => {
  const pattern = matcher('match:kind', name);
  return () => pattern;
};
const splitParts = (base, extra, rest, empty) => (rest !== undefined ? [base, extra ?? empty, rest] : extra !== undefined ? [base, extra] : [base]);
const ANY = matcher('match:any', undefined);
const isGuard = (value, tag) => isObject(value) && value[PASS_STYLE] === 'tagged' && tagOf(value) === tag;
const isRaw = value => isGuard(value, 'guard:rawGuard');
const isAwait = value => isGuard(value, 'guard:awaitArgGuard');
const RAW = makeTagged('guard:rawGuard', {});

const methodGuard = (callKind, argGuards, optionalArgGuards = undefined, restArgGuard = undefined) => harden({
  optional: (...guards) => {
    if (optionalArgGuards !== undefined || restArgGuard !== undefined) throw TypeError('optional argument guards come once, and before the rest');
    return methodGuard(callKind, argGuards, guards);
  },
  rest: guard => {
    if (restArgGuard !== undefined) throw TypeError('there is only one guard of the rest');
    return methodGuard(callKind, argGuards, optionalArgGuards, guard);
  },
  returns: (returnGuard = M.undefined()) => {
    for (const guard of [...argGuards, ...(optionalArgGuards ?? [])]) {
      if (isAwait(guard)) {
        if (callKind !== 'async') throw TypeError('M.await is for M.callWhen');
      } else if (!isRaw(guard)) assertPattern(guard);
    }
    for (const guard of [restArgGuard, returnGuard]) if (!isRaw(guard)) assertPattern(guard);
    return makeTagged('guard:methodGuard', { callKind, argGuards, optionalArgGuards, restArgGuard, returnGuard });
  },
});
export const M = {
  any: () => ANY,
  and: (...patterns) => matcher('match:and', patterns),
  or: (...patterns) => matcher('match:or', patterns),
  not: pattern => matcher('match:not', pattern),
  scalar: () => matcher('match:scalar', undefined),
  key: () => matcher('match:key', undefined),
  pattern: () => matcher('match:pattern', undefined),
  kind: name => matcher('match:kind', name),
  undefined: kind('undefined'), boolean: kind('boolean'), number: kind('number'), error: kind('error'), promise: kind('promise'),
  null: () => null,
  bigint: limits => withLimits('match:bigint', [], limits),
  nat: limits => withLimits('match:nat', [], limits),
  string: limits => withLimits('match:string', [], limits),
  symbol: limits => withLimits('match:symbol', [], limits),
  remotable: label => (label === undefined ? matcher('match:kind', 'remotable') : matcher('match:remotable', { label })),
  array: limits => withLimits('match:arrayOf', [ANY], limits),
  arrayOf: (pattern = ANY, limits = undefined) => withLimits('match:arrayOf', [pattern], limits),
  record: limits => withLimits('match:recordOf', [ANY, ANY], limits),
  recordOf: (name = ANY, value = ANY, limits = undefined) => withLimits('match:recordOf', [name, value], limits),
  splitArray: (base, extra, rest) => matcher('match:splitArray', splitParts(base, extra, rest, [])),
  splitRecord: (base, extra, rest) => matcher('match:splitRecord', splitParts(base, extra, rest, {})),
  eq: key => {
    if (!isKey(harden(key))) throw TypeError(`not a key: ${text(key)}`);
    return key === undefined ? M.undefined() : key;
  },
  neq: key => M.not(M.eq(key)),
  lt: key => matcher('match:lt', key), lte: key => matcher('match:lte', key), gte: key => matcher('match:gte', key), gt: key => matcher('match:gt', key),
  eref: pattern => M.or(pattern, M.promise()),
  opt: pattern => M.or(M.undefined(), pattern),
  await: pattern => {
    assertPattern(pattern);
    return makeTagged('guard:awaitArgGuard', { argGuard: pattern });
  },
  raw: () => RAW,
  call: (...guards) => methodGuard('sync', guards),
  callWhen: (...guards) => methodGuard('async', guards),
  interface: (interfaceName, methodGuards, { sloppy = false, defaultGuards = sloppy ? 'passable' : undefined } = {}) => {
    if (typeof interfaceName !== 'string') throw TypeError('an interface needs a name');
    if (defaultGuards !== undefined && defaultGuards !== 'passable' && defaultGuards !== 'raw') throw TypeError(`Unrecognized defaultGuards ${text(defaultGuards)}`);
    const named = {};
    const symbols = [];
    for (const name of ownKeys(methodGuards)) {
      if (!isGuard(methodGuards[name], 'guard:methodGuard')) throw TypeError(`${String(name)} of ${text(interfaceName)} is not a method guard`);
      if (typeof name === 'string') named[name] = methodGuards[name];
      else symbols.push(name);
    }
    const bySymbol = symbols.length === 0 ? {} : { symbolMethodGuards: makeTagged('copyMap', { keys: symbols, values: symbols.map(name => methodGuards[name]) }) };
    return makeTagged('guard:interfaceGuard', { interfaceName, methodGuards: named, ...bySymbol, defaultGuards });
  },
};

// ---- Guards at work.
const HIDDEN = '<redacted raw arg>';
const visible = guard => (isRaw(guard) ? HIDDEN : guard);
// Says how arguments become those that the method gets; throws if they may not.
const defence = ({ argGuards, optionalArgGuards = [], restArgGuard }, label) => {
  const declared = [...argGuards, ...optionalArgGuards];
  const raw = declared.map(isRaw);
  const rest = isRaw(restArgGuard) ? undefined : restArgGuard;
  const pattern = M.splitArray(argGuards.map(visible), optionalArgGuards.map(visible), rest);
  return args => {
    const known = args.slice(0, declared.length).map((arg, i) => (raw[i] ? HIDDEN : arg));
    mustMatch(harden(rest === undefined ? known : [...known, ...args.slice(declared.length)]), pattern, label);
    return restArgGuard === undefined ? args.slice(0, declared.length) : args;
  };
};
const checkResult = (result, guard, label) => {
  if (!isRaw(guard)) mustMatch(harden(result), guard, `${label}: result`);
  return result;
};
const PASSABLE = M.call().rest(ANY).returns(ANY);
const wrap = (guard, method, label) => {
  const { callKind, returnGuard, ...payload } = guard.payload;
  if (callKind === 'sync') {
    const defend = defence(payload, label);
    return (context, args) => checkResult(method(context, defend(args)), returnGuard, label);
  }
  const { argGuards, optionalArgGuards = [], restArgGuard } = payload;
  const inner = list => list.map(one => (isAwait(one) ? one.payload.argGuard : one));
  const waits = [...argGuards, ...optionalArgGuards].map(isAwait);
  const defend = defence({ argGuards: inner(argGuards), optionalArgGuards: inner(optionalArgGuards), restArgGuard }, label);
  return (context, args) => {
    const settled = Promise.all(args.map((arg, i) => (waits[i] ? arg : undefined)));
    const called = then(settled, values => method(context, defend(args.map((arg, i) => (waits[i] ? values[i] : arg)))));
    return then(called, result => checkResult(result, returnGuard, label));
  };
};
// For the methods of one object: `(name, method, label) => guarded method`, where `method(context, args)`.
const guarded = (tag, guard, names) => {
  if (!isGuard(guard, 'guard:interfaceGuard')) throw TypeError(`${tag}: an interface guard is needed`);
  const { interfaceName, methodGuards, symbolMethodGuards, sloppy, defaultGuards = sloppy ? 'passable' : undefined } = guard.payload;
  const all = new Map(keys(methodGuards).map(name => [name, methodGuards[name]]));
  symbolMethodGuards?.payload.keys.forEach((name, i) => all.set(name, symbolMethodGuards.payload.values[i]));
  const listed = list => text(list.map(String));
  const missing = [...all.keys()].filter(name => !names.includes(name));
  if (missing.length > 0) throw Error(`methods ${listed(missing)} not implemented by ${text(tag)}`);
  const unguarded = names.filter(name => !all.has(name));
  if (defaultGuards === undefined && unguarded.length > 0) throw Error(`methods ${listed(unguarded)} not guarded by ${text(interfaceName)}`);
  return (name, method, label) => {
    const one = all.get(name) ?? (defaultGuards === 'raw' ? undefined : PASSABLE);
    return one === undefined ? method : wrap(one, method, label);
  };
};

harden([M, matches, mustMatch, assertPattern]);
provideShapes({ mustMatch, matches, assertPattern, guarded });
