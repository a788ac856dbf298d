// Smallcaps (01 §5): a value as `#` and JSON text, with references by index into slots.
import { harden, freeze, create, keys, defineProperty, isObject } from 'capstan:lockdown';
import { PASS_STYLE, passStyleOf, getInterfaceOf, makeTagged, symbolName, symbolNamed } from 'capstan:passable';

const special = text => text.length > 0 && text.charCodeAt(0) >= 0x21 && text.charCodeAt(0) <= 0x2d;
// error -> the name it has in logs, given by the vat that first sent it.
export const errorIds = new WeakMap();
const escapeText = text => (special(text) ? `!${text}` : text);

const refer = (to, value, sigil) => {
  to.indices ??= new Map();
  const known = to.indices.get(value);
  if (known !== undefined) return `${sigil}${known}`;
  const index = to.slots.length;
  to.indices.set(value, index);
  to.slots.push(to.toSlot(value));
  return sigil === '$' ? `$${index}.${getInterfaceOf(value)}` : `&${index}`;
};
// What JSON is to say of a value that was found passable.
const written = (to, value) => {
  switch (typeof value) {
    case 'string': return escapeText(value);
    case 'number': return Number.isFinite(value) ? value : `#${value}`;
    case 'boolean': return value;
    case 'undefined': return '#undefined';
    case 'bigint': return value < 0n ? `${value}` : `+${value}`;
    case 'symbol': return `%${symbolName(value)}`;
    case 'function': return refer(to, value, '$');
    default:
  }
  if (value === null) return null;
  if (Array.isArray(value)) {
    const list = [];
    for (let i = 0; i < value.length; i += 1) list[i] = written(to, value[i]);
    return list;
  }
  if (value instanceof Promise) return refer(to, value, '&');
  const style = value[PASS_STYLE];
  if (style === 'remotable') return refer(to, value, '$');
  if (style === 'tagged') return { '#tag': escapeText(String(value[Symbol.toStringTag])), payload: written(to, value.payload) };
  if (value instanceof Error) {
    const errorId = to.errorName(value);
    const name = escapeText(`${value.name}`);
    const known = errorId === undefined ? {} : { errorId: escapeText(errorId) };
    return { '#error': escapeText(`${value.message}`), ...known, name };
  }
  const out = create(null);
  for (const key of keys(value).sort()) out[escapeText(key)] = written(to, value[key]);
  return out;
};

// `toSlot(value)` names an object or promise, `errorName(error)`, if given, an error for the log. The value is
// hardened here, before it is read.
export const encode = (root, toSlot, errorName = errorIds.get.bind(errorIds)) => {
  harden(root);
  passStyleOf(root);
  const to = { slots: [], indices: undefined, toSlot, errorName };
  return { body: `#${JSON.stringify(written(to, root))}`, slots: to.slots };
};

const CONSTANTS = new Map([['#undefined', undefined], ['#NaN', NaN], ['#Infinity', Infinity], ['#-Infinity', -Infinity]]);
const ERRORS = new Map([TypeError, RangeError, SyntaxError, ReferenceError, EvalError, URIError].map(C => [C.name, C]));
const BIGINT = /^[+-]\d+$/;
const REFERENCE = /^[$&](0|[1-9]\d*)(?:\.(.*))?$/s;

const referred = (from, text) => {
  const { slots, values } = from;
  const match = REFERENCE.exec(text);
  const index = match ? Number(match[1]) : -1;
  if (!match || index >= slots.length) throw TypeError(`bad reference ${JSON.stringify(text)}`);
  const wanted = text[0] === '$' ? 'o' : 'p';
  if (slots[index][0] !== wanted || (wanted === 'p' && match[2] !== undefined)) throw TypeError(`reference ${JSON.stringify(text)} does not fit its slot`);
  if (!(index in values)) values[index] = from.fromSlot(slots[index], match[2]);
  return values[index];
};
const readText = (from, value) => {
  switch (value[0]) {
    case '!': return value.slice(1);
    case '#':
      if (!CONSTANTS.has(value)) throw TypeError(`unknown constant ${JSON.stringify(value)}`);
      return CONSTANTS.get(value);
    case '+': case '-':
      if (!BIGINT.test(value)) throw TypeError(`bad bigint ${JSON.stringify(value)}`);
      return BigInt(value[0] === '+' ? value.slice(1) : value);
    case '%': return symbolNamed(value.slice(1));
    case '$': case '&': return referred(from, value);
    case '"': case "'": case '(': case ')': case '*': case ',': throw TypeError(`reserved prefix in ${JSON.stringify(value)}`);
    default: return value;
  }
};
const mustBeText = (from, value) => {
  const out = typeof value === 'string' ? readText(from, value) : undefined;
  if (typeof out !== 'string') throw TypeError('expected a string');
  return out;
};
const read = (from, value) => {
  if (typeof value === 'string') return readText(from, value);
  if (!isObject(value)) return value;
  if (Array.isArray(value)) {
    const list = [];
    for (let i = 0; i < value.length; i += 1) list[i] = read(from, value[i]);
    return freeze(list);
  }
  const names = keys(value);
  if (Object.hasOwn(value, '#error')) {
    const name = mustBeText(from, value.name);
    const error = (ERRORS.get(name) ?? Error)(mustBeText(from, value['#error']));
    if (error.name !== name) defineProperty(error, 'name', { value: name });
    if (Object.hasOwn(value, 'errorId')) errorIds.set(error, mustBeText(from, value.errorId));
    return harden(error);
  }
  if (Object.hasOwn(value, '#tag')) {
    if (names.length !== 2 || !Object.hasOwn(value, 'payload')) throw TypeError('bad tagged value');
    return makeTagged(mustBeText(from, value['#tag']), read(from, value.payload));
  }
  const out = {};
  for (const name of names) {
    if (name[0] === '#') throw TypeError(`unescaped key ${JSON.stringify(name)}`);
    defineProperty(out, mustBeText(from, name), { value: read(from, value[name]), enumerable: true, writable: true, configurable: true });
  }
  return freeze(out);
};

// `fromSlot(vref, iface)` gives the object or promise. Returns a value frozen in depth.
export const decode = (body, slots, fromSlot) => {
  if (body[0] !== '#') throw TypeError('body is not smallcaps');
  return read({ slots, values: [], fromSlot }, JSON.parse(body.slice(1))); // each part was frozen where it was made
};
